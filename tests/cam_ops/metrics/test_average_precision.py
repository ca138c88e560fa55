"""COCO AP is pycocotools' own, on random boxes with ties, crowds, more than 100 detections, and classes without any."""

from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cam_ops.metrics.average_precision import AT_50, AT_75, match_image, weighted_average_precision

NUM_CLASSES = 6  # the last two: one without truth, one without detections


def boxes(generator: np.random.Generator, count: int, step: float) -> np.ndarray:
    """Random half-open boxes on a grid of `step`, so that overlaps tie where it is coarse."""
    corner_N2 = generator.integers(0, 12, (count, 2))
    return np.hstack([corner_N2, corner_N2 + generator.integers(1, 8, (count, 2))]) * step


def near(generator: np.random.Generator, truth_M4: np.ndarray, count: int, step: float) -> np.ndarray:
    """Detections half of which lie near a truth box."""
    random_N4 = boxes(generator, count, step)
    if len(truth_M4):
        chosen_N4 = truth_M4[generator.integers(0, len(truth_M4), count)]
        moved_N4 = chosen_N4 + generator.integers(-1, 2, (count, 4)) * step * 0.5
        is_box_N = (moved_N4[:, 2:] > moved_N4[:, :2]).all(1)
        random_N4 = np.where((generator.random(count) < 0.6)[:, None] & is_box_N[:, None], moved_N4, random_N4)
    return random_N4


def sample(seed: int, num_images: int = 12) -> list[dict]:
    """Truth and detections of each image and class, best first."""
    generator = np.random.default_rng(seed)
    step, scores = ((1.0, 4), (0.37, 1000))[seed % 2]  # few scores: many ties
    groups = []
    for image in range(num_images):
        for class_id in range(NUM_CLASSES):
            truth_M4 = boxes(generator, 0 if class_id == 4 else generator.integers(0, 6), step)
            count = 0 if class_id == 5 else 130 if (image, class_id) == (3, 0) else generator.integers(0, 8)
            score_N = np.sort(generator.integers(1, scores, count) / scores)[::-1]
            groups.append(
                {
                    "image": image,
                    "class": class_id,
                    "truth": truth_M4,
                    "crowd": generator.random(len(truth_M4)) < 0.25,
                    "boxes": near(generator, truth_M4, count, step),
                    "score": score_N,
                }
            )
    return groups


def pycocotools_ap(groups: list[dict], num_images: int) -> np.ndarray:
    """Return AP, (class, threshold), -1 where a class has no truth."""

    def xywh(box_4: np.ndarray) -> list[float]:
        return [float(box_4[0]), float(box_4[1]), float(box_4[2] - box_4[0]), float(box_4[3] - box_4[1])]

    annotations, detections = [], []
    for group in groups:
        place = {"image_id": group["image"] + 1, "category_id": group["class"] + 1}
        for box_4, crowd in zip(group["truth"], group["crowd"], strict=True):
            box = xywh(box_4)
            annotations.append(
                {**place, "id": len(annotations) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": int(crowd)}
            )
        for box_4, score in zip(group["boxes"], group["score"], strict=True):
            detections.append({**place, "bbox": xywh(box_4), "score": float(score)})
    with redirect_stdout(StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": i + 1} for i in range(num_images)],
            "categories": [{"id": i + 1} for i in range(NUM_CLASSES)],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, 2].mean(1).T


def matched(groups: list[dict], class_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, both masks and images of a class's detections, and the number of truth boxes of each image."""
    of_class = [group for group in groups if group["class"] == class_id]
    masks = [match_image(group["boxes"], group["truth"], group["crowd"]) for group in of_class]
    score_N = np.concatenate([group["score"][:100] for group in of_class])
    image_N = np.concatenate([np.full(len(mask[0]), i) for i, mask in enumerate(masks)])
    first_N, second_N = (np.concatenate([mask[i] for mask in masks]) for i in range(2))
    return score_N, first_N, second_N, image_N, np.array([mask[2] for mask in masks])


def average_precision(score_N: np.ndarray, matched_N: np.ndarray, ignored_N: np.ndarray, num_truth: int) -> np.ndarray:
    """Return (T,), where each image counts once."""
    ones_1N = np.ones((1, len(score_N)), np.int64)
    return weighted_average_precision(score_N, matched_N, ignored_N, ones_1N, np.array([num_truth]))[0]


@pytest.mark.parametrize("seed", range(12))
def test_it_is_pycocotools_own(seed: int) -> None:
    groups = sample(seed)
    wanted_KT = pycocotools_ap(groups, 12)
    for class_id in range(NUM_CLASSES):
        score_N, matched_N, ignored_N, _, num_truth = matched(groups, class_id)
        ap_T = average_precision(score_N, matched_N, ignored_N, int(num_truth.sum()))
        np.testing.assert_allclose(np.nan_to_num(ap_T, nan=-1), wanted_KT[class_id], rtol=0, atol=1e-12)
    assert (wanted_KT[4] == -1).all()
    assert (wanted_KT[5] == 0).all()
    assert 0 < wanted_KT[0, AT_75] < wanted_KT[0, AT_50] < 1


@pytest.mark.parametrize("seed", [1, 3])
def test_a_weight_stands_for_that_many_copies_of_an_image(seed: int) -> None:
    groups = sample(seed)
    for group in groups:  # no ties: among equal scores copies of images and copies of detections differ in order
        group["score"] = group["score"] + np.linspace(1e-4, 0, len(group["score"])) + 1e-6 * group["image"]
    weight_2I = np.random.default_rng(seed).poisson(1, (2, 12))
    for weight_I, b in zip(weight_2I, range(2), strict=True):
        copies = [group for group in groups for _ in range(weight_I[group["image"]])]
        starts = np.cumsum([0, *weight_I])
        seen: dict[tuple[int, int], int] = {}
        numbered = []
        for group in copies:
            key = (group["image"], group["class"])
            numbered.append({**group, "image": int(starts[group["image"]]) + seen.get(key, 0)})
            seen[key] = seen.get(key, 0) + 1
        wanted_KT = pycocotools_ap(numbered, int(starts[-1]))
        for class_id in range(NUM_CLASSES):
            score_N, matched_N, ignored_N, image_N, num_truth_I = matched(groups, class_id)
            ap_BT = weighted_average_precision(
                score_N, matched_N, ignored_N, weight_2I[:, image_N], weight_2I @ num_truth_I
            )
            np.testing.assert_allclose(np.nan_to_num(ap_BT[b], nan=-1), wanted_KT[class_id], rtol=0, atol=1e-12)


def test_a_detection_takes_the_truth_that_it_overlaps_most_and_only_once() -> None:
    truth_M4 = np.array([[0, 0, 10, 10], [0, 0, 10, 8.0]])
    detections_N4 = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10.0]])
    matched_N, ignored_N, num_truth = match_image(detections_N4, truth_M4, np.array([False, False]))
    assert matched_N.tolist() == [
        0b1111111111,
        0b1111111,
        0,
    ]  # IoU 1; then 0.8: thresholds .5 to .8; then nothing is free
    assert (ignored_N.tolist(), num_truth) == ([0, 0, 0], 2)


