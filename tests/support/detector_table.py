"""The table of a cross-validation of detectors: AP, the mean of seeds, intervals by bootstrap over pictures.

Detections of the folds are pooled: each picture is judged once a seed, by the detector that has not seen it. Letters:
I images, T thresholds of IoU (.5 to .95), D detections.
"""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NUM_DRAWS = 1000
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What pycocotools says of the detections in each of I images, by its greedy matching."""

    scores: list[np.ndarray]  # of each image, float64 (D,)
    hits: list[np.ndarray]  # bool (T, D)
    num_true_I: np.ndarray


def judge(truth: dict[str, Any], results: list[dict[str, Any]]) -> Judged:
    """Match COCO results of one class to a truth; assert that the AP of all images is that of pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, **truth}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores, hits, num_true = [], [], []
    for image in evaluation.evalImgs[: len(evaluation.params.imgIds)]:  # the first area is all
        scores.append(np.array(image["dtScores"], np.float64) if image else np.zeros(0))
        hits.append(image["dtMatches"] > 0 if image else np.zeros((10, 0), bool))
        num_true.append(len(image["gtIds"]) if image else 0)
    judged = Judged(scores=scores, hits=hits, num_true_I=np.array(num_true))
    ap_T = average_precision_T(judged, np.arange(len(scores)))
    np.testing.assert_allclose([ap_T.mean(), ap_T[0]], 100 * np.array(evaluation.stats[:2]), atol=1e-6)
    return judged


def average_precision_T(judged: Judged, drawn_I: np.ndarray) -> np.ndarray:
    """Return COCO's AP at each IoU in percent, of images by their places; one may be there several times."""
    order = np.argsort(-np.concatenate([judged.scores[i] for i in drawn_I]), kind="stable")
    hits_TD = np.concatenate([judged.hits[i] for i in drawn_I], 1)[:, order]
    found_TD = np.cumsum(hits_TD, 1)
    recall_TD = found_TD / judged.num_true_I[drawn_I].sum()
    precision_TD = found_TD / np.arange(1, len(order) + 1)
    precision_TD = np.maximum.accumulate(precision_TD[:, ::-1], 1)[:, ::-1]
    ap_T = np.zeros(len(hits_TD))
    for t, (recall_D, precision_D) in enumerate(zip(recall_TD, precision_TD, strict=True)):
        places = np.searchsorted(recall_D, RECALLS, side="left")
        ap_T[t] = 100 * np.append(precision_D, 0)[places].mean()
    return ap_T


def interval(draws_R: np.ndarray) -> str:
    """Return the middle 95 % of draws."""
    low, high = np.percentile(draws_R, (2.5, 97.5))
    return f"{low:.1f} to {high:.1f}"


def table_of(truth: dict[str, Any], results: dict[str, list[list[dict[str, Any]]]], notes: dict[str, str]) -> str:
    """Return a Markdown table of conditions, each with the COCO results of its seeds, against the one called `maps`."""
    num_images = len(truth["images"])
    draws = [np.random.default_rng(draw).integers(0, num_images, num_images) for draw in range(NUM_DRAWS)]
    values_SF, drawn_RSF = {}, {}  # of each condition: R draws, S seeds, F figures
    for condition, seeds in results.items():
        judged = [judge(truth, found) for found in seeds]
        values_SF[condition] = np.array([figures_F(one, np.arange(num_images)) for one in judged])
        drawn_RSF[condition] = np.array([[figures_F(one, draw_I) for one in judged] for draw_I in draws])
    lines = [
        "| condition | AP | AP50 | of each seed | AP over `maps` | AP50 over `maps` | learned from |",
        "|---" * 7 + "|",
    ]
    for condition, of_SF in values_SF.items():
        value_F, drawn_RF = of_SF.mean(0), drawn_RSF[condition].mean(1)
        cells = [f"{value_F[i]:.1f} ({interval(drawn_RF[:, i])})" for i in (0, 1)]
        cells.append("; ".join(f"{ap:.1f}, {ap_50:.1f}" for ap, ap_50 in of_SF))
        num_seeds = min(len(of_SF), len(values_SF.get("maps", ())))
        if num_seeds and condition != "maps":
            gain_F = (of_SF[:num_seeds] - values_SF["maps"][:num_seeds]).mean(0)
            gained_RF = (drawn_RSF[condition][:, :num_seeds] - drawn_RSF["maps"][:, :num_seeds]).mean(1)
            cells += [f"{gain_F[i]:+.1f} ({interval(gained_RF[:, i])})" for i in (0, 1)]
        else:
            cells += ["", ""]
        lines.append(f"| `{condition}` | {' | '.join(cells)} | {notes.get(condition, '')} |")
    return "\n".join(lines)


def figures_F(judged: Judged, drawn_I: np.ndarray) -> list[float]:
    """Return AP and AP50 of images by their places."""
    ap_T = average_precision_T(judged, drawn_I)
    return [float(ap_T.mean()), float(ap_T[0])]
