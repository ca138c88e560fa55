"""Where the replicas' time went: sums worked out by hand."""

import pytest

from cam_ops.settings import Device
from cluster.runs.limits import limit_lines, parts_of

STAGES = {"fetch": 300.0, "decode": 30.0, "load": 50.0, "network": 40.0, "boxes": 4.0, "publish": 2.0}


def test_on_a_cpu_loading_is_waiting_and_decoding() -> None:
    assert parts_of(STAGES, 100, "cpu") == {
        **{"storage": 20, "decoding": 30, "network": 40, "boxes": 4, "publish": 2},
        "nothing to do": 4,
    }


def test_before_a_gpu_loading_is_divided_as_the_threads_time_and_boxes_go_on_beside() -> None:
    found = parts_of(STAGES, 100, "cuda")
    assert found == {
        "storage": pytest.approx(50 * 300 / 330),
        "decoding": pytest.approx(50 * 30 / 330),
        "network": 40,
        "nothing to do": pytest.approx(10),
    }
    assert parts_of({"load": 1.0, "network": 2.0}, 3, "cuda")["storage"] == 1


@pytest.mark.parametrize(
    ("stages", "replica_seconds", "device", "reduced", "expected"),
    [
        ({"load": 60, "decode": 10, "network": 30}, 100, "cpu", False, "storage limits: replicas wait 50% of the time"),
        ({"load": 60, "decode": 50, "network": 30}, 100, "cpu", False, "--decode reduced (another run) takes less"),
        ({"load": 60, "decode": 50, "network": 30}, 100, "cpu", True, "more cores make it faster"),
        ({"load": 60, "decode": 50, "fetch": 5}, 100, "cuda", True, "more cores for each GPU make it faster"),
        ({"load": 10, "decode": 5, "network": 80}, 90, "cpu", False, "89% of the time: that is as it should be"),
        ({"network": 10, "boxes": 50}, 60, "cpu", False, "making boxes limits, with 83% of the time"),
        ({"network": 10, "publish": 50}, 60, "cpu", False, "larger shards (label --shard-size, another run)"),
        ({"network": 10}, 100, "cpu", False, "replicas had nothing to do for 90% of the time"),
        ({"read": 190, "boxes": 10, "publish": 1}, 100, "cpu", False, "waited for maps, or had nothing to do, for 89%"),
    ],
)
def test_one_sentence_says_what_limits(
    stages: dict[str, float], replica_seconds: float, device: Device, reduced: bool, expected: str
) -> None:
    shares, verdict = limit_lines(stages, replica_seconds, device, reduced=reduced)
    assert expected in verdict
    assert ("--decode" in verdict) == (not reduced and "decoding limits" in verdict)
    assert shares.startswith("the replicas' time: ")


def test_shares_are_of_the_whole_and_nothing_is_said_of_a_moment() -> None:
    shares, _ = limit_lines(STAGES, 100, "cpu", reduced=False)
    assert shares == (
        "the replicas' time: waiting for storage 20%, decoding 30%, the network 40%, boxes 4%, writing tables 2%, "
        "nothing to do 4%"
    )
    assert list(limit_lines({"network": 0.5}, 0.9, "cpu", reduced=False)) == []
    assert list(limit_lines({}, 100, "cpu", reduced=False)) == []
