"""Networks: load one, watch it run, find where it is cut for maps.

* `load`: a network with its weights, its digest, its class names
* `weights`: a network by name with its weights in place
* `checkpoints`: what a file of weights holds, without unpickling
* `matching`: which part of a file is the network
* `renaming`: names that parameters had when weights were published
* `positions`: vision transformers at another size
* `names`: what a --model names
* `factory`: a user's own network, from a package or a file
* `inputs`: what a factory says of its network's input
* `zoo`: architectures by name: torchvision, timm, the demo's
* `dilation`: the last stage at twice the resolution
* `watch`: watch or change one forward pass
* `layers`: modules that return grids which the logits see
* `heads`: where a network is cut, and what lies behind
* `stages`: what maps are refined from
"""
