"""One model replica: takes the number of a shard, publishes its three tables.

A plain class that tests and the inline executor call directly; `cluster.pool` wraps it in a Ray actor. Settings come
from run.json. Letters: B batch, S side of the network's input, h, w the grid, K classes, P explained pairs.
"""

import os
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from cam_ops.arrays import U8
from cam_ops.classes import NUM_TOP, choose_classes, class_scores, parse_class_choice
from cam_ops.errors import StorageError, UsageError
from cam_ops.images import BadImage, fit
from cam_ops.models import ModelConfig, load_classifier
from cam_ops.views import Mapper
from cluster.plan import read_shard
from cluster.request import DTYPES, Precision, read_run
from cluster.rows import Picture, RawMap, ShardReport, ShardRows
from cluster.rundir import RUN, open_run_dir, shard_name
from cluster.sources import check_source, load_picture

RESIDUAL_LIMIT: dict[Precision, float] = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 1e-2}


class CamWorker:
    """One model replica. Lives as long as its actor and keeps the GPU."""

    def __init__(self, out: str, model: ModelConfig, fingerprint: str) -> None:
        """Load the network and check that run directory, source and weights are those of the plan.

        Raises UsageError, StorageError or MachineError with the reason that this machine cannot take part.
        """
        self.run_dir = open_run_dir(out)
        run = read_run(self.run_dir)
        if run is None or run.request.fingerprint() != fingerprint:
            raise StorageError(
                f"the node {os.uname().nodename} does not see the run at {out}; "
                "a local --out must be shared by all nodes"
            )
        self.run, request = run, run.request
        self.run_json = self.run_dir.read(RUN)
        check_source(request.images)
        cv2.setNumThreads(0)
        if request.device == "cpu":
            torch.set_num_threads(1)
        classifier = load_classifier(model)
        if classifier.digest != request.model_digest:
            raise StorageError(
                f"the weights of {model.model} are not those of the run; check that --weights is the same file on "
                "every node, and that a factory gives the same weights on each call"
            )
        self.device = torch.device(request.device)
        torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]  # fp32 means it: no TF32
        self.mapper = Mapper(classifier.network, request.explain, request.preprocessing.image_size)
        self.mapper.to(self.device, DTYPES[request.precision])
        self.input = replace(request.preprocessing, image_size=self.mapper.side)
        self.choice = parse_class_choice(request.classes)
        self.checked = False
        self.mean_C11 = torch.tensor(request.preprocessing.mean, device=self.device)[:, None, None]
        self.std_C11 = torch.tensor(request.preprocessing.std, device=self.device)[:, None, None]

    def run_shard(self, shard: int) -> ShardReport:
        """Label the images of one shard and publish its tables, the images table last: that commits the shard."""
        rows = ShardRows(self.run)
        planned = read_shard(self.run_dir, shard).to_pylist()
        batch_size = self.run.request.batch_size
        for start in range(0, len(planned), batch_size):
            self._label_batch(planned[start : start + batch_size], rows)
        tables = rows.tables()
        if self.run_dir.read(RUN) != self.run_json:
            raise StorageError(f"{self.run_dir.root} now holds another run; this one ends and publishes nothing more")
        for table, content in tables.items():
            self.run_dir.publish(shard_name(table, shard), content)
        return rows.report(shard)

    def _label_batch(self, planned: list[dict[str, Any]], rows: ShardRows) -> None:
        """Label up to a batch of images; an image keeps its place in the batch whatever becomes of its neighbours."""
        side = self.mapper.side
        inputs_BSS3 = np.zeros((self.run.request.batch_size, side, side, 3), np.uint8)
        pictures = [self._load(row, inputs_BSS3[i]) for i, row in enumerate(planned)]
        if any(picture.status == "ok" for picture in pictures):
            self._explain(inputs_BSS3, pictures, rows)
        else:
            for picture in pictures:
                rows.add_image(picture, [], [], [])

    def _load(self, row: dict[str, Any], input_SS3: U8) -> Picture:
        """Fetch, decode and fit one image into its place in the batch."""
        picture = Picture(row=row)
        try:
            image_HWC = load_picture(row)
        except BadImage as bad:
            picture.status, picture.error = bad.status, str(bad)
            return picture
        picture.height, picture.width = image_HWC.shape[:2]
        input_SS3[:], picture.rectangle = fit(image_HWC, self.input)
        return picture

    def _explain(self, inputs_BSS3: U8, pictures: list[Picture], rows: ShardRows) -> None:
        """Run the network on the whole batch, map the wanted classes, add images, maps and boxes."""
        images_BCSS = torch.from_numpy(inputs_BSS3).to(self.device).permute(0, 3, 1, 2)
        images_BCSS = (images_BCSS.float() / 255 - self.mean_C11) / self.std_C11
        explained = self.mapper.explain(images_BCSS, partial(self._choose, pictures))
        self._check_finite(explained.logits_BK, pictures)
        scores_BK = class_scores(explained.logits_BK, self.run.request.scores)
        top = scores_BK.topk(min(NUM_TOP, scores_BK.shape[1]))
        image_P, class_P = explained.image_P, explained.class_P
        residuals = [None] * len(image_P) if explained.residual_P is None else explained.residual_P.tolist()
        self._check_first_batch(residuals)
        is_sum = self.run.request.explain.method == "cam"  # the maps themselves add up
        columns = zip(
            image_P.tolist(),
            class_P.tolist(),
            explained.maps_PHW.cpu().numpy(),
            scores_BK[image_P, class_P].tolist(),
            explained.logits_BK[image_P, class_P].tolist(),
            residuals if is_sum else [None] * len(residuals),
            strict=True,
        )
        maps: list[list[RawMap]] = [[] for _ in pictures]
        for image, class_id, raw_hw, score, logit, residual in columns:
            raw = RawMap(class_id=class_id, raw_hw=raw_hw, score=score, logit=logit, residual=residual)
            maps[image].append(raw)
        top_classes, top_scores = top.indices.tolist(), top.values.tolist()
        for i, picture in enumerate(pictures):
            if picture.status == "ok":
                rows.add_image(picture, top_classes[i], top_scores[i], maps[i])
            else:
                rows.add_image(picture, [], [], [])

    def _choose(self, pictures: list[Picture], logits_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (image, class) pairs to explain, of the pictures that could be read."""
        labels = [-1 if picture.row["label"] is None else picture.row["label"] for picture in pictures]
        usable_B = torch.tensor([picture.status == "ok" for picture in pictures], device=self.device)
        usable_B &= logits_BK[: len(pictures)].isfinite().all(1)
        scores_BK = class_scores(logits_BK, self.run.request.scores)[: len(pictures)]
        image_P, class_P = choose_classes(scores_BK, torch.tensor(labels, device=self.device), self.choice)
        return image_P[usable_B[image_P]], class_P[usable_B[image_P]]

    def _check_finite(self, logits_BK: Tensor, pictures: list[Picture]) -> None:
        """Give pictures whose logits overflowed a status of their own; refuse a first batch that has any."""
        precision = self.run.request.precision
        for picture, is_finite in zip(pictures, logits_BK.isfinite().all(1).tolist(), strict=False):
            if picture.status == "ok" and not is_finite:
                picture.status, picture.error = "overflow", f"the network's logits are not finite in {precision}"
                if not self.checked:
                    raise UsageError(
                        f"the logits of {self.run.request.model} for {picture.row['image_id']} are not finite in "
                        f"{precision}; use --precision bf16 or fp32"
                    )

    def _check_first_batch(self, residuals: list[float] | list[None]) -> None:
        """Refuse a network whose maps should add up to its logits and do not."""
        known = [residual for residual in residuals if residual is not None]
        limit = RESIDUAL_LIMIT[self.run.request.precision]
        if not self.checked and not all(residual <= limit for residual in known):
            raise UsageError(
                f"the maps of {self.run.request.model} do not add up to its logits: the residual of the first batch is "
                f"{max(known):.1e}, at most {limit:.0e} expected; the network does more than average and multiply"
            )
        self.checked = self.checked or len(residuals) > 0
