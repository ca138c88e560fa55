"""calibration.json: what `calibrate` found out, and for which maps it holds.

Strangers' files are data: typed, bounded, and refused where they were fitted to other maps.
"""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cam_ops.boxes.calibration import Calibration
from cam_ops.classes import ScoreKind
from cam_ops.errors import UsageError
from cam_ops.fitting.reliability import CoverageRow, ReliabilityBin, Share
from cam_ops.outside import RAISE, raised
from cam_ops.settings import BoxConfig, ExplainConfig, MapConfig, Preprocessing
from cluster.process.console import say, shortened
from cluster.runs.differences import flat
from cluster.runs.request import Request
from cluster.storage.documents import document_bytes, validated
from cluster.storage.named import write_named

CALIBRATION_VERSION = "1.0.0"
FEW_IMAGES = 100  # fitted to: with fewer a threshold or a probability is that of these images more than of others
MAX_CALIBRATION_BYTES = 16 * 2**20


def say_fitted(fitted: int, held_out: int, more: str = "") -> None:
    """Say how a sample is split, in the words of all commands that split one."""
    say(f"fitting to {fitted} images, {held_out} are held out{more}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsOf:
    """What makes maps and scores what they are: a calibration holds where all of this is the same."""

    model: str
    model_digest: str
    dilate: bool
    scores: ScoreKind
    explain: ExplainConfig
    cut: tuple[str, ...]
    preprocessing: Preprocessing
    refined_from: tuple[str, ...] = ()  # layers, where maps are refined


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The images that were looked at, and how they were split."""

    fingerprint: str  # of the run whose maps they are
    truth_format: str
    fitted: int  # images
    held_out: int
    excluded: dict[str, int]  # images by reason
    seed: int
    holdout: float
    max_images: int
    per_class: bool
    shrinkage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """How one box recipe does on the images held out."""

    maps: MapConfig
    boxes: BoxConfig
    gt_known_loc: Share
    """Share of images whose best box of the true class has IoU >= .5 with an object of it."""
    gain: Share | None
    """By how many points the calibrated recipe does better, image by image; None of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What the calibration is worth on images that it was not fitted to."""

    figures: dict[str, Figure]  # run, default, blog, calibrated; global too where classes have thresholds of their own
    calibration_error: float
    reliability: tuple[ReliabilityBin, ...]
    coverage: tuple[CoverageRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFile:
    """The content of calibration.json."""

    schema_version: str
    maps_of: MapsOf
    maps: MapConfig
    boxes: BoxConfig
    calibration: Calibration
    sample: Sample
    held_out: HeldOut | None  # None where no images were held out


def maps_of_request(request: Request) -> MapsOf:
    """Return what a calibration of this run's maps is bound to."""
    return MapsOf(
        model=request.model,
        model_digest=request.model_digest,
        dilate=request.dilate,
        scores=request.scores,
        explain=request.explain,
        cut=request.cut,
        preprocessing=request.preprocessing,
        refined_from=request.refinement.layers if request.refinement else (),
    )


def write_calibration(path: str, file: CalibrationFile) -> None:
    """Write the file whole or not at all; raises StorageError, UsageError for a text that it cannot hold."""
    write_named(path, document_bytes(asdict(file), path) + b"\n", "--out")


def read_calibration(path: str) -> CalibrationFile:
    """Read a calibration; raises UsageError for what is none."""
    try:
        is_small_file = os.path.isfile(path) and os.path.getsize(path) <= raised(MAX_CALIBRATION_BYTES)
        content = Path(path).read_bytes() if is_small_file else None
    except OSError as error:
        raise UsageError(f"cannot read --calibration {path}: {error.strerror}") from None
    if content is None:
        most = raised(MAX_CALIBRATION_BYTES)
        raise UsageError(
            f"--calibration {path} is no file, or one of more than {most} bytes; give what `calibrate` wrote, {RAISE}"
        )
    try:
        file = validated(CalibrationFile, content)
        reason = None if file.schema_version == CALIBRATION_VERSION else f"schema version {file.schema_version}"
        reason = reason if len(file.boxes.threshold) == 1 else f"{len(file.boxes.threshold)} thresholds"
    except (ValueError, UsageError) as error:
        reason = str(error)
    if reason is not None:
        raise UsageError(
            f"--calibration {path} is not what `calibrate` writes, version {CALIBRATION_VERSION}: "
            f"{shortened(reason, 200)}; run `calibrate` again"
        )
    return file


def calibrated(request: Request, path: str) -> Request:
    """Return the request with the box recipe of a calibration; raises UsageError where it is one of other maps."""
    file = read_calibration(path)
    fitted, asked = flat(asdict(file.maps_of)), flat(asdict(maps_of_request(request)))
    different = sorted(key for key in fitted.keys() | asked.keys() if fitted.get(key) != asked.get(key))
    if different:
        key = different[0]
        raise UsageError(
            f"--calibration {path} was fitted to other maps: its {key} is {shortened(fitted.get(key), 80, 12)}, here "
            f"{shortened(asked.get(key), 80, 12)}; run `calibrate` on a labelled sample of these maps"
        )
    return replace(request, maps=file.maps, boxes=file.boxes, calibration=file.calibration)
