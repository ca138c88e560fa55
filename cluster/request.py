"""What a run was asked to do: the immutable run.json, its fingerprint, and the refusal to mix two requests.

Everything that can change a bit of the tables stands in `Request`; its sha256 is the fingerprint that every file
carries. Workers take their settings from run.json alone.
"""

import hashlib
import json
import platform
import shlex
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from cam_ops.arrays import F64, I32
from cam_ops.boxes import BoxConfig
from cam_ops.calibration import Calibration, thresholds_of
from cam_ops.classes import ScoreKind, parse_class_choice
from cam_ops.errors import RefusedError, StorageError, UsageError
from cam_ops.maps import MapConfig
from cam_ops.settings import MAX_IMAGE_SIZE, ExplainConfig, Kind, Preprocessing
from cam_ops.tables import BOXES, CALIBRATED_BOXES, COORDINATES, SCHEMA_VERSION
from cluster.console import shortened
from cluster.documents import first_reason
from cluster.plan import Plan
from cluster.rundir import RUN, RunDir, open_run_dir

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]

MAX_RUN_BYTES = 64 * 2**20
BOX_SETTINGS = ("maps.", "boxes.", "calibration")  # beginnings of their names
MAX_SHARDS = 10**8
MAX_GRID = 10 * MAX_IMAGE_SIZE  # --scales go up to 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The request; two runs with equal requests on one kind of device have equal tables."""

    schema_version: str
    images: str  # absolute address of the source
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

    def fingerprint(self) -> str:
        """Return the sha256 of the request as canonical JSON; one without a calibration is as before there were any."""
        fields = asdict(self)
        if self.calibration is None:
            del fields["calibration"]
        return _digest(fields)

    def thresholds(self, class_P: I32) -> F64:
        """Return the threshold of each map of the given classes, the first one where there are several."""
        usual = self.boxes.threshold[0]
        if self.calibration is None:
            return np.full(len(class_P), usual)
        return thresholds_of(class_P, self.calibration.class_thresholds, usual)

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
            "box_recipe": asdict(self.boxes),
            "input_size": self.preprocessing.image_size,
            "coordinates": COORDINATES,
            **({"calibration": _digest(asdict(self.calibration))} if self.calibration else {}),
        }


def _digest(tree: dict[str, Any]) -> str:
    """Return the sha256 of a tree as canonical JSON."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsFrom:
    """The run whose maps a run of `rebox` was made from."""

    root: str  # absolute path or address
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The content of run.json."""

    request: Request
    plan: Plan
    class_names: tuple[str, ...]
    grid: tuple[int, int]  # h, w of the raw maps
    config: dict[str, Any]  # the flags of the command that began it, as JSON has them
    maps_from: MapsFrom | None = None  # None where the run has its own

    @property
    def command(self) -> str:
        """The command that does what is missing of the run."""
        return "label" if self.maps_from is None else "rebox"


def config_document(config: Any) -> dict[str, Any]:
    """Return a command's configuration, a dataclass, as JSON has it, without what gives access to storage."""
    document: dict[str, Any] = json.loads(json.dumps(asdict(replace(config, storage_options=()))))
    return document


