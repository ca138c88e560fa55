"""`show`: one image with its heat maps and boxes, or several on a sheet, as PNG."""

import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import quote

import cv2
import tyro.conf

from cam_ops.arrays import U8
from cam_ops.errors import UsageError
from cluster.display.audited import read_audited
from cluster.display.choosing import Chosen, at_random, named, of_class, worst
from cluster.display.image import Labelled, draw, read_places
from cluster.display.sheet import MAX_SIDE, cell_of, columns_for, draw_sheet
from cluster.process.console import say
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.names import audit_folder
from cluster.runs.record import Run, existing_run
from cluster.storage.named import write_named
from cluster.storage.options import parse_options
from cluster.truth.classes import class_finder, one_class
from jobs.command import Outcome, print_lines
from jobs.flags import parse
from jobs.paths import refuse_unwritable_file

MAX_NAME_BYTES = 100
MAX_SEED = 2**31
DEFAULT_GRID = 5, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowConfig:
    """Draw images of a run under their heat maps, with boxes, class and score: one large, or several on a sheet."""

    out: tyro.conf.Positional[str]
    """Run directory."""
    image_ids: tyro.conf.Positional[tuple[str, ...]] = ()
    """Image ids: paths below --images. None with --random, --class or --worst, which choose images themselves."""
    random: bool = False
    """A sheet of images drawn at random; the same ones each time."""
    only_class: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """Only images with a map of this class, by name or number, drawn at random; with --worst, those whose true class it
    is."""
    worst: bool = False
    """A sheet of the images whose best box has the lowest IoU by `audit`."""
    audit: str | None = None
    """Name of the audit, of `audit --name`, for --worst and for the true boxes that are drawn."""
    grid: str | None = None
    """Columns and rows of a sheet, 20x20 at most; by default 5x4, of images that are named as many as these need."""
    seed: int = 0
    """Draws other images."""
    to: str | None = None
    """PNG file to write; by default one in OUT/show that is called by what it shows."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""

    def __post_init__(self) -> None:
        _ = self.columns_and_rows
        audit_folder(self.audit)
        draws = self.random or (self.only_class is not None and not self.worst)
        if not self.image_ids and not draws and not self.worst:
            raise UsageError("show expects image ids, or --random, --class CLASS or --worst to choose images by")
        if self.image_ids and (draws or self.worst):
            flag = "--worst" if self.worst else "--random" if self.random else "--class"
            raise UsageError(f"show expects image ids or {flag}, which chooses images itself, got both")
        if self.random and self.worst:
            raise UsageError("--random and --worst choose other images, give one of them")
        if not 0 <= self.seed < MAX_SEED:
            raise UsageError(f"--seed expects a number from 0 to {MAX_SEED - 1}, got {self.seed}")
        if self.seed and not draws:
            raise UsageError("--seed draws other images by --random or --class, and there is nothing to draw")

    @property
    def columns_and_rows(self) -> tuple[int, int] | None:
        """--grid, parsed; raises UsageError."""
        if self.grid is None:
            return None
        parts = re.fullmatch(r"([1-9]\d{0,8})[xX]([1-9]\d{0,8})", self.grid)
        columns, rows = (int(part) for part in parts.groups()) if parts else (0, 0)
        if not (1 <= columns <= MAX_SIDE and 1 <= rows <= MAX_SIDE):
            raise UsageError(
                f"--grid expects columns and rows, {MAX_SIDE}x{MAX_SIDE} at most, as in 5x4, got {self.grid[:80]!r}"
            )
        return columns, rows


def run(arguments: list[str]) -> Outcome:
    """Write the PNG and print its path."""
    config = parse(ShowConfig, arguments, "show")
    if config.to is not None:
        refuse_unwritable_file(config.to, "--to")
    run_dir = open_run_dir(config.out, parse_options(config.storage_options))
    state = existing_run(run_dir)
    ids = tuple(os.fsencode(word).decode("utf-8", "backslashreplace") for word in config.image_ids)  # as listings do
    if len(ids) == 1 and config.grid is None:
        picture_HWC, labelled = _one(config, run_dir, state, ids[0])
        name = safe_name(ids[0])
    else:
        picture_HWC, labelled, name = _sheet(config, run_dir, state, ids)
    encoded = cv2.imencode(".png", picture_HWC[..., ::-1])[1].tobytes()
    if config.to is None:
        name = f"show/{name}.png"
        run_dir.publish(name, encoded)
        print_lines([run_dir.where(name)])
    else:
        write_named(config.to, encoded, "--to")
        print_lines([config.to])
    ok = sum(each.image["status"] == "ok" for each in labelled)
    boxes = sum(each.image["num_boxes"] for each in labelled)
    return Outcome(images=len(labelled), ok=ok, errors=len(labelled) - ok, boxes=boxes, out=config.out)


def _one(config: ShowConfig, run_dir: RunDir, state: Run, image_id: str) -> tuple[U8, list[Labelled]]:
    places = named(run_dir, state, [image_id])
    labelled = read_places(run_dir, state, places)
    truth = read_audited(run_dir, state, places, config.audit).truth.get(places[0], [])
    return draw(state, labelled[0], run_dir.options, truth), labelled


def _sheet(config: ShowConfig, run_dir: RunDir, state: Run, ids: tuple[str, ...]) -> tuple[U8, list[Labelled], str]:
    """Return a sheet, what is on it, and its name."""
    names, word = state.class_names, config.only_class
    class_id = None if word is None else one_class(word, names, class_finder(names, ()), "--class")
    columns, rows = config.columns_and_rows or (
        (min(columns_for(len(ids)), MAX_SIDE), MAX_SIDE) if ids else DEFAULT_GRID
    )
    if len(ids) > columns * rows:
        sheet = f"--grid {config.grid}" if config.grid else "a sheet"
        raise UsageError(f"{sheet} has room for {columns * rows} images, got {len(ids)}")
    chosen, name = _choose(config, run_dir, state, ids, columns * rows, class_id)
    labelled = read_places(run_dir, state, chosen.places)
    audited = read_audited(run_dir, state, chosen.places, config.audit)
    wanted = class_id if not config.worst else None
    cells = [cell_of(each, audited, wanted) for each in labelled]
    heading = f"{run_dir.root.rpartition('/')[2]}: {chosen.what}{'; white: true boxes' if audited.truth else ''}"
    say(chosen.what)
    return draw_sheet(state, cells, columns, heading, run_dir.options), labelled, name


def _choose(
    config: ShowConfig, run_dir: RunDir, state: Run, ids: tuple[str, ...], number: int, class_id: int | None
) -> tuple[Chosen, str]:
    """Return the images of a sheet, and its name."""
    if ids:
        places = named(run_dir, state, ids)
        if len(ids) == 1:
            return Chosen(places=places, what="1 image"), f"{safe_name(ids[0])}-sheet"
        digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:8]
        return Chosen(places=places, what=f"{len(ids)} images"), f"{safe_name(ids[0])}-and-{len(ids) - 1}-more-{digest}"
    of = "" if class_id is None else f"-{safe_name(state.class_names[class_id])}"
    if config.worst:
        name = f"-{config.audit}" if config.audit else ""
        return worst(run_dir, state, number, class_id, config.audit), f"worst{of}{name}"
    if class_id is None:
        return at_random(run_dir, state, number, config.seed), f"random-{config.seed}"
    return of_class(run_dir, state, class_id, number, config.seed), f"class{of}-{config.seed}"


def safe_name(image_id: str) -> str:
    """Return a file name for an image id: no separators, no more than a file system takes, one name per id."""
    name = quote(image_id, safe=" ")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) <= MAX_NAME_BYTES:
        return name
    return name[:MAX_NAME_BYTES] + "-" + hashlib.sha256(image_id.encode()).hexdigest()[:16]
