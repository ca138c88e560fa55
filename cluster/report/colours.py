"""The colours of heat in a report."""

import cv2
import matplotlib
import numpy as np

from cam_ops.settings import Recipe


def heat_colours(recipe: Recipe) -> str:
    """Return 256 times RRGGBB, from cold to hot: viridis, or jet for the seed's recipe.

    Viridis is even to the eye, ends neither in black nor in white, which pictures have themselves, and is teal in the
    middle, which objects seldom are.
    """
    if recipe == "blog":
        colours_N3 = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_JET).reshape(-1, 3)[:, ::-1]
    else:
        colours_N3 = np.rint(255 * matplotlib.colormaps["viridis"](np.arange(256))[:, :3]).astype(np.uint8)
    return colours_N3.tobytes().hex()
