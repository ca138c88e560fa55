"""WebDataset's tar files as a source: written by tarfile and GNU tar, read back as byte ranges, damaged and cut."""

import csv
import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cam_ops.errors import BadImage, CamrayError, StorageError, UsageError
from cluster.sources.columns import parse_columns
from cluster.sources.kinds import open_listing
from cluster.sources.reading import read_image
from cluster.sources.source import EVERYTHING, Asked
from cluster.sources.tar_members import MAX_EXTENDED_BYTES, MAX_PADDING_BYTES, BadTar, walk
from cluster.sources.tar_samples import key_and_kind
from cluster.sources.tars import STORE_WINDOW_BYTES
from cluster.storage.objects import put_object
from cluster.storage.options import NO_OPTIONS, StorageOptions
from tests.cluster.sources.test_manifest import label, request_of
from tests.support.command import Command, table_rows
from tests.support.pictures import load_picture
from tests.support.stores import Store

Members = list[tuple[str, bytes]]

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def packed(members: Members, tar_format: int = tarfile.PAX_FORMAT, pax: dict[str, str] | None = None) -> bytes:
    """Return the bytes of a tar file that tarfile writes; a name in `pax` headers has no form of its own."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tar_format, errors="surrogateescape") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(content), pax or {}
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def write(path: Path, members: Members) -> Path:
    path.write_bytes(packed(members))
    return path


def listed(address: object, limit: int | None = None, options: StorageOptions = NO_OPTIONS) -> list[dict[str, Any]]:
    with open_listing(str(address), Asked(limit=limit, options=options)) as listing:
        rows = [row for batch in listing.batches() for row in batch.to_pylist()]
        assert rows == [row for batch in listing.batches() for row in batch.to_pylist()]  # it can be read again
        assert len(rows) == listing.num_images
    return rows


def refusal_of(address: object) -> str:
    with pytest.raises(UsageError) as caught:
        listed(address)
    return str(caught.value)


def contents(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    return {row["image_id"]: read_image(row["uri"], row["offset"], row["size"]) for row in rows}


@pytest.fixture
def samples(pictures: Path) -> Members:
    """The twelve pictures as samples of a tar file: KEY.cls with the folder's name, then KEY.png, then KEY.json."""
    paths = sorted(pictures.glob("*/*.png"))
    kinds = [("cls", lambda p: p.parent.name.encode()), ("png", Path.read_bytes), ("json", lambda p: b'{"boxes": []}')]
    return [(f"{path.stem}.{kind}", content(path)) for path in paths for kind, content in kinds]


