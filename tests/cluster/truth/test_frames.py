"""A truth that was drawn before EXIF turned its pictures: told by sizes, asked for where they do not tell."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cam_ops.errors import BadImage
from cluster.formats.pixels.mask_pixels import read_mask
from tests.support.truths import Planned, Planner, coco, ours, refusal, wsol, xml

WIDTH, HEIGHT = 40, 20  # as stored
STORED = (3, 5, 14, 9)  # half-open


def seen(number: int, box: tuple[int, int, int, int] = STORED) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Return the size of a picture and the box of an object in it, as Pillow turns it."""
    inside_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    inside_HW[box[1] : box[3], box[0] : box[2]] = 1
    exif = Image.Exif()
    exif[274] = number
    stream = io.BytesIO()
    Image.fromarray(inside_HW).save(stream, "PNG", exif=exif)
    with Image.open(stream) as stored:
        picture = ImageOps.exif_transpose(stored)
        y_N, x_N = np.nonzero(np.asarray(picture))
        return picture.size, (int(x_N.min()), int(y_N.min()), int(x_N.max()) + 1, int(y_N.max()) + 1)


def write_all(folder: Path, box: tuple[float, ...], size: tuple[int, int] | None) -> dict[str, Path]:
    """Write one object, half-open in a picture of this size, in a format of each kind of coordinates."""
    x0, y0, x1, y1 = box
    wide, high = size or (0, 0)
    (folder / "voc").mkdir(parents=True)
    (folder / "voc" / "1.xml").write_text(xml(("kangaroo", (x0 + 1, y0 + 1, x1, y1)), size=(wide, high)))
    image = {"id": 1, "file_name": "1.jpg", **({"width": wide, "height": high} if size else {})}
    annotation = {"image_id": 1, "category_id": 7, "bbox": [x0, y0, x1 - x0, y1 - y0]}
    (folder / "coco.json").write_text(coco([image], [annotation]))
    (folder / "boxes.csv").write_text(f"image,x0,y0,x1,y1\n1,{x0},{y0},{x1},{y1}\n")
    (folder / "yolo" / "labels").mkdir(parents=True)
    whole = size or (WIDTH, HEIGHT)
    centre = ((x0 + x1) / 2 / whole[0], (y0 + y1) / 2 / whole[1], (x1 - x0) / whole[0], (y1 - y0) / whole[1])
    (folder / "yolo" / "labels" / "1.txt").write_text("0 " + " ".join(map(str, centre)))
    return {name: folder / name for name in ("voc", "coco.json", "boxes.csv", "yolo")}


def planned(number: int) -> Planned:
    return {"1.jpg": (*seen(number)[0], None)}


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("name", ["voc", "coco.json", "boxes.csv", "yolo"])
def test_a_truth_of_the_stored_picture_is_turned_with_it(
    planner: Planner, tmp_path: Path, name: str, number: int
) -> None:
    path = write_all(tmp_path / "truth", STORED, (WIDTH, HEIGHT))[name]
    size, box = seen(number)
    report, (row,) = planner.truth(planned(number), path, orientations={"1.jpg": number}, truth_frame="stored")
    assert (ours(row), report.problems.keys() - {"unknown_classes"}) == ([box], set())
    assert (row["truth_width"], row["truth_height"]) == size
    shift = 1 if name == "voc" else 0
    assert wsol(row) == [(box[0] + shift, box[1] + shift, box[2] - 1 + shift, box[3] - 1 + shift)]


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("name", ["voc", "coco.json", "boxes.csv", "yolo"])
def test_a_truth_of_what_is_seen_stays(planner: Planner, tmp_path: Path, name: str, number: int) -> None:
    size, box = seen(number)
    path = write_all(tmp_path / "truth", box, size)[name]
    report, (row,) = planner.truth(planned(number), path, orientations={"1.jpg": number}, truth_frame="oriented")
    assert (ours(row), report.problems.keys() - {"unknown_classes"}) == ([box], set())


