"""Ground truth matched to a run's plan, published in one frame.

* `prepare`: read, match, publish: what an audit calls
* `matching`: a truth's images matched to the plan's
* `rows`: boxes of a truth in the frame of the run's own
* `classes`: words for classes
* `problems`: what is wrong with a truth, counted
"""
