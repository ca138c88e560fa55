"""A run directory: what was asked, the plan, the tables of each shard, what is missing, proof that it is whole.

* `names`: names of a run's files
* `directory`: `RunDir`: a run's files, wherever they are
* `request`: what a run was asked to do, and its fingerprint
* `record`: run.json: written once, read by all
* `differences`: how two requests differ; the refusal to mix them
* `plan`: every image with its shard and row
* `calibration`: calibration.json, and for which maps it holds
* `membership`: a replica's part in a run; publication of a shard
* `writing`: a shard's files, and the boxes of its maps
* `reading`: a shard's tables, and what is wrong with them
* `part`: some shards of a run, or what is committed of it
* `resume`: do the shards that are missing, add up
* `log`: the log of a session: a file in log/, written while a driver is at work
* `session`: what such a file holds, bounded however long the session
* `history`: what all of them say
* `limits`: where the replicas' time went, in words
* `watching`: how far a run is, looked at again and again
* `census`: what a run's images files come to, as summary.json has it
* `agreement`: how far network and labels agree; suspected labels
* `verify`: proof that a run is whole; repair
"""
