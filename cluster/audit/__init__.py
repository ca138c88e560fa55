"""`audit`: how well a run localizes, from its maps and boxes.

* `config`: its flags
* `driver`: have replicas count, add up, write the figures
* `replica`: one replica: some shards in, rows and counts out
* `shard`: a shard's maps and boxes by image and class
* `judge`: a shard against its truth: counts, and a row an image
* `localize`: an image's map and boxes against its truth
* `signals`: what maps say without truth
* `rows`: all that is said of an image, as a row of per_image
* `matches`: an image's boxes matched to its true ones
* `detections`: average precision from the matches of all images
* `summary`: the rows of all images, and what is read off them
* `labels`: images without a label, and labels.csv for them
* `findings`: all figures, and metrics.json
* `tables`: schemas of an audit's tables
* `parts`: what replicas leave for the driver
* `named`: audits by name; the same request replaces, another is refused
* `files`: what an audit leaves: names, writing, reading again
"""
