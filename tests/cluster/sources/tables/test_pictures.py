"""Tables that hold pictures: Parquet and Arrow files by the command line, against a folder of the same pictures."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cam_ops.errors import BadImage, CamrayError, StorageError, UsageError
from cam_ops.pictures.header import MAX_BYTES
from cluster.sources.kinds import open_listing, source_address
from cluster.sources.reading import read_image
from cluster.sources.source import EVERYTHING, Asked
from tests.support.command import Command, table_rows
from tests.support.stores import Store
from tests.support.tables import IMAGE, features, hub_table, save_to_disk, write_arrow

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
EXACT = ["--executor", "inline", "--precision", "fp32"]
CLASSES = ["rings", "discs"]  # as the dataset has them, not in the order of letters
WHERE = ("image_id", "shard", "row", "uri", "offset", "size")


@pytest.fixture
def paths(pictures: Path) -> list[Path]:
    """Twelve pictures, in no order."""
    found = sorted(pictures.glob("*/*.png"))
    return [found[i] for i in np.random.default_rng(2).permutation(12)]


def one_file(table: pa.Table, folder: Path) -> Path:
    pq.write_table(table, folder / "birds.parquet", row_group_size=5)
    return folder / "birds.parquet"


def snapshot(table: pa.Table, folder: Path) -> Path:
    data = folder / "snapshot" / "data"
    data.mkdir(parents=True)
    (folder / "snapshot" / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "snapshot" / ".gitattributes").write_text("*.parquet filter=lfs\n")
    pq.write_table(table.slice(0, 4), data / "train-00000-of-00002.parquet", row_group_size=3)
    pq.write_table(table.slice(4, 4), data / "train-00001-of-00002.parquet", compression="none", use_dictionary=False)
    pq.write_table(table.slice(8, 4), data / "test-00000-of-00001.parquet", compression="zstd", data_page_version="2.0")
    return folder / "snapshot"


def plain(table: pa.Table, folder: Path) -> Path:
    words = pa.array(CLASSES).take(table["label"])
    cells = table["image"].combine_chunks().field("bytes").cast(pa.large_binary())
    columns = {"jpg": cells, "Label": words, "image_id": table["image"].combine_chunks().field("path")}
    pq.write_table(pa.table(columns), folder / "plain.parquet", row_group_size=7)
    return folder / "plain.parquet"


def hive(table: pa.Table, folder: Path) -> Path:
    for class_id, name in enumerate(CLASSES):
        part = folder / "hive" / "year=2020" / f"label={name}"
        part.mkdir(parents=True)
        rows = table.filter(pa.compute.equal(table["label"], class_id)).select(["image"])
        pq.write_table(rows, part / "part-0.parquet")
    (folder / "hive" / "_SUCCESS").touch()
    return folder / "hive"


def saved(table: pa.Table, folder: Path) -> Path:
    return save_to_disk(table, folder / "saved")


def saved_splits(table: pa.Table, folder: Path) -> Path:
    save_to_disk(table.slice(0, 8), folder / "splits" / "train")
    save_to_disk(table.slice(8), folder / "splits" / "test", 1)
    (folder / "splits" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    return folder / "splits"


def arrow_views(table: pa.Table, folder: Path) -> Path:
    """As Polars writes bytes: each cell says for itself where it is."""
    cells = table["image"].combine_chunks()
    columns = {"photo": cells.field("bytes").cast(pa.binary_view()), "image_id": cells.field("path")}
    views = pa.table({**columns, "label": pa.array(CLASSES).take(table["label"]).cast(pa.string_view())})
    with pa.OSFile(str(folder / "views.arrow"), "wb") as file, pa.ipc.new_file(file, views.schema) as stream:
        stream.write_table(views, 5)
    return folder / "views.arrow"


def arrow_file(table: pa.Table, folder: Path) -> Path:
    with pa.OSFile(str(folder / "a.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as stream:
        stream.write_table(table, 5)
    return folder / "a.arrow"


FORMS: dict[str, Callable[[pa.Table, Path], Path]] = {
    form.__name__: form for form in (one_file, snapshot, plain, hive, saved, saved_splits, arrow_file, arrow_views)
}


def label(images: object, out: Path, *more: object) -> Command:
    return Command("label", "--images", images, "--out", out, *EXACT, *TWO, *more)


def by_picture(out: Path, table: str) -> list[dict[str, Any]]:
    """Return a run's rows without what the source says of places, by the picture's own name."""
    rows = [
        {**{k: v for k, v in row.items() if k not in WHERE}, "name": row["image_id"].split("/")[-1]}
        for row in table_rows(out, table)
    ]
    return sorted(rows, key=lambda row: (row["name"], row.get("class_id"), row.get("rank")))


@pytest.mark.parametrize("form", FORMS)
def test_tables_that_hold_pictures_give_the_maps_and_boxes_of_the_folder(
    pictures: Path, paths: list[Path], tmp_path: Path, form: str
) -> None:
    (tmp_path / "classes.txt").write_text("discs\nrings\n")  # the network's order is the other one
    flags = ["--class-names", tmp_path / "classes.txt", "--shard-size", 4, "--batch-size", 2]
    assert label(pictures, tmp_path / "folder", "--labels", "folder", *flags).code == 0
    images = FORMS[form](hub_table(paths, CLASSES), tmp_path)
    done = label(images, tmp_path / "run", *flags)
    assert (done.code, done.result["ok"]) == (0, 12), done.err
    assert "labels: 12 of 12 images, from the manifest" in done.err
    for table in ("heatmaps", "boxes", "images"):
        assert by_picture(tmp_path / "run", table) == by_picture(tmp_path / "folder", table)
    assert Command("verify", tmp_path / "run").code == 0
    image_id = table_rows(tmp_path / "run", "images")[7]["image_id"]
    assert Command("show", tmp_path / "run", image_id).code == 0
    content = (tmp_path / "run" / "images" / "shard-0000001.parquet").read_bytes()
    (tmp_path / "run" / "images" / "shard-0000001.parquet").unlink()
    assert label(images, tmp_path / "run", *flags).code == 0
    assert (tmp_path / "run" / "images" / "shard-0000001.parquet").read_bytes() == content


def listed(address: object, asked: Asked = EVERYTHING) -> list[dict[str, Any]]:
    with open_listing(source_address(str(address)), asked) as listing:
        rows = [row for batch in listing.batches() for row in batch.to_pylist()]
        assert rows == [row for batch in listing.batches() for row in batch.to_pylist()]
        assert len(rows) == listing.num_images
        assert [row["image_id"] for row in rows] == sorted({row["image_id"] for row in rows}, key=str.encode)
    return rows


def bytes_of(row: dict[str, Any], **options: Any) -> bytes:
    return read_image(row["uri"], row["offset"], row["size"], **options)


def test_ids_are_file_row_and_name_and_the_bytes_are_those_of_the_row(tmp_path: Path) -> None:
    cells = [{"bytes": b"one", "path": "a/b/cat.jpg"}, {"bytes": b"two", "path": None}, {"bytes": b"3", "path": "c\\d"}]
    pq.write_table(pa.table({"image": pa.array(cells, IMAGE)}), tmp_path / "x.parquet", row_group_size=2)
    rows = listed(tmp_path / "x.parquet")
    names = ["x.parquet/00000000/cat.jpg", "x.parquet/00000001", "x.parquet/00000002/d"]
    assert [row["image_id"] for row in rows] == names
    assert [bytes_of(row) for row in rows] == [b"one", b"two", b"3"]
    assert {row["uri"] for row in rows} == {(tmp_path / "x.parquet").as_uri()}
    assert [(row["offset"], row["size"]) for row in rows] == [(0, -2), (1, -2), (2, -2)]
    assert [row["image_id"] for row in listed(tmp_path / "x.parquet", Asked(limit=2))] == names[:2]


def test_files_and_splits_come_in_the_order_of_their_names(
    paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = hub_table(paths, CLASSES)
    rows = listed(snapshot(table, tmp_path))
    assert [row["image_id"] for row in rows[::4]] == [
        f"data/test-00000-of-00001.parquet/00000000/{paths[8].name}",
        f"data/train-00000-of-00002.parquet/00000000/{paths[0].name}",
        f"data/train-00001-of-00002.parquet/00000000/{paths[4].name}",
    ]
    assert [bytes_of(row) for row in rows] == [path.read_bytes() for path in paths[8:] + paths[:8]]
    assert "listed 12 pictures in 3 of 3 files: 'data/test' (1), 'data/train' (2)" in capsys.readouterr().err
    train = listed(tmp_path / "snapshot" / "data" / "train-*.parquet")
    assert [row["image_id"].split("/")[0] for row in train[::4]] == [
        *("train-00000-of-00002.parquet", "train-00001-of-00002.parquet")
    ]
    assert listed(f"{tmp_path}/snap*/**/*.parquet")[0]["image_id"].startswith("snapshot/data/test-0000")
    saved_rows = listed(saved_splits(table, tmp_path))
    assert [row["image_id"].rpartition("/")[0] for row in saved_rows[::4]] == [
        "test/data-00000-of-00001.arrow/00000000",
        "train/data-00000-of-00002.arrow/00000000",
        "train/data-00001-of-00002.arrow/00000000",
    ]
    assert "of which all are taken: 'train', 'test'" in capsys.readouterr().err


def test_links_to_folders_of_tables_are_followed_but_for_those_that_lead_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, store = tmp_path / "root", tmp_path / "store"
    for place in (root / "own", store / "cats"):
        place.mkdir(parents=True)
        pq.write_table(pa.table({"image": pa.array([b"x"], pa.binary())}), place / "x.parquet")
    (root / "n01").symlink_to("../store/cats")
    (store / "cats" / "all").symlink_to(root)
    ids = ["n01/x.parquet/00000000", "own/x.parquet/00000000"]
    assert [row["image_id"] for row in listed(root)] == ids
    assert f"1 links lead back to a folder that they lie in, and are not followed, such as '{root}/n01/all'" in (
        capsys.readouterr().err
    )
    assert [row["image_id"] for row in listed(f"{root}/*/*.parquet")] == ids


def test_what_is_left_out_beside_parquet_files_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pa.table({"image": pa.array([b"x"], pa.binary())})
    (tmp_path / "_old").mkdir()
    for name in ("a.parquet", "_b.parquet", ".c.parquet", "_old/d.parquet"):
        pq.write_table(rows, tmp_path / name)
    for name in ("e.arrow", "f.tar", "_SUCCESS"):
        (tmp_path / name).touch()
    hidden = (
        f"3 tables whose name, or that of a folder on the way, begins with . or _ are left out, such as '{tmp_path}/"
    )
    for address, others in ((tmp_path, True), (tmp_path / "*.parquet", False), (tmp_path / "**" / "*.parquet", False)):
        assert [row["image_id"] for row in listed(address)] == ["a.parquet/00000000"]
        said = capsys.readouterr().err
        assert (hidden in said, "2 files beside the Parquet files are left out" in said) == (True, others)


def test_the_order_of_ids_is_that_of_files_whose_names_are_no_text(tmp_path: Path) -> None:
    rows = pa.table({"image": pa.array([b"x"], pa.binary())})
    for name in (b"a\xff.parquet", b"az.parquet"):
        pq.write_table(rows, tmp_path / "x")
        (tmp_path / "x").rename(tmp_path / os.fsdecode(name))
    assert [row["image_id"] for row in listed(tmp_path)] == [r"a\xff.parquet/00000000", "az.parquet/00000000"]


def test_a_cell_that_is_empty_may_name_a_file(paths: list[Path], tmp_path: Path) -> None:
    cells = [
        {"bytes": None, "path": str(paths[0])},
        {"bytes": None, "path": "there.png"},
        {"bytes": None, "path": "gone.png"},
        {"bytes": None, "path": None},
        None,
        {"bytes": b"", "path": "there.png"},
        {"bytes": None, "path": "https://host/a.png"},
        {"bytes": b"in", "path": "there.png"},
    ]
    shutil.copy(paths[1], tmp_path / "there.png")
    table = pa.table({"image": pa.array(cells, IMAGE)})
    pq.write_table(table, tmp_path / "x.parquet")
    write_arrow(table, tmp_path / "x.arrow")
    for name in ("x.parquet", "x.arrow"):
        found: list[object] = []
        for row in listed(tmp_path / name):
            try:
                found.append(bytes_of(row))
            except BadImage as bad:
                found.append(bad.status)
        nothing = "missing" if name == "x.parquet" else b""  # which `decode` calls empty
        assert found == [
            *(paths[0].read_bytes(), paths[1].read_bytes(), "missing", nothing, nothing, b"", "missing", b"in")
        ]


def test_numbers_of_classes_are_names_by_the_file_s_own_metadata(tmp_path: Path) -> None:
    table = pa.table(
        {"image": pa.array([b"a"] * 4), "label": pa.array([1, -1, 0, None])}, metadata=features(["cat", "dog"])
    )
    for column in ("label", "class", "y"):
        renamed = table.rename_columns(["image", column])
        described = {"image": {"_type": "Image"}, column: {"_type": "ClassLabel", "names": ["cat", "dog"]}}
        text = json.dumps({"info": {"features": described}})
        pq.write_table(renamed.replace_schema_metadata({"huggingface": text}), tmp_path / "x.parquet")
        assert [row["label"] for row in listed(tmp_path / "x.parquet")] == ["dog", None, "cat", None]
    several = pa.array([[0, 1], [], None, [-1, 1]])
    described = {"label": {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}
    text = json.dumps({"info": {"features": described}})
    table = pa.table({"image": table["image"], "label": several}, metadata={"huggingface": text})
    pq.write_table(table, tmp_path / "x.parquet")
    assert [row["label"] for row in listed(tmp_path / "x.parquet")] == ["cat|dog", "", None, "dog"]


def test_of_two_columns_of_classes_none_is_taken_unasked(tmp_path: Path) -> None:
    """CIFAR-100 of the hub has fine_label and coarse_label."""
    described = {name: {"_type": "ClassLabel", "names": [name, "x"]} for name in ("fine_label", "coarse_label")}
    columns = {"img": pa.array([b"a"]), "fine_label": [0], "coarse_label": [0]}
    metadata = {"huggingface": json.dumps({"info": {"features": described}})}
    pq.write_table(pa.table(columns, metadata=metadata), tmp_path / "x.parquet")
    with open_listing(str(tmp_path / "x.parquet")) as listing:
        assert not listing.has_labels
        assert listing.label_hint == "--columns label=fine_label or --columns label=coarse_label"
    (row,) = listed(tmp_path / "x.parquet", Asked(columns={"label": "coarse_label"}))
    assert row["label"] == "coarse_label"


@pytest.mark.parametrize(
    ("own", "network", "expected"),
    [
        (["cat", "dog"], None, [0, 1]),  # a network without names: the same order, said
        (["Dog", "cat"], "cat\ndog\n", [1, 0]),  # by names
        (["cat", "dog"], "dog\ncat\n", [1, 0]),
    ],
)
def test_classes_are_matched_by_name_or_guessed_to_be_in_the_same_order(
    paths: list[Path], tmp_path: Path, own: list[str], network: str | None, expected: list[int]
) -> None:
    table = pa.table({"image": pa.array([paths[0].read_bytes()] * 2), "label": [0, 1]}, metadata=features(own))
    pq.write_table(table, tmp_path / "x.parquet")
    flags = []
    if network:
        (tmp_path / "names.txt").write_text(network)
        flags = ["--class-names", tmp_path / "names.txt"]
    done = label(tmp_path / "x.parquet", tmp_path / "run", *flags)
    assert done.code == 0, done.err
    assert [image["label"] for image in table_rows(tmp_path / "run", "images")] == expected
    assert ("labels: guessed, as 2 of the 2 class names" in done.err) is (network is None)


def test_names_that_are_none_of_the_user_s_are_refused(paths: list[Path], tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([paths[0].read_bytes()] * 2), "label": [0, 1]}, metadata=features(["a", "b"]))
    pq.write_table(table, tmp_path / "x.parquet")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    refused = label(tmp_path / "x.parquet", tmp_path / "run", "--class-names", tmp_path / "names.txt")
    assert refused.code == 2
    assert "gives 'x.parquet/00000000' the label 'a', which is no class of the network" in refused.result["error"]


def refusal(address: object, asked: Asked = EVERYTHING, error: type[CamrayError] = UsageError) -> str:
    with pytest.raises(error) as caught:
        listed(address, asked)
    return str(caught.value)


def test_what_two_columns_may_mean_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.parquet"

    def write(**columns: Any) -> Path:
        pq.write_table(pa.table(columns), path)
        return path

    cell = pa.array([b"in"])
    says = refusal(write(uri=["a.jpg"], jpg=cell))
    assert "says where pictures are, in column 'uri', and holds some, in 'jpg'" in says
    assert "--columns uri='uri' or --columns image='jpg'" in says
    assert bytes_of(listed(path, Asked(columns={"image": "jpg"}))[0]) == b"in"
    assert listed(path, Asked(columns={"uri": "uri"}))[0]["image_id"] == "a.jpg"
    assert "give one" in refusal(path, Asked(columns={"uri": "uri", "image": "jpg"}))
    assert "holds no bytes of pictures" in refusal(path, Asked(columns={"image": "uri"}))
    done = label(path, tmp_path / "run", "--columns", "image=jpg", "--max-error-rate", 1)
    assert (done.code, table_rows(tmp_path / "run", "images")[0]["size"]) == (0, -2 - 1)
    assert "in columns 'left', 'right'; say which" in refusal(write(left=cell, right=cell))
    assert bytes_of(listed(write(image=cell, mask=pa.array([b"no"]), file_name=["f"]))[0]) == b"in"
    assert "the pictures are those of column 'image', not 'mask'" in capsys.readouterr().err
    assert "texts or whole numbers in column uri" in refusal(write(uri=cell))
    assert "or one that holds pictures, found 'pixels'" in refusal(write(pixels=pa.array([[[1, 2], [3, 4]]])))
    sound = {"huggingface": json.dumps({"info": {"features": {"clip": {"_type": "Audio"}}}})}
    pq.write_table(pa.table({"clip": pa.array([{"bytes": b"x", "path": ""}], IMAGE)}, metadata=sound), path)
    assert "or one that holds pictures, found 'clip'" in refusal(path)
    clash = tmp_path / "label=a"
    clash.mkdir()
    pq.write_table(pa.table({"image": cell, "label": ["b"]}), clash / "y.parquet")
    assert "has a column 'label', and its folder's name another one" in refusal(tmp_path / "label=*" / "*.parquet")


def test_files_of_one_table_must_be_alike(tmp_path: Path) -> None:
    def write(name: str, *, metadata: dict[bytes, bytes] | None = None, **columns: Any) -> None:
        pq.write_table(pa.table(columns, metadata=metadata), tmp_path / name)

    cell = pa.array([b"a"])
    write("a.parquet", image=cell, label=[0])
    write("b.parquet", image=cell)
    assert "expected one column label in" in refusal(tmp_path)
    write("b.parquet", image=["a.jpg"], label=[0])
    assert "expected bytes of pictures in column image" in refusal(tmp_path)
    write("b.parquet", image=cell, label=[0], metadata=features(["x"]))
    assert "name other classes than the first file's" in refusal(tmp_path)
    write("a.parquet", image=cell, label=[1], metadata=features(["x"]))
    assert "has the label 1, its metadata name 1 classes" in refusal(tmp_path)
    write("a.parquet", image=cell, label=[0], metadata=features(["x", "x"]))
    assert "name the class 'x' of label twice" in refusal(tmp_path)


def test_a_folder_of_pictures_and_of_tables_is_asked_about(paths: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "both"
    shutil.copytree(paths[0].parent, folder / "assets")
    (folder / "data").mkdir()
    pq.write_table(hub_table(paths, CLASSES), folder / "data" / "a.parquet")
    says = refusal(folder)
    assert "has 1 Parquet files, such as 'data/a.parquet', and 6 pictures" in says
    assert f"'{folder}/data/*.parquet'" in says
    assert len(listed(folder / "data" / "*.parquet")) == 12
    pq.write_table(pa.table({"file_name": ["x"]}), folder / "assets" / "metadata.parquet")
    assert len(listed(folder / "assets")) == 6  # pictures, and Hugging Face's notes on them


def test_a_folder_of_parquet_files_may_be_one_manifest(pictures: Path, paths: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    for i in range(3):
        part = paths[i * 4 : i * 4 + 4]
        table = {"uri": [str(path) for path in part], "label": [path.parent.name for path in part], "n": [i] * 4}
        pq.write_table(pa.table(table), folder / f"part-{i}.parquet")
    rows = listed(folder, Asked(keep=("n",)))
    assert [row["image_id"] for row in rows] == sorted(map(str, paths))
    assert sorted((row["n"], row["label"]) for row in rows) == sorted(
        (i // 4, p.parent.name) for i, p in enumerate(paths)
    )
    pq.write_table(pa.table({"uri": ["x"], "label": ["y"], "n": ["z"]}), folder / "part-3.parquet")
    assert "has other types of columns than" in refusal(folder, Asked(keep=("n",)))


# How it is read.


def big(tmp_path: Path, num_rows: int = 400, rows_per_group: int = 40) -> tuple[Path, list[bytes]]:
    generator = np.random.default_rng(0)
    cells = [generator.bytes(int(generator.integers(1, 60_000))) for _ in range(num_rows)]
    pq.write_table(pa.table({"image": cells}), tmp_path / "big.parquet", row_group_size=rows_per_group)
    return tmp_path / "big.parquet", cells


def num_read() -> int:
    """Return how many bytes this process has read from files."""
    with open("/proc/self/io") as file:
        return int(dict(line.split(": ") for line in file)["rchar"])


def test_rows_in_order_are_read_once_and_one_picture_costs_its_row_group(tmp_path: Path) -> None:
    path, cells = big(tmp_path)
    rows = listed(path)
    size = path.stat().st_size
    before = num_read()
    assert [bytes_of(row) for row in rows] == cells
    assert num_read() - before < 1.1 * size
    shutil.copy(path, tmp_path / "again.parquet")
    row = {**rows[399], "uri": (tmp_path / "again.parquet").as_uri()}
    before = num_read()
    assert bytes_of(row) == cells[399]
    assert num_read() - before < 0.2 * size


def test_threads_may_ask_for_rows_in_any_order(tmp_path: Path) -> None:
    path, cells = big(tmp_path)
    rows, found = listed(path), [b""] * 400
    order = np.random.default_rng(1).permutation(400)

    def fetch(first: int) -> None:
        for start in range(0, 400, 32):  # batches of 32, eight threads in each
            for i in range(start + first, min(start + 32, 400), 8):
                found[i] = bytes_of(rows[i])

    before = num_read()
    threads = [Thread(target=fetch, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == cells
    assert num_read() - before < 2 * path.stat().st_size
    assert [bytes_of(rows[i]) for i in order[:50]] == [cells[i] for i in order[:50]]


def test_threads_that_are_in_two_row_groups_read_each_once(tmp_path: Path) -> None:
    path, cells = big(tmp_path)
    rows = listed(path)
    before = num_read()
    for i in range(1, 399, 2):  # one of two threads is a row ahead
        assert [bytes_of(rows[i + 1]), bytes_of(rows[i])] == [cells[i + 1], cells[i]]
    assert num_read() - before < 1.2 * path.stat().st_size


def test_row_groups_without_rows_are_passed(tmp_path: Path) -> None:
    table = pa.table({"image": [b"a", b"b", b"c"]})
    with pq.ParquetWriter(tmp_path / "x.parquet", table.schema) as writer:
        for start, stop in ((0, 1), (1, 1), (1, 1), (1, 3)):
            writer.write_table(table.slice(start, stop - start), row_group_size=2)
    rows = listed(tmp_path / "x.parquet")
    assert [bytes_of(row) for row in rows] == [b"a", b"b", b"c"]


def test_more_files_than_are_kept_open_are_read(tmp_path: Path) -> None:
    for i in range(20):
        pq.write_table(pa.table({"image": [b"%d %d" % (i, row) for row in range(3)]}), tmp_path / f"{i:02d}.parquet")
    rows = listed(tmp_path)
    num_files = len(os.listdir("/proc/self/fd"))
    assert [bytes_of(row) for row in rows] == [b"%d %d" % (i, row) for i in range(20) for row in range(3)]
    assert len(os.listdir("/proc/self/fd")) < num_files + 6


def outcomes(rows: list[dict[str, Any]]) -> Iterator[object]:
    for row in rows:
        try:
            yield bytes_of(row)
        except BadImage as bad:
            yield bad.status


def test_a_damaged_row_group_costs_its_own_pictures_alone(tmp_path: Path) -> None:
    cells = [bytes([i]) * 3000 for i in range(30)]
    pq.write_table(pa.table({"image": cells}), tmp_path / "x.parquet", row_group_size=10, use_dictionary=False)
    footer = pq.read_metadata(tmp_path / "x.parquet")
    middle = footer.row_group(1).column(0)
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    start = middle.data_page_offset  # the header of its page
    content[start : start + 8] = b"\xff" * 8
    (tmp_path / "x.parquet").write_bytes(content)
    rows = listed(tmp_path / "x.parquet")
    found = list(outcomes(rows))
    assert found[:10] + found[20:] == cells[:10] + cells[20:]
    assert set(found[10:20]) == {"undecodable"}
    assert list(outcomes(rows[::-1])) == found[::-1]


@pytest.mark.parametrize("cut", [1, 9, 5000])
def test_a_cut_file_is_refused_when_it_is_listed(paths: list[Path], tmp_path: Path, cut: int) -> None:
    table = hub_table(paths, CLASSES)
    for path in (one_file(table, tmp_path), arrow_file(table, tmp_path)):
        path.write_bytes(path.read_bytes()[:-cut])
        assert "cannot read" in refusal(path)
    write_arrow(table, tmp_path / "stream.arrow")
    (tmp_path / "stream.arrow").write_bytes((tmp_path / "stream.arrow").read_bytes()[:-cut])
    assert "it has not the end that it should have" in refusal(tmp_path / "stream.arrow")


def varint(number: int) -> bytes:
    """Return a number as Thrift's compact protocol has it."""
    number, found = number << 1, []
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def lying(path: Path, columns: dict[str, Any], num_rows: int, claimed: int) -> Path:
    """Write a Parquet file whose footer says that it has more rows."""
    pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
    content = path.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - size : -8].replace(varint(num_rows), varint(claimed))
    assert len(footer) == size
    path.write_bytes(content[: -8 - size] + footer + content[-8:])
    assert pq.read_metadata(path).num_rows == claimed
    return path


