"""Tables of boxes as people write them: other signs between cells, other words for columns; and LOC's, the same way."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.truths import HALF_OPEN, LAST_INSIDE, Planned, Planner, ours, refusal, wsol

ONE: Planned = {"1.jpg": (40, 20, None)}
TWO: Planned = {**ONE, "2.jpg": (40, 20, None)}


def write(folder: Path, text: str, name: str = "boxes.csv") -> Path:
    if name.endswith(".gz"):
        (folder / name).write_bytes(gzip.compress(text.encode()))
    else:
        (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("name", ["boxes.csv", "boxes.tsv", "boxes.csv.gz", "boxes.tsv.gz", "BOXES.CSV"])
@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_signs_between_cells_are_sniffed(planner: Planner, tmp_path: Path, name: str, sign: str) -> None:
    text = "image,x0,y0,x1,y1,class\n1.jpg,10,5,30,15,kangaroo\n".replace(",", sign)
    report, (row,) = planner.truth(ONE, write(tmp_path, text, name))
    assert (report.format, ours(row), row["boxes"][0]["class_id"]) == ("table", [HALF_OPEN], 0)


def test_quotes_and_a_byte_order_mark(planner: Planner, tmp_path: Path) -> None:
    text = '\ufeff"image";"x0";"y0";"x1";"y1";"class, by name"\r\n"1.jpg";10;5;30;15;"kangaroo"\r\n'
    _, (row,) = planner.truth(ONE, write(tmp_path, text))
    assert ours(row) == [HALF_OPEN]


@pytest.mark.parametrize(
    "header",
    [
        "filename,xmin,ymin,xmax,ymax,class",
        "file_name,XMin,YMin,XMax,YMax,LabelName",
        " FileName , x_min,y_min,x_max,y_max ,Class Name",
        "path,x1,y1,x2,y2,category",
        "Image Path,left,top,right,bottom,label",
        "ImageID,X0,Y0,X1,Y1,category-name",
        "img,xmin,ymin,xmax,ymax,class-id",
    ],
)
def test_columns_by_the_words_that_people_have(planner: Planner, tmp_path: Path, header: str) -> None:
    _, (row,) = planner.truth(ONE, write(tmp_path, f"{header}\n1.jpg,10,5,30,15,0\n"))
    assert (ours(row), row["boxes"][0]["class_id"]) == ([HALF_OPEN], 0)
    columns = dict(zip(header.split(","), [["1.jpg"], [10], [5], [30.0], [15], ["0"]], strict=True))
    pq.write_table(pa.table(columns), tmp_path / "boxes.parquet")
    _, (row,) = planner.truth(ONE, tmp_path / "boxes.parquet")
    assert (ours(row), row["boxes"][0]["class_id"]) == ([HALF_OPEN], 0)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("image_id,file_name,x0,y0,x1,y1", "the image may be image_id or file_name; leave one of them out"),
        ("image,x0,y0,x1,y1,xmin,ymin,xmax,ymax", "the box may be x0, y0, x1, y1 or xmin, ymin, xmax, ymax"),
        ("image,x0,y0,x1,y1,x2,y2", "the box may be x0, y0, x1, y1 or x1, y1, x2, y2"),
        ("image,x,y,width,height", "of x, y, width, height it is not known where the box begins"),
        ("image,bbox", "of bbox it is not known where the box begins"),
        ("/data/1.jpg,10,5,30,15,kangaroo", "its first line must name them"),
        ("name,x0,y0,x1,y1", "expected a column image_id or image, filename"),
        ("image,x0,y0,x1,y1,Class,class,CLASS,", ""),
        ("image,x0,y0,x1,y1,Class,CLASS", "several columns class: 'Class', 'CLASS'"),
        ("image;x0,y0;x1,y1", "is cut by ',' and ';' alike"),
    ],
)
def test_columns_with_two_meanings_are_asked_for(planner: Planner, tmp_path: Path, header: str, reason: str) -> None:
    cells = ",".join(["1.jpg", "10", "5", "30", "15", *["0"] * 9][: header.count(",") + 1])
    path = write(tmp_path, f"{header}\n{cells}\n")
    if reason:
        assert reason in refusal(planner, ONE, path)
    else:  # letter for letter before whatever the capitals
        assert planner.truth(ONE, path)[1][0]["boxes"][0]["class_id"] == 0


def test_columns_that_are_left_out_are_said(
    planner: Planner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "filename,xmin,ymin,xmax,ymax,name,class,category_id,"
    planner.truth(ONE, write(tmp_path, f"{header}\n1.jpg,10,5,30,15,cat,0,1,\n"))
    assert "truth: columns of boxes.csv that are left out: name, category_id, ''" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "size"),
    [
        ("1.jpg,40,20,10,5,30,15\n2.jpg,40,20,10,5,30,15\n", (40, 20)),  # of the picture, as TensorFlow's
        ("1.jpg,20,10,10,5,30,15\n2.jpg,20,10,10,5,30,15\n", (40, 20)),  # of the box
        ("1.jpg,21,11,10,5,30,15\n2.jpg,21,11,10,5,30,15\n", (40, 20)),  # of the box, its last pixel counted
        ("1.jpg,80,40,10,5,30,15\n2.jpg,80,40,10,5,30,15\n", (80, 40)),  # of a copy of the picture
        ("1.jpg,,,10,5,30,15\n2.jpg,40.0,20.0,10,5,30,15\n", (40, 20)),  # as pandas writes what lacks
        ("1.jpg,x,,10,5,30,15\n", None),
    ],
)
def test_width_and_height_are_the_boxes_where_they_cannot_be_the_pictures(
    planner: Planner, tmp_path: Path, rows: str, size: tuple[int, int] | None
) -> None:
    path = write(tmp_path, f"filename,width,height,xmin,ymin,xmax,ymax\n{rows}")
    if size is None:
        assert "invalid value 'x'" in refusal(planner, ONE, path)
        return
    report, found = planner.truth(TWO, path)
    assert [(row["truth_width"], row["truth_height"]) for row in found] == [size] * 2
    scale = 40 / size[0]
    assert [ours(row) for row in found] == [[tuple(scale * corner for corner in HALF_OPEN)]] * 2
    assert list(report.problems) == (["other_sizes"] if scale != 1 else [])


def test_numbers_that_lack(planner: Planner, tmp_path: Path) -> None:
    """A row without corners is an image without boxes; one that lacks one of them is a box that cannot be used."""
    rows = "1.jpg,NA,NA,NA,NA,NA\n2.jpg,10,5,30,15,NA\n3.jpg,10,5,,15,None\n4.jpg,,,,,\n"
    planned: Planned = {f"{number}.jpg": (40, 20, None) for number in range(1, 5)}
    report, found = planner.truth(
        planned, write(tmp_path, f"image,x0,y0,x1,y1,class\n{rows}"), names=("NA", "None", "c", "d")
    )
    assert [ours(row) for row in found] == [[], [HALF_OPEN], [], []]
    assert [row["num_missing"] for row in found] == [0, 0, 1, 0]
    assert found[1]["boxes"][0]["class_id"] == 0  # a class may be called so
    assert report.problems["bad_boxes"].examples == ("3.jpg: 10 5 nan 15",)


def test_fractions_are_asked_for_and_read(planner: Planner, tmp_path: Path) -> None:
    """Open Images' columns: fractions of the picture, and groups."""
    text = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n1,kangaroo,0.25,0.75,0.25,0.75,0\n1,kangaroo,0,1,0,1,1\n"
    path = write(tmp_path, text)
    said = refusal(planner, ONE, path)
    assert "2 of 2 boxes" in said
    assert "--truth-format table-fractions" in said
    report, (row,) = planner.truth(ONE, path, truth_format="table-fractions")
    assert (ours(row), report.problems) == ([HALF_OPEN, (0, 0, 40, 20)], {})
    assert [box["crowd"] for box in row["boxes"]] == [False, True]
    whole = write(tmp_path, "image,x0,y0,x1,y1\n1,0,0,1,1\n")
    assert ours(planner.truth(ONE, whole)[1][0]) == [(0, 0, 1, 1)]  # a pixel


