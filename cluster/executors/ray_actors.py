"""Run shards on Ray actors: the only module that imports ray, but for the measurement `cluster.bench.ray_data`.

Each actor holds one replica for its whole life; the driver moves shard numbers out and counts back, nothing else.
Ray restarts nothing by itself: `cluster.executors.dispatch` replaces an actor that dies.
"""

import contextlib
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import grpc
import ray
from ray._private import ray_constants
from ray._private.gcs_utils import create_gcs_channel
from ray._private.node import Node
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.metrics import Counter, Gauge

from cam_ops.errors import MachineError
from cam_ops.outside import LIMITS_VARIABLE
from cluster.executors.dispatch import DEPTH, dispatch
from cluster.executors.events import Listener, Watcher, ignore, look_away
from cluster.executors.metrics import Meters
from cluster.executors.own_folder import own_folder
from cluster.executors.remote import ReplicaDied
from cluster.executors.work import Replica, Replicas, ShardReport, Share, Work, replica_share
from cluster.process.apart import ProcessEnded
from cluster.process.console import say
from cluster.process.interrupts import raise_on_sigterm

CONNECT_TIMEOUT_S = 10.0
HEAD_TIMEOUT_S = 30.0  # Ray's own calls hang without a head, and Ray ends this process after a minute, without a word
NODE_ID = "ray.io/node-id"  # a label that Ray gives each node
LOST_GPU = "AcceleratorError"  # of torch: a kernel failed, and every later call in that process does
WEB = ("http://", "https://")  # of the dashboard, which takes jobs
OWN_STORE_BYTES = 100 * 2**20  # of a Ray of our own: no image travels through it

Value = TypeVar("Value")


class _Actor:
    """The process that holds a replica. It loads in `start`, a call of its own, so that a failure keeps its own error.

    It is a future so that shards may also run in threads of their own (`max_concurrency`) and wait for `start`.
    """

    def __init__(self) -> None:
        self.replica: Future[Replica] = Future()
        self.node: str = ray.get_runtime_context().get_node_id()

    def place(self) -> str:
        return self.node

    def start(self, work: Work, num_threads: int) -> None:
        self.replica.set_result(work.replica(num_threads))

    def run_shard(self, shard: int, number: int, deaths: int) -> ShardReport:
        return replace(self.replica.result().run_shard(shard, number, deaths), place=self.node)


class RayExecutor:
    """A Ray cluster to run shards on: one to join, or one of our own for the time of this object."""

    name = "ray"

    def __init__(self, address: str | None) -> None:
        """Join the cluster at `address` or at RAY_ADDRESS; without either start a Ray of our own on this machine."""
        flag, address = ("--ray-address", address) if address else ("RAY_ADDRESS", os.environ.get("RAY_ADDRESS"))
        if address and address.lower().startswith(WEB):
            raise MachineError(
                f"{flag} is {address.partition('://')[0]}://...: an http:// address is for `ray job submit`; unset it, "
                "or give HEAD:6379"
            )
        os.environ["RAY_COLOR_PREFIX"] = "0"  # no colours before what replicas say, which Ray prints here
        try:
            if address:
                _join(address)
            else:
                _start_in_two_tries()
        except (KeyboardInterrupt, SystemExit) as error:  # the latter of the handler of SIGTERM of ray.init
            _end_half_started(error)
            raise KeyboardInterrupt from None
        raise_on_sigterm()  # ray.init puts its own handler in place
        self.can_grow = bool(address)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.num_gpus, self.num_cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        num_nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
        where = f"joined the Ray cluster at {address}" if address else "started a Ray of its own on this machine"
        say(f"{where}: {num_nodes} node(s), {self.num_gpus} GPU(s), {self.num_cpus} CPU(s)")

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
        """Yield one report per shard, in the order they finish.

        Raises the CamrayError of a replica's own code where it or a shard fails for a reason that a retry cannot mend.
        """
        num_cpus = self._gpu_cpus() if work.device == "cuda" else self.num_cpus
        share = replica_share(work.device, replicas.number, num_cpus, self.num_gpus)
        cluster = _Actors(share, replicas, work, is_done)
        return Meters(Counter, Gauge).measured(partial(dispatch, cluster, shards, timeout_s), listen, watch)

    def _gpu_cpus(self) -> int:
        """Return the cores that GPUs can count on: as many for each as on the node where they have fewest."""
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        alive = [node["Resources"] for node in nodes if node["Alive"]]
        per_gpu = [resources.get("CPU", 0) / resources["GPU"] for resources in alive if resources.get("GPU")]
        return int(self.num_gpus * min(per_gpu))

    def close(self) -> None:
        """Leave the cluster; end it if it is our own."""
        ray.shutdown()


