"""What executors tell of beside reports: replicas that come and go. Who runs the shards may listen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "replica_up",  # place, seconds since it was asked for: until it had a place and its model
    "replica_not_started",  # place, empty where it had none yet; why
    "replica_died",  # place, why, shards that went back to the queue; a replica that was ended as it hung counts, too
    "place_avoided",  # place, why: no replica is started there any more
    "cluster_grown",  # replicas that are added
    "shard_copied",  # shard: a slow one that a second replica begins
]


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, and its particulars."""

    kind: Kind
    fields: dict[str, str | int | float]


Listener = Callable[[Event], None]
"""Called in the thread that takes the reports, between two of them."""


def ignore(event: Event) -> None:
    """Listen to nothing."""
