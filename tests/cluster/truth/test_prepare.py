"""Ground truth of every format against coordinates worked out by hand, matched to real runs; real truth files."""

import csv
import gzip
import io
import json
import os
import signal
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cam_ops.errors import StorageError, UsageError
from cam_ops.tables import IMAGES, LABELLED, with_metadata
from cluster.formats.detect import open_truth
from cluster.runs.directory import RunDir
from cluster.runs.names import shard_name
from cluster.runs.plan import write_plan
from cluster.runs.record import Run, existing_run
from cluster.sources.kinds import open_listing
from cluster.storage.objects import read_object
from cluster.storage.parquet import encode
from cluster.storage.scratch import open_database
from cluster.truth.prepare import TruthConfig, TruthReport, prepare_truth, read_truth_shard
from cluster.truth.rows import TRUTH
from tests.support.command import Command
from tests.support.stores import Store

NAMES = ("kangaroo", "Crane", "crane bird", "crane bird")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run.json of a real run, whose plan and classes tests replace."""
    folder = tmp_path_factory.mktemp("template")
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    flags = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    assert Command("label", "--images", folder, "--out", folder / "run", "--executor", "inline", *flags).code == 0
    return existing_run(RunDir(str(folder / "run")))


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
        report = prepare_truth(run_dir, run, TruthConfig(truth=str(truth), **config), out_dir)
        tables = [read_truth_shard(out_dir, shard) for shard in range(run.plan.num_shards)]
        assert all(table.schema.equals(TRUTH) for table in tables)
        for shard, table in enumerate(tables):
            assert table["shard"].to_pylist() == [shard] * len(table)
            assert table["row"].to_pylist() == list(range(len(table)))
        rows = [row for table in tables for row in table.to_pylist()]
        assert len(rows) == len(ids)
        return report, [row | {"image_id": image_id} for row, image_id in zip(rows, ids, strict=True)]


@pytest.fixture
def planner(template: Run, tmp_path: Path) -> Planner:
    return Planner(template, RunDir(str(tmp_path / "run")))


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


@pytest.mark.parametrize(
    ("write", "integers", "config"),
    [
        (write_coco, LAST_INSIDE, {}),
        (write_voc, FROM_1, {}),
        (write_yolo, LAST_INSIDE, {}),
        (write_yolo_polygon, LAST_INSIDE, {}),
        (write_loc, LAST_INSIDE, {}),
        (write_wsol, LAST_INSIDE, {}),
        (write_table, LAST_INSIDE, {}),
        (write_table_inclusive, LAST_INSIDE, {"truth_format": "table-inclusive"}),
        (write_parquet, LAST_INSIDE, {}),
        (write_tar, LAST_INSIDE, {}),
    ],
)
def test_the_same_object_is_the_same_box_in_every_format(
    planner: Planner, tmp_path: Path, write: Any, integers: tuple[int, ...], config: dict[str, Any]
) -> None:
    folder = tmp_path / "truth"
    folder.mkdir()
    report, rows = planner.truth({"a/1.jpg": (40, 20, None)}, write(folder), **config)
    assert (report.num_images, report.num_boxes, report.has_boxes, report.has_masks) == (1, 1, True, False)
    assert (report.problems, report.shares_classes) == ({}, True)
    (row,) = rows
    assert (ours(row), wsol(row)) == ([HALF_OPEN], [integers])
    assert (row["true_class"], row["boxes"][0]["class_id"]) == (0, 0)
    assert (row["truth_width"], row["truth_height"]) == (40, 20)
    assert row["boxes"][0]["crowd"] is (write is write_coco)
    assert report.matched_exact == (write in (write_coco, write_wsol, write_table))
    assert report.matched_exact + report.matched_stem == 1


def test_ends_are_kept_whole_or_rounded_outwards(planner: Planner, tmp_path: Path) -> None:
    """Half-open .5 begins in pixel 0 and ends in pixel 3; VOC's and inclusive fractions are cut as int() does."""
    table = tmp_path / "boxes.csv"
    table.write_text("image,x0,y0,x1,y1\na,0.5,1.9,3.2,7\na,10.1,0,31.000000000000004,20\na,-0.5,0,1,1\n")
    _, (row,) = planner.truth({"a": (40, 20, None)}, table)
    assert ours(row) == [(0.5, 1.9, 3.2, 7), (10.1, 0, 31, 20), (-0.5, 0, 1, 1)]
    assert wsol(row) == [(0, 1, 3, 6), (10, 0, 30, 19), (0, 0, 0, 0)]
    _, (row,) = planner.truth({"a": (40, 20, None)}, table, truth_format="table-inclusive")
    assert ours(row)[0] == (0.5, 1.9, 4.2, 8)
    assert wsol(row)[0] == (0, 1, 3, 7)
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "a.xml").write_text(xml(("kangaroo", (45.7, 1, 50.2, 2)), size=(100, 20)))
    _, (row,) = planner.truth({"a": (100, 20, None)}, tmp_path / "voc")
    assert (ours(row), wsol(row)) == ([(44.7, 0, 50.2, 2)], [(45, 1, 50, 2)])


