"""Annotation formats, a file each: read for `--truth`. Its coordinate convention stands in its docstring.

* `entries`: what annotations say, whatever their format
* `files`: open a file of annotations: bounded, its errors as one sentence
* `detect`: which format a truth has
* `coco`: COCO instances
* `pascal_voc`: Pascal VOC XML
* `yolo`: YOLO text files
* `loc_csv`: ImageNet's LOC CSV
* `wsol`: wsolevaluation's metadata
* `table`: CSV or Parquet, a box a row
* `tar`: boxes in WebDataset's tar files
* `masks`: masks as PNG
"""
