"""The words that truth has for classes, and the classes of the network that they mean."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

from cam_ops.class_lists import read_class_names
from cam_ops.classes import ClassList, class_list, distinct_names
from cam_ops.errors import UsageError
from cam_ops.words import column_of, delimiter_of, near
from cluster.formats.files import read_bounded, reading
from cluster.process.console import shown

MAX_MAP_BYTES = 64 * 2**20

FindClasses = Callable[[str], tuple[int, ...]]
"""From a word to the classes that it may mean: none where it is unknown, several where it is ambiguous."""


def class_finder(class_names: tuple[str, ...], class_map: tuple[str, ...]) -> FindClasses:
    """Return who looks words up: in `class_map`, then by name or number, then as `cam_ops.words` has it.

    Of a name that several classes bear, each is known by that of `export`, too: ``crane (134)``.

    A part of `class_map` is ``WORD=CLASS``, or a CSV file: with the columns truth and class, or a class list as `label`
    takes it, of which each word means its class. Raises UsageError for a class that the network has not.
    """
    classes = class_list([(name,) for name in distinct_names(class_names)], list(class_names))
    given: dict[str, tuple[int, ...]] = {}
    for part in class_map:
        word, equals, class_word = part.rpartition("=")
        more = {word.strip(): (_class_of(class_word, classes, part),)} if equals else _read_map(part, classes)
        for known, class_ids in more.items():
            if given.setdefault(known, class_ids) != class_ids:
                one, other = (classes.names[ids[0]] for ids in (given[known], class_ids))
                raise UsageError(f"--class-map says that {known[:200]!r} is {one!r}, and that it is {other!r}")
    return classes.with_words(given).meanings


def one_class(
    word: str, class_names: tuple[str, ...], find: FindClasses, flag: str, *, takes_several: bool = False
) -> int:
    """Return the one class that a word behind a flag means; raises UsageError where it means none, or several."""
    class_ids = find(word)
    if len(class_ids) > 1:
        names = " or ".join(shown(distinct_names(class_names)[class_id]) for class_id in class_ids)
        raise UsageError(f"{flag} {shown(word)} may be several classes; give {names}")
    if not class_ids:
        hint = f"; is it {' or '.join(map(shown, alike))}?" if (alike := near(word, class_names)) else ""
        raise UsageError(
            f"{flag} {shown(word)} is no class of the run, by name or number{hint}"
            + ("; several are separated by blanks" if takes_several and "," in word else "")
        )
    return class_ids[0]


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
    with reading(path, "a class map", cure):
        text = read_bounded(path, MAX_MAP_BYTES).decode("utf-8-sig")
        header = text.partition("\n")[0].strip("\r")
        delimiter = delimiter_of(header) if path.suffix.lower() in (".csv", ".tsv") else ","
        lines = csv.DictReader(text.splitlines(), delimiter=delimiter)
        of_truth, of_network = (column_of(lines.fieldnames or (), (name,)) for name in ("truth", "class"))
        if of_truth and of_network:
            rows = [((line[of_truth] or "").strip(), line[of_network] or "") for line in lines]
            found: dict[str, tuple[int, ...]] = {}
            for word, class_word in rows:
                class_ids = (_class_of(class_word, classes, f"{path}, {word}"),)
                if found.setdefault(word, class_ids) != class_ids:
                    raise ValueError(f"it says two things of {word[:200]!r}")
            return found
    listed = read_class_names(path)
    if len(listed.names) != len(classes.names):
        raise UsageError(
            f"--class-map {path} lists {len(listed.names)} classes, the network has {len(classes.names)}; {cure}"
        )
    return listed.ids_of
