"""Pictures whose maps are given, written by a format as a replica and the driver have it write."""

from pathlib import Path
from typing import Any

import numpy as np

from cam_ops.settings import MapConfig
from cluster.export.destination import destination_at
from cluster.export.driver import WholePlace
from cluster.export.kinds import EXPORTS
from cluster.export.replica import PartPlace
from cluster.formats.exported import Box, Classes, Map, Picture, Settings
from cluster.storage.options import NO_OPTIONS


def settings_of(num_classes: int, **more: Any) -> Settings:
    """Return settings of maps on the network's own grid of 2 x 2 cells, each divided by its peak."""
    given = {
        "input_size": 2,
        "maps": MapConfig(normalise="max"),
        "classes": Classes(
            names=tuple(f"class {number}" for number in range(num_classes)),
            numbers={number: number for number in range(num_classes)},
        ),
    }
    return Settings(root="", run="", has_pictures=False, is_calibrated=False, **{**given, **more})


def picture_of(
    size: tuple[int, int],
    maps: dict[int, list[list[float]]],
    *,
    rectangle: tuple[float, float, float, float] | None = None,
    boxed: set[int] | None = None,
    scores: dict[int, float] | None = None,
    labels: tuple[int, ...] = (),
    name: str = "a.jpg",
) -> Picture:
    """Return a picture with a map for each class, and a box for each that is `boxed`, by default all."""
    covered = np.array(rectangle or (0, 0, *size), np.float32)
    corners = {"x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 1.0, "energy": 0.5, "probability": None}
    score = {**dict.fromkeys(maps, 0.5), **(scores or {})}
    return Picture(
        image_id=name,
        number=1,
        name=name,
        split="",
        width=size[0],
        height=size[1],
        labels=labels,
        uri="",
        boxes=[
            Box(class_id=class_id, score=score[class_id], **corners)  # type: ignore[arg-type]
            for class_id in (maps if boxed is None else boxed)
        ],
        maps=[
            Map(class_id=class_id, score=score[class_id], raw_hw=np.array(raw, np.float32), rectangle_4=covered)
            for class_id, raw in maps.items()
        ],
    )


def written(form: str, settings: Settings, pictures: list[Picture], out: Path) -> Path:
    """Write an export of one part."""
    export, destination = EXPORTS[form], destination_at(str(out), NO_OPTIONS)
    in_the_way = destination.begin({}, export.entries, overwrite=False)
    part = PartPlace(destination, settings, 0)
    export.write(iter(pictures), part)
    part.close()
    export.finish(WholePlace(destination, settings, ("",), 1))
    destination.prepare(in_the_way)
    destination.finish({"entries": export.entries}, in_the_way)
    return out