def test_row_counts_that_lie_are_refused_or_found_when_a_row_is_read(tmp_path: Path) -> None:
    cells = [np.random.default_rng(i).bytes(90) for i in range(70)]
    says = refusal(lying(tmp_path / "a.parquet", {"image": cells}, 70, 8191))
    assert "says that it has 8191 rows, which its" in says
    columns = {"image": cells, "label": [str(i) for i in range(70)]}
    assert "a row group has 5000 rows, it has 70" in refusal(lying(tmp_path / "b.parquet", columns, 70, 5000))
    rows = listed(lying(tmp_path / "c.parquet", {"image": cells}, 70, 5000))
    assert (len(rows), [bytes_of(row) for row in rows[:70]]) == (5000, cells)
    assert set(outcomes(rows[70:])) == {"undecodable"}


def test_a_cell_that_is_too_large_is_one_bad_picture(tmp_path: Path) -> None:
    huge = b"\0" * (MAX_BYTES + 2**20)
    for kind in (pa.binary(), pa.large_binary()):
        table = pa.table({"image": pa.array([b"a", huge, b"b"], kind)})
        pq.write_table(table, tmp_path / "x.parquet", compression="zstd", use_dictionary=False)
        assert (tmp_path / "x.parquet").stat().st_size < 2**20
        assert [len(bytes_of(row)) for row in listed(tmp_path / "x.parquet")] == [1, MAX_BYTES + 1, 1]
        (tmp_path / "x.parquet").unlink()


