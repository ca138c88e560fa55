"""One model replica: takes the number of a shard, publishes its three tables.

A plain class that tests and the inline executor call directly; `cluster.pool` wraps it in a Ray actor. Settings come
from run.json. Letters: B batch, S side of the network's input, h, w the grid, K classes, P explained pairs.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch

from cam_ops.arrays import F32, I64, U8
from cam_ops.boxes import boxes_from_heatmap
from cam_ops.classes import NUM_TOP, choose_classes, class_scores, parse_class_choice
from cam_ops.errors import StorageError, UsageError
from cam_ops.heads import Head, find_head, forward_with_features
from cam_ops.images import BadImage, decode, fit
from cam_ops.methods import completeness_residuals, explain
from cam_ops.models import ModelConfig, load_classifier
from cam_ops.tables import BOXES, IMAGES, heatmaps_schema, with_metadata
from cluster.parquet import encode
from cluster.plan import read_shard
from cluster.request import Precision, read_run
from cluster.rundir import RUN, TABLES, open_run_dir, shard_name
from cluster.sources import check_folder, read_image

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
RESIDUAL_LIMIT: dict[Precision, float] = {"fp32": 1e-3, "bf16": 5e-2, "fp16": 1e-2}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What became of a shard."""

    shard: int
    statuses: dict[str, int]  # images by status
    num_maps: int
    num_boxes: int


@dataclass(slots=True)
class _Rows:
    """The rows of a shard's three tables as they grow, column by column."""

    images: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in IMAGES.names})
    heatmaps: dict[str, list[Any]] = field(default_factory=dict)
    boxes: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in BOXES.names})


