"""What a driver does without: torch where Ray's actors do the work, OpenCV where no picture is looked at."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ROOT
from tests.support.first_run import KEPT, put_pictures

PROGRAM = (
    "import json, sys; from jobs.__main__ import run; code = run(sys.argv[1:]); "
    "print(json.dumps([code, sorted({'torch', 'cv2', 'ray'} & sys.modules.keys())]))"
)


def loaded(*words: object) -> tuple[int, set[str]]:
    """Run a command in a fresh process; return its exit code, and which heavy libraries it has loaded."""
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)
    code, names = json.loads(done.stdout.splitlines()[-1])
    return code, set(names)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT / "run", tmp_path / "run"))


@pytest.mark.ray
def test_label_on_ray_does_without_torch(pictures: Path, tmp_path: Path) -> None:
    flags = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    code, names = loaded("label", "--images", pictures, "--out", tmp_path / "run", *flags)
    assert (code, "torch" in names) == (0, False)


@pytest.mark.ray
def test_rebox_on_ray_does_without_torch_and_opencv(kept: Path, tmp_path: Path) -> None:
    assert loaded("rebox", kept, "--out", tmp_path / "new", "--threshold", 0.3) == (0, {"ray"})


@pytest.mark.ray
def test_audit_on_ray_does_without_torch(kept: Path) -> None:
    code, names = loaded("audit", kept, "--truth", KEPT / "truth.csv")
    assert (code, "torch" in names) == (0, False)


@pytest.mark.ray
def test_the_demo_does_without_torch(tmp_path: Path) -> None:
    code, names = loaded("demo", "--out", tmp_path / "demo")
    assert (code, "torch" in names) == (0, False)


def test_calibrate_does_without_torch(kept: Path, tmp_path: Path) -> None:
    code, names = loaded("calibrate", kept, "--truth", KEPT / "truth.csv", "--out", tmp_path / "calibration.json")
    assert (code, "torch" in names) == (2, False)  # 19 images are too few to fit to, which is said after all are read


def test_status_does_without_all_of_them(kept: Path) -> None:
    assert loaded("status", kept) == (0, set())


def test_verify_does_without_all_of_them(kept: Path) -> None:
    assert loaded("verify", kept) == (0, set())


def test_compare_does_without_all_of_them(kept: Path) -> None:
    assert loaded("compare", kept, kept) == (0, set())


def test_show_does_without_torch_and_ray(kept: Path) -> None:
    put_pictures()
    assert loaded("show", kept, "round/01.jpg") == (0, {"cv2"})
