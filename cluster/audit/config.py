"""What a user may ask of `audit`: its flags, with their checks."""

from dataclasses import dataclass, field
from typing import Any

import tyro.conf

from cam_ops.errors import UsageError
from cam_ops.metrics.counts import Split
from cluster.executors.choose import ExecutorName, check_execution
from cluster.runs.names import audit_folder
from cluster.runs.part import parse_shards
from cluster.storage.objects import absolute
from cluster.storage.options import StorageOptions, parse_options
from cluster.truth.prepare import TruthConfig

MAX_REPLICATES = 1000
MAX_SEED = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """How well does a run localize: against ground truth, and by signs that need none. Needs no model and no GPU."""

    run: tyro.conf.Positional[str]
    """Run directory; what is committed is audited. The audit goes to its folder `audit`."""
    name: str | None = None
    """Name of the audit: it goes to `audit-NAME`, beside those of other names."""
    truth: tyro.conf.OmitArgPrefixes[TruthConfig] = TruthConfig()
    calibrate: float = 0.0
    """Share of the images that the threshold of box_acc_calibrated is fitted to; the others are held out, and
    reported on. `calibrate --holdout` 1 - SHARE with the same --seed fits to the same images."""
    seed: int = 0
    """Draws other images to hold out."""
    bootstrap: int = 200
    """Replicates that the intervals (95 %) are made from."""
    replicas: int | None = None
    """Replicas; by default one per CPU core."""
    shard_timeout: float | None = None
    """Seconds after which a replica that still works on the same part is taken to hang, as of `label`."""
    shards: str | None = None
    """FIRST-LAST,...: only these shards of the run, as in 0-9 or 0-9,20. What is not committed is left out and said."""
    overwrite: bool = False
    """Replace the audit of that name, whatever it was asked for."""
    executor: ExecutorName = "ray"
    """`ray` runs actors; `inline` runs one replica in this process."""
    ray_address: str | None = None
    """Ray cluster to join; by default RAY_ADDRESS, which `ray job submit` sets, or else a Ray of our own."""
    json: bool = False
    """Print one JSON document to stdout, that of metrics.json; CAMRAY_RESULT goes to stderr."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""

    def __post_init__(self) -> None:
        audit_folder(self.name)
        parse_shards(self.shards)
        check_execution(self.executor, self.replicas, self.shard_timeout)
        if not 0 <= self.calibrate < 1:
            raise UsageError(f"--calibrate expects a share of the images, 0 or above and below 1, got {self.calibrate}")
        if not 0 <= self.bootstrap <= MAX_REPLICATES:
            raise UsageError(f"--bootstrap expects a number from 0 to {MAX_REPLICATES}, got {self.bootstrap}")
        if not 0 <= self.seed < MAX_SEED:
            raise UsageError(f"--seed expects a number from 0 to {MAX_SEED - 1}, got {self.seed}")
        if self.calibrate and self.truth.truth is None:
            raise UsageError("--calibrate needs --truth")
        parse_options(self.storage_options)

    @property
    def options(self) -> StorageOptions:
        """--storage-options, parsed."""
        return parse_options(self.storage_options)

    def asked(self) -> dict[str, Any]:
        """Return what is asked for, by the names of flags, as JSON has it: what the same command asks for again.

        A truth is told by where it lies: one that was mended there takes the place of the one before.
        """
        truth = self.truth
        return {
            "truth": truth.truth and absolute(truth.truth),
            "truth_format": truth.truth_format,
            "masks": truth.masks and absolute(truth.masks),
            "class_map": list(truth.class_map),
            "truth_frame": truth.truth_frame,
            "calibrate": self.calibrate,
            "seed": self.seed,
            "bootstrap": self.bootstrap,
        }

    @property
    def split(self) -> Split:
        """How images are weighted."""
        return Split(num_replicates=self.bootstrap, calibrate=self.calibrate, seed=self.seed)
