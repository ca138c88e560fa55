"""Which of a source's images are asked for: --include, --exclude, --sample.

A pattern is one for whole ids: `*` stands for anything, also with `/` in it, `**/` for folders or none, `?` for one
character, `[...]` for one of a set. What it names is meant with all that lies below it: `cats` means `cats/1.jpg`.
Whether an image is in a sample depends on its id and the seed alone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.errors import UsageError
from cluster.process.console import say, shown

_PIECES = re.compile(r"(\*\*/|\*+|\?|\[!?\]?[^\]]*\])")
_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is asked for; by default everything."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    sample: float | None = None
    seed: int = 0

    @property
    def is_everything(self) -> bool:
        """Whether no image is left out."""
        return not (self.include or self.exclude or self.sample is not None)


EVERY_IMAGE = Choice()


def check_choice(choice: Choice) -> None:
    """Raise UsageError for patterns that are none, and a sample that is no fraction."""
    for flag, patterns in (("--include", choice.include), ("--exclude", choice.exclude)):
        for pattern in patterns:
            try:
                pc.match_substring_regex(pa.array([""]), regex_of(pattern))
            except pa.ArrowInvalid:
                raise UsageError(f"{flag} expects patterns such as 'cats/*.jpg', got {shown(pattern)}") from None
    if choice.sample is not None and not 0 < choice.sample <= 1:
        raise UsageError(f"--sample expects a fraction above 0, at most 1, got {choice.sample}")


def regex_of(pattern: str) -> str:
    """Return what a pattern means as a regular expression of RE2's, which takes no longer for a wicked one."""
    pieces = _PIECES.split(pattern.rstrip("/"))
    return f"(?s)^(?:{''.join(map(_regex, pieces))})(?:/.*)?$"


def _regex(piece: str) -> str:
    if piece == "**/":
        return "(?:.*/)?"
    if piece.startswith("*"):
        return ".*"
    if piece.startswith("[") and len(piece) > 2:
        inside = piece[1:-1].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
        return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    return "." if piece == "?" else _SPECIAL.sub(r"\\\1", piece)


@dataclass(slots=True, kw_only=True)
class Chooser:
    """Takes the images that are asked for, and counts the others."""

    choice: Choice
    num_seen: int = 0
    first_id: str = ""
    num_left: dict[str, int] = field(default_factory=dict)  # by flags
    examples: dict[str, str] = field(default_factory=dict)
    matched: set[str] = field(default_factory=set)  # patterns that an image fits

    def chosen(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that are asked for."""
        for batch in batches:
            self.num_seen += len(batch)
            self.first_id = self.first_id or batch["image_id"][0].as_py()
            batch = self._take(batch, "--include", self._fits(batch, self.choice.include, nothing=True))
            batch = self._take(batch, "--exclude", pc.invert(self._fits(batch, self.choice.exclude, nothing=False)))
            if self.choice.sample is not None:
                batch = self._take(batch, "--sample", self._sampled(batch))
            yield batch

    def _fits(self, batch: pa.RecordBatch, patterns: tuple[str, ...], nothing: bool) -> pa.Array:
        """Say of each row whether it fits one of the patterns, `nothing` where there are none."""
        fits = pa.repeat(pa.scalar(nothing and not patterns), len(batch))
        for pattern in patterns:
            fit = pc.match_substring_regex(batch["image_id"], regex_of(pattern))
            fits = pc.or_(fits, fit)
            if pattern not in self.matched and pc.any(fit).as_py():
                self.matched.add(pattern)
        return fits

    def _sampled(self, batch: pa.RecordBatch) -> pa.Array:
        assert self.choice.sample is not None
        key, below = str(self.choice.seed).encode(), int(self.choice.sample * 2**64)
        digests = (blake2b(i.encode(), digest_size=8, key=key).digest() for i in batch["image_id"].to_pylist())
        return pa.array([int.from_bytes(digest) < below for digest in digests], pa.bool_())

    def _take(self, batch: pa.RecordBatch, flag: str, mask: pa.Array) -> pa.RecordBatch:
        kept = batch.filter(mask)
        if len(kept) < len(batch):
            self.num_left[flag] = self.num_left.get(flag, 0) + len(batch) - len(kept)
            self.examples.setdefault(flag, batch["image_id"][pc.index(mask, False).as_py()].as_py())
        return kept

    def say(self) -> None:
        """Say what is left out, and which patterns fit nothing. Raises UsageError where nothing is left."""
        choice, left = self.choice, sum(self.num_left.values())
        words = {
            "--include": f"--include {' '.join(choice.include)}",
            "--exclude": f"--exclude {' '.join(choice.exclude)}",
            "--sample": f"--sample {choice.sample} --seed {choice.seed}",
        }
        if left == self.num_seen:
            asked = " ".join(words[flag] for flag in self.num_left)
            raise UsageError(
                f"{asked} leaves none of {self.num_seen} images, whose ids are such as {shown(self.first_id)}"
            )
        for flag, count in self.num_left.items():
            say(f"{words[flag]}: {count} of {self.num_seen} images are left out, such as {shown(self.examples[flag])}")
        for pattern in (*choice.include, *choice.exclude):
            if pattern not in self.matched:
                say(f"the pattern {shown(pattern)} fits no image; ids are such as {shown(self.first_id)}")
