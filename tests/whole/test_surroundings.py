"""Where a command runs: in a folder that is gone, with little memory, on files that lead elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ROOT, Command, result_of
from tests.support.exported_runs import ExportedRun

SHELL_MOVES = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
SHELL_BOUNDS = 'ulimit -v "$1" && shift && exec "$@"'


def ended(shell: str, first: object, *words: object) -> tuple[int, str]:
    """Run a command that a shell begins; return its exit code and error, which must be one sentence."""
    command = ["sh", "-c", shell, "sh", str(first), sys.executable, "-m", "jobs", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    result = result_of(done.stdout, done.stderr)
    assert result["exit_code"] == done.returncode
    return done.returncode, result.get("error", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["label", "--images", "/pictures", "--out", "/run"], ["status", "/run"], ["doctor"], ["compare", "a", "b"]],
    ids=lambda words: words[0],
)
def test_a_working_directory_that_was_removed(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code, error = ended(SHELL_MOVES, tmp_path / "gone", *words)
    assert (code, "working directory cannot be used: No such file" in error) == (5, True), error


@pytest.mark.slow
@pytest.mark.parametrize(("words", "limit_kib"), [(["label", "--images"], 2_000_000), (["status"], 150_000)])
def test_too_little_memory_to_load_what_a_command_needs(
    words: list[str], limit_kib: int, pictures: Path, tmp_path: Path
) -> None:
    more = [pictures, "--out", tmp_path / "run", "--model", "resnet18", "--executor", "inline"]
    code, error = ended(SHELL_BOUNDS, limit_kib, *words, *(more if len(words) > 1 else [tmp_path]))
    assert (code, "too little memory" in error, "`ulimit -v` leaves this process" in error) == (6, True, True), error


@pytest.mark.slow
@pytest.mark.parametrize("limit_kib", [1_000_000, 1_200_000, 1_400_000, 1_600_000, 2_000_000, 2_200_000])
def test_with_little_memory_show_neither_waits_nor_blames_a_file(limit_kib: int, labelled: ExportedRun) -> None:
    code, error = ended(SHELL_BOUNDS, limit_kib, "show", labelled.root, "--random", "--grid", "2x1")
    assert (code, "which takes 3072 MiB of addresses; `ulimit -v` leaves this process" in error) == (6, True), error


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["status"], ["verify"], ["show", "--random", "--grid", "2x1"]], ids=lambda words: words[0]
)
def test_what_is_said_to_be_needed_is_enough(words: list[str], labelled: ExportedRun) -> None:
    limit_kib = (3072 if words[0] == "show" else 1536) * 2**10
    code, error = ended(SHELL_BOUNDS, limit_kib, words[0], labelled.root, *words[1:])
    assert (code, error) == (0, "")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("audit", ["audit", "RUN", "--executor", "inline"]),
        ("audit-strict", ["audit", "RUN", "--executor", "inline", "--name", "strict"]),
        ("show", ["show", "RUN", "train/0.png"]),
        ("images", ["rebox", "SOURCE", "--out", "RUN", "--executor", "inline", "--overwrite"]),
        ("audit-x", ["rebox", "SOURCE", "--out", "RUN", "--executor", "inline", "--overwrite"]),
        (".scratch", ["report", "RUN", "--executor", "inline"]),
    ],
    ids=lambda each: each if isinstance(each, str) else each[0],
)
def test_a_link_in_a_run_to_another_folder(link: str, words: list[str], labelled: ExportedRun, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(labelled.root, run, ignore=shutil.ignore_patterns("audit*", ".scratch"))
    shutil.move(run / link, other) if (run / link).exists() else other.mkdir()
    (other / "metrics.json").write_text("precious")
    (run / link).symlink_to(other)
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    image_id = next(iter(labelled.images))
    named = {"RUN": run, "SOURCE": labelled.root, "train/0.png": image_id}
    done = Command(*(named.get(word, word) for word in words))
    assert (done.code, f"{run}/{link} is a link, to '{other}'" in done.result["error"]) == (5, True), done.result
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before
    assert (run / "run.json").exists()
