"""The names that YOLO's files give to classes: `data.yaml`, `classes.txt` and their like, near the labels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

from cam_ops.documents import yaml_of
from cam_ops.errors import UsageError
from cam_ops.words import folded
from cluster.formats.entries import number_of
from cluster.formats.files import files_below, read_bounded, reading
from cluster.process.console import say, shown

MAX_NAMES_BYTES = 2**20
YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LIST_NAMES = ("classes.txt", "obj.names")
YAML_SUFFIXES = (".yaml", ".yml")
YOLO_NAMES = (*YAML_NAMES, *LIST_NAMES)
YOLO_LABELS = "labels"
LEVELS_UP = 4  # that the names of classes may lie above the labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What files say of the classes."""

    words: dict[int, str] = field(default_factory=dict)
    num_keypoints: int = 0  # numbers of keypoints behind each box
    where: str = ""


class NamesBelow:
    """The names of the classes of all labels below a folder: the nearest ones above them, in it or above it."""

    def __init__(self, folder: Path, places: Sequence[str]) -> None:
        """Take the `places` of labels, folders by their paths below `folder`. Raises UsageError as `of` does."""
        self.folder, self.places = folder, places
        self.whole = _class_names(folder)
        self.known: dict[str, Names] = {}
        self.said: set[str] = set()

    def of(self, place: str) -> Names:
        """Return the names for labels in a place, where necessary the only ones of the folder. Raises UsageError."""
        if place not in self.known:
            names = self._nearest(place) or self.whole
            if not names.words:
                names = self._only()
            names = replace(names, num_keypoints=names.num_keypoints or self.whole.num_keypoints)
            self.known[place] = names
            if names.where not in self.said and (not names.where or Path(names.where).parent != self.folder):
                none = f"no {' or '.join((YAML_NAMES[0], *LIST_NAMES))} at {self.folder}"
                numbers = f"{none}, the numbers of classes are taken as the network's"
                say(f"truth: {f'classes are called as {names.where} says' if names.where else numbers}")
            self.said.add(names.where)
        return self.known[place]

    def _nearest(self, place: str) -> Names | None:
        """Return the names in a place, or above it below the folder itself."""
        parts = place.split("/") if place else []
        for number in range(len(parts), 0, -1):
            at = self.folder.joinpath(*parts[:number])
            paths = _named(at, YOLO_NAMES) or ([] if parts[number - 1] == YOLO_LABELS else _yaml_files(at))
            if at != self.folder / YOLO_LABELS and (found := _agreeing(paths)).words:
                return found
        return None

    def _only(self) -> Names:
        """Return the names that lie beside all labels, none where there are none."""
        with reading(self.folder, "a folder of YOLO"):
            found = [Path(path) for name in YOLO_NAMES for _, path in files_below(str(self.folder), name)]
        paths = [path for path in found if path.name in YOLO_NAMES and _agreeing([path]).words]
        if not paths:
            return Names()
        near = [path for path in paths if any(self._is_above(path.parent, place) for place in self.places)]
        if len(paths) > 1 or near:
            raise UsageError(
                f"classes of the labels in {self.folder} are called by {paths[0]}"
                + (f" or {paths[1]}" if len(paths) > 1 else ", which lies with others")
                + f"; copy the file that is right for all to {self.folder}, or a file to the labels of each"
            )
        return _agreeing(paths)

    def _is_above(self, names_folder: Path, place: str) -> bool:
        return (self.folder / place).is_relative_to(names_folder)


def _class_names(folder: Path) -> Names:
    """Return the names that files give to classes: those beside the labels, else those of the nearest folder above.

    Beside them is in the folder, in `labels`, and beside that; any `.yaml` will do there where none has a known name.
    Raises UsageError where two files at one place call a class by two names.
    """
    places = [folder, folder / YOLO_LABELS]
    places += [place.parent for place in (folder, *folder.parents[:LEVELS_UP]) if place.name == YOLO_LABELS]
    own = [path for place in places for path in _named(place, YOLO_NAMES)]
    own = own or [path for place in places if place.is_dir() for path in _yaml_files(place)]
    for paths in (own, *(_named(place, YOLO_NAMES) for place in folder.parents[:LEVELS_UP])):
        found = _agreeing(paths)
        if found.words or found.num_keypoints:
            return found
    return Names()


def _agreeing(paths: Sequence[Path]) -> Names:
    """Read the names of files at one place. Raises UsageError where two call a class by two names."""
    found = Names()
    for path in paths:
        with reading(path, "names of YOLO's classes"):
            found = _agreed(found, _read_names(path))
    return found


def _yaml_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix in YAML_SUFFIXES and path.is_file()]


def _named(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [path for name in names if (path := folder / name).is_file()]


def _agreed(before: Names, more: Names) -> Names:
    for class_id in before.words.keys() & more.words.keys():
        one, other = before.words[class_id], more.words[class_id]
        if folded(one) != folded(other):
            raise ValueError(
                f"it calls class {class_id} {shown(other)}, {before.where} calls it {shown(one)}; take one of them away"
            )
    return Names(
        words={**more.words, **before.words},
        num_keypoints=before.num_keypoints or more.num_keypoints,
        where=before.where or more.where,
    )


def _read_names(path: Path) -> Names:
    """Read the names of one file. Raises ValueError where it has names that are none."""
    text = read_bounded(path, MAX_NAMES_BYTES).decode("utf-8-sig")
    if path.name in LIST_NAMES:
        lines = enumerate(line.strip() for line in StringIO(text, newline=None))  # not at \x0c, or U+2028 in a name
        return Names(words={number: line for number, line in lines if line}, where=str(path))
    try:
        document = yaml_of(text, is_typed=False)  # the names 0, 1, no and off are words
    except ValueError:
        if path.name not in YAML_NAMES:  # it is of something else
            return Names()
        raise
    names: Any = document.get("names") if isinstance(document, dict) else None
    named = dict(enumerate(names)) if isinstance(names, list) else names if names is not None else {}
    if not isinstance(named, dict) or not all(isinstance(word, str) for word in named.values()):
        raise ValueError("expected `names`, a list of texts, or texts by number")
    if not all(isinstance(key, int) or re.fullmatch(r"\d{1,9}", str(key)) for key in named):
        raise ValueError("expected `names`, a list of texts, or texts by number")
    words = {int(key): word.strip() for key, word in named.items() if word.strip()}
    shape = document.get("kpt_shape") if isinstance(document, dict) else None
    sides = [number_of(side) for side in shape] if isinstance(shape, list) else []
    num_keypoints = int(sides[0] * sides[1]) if len(sides) == 2 and sides[0] and sides[1] else 0
    return Names(words=words, num_keypoints=num_keypoints, where=str(path))
