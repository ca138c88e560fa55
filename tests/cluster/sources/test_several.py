"""Several sources in one run: by words, by brace ranges and by wildcards, on a disk and on stores."""

import json
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cam_ops.errors import CamrayError, UsageError
from cluster.sources.several import check_sources, open_sources, source_addresses
from cluster.sources.source import EVERYTHING, Asked
from cluster.storage.listings import list_objects
from cluster.storage.objects import remove_object
from tests.support.command import Command, table_rows
from tests.support.stores import Store

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]


def label(images: list[object], out: object, *more: object) -> Command:
    exact = ["--executor", "inline", "--precision", "fp32", "--shard-size", 4]
    return Command("label", "--images", *images, "--out", out, *exact, *TWO, *more)


def ids_of(*texts: object, asked: Asked = EVERYTHING) -> list[str]:
    with open_sources(source_addresses(tuple(map(str, texts))), asked) as listing:
        ids = [image_id for batch in listing.batches() for image_id in batch["image_id"].to_pylist()]
        assert len(ids) == listing.num_images
    return ids


def refusal_of(*texts: object) -> str:
    with pytest.raises(CamrayError) as caught:
        ids_of(*texts)
    return str(caught.value)


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def request_of(out: Path) -> dict[str, object]:
    return json.loads((out / "run.json").read_text())["request"]


def test_two_folders_give_the_maps_and_boxes_of_the_folder_that_holds_both(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("discs\nrings\n")
    whole, names = tmp_path / "whole", ["--class-names", tmp_path / "classes.txt"]
    assert label([pictures], whole, *names).code == 0
    for number, words in enumerate(([pictures / "rings", pictures / "discs"], [f"{pictures}/{{rings,discs}}"])):
        out = tmp_path / f"run-{number}"
        done = label(words, out, *names)
        assert (done.code, done.result["images"]) == (0, 12), done.err
        for table in ("images", "heatmaps", "boxes"):
            assert table_rows(out, table) == table_rows(whole, table)
        (out / "images" / "shard-0000001.parquet").unlink()
        assert label(words, out, *names).code == 0
        assert Command("verify", out).code == 0
        assert Command("show", out, "rings/00.png").code == 0
    assert request_of(whole)["images"] == str(pictures)  # as before there could be several
    assert request_of(tmp_path / "run-0")["images"] == [f"{pictures}/rings", f"{pictures}/discs"]
    assert request_of(tmp_path / "run-1")["images"] == f"{pictures}/{{rings,discs}}"
    other = label([pictures / "rings"], tmp_path / "run-0", *names)
    assert (other.code, "holds another request (images was " in other.result["error"]) == (4, True)


def test_folders_that_name_classes_lie_below_each_source(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("discs\nrings\n")
    flags = ["--labels", "folder", "--class-names", tmp_path / "classes.txt"]
    for part in ("train", "val"):
        shutil.copytree(pictures, tmp_path / "set" / part)
    done = label([tmp_path / "set" / "*"], tmp_path / "run", *flags)
    assert (done.code, done.result["images"]) == (0, 24), done.err
    for row in table_rows(tmp_path / "run", "images"):
        assert row["label"] == ("rings" in row["image_id"])
        assert row["image_id"].startswith(("train/", "val/"))
    refused = label([pictures / "rings", pictures / "discs"], tmp_path / "other", *flags)
    assert (refused.code, "expects pictures in one directory per class" in refused.result["error"]) == (2, True)


def test_as_many_last_parts_of_addresses_stand_in_ids_as_tell_them_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(
        tmp_path,
        "a/train/1.png",
        "a/train/.x/2.png",
        "b/train/1.png",
        "b/test/3.png",
        "b/note.txt",
        "b/list.csv",
        "4.png",
    )
    assert ids_of(tmp_path / "a" / "train") == ["1.png"]
    assert ids_of(tmp_path / "a" / "train", tmp_path / "b" / "test") == ["test/3.png", "train/1.png"]
    assert ids_of(tmp_path / "*" / "train") == ["a/train/1.png", "b/train/1.png"]
    assert ids_of(tmp_path / "{a,b}/train") == ["a/train/1.png", "b/train/1.png"]
    assert ids_of(tmp_path / "a" / "*") == ["1.png"]  # it means one folder
    assert ids_of(tmp_path / "b" / "*") == ["test/3.png", "train/1.png"]
    assert "2 files that are no pictures lie beside what --images matches, and are left out, such as '" in (
        capsys.readouterr().err
    )
    assert ids_of(tmp_path / "*") == ["4.png", "a/train/1.png", "b/test/3.png", "b/train/1.png"]
    assert ids_of(tmp_path / "a" / "train", asked=Asked(skip=str(tmp_path / "b"))) == ["1.png"]
    assert ids_of(tmp_path / "{a,b}*", asked=Asked(skip=str(tmp_path / "b"))) == ["train/1.png"]
    assert ids_of(tmp_path / "*" / "t*", asked=Asked(limit=2)) == ["a/train/1.png", "b/test/3.png"]


def test_what_a_wildcard_finds_without_pictures_is_left_out_but_not_what_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "a/1.png", "docs/page.html", "none/.x/2.png")
    assert ids_of(tmp_path / "*") == ["a/1.png"]
    assert "2 folders that --images matches hold no picture, and are left out, such as '" in capsys.readouterr().err
    assert "found none" in refusal_of(tmp_path / "[dn]o*")
    assert "found none" in refusal_of(tmp_path / "a", tmp_path / "docs")
    assert "is a file of no kind that is read" in refusal_of(tmp_path / "docs" / "page.html")


def test_sources_that_wildcards_find_with_labels_of_their_own_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / "sets" / name).mkdir(parents=True)
        table = pa.table({"image": [b"x"], "label": [0]})
        pq.write_table(table, tmp_path / "sets" / name / "x.parquet")
    ids = ["a/x.parquet/00000000", "b/x.parquet/00000000"]
    assert ids_of(tmp_path / "sets" / "{a,b}") == ids
    assert "labels of its own" not in capsys.readouterr().err
    assert ids_of(tmp_path / "sets" / "*") == ids
    assert "may have labels of its own, which are taken only where each source is named" in capsys.readouterr().err