@pytest.mark.parametrize(
    "other", ["0.1,0.1,0.5,1.0000001", "-0.001,0.1,0.5,1", "0,0,1,1", "0.5,0.5,1.4,0.9", "9,9,30,15"]
)
def test_one_box_that_leaves_the_fractions_changes_nothing(planner: Planner, tmp_path: Path, other: str) -> None:
    path = write(tmp_path, f"image,x0,y0,x1,y1\n1,0.25,0.25,0.75,0.75\n1,0.1,0.2,0.5,0.9\n1,{other}\n")
    assert "of 3 boxes" in refusal(planner, ONE, path)


def test_pixels_are_no_fractions(planner: Planner, tmp_path: Path) -> None:
    """A single one costs its own image."""
    path = write(tmp_path, "image,x0,y0,x1,y1\n1,10,5,30,15\n1,0.1,0.2,0.5,0.9\n")
    said = refusal(planner, ONE, path, truth_format="table-fractions")
    assert "1 of 2 boxes" in said
    assert "such as 10 5 30 15: fractions" in said
    more = "2,0.25,0.25,0.75,0.75\n" * 2
    planned: Planned = ONE | {"2.jpg": (40, 20, None)}
    (path := tmp_path / "more.csv").write_text(f"image,x0,y0,x1,y1\n1,10,5,30,15\n{more}")
    report, rows = planner.truth(planned, path, truth_format="table-fractions")
    assert report.problems["bad_boxes"].examples == ("1.jpg: 10 5 30 15",)
    assert [row["num_missing"] for row in rows] == [1, 0]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_imagenets_list_is_read_the_same_way(planner: Planner, tmp_path: Path, sign: str) -> None:
    rows = "1,kangaroo 10 5 29 14 kangaroo 1 2 3 x,-\n2,kangaroo 1 2 3,-\n3,,-\n4,kangaroo 10 5 29 14,-\n"
    text = f" imageid ,PredictionString,extra\n{rows}".replace(",", sign)
    planned: Planned = {f"{number}.jpg": (40, 20, None) for number in range(1, 5)}
    report, found = planner.truth(planned, write(tmp_path, text))
    assert (report.format, [row["num_missing"] for row in found]) == ("loc", [1, 1, 0, 0])
    assert (ours(found[3]), wsol(found[3])) == ([HALF_OPEN], [LAST_INSIDE])
    assert report.problems["unusable_objects"].examples == (
        "1.jpg: line 2: expected four numbers, found ['1', '2', '3', 'x']",
        "2.jpg: line 3: expected five words a box, found 4",
    )


