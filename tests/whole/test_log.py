"""The log of real runs: what it says of a run, of one resumed, interrupted or failed; that none needs it."""

import json
import shlex
import signal
from pathlib import Path

import pytest

from cluster.label.config import LabelConfig
from cluster.label.driver import label as label_as_library
from cluster.process.console import shortened
from cluster.process.failpoints import VARIABLE
from cluster.runs.directory import RunDir
from cluster.runs.history import RunHistory, read_log
from cluster.runs.record import existing_run
from cluster.runs.session import MAX_TEXT
from jobs.flags import parse
from tests.support.command import Command

FLAGS = ["--executor", "inline", "--precision", "fp32", "--shard-size", 4]
TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]


def label(pictures: Path, out: Path, *more: object) -> Command:
    return Command("label", "--images", pictures, "--out", out, *FLAGS, *TWO, *more)


def history_of(out: Path) -> RunHistory:
    history = read_log(RunDir(str(out)))
    assert history
    assert history.foreign_lines == 0
    return history


def test_a_run_its_log_and_its_command_line(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (pictures / "discs" / "01.png").write_bytes(b"none")
    typed = [str(word) for word in ("--images", pictures, "--out", out, *FLAGS, *TWO, "--max-error-rate", 0.5)]
    done = Command("label", *typed, "--storage_options=secret_key=hidden", "region=nowhere")
    assert done.code == 0
    (file,) = (out / "log").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "replica_up", *["shard_done"] * 3, "end"]
    shown = ["label", *typed, "--storage_options=secret_key=...", "region=..."]
    run = existing_run(RunDir(str(out)))
    start, up, *shards, end = lines
    assert run.command_line == tuple(shown)
    again = parse(LabelConfig, shlex.split(shlex.join(shown[1:-2])), "label")
    assert (again.out, again.max_error_rate) == (str(out), 0.5)
    expected = {
        **{"command": "label", "command_line": shown, "fingerprint": run.request.fingerprint(), "device": "cpu"},
        **{"images": 12, "shards": 3, "images_pending": 12, "shards_pending": 3, "replicas": 1, "executor": "inline"},
    }
    assert expected.items() <= start.items()
    assert start["versions"] == json.loads((out / "run.json").read_text())["versions"]
    assert [(line["shard"], line["images"], line["bad"]) for line in shards] == [
        *((0, 4, {"truncated": 1}), (1, 4, {}), (2, 4, {}))
    ]
    assert {line["place"] for line in [up, *shards]} == {start["host"]}
    assert all(set(line["stages"]) == {"fetch", "decode", "load", "network", "boxes", "publish"} for line in shards)
    turns_s = sum(line["stages"][stage] for line in shards for stage in ("load", "network", "boxes", "publish"))
    assert 0 < turns_s < end["seconds"] - up["seconds"]
    assert (end["status"], end["reason"], end["images"]) == ("done", None, 12)
    texts = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert not any(b"hidden" in text or b"nowhere" in text for text in texts)
    assert Command("verify", out).code == 0


def test_a_run_that_is_interrupted_and_resumed_has_two_sessions(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruptible: None
) -> None:
    out = tmp_path / "run"
    monkeypatch.setenv(VARIABLE, f"report-1:{signal.SIGINT.name[3:]}:{tmp_path}/reached")
    stopped = label(pictures, out).result
    assert (stopped["exit_code"], stopped["images"], stopped["ok"], stopped["errors"]) == (130, 8, 8, 0)
    assert label(pictures, out).code == 0
    assert label(pictures, out).code == 0  # nothing is left: no session
    first, second = history_of(out).sessions
    assert (first.status, first.images, first.images_pending) == ("interrupted", 8, 12)
    assert (second.status, second.images, second.images_pending) == ("done", 4, 4)
    assert second.working_s == first.seconds
    assert history_of(out).images_N.sum() == pytest.approx(12)


def test_a_run_that_fails_says_why_and_the_command_of_rebox_is_its_own(pictures: Path, tmp_path: Path) -> None:
    out, boxes = tmp_path / "run", tmp_path / "boxes"
    assert label(pictures, out).code == 0
    maps = out / "heatmaps" / "shard-0000001.parquet"
    content = maps.read_bytes()
    maps.write_bytes(content[:100])
    words = ["rebox", out, "--out", boxes, "--threshold", 0.4, "--executor", "inline"]
    failed = Command(*words)
    assert failed.code == 5
    maps.write_bytes(content)
    assert Command(*words).code == 0
    first, second = history_of(boxes).sessions
    reason = shortened(failed.result["error"], MAX_TEXT)
    assert (first.status, first.reason, first.images) == ("failed", reason, 4)
    assert (second.status, second.images) == ("done", 8)
    assert existing_run(RunDir(str(boxes))).command_line == first.command_line == tuple(map(str, words))
    assert history_of(boxes).stage_seconds.keys() == {"read", "boxes", "publish"}


def test_without_room_for_a_log_all_is_as_with_one_and_overwrite_removes_it(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "log").write_text("a file")
    done = label(pictures, out)
    assert (done.code, done.err.count("goes on without its log")) == (0, 1)
    assert Command("verify", out).code == 0
    (out / "log").unlink()
    (out / "log").mkdir()
    (out / "log" / "notes.txt").touch()
    assert label(pictures, out, "--overwrite").code == 0
    assert label(pictures, out, "--overwrite", "--limit", 3).code == 0
    assert [session.images for session in history_of(out).sessions] == [3]
    assert (out / "log" / "notes.txt").exists()


def test_a_library_has_no_command_line(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--images", str(pictures), "--out", str(out), *map(str, [*FLAGS, *TWO])]
    label_as_library(parse(LabelConfig, words, "label"))
    assert existing_run(RunDir(str(out))).command_line is None
    assert history_of(out).sessions[0].command_line is None
