"""What a machine with a GPU is asked, in at most eight minutes: `python -m tests.support.gpu`, or `make gpu`.

The tests marked `gpu`, then `bench gpu`, whose figures are appended to a file. Nothing is downloaded: the photographs
are those of the tests, or of the demo. With `--device cpu` all of it is rehearsed; further flags are those of `bench`.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from cam_ops.errors import MachineError
from cluster.machine.gpu import loading
from jobs.demo_photos import copy_photos
from tests.support.command import ROOT

MOST_S = 480.0
TESTS_S = 150.0
SPARE_S = 30.0  # for starts, and what is cut off
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
FLAGS = ["--models", "efficientnet_lite0", "resnet50", "--num-images", "4096"]


def main() -> int:
    """Return the exit code: 6 without a GPU, else that of the first command that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", default="gpu.jsonl", help="file to append the figures to")
    known, flags = parser.parse_known_args()
    end_s = time.monotonic() + MOST_S
    try:
        with loading(torch.device(known.device), "a network"):
            pass
    except MachineError as error:
        print(f"make gpu needs a GPU: {error}", file=sys.stderr)
        return error.exit_code
    with TemporaryDirectory(prefix="camray-gpu-") as folder:
        photos = PHOTOS if PHOTOS.is_dir() else Path(folder)
        if photos is not PHOTOS:
            copy_photos(photos)
        tests = _run("pytest", TESTS_S, "-q", "-m", "gpu")
        left_s = end_s - time.monotonic() - SPARE_S
        bench = ["bench", "gpu", "--images", str(photos), "--device", known.device, "--out", known.out, *FLAGS]
        measured = _run("jobs", left_s + SPARE_S, *bench, "--seconds", str(left_s), *flags)
    return tests or measured


def _run(module: str, most_s: float, *arguments: str) -> int:
    """Run a module of Python's in the repository; return its exit code, 1 where it took too long."""
    try:
        return subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, timeout=most_s).returncode
    except subprocess.TimeoutExpired:
        print(f"{module} was ended after {most_s:.0f} s", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