@pytest.mark.slow
def test_a_large_row_group_is_not_held_in_memory(tmp_path: Path) -> None:
    cell = np.random.default_rng(0).bytes(100_000)
    cells = pa.array([cell] * 4000)  # 400 MB in one row group, in pages of a megabyte
    pq.write_table(pa.table({"image": cells}), tmp_path / "x.parquet", use_dictionary=False, write_batch_size=8)
    del cells
    rows = listed(tmp_path / "x.parquet")
    before = pa.total_allocated_bytes()
    for i in range(0, 4000, 100):
        assert bytes_of(rows[i]) == cell
        assert pa.total_allocated_bytes() - before < 300 * 2**20


def test_a_cell_that_a_dictionary_repeats_is_not_in_memory_for_each_row(tmp_path: Path) -> None:
    cell = np.random.default_rng(0).bytes(4_000_000)
    pq.write_table(pa.table({"image": pa.array([cell] * 200)}), tmp_path / "x.parquet", use_dictionary=True)
    assert (tmp_path / "x.parquet").stat().st_size < 5_000_000
    rows = listed(tmp_path / "x.parquet")
    before = pa.total_allocated_bytes()
    for i in (0, 1, 30):
        assert bytes_of(rows[i]) == cell
        assert pa.total_allocated_bytes() - before < 200 * 2**20  # of 800


