"""From the words that label images to the classes that they mean, by `ClassList.meanings`.

What means several classes is refused. What is no class is refused as well or, with `--unknown-labels skip`, left out
and said.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.classes import ClassList, UnknownLabels, whole_number
from cam_ops.errors import UsageError
from cam_ops.words import near
from cluster.process.console import say, shown
from cluster.sources.columns import Columns
from cluster.sources.listing import AND, Listing

SIGNS = (AND, ";", ",")  # between the words of a label that is several
DECIMAL = re.compile(r"\s*\d+,\d+\s*")
NUM_SHOWN = 5

Meaning = tuple[int, ...]
"""The classes that a word means, rising: several for a word such as ``cat|dog``, none where it is no class."""


WordsOf = Callable[[pa.RecordBatch], pa.Array]
"""From a batch of a listing to a word for each image, null where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelChoice:
    """What is asked of labels."""

    spec: str  # one of WORDS, or a file
    images: str  # the address of the source
    is_asked: bool = True  # False: the source's own labels, where it has any
    has_names: bool = False  # the user names the classes
    unknown: UnknownLabels = "refuse"
    columns: Columns = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The classes of a listing's images."""

    meanings: list[Meaning]
    place_of: Callable[[pa.RecordBatch], pa.Array]
    """From a batch of the listing to the place of each image's classes in `meanings`, null where it has none."""

    @property
    def are_several(self) -> bool:
        """Whether an image has several classes."""
        return any(len(meaning) > 1 for meaning in self.meanings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words that label images, and where they stand, for what is said of them."""

    counts: Mapping[str, int]  # each word, with how often it stands there
    given: Callable[[str], str]
    """Say of a word where it stands, a sentence to which ``, which is no class`` is added."""
    cure: str = "mend it, give --class-names with that name, --unknown-labels skip, or --labels none"
    may_be_several: bool = True


def meanings_of(words: Words, classes: ClassList, unknown: UnknownLabels) -> dict[str, Meaning]:
    """Return what each word means. Raises UsageError where one means either of several classes, or none."""
    parts_of = {word: _parts(word, classes) if words.may_be_several else [word] for word in words.counts}
    _refuse_one_hot(parts_of, classes, words)
    classes = _counted(classes, parts_of, words)
    strangers: dict[str, str] = {}  # what is no class, with the first word that it is part of
    meaning_of: dict[str, Meaning] = {}
    for word, parts in parts_of.items():
        try:
            found = {part: classes.find(part) for part in parts}
        except UsageError as error:
            raise UsageError(f"{error} ({words.given(word)})") from None
        for part in (part for part, class_id in found.items() if class_id is None):
            strangers.setdefault(part, word)
        meaning_of[word] = tuple(sorted({class_id for class_id in found.values() if class_id is not None}))
    if strangers and unknown == "refuse":
        raise UsageError(f"{_said(strangers, words)}{_nearest(next(iter(strangers)), classes)}; {words.cure}")
    if strangers:
        count = sum(words.counts[word] for word, parts in parts_of.items() if not strangers.keys().isdisjoint(parts))
        say(f"labels: {_said(strangers, words)}; left out, {count} in all")
    if not any(meaning_of.values()):
        raise UsageError(f"no label is a class of the network: {listed(meaning_of)}; {words.cure}")
    return meaning_of


def in_own_order(classes: ClassList, names: tuple[str, ...], choice: LabelChoice) -> ClassList:
    """Return the classes with the names that a source itself has for its own, where it has as many, in that order.

    They are by their names what they are, if the user names the network's classes, or a name contradicts the order.
    """
    meanings = [classes.meanings(name) for name in names]
    in_order = all(not found or place in found for place, found in enumerate(meanings))
    if choice.has_names or len(names) != len(classes.names) or not in_order:
        return classes
    if num_others := sum(found != (place,) for place, found in enumerate(meanings)):
        say(
            f"labels: guessed, as {num_others} of the {len(names)} class names of {choice.images} are none of the "
            f"network's: they are its classes in the same order, {listed(names)}; --class-names would say it"
        )
    return classes.with_words({name: (place,) for place, name in enumerate(names)})


def _said(strangers: Mapping[str, str], words: Words) -> str:
    part, word = next(iter(strangers.items()))
    which = "which is" if part == word else f"of which {shown(part)} is"
    verb = "nor are" if len(strangers) > 2 else "nor is"
    others = f", {verb} {listed(list(strangers)[1:])}" if len(strangers) > 1 else ""
    return f"{words.given(word)}, {which} no class of the network, by number or name{others}"


def _nearest(word: str, classes: ClassList) -> str:
    return "".join(f"; did you mean {shown(name)}?" for name in near(word, classes.names, 1))


def _parts(word: str, classes: ClassList) -> list[str]:
    """Return the words for classes that a label consists of: it alone if it is one, else those between its signs.

    Between `;` and `,`, which names have as well, all must be classes; ``3,0`` may be a number.
    """
    if classes.meanings(word) or DECIMAL.fullmatch(word):
        return [word]
    for sign in SIGNS:
        parts = [part.strip() for part in word.split(sign) if part.strip()]
        if sign in word and parts and (sign == AND or all(map(classes.meanings, parts))):
            return parts
    return [word]


def _refuse_one_hot(parts_of: Mapping[str, list[str]], classes: ClassList, words: Words) -> None:
    """Raise UsageError for a label such as ``0|0|1``: a yes or no for each class as well as classes' numbers."""
    numbers_of = {word: [whole_number(part) for part in parts] for word, parts in parts_of.items()}
    hot = [word for word, numbers in numbers_of.items() if len(numbers) > 1 and set(numbers) <= {0, 1}]
    for word in hot:
        has_twice = len(numbers_of[word]) > 2 or len(set(numbers_of[word])) == 1
        if has_twice or (len(classes.names) == 2 and len(hot) == len(parts_of) == 2):
            raise UsageError(
                f"{words.given(word)}, which may be a yes or no for each class, or the numbers of classes; write the "
                "names or numbers of the classes that are meant"
            )


def _counted(classes: ClassList, parts_of: Mapping[str, list[str]], words: Words) -> ClassList:
    """Return the classes with numbers that mean one thing, where their list counts from 1 and labels may from 0.

    Labels count as the list does if the last number is among them and 0 is not, from 0 if it is the other way round.
    """
    if classes.numbers_from != 1:
        return classes
    word_of = {
        number: word for word, parts in parts_of.items() for number in map(whole_number, parts) if number is not None
    }
    size = len(classes.names)
    if word_of and (0 in word_of) == (size in word_of):
        raise UsageError(
            f"{words.given(next(iter(word_of.values())))}, a number, and the class list counts from 1, while classes "
            f"count from 0: it may mean either; give --class-names that count from 0 if labels do, else names as labels"
        )
    first = 0 if 0 in word_of else 1
    return classes.with_words({str(first + class_id): (class_id,) for class_id in range(size)}) if word_of else classes


def listed(words: Iterable[str]) -> str:
    """Return words as they stand in a message, the first few of them."""
    words = list(words)
    return ", ".join(map(shown, words[:NUM_SHOWN])) + (
        f" and {len(words) - NUM_SHOWN} more" if len(words) > NUM_SHOWN else ""
    )


def by_word(words_of: WordsOf, meaning_of: Mapping[str, Meaning]) -> Labels:
    """Look up a word for each image, a distinct word once."""
    known = [word for word, meaning in meaning_of.items() if meaning]
    words = pa.array(known, pa.string())
    return Labels(
        meanings=[meaning_of[word] for word in known],
        place_of=lambda batch: pc.index_in(words_of(batch), value_set=words),
    )


def count_words(listing: Listing, words_of: WordsOf) -> Counter[str]:
    """Count the images of each word, those without a word left out."""
    counts: Counter[str] = Counter()
    for batch in listing.batches():
        for entry in pc.value_counts(words_of(batch).drop_null()).to_pylist():
            counts[entry["values"]] += entry["counts"]
    return counts
