"""What a session's log holds: bounded, in order, and nothing of what was counted is lost."""

import itertools
import json
import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from cluster.executors.work import ShardReport
from cluster.runs.session import Session

HOUR = "2026-11-29T20"
BEGAN = datetime(2026, 11, 29, 20, 36, 14, tzinfo=UTC)


def lines_of(session: Session) -> list[dict]:
    return [json.loads(line) for line in session.content().splitlines()]


def test_a_session_of_two_shards_and_a_death_line_by_line() -> None:
    session = Session(BEGAN, {"command": "label"})
    session.add_event("replica_up", {"place": "a", "seconds": 1.23456}, 1.5)
    session.add_shard(ShardReport(shard=3, statuses={"ok": 2}, seconds={"load": 0.25}, place="a"), 2.0)
    session.add_event("replica_died", {"place": "a", "why": "killed \udcff", "shards": 2}, 2.5)
    session.add_shard(ShardReport(shard=4, statuses={"ok": 1, "missing": 1}, place="b"), 63.0625)
    session.add_end({"status": "done", "reason": None, "images": 4, "seconds": 63.5}, 63.5)
    shard = {"event": "shard_done", "shards": 1, "images": 2}
    assert lines_of(session) == [
        {"time": f"{HOUR}:36:14.000Z", "event": "start", "command": "label"},
        {"time": f"{HOUR}:36:15.500Z", "event": "replica_up", "place": "a", "seconds": 1.235},
        {"time": f"{HOUR}:36:16.000Z", **shard, "shard": 3, "bad": {}, "place": "a", "stages": {"load": 0.25}},
        {"time": f"{HOUR}:36:16.500Z", "event": "replica_died", "place": "a", "why": "killed \\udcff", "shards": 2},
        {"time": f"{HOUR}:37:17.062Z", **shard, "shard": 4, "bad": {"missing": 1}, "place": "b", "stages": {}},
        {"time": f"{HOUR}:37:17.500Z", "event": "end", "status": "done", "reason": None, "images": 4, "seconds": 63.5},
    ]  # fmt: skip


@pytest.mark.parametrize("num_shards", [1, 7, 8, 9, 100, 1000, 1025])
def test_of_many_shards_as_many_share_each_line_and_their_sums_are_kept(num_shards: int) -> None:
    generator = random.Random(num_shards)
    session = Session(BEGAN, {}, max_shard_lines=8)
    images, bad, stages = 0, Counter(), Counter()
    for shard in range(num_shards):
        statuses = {"ok": generator.randrange(9), generator.choice(["missing", "empty"]): generator.randrange(1, 3)}
        seconds = {stage: generator.randrange(1000) / 64 for stage in generator.sample(["load", "network", "boxes"], 2)}
        session.add_shard(ShardReport(shard=shard, statuses=statuses, seconds=seconds, place="here"), float(shard))
        images += sum(statuses.values())
        bad.update({status: number for status, number in statuses.items() if status != "ok"})
        stages.update(seconds)
    lines = [line for line in lines_of(session) if line["event"] == "shard_done"]
    assert len(lines) <= 8
    step = lines[0]["shards"]
    assert num_shards <= 8 or len(lines) >= 4
    assert all(line["shards"] == step for line in lines[:-1])
    assert sum(line["shards"] for line in lines) == num_shards
    assert sum(line["images"] for line in lines) == images
    assert sum((Counter(line["bad"]) for line in lines), Counter()) == bad
    read = Counter()
    for line in lines:
        read.update(line["stages"])
    assert read == pytest.approx(stages, abs=1e-6 * len(lines))
    spans = [(line.get("since", line["time"]), line["time"]) for line in lines]
    assert spans == sorted(spans)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    assert [line["shard"] for line in lines] == [step * number for number in range(len(lines))]
    assert {line["place"] for line in lines} == {"here"}


def test_of_many_events_the_first_and_the_last_stay_and_the_others_are_counted() -> None:
    session = Session(BEGAN, {}, max_events=3)
    for number in range(10):
        kind = "replica_died" if number % 2 else "replica_up"
        session.add_event(kind, {"place": f"p{number}", "shards": 2}, float(number))
    start, *lines = lines_of(session)
    assert start["event"] == "start"
    assert [line.get("place") for line in lines] == ["p0", "p1", "p2", None, "p7", "p8", "p9"]
    assert lines[3] == {  # 3 to 6
        "time": "2026-11-29T20:36:16.000Z",
        "event": "left_out",
        "events": {"replica_died": 2, "replica_up": 2},
        "shards": 4,
    }


def test_places_and_long_texts_of_merged_lines() -> None:
    session = Session(BEGAN, {}, max_shard_lines=1)
    for shard, place in enumerate("abb"):
        session.add_shard(ShardReport(shard=shard, statuses={"ok": 1}, place=place), 1.0)
    session.add_event("replica_died", {"why": "x" * 10_000, "shards": 0}, 2.0)
    _, shards, death = lines_of(session)
    assert (shards["shards"], shards["place"]) == (3, None)
    assert death["why"] == "x" * 500 + "..."
