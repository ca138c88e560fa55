"""What precedes the replicas: the network is looked at, `auto` is resolved, the source is listed, the plan written.

The only part of the driver that needs torch and much memory; `cluster.label.preparing` says where it runs.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pyarrow as pa
import torch

from cam_ops.arrays import U8
from cam_ops.classes import ClassList, ScoreChoice, ScoreKind, parse_class_choice
from cam_ops.errors import UsageError
from cam_ops.explain.mapper import Mapper
from cam_ops.network.grids import shown
from cam_ops.network.heads import Head
from cam_ops.network.load import Classifier, classes_for, load_classifier
from cam_ops.network.statistics import distance_from_training, has_statistics
from cam_ops.settings import ATTENTION, Device
from cluster.executors.choose import UNIT
from cluster.label.config import LabelConfig
from cluster.label.first_pictures import Wanted, wanted_of
from cluster.label.settled import Network, Settled, Survey, request_of, settled_again
from cluster.machine.compilation import choose_compile
from cluster.machine.precision import choose_precision
from cluster.process.console import SAID, say
from cluster.process.memory import peak_mib
from cluster.runs.calibration import read_calibration
from cluster.runs.differences import refuse_another
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.plan import Plan, auto_batch_size, auto_shard_size, planned, write_plan
from cluster.runs.record import Run, config_document, run_bytes
from cluster.runs.request import Request
from cluster.runs.resume import begin
from cluster.sources.inventory import take_inventory
from cluster.sources.kinds import OWN_LABELS
from cluster.sources.labels.find import find_labels, label_images, labels_digest
from cluster.sources.labels.words import Labels
from cluster.sources.listing import Listing
from cluster.sources.several import chosen_from, open_sources, root_of

LARGEST_BATCH: dict[Device, int] = {"cpu": 16, "cuda": 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """What the plan and run.json will be made of."""

    listing: Listing
    labels: Labels
    request: Request
    shard_size: int
    said: str  # how `auto` was settled, and why


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
        self.notes = classifier.notes
        shape = classifier.preprocessing
        self.mapper = Mapper(classifier.network, config.explain, shape.image_size, shape.mean, shape.std, config.refine)
        self.classes: ClassList = classes_for(classifier, self.mapper.head.num_classes)
        if not (classifier.class_names or classifier.categories):
            self.notes += _without_head(self.mapper.head)
        explain = replace(config.explain, method=self.mapper.method)
        self.network = Network(
            model=classifier.name,
            model_digest=classifier.digest,
            preprocessing=classifier.preprocessing,
            class_names=self.classes.names,
            explain=explain,
            refinement=self.mapper.refinement,
            head=self.mapper.head.kind,
            cut=() if explain.method in ATTENTION else self.mapper.head.layers,
            grid=self.mapper.grid,
            scores=_scores(config.scores, classifier),
        )
        self.taken = classifier.reading.said()
        self.opened = ExitStack()  # the listing, from `settle` to `begin`
        self.prepared: _Prepared | None = None

    def refuse_another(self, run: Run) -> None:
        """Raise RefusedError unless the configuration asks for what the run in place was asked for."""
        settled = replace(settled_again(self.config, run), network=self.network)
        refuse_another(self.run_dir, run, request_of(self.config, settled))

    def settle(self, num_replicas: int, device: Device) -> Wanted | None:
        """List the source and settle what flags leave open. Nothing is written.

        Returns which pictures `look_at` wants, None where the network has nothing to compare them with.
        Raises UsageError or StorageError where source or labels cannot be used, as what `begin` needs of them.
        """
        config = self.config
        with ExitStack() as opened:
            asked = config.asked(skip=self.run_dir.root)
            if config.is_partial and config.labels_depend_on_all:
                whole = opened.enter_context(open_sources(config.addresses, replace(asked, limit=None)))
                some = chosen_from(whole, root_of(config.addresses), config.choice, config.limit)
                listing = opened.enter_context(some)
            else:
                whole = listing = opened.enter_context(open_sources(config.addresses, asked, config.choice))
            classes = _classes(config, listing)
            labels = find_labels(listing, config.label_choice, self.classes, whole)
            precision, why_precision = choose_precision(config.precision, device, self.mapper)
            compiled, why_compiled = choose_compile(
                config.compile, self.mapper, device, precision, listing.num_images / num_replicas
            )
            settled = Settled(
                network=self.network,
                classes=classes,
                device=device,
                precision=precision,
                compiled=compiled,
                batch_size=config.batch_size or auto_batch_size(listing.num_images, LARGEST_BATCH[device]),
            )
            auto_batch = f"auto is {LARGEST_BATCH[device]} on {device}, less if few"
            self.prepared = _Prepared(
                listing=listing,
                labels=labels,
                request=request_of(config, settled),
                shard_size=config.shard_size or auto_shard_size(listing.num_images, num_replicas, settled.batch_size),
                said=(
                    f"precision {precision} ({why_precision}), {'compiled' if compiled else 'not compiled'} "
                    f"({why_compiled}), batches of {settled.batch_size} ({_why(config.batch_size, auto_batch)}), "
                    f"{num_replicas} replica(s) ({_why(config.replicas, f'auto is one per {UNIT[device]}')})"
                ),
            )
            run_bytes(self.run_of(planned(listing.num_images, self.shard_size), None))
            self.opened = opened.pop_all()
        if not has_statistics(self.mapper.network):
            return None
        return wanted_of(listing, replace(self.network.preprocessing, image_size=self.mapper.size))

    def look_at(self, pictures: Sequence[U8]) -> None:
        """Say so where the first batch norm gets other numbers of pictures, each (Y, X, 3), than in training."""
        view = self.mapper.views[0]
        pixels_BCYX = torch.stack([torch.from_numpy(pixels_YX3) for pixels_YX3 in pictures]).permute(0, 3, 1, 2)
        images_BCYX = view.forward.normalised(view.of(pixels_BCYX))
        distance = distance_from_training(view.explainer.network, images_BCYX)
        if distance is not None and distance.is_far:
            say(
                f"warning: of the first {len(pictures)} pictures the batch norm {distance.layer} gets numbers that "
                f"vary {distance.spread:.3g} times as much as in training, {distance.shift:.3g} standard deviations "
                "away; are --mean and --std, and the scaling that the network itself does, those of its training?"
            )

    def begin(self, command_line: tuple[str, ...] | None) -> Run:
        """Publish plan and run.json of what was settled, the latter last; returns the run."""

        def put_plan() -> Plan:
            return write_plan(self.run_dir, self.labelled(), self.shard_size)

        with self.opened:
            plan = put_plan()
            asked = self.run_of(plan, command_line)
            run = begin(self.run_dir, asked, put_plan)
        if run is asked:
            self.say_settled(plan)
        return run

    def labelled(self) -> Iterator[pa.RecordBatch]:
        """Yield what was listed, with its classes, as `cluster.runs.plan.write_plan` takes it."""
        assert self.prepared
        return label_images(self._listing, self.prepared.labels)

    @property
    def _listing(self) -> Listing:
        assert self.prepared
        return self.prepared.listing

    @property
    def shard_size(self) -> int:
        """Images in a shard, as settled."""
        assert self.prepared
        return self.prepared.shard_size

    def run_of(self, plan: Plan, command_line: tuple[str, ...] | None) -> Run:
        """Return the run that was settled, with a plan."""
        assert self.prepared
        return Run(
            request=self.prepared.request,
            plan=plan,
            class_names=self.network.class_names,
            grid=self.network.grid,
            config=config_document(self.config),
            command_line=command_line,
        )

    def say_settled(self, plan: Plan) -> None:
        """Say what was settled, and what is planned."""
        assert self.prepared
        for note in self.notes:
            say(note)
        if self.taken:
            say(f"logits: {', '.join(self.taken)}; scores by {self.network.scores}")
        say(self._said())
        say(f"planned {plan.num_images} images in {plan.num_shards} shards of {plan.shard_size}")
        say(self.prepared.said)

    def survey(self, num_rows: int, num_batches: int) -> Survey:
        """Look through what was settled instead of `begin`, and draw rows, and batches beside. Nothing is written."""
        assert self.prepared
        num_images = self._listing.num_images
        num_drawn = num_rows + num_batches * self.prepared.request.batch_size
        with self.opened:
            inventory = take_inventory(self.labelled(), num_images, num_drawn)
        plan = planned(num_images, self.shard_size)
        self.say_settled(plan)
        return Survey(run=self.run_of(plan, None), inventory=inventory, said=tuple(SAID), peak_mib=peak_mib())

    def forget(self) -> None:
        """Let go of the listing, where nothing will begin."""
        self.opened.close()

    def _said(self) -> str:
        """Say what is mapped, and how."""
        network = self.network
        explain = network.explain
        why = _why(self.config.explain.method != "auto", f"auto, as the head is {network.head}")
        where = f"at {', '.join(network.cut)}" if network.cut else "of what the network averages"
        where = "of all attention" if explain.method in ATTENTION else where
        views = len(explain.scales) * (1 + explain.flip)
        return (
            f"maps: {explain.method} ({why}) {where}, head {network.head}, grid {shown(self.mapper.cam_grid)}, "
            f"{self._said_refined()}{f', mean of {views} views' if views > 1 else ''}"
        )

    def _said_refined(self) -> str:
        stages = self.mapper.views[0].explainer.stages
        if stages is None:
            kept = "; they are what --keep-cam would keep" if self.config.refine.keep_cam else ""
            return f"not refined ({self.mapper.why_not}{kept})"
        why = _why(self.config.refine.refine == "affinity" or self.config.refine.refine_layers, "auto")
        return (
            f"refined to {shown(stages.fine_grid)} ({why}) from {stages.coarse.name} "
            f"({shown(stages.coarse_grid)}) and {stages.fine.name}"
        )


def _classes(config: LabelConfig, listing: Listing) -> str:
    """Return --classes, or its default, which may depend on whether a source has labels of its own."""
    own = OWN_LABELS.get(config.label_source)
    if own is None or listing.has_labels:
        return config.wanted_classes
    if config.classes and parse_class_choice(config.classes).label:
        raise UsageError(
            f"--classes {config.classes} needs labels, {' '.join(config.images)} has no {own.place}; "
            f"{f'give {listing.label_hint},' if listing.label_hint else 'add them,'} or give --labels folder or "
            "--labels FILE.csv"
        )
    return config.classes or "top1"


def _scores(asked: ScoreChoice, classifier: Classifier) -> ScoreKind:
    """Settle --scores. Raises UsageError for a softmax over the two classes of one logit, which counts it twice."""
    if asked == "softmax" and classifier.reading.is_single:
        raise UsageError(
            "--scores softmax: the network has a single logit, whose score is its sigmoid; leave --scores out"
        )
    return classifier.scores or "softmax" if asked == "auto" else asked


def _without_head(head: Head) -> tuple[str, ...]:
    """Return what is to be said where unnamed logits may be the features of a network that lacks its head."""
    if head.num_classes != head.num_channels:
        return ()
    return (
        f"logits: the network returns {head.num_classes}, as many as its features have channels, and nothing names "
        "classes; is that a backbone without its head? With --class-names this is not asked",
    )


def _why(asked: object, reason: str) -> str:
    return "as asked" if asked else reason
