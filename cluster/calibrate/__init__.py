"""`calibrate`: box settings and probabilities from a labelled sample of a run.

* `config`: its flags
* `driver`: fit to one half of the sample, measure on the other
* `sample`: images with truth, and their maps
"""
