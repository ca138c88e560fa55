"""One shard of a run against its ground truth: what it adds to an audit's counts, and a row for each of its images.

Letters: M images with a map of their true class and true boxes, N boxes, G true boxes, S side of a score map.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cam_ops.arrays import F32, I64, U8
from cam_ops.errors import BadImage
from cam_ops.metrics import localization, wsol
from cam_ops.metrics.bootstrap import image_seeds
from cam_ops.metrics.counts import FIGURES, MICRO, SLICES, Counts, ImageValues, Split, count
from cam_ops.metrics.level_sets import NUM_LEVELS, LevelSets, best_overlap
from cam_ops.metrics.localization import CORRECT_IOU
from cam_ops.metrics.signals import class_sums, count_components, doubt, map_signals
from cam_ops.tables import CORNERS
from cluster.audit.matches import Match, corloc_of, matches_of
from cluster.audit.shard import ShardTables, Shown, shown_by, true_corners
from cluster.audit.tables import DETECTIONS_SCHEMA, PER_IMAGE_SCHEMA
from cluster.formats.masks import read_mask
from cluster.runs.record import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFindings:
    """What a shard comes to."""

    counts: Counts
    per_image: pa.Table
    detections: pa.Table


class ShardAudit:
    """Audits shards of one run."""

    def __init__(self, run: Run, split: Split, *, has_masks: bool) -> None:
        """Prepare; where the truth has masks, pixels are counted by these alone, else by its boxes, filled."""
        self.run, self.split, self.has_masks = run, split, has_masks
        self.levels = LevelSets(wsol.SIDE)
        self.trivial_24 = localization.trivial_boxes(wsol.SIDE)

    def audit(self, tables: ShardTables) -> ShardFindings:
        """Return what a shard adds to the audit."""
        shown = shown_by(self.run, tables)
        images = tables.images.to_pylist()
        truths = [None] * len(images) if tables.truth is None else tables.truth.to_pylist()
        rows = [_known(image, truth) for image, truth in zip(images, truths, strict=True)]
        self._add_signals(shown, rows)
        seeds = image_seeds([image["image_id"] for image in images]).tolist()
        added: list[_Added] = []
        matches: list[Match] = []
        for image, truth, row, seed in zip(images, truths, rows, seeds, strict=True):
            if truth is None:
                continue
            if truth["truth_id"] is not None and image["status"] == "ok":
                matches += matches_of(shown, row["row"], truth, seed)
            row["excluded"] = _why_excluded(shown, image, truth)
            if row["excluded"] is None:
                place = shown.place[row["row"], truth["true_class"]]
                try:
                    added.append(self._localize(shown, place, image, truth, row, seed))
                except BadImage as bad:
                    row["excluded"] = bad.status
        return ShardFindings(
            counts=self._counts(shown, rows, added, matches),
            per_image=pa.Table.from_pylist(rows, schema=PER_IMAGE_SCHEMA),
            detections=pa.Table.from_pylist(
                [entry for match in matches for entry in match.rows], schema=DETECTIONS_SCHEMA
            ),
        )

    def _localize(
        self, shown: Shown, place: int, image: dict[str, Any], truth: dict[str, Any], row: dict[str, Any], seed: int
    ) -> "_Added":
        """Meet the map and boxes of an image's true class with its true boxes; fills what `row` says of that."""
        width, height = image["width"], image["height"]
        objects = [box for box in truth["boxes"] if not box["crowd"]]
        rectangle_4 = shown.rectangle_P4[place]
        map_SS = wsol.enlarged_map(shown.raw_Phw[place], rectangle_4, width, height)
        score_SS = wsol.score_map(map_SS)
        scaled_by = truth["truth_width"] or width, truth["truth_height"] or height
        ends_G4 = np.array([[box[f"w{name}"] for name in CORNERS] for box in objects], np.int64).reshape(-1, 4)
        truth_G4 = wsol.resized_boxes(ends_G4, *scaled_by)
        figures: dict[str, float] = {}
        pixels_2E = np.zeros((2, wsol.NUM_BINS), np.int64)
        if truth["masks"] or not self.has_masks:
            mask_SS = read_mask(truth["masks"], truth["ignore"], wsol.SIDE) if self.has_masks else wsol.filled(truth_G4)
            pixels_2E = wsol.score_histograms(score_SS, mask_SS)
            inside_SS = (mask_SS == wsol.INSIDE).astype(np.uint8)
            figures["pointing_game"] = float(localization.points_inside(map_SS, inside_SS))
            figures["energy_pointing_game"] = localization.energy_inside(map_SS, inside_SS)
            row |= {"pointing": bool(figures["pointing_game"]), "energy_inside": figures["energy_pointing_game"]}
            row["truth_area"] = float(inside_SS.mean())
        passes_2DL = np.zeros((2, len(wsol.IOU_D), NUM_LEVELS), np.uint8)
        slices = dict.fromkeys(SLICES, False)
        if objects:
            found = self.levels.overlaps(score_SS, truth_G4)
            passes_2DL[:] = np.stack([found.largest_L, found.all_L])[:, None] >= wsol.IOU_D[:, None]
            row["iou_best_threshold"] = float(found.largest_L.max())
            figures |= {"oracle": float(found.largest_L.max() >= CORRECT_IOU), **self._trivial(truth_G4)}
            figures |= _written(shown, row, objects, rectangle_4, width * height)
            slices |= _slices(objects)
        return _Added(
            seed=seed,
            passes_2DL=passes_2DL,
            pixels_2E=pixels_2E,
            figures=figures,
            slices=slices,
        )

    def _trivial(self, truth_G4: I64) -> dict[str, float]:
        centre, whole = (best_overlap(box_4, truth_G4) for box_4 in self.trivial_24)
        return {
            f"{name}_{round(100 * iou)}": float(overlap >= iou)
            for name, overlap in (("centre_box", centre), ("whole_image", whole))
            for iou in wsol.IOU_D
        }

    def _counts(
        self, shown: Shown, rows: list[dict[str, Any]], added: list["_Added"], matches: list["Match"]
    ) -> Counts:
        images = shown.tables.images
        size_N2 = np.stack([images[name].to_numpy() for name in ("width", "height")], axis=1).astype(np.int64)
        keys = [(key, at) for key, run in shown.boxes.items() for at in range(run.start, run.stop)]
        row_N, class_N = np.array([key for key, _ in keys], np.int64).reshape(-1, 2).T
        return replace(
            count(_values(added), self.split),
            corloc=corloc_of(matches, self.split),
            classes=class_sums(shown.class_P, shown.raw_Phw, class_N, shown.boxes_N4, size_N2[row_N]),
            excluded=Counter(row["excluded"] for row in rows if row["excluded"]),
            failures=Counter(row["failure"] for row in rows if row["failure"]),
        )

    def _add_signals(self, shown: Shown, rows: list[dict[str, Any]]) -> None:
        """Fill in what maps say without truth: of the map of the true class, else of the label, else of the first."""
        first = {row: place for place, row in reversed(list(enumerate(shown.row_P.tolist())))}
        chosen = [row for row in rows if row["row"] in first]
        wanted = [row["label"] if row["true_class"] is None else row["true_class"] for row in chosen]
        places = [shown.place.get((row["row"], c), first[row["row"]]) for row, c in zip(chosen, wanted, strict=True)]
        request, images = self.run.request, shown.tables.images
        raw_Phw, rectangle_P4 = shown.raw_Phw[places], shown.rectangle_P4[places]
        rows_P = [row["row"] for row in chosen]
        size_P2 = np.stack([images[name].to_numpy()[rows_P] for name in ("width", "height")], axis=1).astype(np.int64)
        side, threshold_P = request.preprocessing.image_size, request.thresholds(shown.class_P[places].astype(np.int32))
        num_components = count_components(raw_Phw, rectangle_P4, size_P2, side, request.maps, threshold_P)
        score_P = shown.tables.heatmaps["score"].to_numpy()[places]
        keys = [(row["row"], int(shown.class_P[place])) for row, place in zip(chosen, places, strict=True)]
        box_area_P = np.array([shown.box_area_N[shown.boxes[key].start] if key in shown.boxes else 0.0 for key in keys])
        signals = map_signals(raw_Phw)
        columns = {
            "class_id": shown.class_P[places],
            "score": score_P,
            "entropy": signals.entropy_P,
            "concentration": signals.concentration_P,
            "border_mass": signals.border_mass_P,
            "num_components": num_components,
            "box_area": box_area_P,
            "attention": doubt(score_P, signals, box_area_P),
        }
        for name, values in columns.items():
            for row, value in zip(chosen, values.tolist(), strict=True):
                row[name] = value if value == value else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Added:
    """What one image adds."""

    seed: int
    passes_2DL: U8
    pixels_2E: I64
    figures: dict[str, float]  # 0..1
    slices: dict[str, bool]


