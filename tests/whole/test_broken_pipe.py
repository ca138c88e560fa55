"""A command whose output nobody reads, as of `| head -1`, ends without a word; where it is full, the work goes on."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ROOT, Command, result_of

FLAGS = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]


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


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_command_whose_output_nobody_reads_ends_without_a_word(out: Path, unbuffered: bool) -> None:
    (out / "images" / "shard-0000005.parquet").write_bytes(b"")
    for words in (["verify", out], ["show", out, "discs/01.png"], ["--help"], ["status", "--help"]):
        assert ended_unread(*words, unbuffered=unbuffered) == (141, ""), words


def in_shell(streams: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command with the streams that the shell gives it."""
    command = shlex.join([sys.executable, "-m", "jobs", *map(str, words)])
    return subprocess.run(f"{command} {streams}", shell=True, cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-", "<&- 2>&-"])
def test_a_run_whose_lines_are_lost_is_done_all_the_same(pictures: Path, tmp_path: Path, streams: str) -> None:
    words = ["--images", pictures, "--out", tmp_path / "run", "--executor", "inline"]
    done = in_shell(streams, "label", *words, *FLAGS)
    assert (done.returncode, done.stderr, result_of(done.stdout)["exit_code"]) == (0, "", 0)
    assert Command("verify", tmp_path / "run").code == 0


@pytest.mark.slow
def test_a_full_stdout_is_exit_5_with_one_sentence_and_a_closed_one_is_as_asked(out: Path) -> None:
    for words in (["verify", out], ["verify", out / "nowhere"], ["--help"], ["status", "--help"]):
        full = in_shell(">/dev/full", *words)
        last = full.stderr.splitlines()[-1]
        assert (full.returncode, "cannot write to stdout: No space left on device" in last) == (5, True), words
        assert "Traceback" not in full.stderr
        assert "Exception" not in full.stderr
    closed = in_shell(">&-", "verify", out)
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "")
    assert in_shell(">&- 2>&-", "verify", out / "nowhere").returncode == 5
