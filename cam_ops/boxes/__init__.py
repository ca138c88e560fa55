"""A raw map to boxes.

* `kernels`: the loops over pixels
* `normalise`: enlarge and normalise a map
* `regions`: the connected regions of a map
* `peaks`: regions split at the map's peaks
* `extract`: boxes of a map
* `calibration`: thresholds of classes, probabilities of boxes, applied
"""
