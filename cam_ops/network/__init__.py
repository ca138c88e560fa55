"""Networks: load one, watch it run, find where it is cut for maps.

* `load`: a network with its weights, its digest, its class names
* `weighted`: a network by name with its weights in place
* `weights`: files of weights, read and matched
* `names`: what a --model names
* `factory`: a user's own network, from a package or a file
* `inputs`: what a factory says of its network's input
* `trial`: pictures to try a network with
* `statistics`: how far pictures lie from its training
* `outputs`: what a network returns, to logits
* `takes`: which pictures a network takes, tried
* `zoo`: architectures by name: torchvision, timm, the demo's
* `hub`: networks of Hugging Face's, from a folder
* `dilation`: the last stage at twice the resolution
* `grids`: which axes of a result lie over the picture
* `watch`: watch or change one forward pass
* `layers`: modules that return grids which the logits see
* `heads`: where a network is cut
* `geometry`: whether features lie over the picture
* `readout`: what lies behind a global average
* `stages`: what maps are refined from
"""
