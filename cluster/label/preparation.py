"""What precedes the replicas: the network is looked at, `auto` is resolved, the source is listed, the plan written.

The only part of the driver that needs torch and much memory. Where actors do the work it has a process of its own
(`cluster.process.apart`), which runs beside the start of Ray and ends before the first shard.
"""

from dataclasses import replace

from cam_ops.classes import ClassList, parse_class_choice
from cam_ops.errors import UsageError
from cam_ops.explain.mapper import Mapper
from cam_ops.network.load import classes_for, load_classifier
from cam_ops.settings import ATTENTION, Device
from cluster.executors.choose import UNIT
from cluster.label.config import LabelConfig
from cluster.label.request import Compute, Network, compute_again, request_of
from cluster.machine.compilation import choose_compile
from cluster.machine.precision import choose_precision
from cluster.process.console import say
from cluster.runs.calibration import read_calibration
from cluster.runs.differences import refuse_another
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.plan import Plan, auto_batch_size, auto_shard_size, write_plan
from cluster.runs.record import Run, clear_run, config_document
from cluster.runs.resume import begin
from cluster.sources.kinds import open_listing
from cluster.sources.labels import OWN, find_labels, label_images, labels_digest
from cluster.sources.listing import Listing

LARGEST_BATCH: dict[Device, int] = {"cpu": 16, "cuda": 64}


class Preparation:
    """A network that has been looked at for one configuration."""

    def __init__(self, config: LabelConfig) -> None:
        """Load the network and find its head.

        Raises UsageError or MachineError where the network, or another file that was named, cannot be used.
        """
        self.config = config
        self.run_dir: RunDir = open_run_dir(config.out, config.options)
        labels_digest(config.label_source)  # what cannot be read is said before the network is loaded
        if config.calibration is not None:
            read_calibration(config.calibration)
        classifier = load_classifier(config.model)
        self.mapper = Mapper(classifier.network, config.explain, classifier.preprocessing.image_size)
        self.classes: ClassList = classes_for(classifier, self.mapper.head.num_classes)
        explain = replace(config.explain, method=self.mapper.method)
        self.network = Network(
            model=classifier.name,
            model_digest=classifier.digest,
            dilate=config.model.dilate,
            preprocessing=classifier.preprocessing,
            class_names=self.classes.names,
            explain=explain,
            head=self.mapper.head.kind,
            cut=() if explain.method in ATTENTION else self.mapper.head.layers,
            grid=self.mapper.grid,
        )

    def refuse_another(self, run: Run) -> None:
        """Raise RefusedError unless the configuration asks for what the run in place was asked for."""
        asked = request_of(self.config, self.network, compute_again(self.config, run))
        refuse_another(self.run_dir, run, asked)

    def plan(self, num_replicas: int, device: Device) -> Run:
        """List the source, label the images, cut shards, and publish plan and run.json, the latter last."""
        with open_listing(
            self.config.images, self.config.limit, skip=self.run_dir.root, options=self.config.options
        ) as listing:
            self.config = _with_classes(self.config, listing)
            return self._plan(listing, num_replicas, device)

    def _plan(self, listing: Listing, num_replicas: int, device: Device) -> Run:
        config, run_dir, num_images = self.config, self.run_dir, listing.num_images
        labels_of = find_labels(listing, config.label_source, self.classes, say)
        precision, why = choose_precision(config.precision, device, self.mapper)
        compiled, why_compiled = choose_compile(
            config.compile, self.mapper, device, precision, num_images / num_replicas
        )
        compute = Compute(
            device=device,
            precision=precision,
            compiled=compiled,
            batch_size=config.batch_size or auto_batch_size(num_images, LARGEST_BATCH[device]),
        )
        request = request_of(config, self.network, compute)
        if config.overwrite:
            clear_run(run_dir)
        shard_size = config.shard_size or auto_shard_size(num_images, num_replicas, compute.batch_size)

        def put_plan() -> Plan:
            return write_plan(run_dir, label_images(listing, labels_of), shard_size)

        plan = put_plan()
        asked = Run(
            request=request,
            plan=plan,
            class_names=self.classes.names,
            grid=self.network.grid,
            config=config_document(config),
        )
        run = begin(run_dir, asked, put_plan)
        if run is not asked:
            return run
        say(self._said())
        say(f"planned {plan.num_images} images in {plan.num_shards} shards of {plan.shard_size}")
        auto_batch = f"auto is {LARGEST_BATCH[device]} on {device}, less if few"
        say(
            f"precision {precision} ({why}), {'compiled' if compiled else 'not compiled'} ({why_compiled}), batches of "
            f"{compute.batch_size} ({_why(config.batch_size, auto_batch)}), "
            f"{num_replicas} replica(s) ({_why(config.replicas, f'auto is one per {UNIT[device]}')})"
        )
        return run

    def _said(self) -> str:
        """Say what is mapped, and how."""
        network = self.network
        explain = network.explain
        why = _why(self.config.explain.method != "auto", f"auto, as the head is {network.head}")
        where = f"at {', '.join(network.cut)}" if network.cut else "of what the network averages"
        where = "of all attention" if explain.method in ATTENTION else where
        views = len(explain.scales) * (1 + explain.flip)
        return (
            f"maps: {explain.method} ({why}) {where}, head {network.head}, grid "
            f"{network.grid[0]}x{network.grid[1]}{f', mean of {views} views' if views > 1 else ''}"
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
