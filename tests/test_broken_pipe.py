"""What reads a command's output may end before it, as `| head -1` does: the command ends too, without a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command

FLAGS = ["--model", "tests.conftest:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]


@pytest.fixture
def out(pictures: Path, tmp_path: Path) -> Path:
    words = ["--images", pictures, "--out", tmp_path / "run", "--executor", "inline"]
    assert Command("label", *words, *FLAGS).code == 0
    return tmp_path / "run"


def ended_unread(*words: object, unbuffered: bool) -> tuple[int, str]:
    """Return the exit code and stderr of a command whose stdout nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    env = os.environ | {"PYTHONUNBUFFERED": "1" if unbuffered else ""}
    command = [sys.executable, "-m", "jobs", *map(str, words)]
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=240)
    finally:
        os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_command_whose_output_nobody_reads_ends_without_a_word(out: Path, unbuffered: bool) -> None:
    (out / "images" / "shard-0000005.parquet").write_bytes(b"")
    for words in (["verify", out], ["show", out, "discs/01.png"], ["--help"], ["status", "--help"]):
        assert ended_unread(*words, unbuffered=unbuffered) == (141, ""), words
