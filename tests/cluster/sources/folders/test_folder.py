"""Which files of a folder are pictures, on a disk and on stores; what is left out is said."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cam_ops.errors import StorageError
from cam_ops.pictures.formats import has_heif
from cluster.sources.kinds import open_listing
from cluster.sources.source import EVERYTHING, Asked
from tests.support.command import Command, listed, table_rows
from tests.support.stores import Store

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
READ = ("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "bmp", "dib", "tif", "tiff", "gif", "ppm", "pgm")
READ = (*READ, "pbm", "pnm", "avif", "jp2", "j2k")
FORM = {
    "jp2": "JPEG2000",
    "j2k": "JPEG2000",
    "webp": "WEBP",
    "avif": "AVIF",
    "gif": "GIF",
    "tif": "TIFF",
    "tiff": "TIFF",
}
FORM |= dict.fromkeys(("ppm", "pgm", "pbm", "pnm"), "PPM") | dict.fromkeys(("bmp", "dib"), "BMP")
FORM |= dict.fromkeys(("png", "apng"), "PNG")


def encoded(form: str, value: int = 200) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((24, 32, 3), value, np.uint8)).save(stream, form)
    return stream.getvalue()


def put(folder: Path, names: dict[str, bytes]) -> None:
    for name, content in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def ids_of(address: object, asked: Asked = EVERYTHING) -> list[str]:
    with open_listing(str(address), asked) as listing:
        return [image_id for batch in listing.batches() for image_id in batch["image_id"].to_pylist()]


def test_a_picture_of_each_suffix_is_read(tmp_path: Path) -> None:
    names = {f"class/{i:02d}.{suffix}": encoded(FORM.get(suffix, "JPEG")) for i, suffix in enumerate(READ)}
    put(tmp_path / "photos", {name.upper() if i % 2 else name: names[name] for i, name in enumerate(names)})
    done = Command("label", "--images", tmp_path / "photos", "--out", tmp_path / "run", "--executor", "inline", *TWO)
    assert (done.code, done.result["images"], done.result["ok"]) == (0, len(READ), len(READ)), done.err
    rows = table_rows(tmp_path / "run", "images")
    assert {(row["status"], row["width"], row["height"]) for row in rows} == {("ok", 32, 24)}
    first = rows[0]["top_scores"]
    np.testing.assert_allclose([row["top_scores"] for row in rows], [first] * len(rows), atol=0.02)
    shown = Command("show", tmp_path / "run", rows[-1]["image_id"])
    assert shown.code == 0


HIDDEN = {
    "cat/.ipynb_checkpoints/a-checkpoint.png": b"",
    ".Trash-1000/files/b.png": b"",
    "dog/@eaDir/c.png/SYNOPHOTO_THUMB_M.jpg": b"",
    "__MACOSX/cat/._a.png": b"",
    "$RECYCLE.BIN/d.png": b"",
    "System Volume Information/e.png": b"",
}
SYSTEM = {
    "cat/Thumbs.db": b"",
    "dog/.DS_Store": b"",
    "cat/._a.png": b"",
    "dog/desktop.ini": b"",
    "dog/.hidden.jpg": b"",
}
UNREAD = {"cat/x.jxl": b"", "cat/y.JXL": b"", "dog/z.dng": b"", "logo.svg": b"<svg/>"}
PLAIN = {"notes.txt": b"", "cat/labels.csv": b"", "LICENSE": b"words", "cat/video.mp4": b""}


def test_hidden_and_system_folders_and_files_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, {"cat/a.png": b"", "dog/b.jpg": b"", **HIDDEN, **SYSTEM, **UNREAD, **PLAIN})
    assert listed(str(tmp_path))["image_id"].to_pylist() == ["cat/a.png", "dog/b.jpg"]
    said = capsys.readouterr().err.splitlines()
    for sentence in (
        "6 hidden folders and those of systems and file managers are left out, such as '/",
        "5 hidden files and those of systems and file managers are left out, such as '/",
        "2 files .jxl are left out: JPEG XL is not read; convert them to PNG or JPEG, such as '/",
        "1 files .dng are left out: a camera's raw format is not read; convert them to PNG or JPEG, such as '/",
        "1 files .svg are left out: SVG is not read; convert them to PNG or JPEG, such as '/",
        "3 files of other kinds, by their suffix, are left out, such as '/",
    ):
        assert sum(sentence in line for line in said) == 1, (sentence, said)
    assert len(said) == 6


@pytest.mark.skipif(has_heif(), reason="pillow-heif is here")
def test_heic_is_said_with_its_cure_where_its_package_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, {"a.HEIC": b"", "b.heic": b"", "c.heif": b""})
    with pytest.raises(StorageError, match="found none"):
        listed(str(tmp_path))
    said = capsys.readouterr().err
    assert "2 files .heic are left out: HEIC is not read; pip install pillow-heif to have them read, such as '" in said


def test_a_folder_that_is_hidden_itself_is_searched(tmp_path: Path) -> None:
    put(tmp_path / ".cache" / "photos", {"a.png": b""})
    assert ids_of(tmp_path / ".cache" / "photos") == ["a.png"]


def test_files_without_suffix_are_known_by_their_first_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = {
        "cat/0001": encoded("JPEG"),
        "cat/IMG.0002": encoded("PNG"),
        "n01": encoded("GIF"),
        "seen 05.11": encoded("PPM"),
    }
    other = {"README": b"P5 is a format", "Makefile": b"BMP:", "clip": b"\0\0\0\x18ftypmp42\0\0\0\0", "empty": b""}
    put(tmp_path, {**bare, **other, "picture.dds": encoded("DDS"), "raw": encoded("DDS"), ".bare": encoded("PNG")})
    (tmp_path / "link").symlink_to("n01")
    (tmp_path / "nowhere").symlink_to("none")
    assert ids_of(tmp_path) == sorted([*bare, "link"])
    said = capsys.readouterr().err
    assert "5 files without a suffix are taken, as they begin as pictures do, such as '" in said
    assert "1 files without a suffix are left out: DDS is not read; convert them" in said


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


def test_a_store_has_the_same_pictures_and_says_the_same(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"cat/{i:02d}.{suffix}": b"x" for i, suffix in enumerate(READ)}
    put(tmp_path / "set", {**files, **dict.fromkeys((*HIDDEN, *SYSTEM, *UNREAD, *PLAIN), b"x")})
    address = store.put(tmp_path / "set", "names")
    assert ids_of(address, Asked(options=store.options)) == ids_of(tmp_path / "set") == sorted(files)
    lines = [line for line in capsys.readouterr().err.splitlines() if "LICENSE" not in line]
    texts = [line.partition(", such as")[0] for line in lines]
    half = len(texts) // 2
    assert sorted(texts[:half]) == sorted(texts[half:])
    assert half == 6
