"""Which column of a table is which."""

import pytest

from cam_ops.errors import UsageError
from cluster.sources.columns import column_for, near_columns, parse_columns, suggestion


def test_a_choice_wins_then_our_name_whatever_its_capitals_then_a_synonym() -> None:
    found = ["Path", " Label", "breed", "uri"]
    assert column_for(found, "label", parse_columns(["label=breed"]), where="a.csv") == "breed"
    assert column_for(found, "label", {}, ["breed"], where="a.csv") == " Label"
    assert column_for(["breed", "id"], "label", {}, ["class", "breed"], where="a.csv") == "breed"
    assert column_for(["breed", "id"], "label", {}, where="a.csv") is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["label"], "expects NAME=COLUMN, such as label=breed, got 'label'"),
        (["label= "], "expects NAME=COLUMN"),
        (["lable=breed"], "NAME is one of uri, image, image_id, label, got 'lable'"),
        (["label=a", "label=b"], "gives label twice: a and b"),
    ],
)
def test_what_is_no_choice_is_refused(words: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_columns(words)


def test_a_column_that_is_not_there_or_there_twice_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"--columns label=bread: a.csv has the columns 'id', 'breed'; did you mean la"
    ):
        column_for(["id", "breed"], "label", parse_columns(["label=bread"]), where="a.csv")
    with pytest.raises(UsageError, match=r"cannot tell the column label of .*: it has several"):
        column_for(["Label", "LABEL"], "label", {}, where="a.csv")


def test_near_columns_are_suggested_known_words_first() -> None:
    assert near_columns(["id", "lable", "Class"], "label") == ["Class", "lable"]
    assert suggestion(["id", "dog breed", "breed"], "label") == "--columns label=breed"
    assert suggestion(["File Name", "x"], "uri") == "--columns 'uri=File Name'"
    assert suggestion(["x", "y"], "label") == ""
