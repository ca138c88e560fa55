"""All that an audit says of one image, and the row of per_image.parquet that it becomes."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cam_ops.metrics.localization import Failure
from cam_ops.tables import CORNERS
from cluster.audit.localize import Localized
from cluster.audit.signals import Signals
from cluster.audit.tables import PER_IMAGE_SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Where the network ranks an image's true class; None where its scores, or that class, are not known."""

    top_class: int | None
    is_top1: bool | None
    is_top5: bool | None


def ranking(image: dict[str, Any], true_class: int | None) -> Ranking:
    """Rank a class by an image's row of IMAGES."""
    top_classes = image["top_classes"]
    is_known = bool(top_classes) and true_class is not None
    return Ranking(
        top_class=top_classes[0] if top_classes else None,
        is_top1=true_class == top_classes[0] if is_known else None,
        is_top5=true_class in top_classes[:5] if is_known else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedImage:
    """All that an audit says of an image."""

    image: dict[str, Any]  # row of IMAGES
    truth: dict[str, Any] | None  # row of TRUTH, None in an audit without truth
    seed: int  # of its weights
    ranking: Ranking
    excluded: str | None  # why it is in no figure of localization
    localized: Localized | None  # None where it is excluded, or without truth
    signals: Signals | None  # None without a map

    @property
    def failure(self) -> Failure | None:
        """What went wrong, where that is known."""
        written = self.localized and self.localized.written
        return written.failure if written else None


def per_image_table(judged: list[JudgedImage]) -> pa.Table:
    """Return a row of each image, schema PER_IMAGE_SCHEMA."""
    rows = [_row(image) for image in judged]
    assert all(list(row) == PER_IMAGE_SCHEMA.names for row in rows)
    return pa.Table.from_pylist(rows, schema=PER_IMAGE_SCHEMA)


def _row(judged: JudgedImage) -> dict[str, Any]:
    """Return every column of PER_IMAGE_SCHEMA: they are set here alone."""
    image, truth, ranked, signals = judged.image, judged.truth, judged.ranking, judged.signals
    found = judged.localized
    pixels, levels, written = (found.pixels, found.levels, found.written) if found else (None, None, None)
    measured = written or pixels
    return {
        "image_id": image["image_id"],
        "shard": image["shard"],
        "row": image["row"],
        "status": image["status"],
        "label": image["label"],
        "true_class": truth and truth["true_class"],
        "top_class": ranked.top_class,
        "top1": ranked.is_top1,
        "top5": ranked.is_top5,
        "excluded": judged.excluded,
        "num_truth": sum(not box["crowd"] for box in truth["boxes"]) if truth else 0,
        "truth_area": measured and measured.truth_area,
        "truth_digest": _digest(truth) if truth and truth["truth_id"] is not None else None,
        "iou": written and written.iou,
        "iou_best_threshold": levels and levels.best_iou,
        "reachable_iou": written and written.reachable_iou,
        "correct": written and written.correct,
        "pointing": pixels and pixels.points_inside,
        "energy_inside": pixels and pixels.energy_inside,
        "failure": judged.failure,
        "class_id": signals and signals.class_id,
        "score": signals and signals.score,
        "entropy": signals and signals.entropy,
        "concentration": signals and signals.concentration,
        "border_mass": signals and signals.border_mass,
        "num_components": signals and signals.num_components,
        "box_area": signals and signals.box_area,
        "attention": signals and signals.attention,
    }


def _digest(truth: dict[str, Any]) -> int:
    """Return the `truth_digest` of a row of TRUTH; classes do not count."""
    names = [*CORNERS, *(f"w{name}" for name in CORNERS), "crowd"]
    boxes = sorted([box[name] for name in names] for box in truth["boxes"])
    said = json.dumps([boxes, truth["truth_width"], truth["truth_height"]])
    return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=8).digest(), "little")
