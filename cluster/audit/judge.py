"""One shard of a run against its ground truth: what it adds to an audit's counts, and a row for each of its images.

What is judged of one image is in `localize`, `signals` and `matches`; here images are chosen, and counted. Letters: M
images that are localized; the others as in `cam_ops.metrics.counts`.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cam_ops.errors import BadImage
from cam_ops.metrics import wsol
from cam_ops.metrics.bootstrap import image_seeds
from cam_ops.metrics.counts import FIGURES, MICRO, SLICES, Counts, ImageValues, Split, count
from cam_ops.metrics.level_sets import NUM_LEVELS, LevelSets
from cam_ops.metrics.localization import CORRECT_IOU
from cam_ops.metrics.signals import ClassSums, class_sums
from cluster.audit.localize import NOTHING_TRUE, Localized, localize
from cluster.audit.matches import Match, corloc_of, detections_table, matches_of
from cluster.audit.rows import JudgedImage, Ranking, per_image_table, ranking
from cluster.audit.shard import ShardIndex, ShardTables, index_shard
from cluster.audit.signals import Signals, signals_by_row
from cluster.runs.record import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFindings:
    """What a shard comes to."""

    counts: Counts
    per_image: pa.Table  # schema PER_IMAGE_SCHEMA
    detections: pa.Table  # schema DETECTIONS_SCHEMA


class ShardJudge:
    """Judges shards of one run, one after the other; owns the memory in which levels are computed."""

    def __init__(self, run: Run, split: Split, *, has_masks: bool) -> None:
        """Prepare; where the truth has masks, pixels are counted by these alone, else by its boxes, filled."""
        self.run, self.split, self.has_masks = run, split, has_masks
        self.levels = LevelSets(wsol.SIDE)

    def judge(self, tables: ShardTables) -> ShardFindings:
        """Return what a shard adds to the audit."""
        index = index_shard(self.run, tables)
        images = tables.images.to_pylist()
        truths = [None] * len(images) if tables.truth is None else tables.truth.to_pylist()
        seeds = image_seeds([image["image_id"] for image in images]).tolist()
        class_of = [_signal_class(image, truth) for image, truth in zip(images, truths, strict=True)]
        signals = signals_by_row(self.run.request, index, class_of)
        judged = [
            self._judge(index, image, truth, seed, signals.get(image["row"]))
            for image, truth, seed in zip(images, truths, seeds, strict=True)
        ]
        matches = _matches(index, judged)
        return ShardFindings(
            counts=replace(
                count(_values(judged), self.split),
                corloc=corloc_of(matches, self.split),
                classes=_class_sums(index),
                excluded=Counter(each.excluded for each in judged if each.excluded),
                failures=Counter(each.failure for each in judged if each.failure),
            ),
            per_image=per_image_table(judged),
            detections=detections_table(matches),
        )

    def _judge(
        self, index: ShardIndex, image: dict[str, Any], truth: dict[str, Any] | None, seed: int, signals: Signals | None
    ) -> JudgedImage:
        ranked = ranking(image, truth["true_class"] if truth else None)
        excluded = _why_excluded(index, image, truth) if truth else None
        localized = None
        if truth and not excluded:
            try:
                localized = localize(self.levels, index, image, truth, ranked.is_top1, has_masks=self.has_masks)
            except BadImage as bad:
                excluded = bad.status
        return JudgedImage(
            image=image,
            truth=truth,
            seed=seed,
            ranking=ranked,
            excluded=excluded,
            localized=localized,
            signals=signals,
        )


def _signal_class(image: dict[str, Any], truth: dict[str, Any] | None) -> int | None:
    """Return the class whose map an image's signals are of: the true one, else the label."""
    true_class: int | None = truth["true_class"] if truth else None
    label: int | None = image["label"]
    return label if true_class is None else true_class


