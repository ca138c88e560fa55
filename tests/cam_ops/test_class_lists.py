"""Class lists as people write them."""

import json
from pathlib import Path

import pytest

from cam_ops.class_lists import read_class_names
from cam_ops.classes import ClassList
from cam_ops.errors import UsageError


def read(folder: Path, name: str, text: str, num_classes: int | None = None) -> ClassList:
    (folder / name).write_text(text)
    return read_class_names(folder / name, num_classes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "cat\ndog\n"),
        ("a.txt", "\ufeffcat\r\n\r\n dog \r\n"),
        ("a.txt", "0 cat\n1 dog\n"),
        ("a.txt", "1: dog\n0: cat\n"),
        ("a.json", '["cat", "dog"]'),
        ("b.json", '{"1": ["n2", "dog"], "0": ["n1", "cat"]}'),
        ("c.json", '{"dog": 1, "cat": 0}'),
        ("config.json", '{"architectures": ["X"], "id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0}}'),
        ("config.json", '{"id2label": {"0": "cat", "1": "dog"}, "label2id": {"LABEL_0": 1, "LABEL_1": 0}}'),
        ("a.csv", "class_id,wnid,name\n1,n2,dog\n0,n1,cat\n"),
        ("b.csv", "name,wnid\ncat,n1\ndog,n2\n"),
        ("c.csv", "id;name\n1;dog\n0;cat\n"),
        ("d.csv", "ID\tName\n1.0\tdog\n0.0\tcat\n"),
        ("d.tsv", "name\tindex\ndog\t1\ncat\t0\n"),
        ("e.csv", "id;name;\n0;cat;\n1;dog;\n;;\n"),
        ("f.csv", ",name\n0,cat\n1,dog\n"),
        ("g.csv", "1,dog\n0,cat\n"),
        ("h.csv", "foo;bar\n0;cat\n1;dog\n"),
        ("i.csv", 'name,"a comment, which is long"\ncat,"x,\ny"\ndog,z\n'),
    ],
)
def test_class_names_from_each_kind_of_file(tmp_path: Path, name: str, text: str) -> None:
    classes = read(tmp_path, name, text)
    assert classes.names == ("cat", "dog")
    assert (classes.find("dog"), classes.find("1"), classes.find("bird")) == (1, 1, None)
    if "n2" in text:
        assert classes.find("n2") == 1
    assert read_class_names(tmp_path / name, 2) == classes


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "{", ""),
        ("a.json", "[" * 100_000, ""),
        ("a.json", '"abc"', "a list of names, or an object"),
        (
            "config.json",
            '{"id2label": {"0": "cat", "1": "dog"}, "label2id": {"dog": 0, "cat": 1}}',
            "id2label calls class 0 'cat', which in its label2id is class 1; mend",
        ),
        ("a.json", "[null]", "must be texts, found None"),
        ("a.json", "[[]]", ""),
        (
            "a.json",
            '{"0": "cat", "2": "dog"}',
            r"the numbers before the names must hold 0..1, or 1..2, .* 1 is not there",
        ),
        ("a.json", '{"cat": 0, "dog": 3}', r"the numbers behind the names must hold 0..1"),
        ("a.json", '{"0": 1, "1": 0}', "its names are numbers as well"),
        (
            "a.json",
            json.dumps({str(i): f"flower {i}" for i in range(1, 11)}),
            "count from 1, so they are not the network",
        ),
        ("a.json", '{"cat": 0, "dog": 1, "cat": 2}', "it has the entry 'cat' twice"),
        ("a.json", '{"cat": "Katze"}', "no numbers and names, such as"),
        ("a.csv", "id,name\n7,cat\n", "column id must hold 0..0"),
        ("a.csv", "id,name\n0\n", "more or fewer cells"),
        ("a.csv", "id,name\n0,cat,dog\n", "more or fewer cells"),
        ("a.csv", "id,name\n0,\n", "no name, or an empty one"),
        ("a.csv", 'name\n"cat\ndog\n', ""),
        ("a.csv", "a;b,c\n", "';' alike"),
        ("a.csv", "rank,name\n2,cat\n1,dog\n", "column rank numbers the rows in another order"),
        ("a.csv", "index,number,name\n0,1,cat\n1,0,dog\n", "another order"),
        ("a.csv", "Name,NAME\ncat,dog\n", "several columns name"),
        ("a.txt", "", "found none"),
    ],
)
def test_a_broken_class_list_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=f"class name.*{reason}"):
        read(tmp_path, name, text)
    (tmp_path / "utf16.csv").write_text("id,name\n0,cat\n", "utf-16")
    with pytest.raises(UsageError, match="no text in UTF-8; save it as such"):
        read_class_names(tmp_path / "utf16.csv")


