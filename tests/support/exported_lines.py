"""A part of an export that keeps what a format leaves, for pictures made by hand."""

from collections import defaultdict
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import IO

from cam_ops.settings import MapConfig
from cluster.formats.exported import Box, Classes, Picture, Settings


@dataclass
class KeptPart:
    """A part, as formats see it."""

    settings: Settings
    number: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    lines: dict[tuple[str, str], list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def put(self, name: str, content: bytes) -> None:
        self.files[name] = content

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        raise NotImplementedError(name)

    def note(self, section: str, split: str, line: bytes) -> None:
        assert b"\n" not in line
        self.lines[section, split].append(line)


def settings_of(names: tuple[str, ...], **more: object) -> Settings:
    """Return the settings of an export of all classes."""
    given = {
        "root": "/out",
        "run": "/run",
        "input_size": 32,
        "maps": MapConfig(),
        "has_pictures": False,
        "is_calibrated": False,
        "classes": Classes(names=names, numbers={number: number for number in range(len(names))}),
    }
    return Settings(**{**given, **more})


def picture_of(image_id: str = "a.jpg", *class_ids: int, **more: object) -> Picture:
    """Return a picture of 40 x 20 pixels with a box of each class: columns 10..29 and rows 5..14."""
    corners = {"x0": 10, "y0": 5, "x1": 30, "y1": 15}
    boxes = [Box(class_id=number, **corners, score=0.5, energy=0.5, probability=None) for number in class_ids]
    given = {
        **{"image_id": image_id, "number": 1, "name": image_id, "split": "", "width": 40, "height": 20, "labels": ()},
        **{"uri": f"/pictures/{image_id}", "boxes": boxes},
    }
    return Picture(**{**given, **more})
