"""Brace ranges against bash, wildcards against files on a disk and on stores."""

import shutil
import subprocess
from pathlib import Path

import pytest

from cam_ops.errors import StorageError, UsageError
from cluster.sources.folders.patterns import addresses_of, braced, distinct, fixed_part, is_pattern
from cluster.storage.objects import put_object
from cluster.storage.options import NO_OPTIONS
from tests.support.stores import Store

WORDS = [
    *("{000..003}.tar", "a{b,c}d", "x{1..3}{a,b}", "{a,b{1,2}}", "{1..10..3}", "{10..8}", "{a..d}", "a{,b}", "{01..3}"),
    *("{-1..1}", "{a,{b}}", "{{a,b}}", "{-01..1}", "{x}", "{", "}{", "a{b,c", "{}", "{1..x}", "{a/b,c}/d", "{1..2}}"),
]


@pytest.mark.parametrize("word", WORDS)
def test_braces_mean_what_they_mean_in_bash(word: str) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    shell = subprocess.run(["bash", "-c", f"printf '%s\\n' {word}"], capture_output=True, text=True, check=True)
    assert braced(word) == shell.stdout.splitlines()
    assert is_pattern(word) == (shell.stdout != f"{word}\n")


@pytest.mark.parametrize("word", ["{0..99999999999999}", "{0..999}{0..999}", "{1..1000000000000..2}"])
def test_far_too_many_are_refused(word: str) -> None:
    with pytest.raises(UsageError, match="means more than 100000 addresses; put them into a list"):
        braced(word)


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


TREE = ("a/1/x.png", "a/2/y.png", "b/1/z.png", "b/list.csv", "c.tar", "d.tar", ".hidden/1/x.png", ".e.tar", "f/1.png")
MATCHES = {
    "*/1": ["a/1", "b/1"],
    "*": ["a", "b", "c.tar", "d.tar", "f"],
    "{b,a}/[12]": ["b/1", "a/1", "a/2"],
    "[!a]/1/*": ["b/1/z.png"],
    "?.tar": ["c.tar", "d.tar"],
    ".*/1": [".hidden/1"],
    "a/{1..2}": ["a/1", "a/2"],
    "{a/1,b}/none": ["a/1/none", "b/none"],
    "**/*.png": ["a/1/x.png", "a/2/y.png", "b/1/z.png", "f/1.png"],
    "**/1": ["a/1", "b/1"],
    "a/**": ["a"],
    "*/**/**/z*": ["b/1/z.png"],
}


@pytest.mark.parametrize("pattern", MATCHES)
def test_wildcards_match_level_by_level_and_braces_need_not(tmp_path: Path, pattern: str) -> None:
    put(tmp_path, *TREE)
    assert addresses_of(f"{tmp_path}/{pattern}", NO_OPTIONS) == [f"{tmp_path}/{name}" for name in MATCHES[pattern]]


def test_what_is_there_under_the_very_name_is_meant(tmp_path: Path) -> None:
    put(tmp_path, "a*/{b,c}/x.png", "ab/b/y.png", "ab/c/z.png")
    for name in ("a*", "a*/{b,c}"):
        assert addresses_of(f"{tmp_path}/{name}", NO_OPTIONS) == [f"{tmp_path}/{name}"]
    found = addresses_of(f"{tmp_path}/a?/*", NO_OPTIONS)
    assert found == [f"{tmp_path}/{name}" for name in ("a*/{b,c}", "ab/b", "ab/c")]


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


def test_a_store_matches_as_a_disk_does(store: Store, tmp_path: Path) -> None:
    for name in TREE:
        put_object(store.address(f"tree/{name}"), b"x", store.options)
    for pattern, matches in MATCHES.items():
        found = addresses_of(store.address(f"tree/{pattern}"), store.options)
        assert found == [store.address(f"tree/{name}") for name in matches], pattern
    found = addresses_of(store.address("tree/*"), store.options, files_only=True)
    assert found == [store.address("tree/c.tar"), store.address("tree/d.tar")]
    for pattern in ("tree/*.csv", "none/*", "tree/[xy]/1"):
        with pytest.raises(StorageError, match="there is nothing like"):
            addresses_of(store.address(pattern), store.options)


@pytest.mark.parametrize(
    ("address", "fixed"),
    [
        *[("/a/b", "/a/b"), ("/a/*/c", "/a"), ("s3://b/x/{1..2}/y*", "s3://b/x"), ("/{a/b,c}/d", ""), ("/a{b}/c?", "")],
    ],
)
def test_what_stands_before_a_pattern(address: str, fixed: str) -> None:
    assert fixed_part(address) == fixed


@pytest.mark.parametrize(
    ("addresses", "names"),
    [
        (["/x/a", "/x/b"], ["a/", "b/"]),
        (["/x/a/train", "/x/b/train"], ["a/train/", "b/train/"]),
        (["/a", "/b/a"], ["/a/", "b/a/"]),
        (["s3://b/x", "gs://b/x"], ["s3://b/x/", "gs://b/x/"]),
        (["/x/a", "/x/a"], ["a/", "a/"]),
        (["/x/only"], ["only/"]),
    ],
)
def test_as_many_last_parts_as_tell_addresses_apart(addresses: list[str], names: list[str]) -> None:
    assert distinct(addresses) == names
