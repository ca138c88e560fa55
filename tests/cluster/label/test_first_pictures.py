"""A network of a known training, and pictures scaled otherwise than there."""

from pathlib import Path

import pytest

from tests.support.command import Command

LITE0 = ("--model", "efficientnet_lite0", "--image-size", 64, "--executor", "inline", "--compile", "never")


@pytest.mark.parametrize(
    ("flags", "is_far"),
    [((), False), (("--mean", 0, 0, 0, "--std", 1, 1, 1), False), (("--std", 0.004, 0.004, 0.004), True)],
)
def test_pictures_far_from_the_network_s_training_are_said_to_be(
    pictures: Path, tmp_path: Path, flags: tuple, is_far: bool
) -> None:
    (pictures / "discs" / "a.png").write_bytes(b"no picture")  # is left out, here as in the run
    finished = Command("label", "--images", pictures, "--out", tmp_path / "run", *LITE0, "--max-error-rate", 1, *flags)
    assert finished.code == 0, finished.err
    said = "warning: of the first 8 pictures the batch norm _bn0 gets numbers that vary"
    assert (said in finished.err) == is_far


def test_a_single_picture_says_nothing(pictures: Path, tmp_path: Path) -> None:
    flags = ("--std", 0.004, 0.004, 0.004, "--limit", 1)
    finished = Command("label", "--images", pictures, "--out", tmp_path / "run", *LITE0, *flags)
    assert (finished.code, "warning: of the first" in finished.err) == (0, False)
