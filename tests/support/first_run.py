"""A run that the code of 2026-11-28 made of 20 pictures, before its files were in rooms: `tests/fixtures/first_run`."""

import shutil
import tempfile
from pathlib import Path

from tests.support.command import ROOT

KEPT = ROOT / "tests" / "fixtures" / "first_run"  # the pictures, their labels and boxes, the run, its audit's figures
PICTURES = Path("/tmp/camray-first-run/images")  # the plan names its pictures there


def put_pictures() -> None:
    """Put the pictures in their place, whole or not at all: other tests may read them at this moment."""
    if PICTURES.exists():
        return
    PICTURES.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=PICTURES.parent))
    shutil.copytree(KEPT / "images", scratch / "images")
    try:
        (scratch / "images").rename(PICTURES)
    except OSError:
        assert PICTURES.exists()  # another process was first
    shutil.rmtree(scratch)