def _why_excluded(index: ShardIndex, image: dict[str, Any], truth: dict[str, Any]) -> str | None:
    """Say why an image is in no figure of localization."""
    if truth["truth_id"] is None:
        return "not in the truth"
    if image["status"] != "ok":
        return f"status {image['status']}"
    if truth["num_missing"]:
        return "truth incomplete"
    if not truth["masks"] and all(box["crowd"] for box in truth["boxes"]):
        return NOTHING_TRUE
    if truth["true_class"] is None:
        return "true class unknown"
    if (image["row"], truth["true_class"]) not in index.map_at:
        return "no map of the true class"
    return None


def _matches(index: ShardIndex, judged: list[JudgedImage]) -> list[Match]:
    """Match the boxes of all images whose objects the truth tells, whether or not they are in those of localization."""
    matches: list[Match] = []
    for each in judged:
        if each.truth and each.image["status"] == "ok" and _tells_all(each.truth):
            matches += matches_of(index, each.image["row"], each.truth, each.seed)
    return matches


def _tells_all(truth: dict[str, Any]) -> bool:
    """Say whether each object of an image is known by box and class, as a detection that meets none is then wrong."""
    has_masks_alone = bool(truth["masks"]) and not truth["boxes"]
    return truth["truth_id"] is not None and not (truth["num_missing"] or truth["num_unclear"] or has_masks_alone)


def _class_sums(index: ShardIndex) -> ClassSums:
    size_N2 = index.sizes(index.box_row_N)
    return class_sums(index.class_P, index.raw_Phw, index.box_class_N, index.boxes_N4, size_N2)


def _values(judged: list[JudgedImage]) -> ImageValues:
    """Return what the images that are localized add to the sums; nothing where the truth does not say it."""
    found = [(each.localized, each.ranking) for each in judged if each.localized]
    num_images = len(found)
    passes_M2DL = np.zeros((num_images, 2, len(wsol.IOU_D), NUM_LEVELS), np.uint8)
    pixels_M2E = np.zeros((num_images, 2, wsol.NUM_BINS), np.int64)
    figures_MF2 = np.zeros((num_images, len(FIGURES), 2), np.int64)
    slices_MS = np.zeros((num_images, len(SLICES)), np.bool_)
    for m, (localized, ranked) in enumerate(found):
        if localized.levels:
            passes_M2DL[m] = localized.levels.passes_2DL
        if localized.pixels:
            pixels_M2E[m] = localized.pixels.histogram_2E
        if localized.written:
            slices_MS[m] = [name in localized.written.slices for name in SLICES]
        for name, share in _shares(localized, ranked).items():
            figures_MF2[m, FIGURES.index(name)] = round(share * MICRO), 1
    return ImageValues(
        seed_M=np.array([each.seed for each in judged if each.localized], np.uint64),
        passes_M2DL=passes_M2DL,
        pixels_M2E=pixels_M2E,
        figures_MF2=figures_MF2,
        slices_MS=slices_MS,
    )


def _shares(localized: Localized, ranked: Ranking) -> dict[str, float]:
    """Return an image's part of each of the FIGURES that it is in, 0 to 1."""
    shares: dict[str, float] = {}
    if pixels := localized.pixels:
        shares |= {"pointing_game": pixels.points_inside, "energy_pointing_game": pixels.energy_inside}
    if levels := localized.levels:
        shares["oracle"] = levels.best_iou >= CORRECT_IOU
        for name, iou in (("centre_box", levels.centre_iou), ("whole_image", levels.whole_iou)):
            shares |= {f"{name}_{round(100 * least)}": bool(iou >= least) for least in wsol.IOU_D}
    if written := localized.written:
        shares |= {
            "gt_known_loc": written.correct,
            "mean_best_iou": written.best_iou,
            "reachable_50": written.reachable_iou >= 0.5,
            "reachable_70": written.reachable_iou >= 0.7,
        }
        for name, is_ranked in (("top1_loc", ranked.is_top1), ("top5_loc", ranked.is_top5)):
            if is_ranked is not None:
                shares[name] = written.correct and is_ranked
    return shares
