"""What precedes the replicas: the network is looked at, `auto` is resolved, the source is listed, the plan written.

The only part of the driver that needs torch and much memory. Where actors do the work it has a process of its own
(`cluster.apart`), which runs beside the start of Ray and ends before the first shard.
"""

import json
from dataclasses import asdict, dataclass, replace
from hashlib import sha256

from cam_ops.classes import ClassList, parse_class_choice
from cam_ops.errors import UsageError
from cam_ops.models import Classifier, classes_for, load_classifier
from cam_ops.settings import ATTENTION, ExplainConfig, Kind
from cam_ops.tables import SCHEMA_VERSION
from cam_ops.views import Mapper
from cluster.calibration_file import calibrated, read_calibration
from cluster.compilation import choose_compile
from cluster.console import say
from cluster.failpoints import reach
from cluster.label_config import LabelConfig
from cluster.labels import OWN, find_labels, label_images, labels_digest
from cluster.listing import Listing
from cluster.plan import auto_batch_size, auto_shard_size, plan_digest, write_plan
from cluster.precision import choose_precision
from cluster.request import Device, Precision, Request, Run, existing_run, publish_run, refuse_another
from cluster.resources import UNIT
from cluster.rundir import RunDir, open_run_dir
from cluster.sources import open_listing

LARGEST_BATCH: dict[Device, int] = {"cpu": 16, "cuda": 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """What the request says of the network."""

    classes: ClassList
    head: Kind
    cut: tuple[str, ...]
    explain: ExplainConfig  # with the method that auto stands for
    grid: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compute:
    """The settings that `auto` stands for, resolved when the plan is made."""

    device: Device
    precision: Precision
    compiled: bool
    batch_size: int


class Preparation:
    """A network that has been loaded for one configuration; `before` is the run in place, if any."""

    def __init__(self, config: LabelConfig, before: Run | None) -> None:
        """Load the network and find its head, unless the run in place has done so with the very same network.

        Raises UsageError or MachineError where the network cannot be used.
        """
        self.config, self.before = config, before
        self.run_dir: RunDir = open_run_dir(config.out, config.options)
        self.labels = labels_digest(config.label_source)
        if config.calibration is not None:
            read_calibration(config.calibration)  # what cannot be used is said before the network is loaded
        self.classifier: Classifier = load_classifier(config.model)
        self.mapper: Mapper | None = None
        known = before and self._known(before)
        self.described: _Described = known or self._look()

    def refuse_another(self) -> None:
        """Raise RefusedError unless the configuration asks for what the run in place was asked for."""
        assert self.before
        before, config = self.before.request, self.config
        compute = _Compute(  # `auto` is what it was; what the user names explicitly stays
            device=before.device if config.device == "auto" else config.device,
            precision=before.precision if config.precision == "auto" else config.precision,
            compiled=before.compiled if config.compile == "auto" else config.compile == "always",
            batch_size=config.batch_size or before.batch_size,
        )
        refuse_another(self.run_dir, self.before, self._request(compute))

    def plan(self, num_replicas: int, device: Device) -> Run:
        """List the source, label the images, cut shards, and publish plan and run.json, the latter last."""
        with open_listing(
            self.config.images, self.config.limit, skip=self.run_dir.root, options=self.config.options
        ) as listing:
            self.config = _with_classes(self.config, listing)
            return self._plan(listing, num_replicas, device)

    def _plan(self, listing: Listing, num_replicas: int, device: Device) -> Run:
        assert self.mapper
        config, run_dir, num_images = self.config, self.run_dir, listing.num_images
        labels_of = find_labels(listing, config.label_source, self.described.classes, say)
        precision, why = choose_precision(config.precision, device, self.mapper)
        compiled, why_compiled = choose_compile(
            config.compile, self.mapper, device, precision, num_images / num_replicas
        )
        compute = _Compute(
            device=device,
            precision=precision,
            compiled=compiled,
            batch_size=config.batch_size or auto_batch_size(num_images, LARGEST_BATCH[device]),
        )
        request = self._request(compute)
        if config.overwrite:
            run_dir.clear()
        shard_size = config.shard_size or auto_shard_size(num_images, num_replicas, compute.batch_size)
        plan = write_plan(run_dir, label_images(listing, labels_of), shard_size)
        reach("plan")
        run = Run(request=request, plan=plan, class_names=self.described.classes.names, grid=self.described.grid)
        if not publish_run(run_dir, run, asdict(replace(config, storage_options=()))):
            return _run_of_another_driver(run_dir, request)
        reach("run")
        if plan_digest(run_dir, plan) != plan.digest:  # one that lost the race for run.json wrote over ours
            write_plan(run_dir, label_images(listing, labels_of), shard_size)
        say(self._said())
        say(f"planned {plan.num_images} images in {plan.num_shards} shards of {plan.shard_size}")
        auto_batch = f"auto is {LARGEST_BATCH[device]} on {device}, less if few"
        say(
            f"precision {precision} ({why}), {'compiled' if compiled else 'not compiled'} ({why_compiled}), batches of "
            f"{compute.batch_size} ({_why(config.batch_size, auto_batch)}), "
            f"{num_replicas} replica(s) ({_why(config.replicas, f'auto is one per {UNIT[device]}')})"
        )
        return run

    def _known(self, run: Run) -> _Described | None:
        """Return what the run in place found in the network; None if it may have looked at another."""
        request, asked = run.request, self.config.explain
        explain = replace(asked, method=request.explain.method) if asked.method == "auto" else asked
        same_network = (request.model_digest, request.dilate) == (self.classifier.digest, self.config.model.dilate)
        if not same_network or (explain, self.classifier.preprocessing) != (request.explain, request.preprocessing):
            return None
        classes = classes_for(self.classifier, len(run.class_names))
        return _Described(classes=classes, head=request.head, cut=request.cut, explain=explain, grid=run.grid)

    def _look(self) -> _Described:
        mapper = Mapper(self.classifier.network, self.config.explain, self.classifier.preprocessing.image_size)
        self.mapper = mapper
        explain = replace(self.config.explain, method=mapper.method)
        return _Described(
            classes=classes_for(self.classifier, mapper.head.num_classes),
            head=mapper.head.kind,
            cut=() if explain.method in ATTENTION else mapper.head.layers,
            explain=explain,
            grid=mapper.grid,
        )

    def _request(self, compute: _Compute) -> Request:
        config, described = self.config, self.described
        request = Request(
            schema_version=SCHEMA_VERSION,
            images=config.images,
            limit=config.limit,
            labels=self.labels,
            model=self.classifier.name,
            model_digest=self.classifier.digest,
            dilate=config.model.dilate,
            class_names_digest=sha256(json.dumps(described.classes.names).encode()).hexdigest(),
            classes=config.wanted_classes,
            scores=config.scores,
            explain=described.explain,
            head=described.head,
            cut=described.cut,
            preprocessing=self.classifier.preprocessing,
            maps=config.maps,
            boxes=config.boxes,
            device=compute.device,
            precision=compute.precision,
            compiled=compute.compiled,
            batch_size=compute.batch_size,
            shard_size=config.shard_size,
        )
        return request if config.calibration is None else calibrated(request, config.calibration)

    def _said(self) -> str:
        """Say what is mapped, and how."""
        described = self.described
        explain = described.explain
        why = _why(self.config.explain.method != "auto", f"auto, as the head is {described.head}")
        where = f"at {', '.join(described.cut)}" if described.cut else "of what the network averages"
        where = "of all attention" if explain.method in ATTENTION else where
        views = len(explain.scales) * (1 + explain.flip)
        return (
            f"maps: {explain.method} ({why}) {where}, head {described.head}, grid "
            f"{described.grid[0]}x{described.grid[1]}{f', mean of {views} views' if views > 1 else ''}"
        )


def _with_classes(config: LabelConfig, listing: Listing) -> LabelConfig:
    """Settle --classes where it depends on whether a manifest or tar files have labels."""
    if config.label_source not in OWN or listing.has_labels:
        return config
    if config.classes and parse_class_choice(config.classes).label:
        raise UsageError(
            f"--classes {config.classes} needs labels, {config.images} has no "
            f"{'column label' if config.label_source == 'manifest' else 'members cls'}; add them, or give --labels "
            "folder or --labels FILE.csv"
        )
    return replace(config, classes=config.classes or "top1")


def _why(asked: object, reason: str) -> str:
    return "as asked" if asked else reason


def _run_of_another_driver(run_dir: RunDir, request: Request) -> Run:
    """Join the run that another driver has begun here in the meantime, or refuse it."""
    run = existing_run(run_dir)
    refuse_another(run_dir, run, request)
    return run
