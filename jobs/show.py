"""`show`: one image with its heat maps and boxes, as PNG."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import cv2
import tyro.conf

from cam_ops.errors import StorageError
from cluster.display.image import draw, read_labelled
from cluster.runs.directory import open_run_dir
from cluster.runs.record import existing_run
from cluster.storage.options import parse_options
from jobs.command import Outcome
from jobs.flags import parse

MAX_NAME_BYTES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowConfig:
    """Draw one image of a run: the picture under its heat map, with boxes, class and score."""

    out: tyro.conf.Positional[str]
    """Run directory."""
    image_id: tyro.conf.Positional[str]
    """Image id: the path below --images."""
    to: str | None = None
    """PNG file to write; by default OUT/show/ID.png."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""


def run(arguments: list[str]) -> Outcome:
    """Write the PNG and print its path."""
    config = parse(ShowConfig, arguments, "show")
    run_dir = open_run_dir(config.out, parse_options(config.storage_options))
    image_id = os.fsencode(config.image_id).decode("utf-8", "backslashreplace")  # as the listing writes such names
    state = existing_run(run_dir)
    labelled = read_labelled(run_dir, state, image_id)
    picture_HWC = draw(state, labelled, run_dir.options)
    encoded = cv2.imencode(".png", picture_HWC[..., ::-1])[1].tobytes()
    if config.to is None:
        name = f"show/{safe_name(image_id)}.png"
        run_dir.publish(name, encoded)
        print(run_dir.where(name))
    else:
        try:
            Path(config.to).write_bytes(encoded)
        except OSError as error:
            raise StorageError(f"cannot write {config.to}: {error.strerror}; check --to") from None
        print(config.to)
    ok = int(labelled.image["status"] == "ok")
    return Outcome(images=1, ok=ok, errors=1 - ok, boxes=labelled.image["num_boxes"], out=config.out)


def safe_name(image_id: str) -> str:
    """Return a file name for an image id: no separators, no more than a file system takes, one name per id."""
    name = quote(image_id, safe=" ")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) <= MAX_NAME_BYTES:
        return name
    return name[:MAX_NAME_BYTES] + "-" + hashlib.sha256(image_id.encode()).hexdigest()[:16]
