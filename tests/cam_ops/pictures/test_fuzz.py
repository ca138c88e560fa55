"""A few thousand mutated pictures through the decoder: `support.fuzz` says what must hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ROOT


@pytest.mark.slow
def test_mutated_pictures_end_as_pixels_or_as_a_status(tmp_path: Path) -> None:
    last = tmp_path / "last"
    words = [sys.executable, "-m", "tests.support.fuzz", "--count", "3000", "--last", str(last)]
    finished = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=300)
    assert finished.stdout, f"mutation {last.read_text()} killed the process: {finished.returncode}"
    found = json.loads(finished.stdout)
    assert found["failures"] == []
    assert found["mib_peak"] - found["mib_before"] < 512
    assert min(found["outcomes"].get(status, 0) for status in ("ok", "truncated", "undecodable")) > 500
