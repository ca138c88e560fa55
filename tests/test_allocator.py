"""What the C library keeps of freed memory, by the page faults of a thread that the kernel counts."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FAULTS = """
import resource, sys, threading
import torch
from cluster.allocator import keep_freed_memory

def batch():
    layers = [torch.ones(25 * 2**20, dtype=torch.uint8) for _ in range(4)]

def batches():
    for _ in range(3):
        batch()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(10):
        batch()
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

torch.set_num_threads(1)  # a second one would fault in its stead
if sys.argv[1] == "kept":
    keep_freed_memory()
thread = threading.Thread(target=batches)
thread.start()
thread.join()
"""


def faults(mode: str) -> int:
    """Return how often a thread's ten batches of 100 MiB touched a page that it did not have."""
    program = [sys.executable, "-c", FAULTS, mode]
    return int(subprocess.run(program, cwd=ROOT, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_a_thread_finds_the_memory_of_its_last_batch_again() -> None:
    assert faults("kept") < 100 < 300 < faults("freed")  # of huge pages 500