def test_tar_files_give_the_maps_and_boxes_of_the_pictures_as_files(
    pictures: Path, samples: Members, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("discs\nrings\n")
    flags = ["--class-names", tmp_path / "classes.txt"]
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(3):
        write(folder / f"{number}.tar", samples[number * 12 : (number + 1) * 12])
    done = label(folder / "*.tar", tmp_path / "run", *flags)
    assert (done.code, done.result["ok"]) == (0, 12)
    assert "indexed 3 tar file(s): 12 pictures" in done.err
    assert "labels: 12 of 12 images, from the tar" in done.err
    place_of = {row["image_id"].split("/")[1]: row for row in table_rows(tmp_path / "run", "images")}
    uris = [f"{path.parent.name}/{path.name}" for path in pictures.glob("*/*.png")]
    with (pictures / "list.csv").open("w", newline="") as file:
        rows = [(uri, place_of[Path(uri).name]["image_id"], uri.split("/")[0]) for uri in uris]
        csv.writer(file).writerows([("uri", "image_id", "label"), *rows])
    assert label(pictures / "list.csv", tmp_path / "plain", *flags).code == 0
    for table in ("heatmaps", "boxes"):
        assert table_rows(tmp_path / "run", table) == table_rows(tmp_path / "plain", table)
        assert table_rows(tmp_path / "run", table)
    of_files, place = table_rows(tmp_path / "plain", "images"), ("uri", "offset", "size")
    for of_tar, of_file in zip(table_rows(tmp_path / "run", "images"), of_files, strict=True):
        assert of_tar | {name: of_file[name] for name in place} == of_file
    assert (request_of(tmp_path / "run")["labels"], request_of(tmp_path / "run")["classes"]) == ("tar", "label")
    assert label(folder / "*.tar", tmp_path / "run", *flags).code == 0  # nothing is left to do
    assert Command("verify", tmp_path / "run").code == 0
    assert Command("show", tmp_path / "run", "0.tar/01.png").code == 0


def test_real_tar_files_are_listed_as_tarfile_reads_them(data: Path) -> None:
    rows = {row["image_id"]: row for row in listed(data / "tiny_imagenet_val" / "*.tar")}
    assert len(rows) == 5000
    path = data / "tiny_imagenet_val" / "00003.tar"
    with tarfile.open(path) as tar, path.open("rb") as file:
        expected = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        boxes = {
            key_and_kind(member.name): os.pread(file.fileno(), member.size, member.offset)
            for member in walk(lambda at, size: os.pread(file.fileno(), size, at), path.stat().st_size)
        }
    pictures = [name for name in expected if name.endswith(".jpg")]
    assert len(pictures) == 1000
    for name in pictures:
        row, key = rows[f"00003.tar/{name}"], name.removesuffix(".jpg")
        assert read_image(row["uri"], row["offset"], row["size"]) == expected[name]
        assert row["label"] == expected[f"{key}.cls"].decode()
        assert boxes[key, "json"] == expected[f"{key}.json"]  # where a truth loader finds them


@pytest.mark.parametrize("tar_format", FORMATS)
def test_names_of_all_kinds_and_formats_lead_to_their_bytes(tmp_path: Path, tar_format: int) -> None:
    names = ["plain.jpg", "UPPER.JPEG", "./from dot.png", "a/b.c/deep.webp", "d" * 90 + "/" + "n" * 90 + ".png"]
    names += ["ünï 日本.png", "back\\slash.jpg", "new\nline.jpg"]
    if tar_format != tarfile.USTAR_FORMAT:
        names += ["x" * 300 + "/" + "y" * 200 + ".jpg", "not utf-8 \udcff.png"]
    members = [(name, name.encode("utf-8", "surrogateescape") * (i % 3) * 100) for i, name in enumerate(names)]
    (tmp_path / "ö.tar").write_bytes(packed(members, tar_format))
    ids = [n.removeprefix("./").replace("\\", "\\\\").replace("\udcff", "\\xff") for n in names]
    rows = listed(tmp_path / "ö.tar")
    assert [row["image_id"] for row in rows] == sorted(f"ö.tar/{image_id}" for image_id in ids)
    expected = {f"ö.tar/{image_id}": content for image_id, (_, content) in zip(ids, members, strict=True)}
    assert contents(rows) == expected


@pytest.mark.parametrize(
    "form", [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
def test_what_gnu_tar_writes_besides_files_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: list[str]
) -> None:
    if (
        shutil.which("tar") is None
        or b"GNU tar" not in subprocess.run(["tar", "--version"], capture_output=True).stdout
    ):
        pytest.skip("needs GNU tar")
    folder = tmp_path / "packed"
    (folder / "z").mkdir(parents=True)
    with (folder / "b.png").open("wb") as file:
        for extent in range(60):  # more than one header can name
            file.seek(extent * 65536)
            file.write(b"not all zeros")
    (folder / "a.jpg").write_bytes(b"first")
    (folder / "z" / "c.jpg").write_bytes(b"after the sparse one")
    os.link(folder / "a.jpg", folder / "hard.jpg")
    os.symlink("a.jpg", folder / "soft.jpg")
    os.mkfifo(folder / "pipe.cls")
    subprocess.run(["tar", "--sort=name", "-S", *form, "-cf", tmp_path / "x.tar", "-C", folder, "."], check=True)
    assert contents(listed(tmp_path / "x.tar")) == {"x.tar/a.jpg": b"first", "x.tar/z/c.jpg": b"after the sparse one"}
    said = capsys.readouterr().err
    assert "4 members named as pictures, cls or json are links, folders, devices or sparse, and are left out" in said


def test_what_is_odd_is_said_once_with_a_count_and_never_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        tmp_path / "x.tar",
        [
            *[("two.cls", b"0"), ("two.jpg", b"1"), ("two.png", b"2")],
            *[("apart.jpg", b"3"), ("other.jpg", b"4"), ("apart.cls", b"0"), ("other.cls", b"1")],
            *[("kind.jpg", b""), ("kind.seg.png", b""), ("kind.txt", b""), ("README", b""), ("._two.jpg", b"")],
            ("alone.json", b"{}"),
        ],
    )
    rows = listed(tmp_path / "x.tar")
    assert [(row["image_id"], row["label"]) for row in rows] == [
        *[("x.tar/apart.jpg", None), ("x.tar/kind.jpg", None), ("x.tar/other.jpg", None)],
        *[("x.tar/two.jpg", "0"), ("x.tar/two.png", "0")],
    ]
    said = capsys.readouterr().err.splitlines()
    for sentence in (
        "1 keys have several pictures, each of them an image, such as 'x.tar/two'",
        "2 keys come again after others: what lies apart is not put together",
        "3 members of other kinds are left out, such as 'x.tar/kind.txt'",
        "3 keys have no picture, such as 'x.tar/apart'",
    ):
        assert sum(sentence in line for line in said) == 1, said


def test_names_with_dots_are_pictures_of_their_own_with_labels_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [
        *[("frame_12.345.jpg", b""), ("frame_12.345.cls", b"1"), ("frame_12.400.jpg", b""), ("frame_12.400.cls", b"2")],
        *[("www.site.org.png", b""), ("www.site.org.cls", b"3")],
        *[("d/IMG.1.jpg", b""), ("d/IMG.1.cls", b"5"), ("d/IMG.cls", b"4"), ("d/IMG.jpg", b""), ("d/IMG.seg.png", b"")],
        *[("one.image.jpg", b""), ("one.cls", b"6")],
        *[("pair.left.jpg", b""), ("pair.right.jpg", b""), ("pair.cls", b"7")],
    ]
    write(tmp_path / "x.tar", members)
    assert {row["image_id"].removeprefix("x.tar/"): row["label"] for row in listed(tmp_path / "x.tar")} == {
        **{"frame_12.345.jpg": "1", "frame_12.400.jpg": "2", "www.site.org.png": "3"},
        **{"d/IMG.jpg": "4", "d/IMG.1.jpg": "5", "one.image.jpg": "6", "pair.left.jpg": "7", "pair.right.jpg": "7"},
    }
    said = capsys.readouterr().err
    assert "1 members of other kinds are left out, such as 'x.tar/d/IMG.seg.png'" in said
    assert "1 keys have several pictures, each of them an image, such as 'x.tar/pair'" in said
    write(tmp_path / "x.tar", [("a.b.jpg", b""), ("a.b.cls", b"1"), ("a.cls", b"0")])
    assert "x.tar has two labels for 'a.b.jpg': 'a.cls' and 'a.b.cls'" in refusal_of(tmp_path / "x.tar")


def columns(*words: str) -> Asked:
    return Asked(columns=parse_columns(words))


def test_a_label_may_be_a_key_of_json_as_img2dataset_writes_it(tmp_path: Path) -> None:
    documents = [{"class": "cat"}, {"class": 3}, {"class": None}, {"class": ["cat", "dog"]}, {"caption": "a cat"}]
    members = [
        (f"{i:09d}.{kind}", content)
        for i, document in enumerate(documents)
        for kind, content in (("jpg", b"x"), ("json", json.dumps(document).encode()), ("txt", b"a caption"))
    ]
    write(tmp_path / "x.tar", [*members, ("000000009.jpg", b"x"), ("000000009.cls", b"7")])
    assert labels_of(tmp_path / "x.tar", columns("label=class")) == ["cat", "3", None, "cat|dog", None, None]
    assert labels_of(tmp_path / "x.tar") == [None] * 5 + ["7"]
    for word, sentence in (
        ("label=clas", "no member json of .*/x.tar has that key, they have 'class'; did you mean label=class[?]"),
        ("label=caption", None),
    ):
        if sentence:
            with pytest.raises(UsageError, match=sentence):
                labels_of(tmp_path / "x.tar", columns(word))
        else:
            assert labels_of(tmp_path / "x.tar", columns(word)) == [None, None, None, None, "a cat", None]
    write(tmp_path / "bare.tar", members)
    with open_listing(str(tmp_path / "bare.tar")) as listing:
        assert (listing.has_labels, listing.label_hint) == (False, "--columns label=class")
    for content, sentence in (
        (b'{"class": {"id": 1}}', "x.tar has a label that is no text or number in '0.json'"),
        (b"[1]", "x.tar has a member '0.json' that is no JSON object"),
        (b'{"class": [' + b"100, " * 2_000 + b"1]}", "x.tar has a label of 8001 characters in '0.json', at most 4096"),
        (b"[" * 100_000, "x.tar has a member '0.json' that is no JSON object"),
        (b'{"class": "' + bytes(2**20) + b'"}', "x.tar has a member '0.json' that is no JSON object"),
    ):
        write(tmp_path / "x.tar", [("0.jpg", b""), ("0.json", content)])
        with pytest.raises(UsageError, match=sentence):
            labels_of(tmp_path / "x.tar", columns("label=class"))
        assert labels_of(tmp_path / "x.tar") == [None]


def test_a_label_of_many_classes_is_not_cut(tmp_path: Path) -> None:
    word = "|".join(map(str, range(100, 200)))
    write(tmp_path / "x.tar", [("0.jpg", b""), ("0.cls", word.encode())])
    assert labels_of(tmp_path / "x.tar") == [word]


def labels_of(address: Path, asked: Asked = EVERYTHING) -> list[str | None]:
    with open_listing(str(address), asked) as listing:
        if not listing.has_labels:
            return [None] * listing.num_images
        return [label for batch in listing.batches() for label in batch["label"].to_pylist()]


def test_hidden_members_and_other_pictures_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = ["a/0.gif", "a/1.PPM", "a/2.jpe", "a/3.avif"]
    hidden = [
        "__MACOSX/a/._0.jpg",
        ".git/x.png",
        "./a/.ipynb_checkpoints/0-checkpoint.png",
        "@eaDir/0.jpg",
        "a/._0.gif",
    ]
    others = ["a/4.jxl", "a/5.jxl", "a/6.txt"]
    write(tmp_path / "x.tar", [(name, b"x") for name in (*taken, *hidden, "Thumbs.db", *others)])
    assert [row["image_id"] for row in listed(tmp_path / "x.tar")] == [f"x.tar/{name}" for name in taken]
    said = capsys.readouterr().err.splitlines()
    for sentence in (
        "6 members that are hidden, or of systems and file managers, are left out, such as 'x.tar/__MACOSX/a/._0.jpg'",
        "2 files .jxl are left out: JPEG XL is not read; convert them to PNG or JPEG, such as 'x.tar/a/4.jxl'",
        "1 members of other kinds are left out, such as 'x.tar/a/6.txt'",
    ):
        assert sum(sentence in line for line in said) == 1, said


def header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """Write a ustar header by hand, its size as given."""
    fields = [name.encode().ljust(100, b"\0"), b"0000644\0", b"0000000\0" * 2, size.ljust(12, b"\0"), b"0" * 11 + b"\0"]
    block = b"".join(fields) + b" " * 8 + kind + b"\0" * 100 + b"ustar\x0000"
    block = block.ljust(512, b"\0")
    return block.replace(b" " * 8, f"{sum(block):06o}\0 ".encode(), 1)


GOOD = packed([("0.cls", b"1"), ("0.jpg", b"picture" * 100), ("1.cls", b"0"), ("1.jpg", b"another" * 10)])
END = bytes(1024)
HUGE = b"\x80" + (10**18).to_bytes(11, "big")
NEGATIVE = b"\xff" * 11 + b"\x00"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "x.tar is empty"),
        (b"\x89PNG\r\n" * 200, "x.tar is no tar file"),
        (gzip.compress(GOOD), "x.tar is compressed by gzip"),
        (
            header("0.jpg", HUGE) + END,
            "x.tar is cut: its header at byte 0 announces 1000000000000000000 bytes, 1024 follow",
        ),
        (header("0.jpg", NEGATIVE) + END, "x.tar is cut: its header at byte 0 announces -256 bytes"),
        (header("0.jpg", b"-0000000010") + END, "announces -8 bytes"),
        (header("0.jpg", b"00000000009") + END, "x.tar is no tar file"),
        (GOOD[:1024] + b"\1" + GOOD[1025:], "x.tar is damaged: there is no header at byte 1024"),
        (GOOD + GOOD, "as concatenated files do"),
        (GOOD + bytes(MAX_PADDING_BYTES), "as concatenated files do"),
        (
            header("x", f"{MAX_EXTENDED_BYTES + 1:011o}".encode(), b"x") + bytes(2 * MAX_EXTENDED_BYTES),
            "an extended header of",
        ),
        (
            header("x", f"{MAX_EXTENDED_BYTES + 1:011o}".encode(), b"L") + bytes(2 * MAX_EXTENDED_BYTES),
            "an extended header of",
        ),
        (header("x", HUGE, b"x") + END, "x.tar is cut"),
        (header("x", b"00000000010", b"x") + b"99 path=".ljust(512, b"\0") + END, "a line that is none"),
        (packed([("0.jpg", b"")], pax={"size": "-5"}), "an extended header says that a member has b'-5' bytes"),
        (packed([("0.jpg", b"")], pax={"path": "a\0b.jpg"}), "or a NUL"),
        (
            packed([("../../etc/0.jpg", b"")]),
            "has a member '../../etc/0.jpg', whose name is absolute, has empty, . or ..",
        ),
        (packed([("/etc/0.jpg", b"")]), "has a member '/etc/0.jpg'"),
        (packed([("a//0.cls", b"")]), "has a member 'a//0.cls'"),
        (packed([("0.jpg", b"1"), ("1.jpg", b""), ("./0.jpg", b"2")]), "x.tar has the member '0.jpg' twice"),
        (packed([("0.cls", b"1"), ("0.cls", b"2"), ("0.jpg", b"")]), "x.tar has two members cls of the key '0'"),
        (packed([("0.json", b"{}"), ("0.jpg", b""), ("0.json", b"{}")]), "x.tar has two members json of the key '0'"),
        (
            packed([("0.jpg", b""), ("0.cls", b"cat|" * 1_024 + b"dog")]),
            "x.tar has a label of 4099 bytes beside '0.jpg', at most 4096 are read",
        ),
    ],
)
def test_a_tar_file_whose_members_cannot_be_known_is_refused_by_name(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    write(tmp_path / "good.tar", [("0.jpg", b"picture")])
    (tmp_path / "x.tar").write_bytes(content)
    refusal = refusal_of(tmp_path / "*.tar")
    assert refusal.startswith(f"1 of 2 tar files of {tmp_path}/*.tar cannot be used: x.tar ")
    assert sentence in refusal


def test_many_bad_files_are_counted_and_three_named(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02d}.tar").write_bytes(GOOD if number % 2 else GOOD[:700])
    refusal = refusal_of(tmp_path / "*.tar")
    assert refusal.startswith(f"10 of 20 tar files of {tmp_path}/*.tar cannot be used: 00.tar is cut")
    assert [f"{number:02d}.tar" in refusal for number in range(6)] == [True, False, True, False, True, False]
    assert len(refusal) < 1000


def test_extended_headers_without_end_neither_recurse_nor_stay_in_memory(tmp_path: Path) -> None:
    chain = header("x", f"{9:011o}".encode(), b"x") + b"9 path=a\n".ljust(512, b"\0")
    (tmp_path / "x.tar").write_bytes(chain * 5000 + header("0.jpg", b"0" * 11) + END)
    with pytest.raises(StorageError, match="expected members that are pictures"):  # its name is a
        listed(tmp_path / "x.tar")


def test_a_file_cut_anywhere_is_refused_or_lists_as_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(GOOD)
    whole = listed(path)
    end = 512 * (2 + 3 + 2 + 2)  # headers and contents in blocks
    for length in [*range(0, end + 1024, 128), *range(end - 3, end + 516)]:
        path.write_bytes(GOOD[:length])
        if length >= end + 512:
            assert listed(path) == whole
        else:
            assert "cannot be used: x.tar is" in refusal_of(path)


def test_mutated_headers_are_refused_or_list_rows_inside_the_file(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    long = packed([("p" * 120 + "/" + "q" * 150 + ".jpg", b"12"), ("0.cls", b"1")], tarfile.GNU_FORMAT)[:-9216]
    base = long + packed([("ü" * 200 + ".png", b"1" * 700), ("0.jpg", b"2")], tarfile.PAX_FORMAT)
    num_listed = 0
    for _ in range(400):
        content = bytearray(base)
        block = 512 * int(generator.integers(0, len(base) // 512 - 15))
        for _ in range(int(generator.integers(1, 4))):
            content[block + int(generator.integers(0, 512))] = int(generator.choice([0, 32, 48, 55, 57, 120, 128, 255]))
        if generator.random() < 0.7:  # with a sum that is right
            content[block + 148 : block + 156] = b" " * 8
            content[block + 148 : block + 156] = f"{sum(content[block : block + 512]):06o}\0 ".encode()
        (tmp_path / "x.tar").write_bytes(content)
        try:
            rows = listed(tmp_path / "x.tar")
        except CamrayError:
            continue
        num_listed += 1
        assert all(0 <= row["offset"] <= row["offset"] + row["size"] <= len(content) for row in rows)
        assert len({row["image_id"] for row in rows}) == len(rows)
    assert 20 < num_listed < 380


def status_of(row: dict[str, Any]) -> str:
    try:
        load_picture(row)
    except BadImage as bad:
        return bad.status
    return "ok"


def test_a_tar_file_that_changes_after_planning_gives_rows_that_say_so(samples: Members, tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", samples)
    content, rows = path.read_bytes(), listed(path)
    in_file = sorted(rows, key=lambda row: row["offset"])
    path.write_bytes(content[: in_file[6]["offset"] + 100])
    assert [status_of(row) for row in in_file] == ["ok"] * 6 + ["truncated"] + ["empty"] * 5
    path.write_bytes(content[512:] + content[:512])
    assert [status_of(row) for row in rows] == ["undecodable"] * 12
    path.unlink()
    assert status_of(rows[0]) == "missing"


def test_ids_rise_over_files_and_a_limit_reads_no_further(tmp_path: Path) -> None:
    members = ["z.jpg", "a.jpg", "m/a.jpg"]
    names = ["a.tar", "a-1.tar", "a b.tar", "a.b.tar", "ä.tar", "a\\.tar"]
    for name in names:
        write(tmp_path / name, [(member, b"") for member in members])
    for other in (".hidden.tar", "._a.tar", "a.tar.txt"):
        (tmp_path / other).write_bytes(b"no tar file")
    (tmp_path / "folder.tar").mkdir()
    ids = [row["image_id"] for row in listed(tmp_path / "*.tar")]
    assert ids == sorted(f"{name}/{member}".replace("\\", 2 * "\\") for name in names for member in members)
    (tmp_path / "ö.tar").write_bytes(b"no tar file")
    assert [row["image_id"] for row in listed(tmp_path / "*.tar", 4)] == ids[:4]


def test_an_address_is_a_file_or_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "with [x] and *"
    folder.mkdir()
    for name in ("a[1].tar", "a1.tar", "b.tar", "../b.tar"):
        write(folder / name, [("0.jpg", b"1")])
    for pattern, expected in (
        *[("a[1].tar", ["a[1].tar"]), ("a?.tar", ["a1.tar"]), ("*.tar", ["a1.tar", "a[1].tar", "b.tar"])],
        *[("b.tar", ["b.tar"]), ("[ab]*.tar", ["a1.tar", "a[1].tar", "b.tar"])],
        *[
            ("{b,a1}.tar", ["a1.tar", "b.tar"]),
            ("a{1..1}.tar", ["a1.tar"]),
            ("{b,a*}.tar", ["a1.tar", "a[1].tar", "b.tar"]),
        ],
        ("../with*/b.tar", ["b.tar"]),
    ):
        assert [row["image_id"] for row in listed(os.path.abspath(folder / pattern))] == [
            f"{name}/0.jpg" for name in expected
        ]
    for absent, sentence in (
        *[("c.tar", "nothing like"), ("c*.tar", "nothing like"), ("none/*.tar", "nothing like")],
        *[("no*/b.tar", "nothing like"), ("{b,c}.tar", "nothing like .*/c.tar"), ("{b,c*}.tar", "nothing like .*/c")],
        *[("../c.tar", "there is no tar file"), ("../{b,c}.tar", "there is no tar file .*/c.tar")],
    ):
        with pytest.raises(StorageError, match=sentence):
            listed(os.path.abspath(folder / absent))
    with pytest.raises(StorageError, match=r"or give tar files, --images '.*/\*.tar'"):
        listed(folder)


def test_labels_are_numbers_or_names_and_each_refusal_names_its_image(samples: Members, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("discs\nrings\n")
    flags = ["--class-names", tmp_path / "classes.txt"]
    words = {0: b"1\n", 3: b" discs ", 6: b""}
    mixed = [(name, words.get(i, content)) for i, (name, content) in enumerate(samples) if i != 9]
    write(tmp_path / "mixed.tar", mixed)
    assert label(tmp_path / "mixed.tar", tmp_path / "mixed", *flags).code == 0
    found = {row["image_id"].split("/")[1]: row["label"] for row in table_rows(tmp_path / "mixed", "images")}
    keys = [samples[i][0].split(".")[0] for i in (0, 3, 6, 9)]
    assert [found[f"{key}.png"] for key in keys] == [1, 0, None, None]
    key, picture = samples[1]
    write(tmp_path / "unknown.tar", [("0.cls", b"cat"), ("0.png", picture)])
    refused = label(tmp_path / "unknown.tar", tmp_path / "unknown", *flags)
    assert refused.code == 2
    assert "the tar gives 'unknown.tar/0.png' the label 'cat', which is no class" in refused.result["error"]
    write(tmp_path / "bare.tar", [(key, picture)])
    assert label(tmp_path / "bare.tar", tmp_path / "bare", *flags).code == 0
    assert request_of(tmp_path / "bare")["classes"] == "top1"
    assert label(tmp_path / "bare.tar", tmp_path / "bare", *flags).code == 0
    refused = label(tmp_path / "bare.tar", tmp_path / "needs", "--classes", "label", *flags)
    assert (refused.code, "has no members cls; add them" in refused.result["error"]) == (2, True)
    (tmp_path / "labels.csv").write_text(f"image_id,label\nbare.tar/{key},rings\n")
    done = label(tmp_path / "bare.tar", tmp_path / "csv", "--labels", tmp_path / "labels.csv", *flags)
    assert (done.code, table_rows(tmp_path / "csv", "images")[0]["label"]) == (0, 1)


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        ("x.tar", "folder", "--labels folder: tar files are no folders"),
        ("x.tar", "manifest", "--labels manifest needs --images FILE.parquet, FILE.csv"),
        ("photos", "tar", "--labels tar needs --images FILE.tar"),
        ("*.tar.gz", "none", "of a compressed tar file no picture can be read alone"),
        ("s3://bucket/x.tgz", "none", "of a compressed tar file no picture can be read alone"),
    ],
)
def test_flags_that_do_not_fit_tar_files_are_refused(tmp_path: Path, images: str, labels: str, sentence: str) -> None:
    refused = Command("label", "--images", images, "--out", tmp_path / "run", "--labels", labels, "--model", "resnet18")
    assert refused.code == 2
    assert sentence in refused.result["error"]


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


def test_tar_files_on_a_store_are_listed_and_read_as_on_a_disk(store: Store, samples: Members, tmp_path: Path) -> None:
    large = [("large.bin", bytes(3 * STORE_WINDOW_BYTES)), *samples[:3]]
    for name, members in (("0.tar", samples[3:]), ("1.tar", large)):
        write(tmp_path / name, members)
        put_object(store.address(f"tars/{name}"), (tmp_path / name).read_bytes(), store.options)
    put_object(store.address("tars/deeper/2.tar"), b"not looked at", store.options)
    store.proxy.heal()
    rows, local = listed(store.address("tars/*.tar"), options=store.options), listed(tmp_path / "*.tar")
    num_requests = len(store.proxy.requests)
    assert [row | {"uri": ""} for row in rows] == [row | {"uri": ""} for row in local]
    assert {row["uri"] for row in rows} == {store.address("tars/0.tar"), store.address("tars/1.tar")}
    for here, there in zip(local, rows, strict=True):
        content = read_image(there["uri"], there["offset"], there["size"], store.options)
        assert content == read_image(here["uri"], here["offset"], here["size"])
    if store.scheme == "s3":
        assert num_requests < 12  # windows: two for what lies around the large member, one for twelve small ones
    assert listed(store.address("tars/{0..1}.tar"), options=store.options) == rows
    with pytest.raises(StorageError, match=f"there is no tar file {store.address('tars/2.tar')}"):
        listed(store.address("tars/{0..2}.tar"), options=store.options)
    with pytest.raises(StorageError, match="there is no tar file"):
        listed(store.address("tars/none.tar"), options=store.options)
    with pytest.raises(StorageError, match="there is nothing like"):
        listed(store.address("tars/none*.tar"), options=store.options)
    with pytest.raises(StorageError, match="or give tar files"):
        listed(store.address("tars"), options=store.options)


def test_walk_stops_where_a_header_is_damaged_after_the_members_before_it() -> None:
    content = GOOD[:2560] + b"\1" + GOOD[2561:]
    members = walk(lambda at, size: content[at : at + size], len(content))
    assert [next(members).name, next(members).name] == ["0.cls", "0.jpg"]
    with pytest.raises(BadTar, match="no header at byte 2560"):
        next(members)
