"""How a cluster is divided among replicas: values worked out by hand."""

from dataclasses import dataclass

import pytest

from cam_ops.errors import MachineError
from cluster.executors.choose import choose_device, choose_replicas
from cluster.executors.inline import InlineExecutor
from cluster.executors.work import Replicas, Share, replica_share


@dataclass(frozen=True)
class Cluster:
    """What an executor says of its machines."""

    num_gpus: int
    num_cpus: int
    can_grow: bool = False


LARGE, NO_GPU = Cluster(8, 64), Cluster(0, 64)


@pytest.mark.parametrize(
    ("num_replicas", "share"),
    [
        (8, Share(8, 1, 8)),
        (4, Share(8, 1, 8)),
        (16, Share(4, 1 / 2, 4)),
        (12, Share(4, 1 / 2, 4)),  # some GPUs have two
        (24, Share(2, 1 / 3, 2)),  # 64 cores among 24 are 2 and a rest
        (64, Share(1, 1 / 8, 1)),
    ],
)
def test_replicas_on_gpus_have_equal_parts_of_gpus_and_cores(num_replicas: int, share: Share) -> None:
    assert replica_share("cuda", num_replicas, LARGE.num_cpus, LARGE.num_gpus) == share


def test_replicas_on_gpus_fit_a_cluster_with_fewer_cores_than_replicas() -> None:
    share = replica_share("cuda", 16, 8, 8)
    assert (share.cpus * 16 <= 8, share.gpus, share.threads) == (True, 1 / 2, 1)


def test_a_replica_on_cpus_has_one_core_and_four_threads_that_wait_for_storage() -> None:
    assert replica_share("cpu", 64, 64, 0) == Share(1, 0, 4)


def test_by_default_there_is_a_replica_for_each_unit() -> None:
    assert choose_replicas(None, "cuda", LARGE) == Replicas(8, False)
    assert choose_replicas(None, "cpu", LARGE) == Replicas(64, False)


def test_as_many_as_eight_replicas_share_a_gpu() -> None:
    assert choose_replicas(16, "cuda", LARGE) == Replicas(16, True)
    assert choose_replicas(64, "cuda", LARGE) == Replicas(64, True)
    with pytest.raises(MachineError) as refused:
        choose_replicas(65, "cuda", LARGE)
    assert str(refused.value) == (
        "asked for 65 replicas, the cluster has 8 GPUs, which is room for 64; use --replicas 64"
    )


def test_a_cpu_takes_one_replica() -> None:
    with pytest.raises(MachineError, match="asked for 65 replicas, the cluster has 64 CPUs, which is room for 64"):
        choose_replicas(65, "cpu", LARGE)


def test_a_cluster_that_may_grow_is_asked_for_more_than_it_has_room_for(capsys: pytest.CaptureFixture) -> None:
    growing = Cluster(2, 16, can_grow=True)
    assert choose_replicas(20, "cuda", growing) == Replicas(20, True)
    assert capsys.readouterr().err == (
        "camray: asked for 20 replicas, the cluster has 2 GPUs, which is room for 16: the others begin when it has "
        "more\n"
    )
    assert replica_share("cuda", 20, 16, 2) == Share(1, 1 / 8, 1)  # as of sixteen; a third GPU takes the others
    with pytest.raises(MachineError, match="the run needs device cuda, there is no GPU"):
        choose_replicas(20, "cuda", Cluster(0, 16, can_grow=True))


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(MachineError, match="the run needs device cuda, there is no GPU"):
        choose_replicas(1, "cuda", NO_GPU)


def test_auto_takes_gpus_unless_the_run_in_place_did_not() -> None:
    assert choose_device("auto", None, LARGE) == "cuda"
    assert choose_device("auto", None, NO_GPU) == "cpu"
    assert choose_device("auto", "cpu", LARGE) == "cpu"
    assert choose_device("cpu", "cuda", LARGE) == "cpu"


@pytest.mark.parametrize(("on_this_machine", "usable"), [(0, 0), (1, 1), (8, 1)])
def test_one_replica_in_this_process_uses_one_gpu_and_counts_them_once_and_only_if_asked(
    on_this_machine: int, usable: int
) -> None:
    asked = []

    def count() -> int:
        asked.append("once")
        return on_this_machine

    executor = InlineExecutor(count)
    assert asked == []
    assert (executor.num_gpus, executor.num_gpus) == (usable, usable)
    assert asked == ["once"]
