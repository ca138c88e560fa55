"""Pictures: decode, fit to the network's input, draw over.

* `decode`: bytes to pixels, bounded
* `fit`: resize, and the rectangle that the grid covers
* `overlays`: heat maps and boxes drawn over pictures
"""
