"""What all executors share: the work that replicas do, how many of them there are, what runs them."""

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cam_ops.settings import Device
from cluster.executors.events import Listener, Watcher, ignore, look_away
from cluster.process.apart import build

FETCH_THREADS = 4  # of a replica on a CPU; they wait for storage, decoding has the replica's own thread
MAX_PER_GPU = 8


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many replicas to start with; where no number was asked for, more as the cluster grows."""

    number: int
    asked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What replicas do with the shards of a run; can be pickled.

    ``MODULE:FACTORY``, called with `arguments` and the number of threads that load pictures, gives a `Replica`.
    """

    device: Device
    factory: str
    arguments: tuple[Any, ...]

    def replica(self, num_threads: int) -> "Replica":
        """Call the factory."""
        replica: Replica = build(self.factory, (*self.arguments, num_threads))
        return replica


class Replica(Protocol):
    """Does shards, with all that it takes loaded; may be called from several threads."""

    def run_shard(self, shard: int, number: int, deaths: int, /) -> "ShardReport":
        """Do one shard, at which `deaths` replicas have died before.

        `number` counts the calls of this replica from 0 on: in that order they take their turn at what it has one of.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What became of a shard."""

    shard: int
    statuses: dict[str, int]  # images by status
    findings: Any = None  # what the driver needs of it besides its files
    seconds: dict[str, float] = field(default_factory=dict)  # by stage: see the replica that measures them
    gpu_memory_bytes: int = 0  # the most that the replica has held so far
    place: str = ""  # of the replica; executors fill it in


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica has of the cluster."""

    cpus: float
    gpus: float
    threads: int  # that load pictures; before a GPU processes


def replica_share(device: Device, num_replicas: int, num_cpus: int, num_gpus: int) -> Share:
    """Divide a cluster: a core each on CPUs; on GPUs an equal part of a GPU, and of the cores, which then decode.

    Replicas for which there is no room yet get as much of what is added.
    """
    if device == "cpu":
        return Share(1, 0, FETCH_THREADS)
    per_gpu = min(MAX_PER_GPU, math.ceil(num_replicas / num_gpus))
    cpus = num_cpus / (num_gpus * per_gpu)
    threads = max(1, math.floor(cpus))
    return Share(min(cpus, threads), 1 / per_gpu, threads)


class Executor(Protocol):
    """Runs shards: here, or on a cluster. Whoever opens it closes it."""

    name: str
    num_cpus: int
    can_grow: bool

    @property
    def num_gpus(self) -> int:
        """Whole GPUs that there are."""

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
        """Yield one report per shard. `is_done` says whether a shard is committed, whoever did it.

        `listen` is told of what else happens, between two reports, and `watch` how the work stands.
        """

    def close(self) -> None:
        """Let go of what runs them."""
