"""A part of a run: the shards that are asked for, as far as they are committed, and the words that all outputs have.

Shards, not images, are what a run is made of: what is committed, damaged, verified. `--shards 0-9` is the same part for
each command, several parts are apart, and none needs more files than its own.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cam_ops.errors import StorageError, UsageError
from cluster.process.console import say, shortened
from cluster.runs.directory import RunDir
from cluster.runs.plan import check_plan
from cluster.runs.record import Run, again

PIECE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
MAX_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some shards of a run, or all."""

    shards: tuple[int, ...]  # rising; committed
    num_images: int  # that are planned in them
    num_shards: int  # that the run has
    missing: int  # that are asked for, and not committed

    @property
    def covered(self) -> str | None:
        """The shards as --shards has them; None where it is all of the run."""
        return None if len(self.shards) == self.num_shards else written(self.shards)

    @property
    def words(self) -> str | None:
        """What an output says of a part; None of a whole run."""
        if self.covered is None:
            return None
        missing = f"; {_missing(self.missing)} not committed" if self.missing else ""
        shards = f"shard{'s' if len(self.shards) > 1 else ''} {shortened(self.covered, MAX_SHOWN)}"
        return f"a part: {shards} of the run's {self.num_shards}, {self.num_images} images{missing}"


def _missing(number: int) -> str:
    return "1 shard that belongs to it is" if number == 1 else f"{number} shards that belong to it are"


def parse_shards(text: str | None) -> tuple[range, ...] | None:
    """Return what --shards names, `FIRST-LAST,...`; None where it is not given. Raises UsageError."""
    if text is None:
        return None
    ranges = []
    for piece in text.split(","):
        match = PIECE.fullmatch(piece.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if last < first:
            raise UsageError(
                f"--shards expects numbers of shards as in 0-9 or 0-9,20, got {shortened(text, MAX_SHOWN)!r}"
            )
        ranges.append(range(first, last + 1))
    return tuple(ranges)


def planned_shards(run_dir: RunDir, run: Run, asked: str | None) -> list[int]:
    """Return the shards that --shards names, all where it is not given, rising.

    Raises UsageError where one was not planned.
    """
    num_shards = run.plan.num_shards
    ranges = parse_shards(asked) or (range(num_shards),)
    if max(part.stop for part in ranges) > num_shards:
        raise UsageError(f"--shards {asked}: {run_dir.root} has shards 0 to {num_shards - 1}")
    return sorted({shard for part in ranges for shard in part})


def part_of(run_dir: RunDir, run: Run, asked: str | None) -> Part:
    """Return the part that --shards names, or what is committed of the whole run; say so where it is not all.

    Raises UsageError where a shard was not planned, StorageError where none is committed, or the plan is not the run's.
    """
    num_shards = run.plan.num_shards
    wanted = planned_shards(run_dir, run, asked)
    check_plan(run_dir, run.plan)
    committed = run_dir.shards("images")
    shards = tuple(shard for shard in wanted if shard in committed)
    if not shards:
        which = "no shard" if asked is None else f"none of the shards {asked}"
        raise StorageError(f"{which} of {run_dir.root} is committed yet; run {again(run_dir, run)}, then this one")
    images = sum(map(run.plan.size_of, shards))
    part = Part(shards=shards, num_images=images, num_shards=num_shards, missing=len(wanted) - len(shards))
    if part.words:
        say(part.words)
    return part


def written(shards: Iterable[int]) -> str:
    """Return rising numbers as --shards has them: 0-9,20."""
    runs: list[list[int]] = []
    for shard in shards:
        if runs and runs[-1][1] == shard - 1:
            runs[-1][1] = shard
        else:
            runs.append([shard, shard])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def covers(more: str | None, less: str | None) -> bool:
    """Say whether a part, as `Part.covered` has it, has all shards of another. Raises UsageError for what is none."""
    if more is None or less is None:
        return more is None
    every, some = parse_shards(more) or (), parse_shards(str(less)) or ()
    return all(any(has.start <= part.start and part.stop <= has.stop for has in every) for part in some)
