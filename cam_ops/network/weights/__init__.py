"""Files of weights: read without running what is in them, and matched to a network.

* `checkpoints`: what a file holds, without unpickling
* `matching`: which part of a file is the network
* `named`: the classes' names that a file gives beside them
* `renaming`: names that parameters had when weights were published
* `positions`: vision transformers at another size
* `moving`: to a device and a number format, with what modules keep beside them
"""
