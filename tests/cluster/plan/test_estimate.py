"""What is foretold from a pilot, against figures worked out by hand."""

import pytest

from cluster.plan.estimate import (
    DRIFT,
    Ends,
    Linear,
    Pending,
    Speed,
    core_share,
    ends_of,
    forecast,
    half_width,
    pending_of,
    speed_of,
    table_bytes,
    work_seconds,
)
from cluster.plan.findings import Aside, Findings, Group, Headers, Sizes


def group(load: float = 0.4, network: float = 1.0, boxes: float = 0.2) -> Group:
    seconds = {"load": load, "network": network, "boxes": boxes, "publish": 0.5, "decode": 0.3}
    return Group(num_images=4, seconds=seconds, cpu_s=0.7, statuses={"ok": 4})


def findings(groups: list[Group], crowded: list[Group] | None = None, joined: Sizes | None = None) -> Findings:
    parts = [Sizes(num_images=4, num_bytes=1400, seconds=0.5) for _ in groups]
    aside = Aside(
        host="here",
        load_s=30.0,
        compiled_s=25.0,
        warm_up=group(network=3.0),
        parts=parts,
        joined=joined,
        crowd=2 if crowded else 1,
        crowded=crowded or [],
        bad=[],
        headers=Headers(statuses={}, formats={}, num_bytes=0, bad=[]),
        peak_mib=1.0,
        gpu_mib=None,
    )
    return Findings(start_s=32.0, groups=groups, aside=aside)


EIGHT = Sizes(num_images=8, num_bytes=1800, seconds=0.6)  # of two parts: 1000 and 100 an image, 0.4 s and 0.025 s


def test_a_shard_takes_a_part_for_each_batch_each_image_and_itself() -> None:
    speed = speed_of(findings([group(), group()], joined=EIGHT), "cpu", 4)
    stages = speed.stages(10)  # three batches
    assert stages == pytest.approx({"load": 1.0, "network": 3.0, "boxes": 0.5, "publish": 0.4 + 0.25})
    assert speed.seconds(10) == pytest.approx(5.15)
    assert speed.spread == pytest.approx(DRIFT)  # the groups are equal


def test_before_a_gpu_boxes_and_files_cost_time_only_where_they_outlast_the_network() -> None:
    speed = speed_of(findings([group(), group()], joined=EIGHT), "cuda", 4)
    assert speed.seconds(10) == pytest.approx(4.0)
    slow = speed_of(findings([group(boxes=4.0), group(boxes=4.0)], joined=EIGHT), "cuda", 4)
    assert slow.seconds(10) == pytest.approx(10.65)


def test_tables_have_a_size_for_each_image_and_one_for_themselves() -> None:
    parts = findings([group(), group()]).aside.parts
    written = table_bytes(parts, EIGHT, Pending(shard_size=512, num_full=2, rest=6))
    assert written.value == pytest.approx(3 * 1000 + 1030 * 100)
    assert written.low < written.value < written.high
    alone = table_bytes(parts[:1], None, Pending(shard_size=8, num_full=1))
    assert alone.value == pytest.approx(2 * 1400)  # nothing tells the two apart: more than it will be


def test_the_interval_is_that_of_students_t() -> None:
    # mean 5, deviation 2 of four values: 3.18 * 2 / sqrt(4) / 5
    values = [5 - 3**0.5, 5 - 3**0.5, 5 + 3**0.5, 5 + 3**0.5]
    assert half_width(values) == pytest.approx(3.18 * 1 / 5)
    assert half_width([7.0]) == 1.0
    assert half_width([0.0, 0.0]) == 0.0


@pytest.mark.parametrize(
    ("num_full", "rest", "replicas", "expected_s"),
    [
        (4, 0, 2, 20.0),
        (5, 0, 2, 30.0),  # one of them has a third
        (4, 5, 2, 25.0),  # the last one is half as long
        (5, 5, 2, 30.0),  # and is done beside the fifth
        (3, 0, 100, 10.0),
        (0, 5, 8, 5.0),
    ],
)
def test_replicas_take_the_next_shard_that_is_left(num_full: int, rest: int, replicas: int, expected_s: float) -> None:
    alone = {"crowd": 1, "slowdown": 1.0, "measured": 1.0, "spread": 0.0}
    nothing = Linear(shard=0.0, image=0.0)
    speed = Speed(device="cpu", batch_size=1, load_s=1.0, network_s=0.0, boxes_s=0.0, publish_s=nothing, **alone)
    assert work_seconds(speed, Pending(shard_size=10, num_full=num_full, rest=rest), replicas) == expected_s


def test_a_plan_is_whole_shards_and_a_rest() -> None:
    assert pending_of(1000, 300) == Pending(shard_size=300, num_full=3, rest=100)
    assert (pending_of(1000, 300).num_shards, pending_of(1000, 300).num_images) == (4, 1000)
    assert pending_of(900, 300).num_shards == 3


def test_a_machine_is_slower_the_more_of_it_is_at_work() -> None:
    crowded = [group(load=0.8, network=2.5, boxes=0.4)] * 2  # 4.2 s for 2.1
    speed = speed_of(findings([group(), group()], crowded), "cpu", 4)
    assert (speed.crowd, speed.slowdown) == (2, pytest.approx(2.0))
    assert [speed.slower(number) for number in (1, 2, 9)] == pytest.approx([1.0, 2.0, 2.0])
    faster = speed_of(findings([group(), group()], [group(network=0.5)] * 2), "cpu", 4)
    assert faster.slowdown == 1.0


def test_replicas_are_slowed_by_each_other_by_no_more_than_their_number() -> None:
    busy = speed_of(findings([group(), group()], [group(network=20.4)] * 2), "cpu", 4)  # 21.5 s for 2.1
    assert (busy.slowdown, busy.measured) == (2.0, pytest.approx(21.5 / 2.1))
    assert [busy.slower(number) for number in (1, 2, 9)] == [1.0, 2.0, 2.0]


def test_the_share_of_a_core_is_of_the_stages_that_add_up() -> None:
    assert core_share([group(), group()]) == pytest.approx(0.7 / 2.1)


def test_what_is_compiled_is_not_compiled_again_and_the_first_batch_takes_longer() -> None:
    ends = ends_of(findings([group(), group()]), driver_s=5.0, close_s=1.0)
    assert ends == Ends(driver_s=5.0, replica_s=7.0, first_s=pytest.approx(2.0), close_s=1.0)
    assert ends.seconds == pytest.approx(15.0)


def test_hours_and_price_are_arithmetic() -> None:
    speed = speed_of(findings([group(), group()], joined=EIGHT), "cpu", 4)
    ends = Ends(driver_s=1.0, replica_s=2.0, first_s=3.0, close_s=4.0)
    pending = pending_of(4000, 10)  # 400 shards of 5.15 s
    one = forecast(speed, ends, pending, 4, 0.5, 3.0)
    assert one.seconds.value == pytest.approx(515 + 10)
    assert one.hours.value == pytest.approx(525 * 4 * 0.5 / 3600)
    assert one.cost
    assert one.cost.value == pytest.approx(525 * 2 / 3600 * 3)
    assert (one.cost.low, one.cost.high) == pytest.approx((one.hours.low * 3, one.hours.high * 3))
    assert one.seconds.high == pytest.approx(515 * (1 + DRIFT) + 10)
    assert one.rate.value == pytest.approx(4000 / 515)
    assert forecast(speed, ends, pending, 4, 0.5, None).cost is None
