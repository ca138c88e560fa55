"""Words for classes in a map of the user's: a CSV as people write it, and no word with two meanings."""

from pathlib import Path

import pytest

from cam_ops.errors import UsageError
from cluster.truth.classes import class_finder
from tests.support.truths import Planned, Planner

NAMES = ("kangaroo", "Crane", "tabby cat")


@pytest.mark.parametrize(
    "text",
    [
        "truth,class\nwallaby,kangaroo\n",
        "truth;class\r\nwallaby;0\r\n",
        "class\tTruth\nKANGAROO\t wallaby \n",
        '\ufeff"Class","note","TRUTH"\n"kangaroo","a, b","wallaby"\n',
    ],
)
def test_a_class_map_is_read_as_people_write_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "map.csv").write_text(text)
    find = class_finder(NAMES, (str(tmp_path / "map.csv"),))
    assert [find(word) for word in ("wallaby", "Wallaby", "tabby_cat", "2.0", "koala")] == [(0,), (0,), (2,), (2,), ()]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (["koala=kangaroo", "koala=Crane"], "--class-map says that 'koala' is 'kangaroo', and that it is 'Crane'"),
        (["truth,class\nkoala,0\nkoala,1\n"], "it says two things of 'koala'"),
        (["truth,class\nkoala,0\n", "koala=1"], "says that 'koala' is 'kangaroo', and that it is 'Crane'"),
        (["truth,class\nkoala,bear\n"], "koala: 'bear' is no class of the network"),
        (["truth,class,Class\nkoala,0,0\nbear"], ""),
        (["truth,Class,CLASS\nkoala,0,0\n"], "several columns class"),
    ],
)
def test_a_word_with_two_meanings_is_refused(tmp_path: Path, parts: list[str], reason: str) -> None:
    words = []
    for number, part in enumerate(parts):
        (tmp_path / f"{number}.csv").write_text(part)
        words.append(str(tmp_path / f"{number}.csv") if "\n" in part else part)
    if reason:
        with pytest.raises(UsageError, match=reason):
            class_finder(NAMES, tuple(words))
    else:
        with pytest.raises(UsageError, match="'' is no class"):  # a row that is cut
            class_finder(NAMES, tuple(words))


def test_a_word_that_no_class_has_is_counted_beside_the_nearest_that_one_has(
    planner: Planner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1,class\n1,1,1,2,2,kangaro\n1,1,1,2,2,kangaro\n2,1,1,2,2,x\n")
    planned: Planned = {"1.jpg": (40, 20, None), "2.jpg": (40, 20, None)}
    report, _ = planner.truth(planned, tmp_path / "boxes.csv")
    found = report.problems["unknown_classes"]
    assert (found.count, found.examples) == (3, ("kangaro", "x"))
    assert "see --class-map, such as kangaro; the network has 'kangaroo'" in capsys.readouterr().err


def test_the_same_said_twice_is_said_once(tmp_path: Path) -> None:
    assert class_finder(NAMES, ("koala=kangaroo", "koala=0"))("koala") == (0,)


def test_classes_of_one_name_are_known_by_the_names_that_export_gives_them() -> None:
    find = class_finder(("crane", "tabby cat", "crane"), ())
    assert [find(word) for word in ("crane", "crane (0)", "Crane_(2)", "2")] == [(0, 2), (0,), (2,), (2,)]
