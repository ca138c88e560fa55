"""`rebox`: a new run from another one's maps, with its own boxes and images tables.

Its request is the one that `label` would have been given with these box settings, so that its files are the same, byte
for byte. `maps_from` in its run.json says where the maps are. The maps are only read.
"""

from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import tyro.conf

from cam_ops.boxes import BoxConfig, Components
from cam_ops.errors import UsageError
from cam_ops.maps import MapConfig, Recipe
from cluster.calibration_file import calibrated
from cluster.console import say
from cluster.plan import copy_plan
from cluster.request import MapsFrom, Run, config_document, existing_run, maps_of, read_run, refuse_another
from cluster.resources import ExecutorName, Work, check_execution, choose_replicas, open_executor
from cluster.resume import begin, finish, pending_shards, refuse_incomplete, refuse_strangers, run_missing
from cluster.rundir import RunDir, open_run_dir
from cluster.store_options import StorageOptions, parse_options
from cluster.totals import Totals
from cluster.verify import repair


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
    """`largest` or `all`, as of `label`."""
    recipe: Recipe | None = None
    """`default` enlarges and then normalises; `blog` presets min-max before a bilinear enlargement and boxes at .2."""
    calibration: str | None = None
    """FILE that `calibrate` wrote, in place of the four flags above; adds the column probability. A run's own
    calibration goes on where none of the five is given."""
    replicas: int | None = None
    """Replicas; by default one per CPU core."""
    shard_timeout: float | None = None
    """Seconds after which a replica that still works on the same shard is taken to hang, as of `label`."""
    executor: ExecutorName = "ray"
    """`ray` runs actors; `inline` runs the same worker in this process."""
    ray_address: str | None = None
    """Ray cluster to join; by default RAY_ADDRESS, which `ray job submit` sets, or else a Ray of our own."""
    overwrite: bool = False
    """Remove the run in --out first, whatever it is, and begin from nothing. To go on after a crash, leave it out."""
    repair: bool = False
    """Look at every committed shard first, as `verify` does, and do those again that are damaged."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""

    def __post_init__(self) -> None:
        if self.calibration is not None and self.has_own_boxes:
            raise UsageError(
                "--calibration brings its own --threshold, --normalise, --components and --recipe; give either"
            )
        check_execution(self.executor, self.replicas, self.shard_timeout)
        parse_options(self.storage_options)

    @property
    def has_own_boxes(self) -> bool:
        """Whether a flag says how boxes are made."""
        return any(flag is not None for flag in (self.threshold, self.normalise, self.components, self.recipe))

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
        return BoxConfig(threshold=threshold, components=self.components or before.components)


def rebox(config: ReboxConfig) -> Totals:
    """Do what is missing of the run in `config.out`, beginning it if it is new; return its totals."""
    run_dir, named_dir = open_run_dir(config.out, config.options), open_run_dir(config.run, config.options)
    source_dir, source = maps_of(named_dir, existing_run(named_dir))
    if run_dir.root in (named_dir.root, source_dir.root):
        raise UsageError(f"--out {run_dir.root} is the run whose maps are taken; give another --out")
    asked = _asked(config, source_dir, source)
    run = None if config.overwrite else read_run(run_dir)
    if run:
        refuse_another(run_dir, run, asked.request, asked.maps_from)
        if config.repair:
            repair(run_dir, run)
    else:
        if not config.overwrite:
            refuse_strangers(run_dir)
        run = _begin(config, run_dir, source_dir, source, asked)
    if pending_shards(run_dir, run):
        with closing(open_executor(config.executor, config.ray_address)) as executor:
            replicas = choose_replicas(config.replicas, "cpu", executor)
            run_missing(run, _work(run_dir, run), executor, replicas, config.shard_timeout)
    return finish(run_dir, run)


def _asked(config: ReboxConfig, source_dir: RunDir, source: Run) -> Run:
    before = source.request
    if config.calibration is not None:
        request = calibrated(before, config.calibration)
    elif config.has_own_boxes:
        request = replace(before, maps=config.maps(before.maps), boxes=config.boxes(before.boxes), calibration=None)
    else:
        request = before
    return replace(
        source,
        request=request,
        config=config_document(config),
        maps_from=MapsFrom(root=source_dir.root, fingerprint=before.fingerprint()),
    )


def _begin(config: ReboxConfig, run_dir: RunDir, source_dir: RunDir, source: Run, asked: Run) -> Run:
    """Begin the run with a copy of the plan; raises StorageError where the maps are not complete."""
    refuse_incomplete(source_dir, source)
    if config.overwrite:
        run_dir.clear()
    put_plan = partial(copy_plan, source_dir, run_dir, asked.plan)
    put_plan()
    run = begin(run_dir, asked, put_plan)
    if run is asked:
        say(f"boxes from the maps of {source_dir.root}: {run.plan.num_images} images in {run.plan.num_shards} shards")
    return run


def _work(run_dir: RunDir, run: Run) -> Work:
    return Work(
        run_dir=run_dir,
        device="cpu",
        factory="cluster.reboxer:Reboxer",
        arguments=(run_dir, run.request.fingerprint()),
    )
