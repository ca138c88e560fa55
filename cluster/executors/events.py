"""What executors tell of beside reports: replicas that come and go, and how the work stands. Who runs the shards may
listen, and watch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "replica_up",  # place, seconds since it was asked for: until it had a place and its model
    "replica_not_started",  # place, empty where it had none yet; why
    "replica_died",  # place, why, shards that went back to the queue, their numbers; hung ones count, too
    "place_avoided",  # place, why: no replica is started there any more
    "cluster_grown",  # replicas that are added
    "shard_copied",  # shard: a slow one that a second replica begins
]


Field = str | int | float | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, and its particulars."""

    kind: Kind
    fields: dict[str, Field]


Listener = Callable[[Event], None]
"""Called in the thread that takes the reports, between two of them."""


def ignore(event: Event) -> None:
    """Listen to nothing."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the work stands at a moment."""

    waiting: int  # shards that no replica holds
    at_work: int  # shards that replicas hold
    replicas: int  # that are ready


Watcher = Callable[[Standing], None]
"""Called in that thread, too: about once a second, and when all is done."""


def look_away(standing: Standing) -> None:
    """Watch nothing."""
