"""Truth of every format with boxes worked out by hand, and runs of a plan alone that it is prepared for."""

import gzip
import io
import json
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cam_ops.errors import UsageError
from cam_ops.tables import IMAGES, LABELLED, with_metadata
from cluster.runs.directory import RunDir
from cluster.runs.names import shard_name
from cluster.runs.plan import write_plan
from cluster.runs.record import Run
from cluster.storage.parquet import encode
from cluster.truth.prepare import TruthConfig, TruthReport, prepare_truth, read_truth_shard
from cluster.truth.rows import TRUTH

NAMES = ("kangaroo", "Crane", "crane bird", "crane bird")
Planned = dict[str, tuple[int, int, int | None]]  # image_id: width, height, label


@dataclass(frozen=True)
class Planner:
    """Makes runs of a plan and images tables alone, and prepares truth for them."""

    template: Run
    run_dir: RunDir

    def truth(
        self,
        planned: Planned,
        truth: object,
        *,
        names: tuple[str, ...] = NAMES,
        shard_size: int = 2,
        committed: bool = True,
        orientations: dict[str, int] | None = None,
        **config: Any,
    ) -> tuple[TruthReport, list[dict[str, Any]]]:
        run_dir = self.run_dir
        ids = sorted(planned)
        labels = pa.array([planned[image_id][2] for image_id in ids], pa.int32())
        nothing = np.zeros(len(ids), np.int64)
        listing = pa.record_batch([ids, ids, nothing, nothing - 1, labels], schema=LABELLED)
        run = replace(self.template, class_names=names, plan=write_plan(run_dir, [listing], shard_size))
        schema = with_metadata(IMAGES, run.request.document("images"))
        for shard, first in enumerate(range(0, len(ids) if committed else 0, shard_size)):
            part = ids[first : first + shard_size]
            rows = [
                {"image_id": i, "shard": shard, "row": row, "uri": i, "offset": 0, "size": -1, "status": "ok"}
                | {"width": planned[i][0], "height": planned[i][1], "label": planned[i][2]}
                | {"top_classes": [], "top_scores": [], "num_maps": 0, "num_boxes": 0}
                for row, i in enumerate(part)
            ]
            run_dir.publish(shard_name("images", shard), encode(pa.Table.from_pylist(rows, schema=schema)))
        out_dir = replace(run_dir, root=f"{run_dir.root}/audit")
        numbers = orientations or {}
        report = prepare_truth(
            run_dir,
            run,
            TruthConfig(truth=str(truth), **config),
            out_dir,
            lambda rows: [numbers.get(row["image_id"], 1) for row in rows],
        )
        tables = [read_truth_shard(out_dir, shard) for shard in range(run.plan.num_shards)]
        assert all(table.schema.equals(TRUTH) for table in tables)
        for shard, table in enumerate(tables):
            assert table["shard"].to_pylist() == [shard] * len(table)
            assert table["row"].to_pylist() == list(range(len(table)))
        rows = [row for table in tables for row in table.to_pylist()]
        assert len(rows) == len(ids)
        return report, [row | {"image_id": image_id} for row, image_id in zip(rows, ids, strict=True)]


def refusal(planner: Planner, planned: Planned, truth: object, **config: Any) -> str:
    with pytest.raises(UsageError) as caught:
        planner.truth(planned, truth, **config)
    return str(caught.value)


def ours(row: dict[str, Any]) -> list[tuple[float, ...]]:
    return [tuple(box[name] for name in ("x0", "y0", "x1", "y1")) for box in row["boxes"]]


def wsol(row: dict[str, Any]) -> list[tuple[int, ...]]:
    return [tuple(box[name] for name in ("wx0", "wy0", "wx1", "wy1")) for box in row["boxes"]]


# One object in a picture of 40 x 20 pixels: columns 10..29 and rows 5..14, the ones at its edges included.
HALF_OPEN = (10, 5, 30, 15)
LAST_INSIDE = (10, 5, 29, 14)
FROM_1 = (11, 6, 30, 15)


def xml(*objects: tuple[str, tuple[float, ...]], size: tuple[int, int] = (40, 20), head: str = "") -> str:
    things = "".join(
        f"<object><name>{name}</name><bndbox><ymin>{y0}</ymin><xmin>{x0}</xmin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        "</bndbox></object>"
        for name, (x0, y0, x1, y1) in objects
    )
    size_of = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"{head}<annotation><filename>other.jpg</filename>{size_of}{things}</annotation>"


def coco(images: list[Any], annotations: list[Any], categories: tuple[str, ...] = ("kangaroo",)) -> str:
    named = [{"id": 7 + i, "name": name} for i, name in enumerate(categories)]
    return json.dumps({"info": {}, "images": images, "annotations": annotations, "categories": named})


def write_coco(folder: Path) -> Path:
    annotation = {"id": 1, "image_id": 3, "category_id": 7, "bbox": [10, 5, 20, 10], "iscrowd": 1, "segmentation": []}
    image = {"id": 3, "file_name": "a/1.jpg", "width": 40, "height": 20}
    (folder / "coco.json").write_text(coco([image], [annotation]))
    return folder / "coco.json"


def write_voc(folder: Path) -> Path:
    (folder / "1.xml").write_text(xml(("kangaroo", FROM_1)))
    return folder


def write_yolo(folder: Path) -> Path:
    (folder / "labels").mkdir()
    (folder / "labels" / "1.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (folder / "train.txt").write_text("images/1.jpg\n")
    (folder / "data.yaml").write_text("nc: 2\nnames: [person, kangaroo]\n")
    return folder


def write_yolo_polygon(folder: Path) -> Path:
    (folder / "1.txt").write_text("0 .25 .5 .5 .25 .75 .333333 .6 .75")
    (folder / "classes.txt").write_text("kangaroo\n")
    return folder


def write_loc(folder: Path) -> Path:
    (folder / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n1,kangaroo 10 5 29 14 \n")
    return folder / "LOC_val_solution.csv"


def write_wsol(folder: Path) -> Path:
    lines = {"image_ids": "a/1.jpg", "class_labels": "a/1.jpg,0", "image_sizes": "a/1.jpg,40,20"}
    for name, line in {**lines, "localization": "a/1.jpg,10,5,29,14"}.items():
        (folder / f"{name}.txt").write_text(line)
    return folder


def write_table(folder: Path) -> Path:
    (folder / "boxes.csv").write_text("image_id,x0,y0,x1,y1,class_name,other\na/1.jpg,10,5,30,15,kangaroo,-\n")
    return folder / "boxes.csv"


def write_table_inclusive(folder: Path) -> Path:
    with gzip.open(folder / "boxes.csv.gz", "wt") as file:
        file.write("image,width,height,class_id,xmin,ymin,xmax,ymax\n1.jpg,40,20,0,10,5,29,14\n")
    return folder / "boxes.csv.gz"


def write_parquet(folder: Path) -> Path:
    table = pa.table({"image": ["1"], "x0": [10], "y0": [5.0], "x1": [30], "y1": [15], "label": [0.0]})
    pq.write_table(table, folder / "boxes.parquet")
    return folder


def write_tar(folder: Path) -> Path:
    members = {"1.jpg": b"picture", "1.json": b'{"boxes": [[10, 5, 30, 15]], "wnid": "n0"}', "1.cls": b"0\n"}
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return folder
