"""A batch of pictures to raw maps of the wanted classes.

* `methods`: features and gradients to raw maps
* `passes`: one forward pass, its features and gradients
* `attention`: LeGrad
* `explainer`: any method at any cut
* `refine`: maps refined from the network's own features
* `joint`: a network and its refined maps as two graphs
* `forward`: pixels to features and refined maps, compiled ahead of time
* `mapper`: scales and mirrored pictures, averaged
* `scores`: scores, and which classes to explain
"""