def test_yolos_six_decimals_give_whole_pixels_back(planner: Planner, tmp_path: Path) -> None:
    width, height, generator = 3456, 2304, np.random.default_rng(0)
    begin_N2 = generator.integers(0, 2000, (200, 2))
    end_N2 = begin_N2 + generator.integers(1, 300, (200, 2))
    centre_N2, size_N2 = (begin_N2 + end_N2) / 2 / (width, height), (end_N2 - begin_N2) / (width, height)
    lines = [" ".join(["0", *(f"{v:.6f}" for v in numbers)]) for numbers in np.hstack([centre_N2, size_N2])]
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "a.txt").write_text("\n".join(lines))
    _, (row,) = planner.truth({"a.jpg": (width, height, None)}, tmp_path / "yolo")
    np.testing.assert_array_equal(ours(row), np.hstack([begin_N2, end_N2]))
    np.testing.assert_array_equal(wsol(row), np.hstack([begin_N2, end_N2 - 1]))


def test_images_match_by_path_then_by_a_stem_that_is_the_only_one(planner: Planner, tmp_path: Path) -> None:
    planned = [
        "a/1.jpg",
        "b/1.jpg",
        "b/2.jpg",
        "b/2.png",
        "c/3.JPEG",
        "d/4.jpg",
        "e/5.v2.jpg",
        "f.tar/6.png",
        "g/7.jpg",
    ]
    truth = {
        "a/1.jpg": "a/1.jpg",  # its id
        "x/1.jpg": None,  # a stem that two have
        "1": None,
        "b/2": None,  # a path that two have, but for suffixes
        "c/3.png": "c/3.JPEG",  # a path, but for suffixes
        "y/4.bmp": "d/4.jpg",  # a stem
        "5.v2": "e/5.v2.jpg",
        "f.tar/6": "f.tar/6.png",
        "y/7.jpg": None,  # two of the truth have the stem
        "z/7.jpg": None,
        "nothing.jpg": None,
    }
    table = tmp_path / "boxes.csv"
    table.write_text("image,x0,y0,x1,y1\n" + "".join(f"{image},{i},0,{i + 1},1\n" for i, image in enumerate(truth)))
    report, rows = planner.truth(dict.fromkeys(planned, (40, 20, None)), table)
    matched = {row["truth_id"]: row["image_id"] for row in rows if row["truth_id"] is not None}
    assert matched == {image: image_id for image, image_id in truth.items() if image_id}
    for row in rows:
        assert ours(row) == ([(at := list(truth).index(row["truth_id"]), 0, at + 1, 1)] if row["truth_id"] else [])
    assert (report.num_images, report.num_boxes, report.matched_exact, report.matched_stem) == (11, 11, 3, 2)
    problems = {name: (problem.count, problem.examples) for name, problem in report.problems.items()}
    assert problems == {
        "unmatched_truth": (1, ("nothing.jpg",)),
        "ambiguous_stem": (5, ("1", "b/2", "x/1.jpg")),
        "images_without_truth": (4, ("b/1.jpg", "b/2.jpg", "b/2.png")),
    }


