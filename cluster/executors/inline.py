"""Run shards in this process, without Ray: one replica."""

import os
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from functools import cached_property

from cluster.executors.events import Event, Listener, Standing, Watcher, ignore, look_away
from cluster.executors.work import Replicas, ShardReport, Work, replica_share


class InlineExecutor:
    """This process as the only replica."""

    name = "inline"
    num_cpus = 1
    can_grow = False

    def __init__(self, count_gpus: Callable[[], int]) -> None:
        """`count_gpus` may take seconds; it is called when somebody asks."""
        self.count_gpus = count_gpus

    @cached_property
    def num_gpus(self) -> int:
        """1 where there is any."""
        return min(1, self.count_gpus())

    def run(
        self,
        work: Work,
        replicas: Replicas,
        shards: Iterable[int],
        is_done: Callable[[int], bool],
        timeout_s: float | None,
        listen: Listener = ignore,
        watch: Watcher = look_away,
    ) -> Generator[ShardReport, None, None]:
        """Yield one report per shard, in order.

        There is nobody else to do a shard meanwhile, or to end one that takes longer than `timeout_s`.
        """
        assert replicas.number == 1
        num_gpus = self.num_gpus if work.device == "cuda" else 0
        place, start_s = os.uname().nodename, time.monotonic()
        replica = work.replica(replica_share(work.device, 1, len(os.sched_getaffinity(0)), num_gpus).threads)
        listen(Event("replica_up", {"place": place, "seconds": time.monotonic() - start_s}))
        left = list(shards)
        for number, shard in enumerate(left):
            watch(Standing(len(left) - number - 1, 1, 1))
            yield replace(replica.run_shard(shard, number, 0), place=place)
        watch(Standing(0, 0, 1))

    def close(self) -> None:
        """Nothing to end."""
