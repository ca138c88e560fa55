"""Pictures: decode, fit to the network's input, draw over.

* `formats`: which are read, by which suffixes and first bytes
* `header`: size and soundness before anything is decoded
* `decode`: bytes to pixels, bounded
* `fit`: resize, and the rectangle that the grid covers
* `orientation`: how EXIF turns stored pixels, and boxes in them
* `resample`: a map's values at the picture's pixels
* `overlays`: heat maps and boxes drawn over pictures
* `text`: words in pictures
"""
