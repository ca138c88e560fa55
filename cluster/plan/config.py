"""What a user may ask of `plan`: the flags of `label`, and a few more."""

import math
from dataclasses import dataclass

import tyro.conf

from cam_ops.errors import UsageError
from cluster.label.config import LabelConfig

MAX_PILOT = 2**14  # images
MAX_REPLICAS = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """Say what `label` with the same flags would do, how long it would take and what it would cost: a few of the
    images are labelled, in a scratch folder. Nothing is written to --out.
    """

    label: tyro.conf.OmitArgPrefixes[LabelConfig]
    pilot: int = 64
    """Images to label with a clock, at least four batches of them; they are drawn from the whole listing."""
    for_replicas: tuple[int, ...] = ()
    """N ...: foretell for these numbers of replicas, too, whether or not there is room for them now."""
    price_per_hour: float | None = None
    """Price of a GPU for an hour, or of a core where there is no GPU: that of a machine, divided by those that it has.
    """

    def __post_init__(self) -> None:
        if not 1 <= self.pilot <= MAX_PILOT:
            raise UsageError(f"--pilot expects 1 to {MAX_PILOT} images, got {self.pilot}")
        for number in self.for_replicas:
            if not 1 <= number <= MAX_REPLICAS:
                raise UsageError(f"--for-replicas expects numbers from 1 to {MAX_REPLICAS}, got {number}")
        if self.price_per_hour is not None and not 0 <= self.price_per_hour < math.inf:
            raise UsageError(f"--price-per-hour expects a price of at least 0, got {self.price_per_hour}")