@pytest.mark.parametrize("number", [5, 6, 7, 8])
@pytest.mark.parametrize("name", ["voc", "coco.json"])
@pytest.mark.parametrize("scale", [1, 2])
def test_sizes_tell_where_they_change_places(
    planner: Planner, tmp_path: Path, name: str, number: int, scale: int
) -> None:
    """Those of a larger copy, too."""
    size, box = seen(number)
    larger = tuple(scale * corner for corner in STORED)
    stored = write_all(tmp_path / "stored", larger, (scale * WIDTH, scale * HEIGHT))[name]
    report, (row,) = planner.truth(planned(number), stored, orientations={"1.jpg": number})
    assert ours(row) == [box]
    assert report.problems["stored_frame"].examples == ("1.jpg",)
    assert (row["truth_width"], row["truth_height"]) == (scale * size[0], scale * size[1])
    oriented = write_all(tmp_path / "oriented", box, size)[name]
    report, (row,) = planner.truth(planned(number), oriented, orientations={"1.jpg": number})
    assert (ours(row), "stored_frame" in report.problems) == ([box], False)


@pytest.mark.parametrize(
    ("number", "name", "size"),
    [
        *((number, "voc", (WIDTH, HEIGHT)) for number in (2, 3, 4)),
        *((number, "yolo", None) for number in range(2, 9)),
        *((number, "boxes.csv", None) for number in range(2, 9)),
        (6, "coco.json", None),
        (6, "voc", (33, 33)),
    ],
)
def test_where_sizes_do_not_tell_it_is_asked(
    planner: Planner, tmp_path: Path, number: int, name: str, size: tuple[int, int] | None
) -> None:
    path = write_all(tmp_path / "truth", STORED, size)[name]
    said = refusal(planner, planned(number), path, orientations={"1.jpg": number})
    assert "EXIF turns 1 pictures, such as 1.jpg" in said
    assert "give --truth-frame oriented" in said
    for frame in ("oriented", "stored"):
        planner.truth(planned(number), path, orientations={"1.jpg": number}, truth_frame=frame)


def test_a_square_picture_is_asked_for(planner: Planner, tmp_path: Path) -> None:
    path = write_all(tmp_path / "truth", STORED, (40, 40))["voc"]
    said = refusal(planner, {"1.jpg": (40, 40, None)}, path, orientations={"1.jpg": 6})
    assert "EXIF turns 1 pictures" in said


def test_the_count_is_that_of_the_images_where_it_matters(planner: Planner, tmp_path: Path) -> None:
    """Not of those without a box, with one that is the same either way, or that are not turned."""
    rows = {
        "upright.jpg": "3,5,14,9",
        "same.jpg": "10,5,30,15",
        "all.jpg": "0,0,40,20",
        "other.jpg": "3,5,14,9",
        "none.jpg": ",,,",
        "bad.jpg": "14,9,3,5",
    }
    path = tmp_path / "boxes.csv"
    path.write_text("image,x0,y0,x1,y1\n" + "".join(f"{name},{box}\n" for name, box in rows.items()))
    sizes: Planned = dict.fromkeys(rows, (WIDTH, HEIGHT, None))
    numbers = dict.fromkeys(["same.jpg", "all.jpg", "other.jpg", "none.jpg", "bad.jpg"], 3)
    assert "EXIF turns 1 pictures, such as other.jpg, " in refusal(planner, sizes, path, orientations=numbers)
    del numbers["other.jpg"]
    report, _ = planner.truth(sizes, path, orientations=numbers)
    assert list(report.problems) == ["bad_boxes"]


def test_what_others_tell_is_said(planner: Planner, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "truth", STORED, (WIDTH, HEIGHT))["voc"]
    (folder / "2.xml").write_bytes((folder / "1.xml").read_bytes())
    sizes: Planned = {"1.jpg": (HEIGHT, WIDTH, None), "2.jpg": (WIDTH, HEIGHT, None)}
    said = refusal(planner, sizes, folder, orientations={"1.jpg": 6, "2.jpg": 3})
    assert "EXIF turns 1 pictures, such as 2.jpg" in said
    assert "(1 others have the sizes of the stored ones)" in said


def test_pictures_that_are_gone(planner: Planner, tmp_path: Path) -> None:
    """It is said; where sizes say that the truth was drawn before, and nobody knows how to turn it, it is left out."""
    folder = write_all(tmp_path / "truth", STORED, (WIDTH, HEIGHT))["voc"]
    sizes: Planned = {"1.jpg": (WIDTH, HEIGHT, None)}
    report, (row,) = planner.truth(sizes, folder, orientations={"1.jpg": 0})
    assert (ours(row), row["num_missing"]) == ([STORED], 0)
    assert list(report.problems) == ["unknown_turn"]
    swapped: Planned = {"1.jpg": (HEIGHT, WIDTH, None)}
    for frame, of in (("auto", swapped), ("stored", sizes)):
        report, (row,) = planner.truth(of, folder, orientations={"1.jpg": 0}, truth_frame=frame)
        assert (ours(row), row["num_missing"], list(report.problems)) == ([], 1, ["lost_turn"])
    report, (row,) = planner.truth(swapped, folder, orientations={"1.jpg": 0}, truth_frame="oriented")
    assert (ours(row), list(report.problems)) == ([STORED], ["swapped_sizes"])


