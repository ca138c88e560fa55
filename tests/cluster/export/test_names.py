"""Names of pictures' files, of 60,000 ids that are made of what breaks names: none leads out, no two are one."""

import os
import random
import re
import unicodedata
from dataclasses import replace
from hashlib import sha256
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cam_ops.tables import LABELLED
from cluster.export.names import FILES, _key, file_name, meeting
from cluster.formats.exported import split_suffix
from cluster.runs.plan import read_shard, write_plan
from tests.support.truths import Planner

PIECES = (
    *(
        "a",
        "B",
        "x1",
        "é",
        "e\u0301",
        "ß",
        "ss",
        "İ",
        "🦊",
        "日本",
        "-",
        "_",
        "~",
        "'",
        '"',
        "<&>",
        "%2e",
        ";",
        ",",
        "*",
        "?",
    ),
    *(
        ".",
        "..",
        "...",
        "....",
        " ",
        "\u3000",
        "\xa0",
        "\u2003",
        "\t",
        "\n",
        "\r",
        "\0",
        "\x1b",
        "\x7f",
        "\x85",
        "\u2028",
    ),
    *(
        "\u202e",
        "\ud800",
        "\udfff",
        "\\",
        "..\\",
        "C:",
        "/",
        "//",
        "/../",
        "/./",
        "~5f1c0e2a935f1c0e2a93",
        "images",
        "IMAGES",
    ),
    *(".jpg", ".JPG", ".png", ".txt", ".tar", ".jpg/", ".txt/", "a" * 100, "é" * 100, "日" * 200),
)
ENDS = ("", "", ".jpg", ".png", ".JPEG", ".webp", ".001", " .jpg", ".jpg ")
RESERVED = frozenset({"images"})
SURROGATE = re.compile("[\ud800-\udfff]")


