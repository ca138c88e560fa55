"""A GPU by itself: how near it is to the CPU, and what it does with a network and as a whole replica.

Lives in a process of its own. On the CPU the same code runs, as a rehearsal. Letters: B batch, Y, X height and width of
the network's input, P explained (image, class) pairs, h, w the maps' grid, N boxes.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cam_ops.boxes.extract import MapBoxes
from cam_ops.explain.forward import results_of
from cam_ops.explain.mapper import WHOLE, Explained, Mapper
from cam_ops.metrics.localization import overlaps
from cam_ops.settings import Device, ModelConfig, Precision
from cluster.bench.figures import Figure
from cluster.bench.host import WARM_SHARDS, HostReplica, rate_of
from cluster.label.decoders import Decoders
from cluster.label.loader import Loader
from cluster.label.rows import Picture
from cluster.machine.gpu import held_bytes, loading
from cluster.machine.network import load_mapper
from cluster.machine.prepare import prepare_process
from cluster.runs.directory import open_run_dir
from cluster.runs.membership import Membership
from cluster.runs.plan import read_shard
from cluster.runs.record import existing_run
from cluster.runs.request import Request
from cluster.runs.writing import box_maps

NUM_COMPARED = 64  # pictures
SAME_IOU = 0.99
PASSES_AT_ONCE = 4  # between two moments at which the host waits for the device


class Machine:
    """What there is to measure on."""

    def __init__(self, device: Device) -> None:
        self.device = torch.device(device)

    def described(self) -> str:
        """Return the device's name and memory, and the version of torch. Raises MachineError if it cannot be used."""
        with loading(self.device, "a network"):
            if self.device.type == "cpu":
                return f"the CPU, torch {torch.__version__}"
            known = torch.cuda.get_device_properties(self.device)
            return f"{known.name}, {known.total_memory / 2**30:.0f} GiB, torch {torch.__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """A batch and what the CPU makes of it in float32: the map of the best class of each picture."""

    pixels_BYX3: Tensor
    pictures: list[Picture]
    exact: Explained


class Gpu:
    """Measures the device of a run in place, which has refined maps or not; publishes its shards again."""

    def __init__(self, out: str, model: ModelConfig) -> None:
        prepare_process()
        self.run_dir, self.model = open_run_dir(out), model
        self.run = existing_run(self.run_dir)
        self.request = replace(self.run.request, compiled=False)
        self.device = torch.device(self.request.device)
        self.planned = read_shard(self.run_dir, 0)
        self.mapper = cache(self._mapper)
        self.compared = cache(self._compared)

    def agreement(self, precision: Precision) -> Figure:
        """Compare scores, maps and boxes of the device, the network in `precision`, with those of the CPU in float32.

        Differences are the largest of all: of scores, and of a map's values relative to its peak; `boxes` is the share
        of the CPU's boxes that the device has, too, with an IoU of at least 0.99.
        """
        mapper = load_mapper(replace(self.request, precision=precision), self.model)
        scores, maps, same_class, num_same, num_boxes = 0.0, 0.0, 0, 0, 0
        for one in self.compared():
            exact = one.exact
            choose = partial(_these, (exact.image_P.to(self.device), exact.class_P.to(self.device)))
            found = mapper.explain(_planes(one.pixels_BYX3.to(self.device)), choose)
            logits_BK, found_Phw = found.logits_BK.cpu()[exact.image_P], found.maps_PHW.cpu()
            exact_BK = exact.logits_BK[exact.image_P]
            scores = max(scores, float((logits_BK.softmax(1) - exact_BK.softmax(1)).abs().max()))
            peak_P = exact.maps_PHW.abs().amax((1, 2)).clamp(min=1e-30)
            maps = max(maps, float(((found_Phw - exact.maps_PHW).abs().amax((1, 2)) / peak_P).max()))
            same_class += int((logits_BK.argmax(1) == exact.class_P).sum())
            exact_boxes, found_boxes = (self._boxes(one, maps_Phw) for maps_Phw in (exact.maps_PHW, found_Phw))
            num_same += same_boxes(exact_boxes, found_boxes)
            num_boxes += len(exact_boxes.boxes_N4)
        num_pictures = sum(len(one.exact.image_P) for one in self.compared())
        return {
            "scores": f"{scores:.1e}",
            "maps": f"{maps:.1e}",
            "best class": f"{same_class / num_pictures:.4f}",
            "boxes": f"{num_same / max(1, num_boxes):.4f}",
            "of pictures": num_pictures,
        }

    def forward(self, batch_size: int, compiled: bool, seconds: float) -> Figure:
        """Return images a second of the forward pass, and of it with one map an image, of pixels in the device."""
        view = self.mapper(batch_size if compiled else None).views[0]
        pixels_BYX3 = torch.cat([one.pixels_BYX3 for one in self._batches()])
        times = -(-batch_size // len(pixels_BYX3))
        pixels_BCYX = view.of(_planes(pixels_BYX3.repeat(times, 1, 1, 1)[:batch_size].to(self.device)))
        inside_B4 = WHOLE.to(self.device).repeat(batch_size, 1)
        class_P = torch.zeros(batch_size, dtype=torch.int64, device=self.device)
        self._forget_memory()

        def with_maps() -> None:
            results_of(view.engine, view.explainer, pixels_BCYX, class_P)

        with torch.no_grad():
            bare = self._rate(lambda: view.engine.run(pixels_BCYX, inside_B4), seconds)
            mapped = self._rate(with_maps, seconds)
        return {"forward": f"{bare * batch_size:.0f}", "with maps": f"{mapped * batch_size:.0f}", **self._memory()}

    def replica(self, batch_size: int, compiled: bool, num_processes: int, seconds: float) -> Figure:
        """Return images a second of a whole replica, pictures from files to tables, and times of its threads."""
        request = replace(self.request, batch_size=batch_size, compiled=compiled)
        membership = Membership(self.run_dir, self.run.request.fingerprint())
        membership.run = replace(self.run, request=request)
        mapper = self.mapper(batch_size if compiled else None)
        loader = self._loader(request, mapper, num_processes)
        self._forget_memory()
        with closing(loader):
            measured = rate_of(HostReplica(membership, mapper, loader), self._shards(seconds))
        return {
            "replica": f"{measured['images/s']:.0f}",
            "feeding, ms": f"{measured['feeding']:.3f}",
            "boxes, tables, publication, ms": f"{measured['ending']:.3f}",
            **self._memory(),
        }

    def _mapper(self, compiled_for: int | None) -> Mapper:
        """Return the network, compiled for batches of a size or as it is."""
        compiled = compiled_for is not None
        return load_mapper(replace(self.request, batch_size=compiled_for or 1, compiled=compiled), self.model)

    def _loader(self, request: Request, mapper: Mapper, num_processes: int) -> Loader:
        shape = request.preprocessing
        options = self.run_dir.options
        decoders = Decoders(num_processes, options)  # in a rehearsal, too
        return Loader(shape, mapper.size, request.batch_size, decoders, self.device, options)

    def _shards(self, seconds: float) -> Iterator[int]:
        """Yield the run's shards again and again: at least as many as it takes to measure, then until time is up."""
        start_s = time.perf_counter()
        for number in itertools.count():
            if number >= WARM_SHARDS + 2 and time.perf_counter() - start_s >= seconds:
                return
            yield number % self.run.plan.num_shards

    def _compared(self) -> list[_Compared]:
        cpu = load_mapper(replace(self.request, device="cpu", precision="fp32"), self.model)
        return [
            replace(one, exact=cpu.explain(_planes(one.pixels_BYX3), partial(_best, one.pictures)))
            for one in self._batches()
        ]

    def _batches(self) -> list[_Compared]:
        mapper = self.mapper(None)
        request = replace(self.request, batch_size=16)
        nothing: Any = None
        with closing(self._loader(request, mapper, 2)) as loader:
            batches = loader.open(self.planned.slice(0, NUM_COMPARED))
            return [
                _Compared(pixels_BYX3=pixels.clone(), pictures=pictures, exact=nothing) for pixels, pictures in batches
            ]

    def _boxes(self, one: _Compared, maps_Phw: Tensor) -> MapBoxes:
        pictures = [one.pictures[place] for place in one.exact.image_P.tolist()]
        size_P2 = np.array([(picture.width, picture.height) for picture in pictures])
        rectangle_P4 = np.array([picture.rectangle for picture in pictures], np.float32)
        class_P = one.exact.class_P.int().numpy()
        return box_maps(self.request, class_P, maps_Phw.numpy(), rectangle_P4, size_P2)

    def _rate(self, run: Callable[[], object], seconds: float) -> float:
        """Return calls per second, after some that do not count."""
        for _ in range(PASSES_AT_ONCE):
            run()
        self._wait()
        start_s = time.perf_counter()
        for number in itertools.count(1):
            for _ in range(PASSES_AT_ONCE):
                run()
            self._wait()
            if (spent_s := time.perf_counter() - start_s) >= seconds:
                return number * PASSES_AT_ONCE / spent_s
        raise AssertionError

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _forget_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def _memory(self) -> Figure:
        return {"held, MiB": f"{held_bytes(self.device) / 2**20:.0f}"}


def same_boxes(exact: MapBoxes, found: MapBoxes) -> int:
    """Count the boxes that another set of boxes of the same maps has with an IoU of at least 0.99, map by map."""
    count = 0
    for place in np.unique(exact.map_N):
        exact_N4, found_N4 = (boxes.boxes_N4[boxes.map_N == place] for boxes in (exact, found))
        count += int((overlaps(exact_N4, found_N4.astype(np.float64)).max(1, initial=0) >= SAME_IOU).sum())
    return count


def _planes(pixels_BYX3: Tensor) -> Tensor:
    return pixels_BYX3.permute(0, 3, 1, 2)


def _best(pictures: list[Picture], logits_BK: Tensor) -> tuple[Tensor, Tensor]:
    image_P = torch.tensor([place for place, picture in enumerate(pictures) if picture.status == "ok"])
    return image_P, logits_BK[image_P].argmax(1)


def _these(pairs: tuple[Tensor, Tensor], _: Tensor) -> tuple[Tensor, Tensor]:
    return pairs