def test_a_run_among_the_pictures_makes_no_tables_of_their_folder(pictures: Path) -> None:
    (pictures / "train").mkdir()
    for name in ("rings", "discs"):
        (pictures / name).rename(pictures / "train" / name)
    assert label([pictures], pictures / "a-run").code == 0
    assert ids_of(pictures) == sorted(f"train/{path.parent.name}/{path.name}" for path in pictures.glob("train/*/*"))
    assert label([pictures], pictures / "another-run").code == 0


def put_table(pictures: Path, root: Path, kind: str) -> None:
    """Put the pictures into a folder as they are, or a table that names or holds them."""
    paths = sorted(pictures.glob("*/*.png"))
    if kind == "pictures":
        shutil.copytree(pictures, root / "train")
        return
    shutil.copytree(pictures, root / "_hidden")
    names = [f"_hidden/{path.relative_to(pictures)}" for path in paths]
    column = {"uri": names} if kind == "list" else {"image": [path.read_bytes() for path in paths]}
    pq.write_table(pa.table(column), root / "table.parquet")


@pytest.mark.parametrize("kind", ["pictures", "list", "cells"])
def test_a_run_that_was_killed_before_run_json_is_no_table_of_its_source(
    kind: str, pictures: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    put_table(pictures, root, kind)
    assert label([root], root / "run").result["images"] == 12
    for name in (path.name for path in (root / "run").iterdir() if path.name != "plan"):  # as after kill -9
        shutil.rmtree(root / "run" / name) if (root / "run" / name).is_dir() else (root / "run" / name).unlink()
    again = label([root], root / "run")
    assert (again.code, again.result["images"]) == (0, 12), again.err
    assert label([root], root / "another").result["images"] == 12


def test_single_pictures_are_sources(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/2.JPG", "a/n.txt", "b/1.png")
    assert ids_of(tmp_path / "a" / "1.png") == ["1.png"]
    assert ids_of(tmp_path / "a" / "1.png", tmp_path / "a" / "2.JPG") == ["1.png", "2.JPG"]
    assert ids_of(tmp_path / "a" / "*.png") == ["1.png"]
    assert ids_of(tmp_path / "*" / "*.png") == ["a/1.png", "b/1.png"]
    assert ids_of(tmp_path / "a" / "1.png", tmp_path / "b") == ["1.png", "b/1.png"]
    assert "cannot read the picture" in refusal_of(tmp_path / "none.png")
    for name, why in (("x.jxl", "JPEG XL is not read; convert"), ("x.zip", "unpack it, and give the folder")):
        assert f"--images {tmp_path}/{name}: " in refusal_of(tmp_path / name)
        assert why in refusal_of(tmp_path / name)
    put(tmp_path, "x.zip/1.png")
    assert ids_of(tmp_path / "x.zip") == ["1.png"]


def test_what_would_be_there_twice_or_cannot_be_one_run_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a/b/1.png", "c/1.png", "list.csv", "x.tar")
    assert "twice" in refusal_of(tmp_path / "a", tmp_path / "a")
    assert "twice" in refusal_of(tmp_path / "a", tmp_path / "{a,c}")
    assert "inside it, whose images would be there twice" in refusal_of(tmp_path / "a" / "b", tmp_path / "a")
    assert "there is nothing like" in refusal_of(tmp_path / "n*")
    assert "cannot list the image folder" in refusal_of(tmp_path / "{a,none}")
    assert "expects 1 to 10000 sources, got 0" in refusal_of()
    mixed = label([tmp_path / "a", tmp_path / "list.csv"], tmp_path / "run")
    assert (mixed.code, "names sources of several kinds" in mixed.result["error"]) == (2, True)
    into = label([tmp_path / "c", tmp_path / "a"], tmp_path / "a")
    assert (into.code, "is the folder of --images" in into.result["error"]) == (2, True)


def test_manifests_keep_their_labels_and_a_class_list_is_one(tmp_path: Path) -> None:
    put(tmp_path, "p/1.png", "p/2.png", "p/3.png")
    (tmp_path / "one.csv").write_text("uri,label\np/1.png,cat\np/2.png,dog\n")
    (tmp_path / "two.csv").write_text("uri\np/3.png\n")
    with open_sources(source_addresses((str(tmp_path / "*.csv"),))) as listing:
        rows = [row for batch in listing.batches() for row in batch.to_pylist()]
        assert listing.has_labels
    assert [(row["image_id"], row["label"], row["uri"]) for row in rows] == [
        ("one.csv/p/1.png", "cat", f"{tmp_path}/p/1.png"),
        ("one.csv/p/2.png", "dog", f"{tmp_path}/p/2.png"),
        ("two.csv/p/3.png", None, f"{tmp_path}/p/3.png"),
    ]


def test_tables_with_pictures_have_their_file_in_ids_once(pictures: Path, tmp_path: Path) -> None:
    content = [path.read_bytes() for path in sorted(pictures.glob("*/*.png"))]
    for name, part in (("a/x.parquet", content[:6]), ("b/x.parquet", content[6:])):
        (tmp_path / name).parent.mkdir()
        pq.write_table(pa.table({"image": part, "label": [0] * 6}), tmp_path / name)
    ids = ids_of(tmp_path / "{a,b}" / "x.parquet")
    assert ids == [f"{folder}/x.parquet/{row:08d}" for folder in "ab" for row in range(6)]
    assert ids_of(tmp_path / "{a,b}") == ids


def tar(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name in names:
            file.addfile(tarfile.TarInfo(name))


def test_tar_files_of_several_words_are_listed_as_by_one_pattern(tmp_path: Path) -> None:
    for name in ("a/0.tar", "a/1.tar", "b/0.tar"):
        tar(tmp_path / name, "x.jpg", "y.jpg")
    one = ["0.tar/x.jpg", "0.tar/y.jpg", "1.tar/x.jpg", "1.tar/y.jpg"]
    for words in (["*.tar"], ["{0..1}.tar"], ["0.tar", "1.tar"], ["1.tar", "0*.tar"]):
        assert ids_of(*(tmp_path / "a" / word for word in words)) == one
    assert ids_of(tmp_path / "a" / "*.tar", tmp_path / "b" / "*.tar") == [
        *(f"{name}/{member}.jpg" for name in ("a/0.tar", "a/1.tar", "b/0.tar") for member in "xy")
    ]
    assert ids_of(tmp_path / "{a,b}" / "0.tar") == [f"{name}/0.tar/{member}.jpg" for name in "ab" for member in "xy"]
    assert f"there is no tar file {tmp_path}/a/2.tar; check --images" in refusal_of(tmp_path / "a" / "{0..2}.tar")


def test_what_is_planned_from_is_checked_before_its_wildcards(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png")
    check_sources(source_addresses((f"{tmp_path}/*", f"{tmp_path}/{{a,b}}/*.tar")), EVERYTHING.options)
    with pytest.raises(CamrayError, match="cannot list the image folder /nowhere"):
        check_sources(source_addresses((f"{tmp_path}/*", "/nowhere/*/x")), EVERYTHING.options)


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


def test_a_store_s_sources_are_those_of_a_disk(store: Store, pictures: Path, tmp_path: Path) -> None:
    address, options = store.put(pictures, "several/set"), ["--storage-options", *store.words]
    local = label([f"{pictures}/{{rings,discs}}"], tmp_path / "local")
    assert local.code == 0
    words = ([f"{address}/rings", f"{address}/discs"], [f"{address}/{{discs,rings}}"], [f"{address}/*s"])
    for number, images in enumerate(words):
        out = store.address(f"several/run-{number}")
        done = label(images, out, *options)
        assert (done.code, done.result["images"], done.result["boxes"]) == (0, 12, local.result["boxes"]), done.err
        assert label(images, out, *options).code == 0
        assert Command("verify", out, *options).code == 0
    asked = Asked(options=store.options)
    with open_sources(source_addresses((f"{address}/*",)), asked) as listing:
        rows = [row for batch in listing.batches() for row in batch.to_pylist()]
    expected = [row["image_id"] for row in table_rows(tmp_path / "local", "images")]
    assert [row["image_id"] for row in rows] == expected
    assert [row["uri"] for row in rows] == [f"{address}/{image_id}" for image_id in expected]
    single = ids_of(f"{address}/rings/00.png", asked=asked)
    assert (single, ids_of(f"{address}/*/0[01].png", asked=asked)) == (["00.png"], ["00.png", "01.png"])
    with pytest.raises(UsageError, match="twice"):
        ids_of(f"{address}/rings", f"{address}/{{rings,discs}}", asked=asked)


@pytest.mark.parametrize("kind", ["list", "cells"])
def test_a_store_s_runs_are_no_tables_of_their_source(kind: str, store: Store, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    put_table(pictures, tmp_path / "root", kind)
    address = store.put(tmp_path / "root", f"beside-runs/{kind}")
    images, options = [f"{address}/**/*.parquet"], ["--storage-options", *store.words]
    for number in range(2):
        done = label(images, f"{address}/run-{number}", *options)
        assert (done.code, done.result["images"]) == (0, 12), done.err
    for name, _ in list(list_objects(f"{address}/run-1", store.options)):
        if not name.startswith("plan/"):  # as after kill -9
            remove_object(f"{address}/run-1/{name}", store.options)
    again = label(images, f"{address}/run-1", *options)
    assert (again.code, again.result["images"]) == (0, 12), again.err


def test_a_source_is_taken_once_whatever_links_and_patterns_name_it(tmp_path: Path) -> None:
    put(tmp_path / "sets", "a/1.png", "b/1.png")
    (tmp_path / "link").symlink_to(tmp_path / "sets" / "a")
    assert "twice" in refusal_of(tmp_path / "sets" / "a", tmp_path / "link")
    assert "inside it" in refusal_of(tmp_path / "sets", tmp_path / "link")
    for place in ("a", "b"):
        rows = pa.table({"image": pa.array([b"x"], pa.binary())})
        (tmp_path / "tables" / place).mkdir(parents=True)
        pq.write_table(rows, tmp_path / "tables" / place / "x1.parquet")
    tables = tmp_path / "tables"
    assert "'x1.parquet/00000000'" in refusal_of(tables / "a" / "*.parquet", tables / "b" / "x*.parquet")
    assert "twice" in refusal_of(tables / "a" / "*.parquet", tables / "a" / "x1.parquet")
    first = str(tables / "a" / "x1.parquet")
    for words in (["a/*.parquet", "*/x1.parquet"], ["**/*.parquet", "a/x1.parquet"], ["**/*.parquet", "a/*.parquet"]):
        assert f"--images names '{first}' twice" in refusal_of(*(tables / word for word in words))
    pq.write_table(pa.table({"uri": ["1.png"]}), first)
    assert f"--images names '{first}' twice" in refusal_of(tables / "a" / "*.parquet", tables / "a" / "x*.parquet")
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3073))
    assert "data_batch_1.bin' twice" in refusal_of(tmp_path / "*.bin", tmp_path / "data*.bin")


def test_wildcards_mean_no_folder_of_a_system(tmp_path: Path) -> None:
    put(tmp_path / "sets", "a/1.png", "@eaDir/SYNO.png", "__MACOSX/q.png", ".Trash-1000/2.png")
    assert ids_of(tmp_path / "sets" / "*") == ["1.png"]


def test_what_a_label_means_does_not_change_with_the_images_that_are_asked_for(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels.csv"
    for name in ("a/2.png", "b/1.png", "c/1.png"):
        (images / name).parent.mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(images / name)
    (tmp_path / "classes.txt").write_text("x\ny\n")
    flags = ["--class-names", tmp_path / "classes.txt"]
    labels.write_text("image_id,label\n1.png,x\n")
    for number, some in enumerate((["--limit", 2], ["--exclude", "c/*"], ["--include", "b"])):
        done = label([images], tmp_path / f"file-{number}", "--labels", labels, *flags, *some)
        assert (done.code, "mean several pictures" in done.result["error"]) == (2, True)
        done = label([images], tmp_path / f"sorted-{number}", "--labels", "folder-sorted", *flags, *some)
        assert (done.code, "a folder for each of the 2 classes, there are 3" in done.result["error"]) == (2, True)
    shutil.rmtree(images / "a")
    put(images, "c/notes.xyz")
    done = label([images], tmp_path / "run", "--labels", "folder-sorted", *flags, "--include", "c")
    assert (done.code, done.err.count("files of other kinds")) == (0, 1)
    done = label([images], tmp_path / "first", "--labels", "folder-sorted", *flags, "--limit", 1)
    assert (done.code, done.err.count("files of other kinds"), done.result["images"]) == (0, 1, 1)
    assert [(row["image_id"], row["label"]) for row in table_rows(tmp_path / "run", "images")] == [("c/1.png", 1)]
