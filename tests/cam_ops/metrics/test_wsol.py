"""wsolevaluation's protocol: the reference evaluator's counters on 500 real maps, and figures that are known."""

import csv
import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cam_ops.metrics import localization, wsol
from cam_ops.metrics.level_sets import LevelSets, best_overlap
from tests.support.wsol_reference import best_iou, score_map


def lines(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def test_all_counters_and_pxap_of_the_reference_evaluator(data: Path) -> None:
    folder = data / "wsol_reference"
    expected, arrays = json.loads((folder / "expected.json").read_text()), np.load(folder / "cams.npz")
    sizes = {path: (int(width), int(height)) for path, width, height in lines(folder / "image_sizes.txt")}
    boxes: dict[str, list[list[int]]] = {}
    for path, *ends in lines(folder / "localization.txt"):
        boxes.setdefault(path, []).append([int(end) for end in ends])
    levels, passed_2DL = LevelSets(wsol.SIDE), np.zeros((2, 3, 255), np.int64)
    scores_2E = np.zeros((2, wsol.NUM_BINS), np.int64)
    for path, raw_hw in zip(arrays["image_ids"], arrays["cams_NHW"], strict=True):
        width, height = sizes[path]
        score_SS = wsol.score_map(wsol.enlarged_map(raw_hw, np.float32([0, 0, width, height]), width, height))
        truth_G4 = wsol.resized_boxes(np.array(boxes[path]), width, height)
        found = levels.overlaps(score_SS, truth_G4)
        passed_2DL += np.stack([found.largest_L, found.all_L])[:, None] >= wsol.IOU_D[:, None]
        scores_2E += wsol.score_histograms(score_SS, wsol.filled(truth_G4))
    for contours, name in enumerate(("largest_contour", "multi_contour")):
        counted_DT = passed_2DL[contours][:, wsol.LEVEL_T].tolist()
        assert dict(zip(("30", "50", "70"), counted_DT, strict=True)) == expected[name]["num_correct"]
    assert abs(wsol.pixel_average_precision(scores_2E) - expected["px_ap_box_filled_masks"]) < 1e-9


def test_true_boxes_are_scaled_by_truncation() -> None:
    scaled = wsol.resized_boxes(np.array([[1, 2, 4, 3]]), 10, 20)
    assert scaled.tolist() == [[int(1 * 22.4), int(2 * 11.2), int(4 * 22.4), int(3 * 11.2)]] == [[22, 22, 89, 33]]


def test_both_ends_of_boxes_count() -> None:
    assert best_overlap(np.array([1, 2, 5, 6]), np.array([[3, 1, 4, 5]])) == 8 / 27
    assert best_overlap(np.zeros(4, np.int64), np.zeros((1, 4), np.int64)) == 1.0
    assert best_iou([[1, 2, 5, 6]], [[3, 1, 4, 5]]) == 8 / 27


def test_the_thousand_thresholds_fall_on_all_255_levels() -> None:
    assert len(wsol.THRESHOLD_T) == 1000
    assert np.unique(wsol.LEVEL_T).tolist() == list(range(255))
    assert wsol.LEVEL_T.tolist() == [int(t * np.uint8(255)) for t in np.arange(0, 1, 0.001)]


def test_a_map_over_part_of_the_picture_takes_the_same_cubic_at_each_place() -> None:
    """The whole as OpenCV; a half as OpenCV's resize of twice the size, of which the half is kept."""
    raw_hw = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    whole_SS = wsol.enlarged_map(raw_hw, np.float32([0, 0, 100, 80]), 100, 80)
    np.testing.assert_array_equal(whole_SS, cv2.resize(raw_hw.astype(float), (224, 224), interpolation=cv2.INTER_CUBIC))
    letterboxed_SS = wsol.enlarged_map(raw_hw, np.float32([0, -50, 100, 150]), 100, 100)
    tall = cv2.resize(raw_hw.astype(float), (224, 448), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(letterboxed_SS, tall[112:336], atol=1e-6)  # OpenCV keeps weights in float32


def test_beyond_what_a_cropped_map_covers_stands_its_least_value() -> None:
    raw_hw = np.arange(49, dtype=np.float32).reshape(7, 7)
    cropped_SS = wsol.enlarged_map(raw_hw, np.float32([25, 0, 75, 100]), 100, 100)
    inner = cv2.resize(raw_hw.astype(float), (112, 224), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(cropped_SS[:, 56:168], inner, atol=1e-5)
    assert (cropped_SS[:, :56] == cropped_SS.min()).all()
    assert (cropped_SS[:, 168:] == cropped_SS.min()).all()


@pytest.mark.parametrize("raw", [np.ones((7, 7)), np.full((7, 7), np.nan), -np.ones((7, 7))])
def test_a_map_that_says_nothing_has_no_scores(raw: np.ndarray) -> None:
    score_SS = wsol.score_map(wsol.enlarged_map(raw.astype(np.float32), np.float32([0, 0, 9, 9]), 9, 9))
    np.testing.assert_array_equal(score_SS, score_map(raw))
    assert not score_SS.any()


def test_score_histograms_are_numpys_with_the_reference_evaluators_bins() -> None:
    rng = np.random.default_rng(1)
    edges = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])
    score_SS = np.where(rng.random((224, 224)) < 0.2, rng.choice(edges[:1001], (224, 224)), rng.random((224, 224)))
    mask_SS = rng.choice([0, 1, 255], (224, 224)).astype(np.uint8)
    counts_2E = wsol.score_histograms(score_SS, mask_SS)
    for row, value in enumerate((1, 0)):
        assert counts_2E[row].tolist() == np.histogram(score_SS[mask_SS == value], bins=edges)[0].tolist()


def test_average_precision_of_pixels_by_hand() -> None:
    """Scores 1.0, 0.5, 0.5, 0.25: inside, outside, inside, outside: half at precision 1, half at 2/3."""
    score, mask = np.array([[1.0, 0.5], [0.5, 0.25]]), np.array([[1, 0], [1, 0]], np.uint8)
    assert wsol.pixel_average_precision(wsol.score_histograms(score, mask)) == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))


