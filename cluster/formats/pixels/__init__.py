"""Formats of pixels: masks of true objects, which are read, and maps, which are written. All but `masks` need OpenCV.

* `masks`: masks as PNG
* `mask_pixels`: the pixels of such masks
* `score_maps`: wsolevaluation's score maps
* `seeds`: label maps for segmentation
* `soft_masks`: a map a picture and class
"""
