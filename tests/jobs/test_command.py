"""What the last line says, and where: an interrupted run counts what is committed, a terminal is spared the line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.storage.options import NO_OPTIONS
from jobs import interrupted
from jobs.interrupted import interrupted_run
from tests.support.command import ROOT, table_rows

KEPT = ROOT / "tests" / "fixtures" / "first_run" / "run"


def test_an_interrupted_run_counts_what_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Path(shutil.copytree(KEPT, tmp_path / "run"))
    last = max((run / "images").iterdir())
    for gone in (None, min((run / "images").iterdir()), last):
        if gone:
            gone.unlink()
        rows = table_rows(run, "images")
        found = interrupted_run(str(run), NO_OPTIONS)
        ok = sum(row["status"] == "ok" for row in rows)
        assert (found.images, found.ok, found.errors) == (len(rows), ok, len(rows) - ok)
        assert found.boxes == sum(row["num_boxes"] for row in rows)
        assert (found.status, found.exit_code) == ("interrupted", 130)
        with monkeypatch.context() as context:
            context.setattr(interrupted, "MOST_READ", 0)
            assert interrupted_run(str(run), NO_OPTIONS).images == len(rows)


def test_what_is_no_run_counts_nothing(tmp_path: Path) -> None:
    assert interrupted_run(str(tmp_path), NO_OPTIONS).images == 0
    (tmp_path / "run.json").write_text("{")
    assert (interrupted_run(str(tmp_path), NO_OPTIONS).exit_code) == 130


def on_terminal(*words: str) -> str:
    """Return what a command shows on a terminal."""
    theirs, ours = os.openpty()
    process = subprocess.Popen([sys.executable, "-m", "jobs", *words], cwd=ROOT, stdout=ours, stderr=ours)
    os.close(ours)
    shown = b""
    while True:
        try:
            part = os.read(theirs, 4096)
        except OSError:  # the last that held the other end is gone
            break
        if not part:
            break
        shown += part
    process.wait(timeout=60)
    os.close(theirs)
    return shown.decode()


def test_a_terminal_shows_an_error_once() -> None:
    shown = on_terminal("compare", "nowhere", "nowhere-else")
    assert shown.count("holds no run.json") == 1
    assert "CAMRAY_RESULT" not in shown
    shown = on_terminal("compare", "nowhere", "nowhere-else", "--json")
    assert ('"exit_code": 5' in shown, "CAMRAY_RESULT" in shown) == (True, False)
