"""Pictures that are files of their own, here or on a store.

* `names`: which names mean pictures
* `folder`: pictures below a folder
* `prefix`: pictures below a folder on a store
* `picture`: a single one
* `patterns`: brace ranges and wildcards
"""
