"""`export`: a run as a dataset for another tool.

* `config`: its flags
* `driver`: begin, have parts written, join them, give the export its name
* `replica`: one replica: a part's shards in, its files out
* `kinds`: the formats
* `selecting`: what the flags mean for a run
* `like`: the ids of another dataset
* `records`: from a shard's tables to pictures
* `filters`: which boxes go out
* `splits`: train, val and so on
* `names`: names of pictures' files
* `pictures`: the pictures themselves, linked or written
* `destination`: where it goes, whole or not at all
* `marks`: by what an export is known: markers and records
* `place_folder`: a local folder as such a place
* `place_store`: a store as such a place
* `counts`: what was written, what was left out
"""
