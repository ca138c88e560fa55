"""Bring the pictures of a shard to the network in batches, fetched ahead of it.

On a CPU threads only fetch: they wait for storage while the network computes, and decoding has the replica's own core.
Before a GPU processes fetch and decode, into page-locked memory.

Letters: B batch, Y, X height and width of the network's input.
"""

import itertools
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cam_ops.errors import BadImage
from cam_ops.settings import Preprocessing, Size, height_and_width
from cluster.executors.laps import Laps
from cluster.label.decoders import PART, Decoders, SharedBatches
from cluster.label.decoding import DecoderApart, Encoded, Outcome, decode_into, fetch
from cluster.label.quarantine import Quarantine
from cluster.label.rows import Picture
from cluster.machine.gpu import page_lock, page_unlock
from cluster.process.crew import QUEUE
from cluster.storage.options import StorageOptions

AHEAD = 2  # batches
SOURCE = {"row", "image_id", "label", "labels", "uri", "offset", "size"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    """Of a batch; numbered where processes share it."""

    number: int
    pixels_BYX3: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """A batch on its way: its planned rows, what becomes of them, and the threads that work on it."""

    rows: list[dict[str, Any]]  # the columns SOURCE
    pictures: list[Picture]
    memory: _Memory
    work: list[Future["_Worked"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worked:
    """What a thread did of a batch."""

    left: list[tuple[int, Encoded]]  # to decode: their places in the batch
    fetch_s: float
    decode_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """A shard that is open: its batches to begin, those on their way, and its bad images by row."""

    left: deque[list[dict[str, Any]]]
    begun: deque[_Batch] = field(default_factory=deque)
    known: Mapping[int, BadImage]


class Loader:
    """Threads that fetch, or wait for processes that fetch and decode."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        size: Size,
        batch_size: int,
        hands: int | Decoders,
        device: torch.device,
        options: StorageOptions,
    ) -> None:
        """`hands` are so many threads that fetch, or the processes that decode as well."""
        self.input = replace(preprocessing, image_size=size)
        self.shape = (batch_size, *height_and_width(size), 3)
        self.batch_size = batch_size
        self.device = device
        self.options = options
        if isinstance(hands, Decoders):
            self.decoders: Decoders | None = hands
            num_threads = QUEUE * hands.number
            self.num_parts = max(1, min(hands.number, batch_size // PART))  # of a batch
            self.num_ahead = max(AHEAD, -(-num_threads // self.num_parts))  # batches of a shard
            self.batches = SharedBatches(self.shape, hands.file)
        else:
            self.decoders, num_threads, self.num_parts, self.num_ahead = None, hands, hands, AHEAD
        self.free: deque[_Memory] = deque()  # of batches that are done with: fresh pages cost as much as the boxes do
        self.numbers = itertools.count()  # of memory
        self.locked: list[Tensor] = []  # for copies to the GPU
        self.opened: list[_Shard] = []
        self.lock = Lock()  # of shards
        self.pool = ThreadPoolExecutor(num_threads, thread_name_prefix="load")

    def close(self) -> None:
        """End threads and processes; no batch is good any more."""
        self.pool.shutdown(cancel_futures=True)
        if self.decoders:
            self.decoders.close()
        while self.locked:
            page_unlock(self.locked.pop())

    def open(
        self, planned: pa.Table, known: Mapping[int, BadImage] | None = None, laps: Laps | None = None
    ) -> Iterator[tuple[Tensor, list[Picture]]]:
        """Begin to fetch, and return the batches: pixels uint8 (B, Y, X, 3), 0 where there is no picture, and pictures.

        A batch's pixels are good until the next one is asked for.

        An image keeps its place in the batch whatever becomes of its neighbours; those in `known`, by row, are not
        touched. `laps` gets the seconds of `fetch` and `decode`, added up over threads. Iterating raises StorageError
        where the storage fails.
        """
        shard = _Shard(left=deque(self._batches(planned)), known=known or {})
        number = len(shard.left)
        with self.lock:
            self.opened.append(shard)
            for _ in range(min(self.num_ahead, number)):
                self._begin(shard)
        return self._finished(shard, number, laps or Laps())

    def open_carefully(
        self, planned: pa.Table, quarantine: Quarantine, laps: Laps
    ) -> Iterator[tuple[Tensor, list[Picture]]]:
        """Return the same batches, decoded one by one in a process with limits; who kills it goes into quarantine."""
        with closing(DecoderApart(self.input)) as decoder:
            for rows in self._batches(planned):
                batch = self._empty(rows)
                pixels_BYX3 = batch.memory.pixels_BYX3
                for row, picture, pixels_YX3 in zip(rows, batch.pictures, pixels_BYX3.numpy(), strict=False):
                    start_s = time.perf_counter()
                    encoded = quarantine.bad.get(row["row"]) or fetch(row, self.options)
                    fetched_s = time.perf_counter()
                    laps.add("fetch", fetched_s - start_s)
                    outcome = decode_into(pixels_YX3, row, encoded, self.input, decoder.decode_and_fit)
                    _tell(picture, outcome)
                    if outcome.status == "crashed_decoder" and row["row"] not in quarantine.bad:
                        quarantine.add(row["row"], BadImage(outcome.status, outcome.error or ""))
                    laps.add("decode", time.perf_counter() - fetched_s)
                yield pixels_BYX3, batch.pictures
                self.free.append(batch.memory)

    def _batches(self, planned: pa.Table) -> list[list[dict[str, Any]]]:
        rows = planned.select([name for name in planned.column_names if name in SOURCE]).to_pylist()
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]

    def _finished(self, shard: _Shard, number: int, laps: Laps) -> Iterator[Any]:
        try:
            for _ in range(number):
                batch = self._next(shard)
                for part in batch.work:
                    worked = part.result()
                    start_s = time.perf_counter()
                    self._decode_all(batch, worked.left)
                    laps.add("fetch", worked.fetch_s)
                    laps.add("decode", worked.decode_s + time.perf_counter() - start_s)
                yield batch.memory.pixels_BYX3, batch.pictures
                self.free.append(batch.memory)
        finally:
            with self.lock:
                shard.left.clear()  # of one that failed, lest the others begin it

    def _next(self, shard: _Shard) -> _Batch:
        """Take a shard's next batch, and begin another: of this shard, or at its end, lest processes idle, of the next.

        A replica on a CPU decodes itself, and gains nothing of more.
        """
        with self.lock:
            if not shard.begun:
                self._begin(shard)
            batch = shard.begun.popleft()
            self.opened = [one for one in self.opened if one.left]
            for one in [shard, *(self.opened if self.decoders else [])]:
                if one.left:
                    self._begin(one)
                    break
            return batch

    def _begin(self, shard: _Shard) -> None:
        rows = shard.left.popleft()
        batch = self._empty(rows)
        parts = min(self.num_parts, len(rows))
        for first in range(parts):
            places = range(first, len(rows), parts)
            batch.work.append(self.pool.submit(self._work, batch, places, shard.known))
        shard.begun.append(batch)

    def _empty(self, rows: list[dict[str, Any]]) -> _Batch:
        memory = self._memory()
        memory.pixels_BYX3[len(rows) :] = 0
        pictures = [Picture(image_id=row["image_id"], labels=_labels(row)) for row in rows]
        return _Batch(rows=rows, pictures=pictures, memory=memory, work=[])

    def _memory(self) -> _Memory:
        """Return memory for a batch, with anything in it."""
        with suppress(IndexError):
            return self.free.pop()
        number = next(self.numbers)
        if self.decoders is None:
            return _Memory(number=number, pixels_BYX3=torch.empty(self.shape, dtype=torch.uint8))
        pixels_BYX3 = torch.from_numpy(self.batches.pixels(number))
        if self.device.type == "cuda":
            page_lock(pixels_BYX3)
            self.locked.append(pixels_BYX3)
        return _Memory(number=number, pixels_BYX3=pixels_BYX3)

    def _work(self, batch: _Batch, places: range, known: Mapping[int, BadImage]) -> _Worked:
        """Fetch some images of a batch, or have them fetched and decoded ahead."""
        start_s = time.perf_counter()
        bad = {place: known[row] for place in places if (row := batch.rows[place]["row"]) in known}
        wanted = [(place, batch.rows[place]) for place in places if place not in bad]
        if self.decoders is None:
            left = [*bad.items(), *((place, fetch(row, self.options)) for place, row in wanted)]
            return _Worked(left=left, fetch_s=time.perf_counter() - start_s, decode_s=0)
        loaded = self.decoders.load(self.input, self.shape, batch.memory.number, wanted)
        for (place, _), outcome in zip(wanted, loaded.outcomes, strict=True):
            _tell(batch.pictures[place], outcome)
        return _Worked(left=[*bad.items()], fetch_s=loaded.fetch_s, decode_s=loaded.decode_s)

    def _decode_all(self, batch: _Batch, fetched: list[tuple[int, Encoded]]) -> None:
        pixels_BYX3 = batch.memory.pixels_BYX3.numpy()
        for place, encoded in fetched:
            row, pixels_YX3 = batch.rows[place], pixels_BYX3[place]
            _tell(batch.pictures[place], decode_into(pixels_YX3, row, encoded, self.input))


def _labels(row: dict[str, Any]) -> tuple[int, ...]:
    label: int | None = row["label"]
    return tuple(row.get("labels") or ()) if label is None else (label,)


def _tell(picture: Picture, outcome: Outcome) -> None:
    picture.status, picture.error, picture.width, picture.height = outcome[:4]
    picture.rectangle = np.array(outcome.rectangle, np.float32)
