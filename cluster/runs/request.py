"""What a run was asked to do, and the fingerprint of it.

Everything that can change a bit of the tables stands in `Request`; its sha256 is the fingerprint that every file
carries. Replicas take their settings from run.json alone.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from cam_ops.arrays import F64, I32
from cam_ops.boxes.calibration import Calibration, thresholds_of
from cam_ops.classes import ScoreKind, UnknownLabels
from cam_ops.settings import BoxConfig, Device, ExplainConfig, Kind, MapConfig, Precision, Preprocessing, Refinement
from cam_ops.tables import BOXES, CALIBRATED_BOXES, COORDINATES


@dataclass(frozen=True, kw_only=True)  # no slots, for what is cached
class Request:
    """The request; two runs with equal requests on one kind of device have equal tables."""

    schema_version: str
    images: str | tuple[str, ...]  # absolute address of the source, or of each
    limit: int | None
    labels: str  # none, folder, or the digest of the CSV file
    model: str
    model_digest: str
    dilate: bool
    class_names_digest: str
    classes: str  # as --classes
    scores: ScoreKind
    explain: ExplainConfig
    head: Kind  # what the network's head was found to be
    cut: tuple[str, ...]  # the layers that were mapped; empty: what the network averages
    preprocessing: Preprocessing
    maps: MapConfig
    boxes: BoxConfig
    device: Device
    precision: Precision
    compiled: bool
    batch_size: int
    shard_size: int | None  # as asked; None lets the plan choose
    calibration: Calibration | None = None  # goes with the normaliser and the threshold that were fitted with it
    refinement: Refinement | None = None  # None: the maps are the network's own
    columns: tuple[str, ...] = ()  # as --columns, sorted
    unknown_labels: UnknownLabels = "refuse"
    keep_columns: tuple[str, ...] = ()  # as --keep-columns
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    sample: float | None = None
    seed: int = 0  # of the sample

    def fields(self) -> dict[str, Any]:
        """Return the request as documents have it; what came later is left out where it is not used."""
        fields = {**asdict(self), "boxes": self.box_recipe()}
        if self.refinement is None:
            del fields["refinement"]
        if not self.columns:
            del fields["columns"]
        if self.unknown_labels == "refuse":
            del fields["unknown_labels"]
        if not self.keep_columns:
            del fields["keep_columns"]
        for name in ("include", "exclude"):
            if not fields[name]:
                del fields[name]
        if self.sample is None:
            del fields["sample"], fields["seed"]
        return fields

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the sources."""
        return (self.images,) if isinstance(self.images, str) else self.images

    def box_recipe(self) -> dict[str, Any]:
        """Return the box settings as documents have them; --min-area only where it is not the default."""
        recipe = asdict(self.boxes)
        if self.boxes.min_area is None:
            del recipe["min_area"]  # as before there was any, so that older runs go on
        return recipe

    def fingerprint(self) -> str:
        """Return the sha256 of the request as canonical JSON; one without a calibration is as before there were any."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:  # asked for with each table that is read
        fields = self.fields()
        if self.calibration is None:
            del fields["calibration"]
        return canonical_digest(fields)

    def thresholds(self, class_P: I32) -> F64:
        """Return the threshold of each map of the given classes, the first one where there are several."""
        usual = self.boxes.threshold[0]
        if self.calibration is None:
            return np.full(len(class_P), usual)
        return thresholds_of(class_P, self.calibration.class_thresholds, usual)

    @property
    def kept_cam_grid(self) -> tuple[int, int] | None:
        """The grid of the column `cam` of the maps, None where they have none."""
        return self.refinement.cam_grid if self.refinement and self.refinement.keep_cam else None

    @property
    def boxes_schema(self) -> pa.Schema:
        """The columns of the boxes tables."""
        return BOXES if self.calibration is None else CALIBRATED_BOXES

    def document(self, table: str) -> dict[str, Any]:
        """Return the JSON document that each file of `table` carries."""
        return {
            "schema_version": self.schema_version,
            "table": table,
            "fingerprint": self.fingerprint(),
            "model": self.model,
            "model_digest": self.model_digest,
            "method": self.explain.method,
            "head": self.head,
            "layers": self.cut,
            "scales": self.explain.scales,
            "flip": self.explain.flip,
            "dilate": self.dilate,
            "map_recipe": asdict(self.maps),
            "box_recipe": self.box_recipe(),
            "input_size": self.preprocessing.image_size,
            "coordinates": COORDINATES,
            **({"refinement": asdict(self.refinement)} if self.refinement else {}),
            **({"calibration": canonical_digest(asdict(self.calibration))} if self.calibration else {}),
        }


def canonical_digest(tree: dict[str, Any]) -> str:
    """Return the sha256 of a tree as canonical JSON."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