def test_a_file_that_was_replaced_is_missing_rows_and_not_wrong_ones(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2], "image": [b"x", b"y"]}), tmp_path / "x.parquet")
    rows = listed(tmp_path / "x.parquet")
    other = {**rows[1], "uri": (tmp_path / "y.parquet").as_uri()}
    for columns in ({"a": [1, 2]}, {"a": [1, 2], "image": ["x", "y"]}):
        pq.write_table(pa.table(columns), tmp_path / "y.parquet")
        with pytest.raises(BadImage, match="no such column of pictures; was it replaced") as caught:
            bytes_of(other)
        assert caught.value.status == "undecodable"
    pq.write_table(pa.table({"a": [1], "image": [b"x"]}), tmp_path / "z.parquet")
    with pytest.raises(BadImage, match="the file has 1 rows"):
        bytes_of({**rows[1], "uri": (tmp_path / "z.parquet").as_uri()})
    with pytest.raises(BadImage, match="no such Parquet file"):
        bytes_of({**rows[1], "uri": (tmp_path / "gone.parquet").as_uri()})
    with pytest.raises(StorageError, match=r"there is no folder .*; the shard is left for the next run"):
        bytes_of({**rows[1], "uri": (tmp_path / "unmounted" / "x.parquet").as_uri()})


