"""What a run's images files come to: totals, why images are bad, how far network and labels agree.

Each file is read once, by a few threads, a shard after the other; memory does not grow with their number.
"""

import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.errors import StorageError
from cam_ops.tables import IMAGES
from cluster.runs.agreement import Agreement, AgreementSum, judge
from cluster.runs.directory import RunDir
from cluster.runs.names import shard_name
from cluster.runs.record import Run
from cluster.storage.parquet import MAX_ROWS, decode, document_of

COUNTED = ("image_id", "status", "error", "num_maps", "num_boxes")
JUDGED = (*COUNTED, "shard", "row", "label", "labels", "top_classes", "top_scores")
NUM_READERS = 8  # opening a file is waiting where OUT is on a network
FILES_AT_ONCE = 128  # whose rows are in memory
MAX_REASONS = 1000  # that are told apart
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a run holds, as in summary.json."""

    images: int
    statuses: dict[str, int]
    maps: int
    boxes: int

    @property
    def errors(self) -> int:
        """Images that are not ok."""
        return self.images - self.statuses.get("ok", 0)


def summary_of(fingerprint: str, totals: Totals) -> bytes:
    """Return the content of summary.json."""
    return json.dumps({"fingerprint": fingerprint, **asdict(totals)}, indent=1).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why images are bad, and the first of them."""

    status: str
    error: str  # of the first of them; the others' differ in their numbers at most
    images: int
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What a run holds, and what there is to say about it."""

    totals: Totals
    mapped: int  # images with a map
    reasons: tuple[Reason, ...]  # the commonest first
    agreement: Agreement | None  # None where no image has a label


def take_census(run_dir: RunDir, run: Run, shards: list[int]) -> Census:
    """Read the images files of committed shards. Raises StorageError where one is gone, or none of the run's."""
    counted = CensusSum(run_dir, run)
    counted.add(shards)
    return counted.total()


class CensusSum:
    """Adds up images files, each once; memory does not grow with their number."""

    def __init__(self, run_dir: RunDir, run: Run) -> None:
        self.run_dir, self.run = run_dir, run
        self.statuses: Counter[str] = Counter()
        self.maps = self.boxes = self.mapped = 0
        self.damaged: dict[int, str] = {}  # shards that the last `add` left out, and why
        self.reasons, self.agreement = _Reasons(), AgreementSum(run)
        self.has_labels = run.request.labels != "none"
        known = run.plan.extended(IMAGES)
        names = [name for name in (JUDGED if self.has_labels else COUNTED) if name in known.names]
        self.schema = pa.schema([known.field(name) for name in names])

    def add(self, shards: list[int], *, passes_damaged: bool = False) -> None:
        """Read the files of these shards, so many at a time: what is done with them costs less than their reading.

        Raises StorageError where one is gone, or none of the run's; with `passes_damaged` the latter are left out, and
        `damaged` says why.
        """
        self.damaged = {}
        read = partial(_read_file, self.run_dir, self.run, self.run.request.fingerprint(), self.schema)
        with ThreadPoolExecutor(NUM_READERS) as pool:
            for first in range(0, len(shards), FILES_AT_ONCE):
                some = shards[first : first + FILES_AT_ONCE]
                found = dict(zip(some, pool.map(read, some), strict=True))
                wrong = {shard: str(one) for shard, one in found.items() if isinstance(one, StorageError)}
                if wrong and not passes_damaged:
                    raise StorageError(f"{next(iter(wrong.values()))}; run `verify` on the run directory")
                self.damaged |= wrong
                self._add({shard: one for shard, one in found.items() if shard not in wrong}, passes_damaged)

    def _add(self, tables: dict[int, pa.Table], passes_damaged: bool) -> None:
        """Add tables of shards, or find out which of them cannot be."""
        if not tables:
            return
        images = pa.concat_tables(tables.values())
        try:
            judged = judge(images, self.run, self.run_dir.where("images")) if self.has_labels else None
        except StorageError as error:
            if not passes_damaged:
                raise
            if len(tables) == 1:
                self.damaged[next(iter(tables))] = str(error)
                return
            for shard, table in tables.items():
                self._add({shard: table}, passes_damaged)
            return
        if judged:
            self.agreement.add(judged)
        counts = pc.value_counts(images["status"]).to_pylist()
        self.statuses.update({each["values"]: each["counts"] for each in counts})
        self.maps += pc.sum(images["num_maps"]).as_py()
        self.boxes += pc.sum(images["num_boxes"]).as_py()
        self.mapped += pc.sum(pc.greater(images["num_maps"], 0)).as_py()
        bad = pc.not_equal(images["status"], "ok")
        self.reasons.add(images.select(["status", "error", "image_id"]).filter(bad))

    def total(self) -> Census:
        """Return what the files come to that were added so far."""
        statuses = dict(sorted(self.statuses.items()))
        return Census(
            totals=Totals(images=self.statuses.total(), statuses=statuses, maps=self.maps, boxes=self.boxes),
            mapped=self.mapped,
            reasons=self.reasons.commonest(),
            agreement=self.agreement.total(),
        )


def _read_file(run_dir: RunDir, run: Run, fingerprint: str, schema: pa.Schema, shard: int) -> pa.Table | StorageError:
    """Return a file's columns, or what is wrong with it. Raises StorageError where it is gone, or cannot be reached."""
    name = shard_name("images", shard)
    where, content = run_dir.where(name), run_dir.read(name)
    if content is None:
        raise StorageError(f"{where} is gone; run `verify` on the run directory")
    try:
        table = decode(content, where, schema.names, min(run.plan.shard_size, MAX_ROWS))
    except StorageError as error:
        return error
    if document_of(table.schema).get("fingerprint") != fingerprint:
        return StorageError(f"{where} is damaged, or belongs to another request")
    found = [name for name in schema.names if name in table.column_names]
    if not table.select(found).schema.equals(schema):
        return StorageError(f"{where} has not the columns of an images table")
    if len(table) != (num_planned := run.plan.size_of(shard)):
        return StorageError(f"{where} has {len(table)} rows, of {num_planned} images that are planned")
    return table.select(found)


class _Reasons:
    """Counts reasons; what differs in its numbers alone is one."""

    def __init__(self) -> None:
        self.images: Counter[tuple[str, str]] = Counter()
        self.first: dict[tuple[str, str], tuple[str, str]] = {}  # error and image_id

    def add(self, bad: pa.Table) -> None:
        """Add images that are not ok: status, error, image_id."""
        for row in bad.to_pylist():
            error = row["error"] or ""
            kind = row["status"], _NUMBER.sub("0", error)
            if kind not in self.first and len(self.first) >= MAX_REASONS:
                kind, error = (row["status"], ""), ""
            self.first.setdefault(kind, (error, row["image_id"]))
            self.images[kind] += 1

    def commonest(self) -> tuple[Reason, ...]:
        """Return the reasons, the commonest first."""
        return tuple(
            Reason(status=kind[0], error=self.first[kind][0], images=images, example=self.first[kind][1])
            for kind, images in self.images.most_common()
        )
