"""`audit`: how well a run localizes, from its maps and boxes.

* `config`: its flags
* `driver`: count on replicas, add up, write the figures
* `replica`: one replica: some shards in, rows and counts out
* `shard`: a shard's maps and boxes by image and class
* `judge`: a shard against its truth, image by image
* `matches`: an image's boxes matched to its true ones
* `detections`: average precision from the matches of all images
* `summary`: the rows of all images, and what is read off them
* `tables`: schemas of an audit's tables
* `files`: what an audit leaves, read again
"""
