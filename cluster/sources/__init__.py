"""The pictures of a dataset: list them once, read one later, possibly on another machine.

* `kinds`: which kind of source an address is
* `listing`: images as a stream of record batches
* `sorting`: sort a listing on disk
* `folder`: pictures below a folder, here or on a store
* `manifest`: what a Parquet or CSV file names
* `tars`: pictures in WebDataset's tar files
* `tar_members`: a tar file's headers, one after the other
* `stl10`: STL10's binary files
* `labels`: the class of each image
* `reading`: the bytes of one image, and its decoder
"""