@dataclass(slots=True, kw_only=True)
class _Picture:
    """One planned image on its way through the worker."""

    row: dict[str, Any]  # as planned
    width: int = 0
    height: int = 0
    status: str = "ok"
    error: str | None = None
    rectangle: F32 = field(default_factory=lambda: np.zeros(4, np.float32))


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
        check_folder(request.images)
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
        network = classifier.network.to(self.device)
        self.head: Head = find_head(network, request.preprocessing.image_size)
        self.network = network.to(DTYPES[request.precision]).to(memory_format=torch.channels_last)
        self.choice = parse_class_choice(request.classes)
        self.checked = False
        self.mean_C11 = torch.tensor(request.preprocessing.mean, device=self.device)[:, None, None]
        self.std_C11 = torch.tensor(request.preprocessing.std, device=self.device)[:, None, None]

    def run_shard(self, shard: int) -> ShardReport:
        """Label the images of one shard and publish its tables, the images table last: that commits the shard."""
        rows = _Rows(heatmaps={name: [] for name in heatmaps_schema(self.run.grid).names})
        planned = read_shard(self.run_dir, shard).to_pylist()
        batch_size = self.run.request.batch_size
        for start in range(0, len(planned), batch_size):
            self._label_batch(planned[start : start + batch_size], rows)
        tables = self._tables(rows)
        if self.run_dir.read(RUN) != self.run_json:
            raise StorageError(f"{self.run_dir.root} now holds another run; this one ends and publishes nothing more")
        for table, content in tables.items():
            self.run_dir.publish(shard_name(table, shard), content)
        return ShardReport(
            shard=shard,
            statuses=dict(Counter(rows.images["status"])),
            num_maps=len(rows.heatmaps["row"]),
            num_boxes=len(rows.boxes["row"]),
        )

    def _label_batch(self, planned: list[dict[str, Any]], rows: _Rows) -> None:
        """Label up to a batch of images; an image keeps its place in the batch whatever becomes of its neighbours."""
        request = self.run.request
        side = request.preprocessing.image_size
        inputs_BSS3 = np.zeros((request.batch_size, side, side, 3), np.uint8)
        pictures = [self._load(row, inputs_BSS3[i]) for i, row in enumerate(planned)]
        labels = [row["label"] if p.status == "ok" else None for row, p in zip(planned, pictures, strict=True)]
        if any(p.status == "ok" for p in pictures):
            self._explain(inputs_BSS3, pictures, labels, rows)
        else:
            for picture in pictures:
                _add_image(rows, picture, [], [], 0, 0)

    def _load(self, row: dict[str, Any], input_SS3: U8) -> _Picture:
        """Fetch, decode and fit one image into its place in the batch."""
        picture = _Picture(row=row)
        try:
            image_HWC = decode(read_image(row["uri"], row["offset"], row["size"]))
        except BadImage as bad:
            picture.status, picture.error = bad.status, str(bad)
            return picture
        picture.height, picture.width = image_HWC.shape[:2]
        input_SS3[:], picture.rectangle = fit(image_HWC, self.run.request.preprocessing)
        return picture

    def _explain(self, inputs_BSS3: U8, pictures: list[_Picture], labels: list[int | None], rows: _Rows) -> None:
        """Run the network once on the whole batch, map the wanted classes, box the maps, add the rows."""
        request = self.run.request
        with torch.inference_mode():
            images_BCHW = torch.from_numpy(inputs_BSS3).to(self.device).permute(0, 3, 1, 2)
            images_BCHW = ((images_BCHW.float() / 255 - self.mean_C11) / self.std_C11).to(DTYPES[request.precision])
            features_BCHW, logits_BK = forward_with_features(self.network, images_BCHW, self.head)
            scores_BK = class_scores(logits_BK, request.scores)
            top = scores_BK.topk(min(NUM_TOP, scores_BK.shape[1]))
            labels_B = torch.tensor([-1 if label is None else label for label in labels], device=self.device)
            usable_B = torch.tensor([picture.status == "ok" for picture in pictures], device=self.device)
            num = len(pictures)
            image_P, class_P = choose_classes(scores_BK[:num], labels_B, self.choice)
            image_P, class_P = image_P[usable_B[image_P]], class_P[usable_B[image_P]]
            pairs = (features_BCHW, logits_BK, self.head, image_P, class_P)
            cams_PHW = explain(request.method, *pairs)
            residual_P = completeness_residuals(*pairs)
            maps = _Maps(
                image_P=image_P.cpu().numpy(),
                class_P=class_P.cpu().numpy(),
                cams_PHW=cams_PHW.cpu().numpy(),
                score_P=scores_BK[image_P, class_P].cpu().numpy(),
                logit_P=logits_BK[image_P, class_P].cpu().numpy(),
                residual_P=residual_P.cpu().numpy(),
            )
        self._check_first_batch(maps.residual_P)
        top_scores, top_classes = top.values.cpu().tolist(), top.indices.cpu().tolist()
        for i, picture in enumerate(pictures):
            of_image = np.flatnonzero(maps.image_P == i)
            num_boxes = sum(self._add_map(rows, picture, maps, int(p)) for p in of_image)
            if picture.status == "ok":
                _add_image(rows, picture, top_classes[i], top_scores[i], len(of_image), num_boxes)
            else:
                _add_image(rows, picture, [], [], 0, 0)

    def _check_first_batch(self, residual_P: F32) -> None:
        """Refuse a network whose maps do not add up to its logits."""
        limit = RESIDUAL_LIMIT[self.run.request.precision]
        if not self.checked and len(residual_P) and not residual_P.max() <= limit:
            raise UsageError(
                f"the maps of {self.run.request.model} do not add up to its logits: the residual of the first batch is "
                f"{residual_P.max():.1e}, at most {limit:.0e} expected; the network does more than average and multiply"
            )
        self.checked = self.checked or len(residual_P) > 0

    def _add_map(self, rows: _Rows, picture: _Picture, maps: "_Maps", p: int) -> int:
        """Add one map's row and its boxes' rows; return the number of boxes."""
        run, row = self.run, picture.row
        place = {name: row[name] for name in ("image_id", "shard", "row")}
        class_id = int(maps.class_P[p])
        found = boxes_from_heatmap(
            maps.cams_PHW[p],
            picture.rectangle,
            picture.width,
            picture.height,
            run.request.preprocessing.image_size,
            run.request.maps,
            run.request.boxes,
        )
        _append(
            rows.heatmaps,
            place
            | _corners(picture.rectangle)
            | {
                "class_id": class_id,
                "method": run.request.method,
                "heatmap": maps.cams_PHW[p],
                "score": maps.score_P[p],
                "logit": maps.logit_P[p],
                "residual": maps.residual_P[p] if run.request.method == "cam" else None,
            },
        )
        from_label = self.choice.label and row["label"] == class_id
        for rank in range(len(found.boxes_N4)):
            _append(
                rows.boxes,
                place
                | _corners(found.boxes_N4[rank])
                | {
                    "class_id": class_id,
                    "class_name": run.class_names[class_id],
                    "class_source": "label" if from_label else "predicted",
                    "score": maps.score_P[p],
                    "peak": found.peak_N[rank],
                    "energy": found.energy_N[rank],
                    "area_fraction": found.area_fraction_N[rank],
                    "rank": rank,
                    "threshold": run.request.boxes.threshold,
                },
            )
        return len(found.boxes_N4)

    def _tables(self, rows: _Rows) -> dict[str, bytes]:
        """Return the bytes of the three files, in the order of publication."""
        maps = rows.heatmaps
        heatmaps_PHW = np.array(maps["heatmap"], np.float32).reshape(-1, *self.run.grid)
        schema = heatmaps_schema(self.run.grid)
        storage = pa.FixedSizeListArray.from_arrays(heatmaps_PHW.ravel(), self.run.grid[0] * self.run.grid[1])
        heatmap_type = schema.field("heatmap").type
        heatmap_array = pa.ExtensionArray.from_storage(heatmap_type, storage.cast(heatmap_type.storage_type))
        columns = {
            "heatmaps": {**maps, "heatmap": heatmap_array},
            "boxes": rows.boxes,
            "images": rows.images,
        }
        schemas = {"heatmaps": schema, "boxes": BOXES, "images": IMAGES}
        return {
            name: encode(
                pa.Table.from_pydict(
                    columns[name], schema=with_metadata(schemas[name], self.run.request.document(name))
                )
            )
            for name in TABLES
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maps:
    """The maps of one batch, on the host."""

    image_P: I64
    class_P: I64
    cams_PHW: F32
    score_P: F32
    logit_P: F32
    residual_P: F32


def _add_image(
    rows: _Rows, picture: _Picture, top_classes: list[int], top_scores: list[float], num_maps: int, num_boxes: int
) -> None:
    _append(
        rows.images,
        picture.row
        | {
            "width": picture.width,
            "height": picture.height,
            "status": picture.status,
            "error": picture.error,
            "top_classes": top_classes,
            "top_scores": top_scores,
            "num_maps": num_maps,
            "num_boxes": num_boxes,
        },
    )


def _corners(box_4: F32) -> dict[str, Any]:
    return dict(zip(("x0", "y0", "x1", "y1"), box_4, strict=True))


def _append(columns: dict[str, list[Any]], row: dict[str, Any]) -> None:
    for name, values in columns.items():
        values.append(row[name])
