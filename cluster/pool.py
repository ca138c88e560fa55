"""Run shards on Ray actors: the only module that imports ray, but for the measurement `cluster.ray_data_peer`.

Each actor holds one model replica for its whole life and at most `DEPTH` shards at a time; the driver moves shard
numbers out and counts back, nothing else. Ray restarts nothing by itself: an actor that dies is replaced here and its
shards go back to the queue.
"""

import contextlib
import os
import socket
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError

from cam_ops.errors import CamrayError, MachineError
from cam_ops.settings import ModelConfig
from cluster.console import say
from cluster.interrupts import raise_on_sigterm
from cluster.request import Device
from cluster.rows import ShardReport

DEPTH = 2
MAX_SHARD_DEATHS = 3  # of the actor that works on it
MAX_FAILED_STARTS = 3  # in a row
CONNECT_TIMEOUT_S = 10.0
OWN_STORE_BYTES = 100 * 2**20  # of a Ray of our own: no image travels through it


class _Replica:
    """The actor. Its model loads in `start`, a call of its own, so that a failure to load keeps its own error."""

    def start(self, out: str, model: ModelConfig, fingerprint: str) -> None:
        from cluster.worker import CamWorker  # needs torch, which the driver does without

        self.worker = CamWorker(out, model, fingerprint)

    def run_shard(self, shard: int) -> ShardReport:
        return self.worker.run_shard(shard)


class RayExecutor:
    """A Ray cluster to run shards on: one to join, or one of our own for the time of this object."""

    def __init__(self, address: str | None) -> None:
        """Join the cluster at `address` or at RAY_ADDRESS; without either start a Ray of our own on this machine."""
        address = address or os.environ.get("RAY_ADDRESS")
        try:
            if address:
                _connect(address)
                ray.init(address=address)
            else:
                ray.init(address="local", include_dashboard=False, object_store_memory=OWN_STORE_BYTES)
        except (ConnectionError, RayError, OSError, ValueError, RuntimeError) as error:
            raise MachineError(
                f"cannot {'join the Ray cluster at ' + address if address else 'start Ray on this machine'}: "
                f"{str(error).splitlines()[0]}; check the address, and set RAY_AUTH_MODE=token if the cluster "
                "asks for a token"
            ) from None
        raise_on_sigterm()  # ray.init puts its own handler in place
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.num_gpus, self.num_cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        num_nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
        where = f"joined the Ray cluster at {address}" if address else "started a Ray of its own on this machine"
        say(f"{where}: {num_nodes} node(s), {self.num_gpus} GPU(s), {self.num_cpus} CPU(s)")

    def run(
        self, out: str, model: ModelConfig, fingerprint: str, device: Device, num_replicas: int, shards: Iterable[int]
    ) -> Generator[ShardReport, None, None]:
        """Yield one report per shard, in the order they finish.

        Raises the worker's own CamrayError if a replica or a shard fails for a reason that a retry cannot mend.
        """
        actor = ray.remote(_Replica).options(
            num_cpus=1, num_gpus=1 if device == "cuda" else 0, max_restarts=0, max_task_retries=0
        )
        pool = _Pool(actor, (out, model, fingerprint), deque(shards))
        for _ in range(min(num_replicas, len(pool.queue))):
            pool.add_worker()
        try:
            yield from pool.reports()
        finally:
            pool.end()

    def close(self) -> None:
        """Leave the cluster; end it if it is our own."""
        ray.shutdown()


def _connect(address: str) -> None:
    """Raise OSError unless something listens at host:port; ray.init itself would wait for minutes and then abort."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()


class _Pool:
    """The actors, what each of them is busy with, and the shards that wait."""

    def __init__(self, actor: Any, arguments: tuple[Any, ...], queue: deque[int]) -> None:
        self.actor, self.arguments, self.queue = actor, arguments, queue
        self.calls: dict[ray.ObjectRef[Any], tuple[ActorHandle[Any], int | None]] = {}  # None: the call of `start`
        self.deaths: Counter[int] = Counter()
        self.failed_starts = 0

    def add_worker(self) -> None:
        """Start an actor; its `start` and its first shards wait in its own queue."""
        worker = self.actor.remote()
        self.calls[worker.start.remote(*self.arguments)] = (worker, None)
        for _ in range(DEPTH):
            self._give_shard(worker)

    def reports(self) -> Iterator[ShardReport]:
        """Yield reports until no shard is left."""
        while any(shard is not None for _, shard in self.calls.values()) or self.queue:
            ready, _ = ray.wait(list(self.calls), num_returns=1, timeout=1.0)
            for ref in ready:
                if ref not in self.calls:  # its worker died with an earlier one of this round
                    continue
                worker, shard = self.calls[ref]
                try:
                    report = ray.get(ref)
                except RayActorError as death:
                    self._replace(worker, str(death))
                    continue
                except RayTaskError as failure:
                    raise failure.cause from None
                del self.calls[ref]
                if shard is None:
                    self.failed_starts = 0
                    continue
                self._give_shard(worker)
                yield report

    def end(self) -> None:
        """Kill every actor: their work is committed or will be done again."""
        for worker in {worker._actor_id: worker for worker, _ in self.calls.values()}.values():
            with contextlib.suppress(RayError):
                ray.kill(worker)

    def _give_shard(self, worker: "ActorHandle[Any]") -> None:
        if self.queue:
            shard = self.queue.popleft()
            self.calls[worker.run_shard.remote(shard)] = (worker, shard)

    def _replace(self, worker: "ActorHandle[Any]", reason: str) -> None:
        """Put a dead actor's shards back, oldest first, and start another. Raises CamrayError when that is no cure."""
        lost = [(ref, shard) for ref, (owner, shard) in self.calls.items() if owner is worker]
        for ref, _ in lost:
            del self.calls[ref]
        shards = [shard for _, shard in lost if shard is not None]
        self.queue.extendleft(reversed(shards))
        if any(shard is None for _, shard in lost):
            self.failed_starts += 1
            if self.failed_starts >= MAX_FAILED_STARTS and not self.calls:
                raise MachineError(f"{self.failed_starts} replicas died while loading their model, the last: {reason}")
        elif shards:
            self.deaths[shards[0]] += 1
            if self.deaths[shards[0]] >= MAX_SHARD_DEATHS:
                raise CamrayError(f"shard {shards[0]} killed its replica {MAX_SHARD_DEATHS} times, the last: {reason}")
        say(f"a replica died, {len(shards)} shard(s) go back to the queue: {reason.splitlines()[0]}")
        with contextlib.suppress(RayError):
            ray.kill(worker)  # it may only have been out of reach
        if self.failed_starts >= MAX_FAILED_STARTS:
            say(f"it is not replaced: {self.failed_starts} died in a row while loading their model; the others go on")
            return
        self.add_worker()
