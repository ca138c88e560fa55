"""Bytes that appear whole or not at all, in a local folder or on an object store.

* `options`: `--storage-options`, parsed
* `attempts`: requests to object stores: retries, reasons
* `objects`: whole objects and ranges of them
* `pages`: pages of the listings of stores
* `listings`: what lies below an address on a store
* `files`: files by name below a root, here or on a store
* `folder`: files below a local folder: the atomic publish
* `prefix`: the same below an address on a store
* `parquet`: tables to bytes and back
* `packed`: a local file that gzip may have packed
* `named`: a local file that a flag names
* `documents`: JSON that can be read again, and what is wrong with one from outside
* `scratch`: a DuckDB file in a scratch folder
"""
