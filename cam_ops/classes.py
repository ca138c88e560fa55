"""Names of the classes, and the words that choose which classes of an image to explain."""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cam_ops.errors import UsageError
from cam_ops.words import folded

WHOLE_NUMBER = re.compile(r"0*(\d+)(?:\.0*)?")  # as spreadsheets and pandas write numbers beside empty cells
ScoreKind = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassList:
    """The classes of a network, in the order of its logits.

    `ids_of` maps every word by which a class may be called (its number, its name, each column of a CSV list) to the
    classes so called: more than one where a word is ambiguous. `folded_ids` does the same for words as `folded` has
    them.
    """

    names: tuple[str, ...]
    ids_of: dict[str, tuple[int, ...]] = field(repr=False)
    folded_ids: dict[str, tuple[int, ...]] = field(repr=False)

    def meanings(self, word: str) -> tuple[int, ...]:
        """Return the classes that `word` may mean: none where it is unknown, several where it is ambiguous.

        It is taken letter for letter, else as `folded` has it, else as the number that it is, such as ``3.0``.
        """
        word = word.strip()
        ids = self.ids_of.get(word) or self.folded_ids.get(folded(word))
        if ids is None and (number := WHOLE_NUMBER.fullmatch(word)):
            ids = self.ids_of.get(number[1])
        return ids or ()

    def find(self, word: str) -> int | None:
        """Return the class that `word` means, None if unknown; raise UsageError if it means several."""
        ids = self.meanings(word)
        if len(ids) > 1:
            raise UsageError(f"the label {word!r} means classes {list(ids)}; use the class number instead")
        return ids[0] if ids else None

    def with_words(self, more: Mapping[str, tuple[int, ...]]) -> "ClassList":
        """Return the same classes with further words for them, which win over the words that there are."""
        return _indexed(self.names, {**self.ids_of, **more})


def class_list(rows: list[tuple[str, ...]], names: list[str]) -> ClassList:
    """Build a ClassList from each class's display name and all words for it."""
    ids_of: dict[str, list[int]] = {}
    for class_id, words in enumerate(rows):
        for word in dict.fromkeys((names[class_id], *words)):
            ids_of.setdefault(word, []).append(class_id)
    for class_id in range(len(rows)):
        ids_of.setdefault(str(class_id), [class_id])  # a list whose names are numbers means those
    return _indexed(tuple(names), {word: tuple(ids) for word, ids in ids_of.items()})


def _indexed(names: tuple[str, ...], ids_of: dict[str, tuple[int, ...]]) -> ClassList:
    by_fold: dict[str, set[int]] = {}
    for word, ids in ids_of.items():
        by_fold.setdefault(folded(word), set()).update(ids)
    return ClassList(names=names, ids_of=ids_of, folded_ids={word: tuple(sorted(ids)) for word, ids in by_fold.items()})


def numbered_classes(num_classes: int) -> ClassList:
    """Return classes that have no names but their numbers."""
    return class_list([()] * num_classes, [str(i) for i in range(num_classes)])


def read_class_names(path: Path) -> ClassList:
    """Read a class list: .txt (a name a line), .json (a list, or an object from number to name) or .csv.

    A CSV has a header; its column `class_id` or `id` orders the rows (file order without it), its column `name` or else
    its last column is the display name, and every column may be used to name a class in labels.
    """
    try:
        text = path.read_text("utf-8-sig")
        rows = _parse_class_rows(text, path.suffix.lower())
        if not all(words and all(words) for words in rows):
            raise ValueError("a class has no name, or an empty one")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        raise UsageError(f"cannot read class names from {path}: {error}") from None
    if not rows:
        raise UsageError(f"expected at least one class name in {path}, found none")
    return class_list(rows, [words[-1] for words in rows])


def _parse_class_rows(text: str, suffix: str) -> list[tuple[str, ...]]:
    if suffix == ".json":
        document = json.loads(text)
        values = [document[str(i)] for i in range(len(document))] if isinstance(document, dict) else document
        if not isinstance(values, list):
            raise ValueError("a list, or an object from number to name, is expected")
        rows = [tuple(value) if isinstance(value, list) else (value,) for value in values]
        if not all(isinstance(word, str) for words in rows for word in words):
            raise ValueError("names must be texts")
        return rows
    if suffix == ".csv":
        records = list(csv.DictReader(text.splitlines()))
        columns = list(records[0]) if records else []
        if any(None in record or None in record.values() for record in records):
            raise ValueError("a row has more or fewer cells than the header")
        order = next((name for name in ("class_id", "id") if name in columns), None)
        if order:
            records.sort(key=lambda record: int(record[order]))
            if [int(record[order]) for record in records] != list(range(len(records))):
                raise ValueError(f"column {order} must hold 0..{len(records) - 1}, each once")
        last = "name" if "name" in columns else columns[-1] if columns else ""
        return [(*(r[c].strip() for c in columns if c != last), r[last].strip()) for r in records]
    return [(line.strip(),) for line in text.splitlines() if line.strip()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassChoice:
    """Which classes of an image get a map: its label, its `top` best, those scoring above a bound; any union."""

    label: bool = False
    top: int = 0
    above: float | None = None


def parse_class_choice(text: str) -> ClassChoice:
    """Parse `label`, `top1`, `topk:5`, `above:0.2` or terms joined with +, as in `label+top1`."""
    label, top, above = False, 0, None
    for term in text.split("+"):
        name, _, value = term.strip().partition(":")
        try:
            if name == "label" and not value:
                label = True
            elif name == "top1" and not value:
                top = max(top, 1)
            elif name == "topk" and int(value) > 0:
                top = max(top, int(value))
            elif name == "above" and 0 <= float(value) < 1:
                above = float(value)
            else:
                raise ValueError
        except ValueError:
            raise UsageError(
                f"--classes expects label, top1, topk:N, above:P or a union such as label+top1, got {text!r}"
            ) from None
    return ClassChoice(label=label, top=top, above=above)