def test_of_truth_that_overlaps_equally_the_later_is_taken() -> None:
    truth_M4 = np.array([[0, 0, 10, 10], [10, 0, 20, 10.0]])
    detections_N4 = np.array([[0, 0, 20, 10], [10, 0, 20, 10.0]])
    no_crowd_M = np.array([False, False])
    matched_N, ignored_N, _ = match_image(detections_N4, truth_M4, no_crowd_M)
    assert matched_N.tolist() == [
        1,
        0b1111111110,
    ]  # IoU .5 with both: at .5 the second box is gone for the second detection
    group = {
        "image": 0,
        "class": 0,
        "truth": truth_M4,
        "crowd": no_crowd_M,
        "boxes": detections_N4,
        "score": [0.9, 0.8],
    }
    ap_T = average_precision(np.array([0.9, 0.8]), matched_N, ignored_N, 2)
    np.testing.assert_allclose(ap_T, pycocotools_ap([group], 1)[0], rtol=0, atol=1e-12)


def test_a_detection_that_matches_is_not_excused_by_a_crowd_around_it() -> None:
    truth_M4 = np.array([[0, 0, 100, 100], [0, 0, 10, 8.0]])
    matched_N, ignored_N, num_truth = match_image(np.array([[0, 0, 10, 10.0]]), truth_M4, np.array([True, False]))
    assert (matched_N.tolist(), ignored_N.tolist(), num_truth) == ([0b1111111], [0b1110000000], 1)


def test_a_crowd_excuses_any_number_of_detections_inside_it() -> None:
    crowd_M4 = np.array([[0, 0, 100, 100.0]])
    detections_N4 = np.array([[0, 0, 10, 10], [95, 0, 105, 10], [200, 0, 210, 10.0]])
    matched_N, ignored_N, num_truth = match_image(detections_N4, crowd_M4, np.array([True]))
    assert (matched_N.tolist(), ignored_N.tolist(), num_truth) == ([0, 0, 0], [0b1111111111, 1, 0], 0)


def test_a_class_without_truth_is_undefined_and_one_without_detections_is_zero() -> None:
    none_N, masks_N = np.zeros(0), np.zeros(0, np.uint16)
    assert np.isnan(average_precision(none_N, masks_N, masks_N, 0)).all()
    assert average_precision(none_N, masks_N, masks_N, 3).tolist() == [0] * 10
