"""The log of a session: published whole, whatever ends the session; never a reason for a run to fail."""

import itertools
import json
import os
import threading
from pathlib import Path

import pytest

from cam_ops.errors import StorageError
from cluster.executors.events import Event
from cluster.executors.work import ShardReport
from cluster.runs.directory import RunDir
from cluster.runs.log import RunLog
from cluster.storage.options import parse_options
from tests.support.stores import SECRET


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A run directory, as far as a log looks at it."""
    run_dir = RunDir(str(tmp_path / "run"), parse_options([f"secret_key={SECRET}"]))
    run_dir.publish("run.json", b"{}")
    return run_dir


def sessions(run_dir: RunDir) -> list[list[dict]]:
    files = sorted(Path(run_dir.root, "log").iterdir())
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def death(why: str) -> Event:
    return Event("replica_died", {"place": "here", "why": why, "shards": 1})


def test_the_start_is_there_at_once_and_the_end_at_the_end(run_dir: RunDir) -> None:
    with RunLog(run_dir, {"command": "label"}) as log:
        assert [line["event"] for line in sessions(run_dir)[0]] == ["start"]
        log.add(ShardReport(shard=0, statuses={"ok": 3, "empty": 1}))
        assert [line["event"] for line in sessions(run_dir)[0]] == ["start"]  # not for each shard
    (lines,) = sessions(run_dir)
    assert [line["event"] for line in lines] == ["start", "shard_done", "end"]
    assert [lines[-1][name] for name in ("status", "reason", "images")] == ["done", None, 4]


def test_news_are_published_at_the_pace_while_nothing_else_happens(run_dir: RunDir) -> None:
    there, published = threading.Event(), RunDir.publish

    class Heard(RunDir):
        def publish(self, name: str, content: bytes) -> None:
            published(self, name, content)
            if b"replica_died" in content:
                there.set()

    with RunLog(Heard(run_dir.root, run_dir.options), {}, pace_s=0.01) as log:
        log.tell(death("gone"))
        assert there.wait(30)
        assert [line["event"] for line in sessions(run_dir)[0]] == ["start", "replica_died"]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (StorageError("the disk is full"), "failed", "the disk is full"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
        (KeyboardInterrupt(), "interrupted", None),
        (StorageError(f"refused: {SECRET}"), "failed", "refused: ***"),
    ],
)
def test_the_end_says_how_it_came_and_passes_the_error_on(
    run_dir: RunDir, error: BaseException, status: str, reason: str | None
) -> None:
    with pytest.raises(type(error)), RunLog(run_dir, {}):
        raise error
    end = sessions(run_dir)[0][-1]
    assert (end["event"], end["status"], end["reason"]) == ("end", status, reason)


def test_a_secret_in_the_reason_of_a_death_is_not_written(run_dir: RunDir) -> None:
    with RunLog(run_dir, {}) as log:
        log.tell(death(f"cannot sign with {SECRET}!"))
    assert [line["why"] for line in sessions(run_dir)[0] if "why" in line] == ["cannot sign with ***!"]


def test_a_log_that_cannot_be_written_is_said_once_and_ends_nothing(
    run_dir: RunDir, capsys: pytest.CaptureFixture
) -> None:
    Path(run_dir.root, "log").write_text("a file")
    with RunLog(run_dir, {}, pace_s=0.01) as log:
        for number in range(50):
            log.tell(death(str(number)))
    said = capsys.readouterr().err
    assert said.startswith(f"camray: the run goes on without its log: cannot write {run_dir.root}/log/")
    assert said.count("\n") == 1
    assert Path(run_dir.root, "log").read_text() == "a file"


def test_the_log_of_a_run_that_has_been_replaced_leaves_the_new_one_alone(run_dir: RunDir) -> None:
    with RunLog(run_dir, {}):
        (name,) = os.listdir(f"{run_dir.root}/log")
        run_dir.remove(f"log/{name}")
        run_dir.publish("run.json", b"[]")
    assert os.listdir(f"{run_dir.root}/log") == []


def test_the_last_hundred_sessions_are_kept_and_what_is_none(run_dir: RunDir) -> None:
    old = [
        f"2020{month:02d}{day:02d}T000000Z-00000000.jsonl"
        for month, day in itertools.product(range(1, 6), range(1, 31))
    ]
    for name in (*old, "notes.jsonl"):
        run_dir.publish(f"log/{name}", b"")
    with RunLog(run_dir, {}):
        pass
    left = sorted(run_dir.names("log"))
    assert left[:99] == old[-99:]
    assert (len(left), left[-1]) == (101, "notes.jsonl")
