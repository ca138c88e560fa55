"""run.json: written once, read by whoever works with the run; and the end of a run."""

import json
import platform
import shlex
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

from cam_ops.classes import parse_class_choice
from cam_ops.errors import StorageError, UsageError
from cam_ops.settings import MAX_IMAGE_SIZE, height_and_width
from cam_ops.tables import IMAGES, KEPT_TYPES, SCHEMA_VERSION
from cluster.process.console import shortened
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.names import (
    AUDIT_FOLDER,
    AUDIT_SUFFIXES,
    DERIVED,
    QUARANTINE,
    REPORT,
    RUN,
    SUMMARY,
    SUSPECTS,
    TABLES,
    WRITTEN,
    shard_name,
)
from cluster.runs.plan import Plan
from cluster.runs.request import Request
from cluster.storage.documents import document_bytes, validated

MAX_RUN_BYTES = 64 * 2**20
MAX_SHARDS = 10**8
MAX_GRID = 10 * MAX_IMAGE_SIZE  # --scales go up to 10


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
    command_line: tuple[str, ...] | None = None  # that began it, from the command on; None: camray used as a library

    @property
    def command(self) -> str:
        """The command that does what is missing of the run."""
        return "label" if self.maps_from is None else "rebox"


def again(run_dir: RunDir, run: Run, *flags: str) -> str:
    """Return, for a message, the command that goes on with a run: as it was typed where that is known, and `flags`."""
    line = line_again(run_dir, run, *flags)
    return (
        f"`{line}`" if line else " ".join([f"the same `{run.command}` command", *(["with", *flags] if flags else [])])
    )


def line_again(run_dir: RunDir, run: Run, *flags: str) -> str | None:
    """Return the command that goes on with a run, to be typed; None where it is not known.

    Its --out is where the run is now, be it moved or a copy. It is without --overwrite, which would end the run.
    """
    words: list[str] = []
    for word in run.command_line or ():
        name = word.partition("=")[0]
        if words and words[-1] == "--out":
            words.pop()
        elif name not in ("--overwrite", *flags) and not (name == "--out" and "=" in word):
            words.append(word)
    if not words:
        return None
    if any(word.partition("=")[0] == "--config" for word in words):  # it may ask for that as well
        words.append("--no-overwrite")
    line = shlex.join([*words, "--out", run_dir.root, *flags])
    return f"python -m jobs {line}" if line.isprintable() else None


def config_document(config: Any) -> dict[str, Any]:
    """Return a command's configuration, a dataclass, as JSON has it, without what gives access to storage."""
    document: dict[str, Any] = json.loads(json.dumps(asdict(replace(config, storage_options=()))))
    return document


def publish_run(run_dir: RunDir, run: Run) -> bool:
    """Write run.json: from here on the run exists.

    Returns False, and writes nothing, where another driver has written one in the meantime.
    """
    return run_dir.publish_new(RUN, run_bytes(run))


def run_bytes(run: Run) -> bytes:
    """Return the content of run.json. Raises UsageError for a text that it cannot hold: ask before anything is."""
    document = {
        "fingerprint": run.request.fingerprint(),
        "request": run.request.fields(),
        "plan": run.plan.fields(),
        "grid": run.grid,
        "class_names": run.class_names,
        "maps_from": run.maps_from and asdict(run.maps_from),
        "config": run.config,
        "command_line": run.command_line,
        "versions": versions(),
    }
    return document_bytes(document, RUN)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter."""
    packages = ("camray", "ray", "torch", "torchvision", "numpy", "opencv-python", "pyarrow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def clear_run(run_dir: RunDir) -> None:
    """Remove a run: first run.json, so that a crash in between cannot mix two runs, then all that belongs to it."""
    shards = [shard_name(table, shard) for table in reversed(TABLES) for shard in run_dir.shards(table)]
    audits = [folder for folder in run_dir.folders() if AUDIT_FOLDER.fullmatch(folder)]
    run_dir.refuse_links(*WRITTEN, *DERIVED, *audits)
    for name in (RUN, SUMMARY, SUSPECTS, REPORT, *shards):
        run_dir.remove(name)
    for folder, suffixes in {QUARANTINE: ("",), **DERIVED, **dict.fromkeys(audits, AUDIT_SUFFIXES)}.items():
        for name in run_dir.names(folder):
            if name.endswith(suffixes):
                run_dir.remove(f"{folder}/{name}")
    run_dir.remove_plan_from(0)


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
    command_line: tuple[str, ...] | None = None  # older runs have none


def read_run(run_dir: RunDir) -> Run | None:
    """Read run.json; None where there is none. Raises StorageError for a file that camray did not write."""
    content = run_dir.read(RUN, MAX_RUN_BYTES)
    if content is None:
        return None
    try:
        file = validated(_RunFile, content)
        reason = _contradiction(file)
    except (ValueError, UsageError) as error:
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
        command_line=file.command_line,
    )


def _contradiction(file: _RunFile) -> str | None:
    """Say what in a file of the right types cannot be, as camray would not have written it."""
    plan, request = file.plan, file.request
    shape = request.preprocessing
    if plan.shard_size < 1 or not 1 <= plan.num_shards <= MAX_SHARDS:
        return f"a plan of {short(plan.num_shards)} shards of {short(plan.shard_size)} images"
    if plan.num_shards != -(-plan.num_images // plan.shard_size):
        return f"{short(plan.num_images)} images are not {plan.num_shards} shards of {short(plan.shard_size)}"
    sides = height_and_width(shape.image_size)
    is_said_twice = sides == shape.image_size and len({*sides}) == 1  # a square is one number
    if (
        is_said_twice
        or not all(8 <= side <= MAX_IMAGE_SIZE for side in sides)
        or not all(1 <= side <= MAX_GRID for side in file.grid)
    ):
        return f"an input of {short(shape.image_size)} pixels with maps of {short(file.grid)}"
    if len(shape.mean) != len(shape.std):
        return f"means of {len(shape.mean)} channels, deviations of {len(shape.std)}"
    if request.batch_size < 1 or not 0 < shape.crop_fraction <= 1:
        return f"batches of {short(request.batch_size)}, crops of {shape.crop_fraction}"
    if request.calibration and len(request.boxes.threshold) != 1:
        return f"a calibration beside {len(request.boxes.threshold)} thresholds"
    kept = [name for name, _ in plan.kept]
    if (
        {*kept} & {*IMAGES.names}
        or len({*kept}) < len(kept)
        or not {kind for _, kind in plan.kept} <= KEPT_TYPES.keys()
    ):
        return f"further columns {short(plan.kept)}"
    parse_class_choice(request.classes)
    if file.maps_from and (
        "\0" in file.maps_from.root or open_run_dir(file.maps_from.root).root != file.maps_from.root
    ):
        return f"maps from {short(file.maps_from.root)}"
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


def short(value: Any) -> str:
    return shortened(value, 80, 12)
