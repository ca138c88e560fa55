"""Pascal VOC: polygons, parts, and files and objects that say nothing."""

from pathlib import Path

import pytest

from tests.support.truths import FROM_1, HALF_OPEN, LAST_INSIDE, Planned, Planner, ours, wsol, xml

ONE: Planned = {"1.jpg": (40, 20, None)}
TWO: Planned = {**ONE, "2.jpg": (40, 20, None)}
BOX = "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>15</ymax></bndbox>"
POINTS = ((11, 6), (30, 6), (30, 15), (11, 15))
NUMBERED = "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in enumerate(POINTS, 1))
LISTED = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in POINTS)
PART = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"


def write(folder: Path, *objects: str, name: str = "1.xml") -> Path:
    folder.mkdir(exist_ok=True)
    things = "".join(f"<object>{thing}</object>" for thing in objects)
    (folder / name).write_text(xml().replace("</annotation>", f"{things}</annotation>"))
    return folder


@pytest.mark.parametrize(
    "thing",
    [
        BOX,
        f"{BOX}{PART}",
        f"{PART}{BOX}",
        BOX.replace("11<", " 11.0 <").replace("15<", "1.5e1<"),
        f"<polygon>{NUMBERED}</polygon>",
        f"<polygon><username>a</username>{LISTED}</polygon>",
        f"<bndbox><xmin/><ymin>6</ymin></bndbox><polygon>{NUMBERED}</polygon>",
        f"<polygon><x1>1</x1><y1>1</y1><x2>2</x2><y2>2</y2><x3>3</x3><y3>3</y3></polygon>{BOX}",
    ],
    ids=["box", "parts", "parts first", "floats", "numbered", "points", "half a box", "box and polygon"],
)
def test_an_object_is_its_box_or_that_of_its_polygon(planner: Planner, tmp_path: Path, thing: str) -> None:
    folder = write(tmp_path / "voc", f"<name> kangaroo </name>{thing}")
    report, (row,) = planner.truth(ONE, folder)
    assert (ours(row), wsol(row), report.problems) == ([HALF_OPEN], [FROM_1], {})
    assert row["boxes"][0]["class_id"] == 0


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        ("", "no bndbox, and no polygon"),
        ("<name>kangaroo</name>", "no bndbox, and no polygon"),
        (f"<name>kangaroo</name>{PART}", "no bndbox, and no polygon"),
        ("<robndbox><cx>1</cx></robndbox>", "no bndbox, and no polygon"),
        ("<bndbox/>", "no number bndbox/xmin, ymin, xmax, ymax"),
        (BOX.replace("30", "wide"), "no number bndbox/xmax"),
        (BOX.replace("30", "inf"), "no number bndbox/xmax"),
        (BOX + BOX, "it has 2 bndbox"),
        ("<polygon><pt><x>1</x><y>2</y></pt><pt><x>3</x><y>4</y></pt></polygon>", "3 points"),
    ],
)
def test_an_object_without_a_box_is_counted(planner: Planner, tmp_path: Path, thing: str, reason: str) -> None:
    folder = write(tmp_path / "voc", f"<name>kangaroo</name>{BOX}", thing)
    write(folder, f"<name>kangaroo</name>{BOX}", name="2.xml")
    report, rows = planner.truth(TWO, folder)
    assert [row["num_missing"] for row in rows] == [1, 0]
    (example,) = report.problems["unusable_objects"].examples
    assert example.startswith("1.jpg: 1.xml object 2: ")
    assert reason in example


