"""Text in pictures, in DejaVu Sans, which comes with matplotlib: it knows the letters of Europe, and many signs.

Pictures are uint8 RGB (H, W, 3).
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cam_ops.arrays import U8
from cam_ops.foreign import visible

Colour = tuple[int, int, int]


def text_size(text: str, size_px: int) -> tuple[int, int]:
    """Return the width of a line, and the height of any."""
    font = _font(size_px)
    ascent, descent = font.getmetrics()
    return round(font.getlength(visible(text))), ascent + descent


def put_text(image_HWC: U8, left: int, top: int, text: str, size_px: int, colour: Colour) -> None:
    """Write one line into a picture; what leaves it is cut off."""
    width, height = text_size(text, size_px)
    height_of, width_of = image_HWC.shape[:2]
    bottom, right = min(top + height, height_of), min(left + width + size_px, width_of)
    if top >= bottom or left >= right:
        return
    patch = Image.fromarray(image_HWC[top:bottom, left:right])
    ImageDraw.Draw(patch).text((0, 0), visible(text), colour, _font(size_px))
    image_HWC[top:bottom, left:right] = np.asarray(patch)


def shortened_to(text: str, size_px: int, width_px: int, *, keeps_end: bool = False) -> str:
    """Return a line that is no wider: of a longer one the beginning, or the end."""
    shown = visible(text)
    if text_size(shown[: 2 * width_px], size_px)[0] <= width_px and len(shown) <= width_px:
        return shown
    for kept in range(min(len(shown), width_px), 0, -1):
        line = f"…{shown[-kept:]}" if keeps_end else f"{shown[:kept]}…"
        if text_size(line, size_px)[0] <= width_px:
            return line
    return "…"


@lru_cache(maxsize=8)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # takes 0.2 s

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size_px)