def test_sizes_that_deny_the_flag_are_said(
    planner: Planner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_all(tmp_path / "truth", STORED, (WIDTH, HEIGHT))["voc"]
    planner.truth(planned(6), folder, orientations={"1.jpg": 6}, truth_frame="oriented")
    assert "--truth-frame oriented was given, which they deny" in capsys.readouterr().err


def test_masks_are_turned_too(planner: Planner, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    Image.new("L", (WIDTH, HEIGHT), 1).save(folder / "1.png")
    sizes: Planned = {"1.jpg": (HEIGHT, WIDTH, None)}
    for frame, turn in (("auto", 6), ("stored", 6), ("oriented", 1)):
        _, (row,) = planner.truth(sizes, folder, orientations={"1.jpg": 6}, truth_frame=frame)
        assert row["turn"] == turn
    _, (row,) = planner.truth({"1.jpg": (WIDTH, HEIGHT, None)}, folder)
    assert row["turn"] == 1
    Image.new("L", (HEIGHT, WIDTH), 1).save(folder / "1.png")
    assert planner.truth(sizes, folder, orientations={"1.jpg": 6})[1][0]["turn"] == 1
    Image.new("L", (30, 30), 1).save(folder / "1.png")
    assert "EXIF turns 1 pictures" in refusal(planner, sizes, folder, orientations={"1.jpg": 6})
    (folder / "1.png").write_bytes(b"none")
    assert "EXIF turns 1 pictures" in refusal(planner, sizes, folder, orientations={"1.jpg": 6})


def with_exif(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = number
    return exif


@pytest.mark.parametrize("number", [3, 5, 6, 8])
@pytest.mark.parametrize("frame", ["auto", "oriented", "stored"])
@pytest.mark.parametrize("own", ["none", "the picture's"])
def test_a_mask_is_turned_once(planner: Planner, tmp_path: Path, number: int, frame: str, own: str) -> None:
    """With or without the picture's EXIF in the mask, it lies where Pillow shows the object."""
    inside_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    inside_HW[STORED[1] : STORED[3], STORED[0] : STORED[2]] = 1
    size, (x0, y0, x1, y1) = seen(number)
    inside_SS = np.zeros(size[::-1], bool)
    inside_SS[y0:y1, x0:x1] = True
    (folder := tmp_path / "masks").mkdir()
    mask = Image.fromarray(inside_HW if own != "none" or frame == "stored" or number != 3 else inside_SS)
    if own == "none" and frame == "oriented":
        mask = Image.fromarray(inside_SS)
    mask.save(folder / "1.png", **({"exif": with_exif(number)} if own != "none" else {}))
    if own == "none" and frame == "auto" and number == 3:
        assert "EXIF turns 1 pictures" in refusal(planner, planned(number), folder, orientations={"1.jpg": number})
        return
    _, (row,) = planner.truth(planned(number), folder, orientations={"1.jpg": number}, truth_frame=frame)
    side = WIDTH * HEIGHT
    mask_SS = read_mask(row["masks"], None, side, row["turn"], size)
    assert mask_SS is not None
    np.testing.assert_array_equal(
        mask_SS == 1, np.kron(inside_SS, np.ones((side // inside_SS.shape[0], side // inside_SS.shape[1]), bool))
    )


def test_a_mask_with_an_exif_that_is_not_the_pictures_frame_is_left_out(planner: Planner, tmp_path: Path) -> None:
    """Drawn in what is seen, and saved with the picture's EXIF: as a viewer shows it, it has another shape."""
    (folder := tmp_path / "masks").mkdir()
    Image.new("L", (HEIGHT, WIDTH), 1).save(folder / "1.png", exif=with_exif(6))
    _, (row,) = planner.truth(planned(6), folder, orientations={"1.jpg": 6})
    with pytest.raises(BadImage, match="has 40x20, the picture 20x40") as caught:
        read_mask(row["masks"], None, 8, row["turn"], (HEIGHT, WIDTH))
    assert caught.value.status == "mask of another shape"