def test_rows_are_in_the_plans_order_and_boxes_in_the_truths(planner: Planner, tmp_path: Path) -> None:
    """Across part files: 1,000 shards of one image are a part."""
    ids = [f"{i:04d}.jpg" for i in range(1001)]
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(1001), 3))
    table = tmp_path / "boxes.csv"
    table.write_text("image,x0,y0,x1,y1\n" + "".join(f"{ids[i]},{n},0,{n + 1},1\n" for n, i in enumerate(order)))
    _, rows = planner.truth(dict.fromkeys(ids, (9999, 20, None)), table, shard_size=1, committed=False)
    assert [row["truth_id"] for row in rows] == ids
    for i, row in enumerate(rows):
        assert [box[0] for box in ours(row)] == np.flatnonzero(order == i).tolist()
    assert sorted(path.name for path in (tmp_path / "run" / "audit" / "truth").iterdir()) == [
        f"part-0000{part}.parquet" for part in range(2)
    ]
    with pytest.raises(StorageError):
        read_truth_shard(RunDir(str(tmp_path / "run" / "audit")), 1001)


def test_sizes_that_are_swapped_absent_or_others(planner: Planner, tmp_path: Path) -> None:
    """Swapped: the picture's are taken. Others: wsolevaluation's integers go by the truth's, our boxes are scaled."""
    sizes = {"same": "40,20", "swapped": "20,40", "half": "20,10", "absent": ",", "zero": "0,0", "unknown": "30,30"}
    table = tmp_path / "boxes.csv"
    table.write_text(
        "image,width,height,x0,y0,x1,y1\n" + "".join(f"{name},{size},2,4,10,8\n" for name, size in sizes.items())
    )
    planned = dict.fromkeys(sizes, (40, 20, None)) | {"unknown": (0, 0, None)}
    report, rows = planner.truth(planned, table)
    by_name = {row["truth_id"]: row for row in rows}
    scaled_by = {name: (row["truth_width"], row["truth_height"]) for name, row in by_name.items()}
    assert scaled_by == {**dict.fromkeys(sizes, (40, 20)), "half": (20, 10), "unknown": (30, 30)}
    assert {name: ours(row)[0] for name, row in by_name.items()} == {
        **dict.fromkeys(sizes, (2, 4, 10, 8)),
        "half": (4, 8, 20, 16),
    }
    assert {wsol(row)[0] for row in rows} == {(2, 4, 9, 7)}
    problems = {name: (problem.count, problem.examples) for name, problem in report.problems.items()}
    assert problems == {
        "swapped_sizes": (1, ("swapped: 20x40, the picture 40x20",)),
        "other_sizes": (1, ("half: 20x10, the picture 40x20",)),
    }


def test_a_picture_that_exif_turns_has_the_size_that_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures, truth = tmp_path / "pictures", tmp_path / "truth"
    for folder in (pictures, truth):
        folder.mkdir()
    for name, size in (("seen", (20, 40)), ("stored", (40, 20))):
        Image.new("RGB", (40, 20)).save(pictures / f"{name}.jpg", exif=exif)
        (truth / f"{name}.xml").write_text(xml(("kangaroo", (1, 1, 10, 30)), size=size))
    flags = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    out = tmp_path / "run"
    assert Command("label", "--images", pictures, "--out", out, "--executor", "inline", *flags).code == 0
    run_dir, audit = RunDir(str(out)), RunDir(str(out / "audit"))
    report = prepare_truth(run_dir, existing_run(run_dir), TruthConfig(truth=str(truth)), audit)
    assert report.problems["swapped_sizes"].examples == ("stored.jpg: 40x20, the picture 20x40",)
    for row in read_truth_shard(audit, 0).to_pylist():
        assert (row["truth_width"], row["truth_height"], ours(row)) == (20, 40, [(0, 0, 10, 30)])
    assert Command("verify", out).code == 0