def publish_run(run_dir: RunDir, run: Run) -> bool:
    """Write run.json: from here on the run exists.

    Returns False, and writes nothing, where another driver has written one in the meantime.
    """
    packages = ("camray", "ray", "torch", "torchvision", "numpy", "opencv-python", "pyarrow")
    document = {
        "fingerprint": run.request.fingerprint(),
        "request": asdict(run.request),
        "plan": asdict(run.plan),
        "grid": run.grid,
        "class_names": run.class_names,
        "maps_from": run.maps_from and asdict(run.maps_from),
        "config": run.config,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
    return run_dir.publish_new(RUN, json.dumps(document, indent=1).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunFile:
    """What is read of run.json."""

    fingerprint: str
    request: Request
    plan: Plan
    class_names: tuple[str, ...]
    grid: tuple[int, int]
    config: dict[str, Any]
    maps_from: MapsFrom | None


def read_run(run_dir: RunDir) -> Run | None:
    """Read run.json; None where there is none. Raises StorageError for a file that camray did not write."""
    content = run_dir.read(RUN, MAX_RUN_BYTES)
    if content is None:
        return None
    try:
        file = TypeAdapter(_RunFile).validate_json(content, strict=True)
        reason = _contradiction(file)
    except ValidationError as error:
        reason = first_reason(error)
    except UsageError as error:
        reason = str(error)
    if reason is not None:
        raise StorageError(f"{run_dir.where(RUN)} is not a run.json of camray {SCHEMA_VERSION}: {reason}")
    return Run(
        request=file.request,
        plan=file.plan,
        class_names=file.class_names,
        grid=file.grid,
        config=file.config,
        maps_from=file.maps_from,
    )


def _contradiction(file: _RunFile) -> str | None:
    """Say what in a file of the right types cannot be, as camray would not have written it."""
    plan, request = file.plan, file.request
    shape = request.preprocessing
    if plan.shard_size < 1 or not 1 <= plan.num_shards <= MAX_SHARDS:
        return f"a plan of {_short(plan.num_shards)} shards of {_short(plan.shard_size)} images"
    if plan.num_shards != -(-plan.num_images // plan.shard_size):
        return f"{_short(plan.num_images)} images are not {plan.num_shards} shards of {_short(plan.shard_size)}"
    if not 8 <= shape.image_size <= MAX_IMAGE_SIZE or not all(1 <= side <= MAX_GRID for side in file.grid):
        return f"an input of {_short(shape.image_size)} pixels with maps of {_short(file.grid)}"
    if request.batch_size < 1 or not 0 < shape.crop_fraction <= 1:
        return f"batches of {_short(request.batch_size)}, crops of {shape.crop_fraction}"
    if request.calibration and len(request.boxes.threshold) != 1:
        return f"a calibration beside {len(request.boxes.threshold)} thresholds"
    parse_class_choice(request.classes)
    if file.maps_from and (
        "\0" in file.maps_from.root or open_run_dir(file.maps_from.root).root != file.maps_from.root
    ):
        return f"maps from {_short(file.maps_from.root)}"
    if request.fingerprint() != file.fingerprint:
        return "its fingerprint does not fit its request"
    return None


def existing_run(run_dir: RunDir) -> Run:
    """Read run.json of a run that must exist; raises StorageError where there is none."""
    run = read_run(run_dir)
    if run is None:
        raise StorageError(f"expected a run directory at {run_dir.root}, it holds no {RUN}; check the path")
    return run


def maps_of(run_dir: RunDir, run: Run) -> tuple[RunDir, Run]:
    """Return where the maps of a run are, and the run that made them: itself, or the one that it names.

    Raises StorageError where that one is gone, or has been replaced by another.
    """
    if run.maps_from is None:
        return run_dir, run
    source_dir = open_run_dir(run.maps_from.root, run_dir.options)
    source = read_run(source_dir)
    if source is None or source.request.fingerprint() != run.maps_from.fingerprint:
        raise StorageError(
            f"the maps of {run_dir.root} are those of the run at {source_dir.root}, which holds "
            f"{'no run.json' if source is None else 'another run'} now; put it back, or run `rebox` into another --out"
        )
    return source_dir, source


def refuse_another(run_dir: RunDir, existing: Run, asked: Request, maps_from: MapsFrom | None = None) -> None:
    """Raise RefusedError naming the fields that differ and the cheapest way out, unless the requests are equal."""
    different = changed_fields(existing, replace(existing, request=asked, maps_from=maps_from))
    if not different:
        return
    changes = "; ".join(f"{key} was {before}, now {after}" for key, (before, after) in different.items())
    ways = "give the same flags to resume it, another --out to keep both, or --overwrite to replace it"
    was, now = existing.maps_from, maps_from
    if was and now and was.root == now.root and was.fingerprint != now.fingerprint:
        ways = f"{now.root} holds other maps than then; give another --out, or --overwrite to make boxes of these"
    if existing.maps_from is None and all(key.startswith(BOX_SETTINGS) for key in different):
        if asked.calibration:
            flags = "--calibration FILE"
        else:
            after = _compared(asked, maps_from)
            settings = [key for key in after if key.startswith(BOX_SETTINGS[:2])]
            needed = settings if existing.request.calibration else different  # any of them ends a calibration
            flags = " ".join(f"--{key.partition('.')[2]} {_shown(after[key])}" for key in needed)
        ways += (
            f"; its maps serve for these boxes, without the model: python -m jobs rebox {shlex.quote(run_dir.root)} "
            f"--out NEW {flags}"
        )
    raise RefusedError(f"{run_dir.root} holds another request ({changes}); {ways}")


def changed_fields(before: Run, after: Run) -> dict[str, tuple[str, str]]:
    """Return the fields of the request that differ, and `maps_from`, by name, each as it stands behind its flag."""
    was, now = (_compared(run.request, run.maps_from) for run in (before, after))
    different = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    return {key: (_shown(was.get(key)), _shown(now.get(key))) for key in different}


def _compared(request: Request, maps_from: MapsFrom | None) -> dict[str, Any]:
    """Return what tells two requests apart, by names that a user knows; of a calibration its digest."""
    calibration = request.calibration and f"sha256:{_digest(asdict(request.calibration))}"
    return flat({**asdict(request), "calibration": calibration, "maps_from": maps_from and maps_from.root})


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree by their dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def _shown(value: Any) -> str:
    """Return a field of a request as it stands behind its flag."""
    return _short(" ".join(map(str, value)) or "nothing" if isinstance(value, tuple) else value)


def _short(value: Any) -> str:
    return shortened(value, 80, 12)
