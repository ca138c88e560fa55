"""Words from people's files: which are the same, what separates them, which column they head."""

import pytest

from cam_ops.classes import class_list
from cam_ops.errors import UsageError
from cam_ops.words import column_of, delimiter_of, folded, near


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        (" cat\t", "cat"),
        ("Golden_Retriever", "golden retriever"),
        ("golden - retriever", "golden-retriever"),
        ("Stra\u00dfe", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("\uff21", "a"),
        ("\ufb01sh", "FISH"),
    ],
)
def test_the_same_word(one: str, other: str) -> None:
    assert folded(one) == folded(other)


@pytest.mark.parametrize(
    ("one", "other"), [("cat", "cats"), ("a b", "ab"), ("", "cat"), ("-", "cat"), ("1", "1.0"), ("-1", "1")]
)
def test_other_words(one: str, other: str) -> None:
    assert folded(one) != folded(other)


@pytest.mark.parametrize(
    ("header", "sign"),
    [
        ("id,name", ","),
        ("id;name", ";"),
        ("id\tname", "\t"),
        ("name", ","),
        ("", ","),
        ("id;wnid;name, common", ";"),
        ('"a;b",c,d', ","),
    ],
)
def test_what_separates_the_cells(header: str, sign: str) -> None:
    assert delimiter_of(header) == sign


def test_two_signs_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="',' and ';' alike"):
        delimiter_of("id;name, common")


def test_a_cell_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match=r"its first line 'a,bbb.*none of a CSV"):
        delimiter_of(f"a,{'b' * 200_000}")


def test_columns_by_hand() -> None:
    assert column_of(["uri", " Label"], ["label", "class"]) == " Label"
    assert column_of(["Class", "class"], ["label", "class"]) == "class"  # letter for letter wins
    assert column_of(["file_name"], ["image_id", "file name"]) == "file_name"
    assert column_of(["a"], ["label"]) is None
    for twice in (["label", "label"], ["Label", "LABEL"]):
        with pytest.raises(ValueError, match="several columns label"):
            column_of(twice, ["label"])


def test_near_words() -> None:
    assert near("Golden-Retriver", ["cat", "golden retriever", "tench"]) == ["golden retriever"]
    assert near("xyz", ["cat"]) == []


def test_classes_are_found_by_the_same_rule() -> None:
    classes = class_list([("n1",), ("n2",), ("n3",)], ["Golden_Retriever", "polish", "Polish"])
    assert [classes.find(word) for word in ("golden retriever", " N2 ", "polish", "Polish", "2", "2.0", "02.")] == [
        *(0, 1, 1, 2, 2, 2, 2)
    ]
    with pytest.raises(UsageError, match=r"means classes \[1, 2\]"):
        classes.find("POLISH")
    assert [classes.find(word) for word in ("3.0", "0.5", "")] == [None, None, None]
    more = classes.with_words({"dog": (0,), "n2": (2,)})
    assert [more.find(word) for word in ("Dog", "n2", "n1")] == [0, 2, 0]
