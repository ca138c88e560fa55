"""Names of pictures' files: which ids name a file of their own."""

from hashlib import sha256

import pytest

from cluster.export.names import _key, file_name


@pytest.mark.parametrize("image_id", ["a.jpg", "b/a b.png", "a.png.jpg", "two.dots", "räd 🦊.webp", "=1+1;x.jpg"])
def test_an_id_that_may_name_a_file_does(image_id: str) -> None:
    assert file_name(image_id) == image_id


def test_a_blank_before_the_suffix_gets_a_mark_as_lists_of_names_lose_it() -> None:
    assert file_name("b/blank .jpg") == f"b/blank ~{sha256(b'b/blank .jpg').hexdigest()[:10]}.jpg"


def test_a_name_that_is_a_drive_elsewhere_is_none_here() -> None:
    assert file_name("C:\\windows\\d.png").startswith("C__windows_d~")
    assert file_name("a/d:c.png").startswith("a/d_c~")
    assert file_name("a/12:30.png") == "a/12:30.png"


def test_names_of_which_one_is_the_other_s_without_its_suffix_meet() -> None:
    assert len({_key(name) for name in ("a.png", "a.png.jpg", "A.JPG", "a")}) == 1
    assert _key("a.b.png") != _key("a.png")
