"""What a machine is and has, as far as it tells without torch."""

import os
import platform
import resource
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version

from cluster.doctor.findings import Finding, fail, ok, warn
from cluster.process.memory import memory_bytes

GIB = 2**30
PACKAGES = ("camray", "ray", "torch", "torchvision", "numpy", "opencv-python", "pyarrow", "duckdb")
LEAST_PYTHON, MOST_PYTHON = (3, 11), (3, 13)
FEW_FILES, FEW_BYTES, NO_BYTES = 1024, 5 * GIB, GIB // 2
LITTLE_MEMORY = 4 * GIB  # for a replica, of most networks
SMALL_SHM = 64 * 2**20


def versions() -> dict[str, str]:
    """Return Python's and the packages' versions; `missing` for one that is not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def look_at_machine() -> list[Finding]:
    """Check Python, packages, limits, room for scratch, memory."""
    return [_python(), _packages(), _open_files(), _scratch(), _shm(), _memory()]


def _python() -> Finding:
    says = f"{platform.python_version()} at {sys.executable}"
    if not LEAST_PYTHON <= sys.version_info[:2] <= MOST_PYTHON:
        least, most = (".".join(map(str, each)) for each in (LEAST_PYTHON, MOST_PYTHON))
        return fail("python", says, f"take Python {least} to {most}")
    return ok("python", says)


def _packages() -> Finding:
    found = versions()
    missing = [name for name, is_at in found.items() if is_at == "missing"]
    if missing:
        return fail("packages", f"not installed: {', '.join(missing)}", "pip install camray on this machine")
    return ok("packages", ", ".join(f"{name} {is_at}" for name, is_at in found.items() if name != "python"))


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    says = f"{soft} at a time, {hard} at most" if hard != resource.RLIM_INFINITY else f"{soft} at a time"
    if soft < FEW_FILES:
        return warn("open files", says, f"ulimit -n {FEW_FILES * 64} where the command, or `ray start`, is typed")
    return ok("open files", says)


def _scratch() -> Finding:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    says = f"{free / GIB:.1f} GiB free in {folder}"
    cure = "free some space, or set TMPDIR to a folder with room"
    if free < NO_BYTES:
        return fail("scratch", says, cure)
    return warn("scratch", says, cure) if free < FEW_BYTES else ok("scratch", says)


def _shm() -> Finding:
    try:
        found = shutil.disk_usage("/dev/shm")  # noqa: S108  it is looked at
    except OSError:
        return warn("shared memory", "there is no /dev/shm", "mount it: Ray keeps its object store there")
    says = f"/dev/shm has {found.free / GIB:.2f} of {found.total / GIB:.2f} GiB free"  # noqa: S108
    if found.total < SMALL_SHM:
        return warn("shared memory", says, "give the container more: --shm-size=1g, or an emptyDir of medium Memory")
    if found.free < SMALL_SHM:
        return warn("shared memory", says, "remove what others left there")
    return ok("shared memory", says)


def _memory() -> Finding:
    has, cores = memory_bytes(), len(os.sched_getaffinity(0))
    says = f"{has / GIB:.1f} GiB for {cores} core(s)"
    if has < LITTLE_MEMORY:
        return warn("memory", says, "a replica takes 1 to 4 GiB: take a larger machine, or --replicas 1")
    return ok("memory", says)
