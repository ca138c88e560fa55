"""The host's share of a picture: a replica as before a GPU, with a stand-in for the device.

Processes decode, the feeding thread hands batches on, boxes and tables of the last shard are made beside.
Times are milliseconds of a core for each picture.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cam_ops.errors import BadImage, NoPictures
from cam_ops.explain.mapper import Explained, Mapper
from cam_ops.settings import ModelConfig, Preprocessing
from cluster.executors.laps import Laps
from cluster.executors.work import ShardReport
from cluster.label.decoders import Decoders
from cluster.label.decoding import Decode, Fitted, decode_and_fit
from cluster.label.loader import Loader
from cluster.label.replica import Batches, LabelReplica, open_replica
from cluster.label.rows import ShardRows
from cluster.runs.directory import open_run_dir
from cluster.runs.plan import read_shard
from cluster.runs.record import existing_run
from cluster.sources.reading import read_image

NUM_HELD = 4  # batches whose maps are made before, to be given again and again
WARM_SHARDS = 2
SMALL = 8  # pixels
AT_ONCE = 2  # shards in a replica, as the actor has it


class StandIn:
    """Takes a fixed time a batch without Python's lock, and gives maps that the network has made of other pictures."""

    def __init__(self, mapper: Mapper, batches: Batches, image_s: float) -> None:
        self.size, self.image_s = mapper.size, image_s
        held = [mapper.explain(_planes(pixels_BYX3), _best) for pixels_BYX3, _ in itertools.islice(batches, NUM_HELD)]
        self.held = itertools.cycle(held)

    def explain(self, pixels_BCYX: Tensor, choose: Callable[[Tensor], tuple[Tensor, Tensor]], _: Tensor) -> Explained:
        """Return the maps of the classes chosen, a while later."""
        time.sleep(self.image_s * len(pixels_BCYX))
        held = next(self.held)
        image_P, class_P = choose(held.logits_BK)
        return Explained(
            logits_BK=held.logits_BK,
            image_P=image_P,
            class_P=class_P,
            maps_PHW=held.maps_PHW[image_P],
            cams_Phw=held.cams_Phw[image_P],
            residual_P=None if held.residual_P is None else held.residual_P[image_P],
        )


class Sleeping:
    """Sleeps instead of decoding, and gives always the same picture; before it decodes a small one."""

    def __init__(self, seconds: float, fitted: Fitted, config: Preprocessing) -> None:
        self.seconds, self.fitted = seconds, fitted
        self.config = replace(config, image_size=SMALL)
        self.small = cv2.imencode(".jpg", np.zeros((SMALL, SMALL, 3), np.uint8))[1].tobytes()

    def __call__(self, row: dict[str, Any], *_: object) -> Fitted:
        """Return the picture, a while later."""
        decode_and_fit(row, self.small, self.config)
        time.sleep(self.seconds)
        return self.fitted


class HostReplica(LabelReplica):
    """Adds up the processor's time of the thread that feeds the device, and of the one that ends a shard."""

    feeding_s = ending_s = 0.0

    def _label(self, planned: pa.Table, batches: Batches, laps: Laps) -> ShardRows:
        start_s = time.thread_time()
        rows = super()._label(planned, batches, laps)
        self.feeding_s += time.thread_time() - start_s
        return rows

    def _publish(self, shard: int, rows: ShardRows, laps: Laps) -> ShardReport:
        start_s = time.thread_time()
        report = super()._publish(shard, rows, laps)
        self.ending_s += time.thread_time() - start_s
        return report


class Host:
    """Runs the shards of a run in place, with a device that takes `device_ms` a picture, in a process of its own.

    Where `decode_ms` is given, decoding is a sleep of that time, so that a few cores can stand for many; before it a
    picture of 8x8 pixels is decoded, for what decoding takes of Python's lock.
    """

    def __init__(
        self, out: str, model: ModelConfig, num_processes: int, device_ms: float, decode_ms: float | None = None
    ) -> None:
        run_dir = open_run_dir(out)
        run = existing_run(run_dir)
        replica = open_replica(run_dir, model, run.request.fingerprint())
        planned, request, there = read_shard(run_dir, 0), run.request, replica.loader
        stand_in: Any = StandIn(replica.mapper, there.open(planned), device_ms / 1000)
        decode: Decode = decode_and_fit
        if decode_ms is not None:
            decode = Sleeping(decode_ms / 1000, _first_fitted(planned, there), there.input)
        decoders = Decoders(num_processes, there.options, decode)
        size = there.input.image_size
        loader = Loader(there.input, size, request.batch_size, decoders, there.device, there.options)
        self.replica = HostReplica(replica.membership, stand_in, loader)
        self.num_shards = run.plan.num_shards
        self.numbers = itertools.count()  # of calls

    def rate(self) -> dict[str, float]:
        """Return images a second of all shards but the first ones, and the times of threads."""
        return rate_of(self.replica, range(self.num_shards), self.numbers)


def rate_of(replica: HostReplica, shards: Iterable[int], numbers: Iterator[int] | None = None) -> dict[str, float]:
    """Run shards, two at once; return images a second of all but the first ones, and the times of threads.

    `numbers` counts the replica's calls, from 0 on where there were none.
    """
    ends: list[tuple[float, int]] = []  # when, and how many images
    lock = threading.Lock()
    left, numbers = iter(shards), numbers or itertools.count()

    def work(_: int) -> None:
        while True:
            with lock:
                shard = next(left, None)
                if shard is None:
                    return
                number = next(numbers)
            report = replica.run_shard(shard, number)
            with lock:
                ends.append((time.perf_counter(), sum(report.statuses.values())))
                if len(ends) == WARM_SHARDS:
                    replica.feeding_s = replica.ending_s = 0.0

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(work, range(AT_ONCE)))
    count = sum(num_images for _, num_images in ends[WARM_SHARDS:])  # a plan's last shard may have fewer
    return {
        "images/s": count / (ends[-1][0] - ends[WARM_SHARDS - 1][0]),
        "feeding": replica.feeding_s / count * 1000,
        "ending": replica.ending_s / count * 1000,
    }


def _first_fitted(planned: pa.Table, loader: Loader) -> Fitted:
    """Return the first picture that can be decoded; some may be bad, as in any folder."""
    for row in planned.to_pylist():
        with suppress(BadImage):
            return decode_and_fit(row, read_image(row["uri"], row["offset"], row["size"]), loader.input)
    raise NoPictures(f"none of the {len(planned)} first pictures can be decoded; check --images")


def _planes(pixels_BYX3: Tensor) -> Tensor:
    return pixels_BYX3.permute(0, 3, 1, 2)


def _best(logits_BK: Tensor) -> tuple[Tensor, Tensor]:
    return torch.arange(len(logits_BK)), logits_BK.argmax(1)