def test_saved_datasets_that_cannot_be_read_are_refused(paths: list[Path], tmp_path: Path) -> None:
    table = hub_table(paths, CLASSES)
    folder = save_to_disk(table, tmp_path / "saved")

    def state(**fields: object) -> None:
        (folder / "state.json").write_text(json.dumps(fields))

    good = [{"filename": "data-00000-of-00002.arrow"}]
    state(_data_files=good, _indices_data_files=[{"filename": "indices.arrow"}])
    assert "takes some rows of its files only" in refusal(folder)
    for files in (
        [],
        [{"filename": "../data.arrow"}],
        [{"filename": "/etc/passwd"}],
        [{"filename": ".."}],
        "x",
        None,
        [{"filename": "a" * 300}],
    ):
        state(_data_files=files)
        assert "expected names of files in _data_files" in refusal(folder)
    (folder / "state.json").write_text("[" * 100_000)
    assert "expected one JSON object in" in refusal(folder)
    state(_data_files=[{"filename": "gone.arrow"}])
    assert "there is no" in refusal(folder, error=StorageError)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "../other"]}))
    assert "expected names of folders in splits of" in refusal(folder)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    assert "there is no" in refusal(folder, error=StorageError)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        pa.OSFile(str(tmp_path / "a.feather"), "wb") as file,
        pa.ipc.new_file(file, table.schema, options=options) as out,
    ):
        out.write_table(table)
    assert "is compressed, so that no picture can be read alone" in refusal(tmp_path / "a.feather")


