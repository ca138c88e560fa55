"""A file that a flag names: whole, or as it was."""

import os
import stat
from pathlib import Path

import pytest

from cam_ops.errors import StorageError
from cluster.storage.named import write_named


def test_a_file_is_replaced_through_a_link_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("before")
    (tmp_path / "out.json").symlink_to("real.json")
    write_named(str(tmp_path / "out.json"), b"after", "--out")
    assert (tmp_path / "real.json").read_bytes() == b"after"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "real.json"]


def test_what_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*/folder: Is a directory; check --out"):
        write_named(str(tmp_path / "folder"), b"x", "--out")
    with pytest.raises(StorageError, match=r"cannot write .*/gone/out: No such file or directory; check --to"):
        write_named(str(tmp_path / "gone" / "out"), b"x", "--to")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_a_device_is_written_to_and_stays_one() -> None:
    write_named("/dev/null", b"x", "--out")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
