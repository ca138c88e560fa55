"""What a user may ask of `report`: its flags, with their checks."""

from dataclasses import dataclass, field
from typing import Literal

import tyro.conf

from cam_ops.errors import UsageError
from cluster.executors.choose import ExecutorName, check_execution
from cluster.runs.names import audit_pair
from cluster.runs.part import parse_shards
from cluster.storage.options import StorageOptions, parse_options

MAX_SHOWN = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig:
    """Show a run on one page: galleries, plots, tables. It opens from disk or a bucket, without network."""

    run: tyro.conf.Positional[str]
    """Run directory: a path, s3://BUCKET/KEY or gs://BUCKET/KEY. It may be unfinished; it is only read."""
    out: str | None = None
    """HTML file to write, here or on a store; by default report.html in the run directory."""
    against: str | None = None
    """Another run of the same images: those that changed most, side by side, and what `compare` says."""
    audit: tuple[str, ...] = ()
    """NAME of the audit to show, of `audit --name`; a second one is that of --against."""
    shards: str | None = None
    """FIRST-LAST,...: only these shards of the run, as in 0-9 or 0-9,20. What is not committed is left out and said."""
    max_images: int = 120
    """Images to show, of all galleries together; fewer where the page would exceed 12 MB."""
    executor: Literal["auto"] | ExecutorName = "auto"
    """`ray` reads the run on actors, `inline` in this process; `auto` takes actors for runs of more than 32,768
    images."""
    replicas: int | None = None
    """Replicas, with `ray`; by default one per CPU core."""
    shard_timeout: float | None = None
    """Seconds after which a replica that still works on the same shards is taken to hang, as of `label`."""
    ray_address: str | None = None
    """Ray cluster to join; by default RAY_ADDRESS, which `ray job submit` sets, or else a Ray of our own."""
    json: bool = False
    """Print one JSON document to stdout; CAMRAY_RESULT goes to stderr."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_images <= MAX_SHOWN:
            raise UsageError(f"--max-images expects 1 to {MAX_SHOWN}, got {self.max_images}")
        check_execution("inline" if self.executor == "inline" else "ray", self.replicas, self.shard_timeout)
        if parse_shards(self.shards) and self.against is not None:
            raise UsageError("--against compares whole runs; leave --shards out")
        if len(self.audit) > 1 and self.against is None:
            raise UsageError("--audit expects one name, as there is no --against, got two")
        audit_pair(self.audit)
        parse_options(self.storage_options)

    @property
    def audits(self) -> tuple[str | None, str | None]:
        """The audits of this run and of the other, by name; None for the one without."""
        return audit_pair(self.audit)

    @property
    def options(self) -> StorageOptions:
        """--storage-options, parsed."""
        return parse_options(self.storage_options)