def test_other_files_are_counted_and_cost_no_other(planner: Planner, tmp_path: Path) -> None:
    folder = write(tmp_path / "voc", f"<name>kangaroo</name>{BOX}")
    (folder / "2.xml").write_text(xml(("kangaroo", FROM_1))[:-30])  # cut
    (folder / "project.xml").write_text("<project/>")
    (folder / "3.xml").write_bytes(b"\xff\xfe\x00broken")
    (folder / "4.xml").write_text('<!DOCTYPE annotation SYSTEM "a.dtd"><annotation/>')
    for hidden in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        write(folder / hidden, f"<name>kangaroo</name>{BOX}")
    write(folder, f"<name>kangaroo</name>{BOX}", name="._1.xml")
    planned: Planned = {f"{number}.jpg": (40, 20, None) for number in range(1, 5)}
    report, rows = planner.truth(planned, folder)
    assert [row["num_missing"] for row in rows] == [0, 1, 1, 1]
    assert ours(rows[0]) == [HALF_OPEN]
    assert {name: problem.count for name, problem in report.problems.items()} == {
        "entries_without_image": 1,
        "unusable_objects": 3,
    }
    assert report.problems["entries_without_image"].examples == (
        "project.xml: expected the element annotation, found project",
    )
    reasons = " ".join(report.problems["unusable_objects"].examples)
    assert all(reason in reasons for reason in ("2.xml: it is no whole XML", "3.xml: ", "4.xml: it has a DTD"))


def test_deleted_objects_are_none(planner: Planner, tmp_path: Path) -> None:
    folder = write(tmp_path / "voc", f"<name>a</name><deleted>1</deleted>{BOX}", f"<deleted>0</deleted>{BOX}")
    _, (row,) = planner.truth(ONE, folder)
    assert (ours(row), row["num_missing"]) == ([HALF_OPEN], 0)


@pytest.mark.parametrize(
    "size", ["<size/>", "<size><width/><height>20</height></size>", "", "<size><width>x</width></size>"]
)
def test_a_size_that_is_none_is_the_pictures(planner: Planner, tmp_path: Path, size: str) -> None:
    (tmp_path / "voc").mkdir()
    text = xml(("kangaroo", FROM_1)).replace("<size><width>40</width><height>20</height></size>", size)
    (tmp_path / "voc" / "1.xml").write_text(text)
    report, (row,) = planner.truth(ONE, tmp_path / "voc")
    assert (ours(row), row["truth_width"], report.problems) == ([HALF_OPEN], 40, {})
    assert wsol(row) == [FROM_1] != [LAST_INSIDE]


def test_what_counts_from_zero_is_said_and_asked_for(planner: Planner, tmp_path: Path) -> None:
    (folder := tmp_path / "voc").mkdir()
    (folder / "1.xml").write_text(xml(("kangaroo", (0, 0, 40, 20)), ("kangaroo", (10, 5, 30, 15))))
    (folder / "2.xml").write_text(xml(("kangaroo", (1, 1, 40, 20))))
    report, rows = planner.truth(TWO, folder)
    assert [ours(row) for row in rows] == [[(-1, -1, 40, 20), (9, 4, 30, 15)], [(0, 0, 40, 20)]]
    assert (report.problems["zero_based"].count, report.problems["zero_based"].examples) == (1, ("1.jpg: 0 0 40 20",))
    for name, found in (
        ("voc-half-open", [[(0, 0, 40, 20), HALF_OPEN], [(1, 1, 40, 20)]]),
        ("voc-inclusive", [[(0, 0, 41, 21), (10, 5, 31, 16)], [(1, 1, 41, 21)]]),
    ):
        report, rows = planner.truth(TWO, folder, truth_format=name)
        assert ([ours(row) for row in rows], report.problems) == (found, {})


def test_a_filename_of_another_image_of_the_run_leaves_the_file_out(planner: Planner, tmp_path: Path) -> None:
    """One that names no image of the run says nothing, as does one that differs by its folder or suffix."""
    (folder := tmp_path / "voc").mkdir()
    text = xml(("kangaroo", FROM_1))
    names = {"1": "2.png", "2": "set/2.JPEG", "3": "image.jpg"}
    for name, filename in names.items():
        (folder / f"{name}.xml").write_text(text.replace("other.jpg", filename))
    report, rows = planner.truth({**TWO, "3.jpg": (40, 20, None)}, folder)
    assert [ours(row) for row in rows] == [[], [HALF_OPEN], [HALF_OPEN]]
    assert {name: (problem.count, problem.examples) for name, problem in report.problems.items()} == {
        "other_filename": (1, ("1",)),
        "images_without_truth": (1, ("1.jpg",)),
    }
