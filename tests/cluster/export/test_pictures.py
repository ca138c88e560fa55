"""Pictures of an export: upright for every reader, of every source, links and copies, what is gone or changed."""

import os
import shutil
import tarfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from cam_ops.errors import BadImage
from cluster.export.pictures import Ready, own_file, read_ready
from cluster.storage.objects import put_object, remove_object
from cluster.storage.options import NO_OPTIONS, StorageOptions
from tests.cluster.export.conftest import TWO
from tests.cluster.sources.test_cifar import write_ten
from tests.cluster.sources.test_stl10 import write_pictures
from tests.support.command import Command, listed
from tests.support.pictures import load_picture
from tests.support.stores import Store
from tests.support.tables import hub_table

ORIENTATION = 274
XMP = '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/>'
LOSSLESS = {"PNG", "TIFF"}


def scene(width: int = 48, height: int = 32) -> Image.Image:
    """Return a smooth picture of which no turn is like another."""
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([columns * 5, rows * 7, columns + rows], axis=2).clip(0, 255).astype(np.uint8))


def encoded(form: str, **more: Any) -> bytes:
    file = BytesIO()
    scene().save(file, form, **more)
    return file.getvalue()


def row_of(path: Path, content: bytes, seen: tuple[int, int], size: int | None = None) -> dict[str, Any]:
    """Write a picture; return its row as a run's images table has it."""
    path.write_bytes(content)
    size = len(content) if size is None else size
    return {"uri": path.as_uri(), "offset": 0, "size": size, "width": seen[0], "height": seen[1]}


def ready(
    row: dict[str, Any], *, link: bool = False, jpeg: bool = False, options: StorageOptions = NO_OPTIONS
) -> Ready:
    return read_ready(row, options, may_link=link, as_jpeg=jpeg)


def pixels_of(content: bytes) -> np.ndarray:
    """Return what a reader that knows nothing of orientation sees, which must be what one sees that does."""
    with Image.open(BytesIO(content)) as image:
        stored, turned = np.asarray(image.convert("RGB")), np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(stored, turned)
    return stored.astype(np.int64)


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("number", range(1, 9))
def test_a_picture_that_exif_turns_goes_out_upright(tmp_path: Path, number: int, form: str, link: bool) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = number
    content = encoded(form, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(content))).convert("RGB")
    found = ready(row_of(tmp_path / "1", content, upright.size), link=link)
    assert found.is_new == (number > 1)
    if number == 1:  # as it is
        assert (found.path, found.content or content) == (str(tmp_path / "1") if link else None, content)
        return
    assert (found.path, found.form.pillow) == (None, "PNG" if form in LOSSLESS else "JPEG")
    off_HWC = np.abs(pixels_of(found.content) - np.asarray(upright, np.int64))
    assert off_HWC.max() == 0 if form in LOSSLESS else off_HWC.mean() < 2


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("number", [1, 6])
def test_a_picture_that_only_xmp_turns_goes_out_as_the_run_saw_it(tmp_path: Path, number: int, link: bool) -> None:
    """Pillow turns it, and so does what reads by Pillow; OpenCV, by which the run saw it, does not."""
    content = encoded("JPEG", xmp=XMP.format(number).encode())
    assert ImageOps.exif_transpose(Image.open(BytesIO(content))).size == ((48, 32) if number == 1 else (32, 48))
    found = ready(row_of(tmp_path / "1.jpg", content, (48, 32)), link=link)
    assert found.is_new == (number > 1)
    assert pixels_of(found.content or content).shape == (32, 48, 3)


FEW_READ = {"HEIF": "JPEG", "AVIF": "JPEG", "JPEG2000": "JPEG", "GIF": "PNG", "PPM": "PNG"}


