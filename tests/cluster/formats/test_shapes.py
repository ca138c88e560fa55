"""The box of a polygon by hand, that of a mask by COCO's own library."""

from itertools import groupby

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from cluster.formats.shapes import box_of_segmentation


def runs_of(inside_HW: np.ndarray) -> list[int]:
    """Return run lengths by plain loops, column by column, beginning outside."""
    runs = [(value, len(list(same))) for value, same in groupby(inside_HW.T.ravel().tolist())]
    return [length for _, length in ([] if runs[0][0] == 0 else [(0, 0)]) + runs]


@pytest.mark.parametrize("seed", range(4))
def test_the_box_of_a_mask_is_that_of_cocos_library(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for number in range(100):
        height, width = generator.integers(1, 60, 2).tolist()
        inside_HW = (generator.random((height, width)) < (0.02, 0.5, 1)[number % 3]).astype(np.uint8)
        if number % 2:  # one object
            (y0, y1), (x0, x1) = (sorted(generator.integers(0, side, 2)) for side in (height, width))
            inside_HW = np.zeros_like(inside_HW)
            inside_HW[y0 : y1 + 1, x0 : x1 + 1] = 1
        if not inside_HW.any():
            continue
        encoded = coco_mask.encode(np.asfortranarray(inside_HW))
        x, y, wide, high = coco_mask.toBbox(encoded).tolist()
        for counts in (encoded["counts"].decode(), runs_of(inside_HW)):
            found = box_of_segmentation({"size": [height, width], "counts": counts})
            assert found == ((x, y, x + wide, y + high), (width, height))


def test_the_box_of_polygons_is_that_of_their_points() -> None:
    triangle, square = [10, 5, 30.5, 5, 20, 15], [2, 8, 4, 8, 4, 16, 2, 16]
    assert box_of_segmentation([triangle]) == ((10, 5, 30.5, 15), None)
    assert box_of_segmentation(triangle) == ((10, 5, 30.5, 15), None)
    assert box_of_segmentation([triangle, square]) == ((2, 5, 30.5, 16), None)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "no box and no segmentation"),
        ([], "no box and no segmentation"),
        ([[]], "3 points"),
        ([[1, 2, 3, 4]], "3 points"),
        ([[1, 2, 3, 4, 5]], "x, y, x, y"),
        ([[1, 2, 3, 4, 5, None]], "two numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "two numbers"),
        ([[1, 2, 3, 4, 5, 6], 7], "x, y, x, y"),
        ({"counts": [1, 2]}, "no size"),
        ({"counts": [1, 2], "size": [2]}, "no size"),
        ({"counts": [1, 2], "size": [2, "x"]}, "no size"),
        ({"counts": [4], "size": [2, 2]}, "empty"),
        ({"counts": [1, 2], "size": [2, 2]}, "do not add up"),
        ({"counts": [1, -2, 5], "size": [2, 2]}, "do not add up"),
        ({"counts": [2**70], "size": [2, 2]}, "too large"),
        ({"counts": [], "size": [2, 2]}, "do not add up"),
        ({"counts": None, "size": [2, 2]}, "no counts"),
        ({"counts": "", "size": [2, 2]}, "signs"),
        ({"counts": "\u00e9", "size": [2, 2]}, "signs"),
        ({"counts": "P", "size": [2, 2]}, "end inside a number"),
        ({"counts": "P" * 20 + "0", "size": [2, 2]}, "end inside a number"),
        ({"counts": "0" * (2**22 + 1), "size": [2, 2]}, "more than"),
    ],
)
def test_what_is_no_shape_is_said(segmentation: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        box_of_segmentation(segmentation)
