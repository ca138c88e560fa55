"""What a user may ask of `rebox`: its flags, with their checks."""

from dataclasses import dataclass, field

import tyro.conf

from cam_ops.errors import UsageError
from cam_ops.settings import BoxConfig, Components, MapConfig, Recipe
from cluster.executors.choose import ExecutorName, check_execution
from cluster.storage.options import StorageOptions, parse_options


@dataclass(frozen=True, slots=True, kw_only=True)
class ReboxConfig:
    """Make new boxes for a whole run from its stored maps, without model, pictures or GPU.

    What is not given is as in that run.
    """

    run: tyro.conf.Positional[str]
    """Complete run directory whose maps are taken: a path, s3://BUCKET/KEY or gs://BUCKET/KEY. It is not changed."""
    out: str
    """Run directory to create, or to resume; it refers to the maps, which must stay where they are."""
    threshold: tuple[float, ...] | None = None
    """Fraction of the map's own peak; with several, each has boxes with ranks of its own, and num_boxes counts those of
    the first."""
    normalise: str | None = None
    """`minmax`, `max` or `ivr:P`, as of `label`."""
    components: Components | None = None
    """`largest`, `all` or `peaks`, as of `label`."""
    min_area: float | None = None
    """Smallest area of a region, as of `label`; 0 for none. That of the run goes on, but not to `largest`."""
    recipe: Recipe | None = None
    """`default` enlarges and then normalises; `blog` presets min-max before a bilinear enlargement and boxes at .2."""
    calibration: str | None = None
    """FILE that `calibrate` wrote, in place of the five flags above; adds the column probability. A run's own
    calibration goes on where none of the six is given."""
    replicas: int | None = None
    """Replicas; by default one per CPU core."""
    shard_timeout: float | None = None
    """Seconds after which a replica that still works on the same shard is taken to hang, as of `label`."""
    executor: ExecutorName = "ray"
    """`ray` runs actors; `inline` runs one replica in this process."""
    ray_address: str | None = None
    """Ray cluster to join; by default RAY_ADDRESS, which `ray job submit` sets, or else a Ray of our own."""
    overwrite: bool = False
    """Remove the run in --out first, whatever it is, and begin from nothing. To go on after a crash, leave it out."""
    repair: bool = False
    """Look at every committed shard first, as `verify` does, and do those again that are damaged."""
    json: bool = False
    """Print one JSON document to stdout; CAMRAY_RESULT goes to stderr."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""

    def __post_init__(self) -> None:
        if self.calibration is not None and self.has_own_boxes:
            raise UsageError(
                "--calibration brings its own --threshold, --normalise, --components, --min-area and --recipe; give "
                "either"
            )
        check_execution(self.executor, self.replicas, self.shard_timeout)
        parse_options(self.storage_options)

    @property
    def has_own_boxes(self) -> bool:
        """Whether a flag says how boxes are made."""
        flags = (self.threshold, self.normalise, self.components, self.min_area, self.recipe)
        return any(flag is not None for flag in flags)

    @property
    def options(self) -> StorageOptions:
        """--storage-options, parsed."""
        return parse_options(self.storage_options)

    def maps(self, before: MapConfig) -> MapConfig:
        """Return the map recipe, given that of the run."""
        return MapConfig(recipe=self.recipe or before.recipe, normalise=self.normalise or before.normalise)

    def boxes(self, before: BoxConfig) -> BoxConfig:
        """Return the box recipe, given that of the run."""
        threshold = before.threshold if self.threshold is None else self.threshold
        components, min_area = self.components or before.components, self.min_area
        if min_area is None and components != "largest":
            min_area = before.min_area
        return BoxConfig(threshold=threshold, components=components, min_area=min_area)
