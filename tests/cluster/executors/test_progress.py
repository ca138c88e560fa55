"""Lines on how work advances: rates worked out by hand, terminals of all widths, pipes, and work that stands still."""

import os
import re
from contextlib import redirect_stderr
from io import StringIO

import pytest

from cluster.executors.events import Standing
from cluster.executors.progress import MINUTE_S, QUIET_S, Progress, Rate, percent, with_bar
from cluster.executors.work import ShardReport

PARTS = ["1200/5000 images (24 %)", "ETA 0:01:10", "45.1 images/s", "7 bad (5 undecodable)", "3/12 shards"]


def rate_of(*points: tuple[float, int]) -> float:
    rate = Rate()
    for moment_s, num_images in points:
        rate.add(moment_s, num_images)
    return rate.per_s()


def report(shard: int, **statuses: int) -> ShardReport:
    return ShardReport(shard=shard, statuses=statuses)


@pytest.mark.parametrize(
    ("done", "num", "digits", "expected"),
    [(0, 3, 0, "0"), (2, 3, 0, "67"), (399, 400, 0, "99"), (3_200_000, 3_200_016, 1, "99.9"), (7, 7, 1, "100.0")],
)
def test_a_hundred_percent_is_all(done: int, num: int, digits: int, expected: str) -> None:
    assert percent(done, num, digits) == expected


def test_the_rate_is_that_of_the_last_minute_and_of_what_came_after_the_first_report() -> None:
    assert rate_of() == rate_of((5, 100)) == rate_of((5, 100), (5.5, 200)) == 0
    assert rate_of((5, 100), (15, 150)) == 5
    slow_then_fast = [(moment, moment) for moment in range(0, 600, 10)] + [(600 + i, 600 + 20 * i) for i in range(61)]
    assert rate_of(*slow_then_fast) == 20
    assert rate_of((0, 1), (200, 401), (400, 801)) == 2  # shards that take longer than a minute
    assert rate_of((0, 1), (50, 51), (300, 101)) == pytest.approx(50 / 250)  # it stood still


def test_the_rate_keeps_a_point_a_second() -> None:
    rate = Rate()
    for i in range(100_000):
        rate.add(i / 1000, i)
    assert len(rate.points) <= MINUTE_S + 2
    assert rate.per_s() == pytest.approx(1000)


@pytest.mark.parametrize("columns", range(1, 140))
def test_a_bar_fits_the_terminal(columns: int) -> None:
    line = with_bar(0.25, PARTS, columns)
    assert len(line) <= columns
    assert PARTS[0][:columns] in line


def test_what_matters_least_goes_first_where_a_terminal_is_narrow() -> None:
    assert with_bar(0.25, PARTS, 119) == f"[{'#' * 7}{'.' * 22}] " + ", ".join(PARTS)
    assert with_bar(0.5, PARTS, 71) == f"[{'#' * 8}{'.' * 9}] " + ", ".join(PARTS[:3])
    assert with_bar(0.5, PARTS, 48) == ", ".join(PARTS[:2])
    assert with_bar(0.5, PARTS[:2], 49) == "[#####.....] 1200/5000 images (24 %), ETA 0:01:10"


@pytest.mark.parametrize(("term", "is_screen"), [("xterm", True), ("dumb", False)])
def test_a_dumb_terminal_gets_whole_lines_and_another_one_a_line_that_is_redrawn(
    term: str, is_screen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    theirs, ours = os.openpty()
    with open(ours, "w") as terminal, open(theirs, "rb", buffering=0) as screen, redirect_stderr(terminal):
        progress = Progress(num_images=30, num_shards=3, done_images=0, done_shards=0)
        for shard in range(3):
            progress.shown_s = 0.0  # long ago
            progress.add(report(shard, ok=8, empty=2 - shard, undecodable=shard))
        shown = b""
        while not re.search(rb"in 0:00:0\d\r\n", shown):  # a terminal hands on what it has in pieces
            shown += screen.read(4096)
    assert (b"\033" in shown) == is_screen
    assert (b"] 10/30 images (33 %), ETA unknown" in shown) == is_screen
    last = shown.decode().splitlines()[-1].rpartition("\033[K")[2]
    assert last.startswith(
        "camray: 30/30 images (100 %), 3/3 shards, ? images/s, 6 bad (3 empty), with the start in 0:00:0"
    )


def test_a_pipe_gets_a_line_now_and_then_without_control_characters() -> None:
    with redirect_stderr(StringIO()) as pipe:
        progress = Progress(num_images=600, num_shards=300, done_images=0, done_shards=0)
        for shard in range(299):
            if shard in (100, 200):
                progress.shown_s -= 10
            progress.add(report(shard, ok=2))
            progress.look(Standing(1, 1, 1))
    lines = pipe.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["202/600", "402/600"]
    assert lines[0].startswith("camray: 202/600 images (34 %), 101/300 shards, ? images/s, 0 bad, ETA ")
    assert pipe.getvalue().replace("\n", "").isprintable()


def test_where_nothing_finishes_it_is_said_less_and_less_often_and_not_where_that_is_usual() -> None:
    with redirect_stderr(StringIO()) as pipe:
        progress = Progress(num_images=40, num_shards=4, done_images=0, done_shards=0)
        progress.look(Standing(4, 0, 0))
        pass_s(progress, QUIET_S + 0.1)
        progress.look(Standing(4, 0, 0))
        progress.look(Standing(4, 0, 0))
        pass_s(progress, QUIET_S + 0.3)
        progress.look(Standing(2, 2, 1))
        pass_s(progress, 3 * QUIET_S)
        progress.add(report(0, ok=10))
        pass_s(progress, 2 * QUIET_S)
        progress.add(report(1, ok=10))
        pass_s(progress, 3 * QUIET_S)  # twice the time between the reports is not over
        progress.look(Standing(0, 2, 1))
        pass_s(progress, QUIET_S + 0.4)
        progress.look(Standing(0, 2, 1))
        pass_s(progress, 20 * QUIET_S)
        progress.look(Standing(0, 0, 1))  # all is done
    said = [line.removeprefix("camray: ") for line in pipe.getvalue().splitlines() if "nothing" in line]
    assert said == [
        "nothing finished for 0:01:00: no replica is ready; does the cluster have free resources for them?",
        "nothing finished for 0:02:00: 1 replica(s) are at work on 2 shard(s), 2 wait, 0/40 images are done",
        "nothing finished for 0:04:00: 1 replica(s) are at work on 2 shard(s), 0 wait, 20/40 images are done",
    ]


def pass_s(progress: Progress, seconds: float) -> None:
    """Have all that is noted be so much longer ago."""
    for name in ("heard_s", "shown_s", "start_s"):
        setattr(progress, name, getattr(progress, name) - seconds)


def test_replicas_time_is_that_in_which_they_were_ready() -> None:
    progress = Progress(num_images=10, num_shards=1, done_images=0, done_shards=0)
    progress.look(Standing(1, 0, 0))
    progress.seen_s -= 5  # none was ready
    progress.look(Standing(0, 1, 2))
    progress.seen_s -= 10
    progress.look(Standing(0, 1, 3))
    progress.seen_s -= 1
    progress.look(Standing(0, 0, 0))
    assert progress.replica_seconds == pytest.approx(2 * 10 + 3 * 1, abs=0.1)
