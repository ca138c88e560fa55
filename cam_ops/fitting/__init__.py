"""A calibration, fitted to boxes of which it is known whether they are right.

* `fit`: thresholds, logistic and isotonic regression
* `recipes`: box recipes tried on maps whose objects are known
* `reliability`: how far probabilities hold
"""