def hostile_ids(number: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    ids = {
        "".join(generator.choices(PIECES, k=generator.randint(1, 6))) + generator.choice(ENDS) for _ in range(number)
    }
    return sorted(ids)


@pytest.mark.parametrize("seed", range(3))
def test_no_name_leads_out_of_the_folder_or_breaks_a_line(seed: int) -> None:
    for image_id in hostile_ids(20_000, seed):
        name = file_name(image_id, RESERVED)
        assert os.path.normpath(f"/folder/{name}") == f"/folder/{name}", repr(image_id)
        assert all(len(part.encode()) < 200 for part in name.split("/"))
        assert len(name.encode()) < 1000
        assert not {unicodedata.category(character) for character in name} & {"Cc", "Cs", "Zl", "Zp"}, repr(name)
        assert "\\" not in name
        assert all(part == part.strip() for part in name.split("/")[:-1])
        assert not any(part.casefold() in RESERVED for part in name.split("/"))


def folded(name: str) -> str:
    """Return a name as a file system sees it that tells neither capitals nor Unicode forms apart, without its dots."""
    return unicodedata.normalize("NFC", split_suffix(name)[0]).casefold().replace(".", "_")


def names_of(planner: Planner, ids: list[str], shard_size: int = 512) -> dict[str, str]:
    """Return the name of each id in an export of a run of these."""
    nothing = np.zeros(len(ids), np.int64)
    batch = pa.record_batch([ids, ids, nothing, nothing - 1, pa.nulls(len(ids), pa.int32())], schema=LABELLED)
    plan = write_plan(planner.run_dir, [batch], shard_size)
    run = replace(planner.template, plan=plan)
    planned = [
        i for shard in range(plan.num_shards) for i in read_shard(planner.run_dir, shard)["image_id"].to_pylist()
    ]
    assert planned == ids
    must = {*meeting(planner.run_dir, run, RESERVED).tolist()}
    return {image_id: file_name(image_id, RESERVED, must_mark=at in must) for at, image_id in enumerate(planned)}


def test_no_two_ids_have_one_name_whatever_the_file_system(planner: Planner) -> None:
    ids = [image_id for image_id in hostile_ids(8_000, 7) if not SURROGATE.search(image_id)]  # a plan has none
    names = names_of(planner, ids)
    assert len({folded(name) for name in names.values()}) == len(names)


def test_safe_names_stay_as_they_are_and_only_those_that_meet_are_marked(planner: Planner) -> None:
    safe = [
        "a/1.jpg",
        "a/2.jpg",
        "b/1.jpg",
        "00000.tar/val_1.JPEG",
        "räd 🦊.png",
        "two.dots.jpg",
        "no_suffix",
        "-.webp",
    ]
    assert [file_name(name) for name in safe] == safe
    pairs = [
        ("m/a.jpg", "m/a.png"),
        ("m/B.jpg", "m/b.jpg"),
        ("m/x.y.jpg", "m/x_y.jpg"),
        ("m/e\u0301.jpg", "m/\xe9.jpg"),
    ]
    names = names_of(planner, sorted([*safe, *(name for pair in pairs for name in pair)]), 5)
    assert [name for image_id, name in names.items() if name == image_id] == sorted(safe)
    for one, other in pairs:
        assert names[one] != names[other]
        assert all(names[name].startswith(f"{split_suffix(name)[0]}~") for name in (one, other))


def test_a_name_that_pretends_to_be_marked_is_marked(planner: Planner) -> None:
    """Whoever knows how marks are made cannot take the name of another picture, in capitals neither."""
    marked = file_name("\n1.jpg")
    names = names_of(planner, sorted(["\n1.jpg", marked, marked.upper(), file_name(marked)]))
    assert names["\n1.jpg"] == marked
    assert len({folded(name) for name in names.values()}) == 4


def test_a_folder_never_has_the_name_of_a_file(tmp_path: Path) -> None:
    """`a.jpg/1.jpg` lies beside `a.jpg`, and `a.txt/1.jpg` beside the label of that."""
    for suffix, place in product((*FILES, "jpg", "PNG"), ("a.{}/1.jpg", "b/a.{}/1.jpg")):
        names = [file_name(place.format(suffix)), place.format(suffix).removesuffix("/1.jpg")]
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
    assert file_name("00000.tar/a.v2/1.jpg") == "00000.tar/a.v2/1.jpg"


@pytest.mark.parametrize("image_id", ["a.jpg", "b/a b.png", "a.png.jpg", "two.dots", "räd 🦊.webp", "=1+1;x.jpg"])
def test_an_id_that_may_name_a_file_does(image_id: str) -> None:
    assert file_name(image_id) == image_id


def test_a_blank_before_the_suffix_gets_a_mark_as_lists_of_names_lose_it() -> None:
    assert file_name("b/blank .jpg") == f"b/blank ~{sha256(b'b/blank .jpg').hexdigest()[:20]}.jpg"


def test_a_name_that_is_a_drive_elsewhere_is_none_here() -> None:
    assert file_name("C:\\windows\\d.png").startswith("C__windows_d~")
    assert file_name("a/d:c.png").startswith("a/d_c~")
    assert file_name("a/12:30.png") == "a/12:30.png"


def test_names_of_which_one_is_the_other_s_without_its_suffix_meet() -> None:
    assert len({_key(name) for name in ("a.png", "a.png.jpg", "A.JPG", "a")}) == 1
    assert _key("a.b.png") != _key("a.png")


def test_a_name_without_a_file_is_the_id_however_long_it_is() -> None:
    image_id = f"{'a' * 90}/{'b' * 200}.jpg/{'c' * 250}.jpg"
    assert file_name(image_id, is_file=False) == image_id
    assert max(map(len, file_name(image_id).split("/"))) < 200
    assert file_name(f"../{image_id}", is_file=False).startswith("__/aaa")


def test_what_looks_like_a_mark_in_capitals_gets_one() -> None:
    mark = sha256(b"a.jpg").hexdigest()[:20]
    assert file_name("a.jpg", must_mark=True) == f"a~{mark}.jpg"
    assert file_name(f"a~{mark.upper()}.jpg") != f"a~{mark.upper()}.jpg"


def test_names_that_a_file_system_without_capitals_and_unicode_forms_takes_for_one_meet() -> None:
    small, capital = "\N{GREEK SMALL LETTER IOTA WITH DIALYTIKA AND TONOS}", "\u03aa\u0301"
    assert unicodedata.normalize("NFC", small.upper()) == capital
    assert _key(f"{small}.jpg") == _key(f"{capital}.jpg")
