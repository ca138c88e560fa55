"""Names of the classes, and the words that choose which classes of an image to explain."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cam_ops.errors import UsageError
from cam_ops.foreign import half_in, whole
from cam_ops.words import folded

WHOLE_NUMBER = re.compile(r"0*(\d{1,9})(?:\.0*)?")  # as spreadsheets and pandas write numbers beside empty cells
UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
ScoreKind = Literal["softmax", "sigmoid"]
ScoreChoice = Literal["auto", "softmax", "sigmoid"]
UnknownLabels = Literal["refuse", "skip"]


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
    numbers_from: int | None = None  # what the list itself numbers the first class, 0 or 1; None where it numbers none

    def meanings(self, word: str) -> tuple[int, ...]:
        """Return the classes that `word` may mean: none where it is unknown, several where it is ambiguous.

        It is taken letter for letter, else as `folded` has it, else as the number that it is, such as ``3.0``.
        """
        word = word.strip()
        ids = self.ids_of.get(word) or self.folded_ids.get(folded(word))
        if ids is None and (number := whole_number(word)) is not None:
            ids = self.ids_of.get(str(number))
        return ids or ()

    def find(self, word: str) -> int | None:
        """Return the class that `word` means, None if unknown; raise UsageError if it means several."""
        ids = self.meanings(word)
        if len(ids) > 1:
            cure = "the class number" if whole_number(word) is None else "a word that this class alone has"
            raise UsageError(f"the label {word[:200]!r} means classes {list(ids[:10])}; use {cure} instead")
        return ids[0] if ids else None

    def with_words(self, more: Mapping[str, tuple[int, ...]]) -> "ClassList":
        """Return the same classes with further words for them, which win over the words that there are."""
        return replace(_indexed(self.names, {**self.ids_of, **more}), numbers_from=self.numbers_from)


def whole_number(word: str) -> int | None:
    """Return the number that a word is, such as 3 for ``3``, ``03`` and ``3.0``; None where it is none."""
    found = WHOLE_NUMBER.fullmatch(word.strip())
    return int(found[1]) if found else None


def class_list(rows: list[tuple[str, ...]], names: list[str], numbers_from: int | None = None) -> ClassList:
    """Build a ClassList from each class's display name and all words for it.

    A number means the class in that place, counted from 0. Names that are numbers mean what they name alone, but where
    the list numbers its classes as well; what then is two classes is ambiguous, as are the numbers of a list that
    counts from 1: those of labels may be meant from 0. Numbers in other columns mean nothing where the list numbers.
    """
    if found := half_in([rows, names]):
        raise UsageError(f"expected names of classes in Unicode, found {whole(found[1])[:200]!r}; mend the class list")
    ids_of: dict[str, list[int]] = {}
    for class_id, words in enumerate(rows):
        for word in dict.fromkeys((names[class_id], *words)):
            ids_of.setdefault(word, []).append(class_id)
    named: dict[int, list[int]] = {}
    for class_id, name in enumerate(names):
        if (number := whole_number(name)) is not None:
            named.setdefault(number, []).append(class_id)
    if not named or numbers_from is not None:
        for number in range(len(names) + 1):
            counted = {number - first for first in (0, numbers_from or 0)}
            others = ids_of.get(str(number), []) if numbers_from is None else named.get(number, [])
            if ids := sorted({*(i for i in counted if 0 <= i < len(names)), *others}):
                ids_of[str(number)] = ids
    return replace(
        _indexed(tuple(names), {word: tuple(ids) for word, ids in ids_of.items()}), numbers_from=numbers_from
    )


def _indexed(names: tuple[str, ...], ids_of: dict[str, tuple[int, ...]]) -> ClassList:
    by_fold: dict[str, set[int]] = {}
    for word, ids in ids_of.items():
        by_fold.setdefault(folded(word), set()).update(ids)
    return ClassList(names=names, ids_of=ids_of, folded_ids={word: tuple(sorted(ids)) for word, ids in by_fold.items()})


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names that tell classes apart, without control characters, for tools that know names alone.

    One that several classes bear, whatever its capitals, gets its number: ``crane (134)`` and ``crane (517)``.
    """
    plain = [UNFIT.sub("\N{REPLACEMENT CHARACTER}", name).strip() or "unnamed" for name in names]
    counts = Counter(name.casefold() for name in plain)
    distinct = [f"{name} ({i})" if counts[name.casefold()] > 1 else name for i, name in enumerate(plain)]
    while len({*distinct}) < len(distinct):  # somebody has such names, too
        counts = Counter(distinct)
        distinct = [f"{name} #{i}" if counts[name] > 1 else name for i, name in enumerate(distinct)]
    return tuple(distinct)


def numbered_classes(num_classes: int) -> ClassList:
    """Return classes that have no names but their numbers."""
    return class_list([()] * num_classes, [str(i) for i in range(num_classes)])


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