def test_views_may_hold_the_bytes_themselves(tmp_path: Path) -> None:
    cells = [b"", b"short", None, b"twelve bytes", b"thirteen byte", b"x" * 100, b"y" * 50]
    table = pa.table({"image": pa.array(cells, pa.binary_view())})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        for batch in table.to_batches(4):
            stream.write_batch(batch)
    assert [bytes_of(row) for row in listed(tmp_path / "a.arrow")] == [cell or b"" for cell in cells]


def test_what_is_in_the_place_of_a_table_is_told(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.arrow"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n")
        assert "a pointer of Git LFS to the file itself; fetch that by `git lfs pull`" in refusal(tmp_path / name)
    (tmp_path / "delta" / "_delta_log").mkdir(parents=True)
    (tmp_path / "delta" / "_delta_log" / "00000000000000000000.json").write_text("{}")
    for i in range(2):
        pq.write_table(pa.table({"uri": [f"{i}.jpg"]}), tmp_path / "delta" / f"part-{i}.parquet")
    for address in (tmp_path / "delta", tmp_path / "delta" / "*.parquet"):
        assert "is a table of which _delta_log says which files count" in refusal(address)


def test_damaged_arrow_files_are_refused_or_give_bytes_of_the_file(paths: list[Path], tmp_path: Path) -> None:
    write_arrow(hub_table(paths, CLASSES), tmp_path / "a.arrow")
    content = (tmp_path / "a.arrow").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for at in generator.integers(0, 2000, 3):
            damaged[at] = generator.integers(256)
        (tmp_path / "b.arrow").write_bytes(damaged)
        try:
            rows = listed(tmp_path / "b.arrow")
        except CamrayError:
            continue
        assert all(
            0 <= row["offset"] <= row["offset"] + row["size"] <= len(content) for row in rows if row["size"] >= 0
        )


