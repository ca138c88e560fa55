"""`status`: of runs that are whole, interrupted, at work or cut off, with a log and without, once and with --follow."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cam_ops.errors import BadImage, StorageError
from cluster.label.quarantine import Quarantine, read_quarantine
from cluster.process.failpoints import VARIABLE
from cluster.runs.directory import RunDir
from cluster.runs.history import MAX_BYTES
from cluster.runs.watching import FRESH_S, Watch, others_at_work
from tests.support.command import ROOT, Command, result_of

FLAGS = ["--executor", "inline", "--precision", "fp32", "--shard-size", 4]
TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]


def label(pictures: Path, out: Path, *more: object) -> Command:
    return Command("label", "--images", pictures, "--out", out, *FLAGS, *TWO, *more)


@pytest.fixture
def half(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruptible: None) -> Path:
    """A run that was interrupted after two of its three shards, one of whose images is bad."""
    out = tmp_path / "run"
    (pictures / "discs" / "01.png").write_bytes(b"none")
    monkeypatch.setenv(VARIABLE, f"report-1:{signal.SIGINT.name[3:]}:{tmp_path}/reached")
    assert label(pictures, out, "--max-error-rate", 0.5).code == 130
    monkeypatch.delenv(VARIABLE)
    return out


def cut_end(out: Path, age_s: float) -> Path:
    """Take the last line from the log, as if the driver had not come to it; its file is so old."""
    (log,) = (out / "log").iterdir()
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    then_s = time.time() - age_s
    os.utime(log, (then_s, then_s))
    return log


def test_how_the_last_session_ended_is_said(half: Path) -> None:
    def state() -> str:
        return Command("status", half, "--json").document["last_session"]["state"]

    assert state() == "interrupted"
    cut_end(half, 0)
    assert state() == "still at work"
    said = Command("status", half).out
    assert "session the only one: 1 replica(s), on " in said
    assert "8 of 12 images in 0:00:0" in said
    assert "1 truncated, such as 'discs/01.png'" in said
    cut_end(half, FRESH_S + 5)
    assert state() == "cut off"
    assert Command("status", half, "--json").document["eta_seconds"] is None


def test_the_document_holds_what_the_files_do(half: Path) -> None:
    document = Command("status", half, "--json").document
    expected = {
        **{"status": "incomplete", "images": 8, "images_planned": 12, "shards": 3, "shards_committed": 2},
        **{"statuses": {"ok": 7, "truncated": 1}, "images_with_map": 7, "images_with_label": 0, "sessions": 1},
        "quarantine": {"shards": 0, "images": [], "images_left_out": 0, "suspected": [], "unreadable": []},
    }
    assert expected.items() <= document.items()
    (reason,) = document["reasons"]
    assert (reason["status"], reason["images"], reason["example"]) == ("truncated", 1, "discs/01.png")
    assert document["last_session"]["images"] == 8


def test_without_a_log_the_times_of_files_say_the_rate(half: Path) -> None:
    for path in (half / "log").iterdir():
        path.unlink()
    now_s = time.time()
    for shard, ago_s in enumerate((30, 10)):
        os.utime(half / "images" / f"shard-{shard:07d}.parquet", (now_s - ago_s,) * 2)
    document = Command("status", half, "--json").document
    assert document["images_per_second"] == pytest.approx(4 / 20)  # of the second file
    assert document["eta_seconds"] == pytest.approx(4 / (4 / 20))
    assert document["seconds_since_last_shard"] == pytest.approx(10, abs=9)
    assert (document["sessions"], document["last_session"]) == (0, None)
    for shard in (0, 1):
        os.utime(half / "images" / f"shard-{shard:07d}.parquet", (now_s - 1000 - 20 * shard,) * 2)
    assert Command("status", half, "--json").document["eta_seconds"] is None


def test_the_log_says_the_rate(half: Path) -> None:
    log = cut_end(half, 0)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    first, second = lines[2:]
    times = ("2026-11-29T20:00:00Z", "2026-11-29T20:00:50Z", "2026-11-29T20:01:00Z", "2026-11-29T20:01:10Z")
    for line, moment in zip(lines, times, strict=True):
        line["time"] = moment
    first["stages"] = second["stages"] = {"network": 10.0}  # so the first began at 50 s
    died = {"time": times[3], "event": "replica_died", "place": "x", "why": "killed", "shards": 2, "numbers": [2, 7]}
    again = {**died, "shards": 1, "numbers": [7]}
    slow = {"time": times[3], "event": "shard_copied", "shard": 2}
    log.write_text("".join(json.dumps(line) + "\n" for line in [*lines, died, again, slow]))
    document = Command("status", half, "--json").document
    assert document["images_per_second"] == pytest.approx(8 / 20)
    assert document["eta_seconds"] == pytest.approx(4 / (8 / 20))
    session = document["last_session"]
    assert session["retried_shards"] == [{"shard": 7, "times": 2}, {"shard": 2, "times": 1}]
    assert session["slow_shards"] == [2]
    said = Command("status", half).out
    assert "0.4 images/s in the last minutes of work, ETA 0:00:10; " in said
    assert "again   shards that were begun again, as their replica died: 7 (2 times), 2\n" in said
    assert "slow    shards that a second replica began, too: 2\n" in said
    assert "        2 x replica died: killed\n" in said


def test_while_an_earlier_session_works_on_the_run_is_at_work_whatever_the_last_one_did(half: Path) -> None:
    """Two drivers share the run; the one that came later was interrupted."""
    (later,) = (half / "log").iterdir()
    lines = [json.loads(line) for line in later.read_text().splitlines()]
    for line, at in zip(lines, (0, 1, 10, 20), strict=False):
        line["time"] = f"2020-01-01T00:00:{at:02}Z"
    for line in lines[2:4]:
        line["stages"] = {"network": 10.0}
    earlier = later.with_name("20200101T000000Z-00000000.jsonl")
    earlier.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    document = Command("status", half, "--json").document
    assert (document["sessions"], document["sessions_at_work"]) == (2, 1)
    assert document["last_session"]["state"] == "still at work"
    assert document["last_session"]["log"] == f"log/{earlier.name}"
    assert document["images_per_second"] == pytest.approx(8 / 20)
    assert document["eta_seconds"] == pytest.approx(4 / (8 / 20))
    (later.parent / "20200101T000001Z-00000001.jsonl").write_text(earlier.read_text())
    document = Command("status", half, "--json").document
    assert document["sessions_at_work"] == 2
    assert document["images_per_second"] == pytest.approx(2 * 8 / 20)
    assert "session one of 2 at work: " in Command("status", half).out


def test_the_rate_is_without_a_session_that_was_killed_before_the_last_began(half: Path) -> None:
    killed = cut_end(half, 0)
    lines = [json.loads(line) for line in killed.read_text().splitlines()]

    def write(name: str, *moments: str) -> None:
        shown = [{**line, "time": f"2026-11-29T20:{moment}Z"} for line, moment in zip(lines, moments, strict=True)]
        (half / "log" / name).write_text("".join(json.dumps(line) + "\n" for line in shown))

    lines[2]["stages"] = lines[3]["stages"] = {"network": 10.0}  # so the first begins 10 s before its end
    write(killed.name, "00:00", "00:00", "00:50", "01:00")  # 8 images in 20 s
    write("20261129T200200Z-00000000.jsonl", "02:00", "02:00", "02:50", "03:20")  # 8 images in 40 s
    assert Command("status", half, "--json").document["images_per_second"] == pytest.approx(8 / 40)
    write(killed.name, "00:00", "00:00", "02:50", "03:00")  # it was not killed
    assert Command("status", half, "--json").document["images_per_second"] == pytest.approx(8 / 40 + 8 / 20)


def test_label_warns_of_another_one_at_work(half: Path, pictures: Path) -> None:
    log = cut_end(half, 0)
    start, *others = log.read_text().splitlines()

    def write(process: int) -> None:
        log.write_text("\n".join([json.dumps({**json.loads(start), "process": process}), *others, ""]))

    write(2**22 + 1)  # no process has this number
    watched = RunDir(str(half))
    assert others_at_work(watched) == []
    write(os.getppid())
    done = label(pictures, half, "--max-error-rate", 0.5)
    assert done.code == 0
    assert f"warning: another label, process {os.getppid()} on {os.uname().nodename}, seems to be at work" in done.err


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_a_foreign_log_from_the_ends_of_time_harms_nothing(half: Path, moment: str) -> None:
    log = cut_end(half, 0)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[0] |= {"time": moment, "host": "\x1b[31m" * 40}
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = Command("status", half)
    assert (done.code, done.out.replace("\n", "").isprintable()) == (0, True)
    assert Command("status", half, "--json").document["last_session"]["began"] == moment


def test_each_document_of_follow_is_a_line_wherever_the_flag_stands(half: Path, tmp_path: Path) -> None:
    (tmp_path / "flags.yaml").write_text("follow: true\njson: true\n")
    whole = ROOT / "tests" / "fixtures" / "first_run" / "run"
    assert Command("status", whole, "--config", tmp_path / "flags.yaml").out.count("\n") == 1
    assert Command("status", half, "--json").out.count("\n") > 1


def test_a_file_that_is_no_log_does_not_hide_the_run(half: Path) -> None:
    (half / "log" / "20300101T000000Z-00000000.jsonl").write_bytes(b"\n" * (MAX_BYTES + 1))
    done = Command("status", half, "--json")
    assert (done.code, done.document["images"], done.document["last_session"]) == (0, 8, None)
    assert "without the log: " in done.err


def test_a_pause_that_no_clock_has_is_refused(half: Path) -> None:
    done = Command("status", half, "--follow", "--every", "1e12")
    assert (done.code, "at most 86400" in done.err) == (2, True)
    assert Command("doctor", "--timeout", "inf").code == 2


def test_what_tables_hold_is_written_out_and_moves_no_terminal(half: Path) -> None:
    path = half / "images" / "shard-0000000.parquet"
    images = pq.read_table(path)
    for name, text in (("status", "\x1b[31mred"), ("error", "\x1b]0;title\x07"), ("image_id", "a\x9b2J")):
        column = [text, *images[name].to_pylist()[1:]]
        place = images.schema.get_field_index(name)
        images = images.set_column(place, images.schema.field(name), pa.array(column, images.schema.field(name).type))
    pq.write_table(images, path)
    done = Command("status", half)
    assert (done.code, done.out.replace("\n", "").isprintable()) == (0, True)
    assert "        1 \\x1b[31mred\n" in done.out


def test_what_quarantine_holds_is_said(half: Path) -> None:
    run_dir = RunDir(str(half))
    Quarantine(run_dir=run_dir, shard=2).add(3, BadImage("crashed_decoder", "ended by \x1b[31m signal 11"))
    Quarantine(run_dir=run_dir, shard=1, split={4}).begin(4, 2)
    (half / "quarantine" / "shard-0000000.json").write_text("no")
    document = Command("status", half, "--json").document["quarantine"]
    assert (document["shards"], document["suspected"]) == (3, [1])
    assert document["images"] == [
        {"shard": 2, "row": 3, "status": "crashed_decoder", "error": "ended by \x1b[31m signal 11"}
    ]
    said = [line for line in Command("status", half).out.splitlines() if line.startswith("quarantine: ")]
    assert "quarantine/shard-0000000.json in " in said[0]
    assert said[1:] == [
        "quarantine: shard 1: replicas died at its pictures; which one it was is being found out",
        "quarantine: shard 2, row 3: crashed_decoder (ended by \\x1b[31m signal 11)",
    ]


@pytest.mark.parametrize(
    "change",
    [{"bad": {"0": ["ok", ""]}}, {"bad": {"0": ["missing", ""]}}, {"at_work": ["a", "b"]}, {"at_work": [[0], 1]}],
)
def test_a_quarantine_that_camray_did_not_write_takes_no_picture_out(half: Path, change: dict[str, object]) -> None:
    (half / "quarantine").mkdir()
    known = {"bad": {}, "split": [], "deaths": {}, "at_work": None, **change}
    (half / "quarantine" / "shard-0000002.json").write_text(json.dumps(known))
    for after_death in (False, True):
        with pytest.raises(StorageError, match=r"quarantine/shard-0000002.json in .* is damaged .*; remove it"):
            read_quarantine(RunDir(str(half)), 2, after_death=after_death)


def test_a_shard_is_read_once_and_again_only_where_shards_were_taken_away(half: Path, pictures: Path) -> None:
    watch = Watch(RunDir(str(half)))
    assert watch.look().census.totals.images == 8
    first = half / "images" / "shard-0000000.parquet"
    content = first.read_bytes()
    first.write_bytes(b"nobody reads this")
    assert watch.look().census.totals.images == 8
    first.unlink()
    state = watch.look()
    assert (state.census.totals.images, state.census.totals.errors, state.shards) == (4, 0, 1)
    first.write_bytes(content)
    assert (watch.look().census.totals.errors, watch.look().census.totals.images) == (1, 8)
    assert label(pictures, half, "--overwrite", "--limit", 3, "--max-error-rate", 0.5).code == 0
    state = watch.look()
    assert (state.is_whole, state.census.totals.images, state.run.plan.num_images) == (True, 3, 3)


def follow(out: Path, *more: str, **streams: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs", "status", str(out), "--follow", "--every", "0.05", *more]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **streams)


def test_a_run_is_followed_to_its_end_a_line_a_time(half: Path, pictures: Path) -> None:
    follower = follow(half, stdout=subprocess.PIPE)
    assert follower.stdout
    first = follower.stdout.readline()
    assert label(pictures, half, "--max-error-rate", 0.5).code == 0
    out, _ = follower.communicate(timeout=120)
    assert first.split(" UTC  ")[1].startswith("8/12 images (66.7 %), 2/3 shards, ")
    assert first.endswith("1 bad (truncated), interrupted\n")
    assert "shards  3 of 3 committed" in out.splitlines()
    assert "session the last of 2: " in out
    assert (follower.returncode, result_of(out)["status"]) == (0, "done")
    assert (first + out).replace("\n", "").isprintable()


def test_a_run_is_followed_as_documents_a_line(half: Path, pictures: Path) -> None:
    follower = follow(half, "--json", stdout=subprocess.PIPE)
    assert follower.stdout
    first = json.loads(follower.stdout.readline())
    assert label(pictures, half, "--max-error-rate", 0.5).code == 0
    out, err = follower.communicate(timeout=120)
    documents = [first, *map(json.loads, out.splitlines())]
    assert [documents[0]["images"], documents[-1]["images"]] == [8, 12]
    assert [document["status"] for document in documents] == ["incomplete"] * (len(documents) - 1) + ["done"]
    assert result_of(err)["status"] == "done"


@pytest.mark.parametrize(("term", "redraws"), [("xterm", True), ("dumb", False)])
def test_on_a_terminal_it_is_redrawn_until_it_is_interrupted(half: Path, term: str, redraws: bool) -> None:
    theirs, ours = pty.openpty()
    env = {**os.environ, "TERM": term, "COLUMNS": "60", "LINES": "6"}
    follower = follow(half, stdout=ours, env=env)
    os.close(ours)
    shown = b""
    while shown.count(b"8/12 images") < 3:
        shown += os.read(theirs, 4096)
    follower.send_signal(signal.SIGINT)
    while True:
        try:
            shown += os.read(theirs, 4096)
        except OSError:  # its end is closed
            break
    follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert (shown.count(b"\x1b[H\x1b[J") >= 2) == redraws
    assert redraws or b"\x1b" not in shown
    if redraws:
        screens = shown.decode().replace("\r", "").split("\x1b[H\x1b[J")
        assert all(len(line) <= 60 for line in screens[1].splitlines())
        assert len(screens[1].splitlines()) == 5
        assert "1 bad (truncated)" in " ".join(screens[1].split())  # what is behind the edge goes on in the next line


def test_every_must_be_a_time(half: Path) -> None:
    for every in ("0", "-1", "nan", "inf"):
        refused = Command("status", half, "--follow", "--every", every)
        assert (refused.code, "--every expects seconds above 0" in refused.err) == (2, True)


def test_a_flipped_byte_is_said_to_be_damage_and_the_rest_is_counted(half: Path) -> None:
    file = half / "images" / "shard-0000000.parquet"
    whole = file.read_bytes()
    fingerprint = json.loads((half / "run.json").read_text())["fingerprint"].encode()
    flipped = (b"0" if fingerprint[:1] != b"0" else b"1") + fingerprint[1:]
    for content, why in (
        (whole.replace(fingerprint, flipped), "is damaged, or belongs to another request"),
        (whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], "is not a whole Parquet file"),
    ):
        assert content != whole
        file.write_bytes(content)
        told = Command("status", half)
        assert (told.code, told.result["images"]) == (5, 4)
        assert f"damaged shard 0: {file} {why}" in told.out
        assert f"1 of 2 committed shards is damaged and not counted: 0; run `python -m jobs verify {half}`" in told.out
        assert "shards  2 of 3 committed" in told.out
        document = Command("status", half, "--json").document
        assert (document["status"], document["images"], document["shards_damaged"][0]["shard"]) == ("damaged", 4, 0)
    watch = Watch(RunDir(str(half)))
    assert watch.look().damaged.keys() == {0}
    file.write_bytes(whole)
    assert (watch.look().damaged, watch.look().census.totals.images) == ({}, 8)


def test_a_file_of_fewer_rows_than_were_planned_is_damage_of_its_shard(half: Path, pictures: Path) -> None:
    file = half / "images" / "shard-0000000.parquet"
    table = pq.read_table(file)
    for num_rows in (0, 3):
        pq.write_table(table.slice(0, num_rows), file)
        told = Command("status", half)
        assert (told.code, told.result["images"]) == (5, 4)
        assert f"damaged shard 0: {file} has {num_rows} rows, of 4 images that are planned" in told.out
        proved = Command("verify", half)
        assert (proved.code, "shard 0: column image_id of its images is not the plan's" in proved.out) == (3, True)
    done = label(pictures, half, "--max-error-rate", 0.5)
    assert (done.code, "has 3 rows, of 4 images that are planned" in done.result["error"]) == (5, True)


def test_rows_of_no_class_are_damage_of_their_shard_alone(labelled_half: Path) -> None:
    file = labelled_half / "images" / "shard-0000001.parquet"
    table = pq.read_table(file)
    numbers = pa.array([9999] * len(table), table.schema.field("label").type)
    pq.write_table(table.set_column(table.schema.get_field_index("label"), table.schema.field("label"), numbers), file)
    told = Command("status", labelled_half)
    assert (told.code, told.result["images"], "damaged shard 1: " in told.out) == (5, 4, True)


@pytest.fixture
def labelled_half(pictures: Path, tmp_path: Path) -> Path:
    """A run of two shards whose images have labels."""
    (tmp_path / "names.txt").write_text("discs\nrings\n")
    labels = ["--labels", "folder", "--class-names", tmp_path / "names.txt", "--limit", 8]
    assert label(pictures, tmp_path / "labelled", *labels).code == 0
    return tmp_path / "labelled"
