"""What a driver does without: torch where Ray's actors do the work, OpenCV where no picture is looked at.

`test_readme` has the demo, which is such a driver, too.
"""

import shutil
from pathlib import Path

import pytest

from tests.support.command import loaded
from tests.support.first_run import KEPT, put_pictures


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT / "run", tmp_path / "run"))


@pytest.mark.ray
def test_label_on_ray_does_without_torch(pictures: Path, tmp_path: Path) -> None:
    flags = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    flags += ["--replicas", 1]
    code, names, _ = loaded("label", "--images", pictures, "--out", tmp_path / "run", *flags)
    assert (code, "torch" in names) == (0, False)


@pytest.mark.ray
def test_rebox_on_ray_does_without_torch_and_opencv(kept: Path, tmp_path: Path) -> None:
    assert loaded("rebox", kept, "--out", tmp_path / "new", "--threshold", 0.3)[:2] == (0, {"ray"})


@pytest.mark.ray
def test_audit_on_ray_does_without_torch(kept: Path) -> None:
    code, names, _ = loaded("audit", kept, "--truth", KEPT / "truth.csv")
    assert (code, "torch" in names) == (0, False)


def test_calibrate_does_without_torch(kept: Path, tmp_path: Path) -> None:
    code, names, _ = loaded("calibrate", kept, "--truth", KEPT / "truth.csv", "--out", tmp_path / "calibration.json")
    assert (code, "torch" in names) == (2, False)  # 19 images are too few to fit to, which is said after all are read


def test_status_does_without_all_of_them(kept: Path) -> None:
    assert loaded("status", kept)[:2] == (0, set())


def test_verify_does_without_all_of_them(kept: Path) -> None:
    assert loaded("verify", kept)[:2] == (0, set())


def test_compare_does_without_all_of_them(kept: Path) -> None:
    assert loaded("compare", kept, kept)[:2] == (0, set())


def test_show_does_without_torch_and_ray(kept: Path) -> None:
    put_pictures()
    assert loaded("show", kept, "round/01.jpg")[:2] == (0, {"cv2"})