def test_damaged_parquet_files_end_no_process(paths: list[Path], tmp_path: Path) -> None:
    path = one_file(hub_table(paths, CLASSES), tmp_path)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for number in range(200):
        damaged = bytearray(content)
        first = 0 if number % 2 else len(content) - 2000
        for at in generator.integers(first, len(content), 5):
            damaged[at] = generator.integers(256)
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(damaged)
        try:
            rows = listed(path)
        except CamrayError:
            continue
        assert all(isinstance(found, bytes) or found in ("undecodable", "missing") for found in outcomes(rows))
        path.unlink()


# Elsewhere.


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


def test_tables_on_a_store_are_read_as_those_here(paths: list[Path], tmp_path: Path, store: Store) -> None:
    here = tmp_path / "here"
    here.mkdir()
    table = hub_table(paths, CLASSES)
    snapshot(table, here)
    saved_splits(table, here)
    one_file(table, here)
    address = store.put(here, "tables")
    for name, local in (
        ("birds.parquet", here / "birds.parquet"),
        ("snapshot/data/*.parquet", here / "snapshot" / "data"),
        ("splits/dataset_dict.json", here / "splits"),
        ("splits/train/state.json", here / "splits" / "train"),
    ):
        expected = listed(local)
        rows = listed(f"{address}/{name}", Asked(options=store.options))
        assert [row["image_id"] for row in rows] == [row["image_id"] for row in expected]
        assert [row["label"] for row in rows] == [row["label"] for row in expected]
        contents = [bytes_of(row, options=store.options) for row in rows]
        assert contents == [bytes_of(row) for row in expected]
    says = refusal(f"{address}/snapshot", Asked(options=store.options), StorageError)
    assert f"or give a table, --images {address}/snapshot/data/" in says
    assert f"or several by '{address}/snapshot/data/*.parquet'" in says
