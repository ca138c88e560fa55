"""The words that truth has for classes, and the classes of the network that they mean."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

from cam_ops.class_lists import read_class_names
from cam_ops.classes import ClassList, class_list
from cam_ops.errors import UsageError
from cluster.formats.files import reading

FindClasses = Callable[[str], tuple[int, ...]]
"""From a word to the classes that it may mean: none where it is unknown, several where it is ambiguous."""


def class_finder(class_names: tuple[str, ...], class_map: tuple[str, ...]) -> FindClasses:
    """Return who looks words up: in `class_map`, then by name or number, then as `cam_ops.words` has it.

    A part of `class_map` is ``WORD=CLASS``, or a CSV file: with the columns truth and class, or a class list as `label`
    takes it, of which each word means its class. Raises UsageError for a class that the network has not.
    """
    classes = class_list([()] * len(class_names), list(class_names))
    given: dict[str, tuple[int, ...]] = {}
    for part in class_map:
        word, equals, class_word = part.rpartition("=")
        given |= {word.strip(): (_class_of(class_word, classes, part),)} if equals else _read_map(part, classes)
    return classes.with_words(given).meanings


def _class_of(word: str, classes: ClassList, where: str) -> int:
    class_id = classes.find(word)
    if class_id is None:
        raise UsageError(f"--class-map {where}: {word[:200]!r} is no class of the network, by number or name")
    return class_id


def _read_map(text: str, classes: ClassList) -> dict[str, tuple[int, ...]]:
    path = Path(os.path.expanduser(text))
    if not path.is_file():
        raise UsageError(f"--class-map expects WORD=CLASS or a CSV file, got {text[:200]!r}, which is neither")
    cure = "give a CSV file with the columns truth and class"
    with reading(path, "a class map", cure), path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file)
        if {"truth", "class"} <= set(lines.fieldnames or ()):
            where = str(path)
            return {(line["truth"] or "").strip(): (_class_of(line["class"] or "", classes, where),) for line in lines}
    listed = read_class_names(path)
    if len(listed.names) != len(classes.names):
        raise UsageError(
            f"--class-map {path} lists {len(listed.names)} classes, the network has {len(classes.names)}; {cure}"
        )
    return listed.ids_of
