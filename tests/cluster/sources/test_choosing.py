"""Patterns and samples of images, against fnmatch and a reading by hand; by the command line."""

import json
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cam_ops.errors import UsageError
from cluster.sources.choosing import Choice, Chooser, regex_of
from tests.support.command import Command, table_rows

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
IDS = [
    "cats/1.jpg",
    "cats/new/2.jpg",
    "dogs/1.png",
    "1.jpg",
    "a[b].jpg",
    "a\\b.jpg",
    "line\nbreak.jpg",
    "ünï/é.jpg",
    "a.b",
]


def fits(pattern: str) -> list[str]:
    mask = pc.match_substring_regex(pa.array(IDS), regex_of(pattern))
    return [image_id for image_id, fit in zip(IDS, mask.to_pylist(), strict=True) if fit]


@pytest.mark.parametrize(
    "pattern", ["*.jpg", "?.jpg", "cats/*", "[!a]*", "a[[]b].jpg", "*[1-2].*", "ün?/é*", "a\\b*", "*\n*"]
)
def test_a_pattern_means_what_fnmatch_says(pattern: str) -> None:
    assert fits(pattern) == [image_id for image_id in IDS if fnmatchcase(image_id, pattern)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("cats", ["cats/1.jpg", "cats/new/2.jpg"]),
        ("cats/new/", ["cats/new/2.jpg"]),
        ("**/1.*", ["cats/1.jpg", "dogs/1.png", "1.jpg"]),
        ("cats/**/*.jpg", ["cats/1.jpg", "cats/new/2.jpg"]),
        ("a.b", ["a.b"]),
        ("cat", []),
        ("[", []),
    ],
)
def test_folders_are_meant_with_what_lies_in_them(pattern: str, expected: list[str]) -> None:
    assert fits(pattern) == expected


def chosen(ids: list[str], **choice: object) -> list[str]:
    chooser = Chooser(choice=Choice(**choice))
    batches = (pa.record_batch([ids[at : at + 7]], names=["image_id"]) for at in range(0, len(ids), 7))
    return [image_id for batch in chooser.chosen(batches) for image_id in batch["image_id"].to_pylist()]


def test_a_sample_depends_on_id_and_seed_alone() -> None:
    ids = [f"photo {i}.jpg" for i in range(20_000)]
    tenth = chosen(ids, sample=0.1)
    assert 1850 < len(tenth) < 2150
    assert chosen(ids[::-1], sample=0.1) == tenth[::-1]
    assert chosen(ids[5_000:9_000], sample=0.1) == [one for one in tenth if 5_000 <= int(one[6:-4]) < 9_000]
    assert set(tenth) < set(chosen(ids, sample=0.2))
    other = chosen(ids, sample=0.1, seed=1)
    assert 130 < len(set(other) & set(tenth)) < 280
    assert chosen(ids, sample=1.0) == ids
    assert tenth[:3] == ["photo 27.jpg", "photo 46.jpg", "photo 51.jpg"]  # and so for ever


def label(pictures: Path, out: Path, *more: object) -> Command:
    exact = ["--executor", "inline", "--precision", "fp32", "--shard-size", 4]
    return Command("label", "--images", pictures, "--out", out, *exact, *TWO, *more)


def test_what_is_asked_for_is_planned_said_and_part_of_the_request(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--include", "rings", "*/0?.png", "--exclude", "*/04.png", "none/*"]
    done = label(pictures, out, *flags)
    assert (done.code, done.result["images"]) == (0, 10), done.err
    ids = [row["image_id"] for row in table_rows(out, "images")]
    assert ids == [f"discs/{i:02d}.png" for i in (1, 3, 5, 7, 9)] + [f"rings/{i:02d}.png" for i in (0, 2, 6, 8, 10)]
    assert "--include rings */0?.png: 1 of 12 images are left out, such as 'discs/11.png'" in done.err
    assert "--exclude */04.png none/*: 1 of 12 images are left out, such as 'rings/04.png'" in done.err
    assert "the pattern 'none/*' fits no image; ids are such as 'discs/01.png'" in done.err
    request = json.loads((out / "run.json").read_text())["request"]
    assert (request["include"], request["exclude"]) == (["rings", "*/0?.png"], ["*/04.png", "none/*"])
    assert "sample" not in request
    (out / "images" / "shard-0000001.parquet").unlink()
    assert label(pictures, out, *flags).code == 0
    assert Command("verify", out).code == 0
    assert Command("show", out, "rings/10.png").code == 0
    other = label(pictures, out, "--include", "rings")
    assert (other.code, "include was rings */0?.png, now rings" in other.result["error"]) == (4, True)
    plain = label(pictures, tmp_path / "plain")
    assert plain.code == 0
    assert (
        not {"include", "exclude", "sample", "seed"}
        & json.loads((tmp_path / "plain" / "run.json").read_text())["request"].keys()
    )


def test_a_limit_counts_what_is_left(pictures: Path, tmp_path: Path) -> None:
    done = label(pictures, tmp_path / "run", "--sample", 0.5, "--seed", 3, "--limit", 2)
    all_of = label(pictures, tmp_path / "all", "--sample", 0.5, "--seed", 3)
    first, every = ([row["image_id"] for row in table_rows(tmp_path / name, "images")] for name in ("run", "all"))
    assert (done.code, all_of.code, first) == (0, 0, every[:2])
    assert 2 < len(every) < 10
    assert f"--sample 0.5 --seed 3: {12 - len(every)} of 12 images are left out" in all_of.err
    request = json.loads((tmp_path / "run" / "run.json").read_text())["request"]
    assert (request["sample"], request["seed"], request["limit"]) == (0.5, 3, 2)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--sample", 0], "--sample expects a fraction above 0"),
        (["--sample", 1.5], "--sample expects a fraction"),
        (["--seed", 3], "--seed is that of --sample"),
        (["--include", "[z-a]"], "--include expects patterns such as"),
        (["--include", "x*"], "--include x* leaves none of 12 images, whose ids are such as 'discs/01.png'"),
        (["--exclude", "*"], "--exclude * leaves none of 12 images"),
        (["--sample", 0.0000001], "--sample 1e-07 --seed 0 leaves none of 12 images"),
    ],
)
def test_what_leaves_nothing_or_cannot_be_meant_is_refused(
    pictures: Path, tmp_path: Path, flags: list[object], says: str
) -> None:
    refused = label(pictures, tmp_path / "run", *flags)
    assert (refused.code, says in refused.result["error"]) == (2, True), refused.result


def test_a_wicked_pattern_takes_no_longer() -> None:
    ids = ["a" * 5_000] * 50
    chooser = Chooser(choice=Choice(include=("*a" * 30 + "*b",)))
    assert sum(map(len, chooser.chosen(iter([pa.record_batch([ids], names=["image_id"])])))) == 0
    with pytest.raises(UsageError, match="leaves none"):
        chooser.say()
