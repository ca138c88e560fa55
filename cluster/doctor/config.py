"""What a user may ask of `doctor`: its flags, with their checks."""

from dataclasses import dataclass, field
from typing import Literal

from cam_ops.errors import UsageError
from cam_ops.settings import DeviceChoice, ModelConfig
from cluster.executors.choose import ExecutorName
from cluster.sources.several import source_addresses
from cluster.storage.options import StorageOptions, parse_options

DAY_S = 86400.0
OF_NETWORK = ("weights", "checkpoint_key", "class_names", "output", "mean", "std", "image_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorConfig:
    """Check what a run needs, here and on every node, and say the cure of what is missing. Leaves nothing behind.

    Flags are some of those of `label`; what is not given is not checked.
    """

    images: tuple[str, ...] = ()
    """Sources to read from every node, as of `label`."""
    out: str | None = None
    """Run directory to write to, list and read from every node; what is written for that is removed."""
    model: str | None = None
    """Network to load, as of `label`."""
    weights: str | None = None
    """Its weights, as of `label`."""
    checkpoint_key: str | None = None
    """Where in --weights FILE the network is, as of `label`."""
    class_names: str | None = None
    """Its class names, as of `label`."""
    output: str | None = None
    """Which of several things that it returns are the logits, as of `label`."""
    mean: tuple[float, float, float] | None = None
    """Channel means, as of `label`."""
    std: tuple[float, float, float] | None = None
    """Channel standard deviations, as of `label`."""
    image_size: int | None = None
    """Side of its input, as of `label`."""
    device: DeviceChoice = "auto"
    """`cuda`: a machine without a usable GPU fails."""
    executor: Literal["auto"] | ExecutorName = "auto"
    """`ray` asks every node of a cluster, or of a Ray of our own, `inline` this machine alone; `auto` is ray where
    --ray-address or RAY_ADDRESS is given."""
    ray_address: str | None = None
    """Ray cluster to look at; by default RAY_ADDRESS."""
    timeout: float = 120
    """Seconds that a node has to answer."""
    json: bool = False
    """Print one JSON document to stdout; CAMRAY_RESULT goes to stderr."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= DAY_S:
            raise UsageError(f"--timeout expects seconds above 0 and at most {DAY_S:.0f}, got {self.timeout}")
        lonely = next((name for name in OF_NETWORK if self.model is None and getattr(self, name) is not None), None)
        if lonely:
            raise UsageError(f"--{lonely.replace('_', '-')} is of a network; give --model, too")
        parse_options(self.storage_options)

    @property
    def options(self) -> StorageOptions:
        """--storage-options, parsed."""
        return parse_options(self.storage_options)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The sources' addresses."""
        return source_addresses(self.images) if self.images else ()

    @property
    def network(self) -> ModelConfig | None:
        """The network, where one is named."""
        if self.model is None:
            return None
        return ModelConfig(
            model=self.model,
            weights=self.weights,
            checkpoint_key=self.checkpoint_key,
            class_names=self.class_names,
            output=self.output,
            mean=self.mean,
            std=self.std,
            image_size=self.image_size,
        )
