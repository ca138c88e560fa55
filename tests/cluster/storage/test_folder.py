"""Files below a folder in which others have put links."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cam_ops.errors import StorageError
from cluster.runs.directory import RunDir, open_run_dir
from cluster.storage.files import Files

ACTS: dict[str, Callable[[RunDir], object]] = {
    "publish": lambda run_dir: run_dir.publish("audit/metrics.json", b"new"),
    "publish new": lambda run_dir: run_dir.publish_new("audit/metrics.json", b"new"),
    "publish deeper": lambda run_dir: run_dir.publish("audit/deeper/metrics.json", b"new"),
    "publish below": lambda run_dir: run_dir.below("audit").publish("metrics.json", b"new"),
    "publish far below": lambda run_dir: run_dir.below("audit").below("one").publish("metrics.json", b"new"),
    "remove": lambda run_dir: run_dir.remove("audit/metrics.json"),
    "remove below": lambda run_dir: run_dir.below("audit").remove("metrics.json"),
}


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("link", ["audit", ".scratch"])
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_written_or_removed_through_a_link_in_it(
    act: str, link: str, dangling: bool, tmp_path: Path
) -> None:
    other, root = tmp_path / "other", tmp_path / "run"
    root.mkdir()
    if not dangling:
        other.mkdir()
        (other / "metrics.json").write_bytes(b"precious")
    (root / link).symlink_to(other)
    before = tree(tmp_path)
    if link == ".scratch" and act.startswith("remove") and not (root / "audit").exists():
        ACTS[act](RunDir(str(root)))  # there is nothing of that name, and scratch has no part in it
    elif link == ".scratch" and "below" in act:
        pass  # whose scratch is its own
    else:
        with pytest.raises(StorageError, match=rf"/run/{link} is a link, to '{other}'.*remove the link"):
            ACTS[act](RunDir(str(root)))
    assert tree(tmp_path) == before


def test_scratch_that_is_a_link_is_not_swept(tmp_path: Path) -> None:
    old = tmp_path / "other" / f"host-1-{'0' * 32}"
    old.parent.mkdir()
    old.write_bytes(b"precious")
    os.utime(old, (0, 0))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".scratch").symlink_to(old.parent)
    with pytest.raises(StorageError, match="is a link"):
        RunDir(str(tmp_path / "run")).sweep_scratch()
    assert old.read_bytes() == b"precious"


def test_the_folder_itself_may_be_a_link_and_a_file_that_is_one_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to("disk")
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "disk" / "report.html").symlink_to(tmp_path / "other")
    files: Files = open_run_dir(str(tmp_path / "run"))
    files.publish("report.html", b"new")
    files.below("audit").publish("metrics.json", b"new")
    assert (tmp_path / "disk" / "report.html").read_bytes() == b"new"
    assert (tmp_path / "disk" / "audit" / "metrics.json").read_bytes() == b"new"
    assert (tmp_path / "other").read_bytes() == b"precious"
