"""Bring the pictures of a shard to the network in batches, fetched ahead of it by threads.

On a CPU the threads only fetch: they wait for storage while the network computes, and decoding has the replica's own
core. Before a GPU they decode as well, into page-locked memory.

Letters: B batch, Y, X height and width of the network's input.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from cam_ops.arrays import U8
from cam_ops.errors import BadImage
from cam_ops.foreign import whole
from cam_ops.settings import Preprocessing, Size, height_and_width
from cluster.executors.laps import Laps
from cluster.label.decoding import DecoderApart, Fitted, decode_and_fit
from cluster.label.quarantine import Quarantine
from cluster.label.rows import Picture
from cluster.sources.reading import read_image
from cluster.storage.options import StorageOptions

AHEAD = 2  # batches
SOURCE = {"row", "image_id", "label", "labels", "uri", "offset", "size"}

Encoded = bytes | BadImage


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """A batch on its way: its planned rows, what becomes of them, and the threads that work on it."""

    rows: list[dict[str, Any]]  # the columns SOURCE
    pictures: list[Picture]
    pixels_BYX3: Tensor
    work: list[Future["_Worked"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worked:
    """What a thread did of a batch."""

    left: list[tuple[int, Encoded]]  # to decode: their places in the batch
    fetch_s: float
    decode_s: float


class Loader:
    """Threads that fetch, and decode if it is for a GPU."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        size: Size,
        batch_size: int,
        num_threads: int,
        device: torch.device,
        options: StorageOptions,
    ) -> None:
        self.input = replace(preprocessing, image_size=size)
        self.batch_size = batch_size
        self.num_threads = num_threads
        self.options = options
        self.decode = decode_and_fit
        self.for_gpu = self.pinned = device.type == "cuda"
        self.memory: deque[Tensor] = deque()  # of batches that are done with: fresh pages cost as much as the boxes do
        self.pool = ThreadPoolExecutor(num_threads, thread_name_prefix="load")

    def open(
        self, planned: pa.Table, known: Mapping[int, BadImage] | None = None, laps: Laps | None = None
    ) -> Iterator[tuple[Tensor, list[Picture]]]:
        """Begin to fetch, and return the batches: pixels uint8 (B, Y, X, 3), 0 where there is no picture, and pictures.

        A batch's pixels are good until the next one is asked for.

        An image keeps its place in the batch whatever becomes of its neighbours; those in `known`, by row, are not
        touched. `laps` gets the seconds of `fetch` and `decode`, added up over threads. Iterating raises StorageError
        where the storage fails.
        """
        batches = self._batches(planned)
        begun = deque(self._begin(batch, known or {}) for batch in batches[:AHEAD])
        return self._finished(batches, known or {}, begun, laps or Laps())

    def open_carefully(
        self, planned: pa.Table, quarantine: Quarantine, laps: Laps
    ) -> Iterator[tuple[Tensor, list[Picture]]]:
        """Return the same batches, decoded one by one in a process with limits; who kills it goes into quarantine."""
        with closing(DecoderApart(self.input)) as decoder:
            for rows in self._batches(planned):
                batch = self._empty(rows)
                for row, picture, pixels_YX3 in zip(rows, batch.pictures, batch.pixels_BYX3.numpy(), strict=False):
                    start_s = time.perf_counter()
                    encoded = _fetch(row, quarantine.bad, self.options)
                    fetched_s = time.perf_counter()
                    laps.add("fetch", fetched_s - start_s)
                    try:
                        if isinstance(encoded, BadImage):
                            raise encoded
                        _place(decoder.decode_and_fit(row, encoded), picture, pixels_YX3)
                    except BadImage as bad:
                        picture.status, picture.error = bad.status, whole(str(bad))
                        pixels_YX3.fill(0)
                        if bad.status == "crashed_decoder" and row["row"] not in quarantine.bad:
                            quarantine.add(row["row"], bad)
                    laps.add("decode", time.perf_counter() - fetched_s)
                yield batch.pixels_BYX3, batch.pictures

    def _batches(self, planned: pa.Table) -> list[list[dict[str, Any]]]:
        rows = planned.select([name for name in planned.column_names if name in SOURCE]).to_pylist()
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]

    def _finished(
        self, batches: list[list[dict[str, Any]]], known: Mapping[int, BadImage], begun: deque[_Batch], laps: Laps
    ) -> Iterator[Any]:
        for number in range(len(batches)):
            batch = begun.popleft()
            if number + AHEAD < len(batches):
                begun.append(self._begin(batches[number + AHEAD], known))
            for part in batch.work:
                worked = part.result()
                start_s = time.perf_counter()
                self._decode_all(batch, worked.left)
                laps.add("fetch", worked.fetch_s)
                laps.add("decode", worked.decode_s + time.perf_counter() - start_s)
            yield batch.pixels_BYX3, batch.pictures
            self.memory.append(batch.pixels_BYX3)

    def _begin(self, rows: list[dict[str, Any]], known: Mapping[int, BadImage]) -> _Batch:
        batch = self._empty(rows)
        for first in range(min(self.num_threads, len(rows))):
            places = range(first, len(rows), self.num_threads)
            batch.work.append(self.pool.submit(self._work, batch, places, known))
        return batch

    def _empty(self, rows: list[dict[str, Any]]) -> _Batch:
        pixels_BYX3 = self._pixels()
        pixels_BYX3[len(rows) :] = 0
        pictures = [Picture(image_id=row["image_id"], labels=_labels(row)) for row in rows]
        return _Batch(rows=rows, pictures=pictures, pixels_BYX3=pixels_BYX3, work=[])

    def _pixels(self) -> Tensor:
        """Return memory for a batch, with anything in it."""
        try:
            return self.memory.pop()
        except IndexError:
            height, width = height_and_width(self.input.image_size)
            return torch.empty(self.batch_size, height, width, 3, dtype=torch.uint8, pin_memory=self.pinned)

    def _work(self, batch: _Batch, places: range, known: Mapping[int, BadImage]) -> _Worked:
        """Fetch some images of a batch, and decode them if it is for a GPU."""
        start_s = time.perf_counter()
        fetched = [(place, _fetch(batch.rows[place], known, self.options)) for place in places]
        fetched_s = time.perf_counter()
        if not self.for_gpu:
            return _Worked(left=fetched, fetch_s=fetched_s - start_s, decode_s=0)
        self._decode_all(batch, fetched)
        return _Worked(left=[], fetch_s=fetched_s - start_s, decode_s=time.perf_counter() - fetched_s)

    def _decode_all(self, batch: _Batch, fetched: list[tuple[int, Encoded]]) -> None:
        pixels_BYX3 = batch.pixels_BYX3.numpy()  # each operation of torch gives Python's lock away, and waits for it
        for place, encoded in fetched:
            self._decode(batch.rows[place], encoded, batch.pictures[place], pixels_BYX3[place])

    def _decode(self, row: dict[str, Any], encoded: Encoded, picture: Picture, pixels_YX3: U8) -> None:
        """Decode one image and fit it into its place in the batch, or say why not."""
        try:
            if isinstance(encoded, BadImage):
                raise encoded
            _place(self.decode(row, encoded, self.input), picture, pixels_YX3)
        except BadImage as bad:
            picture.status, picture.error = bad.status, whole(str(bad))
            pixels_YX3.fill(0)


def _labels(row: dict[str, Any]) -> tuple[int, ...]:
    label: int | None = row["label"]
    return tuple(row.get("labels") or ()) if label is None else (label,)


def _place(fitted: Fitted, picture: Picture, pixels_YX3: U8) -> None:
    picture.height, picture.width, picture.rectangle = fitted.height, fitted.width, fitted.rectangle
    pixels_YX3[...] = fitted.pixels_YX3


def _fetch(row: dict[str, Any], known: Mapping[int, BadImage], options: StorageOptions) -> Encoded:
    if row["row"] in known:
        return known[row["row"]]
    try:
        return read_image(row["uri"], row["offset"], row["size"], options)
    except BadImage as bad:
        return bad