def test_a_row_is_shown_by_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text(f"class_id,name\n0,cat\n1,{'d' * 70_000},e\n")
    with pytest.raises(UsageError, match=r"than the first, which has 2: \['1', 'ddd") as caught:
        read_class_names(tmp_path / "classes.csv")
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_a_csv_without_a_header_is_told_by_the_number_of_classes(tmp_path: Path) -> None:
    text = "n1;cat\nn2;dog\nn3;cow\n"
    assert read(tmp_path, "a.csv", text, 3).names == ("cat", "dog", "cow")
    assert read(tmp_path, "a.csv", text, 2).names == ("dog", "cow")
    assert read(tmp_path, "a.csv", text).names == ("dog", "cow")
    assert read(tmp_path, "b.csv", "cat\ndog\n", 2).names == ("cat", "dog")
    with pytest.raises(
        UsageError, match="the network has 37 classes, the class list names 2 below the header 'n1, cat'"
    ):
        read(tmp_path, "a.csv", text, 37)
    with pytest.raises(UsageError, match="has 3 classes, the class list names 2 below the header 'id, name'"):
        read(tmp_path, "a.csv", "id,name\n0,cat\n1,dog\n", 3)  # what names columns is no class


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"2": "dog", "1": "cat", "3": "cow"}'),
        ("b.json", '{"dog": 2, "cat": 1, "cow": 3}'),
        ("a.csv", "id,name\n1,cat\n2,dog\n3,cow\n"),
        ("b.csv", "3,cow\n1,cat\n2,dog\n"),
        ("a.txt", "1 cat\n2 dog\n3 cow\n"),
    ],
)
def test_of_a_list_that_counts_from_1_the_order_is_taken_and_numbers_are_two_things(
    tmp_path: Path, name: str, text: str
) -> None:
    classes = read(tmp_path, name, text)
    assert (classes.names, classes.numbers_from) == (("cat", "dog", "cow"), 1)
    assert [classes.meanings(word) for word in ("dog", "0", "1", "2", "3")] == [(1,), (0,), (0, 1), (1, 2), (2,)]
    with pytest.raises(UsageError, match=r"the label '1' means classes \[0, 1\]; use a word that"):
        classes.find("1")


def test_numbers_in_other_columns_are_no_class_numbers_silently(tmp_path: Path) -> None:
    listed = read(tmp_path, "a.csv", "name,superclass\ncat,1\ndog,1\nfly,2\n")
    assert [listed.meanings(word) for word in ("0", "1", "2")] == [(0,), (0, 1), (2,)]
    numbered = read(tmp_path, "a.csv", "id,superclass,name\n0,1,cat\n1,1,dog\n2,0,fly\n")
    assert [numbered.meanings(word) for word in ("0", "1", "2")] == [(0,), (1,), (2,)]
    both = read(tmp_path, "a.csv", "id,name\n0,1\n1,0\n")
    assert [both.meanings(word) for word in ("0", "1")] == [(0, 1), (0, 1)]


def test_lines_are_names_unless_all_begin_with_their_number(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", "7 up\n8 ball\n").names == ("7 up", "8 ball")
    assert read(tmp_path, "a.txt", "1 Euro\n2 Euro\n").names == ("1 Euro", "2 Euro")
    birds = read(tmp_path, "a.txt", "1 001.Albatross\n2 002.Auklet\n")
    assert birds.names == ("001.Albatross", "002.Auklet")
    assert [birds.find(word) for word in ("002.auklet", "2 002.Auklet")] == [1, 1]
    assert read(tmp_path, "a.txt", "001.Albatross\n002.Auklet\n").names == ("001.Albatross", "002.Auklet")
    synsets = read(tmp_path, "a.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    assert (synsets.find("n01443537"), synsets.find("goldfish"), synsets.names[1]) == (1, 1, "goldfish")
