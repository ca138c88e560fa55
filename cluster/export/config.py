"""What a user may ask of `export`: its flags, with their checks."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import tyro.conf

from cam_ops.errors import UsageError
from cluster.executors.choose import check_execution
from cluster.export.splits import Split, parse_split
from cluster.formats.exported import PicturesChoice
from cluster.runs.part import parse_shards
from cluster.storage.options import StorageOptions, parse_options

FormatName = Literal[
    "coco",
    "coco-results",
    "yolo",
    "voc",
    "label-studio",
    "cvat",
    "csv",
    "loc",
    "huggingface",
    "webdataset",
    "wsol",
    "seeds",
    "masks",
]
OF_ONE_FORMAT: dict[str, str] = {
    "confidence": "yolo",
    "url_prefix": "label-studio",
    "high": "seeds",
    "low": "seeds",
    "at": "seeds",
    "like": "coco-results",
}
OF_FILES = (".json", ".csv", ".xml", ".yaml", ".yml", ".parquet", ".tar", ".txt", ".zip")
ELSEWHERE = (
    "run",
    "out",
    "replicas",
    "shard_timeout",
    "executor",
    "ray_address",
    "overwrite",
    "json",
    "storage_options",
)
"""Flags that do not say what an export is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Turn a run into a dataset for another tool: its boxes, its maps, its pictures. Needs no model and no GPU."""

    run: tyro.conf.Positional[str]
    """Run directory of `label` or `rebox`: a path, s3://BUCKET/KEY or gs://BUCKET/KEY. What is committed of it is
    exported; it is only read."""
    to: FormatName
    """Format; docs/export.md says what each holds."""
    out: str
    """Folder to make, or prefix on a store. It is there whole or not at all."""
    pictures: PicturesChoice | None = None
    """`link` puts links to the pictures beside the boxes, hard if the file system allows it; what is no file of its
    own, or not upright, is written. `copy` writes all. `none` leaves them out. By default as the format needs it."""
    split: str | None = None
    """NAME=SHARE,... such as train=0.9,val=0.1: each image's part follows from its id and --seed. `folder`: from a
    folder in its id, such as train/ or valid/. By default none; yolo, which needs two, has train=0.9,val=0.1."""
    seed: int = 0
    """Draws another --split."""
    category_ids: Literal["all", "used"] = "all"
    """`all`: the network's classes. `used`: those alone that have a box in the export; where a format counts its
    classes from 0 on, these are counted."""
    keep_empty: bool = False
    """Keep images that have no box (left), as pictures without an object. Else they are left out, as images that are
    not ok always are: a detector would learn from them that there is nothing."""
    min_score: float | None = None
    """Boxes whose class has at least this score, 0..1."""
    min_probability: float | None = None
    """Boxes with at least this probability, 0..1; of runs with a calibration."""
    min_energy: float | None = None
    """Boxes that hold at least this share of their map's mass, 0..1."""
    min_area: float | None = None
    """Boxes of at least this share of the picture, 0..1."""
    max_area: float | None = None
    """Boxes of at most this share of the picture, 0..1."""
    only_classes: tuple[str, ...] = ()
    """NAME ...: boxes of these classes, by name or number."""
    labels_only: bool = False
    """Boxes of a class that is a label of their image."""
    top: int | None = None
    """So many boxes an image: those of the highest probability or else score, then rank."""
    limit: int | None = None
    """The first so many images of the run."""
    shards: str | None = None
    """FIRST-LAST,...: only these shards of the run, as in 0-9 or 0-9,20. What is not committed is left out and said."""
    confidence: bool = False
    """yolo: put the score behind each box, as predictions have it; labels to train on must not."""
    url_prefix: str | None = None
    """label-studio: what stands before an image's id in its address, such as s3://BUCKET/photos/. By default its own
    address on a store, or else Label Studio's for local files, /data/local-files/?d=."""
    high: float = 0.5
    """seeds: from this value of the normalised map on a pixel is of the class."""
    low: float = 0.2
    """seeds: below this value of all its maps a pixel is background; between the two it is 255, to be left out."""
    at: Literal["picture", "grid"] = "picture"
    """seeds: the size of the label maps: the picture's, or that of the stored maps."""
    like: str | None = None
    """coco-results: FILE of COCO instances whose ids of images (by file name) and categories (by name) are taken."""
    replicas: int | None = None
    """Replicas; by default one per CPU core."""
    shard_timeout: float | None = None
    """Seconds after which a replica that still works on the same part is taken to hang, as of `label`."""
    executor: Literal["auto", "ray", "inline"] = "auto"
    """`ray` runs actors; `inline` runs one replica in this process. `auto` takes actors for pictures and maps of more
    than thirty thousand images."""
    ray_address: str | None = None
    """Ray cluster to join; by default RAY_ADDRESS, which `ray job submit` sets, or else a Ray of our own."""
    overwrite: bool = False
    """Replace an export in --out, whatever it is of. What no export made is never touched."""
    json: bool = False
    """Print one JSON document to stdout; CAMRAY_RESULT goes to stderr."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""

    def __post_init__(self) -> None:
        check_execution("ray" if self.executor == "auto" else self.executor, self.replicas, self.shard_timeout)
        for name in ("min_score", "min_probability", "min_energy", "min_area", "max_area"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"--{name.replace('_', '-')} expects a number from 0 to 1, got {value}")
        for name in ("top", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} expects a number of at least 1, got {value}")
        parse_shards(self.shards)
        if not 0 <= self.low <= self.high <= 1:
            raise UsageError(f"--low and --high expect 0 <= LOW <= HIGH <= 1, got {self.low} and {self.high}")
        for flag in fields(self):
            form = OF_ONE_FORMAT.get(flag.name, self.to)
            if form != self.to and getattr(self, flag.name) != flag.default:
                raise UsageError(f"--{flag.name.replace('_', '-')} is of --to {form}, not of {self.to}")
        if self.keep_empty and self.to == "coco-results":
            raise UsageError("--keep-empty is of formats that list images, coco-results lists boxes alone")
        if not self.out:
            raise UsageError("--out expects a folder to make, got an empty text")
        if self.split == "":
            raise UsageError("--split expects NAME=SHARE,... or folder, got an empty text")
        if self.out.lower().endswith(OF_FILES):
            raise UsageError(f"--out expects a folder to make, got {self.out}; files in it have names of their own")
        split = parse_split(self.split or "", self.seed)
        if self.to == "huggingface" and split and (unfit := [name for name, _ in split.shares if _is_unfit(name)]):
            raise UsageError(
                f"--split {unfit[0]}: huggingface expects letters, digits and _, and not all; call it otherwise"
            )
        parse_options(self.storage_options)

    @property
    def options(self) -> StorageOptions:
        """--storage-options, parsed."""
        return parse_options(self.storage_options)

    def split_of(self, usual: str) -> Split | None:
        """Return --split, or that of the format."""
        return parse_split(usual if self.split is None else self.split, self.seed)

    def asked(self) -> dict[str, Any]:
        """Return what says which export of a run this is, as JSON has it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in ELSEWHERE and not (name == "shards" and value is None)  # of which older records know nothing
        }


def _is_unfit(name: str) -> bool:
    """Say whether load_dataset refuses a split's name."""
    return "-" in name or name.lower() == "all"
