"""How well maps and boxes localize: counts that add up over shards, and figures made of them.

* `level_sets`: regions at every threshold at once
* `wsol`: wsolevaluation's protocol
* `localization`: overlaps, pointing, energy, what went wrong
* `average_precision`: COCO's average precision of boxes
* `counts`: what an audit counts
* `figures`: from counts to figures
* `bootstrap`: weights of images, intervals
* `signals`: what maps say without ground truth
* `curves`: an audit's curves as pictures
"""