def test_words_for_classes(planner: Planner, tmp_path: Path) -> None:
    words = ["kangaroo", "0", " KANGAROO ", "crane", "CRANE", "Crane", "crane bird", "wallaby", "4", ""]
    found = [0, 0, 0, 1, 1, 1, None, None, None, None]
    table = tmp_path / "boxes.csv"
    with table.open("w", newline="") as file:
        rows = [(f"{i:02d}", 0, 0, 1, 1, word) for i, word in enumerate(words)]
        csv.writer(file).writerows([("image", "x0", "y0", "x1", "y1", "class"), *rows])
    planned = {f"{i:02d}": (40, 20, None) for i in range(len(words))}
    report, rows = planner.truth(planned, table)
    assert [row["boxes"][0]["class_id"] for row in rows] == found
    assert [row["true_class"] for row in rows] == found
    assert report.shares_classes
    assert (report.problems["unknown_classes"].count, report.problems["unknown_classes"].examples) == (
        2,
        ("4", "wallaby"),
    )
    assert report.problems["ambiguous_classes"].examples == ("crane bird",)
    _, rows = planner.truth(planned, table, class_map=("wallaby=kangaroo", "0=3", "crane bird=2"))
    assert [row["boxes"][0]["class_id"] for row in rows] == [0, 3, 0, 1, 1, 1, 2, 0, None, None]
    (tmp_path / "map.csv").write_text("class,truth\nkangaroo,wallaby\n3,4\n")
    (tmp_path / "list.csv").write_text("class_id,wnid,name\n0,wallaby,k\n1,n1,c\n2,n2,c\n3,n3,c\n")
    for name, last in (("map.csv", [0, 3]), ("list.csv", [0, None])):
        _, rows = planner.truth(planned, table, class_map=(str(tmp_path / name),))
        assert [row["boxes"][0]["class_id"] for row in rows][:-1] == [0, 0, 0, 1, 1, 1, None, *last]
    for part, reason in (("wallaby=104", "no class of the network"), ("wallaby", "WORD=CLASS or a CSV file")):
        assert reason in refusal(planner, planned, table, class_map=(part,))
    report, rows = planner.truth(planned, table, names=("cat", "dog"))
    assert not any(row["boxes"][0]["class_id"] for row in rows)  # 0 is a number, too
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "00.xml").write_text(xml(("horse", (1, 1, 2, 2))))
    report, rows = planner.truth(planned, tmp_path / "voc", names=("cat", "dog"))
    assert not report.shares_classes


def test_the_true_class_is_the_truths_own_then_the_label_then_that_of_all_boxes(
    planner: Planner, tmp_path: Path
) -> None:
    wsol_folder = write_wsol(tmp_path)
    report, (row,) = planner.truth({"a/1.jpg": (40, 20, 1)}, wsol_folder)
    assert (row["true_class"], row["boxes"][0]["class_id"]) == (0, 0)
    assert report.problems["label_differs"].examples == ("a/1.jpg: class 0, labelled 1",)
    voc = tmp_path / "voc"
    voc.mkdir()
    for name, classes in (
        ("1", ("kangaroo", "kangaroo")),
        ("2", ("kangaroo", "Crane")),
        ("3", ("kangaroo", "?")),
        ("4", ()),
    ):
        (voc / f"{name}.xml").write_text(xml(*((word, FROM_1) for word in classes)))
    planned: Planned = {f"{name}.jpg": (40, 20, None) for name in range(1, 5)}
    assert [row["true_class"] for row in planner.truth(planned, voc)[1]] == [0, None, None, None]
    report, rows = planner.truth(dict.fromkeys(planned, (40, 20, 1)), voc)
    assert [row["true_class"] for row in rows] == [1] * 4
    assert report.problems["label_differs"].count == 1


def test_boxes_that_are_none_are_counted_and_left_out(planner: Planner, tmp_path: Path) -> None:
    bad = ["nan,0,1,1", "0,0,inf,1", "5,0,5,1", "6,0,5,1", "0,0,1e30,1", "0,,1,1"]
    table = tmp_path / "boxes.csv"
    table.write_text("image,x0,y0,x1,y1\n" + "".join(f"a,{box}\n" for box in [*bad, "1,2,3,4"]) + "b,,,,\n,1,2,3,4\n")
    report, rows = planner.truth({"a": (40, 20, None), "b": (40, 20, None)}, table)
    assert [ours(row) for row in rows] == [[(1, 2, 3, 4)], []]
    assert [row["truth_id"] for row in rows] == ["a", "b"]
    assert report.num_boxes == 8
    assert (report.problems["bad_boxes"].count, report.problems["bad_boxes"].examples[0]) == (6, "a: nan 0 1 1")
    assert report.problems["entries_without_image"].examples == ("1.0 2.0 3.0 4.0",)
    table.write_text("image,x0,y0,x1,y1\na,5,0,5,0\na,5,0,4,0\na,0,0,40,19\na,0,0,41,19\na,-2,0,4,4\n")
    report, rows = planner.truth({"a": (40, 20, None)}, table, truth_format="table-inclusive")
    assert ours(rows[0])[:2] == [(5, 0, 6, 1), (0, 0, 41, 20)]
    assert (report.problems["bad_boxes"].count, report.problems["boxes_outside"].count) == (1, 2)
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    report, (row,) = planner.truth({"a": (0, 0, None)}, tmp_path / "yolo")  # a picture that could not be read
    assert (row["truth_id"], row["boxes"], report.problems) == ("a", [], {})


