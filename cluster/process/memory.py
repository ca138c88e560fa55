"""How much memory this process has taken, and how much there is: of the machine, or of the container it is in; and
whether an error is for lack of it.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cam_ops.errors import CamrayError, MachineError

GROUPS = Path("/sys/fs/cgroup")
FILES = (  # of a control group, versions 2 and 1: its limit, its use, and what of that is cache
    ("memory.max", "memory.current", "memory.stat", "inactive_file "),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file "),
)
LACKING = (  # what libraries say
    *("failed to map segment", "can't start new thread", "bad_alloc"),
    *("annot allocate memory", "an't allocate memory", "nable to allocate", "ut of memory", "std::system_error"),
)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MachineError for what is raised as there is too little memory."""
    try:
        yield
    except CamrayError:
        raise
    except Exception as error:
        if lack := _lack_of_memory(error):
            raise lack from None
        raise


def check_addresses(needed_mib: int) -> None:
    """Raise MachineError where this process may not have so many addresses.

    Libraries that lack them while they load end the process, or wait for ever: what they raise comes too late.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < needed_mib * 2**20:
        raise MachineError(
            f"there is too little memory to load the command, which takes {needed_mib} MiB of addresses; {_has(limit)}"
        )


def _has(limit: int) -> str:
    return f"`ulimit -v` leaves this process {limit // 2**20} MiB of addresses: raise it"


def _lack_of_memory(error: BaseException | None) -> MachineError | None:
    """Return what to tell of an error that comes of too little memory, itself or what it comes of; else None."""
    reason = ""
    while error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in LACKING):
            reason = " ".join(str(error).split())[:200] or type(error).__name__
        error = error.__cause__ or error.__context__
    if not reason:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    cure = "free some, or take a machine with more" if limit == resource.RLIM_INFINITY else _has(limit)
    return MachineError(f"there is too little memory ({reason}); {cure}")


def peak_mib() -> float:
    """Return this process's largest resident size; `ru_maxrss` begins with that of the process which started it."""
    return _number("/proc/self/status", "VmHWM:") / 2**10


def available_mib() -> float:
    """Return how much memory further processes can have."""
    machine_mib = _number("/proc/meminfo", "MemAvailable:") / 2**10
    has = container_bytes()
    return machine_mib if has is None else min(machine_mib, has[1] / 2**20)


def memory_bytes() -> int:
    """Return how much memory there is, in use or not."""
    total = _number("/proc/meminfo", "MemTotal:") * 2**10
    has = container_bytes()
    return total if has is None else min(total, has[0])


def container_bytes(groups: Path = GROUPS) -> tuple[int, int] | None:
    """Return how much memory a container may have, and how much is left of that; None where nothing limits it."""
    for limit, use, statistics, cache in FILES:
        try:
            most = (groups / limit).read_text().strip()
            if most.isdigit():
                used = int((groups / use).read_text()) - _number(str(groups / statistics), cache)
                return int(most), max(0, int(most) - used)
        except OSError:
            continue
    return None


def _number(path: str, name: str) -> int:
    return int(Path(path).read_text().partition(name)[2].split()[0])
