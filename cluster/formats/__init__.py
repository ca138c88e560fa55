"""Annotation formats, a file each: read for `--truth`, written by `export`. Its convention stands in its docstring.

* `format`: what a format is
* `detect`: which format a truth has
* `exported`: what goes into an export, whatever its format
* `entries`: what annotations say, whatever their format
* `files`: open a file of annotations: bounded, its errors as one sentence
* `shapes`: the box of a polygon, or of a mask's run lengths
* `coco`: COCO instances
* `coco_results`: COCO's results
* `pascal_voc`: Pascal VOC XML
* `yolo`: YOLO text files
* `yolo_names`: the names of its classes
* `loc_csv`: ImageNet's LOC CSV
* `label_studio`: Label Studio's tasks
* `cvat`: CVAT for images
* `wsol`: wsolevaluation's metadata
* `table`: CSV or Parquet, a box a row
* `tar`: boxes in WebDataset's tar files
* `huggingface`: Hugging Face's datasets
* `pixels`: formats of pixels

To add a format, write its file, which ends in a record::

    LINES = Format(name="lines", frame="inclusive", recognise=_recognise, read=_read)

and give it a line in `detect.FORMATS`, before the formats that recognise its files too. `--truth-format` then takes its
name, and its `frame` is what brings its boxes into the run's. What writes a format stands beside what reads it, and
ends in an `ExportFormat`, listed in `cluster.export.kinds`.
"""
