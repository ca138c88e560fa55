"""Pictures of curves: the same bytes each time, with the best thresholds marked, readable as SVG and PNG."""

import xml.etree.ElementTree as ElementTree
from html import unescape

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from cam_ops.metrics.curves import COLOURS, draw_curves

THRESHOLD_L = np.arange(0, 1, 0.01)
CURVES = {
    "threshold": THRESHOLD_L,
    **{f"box_acc_{iou}": 100 * (1 - iou / 100) * (1 - (THRESHOLD_L - 0.25) ** 2) for iou in (30, 50, 70)},
    **{f"box_acc_v2_{iou}": 100 * (1 - iou / 100) * (1 - (THRESHOLD_L - 0.5) ** 2) for iou in (30, 50, 70)},
    "px_precision": 0.2 + 0.8 * THRESHOLD_L,
    "px_recall": 1 - THRESHOLD_L,
}


def texts(svg: bytes) -> list[str]:
    """Return what an SVG whose letters are outlines says: matplotlib writes each text as a comment before it."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    tree = ElementTree.fromstring(svg, parser)
    return [" ".join(unescape(node.text).split()) for node in tree.iter() if node.tag is ElementTree.Comment]


def test_the_same_curves_are_the_same_bytes_and_leave_no_setting_behind() -> None:
    before = dict(mpl.rcParams)
    first, second = (draw_curves(CURVES, "run") for _ in range(2))
    assert first == second
    assert dict(mpl.rcParams) == before
    assert b"<dc:date>" not in first["svg"]


def test_both_pictures_name_axes_curves_and_best_thresholds() -> None:
    drawn = draw_curves(CURVES, "a run <of> $mine$ & others_2")
    said = texts(drawn["svg"])
    for text in (
        "a run <of> $mine$ & others_2",
        "threshold, share of the map's peak",
        "images with a correct box, %",
        "recall of object pixels",
        "precision of object pixels",
        "IoU 0.5, largest region: 50.0 at 0.25",
        "IoU 0.5, any region: 50.0 at 0.50",
        "IoU 0.7, any region: 30.0 at 0.50",
    ):
        assert text in said, said
    f1_L = 2 * CURVES["px_precision"] * CURVES["px_recall"] / (CURVES["px_precision"] + CURVES["px_recall"])
    assert f"best F1: {f1_L.max():.3f} at {THRESHOLD_L[f1_L.argmax()]:.2f}" in said
    picture_HWC = cv2.imdecode(np.frombuffer(drawn["png"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for colour in COLOURS.values():
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (picture_HWC == rgb).all(2).sum() > 100


@pytest.mark.parametrize("pixels", [{}, {name: np.full(100, np.nan) for name in ("px_precision", "px_recall")}])
def test_without_masks_there_is_one_panel(pixels: dict[str, np.ndarray]) -> None:
    boxes = {name: values for name, values in CURVES.items() if not name.startswith("px_")}
    said = texts(draw_curves({**boxes, **pixels}, "run")["svg"])
    assert "recall of object pixels" not in said
    assert "IoU 0.3, largest region: 70.0 at 0.25" in said
