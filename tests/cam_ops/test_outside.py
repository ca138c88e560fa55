"""What reading a file may take of memory: by the kernel's own word, in threads and one within the other."""

import resource
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest

from cam_ops import outside
from cam_ops.outside import bounded_memory

MIB = 2**20
TOO_MUCH = 2**34  # more than what other tests have freed, which a process keeps and may use again


def limit() -> int:
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def take(num_bytes: int) -> None:
    np.zeros(num_bytes, np.uint8)


def test_what_takes_more_than_the_bound_fails_and_what_takes_less_does_not() -> None:
    before = limit()
    with bounded_memory(64 * MIB):
        take(32 * MIB)
        with pytest.raises(MemoryError):
            take(TOO_MUCH)
    take(256 * MIB)
    assert limit() == before


def test_a_bound_within_another_ends_neither_nor_makes_it_stricter() -> None:
    before = limit()
    with bounded_memory(64 * MIB):
        with bounded_memory(512 * MIB):
            take(256 * MIB)
        with bounded_memory(MIB):
            take(32 * MIB)
        assert limit() != before
        with pytest.raises(MemoryError):
            take(TOO_MUCH)
    assert limit() == before


def test_bounds_of_threads_that_end_in_any_order_leave_none() -> None:
    before, has_both, first_ended = limit(), Barrier(2, timeout=30), Barrier(2, timeout=30)
    failed: list[str] = []

    def first() -> None:
        with bounded_memory(64 * MIB):
            has_both.wait()
        first_ended.wait()

    def second() -> None:
        with bounded_memory(64 * MIB):
            has_both.wait()
            first_ended.wait()
            try:
                take(TOO_MUCH)
            except MemoryError:
                failed.append("as it should")

    threads = [Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == ["as it should"]
    assert limit() == before


@pytest.mark.parametrize("says", [None, "", "VmSize: 5 kB\n", "VmData:\tunknown kB\n"])
def test_where_the_system_does_not_say_what_a_process_has_nothing_is_bounded(
    says: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if says is not None:
        (tmp_path / "status").write_text(says)
    monkeypatch.setattr(outside, "STATUS", tmp_path / "status")
    before = limit()
    with bounded_memory(MIB):
        assert limit() == before
        take(64 * MIB)
    assert limit() == before