def _join(address: str) -> None:
    try:
        _connect(address)
        ray.init(address=address)
    except Exception as error:
        if not _is_of_ray(error):
            raise
        why, cure = _first_line(error), "check the address, and set RAY_AUTH_MODE=token if the cluster asks for a token"
        if why.startswith("Version mismatch"):
            why, cure = " ".join(str(error).split()), "install the same versions here and on all its nodes"
        raise MachineError(f"cannot join the Ray cluster at {address}: {why}; {cure}") from None


def _start_in_two_tries() -> None:
    """Start a Ray of our own: on a machine that is busy it may not come up in the half minute that Ray allows it."""
    folder, why = own_folder()
    if why is not None:
        say(f"Ray's files are in {folder}: the folder that TMPDIR or RAY_TMPDIR names {why}")
    try:
        _start(folder)
    except MachineError as error:
        say(f"{error}; trying once more")
    else:
        return
    try:
        _start(folder)
    except MachineError as error:
        raise MachineError(
            f"{error}, twice; where the machine is slow or busy give it more time by RAY_raylet_start_wait_time_s=120, "
            f"or do without Ray by --executor inline; Ray's logs are in {folder}/session_latest/logs"
        ) from None


def _start(folder: str) -> None:
    try:
        with _on_loopback():
            ray.init(address="local", include_dashboard=False, object_store_memory=OWN_STORE_BYTES, _temp_dir=folder)
    except Exception as error:
        if not _is_of_ray(error):
            raise
        _end_half_started(error)
        reason = _first_line(error).partition(". ")[0]  # what Ray says after that are guesses
        raise MachineError(f"cannot start Ray on this machine: {reason}") from None


def _is_of_ray(error: Exception) -> bool:
    """Say whether `ray.init` means by an error that there is no Ray: one that does not come up is a plain Exception."""
    return type(error) is Exception or isinstance(error, (RayError, OSError, ValueError, RuntimeError))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _end_half_started(error: BaseException) -> None:
    """End the processes of a Ray that did not come up: `ray.shutdown` knows no node before that has."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if isinstance(node := frame.f_locals.get("self"), Node):
            agents = [
                child for raylet in node.all_processes.get("raylet", []) for child in _children(raylet.process.pid)
            ]
            node.kill_all_processes(check_alive=False, allow_graceful=True, wait=True)
            for agent in agents:  # they look for their raylet's end for a minute
                with contextlib.suppress(ProcessLookupError):
                    os.kill(agent, signal.SIGKILL)
            break
    ray.shutdown()


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that starts here listen on 127.0.0.1 alone, as it does by itself on systems where it has no clusters.

    It runs what it is told to; `ray.init` replaces a loopback `_node_ip_address` by one that other machines can reach.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _connect(address: str) -> None:
    """Raise OSError unless a gRPC server answers at host:port: ray.init itself waits for minutes and then aborts.

    In a thread of its own: an interrupt amid gRPC's code leaves a lock held, for which its objects wait when they go.
    """
    target = address.removeprefix("ray://")
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit():
        return
    answer: Future[None] = Future()
    Thread(target=_ask, args=(host, int(port), target, answer), daemon=True).start()
    answer.result()


def _ask(host: str, port: int, target: str, answer: Future[None]) -> None:
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
        with create_gcs_channel(target) as channel:  # with Ray's own TLS, token and proxy settings
            grpc.channel_ready_future(channel).result(CONNECT_TIMEOUT_S)
        answer.set_result(None)
    except grpc.FutureTimeoutError:
        reason = f"what listens there did not answer as Ray does in {CONNECT_TIMEOUT_S:.0f} s"
        answer.set_exception(ConnectionError(reason))
    except Exception as error:  # noqa: BLE001  raised where the answer is awaited, which otherwise has no end
        answer.set_exception(error)


def _await_head() -> None:
    """Return once the cluster's head answers; raises MachineError if it does not within HEAD_TIMEOUT_S."""
    address = ray.get_runtime_context().gcs_address
    end_s = time.monotonic() + HEAD_TIMEOUT_S
    while True:
        try:
            return _connect(address)
        except OSError as error:
            if time.monotonic() > end_s:
                raise MachineError(
                    f"the head of the Ray cluster at {address} has not answered for {HEAD_TIMEOUT_S:.0f} s ({error}); "
                    "start a cluster and run the same command again: it does only what is missing"
                ) from None
        time.sleep(1)


