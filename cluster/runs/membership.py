"""What replicas have in common, whatever they do: the run they belong to, the publication of a shard."""

import os

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.errors import StorageError
from cam_ops.tables import LABELS, PLAN
from cluster.process.failpoints import reach
from cluster.runs.directory import RunDir
from cluster.runs.names import RUN, shard_name
from cluster.runs.plan import read_shard
from cluster.runs.reading import are_classes
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

    def planned(self, shard: int) -> pa.Table:
        """Return the rows of one shard of the plan, schema `cam_ops.tables.PLAN`, as far as that goes.

        Raises StorageError where they are not what a plan has: it may be anybody's, and is read before its digest is.
        """
        rows = read_shard(self.run_dir, shard)
        several = [pc.list_flatten(rows[name]) for name in rows.column_names if name == LABELS.name]
        if (
            not rows.schema.equals(self.run.plan.extended(PLAN))
            or rows["shard"].to_pylist() != [shard] * self.run.plan.size_of(shard)
            or rows["row"].to_pylist() != list(range(len(rows)))
            or not are_classes(self.run, rows["label"], several)
        ):
            raise StorageError(
                f"the plan of shard {shard} in {self.run_dir.root} has rows that no plan has; see `verify`, a damaged "
                "plan needs a new run"
            )
        return rows

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