def _known(image: dict[str, Any], truth: dict[str, Any] | None) -> dict[str, Any]:
    """Return what is known of an image before its maps are looked at, names as in PER_IMAGE_SCHEMA."""
    true_class = truth["true_class"] if truth else None
    row: dict[str, Any] = dict.fromkeys(PER_IMAGE_SCHEMA.names)
    row |= {name: image[name] for name in ("image_id", "shard", "row", "status", "label")}
    row["true_class"] = true_class
    row["num_truth"] = sum(not box["crowd"] for box in truth["boxes"]) if truth else 0
    row["truth_digest"] = _digest(truth) if truth and truth["truth_id"] is not None else None
    if image["top_classes"]:
        row["top_class"] = image["top_classes"][0]
        if true_class is not None:
            row["top1"], row["top5"] = true_class == row["top_class"], true_class in image["top_classes"][:5]
    return row


def _digest(truth: dict[str, Any]) -> int:
    """Return the `truth_digest` of PER_IMAGE_SCHEMA for a row of TRUTH; classes do not count."""
    names = [*CORNERS, *(f"w{name}" for name in CORNERS), "crowd"]
    boxes = sorted([box[name] for name in names] for box in truth["boxes"])
    said = json.dumps([boxes, truth["truth_width"], truth["truth_height"]])
    return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=8).digest(), "little")


