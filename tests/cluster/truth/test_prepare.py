"""Ground truth matched to runs, in the frame of their pictures; real truth files."""

import csv
import gzip
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cam_ops.errors import StorageError
from cluster.runs.directory import RunDir
from cluster.runs.record import Run, existing_run
from cluster.sources.kinds import open_listing
from cluster.sources.reading import orientations
from cluster.storage.objects import read_object
from cluster.storage.options import NO_OPTIONS
from cluster.storage.scratch import open_database
from cluster.truth.prepare import TruthConfig, prepare_truth, read_truth_shard
from tests.support.command import Command
from tests.support.stores import Store
from tests.support.truths import (
    FROM_1,
    Planned,
    Planner,
    ours,
    refusal,
    write_table,
    write_wsol,
    wsol,
    xml,
)


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


def test_sizes_of_another_shape_cost_their_images(planner: Planner, tmp_path: Path) -> None:
    """Whether a copy was padded, cut or stretched they do not say. A pixel of rounding is none."""
    sizes = {"padded": "640,640", "both": "10,20", "rounded": "13,6", "longer": "16,7"}
    table = tmp_path / "boxes.csv"
    table.write_text(
        "image,width,height,x0,y0,x1,y1\n" + "".join(f"{name},{size},2,4,10,6\n" for name, size in sizes.items())
    )
    report, rows = planner.truth(dict.fromkeys(sizes, (40, 20, None)), table)
    assert {row["image_id"]: (row["num_missing"], len(row["boxes"])) for row in rows} == {
        **dict.fromkeys(["padded", "both"], (1, 0)),
        "rounded": (0, 1),
        "longer": (0, 1),
    }
    assert report.problems["other_sizes"].count == 2
    assert report.problems["other_shape"].examples == (
        "both: 10x20, the picture 40x20",
        "padded: 640x640, the picture 40x20",
    )


def test_rows_of_one_image_with_two_sizes_cost_it(planner: Planner, tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text(
        "image,width,height,x0,y0,x1,y1\na,40,20,10,5,30,15\na,80,40,20,10,60,30\nb,80,40,20,10,60,30\n"
        "b,,,20,10,40,30\nc,40,20,1,1,2,2\nc,40,20,3,3,4,4\n"
    )
    report, rows = planner.truth(dict.fromkeys("abc", (40, 20, None)), table)
    assert [row["num_missing"] for row in rows] == [1, 0, 0]
    assert [ours(row) for row in rows[1:]] == [[(10, 5, 30, 15), (10, 5, 20, 15)], [(1, 1, 2, 2), (3, 3, 4, 4)]]
    assert report.problems["several_sizes"].examples == ("a: 40x20, the picture 40x20",)


def test_a_box_that_is_there_twice_counts_once(planner: Planner, tmp_path: Path) -> None:
    """One of the same class, whatever it is called; another class is another object."""
    rows = [
        *("a,1,2,3,4,kangaroo,0", "a,1,2,3,4,Crane,0", "a,5,5,9,9,Crane,0", "a,1,2,3,4,Kangaroo,0"),
        *("b,1,2,3,4,kangaroo,0", "a,1,2,3,4,0,0", "a,1,2,3,4,kangaroo,1", "a,1,2,3,4.5,kangaroo,0"),
        *("c,1,2,3,4,?,0", "c,1,2,3,4,!,0", "c,1,2,3,4,?,0"),
    ]
    table = tmp_path / "boxes.csv"
    table.write_text("image,x0,y0,x1,y1,class,crowd\n" + "".join(f"{row}\n" for row in rows))
    report, found = planner.truth(dict.fromkeys("abc", (40, 20, None)), table)
    assert [(box["x0"], box["y1"], box["class_id"], box["crowd"]) for box in found[0]["boxes"]] == [
        (1, 4, 0, False),
        (1, 4, 1, False),
        (5, 9, 1, False),
        (1, 4, 0, True),
        (1, 4.5, 0, False),
    ]
    assert [len(row["boxes"]) for row in found] == [5, 1, 2]
    assert (report.problems["duplicate_boxes"].count, report.problems["duplicate_boxes"].examples[0]) == (
        3,
        "a: 1 2 3 4",
    )


def test_a_picture_that_exif_turns_has_the_size_that_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures, truth = tmp_path / "pictures", tmp_path / "truth"
    for folder in (pictures, truth):
        folder.mkdir()
    for name, size, box in (("seen", (20, 40), (11, 1, 20, 30)), ("stored", (40, 20), (1, 1, 30, 10))):
        Image.new("RGB", (40, 20)).save(pictures / f"{name}.jpg", exif=exif)
        (truth / f"{name}.xml").write_text(xml(("kangaroo", box), size=size))
    flags = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    out = tmp_path / "run"
    assert Command("label", "--images", pictures, "--out", out, "--executor", "inline", *flags).code == 0
    run_dir, audit = RunDir(str(out)), RunDir(str(out / "audit"))
    read_turns = partial(orientations, options=NO_OPTIONS)
    report = prepare_truth(run_dir, existing_run(run_dir), TruthConfig(truth=str(truth)), audit, read_turns)
    assert {name: problem.examples for name, problem in report.problems.items()} == {
        "stored_frame": ("stored.jpg",),
        "unknown_classes": ("kangaroo",),
    }
    for row in read_truth_shard(audit, 0).to_pylist():
        assert (row["truth_width"], row["truth_height"], ours(row)) == (20, 40, [(10, 0, 20, 30)])
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
    assert [row["boxes"][0]["class_id"] for row in rows] == [None, 0, *[None] * 8]  # 0 is a number, too
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


@pytest.mark.slow
def test_an_interrupt_during_a_query_is_one(interruptible: None) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt), open_database() as database:
        database.execute("CREATE TABLE long AS SELECT i % 1000003 AS k FROM range(100000000) t(i) ORDER BY k")
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
    with open_listing(str(data / "tiny_imagenet_val" / "*.tar")) as listing:
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
    boxes = dict.fromkeys((line["image"], *(int(line[name]) for name in ("x0", "y0", "x1", "y1"))) for line in lines)
    assert found == sorted(boxes, key=lambda row: row[0])
    assert all(
        (x0, y0, x1 - 1, y1 - 1) == box
        for row in rows
        for (x0, y0, x1, y1), box in zip(ours(row), wsol(row), strict=True)
    )
    assert [(name, problem.count) for name, problem in report.problems.items()] == [("duplicate_boxes", 4)]
