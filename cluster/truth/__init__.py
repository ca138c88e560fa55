"""Ground truth matched to a run's plan, published in one frame.

* `prepare`: read, match, publish: what an audit calls
* `matching`: a truth's images matched to the plan's
* `frames`: whether it was drawn before or after EXIF turns a picture
* `placing`: its boxes as pixels of the picture that is seen
* `rows`: what it says of each image
* `classes`: words for classes
* `refusals`: truths that are not taken
* `problems`: what is wrong with a truth, counted
"""
