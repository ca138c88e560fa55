"""How much memory there is, by the files of control groups as containers have them."""

from pathlib import Path

import pytest

from cluster.process.memory import available_mib, container_bytes, memory_bytes

MIB = 2**20


@pytest.mark.parametrize(
    ("folder", "limit", "use", "cache"),
    [
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_what_a_container_has_left_is_its_limit_without_its_use_whose_cache_can_go(
    folder: str, limit: str, use: str, cache: str, tmp_path: Path
) -> None:
    there = tmp_path / folder
    there.mkdir(exist_ok=True)
    (there / limit).write_text(f"{4096 * MIB}\n")
    (there / use).write_text(f"{3000 * MIB}\n")
    (there / "memory.stat").write_text(f"anon {2000 * MIB}\nactive_file {1}\n{cache} {1000 * MIB}\nslab 7\n")
    assert container_bytes(tmp_path) == (4096 * MIB, 2096 * MIB)
    (there / use).write_text(f"{5200 * MIB}\n")
    assert container_bytes(tmp_path) == (4096 * MIB, 0)


def test_a_group_without_a_limit_is_none(tmp_path: Path) -> None:
    assert container_bytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert container_bytes(tmp_path) is None


def test_what_is_left_is_less_than_all() -> None:
    assert 0 < available_mib() < memory_bytes() / MIB
