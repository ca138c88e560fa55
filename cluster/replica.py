"""What replicas have in common, whatever they do: the run they belong to, turns, the publication of a shard."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

from cam_ops.errors import StorageError
from cluster.failpoints import reach
from cluster.request import Run, read_run
from cluster.rundir import RUN, RunDir, shard_name

Value = TypeVar("Value")


class Membership:
    """A replica's part in one run: what run.json said when it joined."""

    def __init__(self, run_dir: RunDir, fingerprint: str) -> None:
        """Read run.json. Raises StorageError where this machine does not see the run of that fingerprint."""
        self.run_dir = run_dir
        run = read_run(run_dir)
        if run is None or run.request.fingerprint() != fingerprint:
            raise StorageError(
                f"the node {os.uname().nodename} does not see the run at {run_dir.root}; "
                "a local --out must be shared by all nodes"
            )
        self.run: Run = run
        self.run_json = run_dir.read(RUN)

    def publish(self, shard: int, tables: dict[str, bytes]) -> None:
        """Put a shard's files in place, in the order given; the last commits it."""
        if self.run_dir.read(RUN) != self.run_json:
            raise StorageError(
                f"{self.run_dir.root} now holds another run, or the node {os.uname().nodename} does not see it any "
                "more; nothing more is published there"
            )
        for table, content in tables.items():
            self.run_dir.publish(shard_name(table, shard), content)
            reach(f"{table}-{shard}")


class Turns:
    """Lets threads pass one at a time, in the order of their numbers."""

    def __init__(self) -> None:
        self.condition = Condition()
        self.next = 0

    @contextmanager
    def take(self, number: int, prepare: Callable[[], Value]) -> Iterator[Value]:
        """Prepare at once, wait for the turn of `number`, give what was prepared; then, or upon an error of either,
        pass the turn on.
        """
        try:
            try:
                prepared = prepare()
            finally:
                with self.condition:
                    self.condition.wait_for(lambda: self.next == number)
            yield prepared
        finally:
            with self.condition:
                self.next += 1
                self.condition.notify_all()
