"""The logs of a run, read: hand-worked sums, and files that others wrote."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cam_ops.errors import StorageError
from cluster.executors.work import ShardReport
from cluster.runs.directory import RunDir
from cluster.runs.history import MAX_BINS, MAX_BYTES, read_log
from cluster.runs.session import Session

START = {
    "command": "label",
    "command_line": ["label", "--out", "run"],
    "executor": "ray",
    "device": "cpu",
    "replicas": 2,
    "host": "vm",
    "process": 7,
    "versions": {"camray": "1"},
    "images_pending": 40,
}
FIRST, SECOND = "20261129T203614Z-00000000.jsonl", "20261129T213614Z-00000000.jsonl"


def begun(hour: int, **more: object) -> Session:
    return Session(datetime(2026, 11, 29, hour, 36, 14, tzinfo=UTC), {**START, **more})


def report(shard: int, ok: int, bad: int = 0, **seconds: float) -> ShardReport:
    return ShardReport(shard=shard, statuses={"ok": ok, "empty": bad}, seconds=seconds, place="here")


def put(folder: Path, **files: bytes) -> RunDir:
    run_dir = RunDir(str(folder))
    for name, content in files.items():
        run_dir.publish(f"log/{name}", content)
    return run_dir


def test_two_sessions_one_cut_off_by_hand(tmp_path: Path) -> None:
    first = begun(20)
    first.add_event("replica_up", {"place": "here", "seconds": 1.0}, 1.0)
    first.add_shard(report(0, 10, load=1.0, network=1.0, fetch=9.0), 4.0)  # at work from 2 to 4
    first.add_event("replica_died", {"place": "here", "why": "killed", "shards": 2}, 5.0)
    first.add_event("replica_died", {"place": "here", "why": "killed", "shards": 1}, 6.0)
    second = begun(21, command_line=None, images_pending=30)
    second.add_shard(report(1, 7, 1, load=0.5, network=0.5), 1.0)  # from 0 to 1: from 6 to 7 in working time
    second.add_end({"status": "failed", "reason": "the disk is full", "images": 8, "seconds": 3.0}, 3.0)
    run_dir = put(tmp_path, **{SECOND: second.content(), FIRST: first.content(), "notes.jsonl": b"no"})
    history = read_log(run_dir)
    assert history
    one, other = history.sessions
    assert (one.status, one.reason, one.seconds, one.images, one.shards, one.shards_back) == (None, None, 6, 10, 1, 3)
    assert one.events == {"replica_up": 1, "replica_died": 2}
    assert [(reason.kind, reason.why, reason.times) for reason in one.reasons] == [("replica_died", "killed", 2)]
    assert (one.command_line, other.command_line) == (("label", "--out", "run"), None)
    assert (other.status, other.reason, other.seconds, other.images) == ("failed", "the disk is full", 3, 8)
    assert (other.working_s, other.bad, other.began.hour) == (6, {"empty": 1}, 21)
    assert (history.working_s, history.bin_s, history.foreign_lines) == (9, 1, 0)
    np.testing.assert_allclose(history.images_N, [0, 0, 5, 5, 0, 0, 8, 0, 0])
    np.testing.assert_array_equal(history.deaths_N, [0, 0, 0, 0, 0, 1, 1, 0, 0])
    assert history.stage_seconds == {"load": 1.5, "network": 1.5, "fetch": 9}


def test_without_a_log_there_is_no_history(tmp_path: Path) -> None:
    assert read_log(RunDir(str(tmp_path / "none"))) is None
    assert read_log(put(tmp_path, **{FIRST: b"", "notes.jsonl": begun(20).content()})) is None


@pytest.mark.parametrize("num_shards", [1, 50, 5000, 20_000])
def test_bins_hold_all_images_however_many_shards_share_a_line(num_shards: int, tmp_path: Path) -> None:
    session = begun(20)
    for shard in range(num_shards):
        session.add_shard(report(shard, 3, 1, network=0.4), 1 + 0.37 * shard)
    history = read_log(put(tmp_path, **{FIRST: session.content()}))
    assert history
    assert len(history.images_N) <= MAX_BINS
    assert history.images_N.sum() == pytest.approx(4 * num_shards)
    assert history.sessions[0].images == 4 * num_shards
    assert history.stage_seconds["network"] == pytest.approx(0.4 * num_shards)
    if num_shards > 1000:  # an even pace
        np.testing.assert_allclose(history.images_N[1:-1], 4 * history.bin_s / 0.37, rtol=0.05)


IN_TIME = b'"time": "2026-11-29T20:36:15Z"'
SHARD = b'{%s, "event": "shard_done", "shards": 1, "images": %%s, "bad": {}, "stages": {%%s}}' % IN_TIME
HOSTILE = [
    b"\xff\x00",
    b"[" * 100_000,
    b'{"time": "2026-11-29T20:36:15Z"}',
    b'{"time": "2026-11-29T20:36:15Z", "event": "rm"}',
    b'{"time": "yesterday", "event": "replica_up"}',
    b'{"time": "2026-11-29T20:36:15", "event": "replica_up"}',  # of which zone?
    b'{"time": "2026-11-29T20:36:15Z", "event": "replica_died", "why": "x", "shards": -1}',
    b'{"time": "2026-11-29T20:36:15Z", "event": "replica_died", "why": "' + b"x" * 3000 + b'", "shards": 1}',
    SHARD % (b'"4"', b""),
    SHARD % (b"1" + b"0" * 500, b""),
    SHARD % (b"1", b'"a": NaN'),
    SHARD % (b"1", b'"a": 1e999'),
    b'{"time": "2026-11-29T20:36:15Z", "event": "end", "status": "fine", "reason": null}',
    b" " * 300_000,
    b"",
]  # fmt: skip


def test_lines_that_are_none_of_ours_are_counted_and_the_others_read(tmp_path: Path) -> None:
    session = begun(20)
    session.add_shard(report(0, 5), 2.0)
    start, shard = session.content().splitlines()
    late = b'{"time": "2026-11-29T20:36:18Z", "event": "end", "status": "done", "reason": null}'
    content = b"\n".join([shard, start, *HOSTILE, start, shard, late, shard, late])
    history = read_log(put(tmp_path, **{FIRST: content}))
    assert history
    assert history.foreign_lines == 1 + len(HOSTILE) + 1 + 2
    assert (history.sessions[0].images, history.sessions[0].shards, history.sessions[0].seconds) == (5, 1, 4)


def test_names_stages_and_lines_without_end_do_not_grow_what_is_read(tmp_path: Path) -> None:
    start = begun(20).content()
    shard = SHARD.replace(b'"bad": {}', b'"bad": {"%%d": 1}') % (b"1", b'"%d": 1')
    died = '{"time": "9999-12-31T23:59:59Z", "event": "replica_died", "why": "%d", "shards": 1}'
    lines = [shard % (n, n) for n in range(6000)] + [(died % n).encode() for n in range(6000)]
    history = read_log(put(tmp_path, **{FIRST: start + b"\n".join(lines)}))
    assert history
    session = history.sessions[0]
    assert (len(session.bad), len(history.stage_seconds), len(session.reasons)) == (200, 32, 20)
    assert (session.events, session.shards) == ({"replica_died": 6000}, 4097)
    assert (len(history.images_N), history.foreign_lines) == (MAX_BINS, 6000 - 4097)
    assert (len(history.deaths_N), history.deaths_N.sum()) == (MAX_BINS, 2000)


def test_texts_that_are_no_utf_8_are_short_enough_to_be_read_again(tmp_path: Path) -> None:
    session = begun(20)
    session.add_event("replica_died", {"place": "a", "why": "\udcff" * 600, "shards": 1}, 1.0)
    session.add_end({"status": "failed", "reason": "\udcff" * 600, "images": 0, "seconds": 2.0}, 2.0)
    history = read_log(put(tmp_path, **{FIRST: session.content()}))
    assert history is not None
    assert (history.foreign_lines, history.sessions[0].status) == (0, "failed")
    assert history.sessions[0].reasons[0].why == "\\udcff" * 83 + "\\u..."


def test_a_file_that_is_too_long_for_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"to be a file of at most {MAX_BYTES} bytes"):
        read_log(put(tmp_path, **{FIRST: b"\n" * (MAX_BYTES + 1)}))


def test_a_command_line_is_json_of_words(tmp_path: Path) -> None:
    session = Session(datetime(2026, 11, 29, 20, tzinfo=UTC), {**START, "command_line": "label"})
    assert json.loads(session.content())["command_line"] == "label"
    assert read_log(put(tmp_path, **{FIRST: session.content()})) is None