def test_masks_are_named_by_path(planner: Planner, tmp_path: Path) -> None:
    folder, masks = tmp_path / "metadata", tmp_path / "masks"
    folder.mkdir()
    (masks / "deep").mkdir(parents=True)
    (folder / "localization.txt").write_text("a/1.jpg,deep/1.png,deep/ignore.png\na/1.jpg,2.png,\na/2.jpg,3.png")
    planned: Planned = {f"a/{i}.jpg": (40, 20, None) for i in (1, 2, 3)}
    report, rows = planner.truth(planned, folder, masks=str(masks))
    assert (report.has_boxes, report.has_masks, report.num_images) == (False, True, 2)
    assert [row["masks"] for row in rows] == [[f"{masks}/deep/1.png", f"{masks}/2.png"], [f"{masks}/3.png"], []]
    assert [row["ignore"] for row in rows] == [f"{masks}/deep/ignore.png", None, None]
    assert planner.truth(planned, folder)[1][1]["masks"] == [f"{folder}/3.png"]
    for name in ("../3.png", "/etc/3.png", "a/../../3.png"):
        (folder / "localization.txt").write_text(f"a/1.jpg,{name}")
        assert "absolute, or has empty, . or .. parts" in refusal(planner, planned, folder)
    for name in ("1", "3"):
        (masks / "deep" / f"{name}.png").write_bytes(b"")
    report, rows = planner.truth(planned, masks)
    assert (report.format, report.matched_stem) == ("masks", 2)
    assert [row["masks"] for row in rows] == [[f"{masks}/deep/1.png"], [], [f"{masks}/deep/3.png"]]


