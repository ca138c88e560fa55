"""The pictures of a dataset: list them once, read one later, possibly on another machine.

* `source`: what a kind of source is
* `kinds`: which kind an address is
* `several`: the sources that are asked for, as one listing
* `choosing`: patterns and samples of images
* `listing`: images as a stream of record batches
* `inventory`: what a listing holds, counted, and a sample of it
* `sorting`: sort a listing on disk
* `folders`: pictures below folders, here and on stores
* `manifest`: what a table names, or holds
* `tables`: such tables: lists in text, Parquet and Arrow files
* `tars`: pictures in WebDataset's tar files
* `tar_samples`: what in a tar file belongs together
* `tar_members`: a tar file's headers, one after the other
* `stl10`: STL10's binary files
* `cifar`: those of CIFAR-10 and CIFAR-100
* `columns`: which column of a table is which
* `beside`: names of classes that stand beside their numbers
* `labels`: the class of each image
* `splits`: words for train, val and test
* `reading`: the bytes of one image, its decoder, and how EXIF turns it

To add a kind of source, write its file, which ends in a record::

    LISTS = Source(means=_is_list, check=_check, open=_open)

and give it a line in `kinds.KINDS`, before the kinds that mean its addresses too. No other file asks for kinds: what
`label` says and does of one is in its record.
"""
