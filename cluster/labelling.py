"""The main job: plan once, run what is missing, add up.

`label` may be called again after any crash: what is committed stays, what is not is done.
"""

import json
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

import tyro.conf

from cam_ops.boxes import BoxConfig
from cam_ops.classes import ClassList, ScoreKind, parse_class_choice
from cam_ops.errors import RefusedError, StorageError, UsageError
from cam_ops.heads import Head
from cam_ops.images import Preprocessing
from cam_ops.maps import MapConfig
from cam_ops.methods import ATTENTION
from cam_ops.models import ModelConfig, classes_for, load_classifier
from cam_ops.tables import SCHEMA_VERSION
from cam_ops.views import ExplainConfig, Mapper
from cluster.console import say
from cluster.inline import InlineExecutor
from cluster.labels import find_labels, label_images, labels_digest
from cluster.listing import Listing
from cluster.manifest import is_manifest
from cluster.plan import auto_batch_size, auto_shard_size, plan_digest, write_plan
from cluster.progress import Progress
from cluster.request import Device, Precision, Request, Run, existing_run, publish_run, read_run, refuse_another
from cluster.resources import (
    UNIT,
    DeviceChoice,
    ExecutorName,
    PrecisionChoice,
    choose_device,
    choose_precision,
    choose_replicas,
    open_executor,
)
from cluster.rundir import SUMMARY, TABLES, RunDir, open_run_dir
from cluster.sources import open_listing, source_address
from cluster.totals import Totals, count_rows, summary_of

if TYPE_CHECKING:
    from cluster.pool import RayExecutor

