"""One replica of `export`: the number of a part in, its files out. It needs no torch."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import IO

import cv2

from cam_ops.errors import BadImage
from cluster.executors.turns import Turns
from cluster.executors.work import ShardReport
from cluster.export.counts import Counts
from cluster.export.destination import Destination
from cluster.export.kinds import EXPORTS
from cluster.export.pictures import Ready, name_with, read_ready
from cluster.export.records import Selection, pictures_of, read_shard
from cluster.formats.exported import ExportFormat, Picture, PicturesChoice, Settings, folder_of, split_suffix
from cluster.process.failpoints import reach
from cluster.runs.directory import RunDir
from cluster.runs.membership import Membership
from cluster.sources.source import Row

AHEAD = 4  # pictures that each thread may be ahead: they are held in memory
GONE, CHANGED = "picture gone since the run", "picture changed since the run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the replicas of an export do; can be pickled."""

    form: str
    settings: Settings
    selection: Selection
    pictures: PicturesChoice
    parts: tuple[tuple[int, ...], ...]  # of shards


def part_file(section: str, split: str, part: int) -> str:
    """Return the name of the lines that a part leaves."""
    return f"{section}/{split or '-'}/{part:06d}"


@dataclass(slots=True)
class PartPlace:
    """A part of an export, as formats see it."""

    destination: Destination
    settings: Settings
    number: int
    lines: dict[tuple[str, str], list[bytes]] = field(default_factory=dict)

    def put(self, name: str, content: bytes) -> None:
        """Put a file in place."""
        self.destination.put(name, content)

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Write a file; it is put in place where nothing was raised."""
        return self.destination.open(name)

    def note(self, section: str, split: str, line: bytes) -> None:
        """Leave a line, without its end, for the files that are made of all parts."""
        assert b"\n" not in line
        self.lines.setdefault((section, split), []).append(line)

    def close(self) -> None:
        """Put the lines in place."""
        for (section, split), lines in self.lines.items():
            content = b"".join(line + b"\n" for line in lines)
            self.destination.put_part(part_file(section, split, self.number), content)


class ExportReplica:
    """Writes parts: so many shards of the run, one after the other."""

    def __init__(
        self, run_dir: RunDir, fingerprint: str, destination: Destination, task: Task, num_threads: int = 1
    ) -> None:
        """Check that this machine sees the run and the export; `num_threads` fetch pictures. Raises StorageError."""
        self.run_dir, self.run = run_dir, Membership(run_dir, fingerprint).run
        self.destination, self.task, self.num_threads = destination, task, num_threads
        self.form: ExportFormat = EXPORTS[task.form]
        self.turns = Turns()
        destination.check()
        cv2.setNumThreads(0)

    def run_shard(self, part: int, number: int, deaths: int = 0) -> ShardReport:
        """Write one part; `number` counts the calls from 0 on. Raises StorageError where the run is damaged."""
        with self.turns.take(number, lambda: None):
            counts, statuses = Counts(), Counter[str]()
            place = PartPlace(self.destination, self.task.settings, part)
            self.form.write(self._pictures(part, counts, statuses), place)
            self.destination.check()
            place.close()
            self.destination.check()
            reach(f"part-{part}")
            return ShardReport(shard=part, statuses=dict(statuses), findings=counts)

    def _pictures(self, part: int, counts: Counts, statuses: Counter[str]) -> Iterator[Picture]:
        with ThreadPoolExecutor(self.num_threads) as pool:
            for shard in self.task.parts[part]:
                tables = read_shard(self.run_dir, self.run, shard, self.task.selection, maps=self.form.maps)
                statuses.update(tables.images["status"].to_pylist())
                found = pictures_of(tables, self.task.selection, counts)
                while some := list(islice(found, AHEAD * self.num_threads)):
                    if self.destination.is_store:  # where a replica that is given up for dead could write on
                        self.destination.check()
                    for picture in self._with_files(pool, some, counts):
                        counts.images += 1
                        counts.boxes += len(picture.boxes)
                        counts.classes.update(box.class_id for box in picture.boxes)
                        counts.splits[picture.split] += 1
                        counts.renamed += picture.stem != split_suffix(picture.image_id)[0]
                        yield picture

    def _with_files(
        self, pool: ThreadPoolExecutor, some: list[tuple[Picture, Row]], counts: Counts
    ) -> Iterator[Picture]:
        """Yield pictures whose files are in place, or in hand."""
        if self.task.pictures == "none":
            yield from (picture for picture, _ in some)
            return
        for (picture, _), ready in zip(some, pool.map(self._ready, some), strict=True):
            if isinstance(ready, str):
                counts.leave_out(picture.image_id, ready, len(picture.boxes))
                continue
            counts.rewritten += ready.is_new
            name = name_with(picture.name, ready, as_jpeg=self.form.is_jpeg)
            yield replace(picture, name=name, content=ready.content if self.form.embeds else b"")

    def _ready(self, found: tuple[Picture, Row]) -> Ready | str:
        """Put a picture's file in place, unless the format embeds it; return why not where it cannot be."""
        picture, row = found
        may_link = self.task.pictures == "link" and not self.destination.is_store
        try:
            ready = read_ready(row, self.run_dir.options, may_link=may_link, as_jpeg=self.form.is_jpeg)
        except BadImage as bad:
            return GONE if bad.status in ("missing", "unreadable") else CHANGED
        if not self.form.embeds:
            name = name_with(picture.name, ready, as_jpeg=self.form.is_jpeg)
            place = f"{folder_of(self.form, picture.split)}/{name}"
            if ready.path is not None:
                self.destination.link(place, ready.path)
            else:
                self.destination.put(place, ready.content)
        return ready
