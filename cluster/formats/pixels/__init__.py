"""Formats of pixels: masks of true objects, which are read.

* `masks`: masks as PNG
* `mask_pixels`: the pixels of such masks
"""
