"""What rows say of their class beside its number: in another column, by a name that may be that of another class."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.classes import whole_number
from cluster.sources.columns import NEAR, known_columns

LABEL_COLUMNS = ("label", *NEAR["label"], "name", "wnid", "synset")
MAX_PAIRS = 2**16  # of numbers and words in a column: one with more names no classes
MAX_BYTES = 256  # of a word: a longer one names none, and so many are held
NUMBER = r"^\s*\d+(\.0*)?\s*$"  # what `whole_number` may take


def beside_label(found: Sequence[str], label: str | None) -> list[str]:
    """Return those of the `found` columns that may name classes, too; none where there is no label."""
    return [name for name in known_columns(found, LABEL_COLUMNS) if name != label] if label is not None else []


@dataclass(frozen=True, slots=True)
class Beside:
    """The words that stand beside numbers, as rows are read; threads may share one."""

    found: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    """By another column: a number as it is written, and the word that stands there; where the first such row is."""

    def note(self, label: str, column: str, word: str, where: str) -> None:
        """Note a row, if its label is a number and the word none."""
        pairs = self.found.setdefault(column, {})
        has_room = len(pairs) < MAX_PAIRS and len(word) <= MAX_BYTES
        if has_room and whole_number(label) is not None and whole_number(word) is None:
            pairs.setdefault((label, word.strip()), where)

    def note_all(self, labels: pa.Array, column: str, words: pa.Array, where: str) -> None:
        """Note the rows of a batch: a column of texts, and one of their bytes, which may be no UTF-8."""
        if len(self.found.get(column, ())) >= MAX_PAIRS:
            return
        rows = pa.table([labels, words], ["label", "word"])
        is_short = pc.less_equal(pc.binary_length(rows["word"]), MAX_BYTES)
        rows = rows.filter(pc.and_(pc.match_substring_regex(rows["label"], NUMBER), is_short))
        pairs = rows.group_by(["label", "word"]).aggregate([])
        for label, word in zip(pairs["label"].to_pylist(), pairs["word"].to_pylist(), strict=True):
            if word:
                self.note(label, column, word.decode(errors="replace"), where)

    def add(self, other: "Beside") -> None:
        """Add what the rows of another source say."""
        for column, pairs in other.found.items():
            self.found[column] = {**pairs, **self.found.get(column, {})}
