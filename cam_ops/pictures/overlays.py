"""Draw heat maps and boxes over pictures.

Pictures are uint8 RGB (H, W, 3); maps are floats in 0..1; boxes are half-open pixels of the picture.
"""

import cv2
import numpy as np

from cam_ops.arrays import F32, F64, U8
from cam_ops.boxes.normalise import normalise
from cam_ops.settings import Size, height_and_width

COLOURS = [(255, 221, 0), (0, 212, 255), (255, 105, 180), (118, 255, 3), (255, 140, 0), (186, 85, 211)]  # RGB


def heat_colours(map_HW: F32 | F64) -> U8:
    """Colour a map in 0..1 with JET, blue to red, RGB (H, W, 3)."""
    jet_HWC = cv2.applyColorMap((255 * map_HW).astype(np.uint8), cv2.COLORMAP_JET)
    return np.asarray(jet_HWC[..., ::-1], np.uint8)


def overlay(image_HWC: U8, map_YX: F64, rectangle: F32) -> U8:
    """Lay a normalised map over the part of the picture that `rectangle` says it covers, half transparent."""
    height, width = image_HWC.shape[:2]
    high, wide = map_YX.shape
    x0, y0, x1, y1 = rectangle.astype(np.float64)
    to_picture = np.array([[(x1 - x0) / wide, 0, x0], [0, (y1 - y0) / high, y0]])
    to_picture[:, 2] += (to_picture[:, :2].sum(1) - 1) / 2  # pixel centres lie at .5
    heat_HWC = cv2.warpAffine(heat_colours(map_YX), to_picture, (width, height), flags=cv2.INTER_LINEAR)
    covered_HW = cv2.warpAffine(np.ones((high, wide), np.uint8), to_picture, (width, height), flags=cv2.INTER_NEAREST)
    mixed_HWC = (0.45 * heat_HWC + 0.55 * image_HWC).astype(np.uint8)
    return np.where(covered_HW[..., None] > 0, mixed_HWC, image_HWC)


def draw_box(image_HWC: U8, box_4: F32, caption: str, colour: tuple[int, int, int]) -> U8:
    """Draw one box and its caption; line width and letters grow with the picture. Returns a copy."""
    drawn_HWC = np.ascontiguousarray(image_HWC).copy()
    height, width = drawn_HWC.shape[:2]
    scale = max(height, width) / 900
    line = max(1, round(3 * scale))
    x0, y0, x1, y1 = (round(float(v)) for v in box_4)
    cv2.rectangle(drawn_HWC, (x0, y0), (x1 - 1, y1 - 1), colour, line)
    if not caption:
        return drawn_HWC
    size = max(0.35, 0.8 * scale)
    (text_width, text_height), below = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, size, max(1, line // 2))
    left = max(0, min(x0, width - text_width - 4))
    top = max(0, min(y0, height - text_height - below - 4))
    bottom_right = (left + text_width + 4, top + text_height + below + 4)
    cv2.rectangle(drawn_HWC, (left, top), bottom_right, colour, cv2.FILLED)
    cv2.putText(
        drawn_HWC,
        caption,
        (left + 2, top + text_height + 2),
        cv2.FONT_HERSHEY_SIMPLEX,
        size,
        (0, 0, 0),
        max(1, line // 2),
        cv2.LINE_AA,
    )
    return drawn_HWC


def blog_panels(raw_hw: F32, image_HWC: U8, size: Size) -> U8:
    """Draw the seed post's three pictures side by side: map, enlarged map, overlay; RGB.

    As the post: min-max, bilinear enlargement to `size`, JET, overlay = 0.3 * heat map + 0.5 * picture.
    """
    wide_high = height_and_width(size)[::-1]
    small_hw = normalise(raw_hw, "minmax")
    enlarged_YX = np.asarray(cv2.resize(small_hw, wide_high, interpolation=cv2.INTER_LINEAR), np.float32)
    blocks_YX = np.asarray(cv2.resize(small_hw, wide_high, interpolation=cv2.INTER_NEAREST), np.float32)
    heat_YX3 = heat_colours(enlarged_YX)
    mixed_YX3 = heat_YX3 * 0.3 + cv2.resize(image_HWC, wide_high) * 0.5
    rounded_YX3 = np.rint(mixed_YX3).astype(np.uint8)  # cv2.imwrite rounds
    return np.concatenate([heat_colours(blocks_YX), heat_YX3, rounded_YX3], axis=1)


def contact_sheet(pictures: list[U8], columns: int, cell_width: int, cell_height: int) -> U8:
    """Arrange pictures in rows on white, each shrunk into its cell with its aspect ratio kept; RGB."""
    rows = -(-len(pictures) // columns)
    sheet_HWC = np.full((rows * cell_height, columns * cell_width, 3), 255, np.uint8)
    for i, picture_HWC in enumerate(pictures):
        height, width = picture_HWC.shape[:2]
        scale = min((cell_width - 8) / width, (cell_height - 8) / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small_HWC = cv2.resize(picture_HWC, size, interpolation=cv2.INTER_AREA)
        y = i // columns * cell_height + (cell_height - size[1]) // 2
        x = i % columns * cell_width + (cell_width - size[0]) // 2
        sheet_HWC[y : y + size[1], x : x + size[0]] = small_HWC
    return sheet_HWC
