"""The class of each image: from folders, from label files, from the source itself."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cam_ops.classes import ClassList, class_list, numbered_classes
from cam_ops.errors import UsageError
from cluster.sources.columns import parse_columns
from cluster.sources.kinds import open_listing
from cluster.sources.labels.find import find_labels, label_images, labels_digest
from cluster.sources.labels.words import LabelChoice
from cluster.sources.listing import Listing
from cluster.sources.source import Asked
from tests.support.command import Command, table_rows

NAMES = class_list([("n01", "cat"), ("n02", "crane"), ("n03", "crane")], ["cat", "crane", "crane"])
TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]


def labels_of(ids: list[str], spec: str, classes: ClassList = NAMES, columns: str = "", **more: object) -> list[object]:
    """Return the class of each image, a list where it has several."""
    batch = pa.record_batch(
        {"image_id": ids, "uri": ids, "offset": pa.array([0] * len(ids)), "size": pa.array([-1] * len(ids))}
    )
    listing = Listing(num_images=len(ids), has_labels=False, batches=lambda: iter([batch.slice(0, 1), batch.slice(1)]))
    choice = LabelChoice(spec=spec, images="/data/photos", columns=parse_columns(columns.split()), **more)
    found = pa.Table.from_batches(list(label_images(listing, find_labels(listing, choice, classes)))).to_pylist()
    assert all(row["label"] is None or row.get("labels") is None for row in found)
    return [row.get("labels") or row["label"] for row in found]


def named(*names: str) -> ClassList:
    return class_list([()] * len(names), list(names))


def refused(ids: list[str], spec: str, reason: str, classes: ClassList = NAMES, **more: object) -> None:
    with pytest.raises(UsageError, match=reason):
        labels_of(ids, spec, classes, **more)


# Folders


def test_folders_match_any_column_and_pictures_at_the_root_have_no_label(capsys: pytest.CaptureFixture[str]) -> None:
    assert labels_of(["n03/a.jpg", "cat/x/b.jpg", "c.jpg", "1/d.jpg"], "folder", has_names=True) == [2, 0, None, 1]
    assert "labels: 3 of 4 images, from 3 folder(s); 1 lie in no folder, such as 'c.jpg'" in capsys.readouterr().err


def test_folders_are_matched_whatever_their_capitals_and_never_by_order_against_a_class_list() -> None:
    classes = named("Dog", "Cat")
    assert labels_of(["cat/1.jpg", "dog/1.jpg"], "folder", classes, has_names=True) == [1, 0]
    assert labels_of(["cat/1.jpg", "dog/1.jpg"], "folder", classes) == [1, 0]
    birds = named("Great Auk", "Café")
    assert labels_of(["great_auk/1.jpg", "cafe\u0301/1.jpg", "GREAT-AUK /2.jpg"], "folder", birds) == [0, 1, 0]
    reason = (
        "has the folder 'kat', which is no class of the network, by number or name, nor is 'tog'; did you mean 'Cat'"
    )
    refused(["kat/1.jpg", "tog/1.jpg"], "folder", reason, classes, has_names=True)


def test_folders_without_a_class_s_name_are_guessed_to_be_in_sorted_order_where_classes_have_no_names_of_the_user(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ids = ["z/1.jpg", "x/1.jpg", "y/1.jpg"]
    assert labels_of(ids, "folder") == [2, 0, 1]
    assert "labels: guessed, as no folder bears the name of a class: the 3 folders" in capsys.readouterr().err
    refused(ids, "folder", "has the folder 'x', which is no class .*; folder-sorted takes", has_names=True)
    assert labels_of(ids, "folder-sorted", has_names=True) == [2, 0, 1]
    refused(["y/1.jpg", "x/1.jpg"], "folder", "the folder 'x', which is no class of the network, .*, nor is 'y'")
    refused(["y/1.jpg", "x/1.jpg"], "folder-sorted", "a folder for each of the 3 classes, there are 2: 'x', 'y'")
    refused(["cat/1.jpg", "n02/1.jpg", "x/1.jpg"], "folder", "the folder 'x', which is no class")
    refused(["crane/1.jpg"], "folder", "'crane' means classes")
    refused(["a.jpg", "b.jpg"], "folder", "all lie directly in --images")


def test_an_unknown_folder_of_a_hundred_is_named_or_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"class {i}" for i in range(99)]
    ids = sorted([*(f"{name}/1.jpg" for name in names), "clas 7/1.jpg", "clas 7/2.jpg"])
    refused(ids, "folder", "the folder 'clas 7', which is no class .*; did you mean 'class 7'", named(*names))
    found = dict(zip(ids, labels_of(ids, "folder", named(*names), unknown="skip"), strict=True))
    assert (found["clas 7/1.jpg"], found["class 7/1.jpg"], found["class 98/1.jpg"]) == (None, 7, 98)
    assert (
        "'clas 7', which is no class of the network, by number or name; left out, 2 in all" in capsys.readouterr().err
    )
    refused(["x/1.jpg"], "folder", "no label is a class of the network: 'x'", unknown="skip")


def test_unknown_labels_where_there_are_no_labels_are_said_to_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert labels_of(["cat/1.jpg"], "none", unknown="skip") == [None]
    assert "--unknown-labels skip leaves out nothing" in capsys.readouterr().err
    assert labels_of(["cat/1.jpg"], "none") == [None]
    assert not capsys.readouterr().err


def test_parts_of_a_dataset_are_no_classes() -> None:
    split = ["test/cat/1.jpg", "test/dog/1.jpg", "train/cat/1.jpg", "train/dog/1.jpg"]
    reason = (
        r"'test', 'train' in /data/photos are parts of a dataset, .* 'cat', 'dog' below them; "
        "give --images /data/photos/test /data/photos/train, or"
    )
    for classes in (named("cat", "dog"), numbered_classes(2), named("train", "test")):
        refused(split, "folder", reason, classes)
        refused(split, "folder-sorted", reason, classes)
    refused(["test/1.jpg", "train/1.jpg"], "folder", "are parts of a dataset", numbered_classes(2))
    refused(["misc/1.jpg", "train/cat/1.jpg"], "folder", "the folders 'train' in", named("cat", "dog"))
    assert labels_of(["bus/1.jpg", "train/1.jpg"], "folder", named("bus", "train")) == [0, 1]
    refused(
        ["PetImages/Cat/1.jpg"], "folder", "'PetImages/Cat' is one; give --images /data/photos/PetImages", named("cat")
    )


def test_hidden_folders_are_no_classes(capsys: pytest.CaptureFixture[str]) -> None:
    ids = [".ipynb_checkpoints/1.jpg", "cat/1.jpg", "dog/1.jpg"]
    assert labels_of(ids, "folder", numbered_classes(2)) == [None, 0, 1]
    assert "hidden folders name no class: '.ipynb_checkpoints'; 1 images" in capsys.readouterr().err


def test_folders_called_by_numbers_are_refused_where_sorted_texts_are_another_order() -> None:
    ids = [f"{i}/1.jpg" for i in range(12)]
    both = "the folder '10' is class 10 by its number, but class 2 in the order of names, .* --labels folder-ids or"
    refused(ids, "folder", both, numbered_classes(12))
    refused(ids, "folder", both, named(*"abcdefghijkl"), has_names=True)
    assert labels_of(ids, "folder-ids", numbered_classes(12)) == list(range(12))
    by_text = sorted(map(str, range(12)))  # as torchvision's ImageFolder
    assert labels_of(ids, "folder-sorted", numbered_classes(12)) == [by_text.index(str(i)) for i in range(12)]
    assert labels_of(ids[:10], "folder", numbered_classes(10)) == list(range(10))
    padded = [f"{i:02d}/1.jpg" for i in range(12)]
    assert labels_of(padded, "folder", numbered_classes(12)) == list(range(12))
    refused(
        [f"{i}/1.jpg" for i in range(1, 4)], "folder", "'1' is class 1 by its number, but class 0", numbered_classes(3)
    )
    refused(
        ["5/1.jpg", "1/1.jpg"], "folder", "'5' is class 5 by its number, but class 7 in the order", numbered_classes(12)
    )
    refused(["1/1.jpg", "cat/1.jpg"], "folder-ids", "'cat', which is no class", named("cat", "dog"))


def test_a_class_list_that_has_numbers_says_what_numbers_mean() -> None:
    ids = [f"{i}/1.jpg" for i in range(12)]
    digits = named(*sorted(map(str, range(12))))
    assert labels_of(ids, "folder", digits, has_names=True) == [digits.names.index(str(i)) for i in range(12)]
    from_1 = class_list([()] * 3, ["a", "b", "c"], numbers_from=1)
    assert labels_of(["1/x.jpg", "2/x.jpg", "3/x.jpg"], "folder", from_1, has_names=True) == [0, 1, 2]
    assert labels_of(["0/x.jpg", "2/x.jpg"], "folder", from_1, has_names=True) == [0, 2]
    refused(["1/x.jpg", "2/x.jpg"], "folder", "counts from 1, while classes count from 0", from_1, has_names=True)


# Label files


@pytest.mark.parametrize(
    "text",
    [
        "image_id,label\na.jpg,cat\nb.jpg,2\nc.jpg,\nelsewhere.jpg,1\n",
        "id;breed\r\na;Cat\r\nb;2.0\r\nc;\r\nelsewhere;1\r\n",
        "\ufeffFilename\tsplit\tClass Name\n./a.jpg\ttrain\tCAT\n/data/photos/b.jpg\ttest\tn03\nnot here\tx\t0\n",
        ",image,label\n0,photos/a.jpg,0\n1,photos\\b.png,02\n2,other/c.jpg,1\n",
        'label,path\n"cat",a.JPG\n\n"2",../photos/b.jpg\n\n"1",d\n',
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_labels_from_a_file(tmp_path: Path, text: str, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"labels{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix == ".csv.gz" else text.encode())
    assert labels_of(["a.jpg", "b.jpg", "c.jpg"], str(path)) == [0, 2, None]
    said = capsys.readouterr().err
    assert "labels: 2 of 3 images, by the columns" in said
    assert "labels: 1 image(s) of" in said or text.startswith(("image_id", "id")), said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image_id,label\na.jpg,bird\n", "line 2 says 'bird', which is no class"),
        ("image_id,label\na.jpg,-1\n", "line 2 says '-1', which is no class"),
        (
            "image_id,label\nx.jpg,1\n",
            "no image_id in .* is the path of a picture below --images; the CSV says.*'x.jpg'",
        ),
        ("image_id,label\na.jpg,\n", "the column label of .* is empty"),
        ("", "the label file .* is empty; write image_id,label"),
        ("\n", "the label file .* is empty"),
        ("image_id,label\na.jpg,tench, Tinca\n", "line 2: expected 2 cells, as in the header, found 3"),
        ("image_id,label\na.jpg\n", "line 2: expected 2 cells"),
        ("image_id,label\n,cat\n", "line 2: the column image_id is empty"),
        ("image_id,label,LABEL \na.jpg,0,1\n", ""),
        ("Label,LABEL,id\n0,1,a\n", "cannot tell the column label"),
        (
            "id,filename,label\n1,a.jpg,0\n",
            "several columns of .* may be its image_id: 'id', 'filename'; give --columns",
        ),
        ("id,category,breed\na,0,1\n", "several columns of .* may be its label"),
        ("id,cat,dog\na,0,1\n", "expected the columns image_id and label in .*, found 'id', 'cat', 'dog'; say which"),
        ("a.jpg,cat\nb.jpg,dog\n", "its first line seems to be no header, put image_id,label before it"),
        ('image_id,label\n"a.jpg,cat\n', "as a CSV file: unexpected end of data"),
        ("image_id;label,x\na;b,c\n", "is cut by ',' and ';' alike"),
    ],
)
def test_a_label_file_that_does_not_say_what_is_what_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    if reason:
        refused(["a.jpg", "b.jpg"], str(tmp_path / "labels.csv"), reason)
    else:  # letter for letter wins
        assert labels_of(["a.jpg"], str(tmp_path / "labels.csv")) == [0]


def test_columns_are_chosen(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,filename,label,breed\n1,a.jpg,0,n03\n2,b.jpg,1,cat\n")
    assert labels_of(["a.jpg", "b.jpg"], str(path), columns="image_id=filename label=breed") == [2, 0]
    refused(["a.jpg"], str(path), "label=bread: .* did you mean label=breed", columns="image_id=filename label=bread")


def test_a_number_and_a_name_beside_it_must_be_one_class(tmp_path: Path) -> None:
    path, ids, classes = tmp_path / "labels.csv", ["a.jpg", "b.jpg"], named("tabby", "ox", "fox")
    path.write_text("image_id,label,label_name,note\na.jpg,1,tabby,fox\nb.jpg,2,ox,fox\n")  # counted from 1
    reason = (
        r"line 2 has the label '1', which is the class 'ox', and 'tabby' in column 'label_name'; "
        "the numbers may count otherwise .*: give --columns label=label_name"
    )
    refused(ids, str(path), reason, classes)
    refused(ids, str(path), reason, classes, columns="label=label")
    assert labels_of(ids, str(path), classes, columns="label=label_name") == [0, 1]
    path.write_text("image_id,label,name,class_id\na.jpg,0,Tabby,1\nb.jpg,1,Ox,2\nb.jpg,1,,3\n")
    assert labels_of(ids, str(path), classes) == [0, 1]
    path.write_text("image_id,label,name\na.jpg,0,my cat\nb.jpg,1,my bull\n")  # others' words
    assert labels_of(ids, str(path), classes) == [0, 1]


ROWS = [{"uri": "/p/a.jpg", "label": 1, "kind": "tabby"}, {"uri": "/p/b.jpg", "label": 2, "kind": "ox"}]


def csv_list(folder: Path, name: str) -> Path:
    lines = [
        f"uri,label,{name},year",
        *(f"{row['uri']},{row['label']},{row['kind']},20" for row in ROWS),
        "/p/c.jpg,,,",
    ]
    return written(folder / "list.csv", "\n".join(lines).encode())


def broken_csv(folder: Path, name: str) -> Path:
    path = csv_list(folder, name)
    return written(path, path.read_bytes().replace(b"year", b"species") + b"\n/p/d.jpg,,,\xff\xfe\n")


def json_lines(folder: Path, name: str) -> Path:
    rows = [{"uri": row["uri"], "label": row["label"], name: row["kind"], "tags": ["a"]} for row in ROWS]
    return written(folder / "list.jsonl", "\n".join(json.dumps(row) for row in [*rows, {"uri": "/p/c"}]).encode())


def parquet_list(folder: Path, name: str) -> Path:
    kinds = pa.array([row["kind"] for row in ROWS]).dictionary_encode()
    table = pa.table({"label": [1.0, 2.0], name: kinds, "uri": [row["uri"] for row in ROWS]})
    pq.write_table(table, folder / "list.parquet")
    return folder / "list.parquet"


def parquet_pictures(folder: Path, name: str) -> Path:
    """Files of pictures whose folders name the class."""
    for row in ROWS:
        part = folder / "pictures" / f"{name}={row['kind']}"
        part.mkdir(parents=True)
        pq.write_table(pa.table({"image": [b"no picture"], "label": [row["label"]]}), part / "part-0.parquet")
    return folder / "pictures"


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("write", [csv_list, broken_csv, json_lines, parquet_list, parquet_pictures])
def test_a_number_and_a_name_beside_it_in_a_table_must_be_one_class(
    write: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    """Numbers counted from 1, beside names that say so."""

    def labels(path: Path, classes: ClassList, columns: str = "") -> list[int | None]:
        choice = LabelChoice(spec="manifest", images=str(path), columns=parse_columns(columns.split()))
        with open_listing(str(path), Asked(columns=choice.columns)) as listing:
            found = pa.Table.from_batches(list(label_images(listing, find_labels(listing, choice, classes))))
        return [value for value in found["label"].to_pylist() if value is not None]

    path = write(tmp_path, "category")
    classes = named("tabby", "ox", "fox")
    reason = (
        r"(line 1|list.csv|list.parquet|=(ox|tabby)/part-0.parquet) has the label '(1|2)(.0)?', which is the class "
        "'(ox|fox)', and '(tabby|ox)' in column 'category'; the numbers may .*: give --columns label=category, or"
    )
    with pytest.raises(UsageError, match=reason):
        labels(path, classes)
    by_name = sorted(labels(path, classes, "label=category"))
    assert by_name == [0, 1]
    assert sorted(labels(path, named("a", "Tabby", "ox"))) == [1, 2]
    assert sorted(labels(path, named("a", "b", "c"))) == [1, 2]  # others' words
    (tmp_path / "note").mkdir()
    assert sorted(labels(write(tmp_path / "note", "note"), classes)) == [1, 2]


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    text = "image_id,label\na.jpg,cat\n" * 50
    for name, content, reason in (
        ("utf16.csv", text.encode("utf-16"), "no text in UTF-8; save it as a CSV"),
        ("latin.csv", "image_id,label\na.jpg,Bär\n".encode("latin-1"), "no text in UTF-8"),
        ("cut.csv.gz", gzip.compress(text.encode())[:-12], "as a CSV file: Compressed file ended"),
        ("bad.csv.gz", gzip.compress(text.encode())[:20] + b"\xff" * 40, "cannot read"),
        ("long.csv", b"image_id,label\n" + b"a" * 2**21, "a line of 1048576 bytes or more"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(["a.jpg"], str(tmp_path / name), reason)
    with pytest.raises(UsageError, match=r"cannot read .*bad.csv.gz"):
        labels_digest(str(tmp_path / "bad.csv.gz"))
    with pytest.raises(
        UsageError, match=r"cannot read folder-id: No such file or directory; did you mean folder-ids\?"
    ):
        labels_digest("folder-id")


def test_a_digest_is_of_the_content_whatever_its_packing(tmp_path: Path) -> None:
    text = b"image_id,label\na.jpg,cat\n"
    (tmp_path / "a.csv").write_bytes(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text, mtime=1))
    assert labels_digest(str(tmp_path / "a.csv")) == labels_digest(str(tmp_path / "a.csv.gz"))


def test_a_row_means_the_one_picture_whose_path_ends_so(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    ids = ["cat/001.jpg", "cat/002.png", "dog/001.jpg", "dog/003.jpg", "test/x.jpg"]
    path.write_text(
        "image_id,label\ncat/001,0\n002.jpg,1\nphotos\\dog\\001.jpg,2\n/data/photos/dog/003.jpg,0\ntrain/x,1\n"
    )
    assert labels_of(ids, str(path)) == [0, 1, 2, 0, None]
    path.write_text("image_id,label\n001,0\n003,1\n")
    refused(
        ids, str(path), "1 of 2 image names in .* mean several pictures, such as '001': 'cat/001.jpg' and 'dog/001.jpg'"
    )
    path.write_text("image_id,label\na.png,0\na,1\n")
    refused(["a.jpg", "a.png"], str(path), "1 of 2 image names .* such as 'a': 'a.jpg' and 'a.png'")
    path.write_text("image_id,label\na.png,0\nA,1\n")
    assert labels_of(["a.jpg", "a.png", "b/a.webp"], str(path)) == [None, 0, None]  # its own suffix wins


def test_a_file_name_with_a_backslash_is_found_letter_for_letter_first(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image_id,label\na\\\\b.jpg,0\na\\b.jpg,1\n")
    assert labels_of(["a/b.jpg", "a\\\\b.jpg"], str(tmp_path / "labels.csv")) == [1, 0]


def test_several_labels_of_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,cat|n03\nb,cat\nb,1\nb,CAT\nc,2\nd,\n")
    assert labels_of(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], str(path)) == [[0, 2], [0, 1], 2, None]
    assert "labels: 3 of 4 images, by the columns id and label" in (said := capsys.readouterr().err)
    assert "; 2 have several classes, such as 'a.jpg'" in said
    for label, expected in (('"n03, cat"', [0, 2]), ("2;0", [0, 2]), ("cat|", 0), ("cat|cat", 0)):
        path.write_text(f"id,label\na,{label}\n")
        assert labels_of(["a.jpg"], str(path)) == [expected]
    path.write_text("id,label\na,cat|bird\nb,bird\n")
    refused(["a.jpg", "b.jpg"], str(path), "says 'cat|bird', of which 'bird' is no class of the network")
    assert labels_of(["a.jpg", "b.jpg"], str(path), unknown="skip") == [0, None]
    path.write_text("id;label\na;1,0\n")
    refused(["a.jpg"], str(path), "says '1,0', which is no class")  # a number, or two
    path.write_text('id,label\na,"cat, bird"\n')
    refused(["a.jpg"], str(path), "says 'cat, bird', which is no class")


# By the command


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name, colour in (("cat/1", "red"), ("cat/2", "red"), ("dog/1", "yellow"), ("dog/3", "yellow")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (40, 32))
        picture.paste(colour, (8, 8, 24, 24))
        picture.save(folder / f"{name}.png")
    return folder


def label(images: Path, out: Path, *more: object) -> Command:
    exact = ["--executor", "inline", "--device", "cpu", "--precision", "fp32"]
    return Command("label", "--images", images, "--out", out, *exact, *TWO, *more)


def test_names_in_another_order_than_folders_label_as_they_say(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Dog\nCat\n")
    above = label(tmp_path, tmp_path / "above", "--labels", "folder", "--class-names", tmp_path / "names.txt")
    assert (above.code, "'pictures/cat' is one; give --images" in above.result["error"]) == (2, True)
    out = tmp_path / "run"
    assert label(pictures, out, "--labels", "folder", "--class-names", tmp_path / "names.txt").code == 0
    assert [(row["image_id"], row["label"]) for row in table_rows(out, "images")] == [
        *[("cat/1.png", 1), ("cat/2.png", 1), ("dog/1.png", 0), ("dog/3.png", 0)]
    ]
    assert {(box["class_name"], box["image_id"][:3]) for box in table_rows(out, "boxes")} == {
        ("Cat", "cat"),
        ("Dog", "dog"),
    }


def test_columns_and_unknown_labels_are_part_of_the_request(pictures: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv.gz"
    labels.write_bytes(gzip.compress(b"id;breed;label\ncat/1;0;1\n2;1;x\n3;wolf;1\n"))
    flags = ["--labels", labels, "--columns", "label=breed", "image_id=id", "--unknown-labels", "skip"]
    out = tmp_path / "run"
    done = label(pictures, out, *flags)
    assert done.code == 0
    assert [row["label"] for row in table_rows(out, "images")] == [0, 1, None, None]
    assert "labels.csv.gz line 4 says 'wolf', which is no class of the network" in done.err
    request = json.loads((out / "run.json").read_text())["request"]
    assert (request["columns"], request["unknown_labels"]) == (["image_id=id", "label=breed"], "skip")
    again = label(
        pictures, out, "--columns", "image_id=id", "label=breed", "--labels", labels, "--unknown-labels", "skip"
    )
    assert again.code == 0
    other = label(pictures, out, "--labels", labels, "--columns", "label=label", "--unknown-labels", "skip")
    assert (other.code, "columns was image_id=id label=breed, now label=label" in other.result["error"]) == (4, True)
    unsaid = label(pictures, out, "--labels", labels, "--columns", "label=breed", "image_id=id")
    assert (unsaid.code, "unknown_labels was skip, now refuse" in unsaid.result["error"]) == (4, True), unsaid.result


def test_of_an_image_with_several_labels_each_is_mapped_and_all_commands_take_the_run(
    pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text("image_id,label\ncat/1.png,0|1\ncat/2.png,0\ndog/1.png,1\ndog/1.png,0\n")
    out = tmp_path / "run"
    flags = ["--labels", tmp_path / "labels.csv", "--scores", "sigmoid", "--shard-size", 2, "--batch-size", 2]
    assert label(pictures, out, *flags).code == 0
    images = [(row["image_id"], row["label"], row["labels"]) for row in table_rows(out, "images")]
    assert images == [
        *[("cat/1.png", None, [0, 1]), ("cat/2.png", 0, None), ("dog/1.png", None, [0, 1]), ("dog/3.png", None, None)]
    ]
    assert sorted((row["image_id"], row["class_id"]) for row in table_rows(out, "heatmaps")) == [
        *[("cat/1.png", 0), ("cat/1.png", 1), ("cat/2.png", 0), ("dog/1.png", 0), ("dog/1.png", 1)]
    ]
    assert {box["class_source"] for box in table_rows(out, "boxes")} == {"label"}
    one = label(pictures, tmp_path / "one", "--labels", tmp_path / "labels.csv", "--classes", "label+top1", *flags[2:])
    assert one.code == 0
    top = {row["image_id"]: row["top_classes"][0] for row in table_rows(out, "images")}
    assert {
        (box["image_id"], box["class_id"], box["class_source"]) for box in table_rows(tmp_path / "one", "boxes")
    } >= {
        ("dog/3.png", top["dog/3.png"], "predicted"),
        *((box["image_id"], box["class_id"], "label") for box in table_rows(out, "boxes")),
    }
    (out / "images" / "shard-0000000.parquet").unlink()
    assert label(pictures, out, *flags).code == 0  # resumes
    for command in (
        ["verify", out],
        ["rebox", out, "--out", tmp_path / "reboxed", "--threshold", 0.5, "--executor", "inline"],
        ["verify", tmp_path / "reboxed"],
        ["status", out],
        ["show", out, "cat/1.png", "--to", tmp_path / "shown.png"],
        ["audit", out, "--executor", "inline"],
    ):
        done = Command(*command)
        assert done.code == 0, (command, done.err)
    with Image.open(tmp_path / "shown.png") as shown:
        assert shown.size == (80, 32)  # a panel for each class
    (tmp_path / "other.csv").write_text("image_id,label\ncat/1.png,1|0\ncat/2.png,1\ndog/1.png,0\n")
    assert label(pictures, tmp_path / "other", "--labels", tmp_path / "other.csv", *flags[2:]).code == 0
    assert Command("compare", out, tmp_path / "other", "--out", tmp_path / "changes.json").code == 0
    assert json.loads((tmp_path / "changes.json").read_text())["tables"]["labels_changed"] == 2


def test_the_column_of_several_labels_is_only_where_there_are_any(pictures: Path, tmp_path: Path) -> None:
    for labels, expected in (("0|1", True), ("1", False)):
        (tmp_path / "labels.csv").write_text(f"image_id,label\ncat/1.png,{labels}\ncat/2.png,0\n")
        out = tmp_path / labels
        assert label(pictures, out, "--labels", tmp_path / "labels.csv").code == 0
        assert json.loads((out / "run.json").read_text())["plan"].get("several_labels", False) is expected
        for table in ("plan/part-00000.parquet", "images/shard-0000000.parquet"):
            assert ("labels" in pq.read_schema(out / table).names) is expected


def test_an_audit_takes_the_truth_s_class_of_an_image_with_several_labels(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image_id,label\ncat/1.png,0|1\ncat/2.png,0\ndog/1.png,1|0\n")
    (tmp_path / "truth.csv").write_text(
        "image_id,x0,y0,x1,y1,class\ncat/1.png,0,0,40,32,0\ncat/2.png,0,0,40,32,0\ndog/1.png,0,0,9,9,0\ndog/1.png,0,0,9,9,1\n"
    )
    out = tmp_path / "run"
    assert label(pictures, out, "--labels", tmp_path / "labels.csv").code == 0
    assert Command("audit", out, "--truth", tmp_path / "truth.csv", "--executor", "inline").code == 0
    rows = table_rows(out / "audit", "per_image.parquet")
    assert [(row["image_id"], row["true_class"], row["excluded"]) for row in rows[:3]] == [
        *[("cat/1.png", 0, None), ("cat/2.png", 0, None), ("dog/1.png", None, "true class unknown")]
    ]


def test_labels_that_were_asked_for_and_are_not_there_are_refused(pictures: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": [str(pictures / "cat" / "1.png")], "breed": ["cat"]}), tmp_path / "list.parquet")
    asked = label(tmp_path / "list.parquet", tmp_path / "run", "--labels", "manifest")
    assert asked.code == 2
    assert "--labels manifest: " in asked.result["error"]
    assert "list.parquet has no column label; give --columns label=breed, or --labels FILE" in asked.result["error"]
    unasked = label(tmp_path / "list.parquet", tmp_path / "run")
    assert unasked.code == 0
    assert "list.parquet has no column label; give --columns label=breed" in unasked.err
    (tmp_path / "names.txt").write_text("Dog\nCat\n")
    given = ["--columns", "label=breed", "--class-names", tmp_path / "names.txt"]
    assert label(tmp_path / "list.parquet", tmp_path / "given", *given).code == 0
    assert [row["label"] for row in table_rows(tmp_path / "given", "images")] == [1]


def test_columns_are_the_label_file_s_or_the_manifest_s(pictures: Path, tmp_path: Path) -> None:
    uris = [str(pictures / name) for name in ("cat/1.png", "dog/1.png")]
    pq.write_table(pa.table({"path": uris, "key": ["a", "b"], "breed": ["x", "x"]}), tmp_path / "list.parquet")
    (tmp_path / "labels.csv").write_text("id,kind\na,1\nb,0\n")
    columns = ["--columns", "uri=path", "image_id=key", "label=kind"]
    done = label(tmp_path / "list.parquet", tmp_path / "run", "--labels", tmp_path / "labels.csv", *columns)
    assert done.code == 0, done.err
    assert [(row["image_id"], row["label"]) for row in table_rows(tmp_path / "run", "images")] == [("a", 1), ("b", 0)]
    for images, flags, reason in (
        (pictures, ["--labels", "folder", "--columns", "label=breed"], "--columns label=breed: neither --images"),
        (pictures, ["--labels", tmp_path / "labels.csv", "--columns", "uri=id"], "--columns uri=id: neither"),
        (tmp_path / "list.parquet", ["--labels", "none", *columns], "nor --labels none has columns of which one"),
    ):
        refused = label(images, tmp_path / "other", *flags)
        assert (refused.code, reason in refused.result["error"]) == (2, True), refused.result


def test_a_manifest_s_labels_may_be_several(pictures: Path, tmp_path: Path) -> None:
    uris = [str(pictures / name) for name in ("cat/1.png", "cat/2.png", "dog/1.png")]
    pq.write_table(pa.table({"uri": uris, "label": ["0|1", None, "1.0"]}), tmp_path / "list.parquet")
    done = label(tmp_path / "list.parquet", tmp_path / "run")
    assert done.code == 0
    assert [(row["label"], row["labels"]) for row in table_rows(tmp_path / "run", "images")] == [
        *[(None, [0, 1]), (None, None), (1, None)]
    ]
    assert "labels: 2 of 3 images, from the manifest; 1 have several classes" in done.err


@pytest.mark.parametrize("words", ["0|0|1", "1|0|0", "0|1|0", "1|1", "0;0;1"])
def test_a_yes_or_no_for_each_class_is_no_list_of_classes(tmp_path: Path, words: str) -> None:
    (tmp_path / "labels.csv").write_text(f"image_id,label\n1.jpg,{words}\n")
    refused(["1.jpg"], str(tmp_path / "labels.csv"), "a yes or no for each class", named("cat", "dog", "fox"))


def test_two_classes_by_number_are_two(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image_id,label\n1.jpg,0|1\n")
    assert labels_of(["1.jpg"], str(tmp_path / "labels.csv"), named("cat", "dog", "fox")) == [[0, 1]]
    assert labels_of(["1.jpg"], str(tmp_path / "labels.csv"), named("cat", "dog")) == [[0, 1]]
    (tmp_path / "labels.csv").write_text("image_id,label\n1.jpg,0|1\n2.jpg,1|0\n")
    refused(["1.jpg", "2.jpg"], str(tmp_path / "labels.csv"), "a yes or no for each class", named("cat", "dog"))


def test_sorted_folders_whose_own_folders_are_the_classes_are_refused() -> None:
    ids = ["setA/cat/1.jpg", "setB/dog/1.jpg"]
    refused(ids, "folder-sorted", "'setA/cat' is one", named("cat", "dog"), has_names=True)