class _Actors:
    """The cluster as the dispatch loop sees it: nodes with room for actors of one share."""

    def __init__(self, share: Share, replicas: Replicas, work: Work, is_done: Callable[[int], bool]) -> None:
        self.share, self.replicas, self.work, self.is_done = share, replicas, work, is_done

    def new_replica(self, avoided: frozenset[str]) -> "_ActorReplica":
        """Ask Ray for an actor; it is pending until a node has room."""
        options: dict[str, Any] = {}
        if avoided:
            options["label_selector"] = {NODE_ID: f"!in({','.join(sorted(avoided))})"}
        if limits := os.environ.get(LIMITS_VARIABLE):  # a cluster that is joined has an environment of its own
            options["runtime_env"] = {"env_vars": {LIMITS_VARIABLE: limits}}
        actor = ray.remote(_Actor).options(
            num_cpus=self.share.cpus,
            num_gpus=self.share.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=2 + DEPTH,  # `place`, `start`, and shards: the next fetches while one has the network
            **options,
        )
        return _ActorReplica(actor.remote(), self.work, self.share.threads)

    def num_replicas(self) -> int:
        """Return the replicas asked for, or one for each GPU or core that there is by now."""
        _await_head()
        if self.replicas.asked:
            return self.replicas.number
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return max(self.replicas.number, int(resources.get("GPU" if self.share.gpus else "CPU", 0)))

    def places_now(self) -> set[str]:
        """Return the nodes that are alive and large enough for an actor."""
        _await_head()
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        needed = {"CPU": self.share.cpus, "GPU": self.share.gpus}
        return {
            node["NodeID"]
            for node in nodes
            if node["Alive"] and all(node["Resources"].get(kind, 0) >= number for kind, number in needed.items())
        }


class _ActorReplica:
    """The replica of an actor, as the dispatch loop sees it."""

    def __init__(self, handle: Any, work: Work, num_threads: int) -> None:
        self.handle, self.arguments = handle, (work, num_threads)
        self.numbers = count()
        self.place: Future[str] = _outcome(handle.place.remote())

    def start(self) -> Future[None]:
        return _outcome(self.handle.start.remote(*self.arguments))

    def begin_shard(self, shard: int, deaths: int) -> Future[ShardReport]:
        return _outcome(self.handle.run_shard.remote(shard, next(self.numbers), deaths))

    def kill(self) -> None:
        with contextlib.suppress(RayError):
            ray.kill(self.handle)


def _outcome(call: "ray.ObjectRef[Value]") -> Future[Value]:
    """Return the future of an actor's call, which fails with ReplicaDied or with what the actor's own code raised."""
    outcome: Future[Value] = Future()

    def settle(ended: Future[Value]) -> None:  # on Ray's thread
        error = ended.exception()
        if error is None:
            outcome.set_result(ended.result())
        else:
            outcome.set_exception(_meaning(error))

    call.future().add_done_callback(settle)
    return outcome


def _meaning(error: BaseException) -> BaseException:
    if isinstance(error, OutOfMemoryError):
        return ReplicaDied(str(error).partition("\n")[0], out_of_memory=True)
    if isinstance(error, (RayActorError, RuntimeEnvSetupError)):  # its node may lack room for the job's files
        return ReplicaDied(_shortened(error))
    if isinstance(error, RayTaskError):
        cause: BaseException = error.cause
        if type(cause).__name__ == LOST_GPU:
            return ReplicaDied(f"its process cannot use its GPU any more: {cause}")
        return ReplicaDied(str(cause)) if isinstance(cause, ProcessEnded) else cause
    return error


def _shortened(error: RayError) -> str:
    """Return why an actor is dead, without Ray's names for it and its advice."""
    return str(error).strip().splitlines()[-1].partition(" Some common causes")[0]