@pytest.mark.parametrize("columns", ["class,class_name", "category,label", "class_id,label_name"])
def test_a_number_and_a_name_must_be_one_class(planner: Planner, tmp_path: Path, columns: str) -> None:
    rows = "1,1,2,3,4,0,Kangaroo\n1,5,5,6,6,1.0,crane\n1,7,7,8,8,Crane,0\n1,7,8,8,9,0,\n"
    path = write(tmp_path, f"image,x0,y0,x1,y1,{columns}\n{rows}")
    _, (row,) = planner.truth(ONE, path, names=("kangaroo", "Crane"))
    assert [box["class_id"] for box in row["boxes"]] == [0, 1, 1, 0]
    path.write_text(f"image,x0,y0,x1,y1,{columns}\n{rows}1,3,3,4,4,1,kangaroo\n")
    assert "two columns for the class, which are not the same: '1' and 'kangaroo'" in refusal(planner, ONE, path)
    given = {"class_map": ("1=kangaroo", "1.0=Crane")}
    _, (row,) = planner.truth(ONE, path, names=("kangaroo", "Crane"), **given)
    assert [box["class_id"] for box in row["boxes"]] == [0, 1, 1, 0, 0]
    path.write_text(f"image,x0,y0,x1,y1,{columns}\n1,1,2,3,4,1,wallaby\n")
    assert "'1' and 'wallaby'" in refusal(planner, ONE, path)


def test_sizes_of_boxes_with_a_slip_are_still_those_of_boxes(
    planner: Planner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "filename,width,height,xmin,ymin,xmax,ymax"
    rows = "1.jpg,20,10,10,5,30,15\n1.jpg,2,2,3,3,5,5\n"
    path = write(tmp_path, f"{header}\n{rows}1.jpg,18,10,5,5,20,15\n")
    report, (row,) = planner.truth(ONE, path)
    assert (ours(row), report.problems) == ([HALF_OPEN, (3, 3, 5, 5), (5, 5, 20, 15)], {})
    assert "are the box's in 2 of 3 rows" in capsys.readouterr().err
    path.write_text(f"{header}\n{rows}{'1.jpg,40,20,5,5,20,15' + chr(10)}{'1.jpg,40,20,5,6,20,15' + chr(10)}")
    assert "width and height are the box's in 2 of 4 rows" in refusal(planner, ONE, path)
    path.write_text(path.read_text().replace("width,height", "image_width,image_height", 1))
    assert planner.truth(ONE, path)[0].problems["several_sizes"].count == 1


@pytest.mark.parametrize(
    ("cell", "is_crowd"), [("-1", False), ("", False), ("0.0", False), ("False", False), ("1.0", True), (" TRUE", True)]
)
def test_crowds_as_tools_write_them(planner: Planner, tmp_path: Path, cell: str, is_crowd: bool) -> None:
    path = write(tmp_path, f"image,x0,y0,x1,y1,IsGroupOf\n1,10,5,30,15,{cell}\n")
    assert [box["crowd"] for box in planner.truth(ONE, path)[1][0]["boxes"]] == [is_crowd]


def test_cells_that_are_no_numbers_are_named(planner: Planner, tmp_path: Path) -> None:
    path = write(tmp_path, "image,x0,y0,x1,y1,IsGroupOf\n1,10,5,30,15,yes\n")
    assert "column IsGroupOf: expected 0 or 1, true or false, found 'yes'" in refusal(planner, ONE, path)
    path.write_text("image;note;x0;y0;x1;y1\n1;-;10,5;5;30;15\n")
    said = refusal(planner, ONE, path)
    assert "column x0: " in said
    assert "invalid value '10,5'; write a point for the decimal comma" in said


def test_parquets_nan_is_no_number_either(planner: Planner, tmp_path: Path) -> None:
    nan = float("nan")
    columns = {"image": ["1", "2"], "x0": [10, nan], "y0": [5, nan], "x1": [30.0, nan], "y1": [15, nan]}
    pq.write_table(pa.table(columns), tmp_path / "boxes.parquet")
    report, rows = planner.truth(TWO, tmp_path / "boxes.parquet")
    assert ([ours(row) for row in rows], report.problems) == ([[HALF_OPEN], []], {})