def laughs() -> str:
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    return f'<!DOCTYPE a [<!ENTITY l0 "ha">{entities}]>'


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("1.xml", xml(("&l9;", FROM_1), head=laughs()), "DTD or entities"),
        (
            "1.xml",
            xml(("&x;", FROM_1), head='<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
            "DTD or entities",
        ),
        ("1.xml", xml(("&x;", FROM_1), head='<!DOCTYPE a SYSTEM "http://localhost/a.dtd">'), "DTD or entities"),
        ("1.xml", xml(("kangaroo", FROM_1))[:-20], "no whole XML"),
        ("1.xml", "<a/>", "expected the element annotation"),
        ("1.xml", "<a>" * 10**5, "no whole XML"),
        ("1.xml", " " * (4 * 2**20 + 1), "at most 4194304 are read"),
        ("1.xml", "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>", "no bndbox/ymin"),
        ("1.xml", xml(("kangaroo", FROM_1)).replace("15", "x"), "could not convert"),
        ("1.json", '{"images": [{"id": 1,', "EOF"),
        ("1.json", "[" * 10**6, "recursion"),
        ("1.json", '{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2]}]}', "annotations.0.bbox"),
        ("1.json", "[]", "as a whole"),
        ("labels/1.txt", "0 1 2 3\n", "line 1: expected a class and 4 numbers"),
        ("labels/1.txt", "dog .1 .1 .1 .1\n", "expected the number of a class"),
        ("labels/1.txt", "0 .1 .1 .1 " + "1" * 2**16, "a line has more than"),
        ("data.yaml", "names: {0: !!python/object/apply:os.system [true]}", "no YAML"),
        ("data.yaml", "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nnames: [x]", "aliases"),
        ("data.yaml", "names: 7", "expected `names`"),
        ("localization.txt", "1.jpg,1,2,3,x", "line 1: could not convert"),
        ("localization.txt", "1.jpg", "line 1: expected 3 cells"),
        ("image_sizes.txt", "1.jpg,1", "line 1: expected 3 cells"),
        ("1.csv", "image,x0,y0,x1\n", "expected a column image_id or image and the columns x0, y0, x1, y1"),
        ("1.csv", "image,x0,y0,x1,y1\n1,2,3,4,x\n", "conversion error"),
        ("1.csv", "image,x0,x0,y0,x1,y1\n1,2,3,4,5,6\n", "several columns x0"),
        ("1.csv", "ImageId,PredictionString\n1,n1 1 2 3\n", "line 2: expected five words a box"),
        ("1.parquet", "PAR1", "Parquet"),
        ("1.csv.gz", "no gzip", ""),
        ("1.tar", "no tar", "is cut"),
        ("1.doc", "", "cannot tell the format"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    planner: Planner, tmp_path: Path, name: str, content: str, reason: str
) -> None:
    path = tmp_path / "truth" / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    is_file = name.endswith((".json", ".csv", ".gz", ".parquet", ".tar", ".doc"))
    said = refusal(planner, {"1.jpg": (40, 20, None)}, path if is_file else tmp_path / "truth")
    assert reason in said
    assert name in said
    assert len(said) < 700


def test_what_is_no_truth_of_this_run_is_refused(planner: Planner, tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text("image,x0,y0,x1,y1\nother.jpg,0,0,1,1\n")
    said = refusal(planner, {"1.jpg": (40, 20, None)}, table)
    assert "none of the 1 images" in said
    assert "'other.jpg', the run has '1.jpg'" in said
    table.write_text("image,x0,y0,x1,y1\n")
    assert "names no image" in refusal(planner, {"1.jpg": (40, 20, None)}, table)
    assert "there is no ground truth at" in refusal(planner, {"1.jpg": (40, 20, None)}, tmp_path / "missing")
    assert "--truth expects a local file" in refusal(planner, {"1.jpg": (40, 20, None)}, "s3://bucket/boxes.csv")
    assert "expects a folder" in refusal(planner, {"1.jpg": (40, 20, None)}, table, truth_format="voc")
    assert not (tmp_path / "run" / "audit").exists()


def test_what_several_formats_recognise_is_of_the_first(tmp_path: Path) -> None:
    """In a folder with files of all formats, each in turn is removed."""

    def format_of_folder() -> str:
        return open_truth(str(tmp_path / "all"), "auto", None).format

    all_files = {
        "wsol": "image_ids.txt",
        "yolo": "classes.txt",
        "tar": "x.tar",
        "table": "boxes.csv",
        "voc": "deep/1.xml",
        "yolo by its files": "deep/1.txt",
        "masks": "deep/1.png",
    }
    for name in all_files.values():
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).touch()
    (tmp_path / "all" / "boxes.json").touch()  # a format of single files
    for kind, name in all_files.items():
        assert format_of_folder() == kind.partition(" ")[0]
        (tmp_path / "all" / name).unlink()
    with pytest.raises(UsageError, match="cannot tell the format"):
        format_of_folder()


def test_the_flag_takes_the_name_of_each_format() -> None:
    words = {"auto", "coco", "voc", "yolo", "loc", "wsol", "table", "table-inclusive", "tar", "masks"}
    assert set(get_args(get_type_hints(TruthConfig)["truth_format"])) == words


@pytest.mark.slow
def test_an_interrupt_during_a_query_is_one(interruptible: None) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt), open_database() as database:
        database.execute("CREATE TABLE long AS SELECT i % 1000003 AS k FROM range(1000000000) t(i) ORDER BY k")
    timer.join()


def test_a_run_on_s3_has_its_truth_there(template: Run, s3: Store, tmp_path: Path) -> None:
    (local := tmp_path / "local").mkdir()
    table = write_table(local)
    planned: Planned = {"a/1.jpg": (40, 20, None), "a/2.jpg": (40, 20, None), "b.jpg": (40, 20, None)}
    remote = Planner(template, RunDir(s3.address("audited"), s3.options))
    assert remote.truth(planned, table) == Planner(template, RunDir(str(local))).truth(planned, table)
    assert read_object(s3.address("audited/audit/truth/part-00000.parquet"), s3.options)


def wsol_lines(data: Path, name: str) -> Iterator[list[str]]:
    for line in (data / "wsol_reference" / f"{name}.txt").read_text().splitlines():
        yield line.split(",")