def test_without_a_pixel_inside_there_is_no_average_precision() -> None:
    assert np.isnan(wsol.pixel_average_precision(np.zeros((2, wsol.NUM_BINS), np.int64)))


def test_trivial_boxes_and_crops_of_ilsvrc_have_the_known_figures(data: Path) -> None:
    """Centred box 72.1/52.2/21.7, whole picture 63.1/41.1/22.6; a centre crop of 224 in 256 keeps 26.1 % below .7."""
    images: dict[str, tuple[int, int, list[list[int]]]] = {}
    with gzip.open(data / "ilsvrc_val_boxes" / "boxes.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            image = images.setdefault(row["image"], (int(row["width"]), int(row["height"]), []))
            image[2].append([int(row[name]) for name in ("x0", "y0", "x1", "y1")])
    passed, reached = np.zeros((2, 3)), []
    for width, height, boxes in images.values():
        truth_G4 = wsol.resized_boxes(np.array(boxes), width, height)
        overlaps = [best_overlap(box_4, truth_G4) for box_4 in localization.trivial_boxes(wsol.SIDE)]
        passed += np.array(overlaps)[:, None] >= wsol.IOU_D
        half = min(width, height) * 224 / 256 / 2
        crop_4 = np.float32([width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half])
        reached.append(localization.reachable_overlap(np.add(boxes, [0.0, 0, 1, 1]), crop_4))
    np.testing.assert_allclose(100 * passed / len(images), [[72.1, 52.2, 21.7], [63.1, 41.1, 22.6]], atol=0.05)
    assert 100 * np.mean(np.array(reached) < 0.7) == pytest.approx(26.1, abs=0.05)
    assert 100 * np.mean(np.array(reached) < 0.5) == pytest.approx(2.0, abs=0.05)
