"""Mistakes that need neither torch nor Ray to be seen are said within a second; the names of networks are those that
there are.
"""

import time
from pathlib import Path

import pytest
import torchvision

from cam_ops.network.names import TORCHVISION
from tests.support.command import Command, loaded


def test_the_stored_names_are_torchvisions_own() -> None:
    assert list(TORCHVISION) == torchvision.models.list_models(module=torchvision.models)


MISTAKES = [
    ({"model": "resnet51"}, 2, "is no torchvision classifier; is it resnet50, resnet18 or resnet152?"),
    ({"model": "efficientnet_lite"}, 2, "is it efficientnet_lite0"),
    ({"model": "no_such_package.nets:make"}, 2, "there is no package no_such_package here"),
    ({"model": "no.py:make"}, 6, "expected the factory's file at"),
    ({"model": "no.py"}, 2, "names no function"),
    ({"model": "hf:nowhere"}, 6, "expected a folder with config.json"),
    ({"model": "net.pth"}, 2, "--model NAME --weights net.pth"),
    ({"weights": "no.safetensors"}, 6, "expected a weights file at"),
    ({"weights": "default"}, 6, "is it --weights DEFAULT?"),
    ({"class-names": "no.txt"}, 2, "cannot read class names from no.txt"),
    ({"labels": "foldr"}, 2, "did you mean folder?"),
    ({"calibration": "no.json"}, 2, "--calibration no.json"),
    ({"images": "nowhere"}, 5, "cannot list the image folder"),
    ({"images": "nowhere/*"}, 5, "cannot list the image folder"),
    ({"images": "no.csv"}, 5, "cannot read the manifest"),
    ({"images": "no.tar"}, 5, "there is no tar file"),
    ({"images": "s4://bucket/photos"}, 2, "this address kind is not supported"),
    ({"out": "s4://bucket/run"}, 2, "for the run directory, got s4://bucket/run"),
    ({"out": "/dev/null/run"}, 5, "/dev/null is no folder"),
    ({"checkpoint-key": "ema"}, 2, "--checkpoint-key says where in --weights FILE"),
    ({"channels": "gray"}, 2, "a network of one channel comes from a factory"),
]


@pytest.mark.parametrize(("flags", "code", "said"), MISTAKES, ids=lambda value: str(value)[:40])
def test_what_can_be_checked_without_torch_is_refused_at_once(
    flags: dict[str, str], code: int, said: str, pictures: Path, tmp_path: Path
) -> None:
    flags = {"images": str(pictures), "model": "resnet18", "out": str(tmp_path / "run"), **flags}
    words = [word for flag, value in flags.items() for word in (f"--{flag}", value)]
    begun = time.process_time()  # of this process alone, whatever else the machine does
    done = Command("label", *words)
    assert (done.code, said in done.result["error"]) == (code, True), done.err
    assert done.err == f"camray: error: {done.result['error']}\n"  # no Ray has begun, which is said
    assert time.process_time() - begun < 1
    assert not (tmp_path / "run").exists()


def test_for_them_nothing_heavy_is_loaded(pictures: Path, tmp_path: Path) -> None:
    code, names, _ = loaded("label", "--images", pictures, "--model", "resnet51", "--out", tmp_path / "run")
    assert (code, {"torch", "ray"} & names) == (2, set())


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "tests/fixtures/first_run/run", "tests/fixtures/first_run/run", "--out", "no/folder/changes.json"],
        ["show", "tests/fixtures/first_run/run", "round/01.jpg", "--to", "no/folder/it.png"],
        ["bench", "plan", "--images", "tests", "--out", "no/folder/figures.jsonl"],
        ["bench", "plan", "--images", "nowhere"],
        ["rebox", "tests/fixtures/first_run/run", "--out", "/dev/null/new", "--threshold", "0.4"],
    ],
)
def test_places_that_cannot_be_written_are_refused_before_the_work(words: list[str]) -> None:
    begun = time.process_time()  # of this process alone, whatever else the machine does
    done = Command(*words)
    assert (done.code, "Ray" in done.err) == (5, False), done.err
    assert time.process_time() - begun < 1