def _why_excluded(shown: Shown, image: dict[str, Any], truth: dict[str, Any]) -> str | None:
    """Say why an image is in no figure of localization."""
    if truth["truth_id"] is None:
        return "not in the truth"
    if image["status"] != "ok":
        return f"status {image['status']}"
    if not truth["masks"] and all(box["crowd"] for box in truth["boxes"]):
        return "no true box or mask"
    if truth["true_class"] is None:
        return "true class unknown"
    if (image["row"], truth["true_class"]) not in shown.place:
        return "no map of the true class"
    return None


def _written(
    shown: Shown, row: dict[str, Any], objects: list[dict[str, Any]], rectangle_4: F32, num_pixels: int
) -> dict[str, float]:
    """Return the figures of the boxes as written, in pixels of the picture; fills what `row` says of them."""
    truth_G4 = true_corners(objects)
    boxes_N4 = shown.boxes_N4[shown.boxes.get((row["row"], row["true_class"]), slice(0, 0))]
    overlap_NG = localization.overlaps(boxes_N4, truth_G4)
    reachable = localization.reachable_overlap(truth_G4, rectangle_4)
    iou = float(overlap_NG[:1].max(initial=0))
    row |= {
        "truth_area": float(localization.areas(truth_G4).max() / num_pixels),
        "iou": iou,
        "correct": iou >= CORRECT_IOU,
        "reachable_iou": reachable,
        "failure": localization.failure_of(boxes_N4[:1], truth_G4, reachable, row["top1"]),
    }
    figures = {
        "gt_known_loc": float(row["correct"]),
        "mean_best_iou": float(overlap_NG.max(initial=0)),
        "reachable_50": float(reachable >= 0.5),
        "reachable_70": float(reachable >= 0.7),
    }
    for name in ("top1", "top5"):
        if row[name] is not None:
            figures[f"{name}_loc"] = float(row["correct"] and row[name])
    return figures


def _slices(objects: list[dict[str, Any]]) -> dict[str, bool]:
    size = localization.size_name(float(localization.areas(true_corners(objects)).max()))
    number = "one_object" if len(objects) == 1 else "several_objects"
    return {name: name in (size, number) for name in SLICES}


def _values(added: list[_Added]) -> ImageValues:
    figures_MF2 = np.zeros((len(added), len(FIGURES), 2), np.int64)
    for m, image in enumerate(added):
        for name, share in image.figures.items():
            figures_MF2[m, FIGURES.index(name)] = round(share * MICRO), 1
    shape = len(added), 2, len(wsol.IOU_D), NUM_LEVELS
    return ImageValues(
        seed_M=np.array([image.seed for image in added], np.uint64),
        passes_M2DL=np.array([image.passes_2DL for image in added], np.uint8).reshape(shape),
        pixels_M2E=np.array([image.pixels_2E for image in added], np.int64).reshape(len(added), 2, wsol.NUM_BINS),
        figures_MF2=figures_MF2,
        slices_MS=np.array([[image.slices[name] for name in SLICES] for image in added]).reshape(-1, len(SLICES)) > 0,
    )
