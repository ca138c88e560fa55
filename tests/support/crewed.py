"""A replica with processes of its own, one of which dies of a shard the first time."""

import os
import signal

from cluster.executors.work import ShardReport
from cluster.process.crew import Crew

DEADLY = 1


class Mortal:
    """Does as it is told."""

    def die(self) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGSEGV)

    def live(self) -> None:
        """Do nothing."""


class Crewed:
    """Has its shards done by two processes."""

    def __init__(self, num_threads: int) -> None:
        """Take no notice of the threads."""
        self.crew = Crew(2, "tests.support.crewed:Mortal")

    def run_shard(self, shard: int, number: int, deaths: int) -> ShardReport:
        """Say the deaths in the place of a status."""
        self.crew.call("die" if shard == DEADLY and not deaths else "live")
        return ShardReport(shard=shard, statuses={f"{deaths} deaths": 1})
