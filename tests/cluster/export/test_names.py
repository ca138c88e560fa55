"""Names of pictures' files: which ids name a file of their own."""

import unicodedata
from hashlib import sha256
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.export.names import _key, file_name
from tests.cluster.export.conftest import TWO
from tests.support.command import Command


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


def test_among_a_million_ids_with_control_characters_no_two_have_one_name() -> None:
    ids = ("".join(signs) for signs in product(map(chr, range(1, 17)), repeat=5))
    names = {file_name(f"a{signs}.jpg") for signs in ids}
    assert len(names) == 16**5


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


def test_a_folder_never_has_the_name_of_a_file(run: Path, tmp_path: Path) -> None:
    pictures = sorted((run.parent / "pictures" / "rings").glob("*.png"))
    ids = ["a.png", "a.png/b.png", "a.txt/c.png"]
    pq.write_table(pa.table({"uri": [*map(str, pictures[:3])], "image_id": ids}), tmp_path / "manifest.parquet")
    words = ["--images", tmp_path / "manifest.parquet", "--out", tmp_path / "run", *TWO, "--precision", "fp32"]
    assert Command("label", *words, "--executor", "inline").code == 0
    done = Command("export", tmp_path / "run", "--to", "yolo", "--out", tmp_path / "out", "--split", "train=1")
    assert done.code == 0, done.err
    labels = {str(path.relative_to(tmp_path / "out" / "labels")) for path in (tmp_path / "out").rglob("*.txt")}
    assert labels == {f"train/{file_name(image_id)[:-4]}.txt" for image_id in ids}
    assert len(labels) == len(ids)
