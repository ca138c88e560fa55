"""What the dispatch loop asks of a cluster and its replicas: Ray is one, a simulation another."""

from concurrent.futures import Future
from typing import Protocol, TypeVar

Report = TypeVar("Report")


class ReplicaDied(Exception):
    """A replica is gone, and all of its calls with it; the text says why."""

    def __init__(self, reason: str, *, out_of_memory: bool = False) -> None:
        super().__init__(reason)
        self.out_of_memory = out_of_memory  # its machine ran out of memory and ended it


class RemoteReplica(Protocol[Report]):
    """A replica somewhere. Its calls begin in order; one that it does not survive fails with ReplicaDied."""

    place: Future[str]
    """Where it is: known as soon as it is anywhere, before its model is loaded."""

    def start(self) -> Future[None]:
        """Load the model. Called once, and first."""

    def begin_shard(self, shard: int, deaths: int) -> Future[Report]:
        """Have it do one shard, at which `deaths` replicas have died before."""

    def kill(self) -> None:
        """End the replica, dead or alive. Its calls may end in any way."""


class Cluster(Protocol[Report]):
    """Where replicas can be."""

    def new_replica(self, avoided: frozenset[str]) -> RemoteReplica[Report]:
        """Return a replica that begins to look for a place, not among those avoided."""

    def num_replicas(self) -> int:
        """Return how many replicas there should be, by the cluster's size now."""

    def places_now(self) -> set[str]:
        """Return the places that a replica could be at now."""

    def is_done(self, shard: int) -> bool:
        """Say whether a shard is committed, whoever did it."""
