"""Everything that moves data or schedules work, a room for each subject; what a room imports stands below it.

A picture's way: a *source* lists it, a *run*'s plan holds it, an *executor* hands out its shard, and a replica of
`label` makes boxes of it. In a command's room the same doors: `config` (its flags), `driver` (what `jobs` calls),
`replica` (what an actor holds).

* `bench`: what `bench` measures
* `report`: `report`: a run on one page
* `display`: a run as pictures
* `compare`: `compare`: what changed between two runs
* `plan`: `plan`: what `label` would do, and what it would cost
* `doctor`: `doctor`: what would keep a run from working, and the cure
* `label`: `label`: pictures to maps and boxes, the main job
* `rebox`: `rebox`: new boxes from stored maps
* `audit`: `audit`: how well a run localizes
* `calibrate`: `calibrate`: settings and probabilities from a labelled sample
* `export`: `export`: a run as a dataset for another tool
* `machine`: how a network runs on this machine
* `truth`: ground truth matched to a run's plan
* `formats`: annotation formats, a file each
* `sources`: the pictures of a dataset: list them, read one
* `runs`: a run directory: plan, request, tables, resume, proof
* `executors`: numbered shards to replicas, on Ray or here
* `storage`: bytes that appear whole or not at all, here or on a store
* `process`: this process: what it says, how it ends, a child beside it
"""
