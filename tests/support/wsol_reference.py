"""wsolevaluation's own loop, with OpenCV for each threshold: what the fast one must equal."""

import cv2
import numpy as np

SIDE = 224


def contour_boxes(quantised_HW: np.ndarray, level: int, *, all_contours: bool) -> list[list[int]]:
    """Return the boxes of the contours above a level, the largest one's alone unless all are asked for."""
    height, width = quantised_HW.shape
    _, mask_HW = cv2.threshold(quantised_HW, level, 255, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(mask_HW, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return [[0, 0, 0, 0]]
    chosen = contours if all_contours else [max(contours, key=cv2.contourArea)]
    boxes = [cv2.boundingRect(contour) for contour in chosen]
    return [[x, y, min(x + w, width - 1), min(y + h, height - 1)] for x, y, w, h in boxes]


def best_iou(boxes: list[list[int]], truth: list[list[int]]) -> float:
    a, b = np.array(boxes, float)[:, None], np.array(truth, float)[None]
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1, 0)
    shared = sides.prod(-1)
    areas = [(box[..., 2:] - box[..., :2] + 1).prod(-1) for box in (a, b)]
    return float((shared / (areas[0] + areas[1] - shared)).max())


def score_map(raw_hw: np.ndarray, side: int = SIDE) -> np.ndarray:
    cam = cv2.resize(raw_hw.astype(np.float64), (side, side), interpolation=cv2.INTER_CUBIC)
    if np.isnan(cam).any() or cam.min() == cam.max():
        return np.zeros_like(cam)
    cam -= cam.min()
    cam /= cam.max()
    return cam


def level_ious(score_HW: np.ndarray, truth: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the IoU of the largest contour's box and of all contours' at each of 255 levels, and the former's box."""
    quantised = (score_HW * 255).astype(np.uint8)
    largest = [contour_boxes(quantised, level, all_contours=False) for level in range(255)]
    every = [contour_boxes(quantised, level, all_contours=True) for level in range(255)]
    ious = [np.array([best_iou(boxes, truth) for boxes in found]) for found in (largest, every)]
    return ious[0], ious[1], np.array([boxes[0] for boxes in largest])