@pytest.mark.parametrize("jpeg", [False, True])
@pytest.mark.parametrize("form", FEW_READ)
def test_a_format_that_few_read_is_written_as_one_that_all_do(tmp_path: Path, form: str, jpeg: bool) -> None:
    pillow_heif.register_heif_opener()
    content = encoded(form)
    with Image.open(BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"), np.int64)
    found = ready(row_of(tmp_path / "1", content, (48, 32)), link=True, jpeg=jpeg)
    assert (found.form.pillow, found.path) == ("JPEG" if jpeg else FEW_READ[form], None)
    assert np.abs(pixels_of(found.content) - expected).mean() < 3
    if found.form.pillow == "PNG":
        assert np.array_equal(pixels_of(found.content), expected)


def test_a_source_s_pictures_go_out_with_the_pixels_that_the_run_saw(tmp_path: Path) -> None:
    """Of tar members, cells of a table, CIFAR's and STL10's binary files; a file of its own goes out as it is."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "pictures" / "a"
    folder.mkdir(parents=True)
    for number, form in enumerate(("jpg", "png", "webp", "bmp", "tif")):
        scene(40 + number).save(folder / f"{number}.{form}")
    paths = sorted(folder.iterdir())
    with tarfile.open(tmp_path / "1.tar", "w") as tar:
        for path in paths:
            tar.add(path, path.name)
    pq.write_table(hub_table(paths, ["a"]), tmp_path / "1.parquet", row_group_size=2)
    write_ten(tmp_path / "cifar")
    (tmp_path / "stl").mkdir()
    write_pictures(tmp_path / "stl" / "train_X.bin", [generator.integers(0, 256, (96, 96, 3), np.uint8)] * 2)
    expected = {"pictures": 5, "1.tar": 5, "1.parquet": 5, "cifar": 6, "stl": 2}
    for source, number in expected.items():
        rows = listed(str(tmp_path / source)).to_pylist()
        assert len(rows) == number
        for row in rows:
            seen_HWC = load_picture(row)
            found = ready(row | {"width": seen_HWC.shape[1], "height": seen_HWC.shape[0]})
            name = row["image_id"].rpartition("/")[2]
            if source in ("cifar", "stl"):
                assert (found.form.pillow, found.is_new) == ("PNG", True)
                assert np.array_equal(pixels_of(found.content), seen_HWC)
            else:
                assert found.content == (folder / name).read_bytes()
            assert bool(own_file(row)) == (source == "pictures")


def labelled(images: Path, out: Path, *more: object) -> Path:
    done = Command("label", "--images", images, "--out", out, *TWO, "--executor", "inline", *more)
    assert done.code == 0, done.err
    return out


def yolo(run: Path, out: Path, *more: object) -> Command:
    done = Command("export", run, "--to", "yolo", "--out", out, "--executor", "inline", "--split", "train=1", *more)
    assert done.code == 0, done.err
    return done


def test_links_are_hard_and_lead_to_the_file_itself(pictures: Path, tmp_path: Path) -> None:
    through = tmp_path / "links"  # as a cache of the hub has its files: relative links
    for path in sorted(pictures.glob("*/*.png")):
        place = through / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(path, place.parent))
    run = labelled(through, tmp_path / "run")
    yolo(run, tmp_path / "linked")
    found = sorted((tmp_path / "linked" / "images" / "train").glob("*/*.png"))
    assert len(found) == 12
    for link in found:
        assert not link.is_symlink()
        assert link.samefile(pictures / link.parent.name / link.name)
    yolo(run, tmp_path / "copied", "--pictures", "copy")
    for link in found:
        copy = tmp_path / "copied" / link.relative_to(tmp_path / "linked")
        assert (copy.read_bytes(), copy.samefile(link)) == (link.read_bytes(), False)


def test_links_to_another_file_system_are_symbolic(pictures: Path, tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm as another file system")
    out = other / f"camray-test-{os.getpid()}"
    try:
        yolo(labelled(pictures, tmp_path / "run"), out)
        found = sorted((out / "images" / "train").glob("*/*.png"))
        assert [link.is_symlink() for link in found] == [True] * 12
        assert all(link.samefile(pictures / link.parent.name / link.name) for link in found)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def test_a_picture_has_the_suffix_of_what_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "1.png").write_bytes(encoded("JPEG"))
    (folder / "2.JPEG").write_bytes(encoded("JPEG"))
    (folder / "3.jpg").write_bytes(encoded("PNG"))
    yolo(labelled(folder, tmp_path / "run"), tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out" / "images" / "train").iterdir())
    assert names == ["1.jpg", "2.JPEG", "3.png"]
    assert sorted(path.stem for path in (tmp_path / "out" / "labels" / "train").iterdir()) == ["1", "2", "3"]


@pytest.mark.parametrize("choice", ["link", "copy"])
def test_pictures_that_are_gone_or_changed_are_left_out_and_counted(
    pictures: Path, tmp_path: Path, choice: str
) -> None:
    (pictures / "discs" / "cut.png").write_bytes((pictures / "discs" / "01.png").read_bytes()[:900])
    run = labelled(pictures, tmp_path / "run", "--max-error-rate", 0.5)
    gone, smaller, cut, other = (pictures / "rings" / f"{number:02d}.png" for number in (0, 2, 4, 6))
    gone.unlink()
    Image.new("RGB", (10, 10)).save(smaller)
    cut.write_bytes(cut.read_bytes()[:-30])
    with Image.open(other) as image:  # of the same size, another file
        ImageOps.invert(image).save(other)
    words = ["--to", "yolo", "--split", "train=1", "--out", tmp_path / "out", "--pictures", choice, "--keep-empty"]
    done = Command("export", run, *words)
    lost = "4 of 12 pictures are not where and as the run found them"
    assert (done.code, lost in done.err, done.result["error"]) == (3, True, lost)
    left_out = {"picture gone since the run": 1, "picture changed since the run": 3, "truncated": 1}
    assert done.result["images_left_out"] == left_out
    left = {path.relative_to(pictures).with_suffix("") for path in pictures.glob("*/*.png")}
    left -= {path.relative_to(pictures).with_suffix("") for path in (smaller, cut, other)} | {Path("discs/cut")}
    for kind in ("images", "labels"):
        root = tmp_path / "out" / kind / "train"
        assert {path.relative_to(root).with_suffix("") for path in root.glob("*/*")} == left


def test_a_picture_that_was_cut_without_a_known_size_is_found_by_its_pixels_alone(tmp_path: Path) -> None:
    content = encoded("PNG")
    row = row_of(tmp_path / "1.png", content, (48, 32), size=-1)  # a manifest says nothing of bytes
    assert ready(row).content == content
    for other in (b"", content[:20], b"no picture at all", scene(47).tobytes()):
        (tmp_path / "1.png").write_bytes(other)
        for link in (False, True):
            with pytest.raises(BadImage):
                ready(row, link=link)


def test_pictures_on_a_store_are_written_and_those_that_changed_left_out(s3: Store, tmp_path: Path) -> None:
    content, options, names = encoded("JPEG"), s3.options, ("same.jpg", "gone.jpg", "longer.jpg")
    for name in names:
        put_object(s3.address(f"ready/{name}"), content, options)
    rows = {row["image_id"]: row for row in listed(s3.address("ready"), options=options).to_pylist()}
    same, gone, longer = (rows[name] | {"width": 48, "height": 32} for name in names)
    assert own_file(same) == s3.address("ready/same.jpg")
    assert ready(same, link=True, options=options) == ready(same, options=options)
    assert ready(same, options=options).content == content
    remove_object(gone["uri"], options)
    put_object(longer["uri"], content + b"\0" * 100, options)
    for row in (gone, longer):
        with pytest.raises(BadImage):
            ready(row, options=options)


def test_links_to_a_store_are_copies(s3: Store, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in sorted(pictures.glob("*/*.png"))))
    run = labelled(tmp_path / "list.txt", tmp_path / "run")
    done = yolo(run, s3.address("linked"), "--pictures", "link", "--storage-options", *s3.words)
    assert done.result["exported"] == 12
    found = sorted((s3.folder / "linked" / "images" / "train").rglob("*.png"))
    assert sorted(zlib.crc32(path.read_bytes()) for path in found) == sorted(
        zlib.crc32(path.read_bytes()) for path in pictures.glob("*/*.png")
    )
