"""`--out` of `export`: what is somebody else's stays, and what looks whole is whole, wherever an export ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cam_ops.errors import StorageError
from cluster.export.destination import Destination, destination_at
from cluster.storage.options import NO_OPTIONS
from tests.support.command import ROOT, Command
from tests.support.stores import Store


def export(run: object, out: object, form: str, *more: object) -> Command:
    return Command("export", run, "--to", form, "--out", out, *more)


def words_of(run: Path, form: str, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "jobs", "export", str(run), "--to", form, "--out", str(out), *more]


def ended_at(point: str, name: str, tmp_path: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that a signal reaches at a point."""
    env = {**os.environ, "CAMRAY_FAILPOINTS": f"{point}:{name}:{tmp_path / f'{point}-{name}'}"}
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)


def names(folder: Path) -> set[str]:
    """Return what is in a folder; empty folders of a store's server are nothing."""
    return {path.name for path in folder.iterdir() if path.is_file() or any(path.iterdir())}


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


def begun(out: Path) -> Destination:
    destination = destination_at(str(out), NO_OPTIONS)
    destination.begin({}, ("labels",), overwrite=False)
    return destination


def test_a_folder_that_an_export_could_have_made_and_did_not_is_never_removed(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(run, out, "coco").code == 0
    (out / "annotations").mkdir()
    (out / "annotations" / "mine.json").write_text("mine")
    assert export(run, out, "csv", "--overwrite").code == 0
    assert names(out) == {"annotations", "boxes.csv", "export.json"}
    refused = export(run, out, "coco", "--overwrite")
    assert (refused.code, "holds annotations, which no export made" in refused.err) == (4, True)
    assert (out / "annotations" / "mine.json").read_text() == "mine"


@pytest.mark.parametrize("document", [{"entries": ["mine"]}, {"command": "export", "asked": {}, "entries": ["mine"]}])
def test_a_record_from_elsewhere_gives_away_nothing(run: Path, tmp_path: Path, document: object) -> None:
    out = tmp_path / "out"
    (out / "mine").mkdir(parents=True)
    (out / "mine" / "notes").write_text("mine")
    (out / "export.json").write_text(json.dumps(document))
    done = export(run, out, "coco", "--overwrite")
    assert "mine" in names(out)
    is_ours = isinstance(document, dict) and "command" in document
    assert (done.code, "holds export.json, which no export made" in done.err) == ((0, False) if is_ours else (4, True))


def test_a_record_that_is_no_file_is_not_waited_for(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "export.json")
    refused = export(run, tmp_path / "out", "coco", "--overwrite")
    assert (refused.code, "holds export.json, which no export made" in refused.err) == (4, True)


def test_a_file_that_is_only_named_like_one_of_ours_is_not_written_through(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".camray-export-notes").mkdir(parents=True)
    (out / ".camray-export-notes" / "mine").write_text("mine")
    (tmp_path / "mine").write_text("mine")
    (out / "export.json.tmp").symlink_to(tmp_path / "mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "marker.json").write_text("{}")
    (out / f".camray-export-{'0' * 32}").symlink_to(tmp_path / "folder")
    assert export(run, out, "coco", "--overwrite").code == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "folder" / "marker.json").read_text() == "{}"
    own = {".camray-export-notes", f".camray-export-{'0' * 32}", "export.json.tmp"}
    assert names(out) == own | {"annotations.json", "export.json"}


@pytest.mark.parametrize("name", ["KILL", "TERM"])
@pytest.mark.parametrize("point", ["moved-labels", "moved-images"])
def test_an_export_that_ends_while_it_is_moved_keeps_its_marker_and_is_made_again(
    run: Path, tmp_path: Path, point: str, name: str
) -> None:
    out = tmp_path / "out"
    assert ended_at(point, name, tmp_path, words_of(run, "yolo", out)).returncode in (-signal.SIGKILL, 130)
    assert any(found.startswith(".camray-export-") for found in names(out))
    assert "labels" in names(out)  # before the pictures, which would be taught as background without them
    again = export(run, out, "yolo")
    assert again.code == 0, again.err
    assert names(out) == {"images", "labels", "data.yaml", "export.json"}


def test_an_export_that_is_killed_while_it_replaces_another_leaves_nothing_of_that(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(run, out, "yolo").code == 0
    words = words_of(run, "coco", out, "--overwrite")
    assert ended_at("taken-data.yaml", "KILL", tmp_path, words).returncode == -signal.SIGKILL
    assert {"images", "labels"} <= names(out)
    assert export(run, out, "coco").code == 0
    assert names(out) == {"annotations.json", "export.json"}


def test_of_two_exports_at_once_none_writes_into_the_other(run: Path, tmp_path: Path) -> None:
    out, marker = tmp_path / "out", tmp_path / "stopped"
    env = {**os.environ, "CAMRAY_FAILPOINTS": f"begin:STOP:{marker}"}
    words = words_of(run, "yolo", out, "--category-ids", "used", "--only-classes", "rings")
    with subprocess.Popen(words, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as first:
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
        assert export(run, out, "yolo").code == 0
        before = (out / "data.yaml").read_bytes()
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate()
    assert (first.returncode, "another one writes there" in said) == (4, True)
    assert (out / "data.yaml").read_bytes() == before
    assert names(out) == {"images", "labels", "data.yaml", "export.json"}


def test_an_export_that_goes_on_is_not_replaced_and_ends_whole(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for point in ("part-0", "moved-labels"):
        env = {**os.environ, "CAMRAY_FAILPOINTS": f"{point}:STOP:{tmp_path / point}"}
        command = words_of(run, "yolo", out, "--overwrite")
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
            os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
            refused = export(run, out, "yolo", "--overwrite")
            first.send_signal(signal.SIGCONT)
            first.communicate()
        assert (refused.code, "another export writes to" in refused.err) == (4, True)
        assert first.returncode == 0
        assert names(out) == {"images", "labels", "data.yaml", "export.json"}
        assert len(list(out.rglob("*.txt"))) == 12


def test_what_came_since_the_export_began_is_not_replaced(tmp_path: Path) -> None:
    destination = begun(tmp_path / "out")
    destination.put("labels/1.txt", b"ours")
    (tmp_path / "out" / "labels").mkdir()
    with pytest.raises(StorageError, match="holds labels, which was not there when this export began"):
        destination.prepare(set())


def test_a_replica_that_lives_on_cannot_bring_back_what_is_done(tmp_path: Path) -> None:
    destination = begun(tmp_path / "out")
    (tmp_path / "picture.jpg").write_bytes(b"")
    shutil.rmtree(destination.place.stage)
    with pytest.raises(StorageError, match="another one replaced it"):
        destination.link("images/1.jpg", str(tmp_path / "picture.jpg"))
    with pytest.raises(StorageError, match="another one replaced it"):
        destination.put("labels/1.txt", b"")
    assert not any((tmp_path / "out").iterdir())


def test_a_run_that_is_reached_by_a_link_is_only_read(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    inside = export(run, tmp_path / "link" / "export", "coco")
    assert (inside.code, "lies in the run" in inside.err) == (2, True)
    again = tmp_path / "again"
    assert Command("rebox", run, "--out", again, "--executor", "inline").code == 0
    inside = export(again, run / "export", "coco")
    assert (inside.code, "lies in the run" in inside.err) == (2, True)


def test_boxes_are_exported_where_the_maps_are_gone(run: Path, tmp_path: Path) -> None:
    first, again = Path(shutil.copytree(run, tmp_path / "first")), tmp_path / "again"
    assert Command("rebox", first, "--out", again, "--executor", "inline").code == 0
    shutil.rmtree(first)
    assert export(again, tmp_path / "out", "coco").code == 0


@pytest.mark.parametrize("point", ["part-0", "record"])
def test_an_export_that_is_killed_on_a_store_says_that_it_is_not_whole_and_is_made_again(
    store: Store, run: Path, tmp_path: Path, point: str
) -> None:
    out = store.address(f"killed/{point}")
    words = words_of(run, "yolo", Path("."), "--storage-options", *store.words)
    words[words.index("--out") + 1] = out
    assert ended_at(point, "KILL", tmp_path, words).returncode == -signal.SIGKILL
    there = store.folder / "killed" / point
    assert any(name.startswith(".camray-export-") for name in names(there))
    assert "export.json" not in names(there)
    again = export(run, out, "yolo", "--storage-options", *store.words)
    assert again.code == 0, again.err
    assert names(there) == {"images", "labels", "data.yaml", "export.json"}
    assert len(list(there.rglob("*.txt"))) == again.result["exported"] == 12


def test_of_two_exports_at_once_on_a_store_none_writes_into_the_other(store: Store, run: Path, tmp_path: Path) -> None:
    out = store.address("both")
    words = words_of(run, "yolo", Path("."), "--only-classes", "rings", "--storage-options", *store.words)
    words[words.index("--out") + 1] = out
    env = {**os.environ, "CAMRAY_FAILPOINTS": f"begin:STOP:{tmp_path / 'stopped'}"}
    with subprocess.Popen(words, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as first:
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WNOWAIT)
        assert export(run, out, "yolo", "--storage-options", *store.words).code == 0
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate()
    assert (first.returncode, "another one writes there" in said) == (4, True)
    assert names(store.folder / "both") == {"images", "labels", "data.yaml", "export.json"}