def reference_boxes(data: Path) -> dict[str, list[tuple[int, ...]]]:
    boxes: dict[str, list[tuple[int, ...]]] = {}
    for image, *corners in wsol_lines(data, "localization"):
        boxes.setdefault(image, []).append(tuple(map(int, corners)))
    return boxes


def test_the_references_metadata_keep_their_integers(planner: Planner, data: Path) -> None:
    sizes = {image: (int(width), int(height)) for image, width, height in wsol_lines(data, "image_sizes")}
    classes = {image: int(label) for image, label in wsol_lines(data, "class_labels")}
    planned: Planned = {image: (*size, None) for image, size in sizes.items()}
    names = tuple(map(str, range(1000)))
    report, rows = planner.truth(planned, data / "wsol_reference", names=names, shard_size=64)
    assert (report.format, report.num_images, report.matched_exact, report.problems) == ("wsol", 500, 500, {})
    assert {row["truth_id"]: wsol(row) for row in rows} == reference_boxes(data)
    assert {row["truth_id"]: (row["truth_width"], row["truth_height"]) for row in rows} == sizes
    assert {row["truth_id"]: row["true_class"] for row in rows} == classes


def test_kangaroos_annotations_are_the_references(planner: Planner, data: Path) -> None:
    planned: Planned = {}
    for path in sorted((data / "kangaroo" / "images").iterdir()):
        with Image.open(path) as picture:
            planned[path.name] = (*picture.size, None)
    names = ("wallaby", "other")
    report, rows = planner.truth(planned, data / "kangaroo", names=names, class_map=("kangaroo=wallaby",))
    assert (report.format, report.num_images, report.matched_stem, report.problems) == ("voc", 82, 82, {})
    boxes = {f"kangaroo/images/{row['image_id']}": wsol(row) for row in rows}
    assert boxes == {image: found for image, found in reference_boxes(data).items() if image in boxes}
    assert {row["true_class"] for row in rows} == {0}


@pytest.mark.slow
def test_boxes_inside_real_tar_files_are_the_references(planner: Planner, data: Path) -> None:
    with open_listing(str(data / "tiny_imagenet_val" / "*.tar"), None) as listing:
        planned: Planned = {i: (64, 64, None) for b in listing.batches() for i in b["image_id"].to_pylist()}
    names = tuple(map(str, range(1000)))
    report, rows = planner.truth(planned, data / "tiny_imagenet_val", names=names, shard_size=512)
    assert (report.format, report.num_images, report.num_boxes, report.matched_exact) == ("tar", 5000, 5000, 5000)
    by_stem = {Path(row["image_id"]).stem: row for row in rows}
    reference = {Path(i).stem: boxes for i, boxes in reference_boxes(data).items() if not i.startswith("kangaroo/")}
    assert len(reference) == 418
    assert {stem: wsol(by_stem[stem]) for stem in reference} == reference
    classes = {Path(image).stem: int(label) for image, label in wsol_lines(data, "class_labels")}
    assert {stem: by_stem[stem]["true_class"] for stem in reference} == {stem: classes[stem] for stem in reference}


def test_all_boxes_of_imagenets_validation_images(planner: Planner, data: Path) -> None:
    path = data / "ilsvrc_val_boxes" / "boxes.csv.gz"
    with gzip.open(path, "rt") as file:
        lines = list(csv.DictReader(file))
    planned: Planned = {line["image"]: (int(line["width"]), int(line["height"]), None) for line in lines}
    names = tuple(map(str, range(1000)))
    report, rows = planner.truth(planned, path, names=names, shard_size=512, truth_format="table-inclusive")
    assert (report.num_images, report.num_boxes, report.matched_exact) == (50000, 80477, 50000)
    found = [(row["truth_id"], *box) for row in rows for box in wsol(row)]
    assert found == sorted(
        ((line["image"], *(int(line[name]) for name in ("x0", "y0", "x1", "y1"))) for line in lines),
        key=lambda row: row[0],
    )
    assert all(
        (x0, y0, x1 - 1, y1 - 1) == box
        for row in rows
        for (x0, y0, x1, y1), box in zip(ours(row), wsol(row), strict=True)
    )
    assert report.problems == {}