LARGEST_BATCH: dict[Device, int] = {"cpu": 16, "cuda": 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConfig:
    """Turn a folder of images into detection pseudo-labels: heat maps and boxes, as Parquet."""

    images: str
    """Folder of pictures, searched recursively: jpg, jpeg, png, webp, bmp, tif, tiff; or STL10's own binary files. Or a
    manifest FILE.parquet or FILE.csv with a column uri, and if you like image_id and label."""
    out: str
    """Run directory to create, or to resume."""
    labels: str | None = None
    """`none`, `folder` (the first directory level names the class), `manifest` (its column label), or a CSV FILE with
    columns image_id and label. By default `manifest` where --images is one, else none."""
    limit: int | None = None
    """Only the first N images of the sorted listing."""
    model: tyro.conf.OmitArgPrefixes[ModelConfig]
    classes: str | None = None
    """Which classes get a map: label, top1, topk:N, above:P, or a union such as label+top1. By default `label` where
    there are labels, else top1."""
    explain: tyro.conf.OmitArgPrefixes[ExplainConfig] = ExplainConfig()
    scores: ScoreKind = "softmax"
    """How logits become scores: over all classes together, or each by itself for multi-label heads."""
    maps: tyro.conf.OmitArgPrefixes[MapConfig] = MapConfig()
    boxes: tyro.conf.OmitArgPrefixes[BoxConfig] = BoxConfig()
    device: DeviceChoice = "auto"
    """`auto` takes GPUs where the cluster has any; what it chose, and why, is said and stored."""
    precision: PrecisionChoice = "auto"
    """Number format of the forward pass; maps and boxes are always computed in fp32 and fp64. `auto` is fp16 on CUDA,
    bf16 on CPUs that are faster in it, else fp32; what it chose is said and stored."""
    batch_size: int | None = None
    """Images per forward pass; by default 16 on CPU, 64 on CUDA, fewer for a small job."""
    replicas: int | None = None
    """Model replicas; by default one per GPU, or one per CPU core where there is no GPU."""
    shard_size: int | None = None
    """Images per shard; by default 512, fewer for a small job. Fixed when the plan is made."""
    executor: ExecutorName = "ray"
    """`ray` runs actors; `inline` runs the same worker in this process."""
    ray_address: str | None = None
    """Ray cluster to join; by default RAY_ADDRESS, which `ray job submit` sets, or else a Ray of our own."""
    max_error_rate: float = 0.02
    """Fraction of images that may be bad before the finished job exits with 3."""
    overwrite: bool = False
    """Remove another request's run in --out first."""

    def __post_init__(self) -> None:
        for name in ("limit", "batch_size", "replicas", "shard_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} expects a number of at least 1, got {value}")
        if not 0 <= self.max_error_rate <= 1:
            raise UsageError(f"--max-error-rate expects a fraction from 0 to 1, got {self.max_error_rate}")
        if self.executor == "inline" and (self.replicas or 1) > 1:
            raise UsageError("--executor inline is one replica; use --executor ray for more")
        is_listed = is_manifest(source_address(self.images))
        if self.labels == "manifest" and not is_listed:
            raise UsageError(f"--labels manifest needs --images FILE.parquet or FILE.csv, got {self.images}")
        choice = parse_class_choice(self.wanted_classes)
        if choice.label and self.label_source == "none":
            raise UsageError(f"--classes {self.classes} needs labels; give --labels folder or --labels FILE.csv")

    @property
    def label_source(self) -> str:
        """--labels, or its default."""
        return self.labels or ("manifest" if is_manifest(source_address(self.images)) else "none")

    @property
    def wanted_classes(self) -> str:
        """--classes, or its default."""
        return self.classes or ("top1" if self.label_source == "none" else "label")


def label(config: LabelConfig) -> Totals:
    """Do what is missing of the run in `config.out`, planning it first if it is new; return its totals."""
    run_dir = open_run_dir(config.out)
    config = replace(config, images=source_address(config.images))
    run = None if config.overwrite else read_run(run_dir)
    described = _describe(config)
    if run:
        if config.classes is None and config.label_source == "manifest":
            config = replace(config, classes=run.request.classes)  # whether it has labels was settled with the plan
        refuse_another(run_dir, run.request, _request(config, described, _settled(config, run.request)))
        num_pending = len(_pending(run_dir, run))
        say(f"resuming {run_dir.root}: {run.plan.num_shards - num_pending} of {run.plan.num_shards} shards committed")
        if not num_pending:
            return _finish(run_dir, run)
    elif not config.overwrite and any(run_dir.shards(table) for table in TABLES):
        raise RefusedError(
            f"{run_dir.root} holds shards but no run.json that says what they are; use --overwrite to replace them, "
            "or another --out"
        )
    with closing(open_executor(config.executor, config.ray_address)) as executor:
        device = choose_device(config.device, run.request.device if run else None, executor)
        num_replicas = choose_replicas(config.replicas, device, executor)
        if not run:
            run = _plan(config, run_dir, described, num_replicas, device)
        del described  # and with it the network
        _run_missing(config, run_dir, run, executor, num_replicas)
    return _finish(run_dir, run)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """What the driver needs to know of the labels and the model."""

    labels: str  # digest
    name: str
    digest: str
    classes: ClassList
    mapper: Mapper
    head: Head
    explain: ExplainConfig  # with the method that auto stands for
    grid: tuple[int, int]
    preprocessing: Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compute:
    """The settings that `auto` stands for, resolved when the plan is made."""

    device: Device
    precision: Precision
    batch_size: int


def _describe(config: LabelConfig) -> _Described:
    labels = labels_digest(config.label_source)
    classifier = load_classifier(config.model)
    mapper = Mapper(classifier.network, config.explain, classifier.preprocessing.image_size)
    return _Described(
        labels=labels,
        name=classifier.name,
        digest=classifier.digest,
        classes=classes_for(classifier, mapper.head.num_classes),
        mapper=mapper,
        head=mapper.head,
        explain=replace(config.explain, method=mapper.method),
        grid=mapper.grid,
        preprocessing=classifier.preprocessing,
    )


def _settled(config: LabelConfig, before: Request) -> _Compute:
    """Resolve `auto` as the run in place did; what the user names explicitly stays."""
    return _Compute(
        device=before.device if config.device == "auto" else config.device,
        precision=before.precision if config.precision == "auto" else config.precision,
        batch_size=config.batch_size or before.batch_size,
    )


def _request(config: LabelConfig, described: _Described, compute: _Compute) -> Request:
    return Request(
        schema_version=SCHEMA_VERSION,
        images=config.images,
        limit=config.limit,
        labels=described.labels,
        model=described.name,
        model_digest=described.digest,
        dilate=config.model.dilate,
        class_names_digest=sha256(json.dumps(described.classes.names).encode()).hexdigest(),
        classes=config.wanted_classes,
        scores=config.scores,
        explain=described.explain,
        head=described.head.kind,
        cut=() if described.explain.method in ATTENTION else described.head.layers,
        preprocessing=described.preprocessing,
        maps=config.maps,
        boxes=config.boxes,
        device=compute.device,
        precision=compute.precision,
        batch_size=compute.batch_size,
        shard_size=config.shard_size,
    )


def _plan(config: LabelConfig, run_dir: RunDir, described: _Described, num_replicas: int, device: Device) -> Run:
    """List the source, label the images, cut shards, and publish plan and run.json, the latter last."""
    with open_listing(config.images, config.limit, skip=run_dir.root) as listing:
        return _plan_listing(_with_classes(config, listing), run_dir, listing, described, num_replicas, device)


def _with_classes(config: LabelConfig, listing: Listing) -> LabelConfig:
    """Settle --classes where it depends on whether a manifest has labels."""
    if config.label_source != "manifest" or listing.has_labels:
        return config
    if config.classes and parse_class_choice(config.classes).label:
        raise UsageError(
            f"--classes {config.classes} needs labels, {config.images} has no column label; add it, or give --labels "
            "folder or --labels FILE.csv"
        )
    return replace(config, classes=config.classes or "top1")


def _plan_listing(
    config: LabelConfig, run_dir: RunDir, listing: Listing, described: _Described, num_replicas: int, device: Device
) -> Run:
    labels_of = find_labels(listing, config.label_source, described.classes, say)
    precision, why = choose_precision(config.precision, device, described.mapper)
    compute = _Compute(
        device=device,
        precision=precision,
        batch_size=config.batch_size or auto_batch_size(listing.num_images, LARGEST_BATCH[device]),
    )
    request = _request(config, described, compute)
    if config.overwrite:
        run_dir.clear()
    shard_size = config.shard_size or auto_shard_size(listing.num_images, num_replicas, compute.batch_size)
    plan = write_plan(run_dir, label_images(listing, labels_of), shard_size)
    run = Run(request=request, plan=plan, class_names=described.classes.names, grid=described.grid)
    if not publish_run(run_dir, run, asdict(config)):
        return _run_of_another_driver(run_dir, request)
    if plan_digest(run_dir, plan) != plan.digest:  # a driver that lost the race for run.json wrote its plan over ours
        write_plan(run_dir, label_images(listing, labels_of), shard_size)
    say(_said_of(described, config.explain.method))
    say(f"planned {plan.num_images} images in {plan.num_shards} shards of {plan.shard_size}")
    auto_batch = f"auto is {LARGEST_BATCH[device]} on {device}, less if few"
    say(
        f"precision {precision} ({why}), batches of "
        f"{compute.batch_size} ({_why(config.batch_size, auto_batch)}), "
        f"{num_replicas} replica(s) ({_why(config.replicas, f'auto is one per {UNIT[device]}')})"
    )
    return run


def _said_of(described: _Described, asked: str) -> str:
    """Say what is mapped, and how."""
    explain = described.explain
    why = _why(asked != "auto", f"auto, as the head is {described.head.kind}")
    where = f"at {', '.join(described.head.layers)}" if described.head.layers else "of what the network averages"
    where = "of all attention" if explain.method in ATTENTION else where
    views = len(explain.scales) * (1 + explain.flip)
    return (
        f"maps: {explain.method} ({why}) {where}, head {described.head.kind}, grid "
        f"{described.grid[0]}x{described.grid[1]}{f', mean of {views} views' if views > 1 else ''}"
    )


def _run_missing(
    config: LabelConfig, run_dir: RunDir, run: Run, executor: "InlineExecutor | RayExecutor", num_replicas: int
) -> None:
    """Run every shard that is not committed."""
    run_dir.sweep_scratch()
    pending = _pending(run_dir, run)
    size, num_images = run.plan.shard_size, run.plan.num_images
    progress = Progress(
        num_images=num_images,
        num_shards=run.plan.num_shards,
        done_images=num_images - sum(min(size, num_images - shard * size) for shard in pending),
        done_shards=run.plan.num_shards - len(pending),
    )
    model = replace(config.model, class_names=None)  # the names stand in run.json
    reports = executor.run(run_dir.root, model, run.request.fingerprint(), run.request.device, num_replicas, pending)
    with closing(reports):
        for report in reports:
            progress.add(report)


def _why(asked: object, reason: str) -> str:
    return "as asked" if asked else reason


def _run_of_another_driver(run_dir: RunDir, request: Request) -> Run:
    """Join the run that another driver has begun here in the meantime, or refuse it."""
    run = existing_run(run_dir)
    refuse_another(run_dir, run.request, request)
    return run


def _pending(run_dir: RunDir, run: Run) -> list[int]:
    return sorted(set(range(run.plan.num_shards)) - run_dir.shards("images"))


def _finish(run_dir: RunDir, run: Run) -> Totals:
    """Write summary.json unless it is there, and return what it says."""
    if plan_digest(run_dir, run.plan) != run.plan.digest:
        raise StorageError(
            f"the plan in {run_dir.root} is not the one that run.json was written for: it is damaged, or another "
            "driver wrote its own over it; begin again with --overwrite, or in another --out"
        )
    totals = count_rows(run_dir, run.request.fingerprint(), list(range(run.plan.num_shards)))
    content = summary_of(run.request.fingerprint(), totals)
    if run_dir.read(SUMMARY) != content:
        run_dir.publish(SUMMARY, content)
    return totals
