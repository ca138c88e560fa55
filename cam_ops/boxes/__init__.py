"""A raw map to boxes.

* `normalise`: enlarge and normalise a map
* `extract`: boxes of a map
* `calibration`: thresholds of classes, probabilities of boxes, applied
"""
