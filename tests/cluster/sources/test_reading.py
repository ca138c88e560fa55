"""EXIF's orientation of planned pictures, read from files, tar files and a store; and where it cannot be."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cam_ops.pictures.orientation import UNKNOWN_TURN
from cluster.sources.reading import HEAD_BYTES, orientations
from cluster.storage.options import NO_OPTIONS
from tests.support.stores import Store

WIDTH, HEIGHT = 40, 20


def picture(number: int, form: str = "JPEG", **more: Any) -> bytes:
    exif = Image.Exif()
    exif[274] = number
    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(stream, form, exif=exif, **more)
    return stream.getvalue()


def row(uri: str, number: int, offset: int = 0, size: int = -1) -> dict[str, Any]:
    width, height = (HEIGHT, WIDTH) if number >= 5 else (WIDTH, HEIGHT)
    return {"uri": uri, "offset": offset, "size": size, "width": width, "height": height, "image_id": "1"}


def test_files_of_every_kind(tmp_path: Path) -> None:
    rows = []
    for number in range(1, 9):
        for form in ("JPEG", "PNG", "WEBP", "TIFF"):
            path = tmp_path / f"{number}.{form.lower()}"
            path.write_bytes(picture(number, form))
            rows.append(row(path.as_uri(), number))
    assert orientations(rows, NO_OPTIONS) == [number for number in range(1, 9) for _ in range(4)]


def test_a_jpeg_with_a_long_header_and_a_large_png(tmp_path: Path) -> None:
    pixels_HW3 = np.random.default_rng(0).integers(0, 255, (600, 300, 3), np.uint8)  # beyond what is read first
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels_HW3).save(tmp_path / "1.png", exif=exif)
    assert (tmp_path / "1.png").stat().st_size > HEAD_BYTES
    (tmp_path / "2.jpg").write_bytes(picture(8, icc_profile=bytes(2 * HEAD_BYTES)))
    large = {**row((tmp_path / "1.png").as_uri(), 6), "width": 600, "height": 300}
    assert orientations([large, row((tmp_path / "2.jpg").as_uri(), 8)], NO_OPTIONS) == [6, 8]


def test_pictures_inside_tar_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number in (3, 6):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(picture(number))
            tar.addfile(member, io.BytesIO(picture(number)))
    with tarfile.open(tmp_path / "0.tar") as tar:
        rows = [
            row((tmp_path / "0.tar").as_uri(), int(member.name[0]), member.offset_data, member.size) for member in tar
        ]
    assert orientations(rows, NO_OPTIONS) == [3, 6]


def test_what_cannot_be_read_or_is_another_picture_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(picture(6)[:100])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "turned since.jpg").write_bytes(picture(1))
    rows = [row((tmp_path / name).as_uri(), 6) for name in ("gone.jpg", "broken.jpg", "empty.jpg", "turned since.jpg")]
    assert orientations(rows, NO_OPTIONS) == [UNKNOWN_TURN] * 4
    assert orientations([], NO_OPTIONS) == []


def test_a_store_and_one_that_is_gone(s3: Store, tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(picture(6))
    s3.put(tmp_path, "turned")
    found = row(s3.address("turned/1.jpg"), 6)
    assert orientations([found, row(s3.address("turned/2.jpg"), 6)], s3.options) == [6, UNKNOWN_TURN]


@pytest.mark.parametrize("count", [1, 40])
def test_raw_pixels_are_not_turned(count: int) -> None:
    rows = [{**row("/data/train_X.bin", 1, 27648 * i, 27648), "width": 96, "height": 96} for i in range(count)]
    assert orientations(rows, NO_OPTIONS) == [1] * count
