"""What the C library keeps of freed memory, by the page faults of a thread that the kernel counts."""

import platform
import subprocess
import sys

import pytest

from tests.support.command import ROOT

pytestmark = pytest.mark.slow

FAULTS = """
import resource, sys, threading
import torch
from cluster.machine.allocator import keep_freed_memory

def batch():
    layers = [torch.ones(int(size) * 2**20, dtype=torch.uint8) for size in sys.argv[3:]]

def batches():
    for _ in range(int(sys.argv[2])):
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


def faults(mode: str, num_before: int, sizes: tuple[int, ...]) -> int:
    """Return how often a thread's ten batches, after some before, touched a page that it did not have; sizes in MiB."""
    program = [sys.executable, "-c", FAULTS, mode, str(num_before), *map(str, sizes)]
    return int(subprocess.run(program, cwd=ROOT, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
@pytest.mark.parametrize(("num_before", "sizes"), [(3, (25, 25, 25, 25)), (20, (37, 9, 37)), (20, (60, 60))])
def test_a_thread_finds_the_memory_of_its_last_batch_again(num_before: int, sizes: tuple[int, ...]) -> None:
    assert faults("kept", num_before, sizes) < 100 < 300 < faults("freed", num_before, sizes)  # of huge pages 400
