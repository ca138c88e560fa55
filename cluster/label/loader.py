"""Bring the pictures of a shard to the network in batches, fetched ahead of it by threads.

On a CPU the threads only fetch: they wait for storage while the network computes, and decoding has the replica's own
core. Before a GPU they decode as well, into page-locked memory.

Letters: B batch, Y, X height and width of the network's input.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from cam_ops.errors import BadImage
from cam_ops.settings import Preprocessing, Size, height_and_width
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
    work: list[Future[list[tuple[int, Encoded]]]]  # places in the batch that are left to decode


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
        self.for_gpu = device.type == "cuda"
        self.pool = ThreadPoolExecutor(num_threads, thread_name_prefix="load")

    def open(
        self, planned: pa.Table, known: Mapping[int, BadImage] | None = None
    ) -> Iterator[tuple[Tensor, list[Picture]]]:
        """Begin to fetch, and return the batches: pixels uint8 (B, Y, X, 3), 0 where there is no picture, and pictures.

        An image keeps its place in the batch whatever becomes of its neighbours; those in `known`, by row, are not
        touched. Iterating raises StorageError where the storage fails.
        """
        batches = self._batches(planned)
        begun = deque(self._begin(batch, known or {}) for batch in batches[:AHEAD])
        return self._finished(batches, known or {}, begun)

    def open_carefully(self, planned: pa.Table, quarantine: Quarantine) -> Iterator[tuple[Tensor, list[Picture]]]:
        """Return the same batches, decoded one by one in a process with limits; who kills it goes into quarantine."""
        with closing(DecoderApart(self.input)) as decoder:
            for rows in self._batches(planned):
                batch = self._empty(rows)
                for row, picture, pixels_YX3 in zip(rows, batch.pictures, batch.pixels_BYX3, strict=False):
                    try:
                        encoded = _fetch(row, quarantine.bad, self.options)
                        if isinstance(encoded, BadImage):
                            raise encoded
                        _place(decoder.decode_and_fit(row, encoded), picture, pixels_YX3)
                    except BadImage as bad:
                        picture.status, picture.error = bad.status, str(bad)
                        if bad.status == "crashed_decoder" and row["row"] not in quarantine.bad:
                            quarantine.add(row["row"], bad)
                yield batch.pixels_BYX3, batch.pictures

    def _batches(self, planned: pa.Table) -> list[list[dict[str, Any]]]:
        rows = planned.select([name for name in planned.column_names if name in SOURCE]).to_pylist()
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]

    def _finished(
        self, batches: list[list[dict[str, Any]]], known: Mapping[int, BadImage], begun: deque[_Batch]
    ) -> Iterator[Any]:
        for number in range(len(batches)):
            batch = begun.popleft()
            if number + AHEAD < len(batches):
                begun.append(self._begin(batches[number + AHEAD], known))
            for part in batch.work:
                for place, encoded in part.result():
                    self._decode(batch.rows[place], encoded, batch.pictures[place], batch.pixels_BYX3[place])
            yield batch.pixels_BYX3, batch.pictures

    def _begin(self, rows: list[dict[str, Any]], known: Mapping[int, BadImage]) -> _Batch:
        batch = self._empty(rows)
        for first in range(min(self.num_threads, len(rows))):
            places = range(first, len(rows), self.num_threads)
            batch.work.append(self.pool.submit(self._work, batch, places, known))
        return batch

    def _empty(self, rows: list[dict[str, Any]]) -> _Batch:
        height, width = height_and_width(self.input.image_size)
        return _Batch(
            rows=rows,
            pictures=[Picture(image_id=row["image_id"], labels=_labels(row)) for row in rows],
            pixels_BYX3=torch.zeros(self.batch_size, height, width, 3, dtype=torch.uint8, pin_memory=self.for_gpu),
            work=[],
        )

    def _work(self, batch: _Batch, places: range, known: Mapping[int, BadImage]) -> list[tuple[int, Encoded]]:
        """Fetch some images of a batch; return those that are left to decode."""
        fetched = [(place, _fetch(batch.rows[place], known, self.options)) for place in places]
        if not self.for_gpu:
            return fetched
        for place, encoded in fetched:
            self._decode(batch.rows[place], encoded, batch.pictures[place], batch.pixels_BYX3[place])
        return []

    def _decode(self, row: dict[str, Any], encoded: Encoded, picture: Picture, pixels_YX3: Tensor) -> None:
        """Decode one image and fit it into its place in the batch, or say why not."""
        try:
            if isinstance(encoded, BadImage):
                raise encoded
            _place(decode_and_fit(row, encoded, self.input), picture, pixels_YX3)
        except BadImage as bad:
            picture.status, picture.error = bad.status, str(bad)


def _labels(row: dict[str, Any]) -> tuple[int, ...]:
    label: int | None = row["label"]
    return tuple(row.get("labels") or ()) if label is None else (label,)


def _place(fitted: Fitted, picture: Picture, pixels_YX3: Tensor) -> None:
    picture.height, picture.width, picture.rectangle = fitted.height, fitted.width, fitted.rectangle
    pixels_YX3.copy_(torch.from_numpy(fitted.pixels_YX3))


def _fetch(row: dict[str, Any], known: Mapping[int, BadImage], options: StorageOptions) -> Encoded:
    if row["row"] in known:
        return known[row["row"]]
    try:
        return read_image(row["uri"], row["offset"], row["size"], options)
    except BadImage as bad:
        return bad
