"""The 8-connected regions of a map above a fraction of its peak.

Letters: Y, X height and width of the map, N regions.
"""

import cv2
import numpy as np

from cam_ops.arrays import F64, I64, Bools


def regions_above(map_YX: F64, threshold: float, mask_YX: Bools | None = None) -> tuple[I64, I64, F64]:
    """Bound each 8-connected region where ``map_YX >= threshold * map_YX.max()``.

    Returns half-open bounds in map pixels, int64 (N, 4), each region's pixel count and its peak. A map without a
    positive value has no regions: N is 0. The pixels above are written to `mask_YX` where that is given.
    """
    peak = map_YX.max()
    if not peak > 0:
        return np.zeros((0, 4), np.int64), np.zeros(0, np.int64), np.zeros(0)
    above_YX = np.greater_equal(map_YX, threshold * peak, out=mask_YX).view(np.uint8)
    contours, hierarchy_1N4 = cv2.findContours(above_YX, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outlines = np.flatnonzero(hierarchy_1N4[0, :, 3] < 0)  # the others are those of holes
    bounds = [cv2.boundingRect(contours[i]) for i in outlines]
    regions_N4 = np.array([[x, y, x + columns, y + rows] for x, y, columns, rows in bounds], np.int64)
    if len(outlines) == 1:  # five of six maps
        return regions_N4, np.array([cv2.countNonZero(above_YX)]), np.array([peak])
    _, labels_YX = cv2.connectedComponents(above_YX, connectivity=8)
    label_N = np.array([labels_YX[contours[i][0, 0, 1], contours[i][0, 0, 0]] for i in outlines])
    regions_N4 = regions_N4[label_N.argsort()]
    windows = [(slice(y0, y1), slice(x0, x1)) for x0, y0, x1, y1 in regions_N4]
    insides = [(labels_YX[at] == label).view(np.uint8) for label, at in enumerate(windows, start=1)]
    sizes = [cv2.countNonZero(inside) for inside in insides]
    peaks = [cv2.minMaxLoc(map_YX[at], inside)[1] for at, inside in zip(windows, insides, strict=True)]
    return regions_N4, np.array(sizes), np.array(peaks)
