"""What a user may ask of `label`: its flags, with their checks."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro.conf

from cam_ops.classes import ScoreChoice, UnknownLabels, parse_class_choice
from cam_ops.errors import UsageError
from cam_ops.settings import (
    BoxConfig,
    CompileChoice,
    DeviceChoice,
    ExplainConfig,
    MapConfig,
    ModelConfig,
    PrecisionChoice,
    RefineConfig,
)
from cluster.executors.choose import ExecutorName, check_execution
from cluster.sources.choosing import Choice, check_choice
from cluster.sources.columns import Columns, parse_columns
from cluster.sources.kinds import OWN_LABELS, images_help
from cluster.sources.labels.find import WORDS
from cluster.sources.labels.folders import FOLDERS
from cluster.sources.labels.words import LabelChoice
from cluster.sources.several import columns_of, no_folders, own_word, root_of, source_addresses
from cluster.sources.source import Asked
from cluster.sources.tables.roles import check_kept
from cluster.storage.options import StorageOptions, parse_options

BATCH_LIMIT, SHARD_LIMIT = 2**14, 2**20  # images; a shard's rows are in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConfig:
    """Turn a folder of images into detection pseudo-labels: heat maps and boxes, as Parquet."""

    images: Annotated[tuple[str, ...], tyro.conf.arg(help=images_help())]
    out: str
    """Run directory to create, or to resume: a path, s3://BUCKET/KEY or gs://BUCKET/KEY."""
    labels: str | None = None
    """`none`, `folder` (the first directory level names the class), `folder-ids` (it is the class number),
    `folder-sorted` (in the order of texts, as ImageFolder), `manifest` (its column label), `tar` (the member KEY.cls
    beside a picture), or a CSV FILE with columns image_id and label. By default `manifest` or `tar` where --images is
    such, else none."""
    columns: tuple[str, ...] = ()
    """NAME=COLUMN ... for manifests and label files whose columns have other names, such as `uri=path label=breed
    image_id=file`."""
    keep_columns: tuple[str, ...] = ()
    """Further columns of a manifest to carry along into the table images."""
    unknown_labels: UnknownLabels = "refuse"
    """`skip` leaves images whose label is no class of the network without a label, and counts them."""
    include: tuple[str, ...] = ()
    """PATTERN ... of ids: only images that one of them fits, such as 'cats/*' or '*_front.jpg'."""
    exclude: tuple[str, ...] = ()
    """PATTERN ... of ids: no image that one of them fits."""
    sample: float | None = None
    """Only this fraction of the images, chosen by their ids."""
    seed: int | None = None
    """Number of the sample: another number, another sample; by default 0."""
    limit: int | None = None
    """Only the first N images of the sorted listing."""
    model: tyro.conf.OmitArgPrefixes[ModelConfig]
    classes: str | None = None
    """Which classes get a map: label, top1, topk:N, above:P, or a union such as label+top1. By default `label` where
    there are labels, else top1."""
    explain: tyro.conf.OmitArgPrefixes[ExplainConfig] = ExplainConfig()
    refine: tyro.conf.OmitArgPrefixes[RefineConfig] = RefineConfig()
    scores: ScoreChoice = "auto"
    """How logits become scores: over all classes together, or each by itself for multi-label heads. `auto` is what the
    network ends in, softmax where it returns logits."""
    maps: tyro.conf.OmitArgPrefixes[MapConfig] = MapConfig()
    boxes: tyro.conf.OmitArgPrefixes[BoxConfig] = BoxConfig()
    calibration: str | None = None
    """FILE that `calibrate` wrote: brings its own --threshold, --normalise, --components and --min-area, and adds
    the column probability to boxes."""
    device: DeviceChoice = "auto"
    """`auto` takes GPUs where the cluster has any; what it chose, and why, is said and stored."""
    precision: PrecisionChoice = "auto"
    """Number format of the forward pass; maps and boxes are always computed in fp32 and fp64. `auto` is fp16 on CUDA,
    bf16 on CPUs that are faster in it, else fp32; what it chose is said and stored."""
    compile: CompileChoice = "auto"
    """Compile the forward pass: once per machine, about half a minute, kept on disk. `auto` does on CPUs where the job
    is large enough to earn it back; what it chose is said and stored."""
    batch_size: int | None = None
    """Images per forward pass; by default 16 on CPU, 64 on CUDA, fewer for a small job."""
    replicas: int | None = None
    """Model replicas; by default one per GPU, or one per CPU core where there is no GPU. On a cluster that is joined
    those for which there is no room wait until it has more."""
    shard_size: int | None = None
    """Images per shard; by default 512, fewer for a small job. Fixed when the plan is made."""
    shard_timeout: float | None = None
    """Seconds after which a replica that still works on the same shard is taken to hang, and replaced; by default ten
    times the longest shard so far, at least 600. To load its model a replica has 1800, or this if it is more."""
    executor: ExecutorName = "ray"
    """`ray` runs actors; `inline` runs one replica in this process."""
    ray_address: str | None = None
    """Ray cluster to join; by default RAY_ADDRESS, which `ray job submit` sets, or else a Ray of our own."""
    max_error_rate: float = 0.02
    """Fraction of images that may be bad before the finished job exits with 3."""
    overwrite: bool = False
    """Remove the run in --out first, whatever it is, and begin from nothing. To go on after a crash, leave it out."""
    repair: bool = False
    """Look at every committed shard first, as `verify` does, and do those again that are damaged."""
    json: bool = False
    """Print one JSON document to stdout; CAMRAY_RESULT goes to stderr."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://: pyarrow's own, such as endpoint_override, region, access_key, secret_key;
    without them environment, profile or instance role. Never stored."""

    def __post_init__(self) -> None:
        for name in ("limit", "batch_size", "shard_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} expects a number of at least 1, got {value}")
        for name, most in (("batch_size", BATCH_LIMIT), ("shard_size", SHARD_LIMIT)):
            if (getattr(self, name) or 0) > most:
                raise UsageError(f"--{name.replace('_', '-')} expects at most {most}, got {getattr(self, name)}")
        if not 0 <= self.max_error_rate <= 1:
            raise UsageError(f"--max-error-rate expects a fraction from 0 to 1, got {self.max_error_rate}")
        own_maps = self.maps.recipe == "default" and self.maps != MapConfig()
        if self.calibration is not None and (own_maps or self.boxes != BoxConfig()):
            raise UsageError(
                "--calibration brings its own --threshold, --normalise, --components and --min-area; give either"
            )
        check_execution(self.executor, self.replicas, self.shard_timeout)
        own = own_word(self.addresses)
        if self.labels in OWN_LABELS and self.labels != own:
            needed = OWN_LABELS[self.labels].needed
            raise UsageError(f"--labels {self.labels} needs --images {needed}, got {' '.join(self.images)}")
        if self.labels in FOLDERS and (why := no_folders(self.addresses)):
            raise UsageError(f"--labels {self.labels}: {why}")
        if self.seed is not None and self.sample is None:
            raise UsageError("--seed is that of --sample, which is not given")
        check_choice(self.choice)
        parse_options(self.storage_options)
        for name in self.chosen_columns.keys() - self._columns_of_listing.keys() - self._columns_of_labels.keys():
            raise UsageError(
                f"--columns {name}={self.chosen_columns[name]}: neither --images {' '.join(self.images)} nor --labels "
                f"{self.label_source} has columns of which one would be taken as {name}"
            )
        check_kept(self.keep_columns)
        if self.keep_columns and "uri" not in columns_of(self.addresses):
            raise UsageError(
                f"--keep-columns needs --images with columns, such as a manifest, got {' '.join(self.images)}"
            )
        choice = parse_class_choice(self.wanted_classes)
        if choice.label and self.label_source == "none":
            raise UsageError(f"--classes {self.classes} needs labels; give --labels folder or --labels FILE.csv")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of --images."""
        return source_addresses(self.images)

    @property
    def choice(self) -> Choice:
        """Which images are asked for."""
        return Choice(include=self.include, exclude=self.exclude, sample=self.sample, seed=self.seed or 0)

    @property
    def is_partial(self) -> bool:
        """Whether only some of the source's images are asked for."""
        return self.limit is not None or not self.choice.is_everything

    @property
    def labels_depend_on_all(self) -> bool:
        """Whether what labels mean depends on which images a source has: on folders, and on files that name images."""
        return self.label_source in FOLDERS or self.label_source not in WORDS

    @property
    def label_source(self) -> str:
        """--labels, or its default."""
        return self.labels or own_word(self.addresses)

    @property
    def label_choice(self) -> LabelChoice:
        """What is asked of labels."""
        return LabelChoice(
            spec=self.label_source,
            images=root_of(self.addresses),
            is_asked=self.labels is not None,
            has_names=self.model.class_names is not None,
            unknown=self.unknown_labels,
            columns=self._columns_of_labels,
        )

    @property
    def chosen_columns(self) -> Columns:
        """--columns, parsed."""
        return parse_columns(self.columns)

    @property
    def _columns_of_listing(self) -> Columns:
        """Those of --columns that say what --images has: not the label where labels come from elsewhere."""
        taken = columns_of(self.addresses) - (set() if self.label_source in OWN_LABELS else {"label"})
        return {ours: name for ours, name in self.chosen_columns.items() if ours in taken}

    @property
    def _columns_of_labels(self) -> Columns:
        """Those of --columns that say what a label file has: not the image's id where --images has columns as well."""
        is_file = self.label_source not in WORDS
        taken = {"label", "image_id"} - (columns_of(self.addresses) - {"label"})
        return {ours: name for ours, name in self.chosen_columns.items() if is_file and ours in taken}

    def asked(self, skip: str) -> Asked:
        """Return what is asked of the listing, in which no file of the run at `skip` counts."""
        return Asked(
            limit=self.limit, skip=skip, options=self.options, columns=self._columns_of_listing, keep=self.keep_columns
        )

    @property
    def options(self) -> StorageOptions:
        """--storage-options, parsed."""
        return parse_options(self.storage_options)

    @property
    def wanted_classes(self) -> str:
        """--classes, or its default."""
        return self.classes or ("top1" if self.label_source == "none" else "label")
