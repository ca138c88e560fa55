"""Draw heat maps and boxes over pictures.

Pictures are uint8 RGB (H, W, 3); maps are floats in 0..1; boxes are half-open pixels of the picture.
"""

import cv2
import numpy as np

from cam_ops.arrays import F32, F64, U8
from cam_ops.boxes.normalise import normalise
from cam_ops.pictures.text import Colour, put_text, text_size
from cam_ops.settings import Size, height_and_width

ALPHA = 0.7
COLOURS = [(255, 221, 0), (0, 212, 255), (255, 105, 180), (118, 255, 3), (255, 140, 0), (186, 85, 211)]  # RGB
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
REPLICATE = cv2.BORDER_REPLICATE


def heat_colours(map_HW: F32 | F64, colour_map: int) -> U8:
    """Colour a map in 0..1 with one of OpenCV's colour maps, RGB (H, W, 3)."""
    coloured_HWC = cv2.applyColorMap((255 * map_HW).astype(np.uint8), colour_map)
    return np.asarray(coloured_HWC[..., ::-1], np.uint8)


def overlay(image_HWC: U8, map_YX: F64, rectangle: F32) -> U8:
    """Lay a normalised map over the part of the picture that `rectangle` says it covers.

    Its colours are even to the eye; it hides the more of the picture, the higher it is, up to `ALPHA`.
    """
    height, width = image_HWC.shape[:2]
    high, wide = map_YX.shape
    x0, y0, x1, y1 = rectangle.astype(np.float64)
    to_picture = np.array([[(x1 - x0) / wide, 0, x0], [0, (y1 - y0) / high, y0]])
    to_picture[:, 2] += (to_picture[:, :2].sum(1) - 1) / 2  # pixel centres lie at .5
    map_HW = cv2.warpAffine(
        np.asarray(map_YX, np.float32), to_picture, (width, height), flags=cv2.INTER_LINEAR, borderMode=REPLICATE
    )
    covered_HW = cv2.warpAffine(np.ones((high, wide), np.uint8), to_picture, (width, height), flags=cv2.INTER_NEAREST)
    heat_HW: F32 = np.where(covered_HW > 0, np.clip(map_HW, 0, 1), 0).astype(np.float32)
    alpha_HW1 = (ALPHA * heat_HW * (2 - heat_HW))[..., None]
    mixed_HWC = alpha_HW1 * heat_colours(heat_HW, cv2.COLORMAP_VIRIDIS) + (1 - alpha_HW1) * image_HWC
    return np.rint(mixed_HWC).astype(np.uint8)


def draw_box(image_HWC: U8, box_4: F32, caption: str, colour: Colour, line_px: int | None = None) -> U8:
    """Draw one box, edged so that it shows on any ground, and its caption, where there is room outside it.

    Line and letters grow with the picture, unless the line's width is given. Returns a copy.
    """
    drawn_HWC = np.ascontiguousarray(image_HWC).copy()
    height, width = drawn_HWC.shape[:2]
    line = line_px or max(1, round(max(height, width) / 200))
    x0, y0, x1, y1 = (round(float(v)) for v in np.clip(box_4, -line, [width + line, height + line] * 2))
    outside = line // 2
    _frame(drawn_HWC, (x0, y0, x1, y1), outside + 1, line - outside + 1, BLACK)
    _frame(drawn_HWC, (x0, y0, x1, y1), outside, line - outside, colour)
    if not caption:
        return drawn_HWC
    size_px = max(11, round(max(height, width) / 40))
    caption = caption[:width]  # no letter is narrower than a pixel, and Pillow refuses a million of them
    text_width, text_height = text_size(caption, size_px)
    left = max(0, min(x0, width - text_width - 4))
    is_above, is_below = y0 - text_height - line >= 0, y1 + text_height + line <= height
    top = y0 - text_height - line if is_above else y1 + line if is_below else max(0, y0)
    cv2.rectangle(drawn_HWC, (left, top), (left + text_width + 3, top + text_height - 1), colour, cv2.FILLED)
    put_text(drawn_HWC, left + 2, top, caption, size_px, BLACK)
    return drawn_HWC


def _frame(image_HWC: U8, box: tuple[int, int, int, int], outside: int, inside: int, colour: Colour) -> None:
    """Fill so many pixels on both sides of a box's edge."""
    (left, top, right, bottom), (x0, y0, x1, y1) = (
        (max(0, box[0] + by), max(0, box[1] + by), max(0, box[2] - by), max(0, box[3] - by))
        for by in (-outside, inside)
    )
    kept_HWC = image_HWC[y0:y1, x0:x1].copy()
    image_HWC[top:bottom, left:right] = colour
    image_HWC[y0:y1, x0:x1] = kept_HWC


def blog_panels(raw_hw: F32, image_HWC: U8, size: Size) -> U8:
    """Draw the seed post's three pictures side by side: map, enlarged map, overlay; RGB.

    As the post: min-max, bilinear enlargement to `size`, JET, overlay = 0.3 * heat map + 0.5 * picture.
    """
    wide_high = height_and_width(size)[::-1]
    small_hw = normalise(raw_hw, "minmax")
    enlarged_YX = np.asarray(cv2.resize(small_hw, wide_high, interpolation=cv2.INTER_LINEAR), np.float32)
    blocks_YX = np.asarray(cv2.resize(small_hw, wide_high, interpolation=cv2.INTER_NEAREST), np.float32)
    heat_YX3 = heat_colours(enlarged_YX, cv2.COLORMAP_JET)
    mixed_YX3 = heat_YX3 * 0.3 + cv2.resize(image_HWC, wide_high) * 0.5
    rounded_YX3 = np.rint(mixed_YX3).astype(np.uint8)  # cv2.imwrite rounds
    return np.concatenate([heat_colours(blocks_YX, cv2.COLORMAP_JET), heat_YX3, rounded_YX3], axis=1)
