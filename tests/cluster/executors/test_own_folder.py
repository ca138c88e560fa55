"""A Ray of our own finds room for its sockets, whatever TMPDIR is; what is no address of a cluster is told apart."""

import os
import socket
from pathlib import Path

import pytest

from cam_ops.errors import MachineError
from cluster.executors.own_folder import BELOW, MOST_BYTES, SHARED, own_folder
from cluster.executors.ray_actors import RayExecutor
from tests.support.command import ROOT, Command


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_a_socket_may_have_the_path_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the system itself: the longest path that fits, and one that is a byte longer."""
    monkeypatch.chdir(tmp_path)
    name = "x" * (MOST_BYTES + len(BELOW))
    with socket.socket(socket.AF_UNIX) as fits:
        fits.bind(name)
    with socket.socket(socket.AF_UNIX) as too_long, pytest.raises(OSError, match="AF_UNIX path too long"):
        too_long.bind(name + "x")


def test_rays_own_folder_is_taken_where_it_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_folder() == (SHARED, None)
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    assert own_folder() == ("/var/tmp/ray", None)
    monkeypatch.setenv("RAY_TMPDIR", "/dev/shm")
    assert own_folder() == ("/dev/shm/ray", None)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_one_that_is_too_long_or_cannot_be_written_to_is_not(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for root, why in (
        ("/tmp/" + "x" * 60, "is longer than 43 bytes"),
        ("/tmp/" + "ü" * 20, "is longer than 43 bytes"),
        ("/proc", "cannot be written to"),
        ("/dev/null", "is no folder"),
    ):
        monkeypatch.setenv(name, root)
        folder, reason = own_folder()
        assert folder == SHARED
        assert reason is not None
        assert reason.startswith(why)
        assert not Path(root, "ray").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
@pytest.mark.parametrize("as_link", [False, True])
def test_one_of_another_user_is_not(as_link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    if as_link:
        (tmp_path / "ray").symlink_to("other")
    else:
        (tmp_path / "ray").mkdir()
    monkeypatch.setattr("cluster.executors.own_folder.MOST_BYTES", 200)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert own_folder() == (str(tmp_path / "ray"), None)
    os.chown(tmp_path / "ray", 12345, 12345, follow_symlinks=False)
    assert own_folder() == (SHARED, "is another user's")


def test_where_there_is_none_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.executors.own_folder.MOST_BYTES", 5)
    with pytest.raises(MachineError, match=r"set RAY_TMPDIR to a short one .* or do without Ray by --executor inline"):
        own_folder()


@pytest.mark.ray
def test_a_run_with_a_tmpdir_that_is_too_long(pictures: Path, tmp_path: Path) -> None:
    long = tmp_path / ("a folder with a long name " * 3).strip()
    long.mkdir()
    flags = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    run = ["--images", pictures, "--out", tmp_path / "run", "--replicas", 1, *flags]
    done = Command("label", *run, env={"TMPDIR": str(long), "PYTHONPATH": str(ROOT)}, cwd=ROOT)
    assert (done.code, done.result["ok"]) == (0, 12), done.err
    assert (
        f"Ray's files are in {SHARED}: the folder that TMPDIR or RAY_TMPDIR names is longer than 43 bytes" in done.err
    )
    assert not (long / "ray").exists()


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "https://user:secret@host/ray", "HTTP://head:8265"])
def test_an_address_for_jobs_is_no_cluster_to_join(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    cure = "an http:// address is for `ray job submit`; unset it, or give HEAD:6379"
    with pytest.raises(MachineError) as by_flag:
        RayExecutor(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(MachineError) as by_variable:
        RayExecutor(None)
    assert str(by_flag.value).lower().startswith("--ray-address is http")
    assert str(by_variable.value).lower().startswith("ray_address is http")
    assert str(by_flag.value).endswith(cure)
    assert str(by_variable.value).endswith(cure)
    assert "secret" not in str(by_flag.value)
