"""One model replica: takes the number of a shard, publishes its three tables.

A plain class that tests and the inline executor call directly; `cluster.executors.ray_actors` wraps it in a Ray actor.
Settings come from run.json. Letters: B batch, Y, X height and width of the network's input, h, w the grid, K classes,
P explained pairs.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cam_ops.arrays import F32, Bools
from cam_ops.classes import parse_class_choice
from cam_ops.errors import BadImage, MachineError, UsageError
from cam_ops.explain.mapper import Mapper
from cam_ops.explain.scores import NUM_TOP, best_classes, choose_classes, class_scores
from cam_ops.settings import ModelConfig, Precision
from cluster.executors.blame import SUSPICIOUS_DEATHS
from cluster.executors.laps import Laps
from cluster.executors.turns import Turns
from cluster.executors.work import ShardReport
from cluster.label.decoders import Decoders
from cluster.label.loader import Loader
from cluster.label.quarantine import Quarantine, read_quarantine
from cluster.label.rows import BatchMaps, Picture, ShardRows, joined_maps, maps_of, no_maps
from cluster.machine.gpu import computing, held_bytes, on_host
from cluster.machine.network import load_mapper
from cluster.machine.prepare import prepare_process
from cluster.process.console import say
from cluster.process.failpoints import reach
from cluster.runs.directory import RunDir
from cluster.runs.membership import Membership
from cluster.sources.several import check_sources

Batches = Iterator[tuple[Tensor, list[Picture]]]  # pixels (B, Y, X, 3), their pictures

OVERFLOW_CURES: dict[Precision, str] = {
    "fp32": "the network divides by 0 there, or its gradient does, as that of a root at 0; let it add a small number "
    "first, or try another --method or --layer",
    "bf16": "use --precision fp32",
    "fp16": "use --precision bf16 or fp32",
}
RESIDUAL_LIMIT: dict[Precision, float] = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 1e-2}


def open_replica(run_dir: RunDir, model: ModelConfig, fingerprint: str, num_threads: int = 1) -> "LabelReplica":
    """Join the run of that fingerprint with the network that `model` names.

    `num_threads` fetch pictures; before a GPU so many processes fetch and decode them.

    Sets this process up for it. Raises UsageError, StorageError or MachineError with the reason that this machine
    cannot take part: run directory, source or weights are not those of the plan, or cannot be reached.
    """
    membership = Membership(run_dir, fingerprint)
    request = membership.run.request
    check_sources(request.addresses, run_dir.options)
    prepare_process()
    device, options = torch.device(request.device), run_dir.options
    hands = Decoders(num_threads, options) if device.type == "cuda" else num_threads  # they start beside the network
    mapper = load_mapper(request, model)
    loader = Loader(request.preprocessing, mapper.size, request.batch_size, hands, device, options)
    return LabelReplica(membership, mapper, loader)


class LabelReplica:
    """One model replica. Lives as long as its actor and keeps the GPU.

    Shards may be run from several threads: one after the other has the network, while the next one fetches its first
    pictures and, before a GPU, the last one publishes its tables. On a CPU there is no core to spare for that.
    """

    def __init__(self, membership: Membership, mapper: Mapper, loader: Loader) -> None:
        self.membership, self.mapper, self.loader = membership, mapper, loader
        self.run_dir, self.run = membership.run_dir, membership.run
        self.device = torch.device(self.run.request.device)
        self.part_size = self.run.request.batch_size  # images that the network takes at once
        self.num_top = min(NUM_TOP, len(self.run.class_names))
        self.choice = parse_class_choice(self.run.request.classes)
        self.checked = False
        self.turns = Turns()

    def run_shard(self, shard: int, number: int, deaths: int = 0) -> ShardReport:
        """Label the images of one shard and publish its tables, the images table last: that commits the shard.

        `number` counts the calls from 0 on; in that order shards take their turn. After two `deaths` of replicas at
        this shard its images are suspected of them.

        The report's seconds: `load` (until a batch is there; on a CPU it decodes, too), `network` (forward pass, maps,
        their refinement), `boxes` and `publish` (tables to files) add up to the shard's turn; before a GPU the last two
        come after it. `fetch` and `decode` are added up over threads or processes, from before the turn on: no part of
        that sum.
        """
        laps = Laps()
        with self.turns.take(number, partial(self._open, shard, deaths, laps)) as (planned, quarantine, batches):
            laps.start()
            if deaths >= SUSPICIOUS_DEATHS:
                report = self._publish(shard, self._label_carefully(planned, quarantine, batches, laps), laps)
                quarantine.end()
                return report
            rows = self._label(planned, batches, laps)
            if not self.loader.decoders:
                return self._publish(shard, rows, laps)
        return self._publish(shard, rows, laps)  # while the next shard has the GPU

    def _open(self, shard: int, deaths: int, laps: Laps) -> tuple[pa.Table, Quarantine, Batches]:
        """Read what is known of a shard, and begin to fetch its pictures unless they are suspected."""
        reach(f"fetch-{shard}")
        planned = self.membership.planned(shard)
        quarantine = read_quarantine(self.run_dir, shard, after_death=deaths > SUSPICIOUS_DEATHS)
        if deaths >= SUSPICIOUS_DEATHS:
            return planned, quarantine, self.loader.open_carefully(planned, quarantine, laps)
        return planned, quarantine, self.loader.open(planned, quarantine.bad, laps)

    def _label(self, planned: pa.Table, batches: Batches, laps: Laps) -> ShardRows:
        rows, point = ShardRows(self.run, planned), f"forward-{planned['shard'][0].as_py()}"
        for pixels_BYX3, pictures in batches:
            laps.end("load")
            rows.add(pictures, self.explain(pixels_BYX3, pictures))
            laps.end("network")
            reach(point)
        return rows

    def _label_carefully(self, planned: pa.Table, quarantine: Quarantine, batches: Batches, laps: Laps) -> ShardRows:
        """Do the same, with a note of where the network is at work: one image at a time where replicas died before."""
        rows, first_row = ShardRows(self.run, planned), 0
        for pixels_BYX3, pictures in batches:
            laps.end("load")
            if first_row in quarantine.split or len(pictures) == 1:
                maps = self._explain_one_by_one(pixels_BYX3, pictures, first_row, quarantine)
            else:
                quarantine.begin(first_row, len(pictures))
                maps = self.explain(pixels_BYX3, pictures)
            rows.add(pictures, maps)
            laps.end("network")
            first_row += len(pictures)
        return rows

    def _explain_one_by_one(
        self, pixels_BYX3: Tensor, pictures: list[Picture], first_row: int, quarantine: Quarantine
    ) -> BatchMaps:
        """Run the network on each image in its place of an otherwise empty batch, but not on those that are deadly."""
        parts = []
        for place, picture in enumerate(pictures):
            row = first_row + place
            if picture.status == "ok" and quarantine.is_deadly(row):
                bad = BadImage("crashed_network", "its replicas died while the network worked on this image alone")
                picture.status, picture.error = bad.status, str(bad)
                picture.width = picture.height = 0  # as of any picture that is not touched again
                quarantine.add(row, bad)
            quarantine.begin(row, 1)
            alone = [other if other is picture else replace(other, status="apart") for other in pictures]
            alone_BYX3 = torch.zeros_like(pixels_BYX3)
            alone_BYX3[place] = pixels_BYX3[place]
            maps = self.explain(alone_BYX3, alone)
            top = maps.top_class_BT[place : place + 1], maps.top_score_BT[place : place + 1]
            maps = replace(maps, top_class_BT=top[0], top_score_BT=top[1], image_P=maps.image_P - place)
            parts.append((place, maps))
        return joined_maps(parts)

    def _publish(self, shard: int, rows: ShardRows, laps: Laps) -> ShardReport:
        boxes = rows.box()
        laps.end("boxes")
        self.membership.publish(shard, rows.tables(boxes))
        laps.end("publish")
        return replace(rows.report(shard, laps.seconds), gpu_memory_bytes=held_bytes(self.device))

    def explain(self, pixels_BYX3: Tensor, pictures: list[Picture]) -> BatchMaps:
        """Run the network on the whole batch and map the wanted classes.

        Where the GPU lacks the memory, in as many parts as it takes, from then on; an image for which it lacks the
        memory alone gets the status ``cuda_oom``.
        """
        parts: list[tuple[int, BatchMaps]] = []
        first = 0
        while first < len(pictures):
            part = slice(first, first + self.part_size)
            maps = self._try_part(pixels_BYX3[part], pictures[part])
            if maps is None:
                self._shrink_parts(pictures[first])
            else:
                parts.append((first, maps))
                first = part.stop
        return parts[0][1] if len(parts) == 1 else joined_maps(parts)

    def _try_part(self, pixels_BYX3: Tensor, pictures: list[Picture]) -> BatchMaps | None:
        """Return None where the GPU lacks the memory; what the pass had of it is free again then."""
        try:
            with computing(self.device):
                return self._explain_part(pixels_BYX3, pictures)
        except torch.OutOfMemoryError:
            return None

    def _shrink_parts(self, picture: Picture) -> None:
        """Halve the parts; where they are single images, give this one up."""
        torch.cuda.empty_cache()
        if self.part_size > 1:
            self.part_size = -(-self.part_size // 2)
            self.mapper.forget_compiled()
            say(f"the GPU has not the memory for a batch; from now on in parts of {self.part_size} image(s)")
        elif self.checked:
            picture.status, picture.error = "cuda_oom", "the GPU has not the memory for this image alone"
        else:
            raise MachineError(
                f"the GPU has not the memory for {self.run.request.model} on one image; use a GPU with more, a smaller "
                "--image-size, or fewer replicas per GPU"
            )

    def _explain_part(self, pixels_BYX3: Tensor, pictures: list[Picture]) -> BatchMaps:
        """Run the network on pictures that fit the device's memory.

        A GPU is given pixels, where the pictures lie in them, and the chosen pairs; it gives logits, which the host
        waits for to choose, then maps with their residuals, which it waits for: three copies in, three out (four with
        the kept maps from before they were refined), two waits, no further synchronisation.
        """
        if not any(picture.status == "ok" for picture in pictures):
            return no_maps(len(pictures), self.num_top, self.run.grid, self.run.request.kept_cam_grid)
        pixels_BCYX = pixels_BYX3.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        inside_B4 = torch.from_numpy(_inside(pictures, len(pixels_BCYX))).to(self.device, non_blocking=True)
        told: list[tuple[Tensor, Tensor, Tensor]] = []

        def choose(logits_BK: Tensor) -> tuple[Tensor, Tensor]:
            (logits_BK,) = on_host(logits_BK)
            told.append((logits_BK, class_scores(logits_BK, self.run.request.scores), logits_BK.isfinite().all(1)))
            return self._choose(pictures, *told[0][1:])

        explained = self.mapper.explain(pixels_BCYX, choose, inside_B4)
        ((logits_BK, scores_BK, has_logits_B),) = told
        residuals = [] if explained.residual_P is None else [explained.residual_P]
        cams = [explained.cams_Phw] if self.run.request.kept_cam_grid else []
        raw_Phw, *others = (tensor.numpy() for tensor in on_host(explained.maps_PHW, *residuals, *cams))
        residual_P = others[0] if residuals else None
        self._check_finite("logits", has_logits_B.numpy(), pictures)
        top_BT = best_classes(scores_BK, self.num_top)
        image_P, class_P = explained.image_P, explained.class_P
        is_finite_B = np.ones(len(pixels_BYX3), bool)
        is_finite_B[image_P[~np.isfinite(raw_Phw).all((1, 2))]] = False
        self._check_finite("maps", is_finite_B, pictures)
        self._check_first_batch(np.zeros(0) if residual_P is None else residual_P, len(image_P))
        is_sum = self.run.request.explain.method == "cam"  # the maps themselves add up
        found = BatchMaps(
            top_class_BT=top_BT.int().numpy(),
            top_score_BT=scores_BK.gather(1, top_BT).numpy(),
            image_P=image_P.numpy(),
            class_P=class_P.int().numpy(),
            raw_Phw=raw_Phw,
            cam_Pkl=others[-1] if cams else None,
            score_P=scores_BK[image_P, class_P].numpy(),
            logit_P=logits_BK[image_P, class_P].numpy(),
            residual_P=residual_P if is_sum else None,
        )
        return found if is_finite_B.all() else maps_of(found, is_finite_B)

    def _choose(self, pictures: list[Picture], scores_BK: Tensor, has_logits_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (image, class) pairs to explain, of the pictures that could be read; all in the host's memory."""
        most = max(1, *(len(picture.labels) for picture in pictures))
        labels_BM = torch.tensor([(*picture.labels, *[-1] * (most - len(picture.labels))) for picture in pictures])
        usable_B = torch.tensor([picture.status == "ok" for picture in pictures])
        usable_B &= has_logits_B[: len(pictures)]
        image_P, class_P = choose_classes(scores_BK[: len(pictures)], labels_BM, self.choice)
        return image_P[usable_B[image_P]], class_P[usable_B[image_P]]

    def _check_finite(self, what: str, is_finite_B: Bools, pictures: list[Picture]) -> None:
        """Give pictures whose logits or maps overflowed a status of their own; refuse a first batch that has any."""
        precision = self.run.request.precision
        for picture, is_finite in zip(pictures, is_finite_B.tolist(), strict=False):
            if picture.status == "ok" and not is_finite:
                picture.status, picture.error = "overflow", f"the network's {what} are not finite in {precision}"
                if not self.checked:
                    raise UsageError(
                        f"the {what} of {self.run.request.model} for {picture.image_id} are not finite in {precision}; "
                        + OVERFLOW_CURES[precision]
                    )

    def _check_first_batch(self, residual_P: np.ndarray, num_pairs: int) -> None:
        """Refuse a network whose maps should add up to its logits and do not; NaN counts as such."""
        limit = RESIDUAL_LIMIT[self.run.request.precision]
        if not self.checked and not (residual_P <= limit).all():
            raise UsageError(
                f"the maps of {self.run.request.model} do not add up to its logits: the residual of the first batch is "
                f"{residual_P.max():.1e}, at most {limit:.0e} expected; the network does more than average and multiply"
            )
        self.checked = self.checked or num_pairs > 0


def _inside(pictures: list[Picture], batch_size: int) -> F32:
    """Return where each picture lies in the network's input, x0, y0, x1, y1 in its units; (B, 4)."""
    inside_B4 = np.tile(np.array([0, 0, 1, 1], np.float32), (batch_size, 1))
    for place, picture in enumerate(pictures):
        if picture.status == "ok":
            x0, y0, x1, y1 = picture.rectangle
            edges = (-x0, x1 - x0), (-y0, y1 - y0), (picture.width - x0, x1 - x0), (picture.height - y0, y1 - y0)
            inside_B4[place] = [min(1.0, max(0.0, edge / side)) for edge, side in edges]
    return inside_B4
