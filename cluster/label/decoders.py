"""Before a GPU: processes that fetch and decode pictures into batches, which they share with the replica.

Threads that decode need Python's lock for a seventh of the time, and would wait for one another. Letters: B batch, Y, X
height and width of the network's input.
"""

import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from cam_ops.arrays import U8
from cam_ops.settings import Preprocessing
from cluster.label.decoding import Decode, Encoded, Outcome, decode_and_fit, decode_into, fetch
from cluster.machine.prepare import prepare_process
from cluster.process.crew import Crew
from cluster.sources.source import Row
from cluster.storage.objects import is_store
from cluster.storage.options import StorageOptions

PART = 8  # pictures that a process is given at once, if not fewer: each time costs Python's lock

Shape = tuple[int, int, int, int]
Rows = list[tuple[int, Row]]
"""Planned images and their places in a batch."""


class Loaded(NamedTuple):
    """What became of pictures, and the seconds to fetch and to decode them."""

    outcomes: list[Outcome]
    fetch_s: float
    decode_s: float


class SharedBatches:
    """Batches of pixels, uint8 (B, Y, X, 3), in a file without a name, which is gone with the last process that has it.

    /dev/shm would have a name and, in containers, often 64 MiB.
    """

    def __init__(self, shape: Shape, file: int) -> None:
        self.shape, self.file = shape, file
        self.num_bytes = -(-int(np.prod(shape)) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        self.mapped: dict[int, U8] = {}

    def pixels(self, number: int) -> U8:
        """Return the pixels of a batch; a number that nobody has asked for makes one."""
        if number not in self.mapped:
            os.posix_fallocate(self.file, number * self.num_bytes, self.num_bytes)
            memory = mmap.mmap(self.file, self.num_bytes, offset=number * self.num_bytes)
            self.mapped[number] = np.frombuffer(memory, np.uint8, int(np.prod(self.shape))).reshape(self.shape)
        return self.mapped[number]


class Decoders:
    """The processes, and their batches. Threads may call at once; close it to end them."""

    def __init__(self, number: int, options: StorageOptions, decode: Decode = decode_and_fit) -> None:
        """Start the processes and return at once."""
        self.number = number
        self.file = os.memfd_create("batches")
        self.crew = Crew(number, "cluster.label.decoders:Decoder", self.file, options, decode, files=[self.file])

    def load(self, config: Preprocessing, shape: Shape, batch: int, wanted: Rows) -> Loaded:
        """Bring planned rows to their places in a batch of `SharedBatches` of that shape and `self.file`.

        Raises StorageError where the storage fails, ProcessEnded where a process has died, perhaps of a picture.
        """
        loaded: Loaded = self.crew.call("load", config, shape, batch, wanted)
        return loaded

    def close(self) -> None:
        """End the processes."""
        self.crew.close()
        os.close(self.file)


class Decoder:
    """What each process holds."""

    def __init__(self, file: int, options: StorageOptions, decode: Decode) -> None:
        prepare_process()
        self.file, self.options, self.decode = file, options, decode
        self.batches: SharedBatches | None = None
        self.pool = ThreadPoolExecutor(PART)

    def load(self, config: Preprocessing, shape: Shape, batch: int, wanted: Rows) -> Loaded:
        """Fetch rows, at once from a store, and decode them into their places."""
        if self.batches is None or self.batches.shape != shape:
            self.batches = SharedBatches(shape, self.file)
        pixels_BYX3 = self.batches.pixels(batch)
        start_s = time.perf_counter()
        is_far = any(is_store(row["uri"]) for _, row in wanted)
        fetched = list((self.pool.map if is_far else map)(self._fetch, wanted))
        fetched_s = time.perf_counter()
        outcomes = [
            decode_into(pixels_BYX3[place], row, encoded, config, self.decode)
            for (place, row), encoded in zip(wanted, fetched, strict=True)
        ]
        return Loaded(outcomes, fetched_s - start_s, time.perf_counter() - fetched_s)

    def _fetch(self, wanted: tuple[int, Row]) -> Encoded:
        return fetch(wanted[1], self.options)
