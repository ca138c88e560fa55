"""How much memory this process has taken, and how much there is."""

from pathlib import Path


def peak_mib() -> float:
    """Return this process's largest resident size; `ru_maxrss` begins with that of the process which started it."""
    return _kib("/proc/self/status", "VmHWM:") / 2**10


def available_mib() -> float:
    """Return how much of this machine's memory further processes can have."""
    return _kib("/proc/meminfo", "MemAvailable:") / 2**10


def _kib(path: str, name: str) -> int:
    return int(Path(path).read_text().partition(name)[2].split()[0])
