"""Class lists as people write them, .txt, .json and .csv, to the classes in the order of a network's outputs.

What has one meaning is taken: delimiters are found, a column of numbers orders the rows, a first row is a header where
it looks like one or the number of classes says so. Else the list is refused. The last word of a row is the name shown.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cam_ops.classes import ClassList, class_list, whole_number
from cam_ops.documents import json_of
from cam_ops.errors import UsageError
from cam_ops.outside import RAISE, raised, size_of_file
from cam_ops.words import DELIMITERS, column_of, delimiter_of, folded

MAX_BYTES = 16 * 2**20
MAX_CELLS = 2**20  # of a list; ImageNet's largest has 21,841 classes
TWO_DIGITS = 10  # numbers from 1 on have another order as texts
IDS = ("class_id", "id")  # a column that must hold the classes' numbers
NUMBERS = ("index", "idx", "class_index", "class_idx", "label_id", "category_id", "number", "target", "label", "class")
NAMES = ("name", "class_name", "names", "class_names")
OTHERS = ("wnid", "synset", "breed", "species", "category", "labels", "classes", "description")
NUMBERED_LINE = re.compile(r"(\d+)(?:\s*[:,;\t]\s*|\s+)(\S.*)")
SYNSET_LINE = re.compile(r"(n\d{8})\s+(\S.*)")  # as ImageNet's own list has them


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The words of each class, in order."""

    rows: list[tuple[str, ...]]
    numbers_from: int | None = None
    header: Sequence[str] = ()


