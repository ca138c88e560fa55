"""What replicas have in common, whatever they do: the run they belong to, the publication of a shard."""

import os

from cam_ops.errors import StorageError
from cluster.process.failpoints import reach
from cluster.runs.directory import RunDir
from cluster.runs.names import RUN, shard_name
from cluster.runs.record import Run, read_run


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