def read_class_names(path: Path, num_classes: int | None = None) -> ClassList:
    """Read a class list: .txt (a name a line), .json (a list, or an object of numbers and names) or .csv.

    A CSV's column `class_id` or `id` orders the rows (file order without it), its column `name` or else its last column
    is the display name, and every column may be used to name a class in labels. Raises UsageError for a file that
    cannot be read, and for one that has not `num_classes` entries.
    """
    try:
        if size_of_file(path) > (most := raised(MAX_BYTES)):
            raise ValueError(f"it has more than {most} bytes; shorten it, {RAISE}")
        text = path.read_text("utf-8-sig")
        if sum(map(text.count, (*DELIMITERS, "\n"))) > (most := raised(MAX_CELLS)):
            raise ValueError(f"it has more than {most} lines, words or commas; shorten it, {RAISE}")
        listed = _parse(text, path.suffix.lower(), num_classes)
        if not all(words and all(words) for words in listed.rows):
            raise ValueError("a class has no name, or an empty one")
    except UnicodeDecodeError:
        raise UsageError(f"cannot read class names from {path}: it is no text in UTF-8; save it as such") from None
    except OSError as error:
        raise UsageError(f"cannot read class names from {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UsageError(f"cannot read class names from {path}: {error}") from None
    if not listed.rows:
        raise UsageError(f"expected at least one class name in {path}, found none")
    if num_classes not in (None, len(listed.rows)):
        header = f" below the header {', '.join(listed.header)[:200]!r}" if listed.header else ""
        raise UsageError(
            f"the network has {num_classes} classes, the class list names {len(listed.rows)}{header}; give "
            f"--class-names with one entry a class, {path} is none"
        )
    return class_list(listed.rows, [words[-1] for words in listed.rows], listed.numbers_from)


def _parse(text: str, suffix: str, num_classes: int | None) -> _Rows:
    if suffix == ".json":
        return _from_json(json_of(text, _once_each))
    if suffix in (".csv", ".tsv"):
        return _from_csv(text, num_classes)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return _numbered_lines(lines) or _Rows(rows=[_words_of_line(line) for line in lines])


def _numbered_lines(lines: list[str]) -> _Rows | None:
    """Return lines that all begin with the number of their class, such as ``0 cat`` or ``1: cat``; None for others."""
    found = [NUMBERED_LINE.fullmatch(line) for line in lines]
    parts = [(whole_number(match[1]), match[2]) for match in found if match]
    first = _counts_from([number for number, _ in parts])
    if len(parts) < max(2, len(lines)) or first is None or len({name for _, name in parts}) < len(parts):
        return None
    rows = sorted((number or 0, (line, name)) for line, (number, name) in zip(lines, parts, strict=True))
    return _Rows(rows=[words for _, words in rows], numbers_from=first)


def _words_of_line(line: str) -> tuple[str, ...]:
    found = SYNSET_LINE.fullmatch(line)
    return (line, found[1], found[2]) if found else (line,)


def _counts_from(numbers: Sequence[int | None]) -> int | None:
    """Return 0 or 1 where these are all the numbers from there on, each once, in any order; else None."""
    given = {number for number in numbers if number is not None}
    return next((first for first in (0, 1) if given == set(range(first, first + len(numbers)))), None)


def _ordered(numbers: Sequence[int | None], rows: list[tuple[str, ...]], place: str) -> _Rows:
    """Return rows in the order of their numbers; raises ValueError unless these count from 0 or 1, each once."""
    first = _counts_from(numbers)
    if first is None:
        given = {number for number in numbers if number is not None}
        missing = min(set(range(len(numbers) + 1)) - {0} - given, default=0)
        raise ValueError(
            f"{place} must hold 0..{len(numbers) - 1}, or 1..{len(numbers)}, each once; {missing} is not there"
        )
    return _Rows(rows=[rows[i] for i in _order(numbers)], numbers_from=first)


def _order(numbers: Sequence[int | None]) -> list[int]:
    """Return the places of numbers, the lowest first."""
    return sorted(range(len(numbers)), key=lambda i: numbers[i] or 0)


def _once_each(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; raises ValueError where a key is there twice, of which Python would keep the last."""
    document = dict(entries)
    if len(document) < len(entries):
        keys = [key for key, _ in entries]
        raise ValueError(f"it has the entry {max(keys, key=keys.count)[:200]!r} twice")
    return document


def _from_json(document: Any) -> _Rows:
    """Take a list of names or of words, or an object from number to name or from name to number."""
    if isinstance(document, list):
        return _Rows(rows=[_words_of_entry(value) for value in document])
    if isinstance(document, dict) and isinstance(document.get("id2label"), dict):
        check_both_ways(document["id2label"], document.get("label2id"))
        document = document["id2label"]  # of a configuration of Hugging Face's
    if not isinstance(document, dict) or not document:
        raise ValueError("a list of names, or an object from number to name, is expected")
    if not all(type(value) is int for value in document.values()):
        if not any(whole_number(key) is not None for key in document):
            raise ValueError(f"its entries are no numbers and names, such as {str(next(iter(document.items())))[:200]}")
        rows = [_words_of_entry(value) for value in document.values()]
        found = _ordered([whole_number(key) for key in document], rows, "the numbers before the names")
        if found.numbers_from == 1 and len(rows) >= TWO_DIGITS:
            raise ValueError(
                "its numbers count from 1, so they are not the network's outputs, which may be in the order of numbers "
                "or of texts (1, 10, 2), as torchvision's ImageFolder has them; give a list of names in their order"
            )
        return found
    if all(whole_number(key) is not None for key in document):
        raise ValueError("its names are numbers as well: give a list of names, in the order of the network's outputs")
    return _ordered(list(document.values()), [(key.strip(),) for key in document], "the numbers behind the names")


def check_both_ways(id2label: Mapping[Any, Any], label2id: Any) -> None:
    """Raise ValueError where a configuration of Hugging Face's gives the only class of a name another number."""
    numbers = label2id if isinstance(label2id, dict) else {}
    names = Counter(map(str, id2label.values()))
    for key, name in id2label.items():
        number, other = whole_number(str(key)), whole_number(str(numbers.get(str(name))))
        if names[str(name)] == 1 and None not in (number, other) and number != other:
            raise ValueError(
                f"its id2label calls class {number} {str(name)[:200]!r}, which in its label2id is class {other}; mend "
                "the one that is wrong"
            )


def _words_of_entry(value: Any) -> tuple[str, ...]:
    words = tuple(value) if isinstance(value, list) else (value,)
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"names must be texts, found {str(value)[:200]}")
    return tuple(word.strip() for word in words)


def _from_csv(text: str, num_classes: int | None) -> _Rows:
    first_line = next((line for line in text.split("\n") if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(first_line.rstrip("\r")), strict=True)
    rows = [cells for row in reader if any(cells := [cell.strip() for cell in row])]
    if odd := next((row for row in rows if len(row) != len(rows[0])), None):
        raise ValueError(
            f"a row has more or fewer cells than the first, which has {len(rows[0])}: {str(odd[:10])[:200]}"
        )
    columns = [column for column in zip(*rows, strict=True) if any(column)]  # but for those of trailing delimiters
    header = [column[0] for column in columns] if rows and _has_header(rows, num_classes) else []
    if header:
        columns = [column[1:] for column in columns]
    numbers = _number_column(columns, header)
    name = _name_column(columns, header, numbers)
    words = [column for i, column in enumerate(columns) if i not in (numbers, name)] + columns[name : name + 1]
    listed = [(*filter(None, row[:-1]), row[-1]) for row in zip(*words, strict=True)]
    if numbers is None or numbers == name:  # names that are numbers
        return _Rows(rows=listed, header=header)
    place = f"column {header[numbers]}" if header else "the column of numbers"
    return replace(_ordered([whole_number(cell) for cell in columns[numbers]], listed, place), header=header)


def _has_header(rows: list[list[str]], num_classes: int | None) -> bool:
    """Say whether the first row names columns; where nothing in it tells, by the number of classes, else it does."""
    numbers = [[whole_number(cell) for cell in column] for column in zip(*rows, strict=True)]
    if len(numbers) > 1 and any(_counts_from(column) is not None for column in numbers):
        return False  # it goes on with the numbering of the rows
    known = {folded(word) for word in (*IDS, *NUMBERS, *NAMES, *OTHERS)}
    if any(folded(cell) in known for cell in rows[0]):
        return True
    if any(first is None and rest and None not in rest for first, *rest in numbers):
        return True
    return num_classes != len(rows)


def _number_column(columns: list[tuple[str, ...]], header: list[str]) -> int | None:
    """Return the place of the column that orders the rows, None where none does; raises ValueError where two might."""
    named = column_of(header, IDS)
    if named is not None:
        return header.index(named)
    name = column_of(header, NAMES)
    counted = {
        i: numbers
        for i, column in enumerate(columns)
        if _counts_from(numbers := [whole_number(cell) for cell in column]) is not None and header[i : i + 1] != [name]
    }
    orders = {tuple(_order(numbers)) for numbers in counted.values()}
    known = {folded(word) for word in NUMBERS}
    for i, numbers in counted.items():
        is_known = not header or folded(header[i]) in known
        if len(orders) > 1 or not (is_known or _order(numbers) == list(range(len(numbers)))):
            raise ValueError(
                f"{f'column {header[i]}' if header else f'column {i + 1}'} numbers the rows in another order than they "
                "stand in; call the column that numbers the classes class_id"
            )
    return next(iter(counted), None)


def _name_column(columns: list[tuple[str, ...]], header: list[str], numbers: int | None) -> int:
    """Return the place of the column that is shown: `name`, else the last that does not number the rows."""
    named = column_of(header, NAMES)
    if named is not None:
        return header.index(named)
    return max((i for i in range(len(columns)) if i != numbers), default=0)
