"""What a user may ask of `calibrate`: its flags, with their checks."""

import os
from dataclasses import dataclass, field

import tyro.conf

from cam_ops.errors import UsageError
from cluster.runs.directory import refuse_run_file
from cluster.storage.options import StorageOptions, parse_options
from cluster.truth.prepare import TruthConfig

MAX_SAMPLE = 2**17  # images, in memory
MAX_SEED = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateConfig:
    """Fit normaliser, threshold and box probability to a labelled sample of a run, for `label` and `rebox` to use.

    Chosen is what has the largest share of images whose best box of the true class has IoU >= .5 with an object of it
    (GT-known Loc); the run's own settings stay where no others are surely better.
    """

    run: tyro.conf.Positional[str]
    """Run directory with maps of the images' true classes. It is not changed."""
    truth: tyro.conf.OmitArgPrefixes[TruthConfig]
    out: str
    """FILE to write, for `--calibration` of `label` and `rebox`."""
    per_class: bool = False
    """Also fit thresholds of single classes."""
    shrinkage: float = 20.0
    """With --per-class: how many average images are added to those of each class, so that rare classes keep the
    threshold of all."""
    holdout: float = 0.5
    """Share of the sample that is held out: not fitted to but reported on. `audit --calibrate` 1 - HOLDOUT with the
    same --seed fits to the same images."""
    max_images: int = 5000
    """Size of the sample, chosen by hash as well."""
    seed: int = 0
    """Draws another sample, and other images to hold out."""
    json: bool = False
    """Print one JSON document to stdout; CAMRAY_RESULT goes to stderr."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""

    def __post_init__(self) -> None:
        if self.truth.truth is None:
            raise UsageError("calibrate needs --truth, boxes for some of the run's images")
        if not 0 <= self.holdout < 1:
            raise UsageError(f"--holdout expects a fraction of at least 0 and below 1, got {self.holdout}")
        if not 1 <= self.max_images <= MAX_SAMPLE:
            raise UsageError(f"--max-images expects 1 to {MAX_SAMPLE}, got {self.max_images}")
        if not 0 <= self.shrinkage < float("inf"):
            raise UsageError(f"--shrinkage expects a number of images, got {self.shrinkage}")
        if "://" in self.out or os.path.isdir(self.out) or not os.path.isdir(os.path.dirname(self.out) or "."):
            raise UsageError(f"--out expects a file to write in a local folder that is there, got {self.out}")
        if os.path.realpath(self.out) == os.path.realpath(self.truth.truth):
            raise UsageError(f"--out {self.out} is the file of --truth, which it would replace; give another file")
        refuse_run_file(self.out, "--out")
        if not 0 <= self.seed < MAX_SEED:
            raise UsageError(f"--seed expects a number from 0 to {MAX_SEED - 1}, got {self.seed}")
        parse_options(self.storage_options)

    @property
    def options(self) -> StorageOptions:
        """--storage-options, parsed."""
        return parse_options(self.storage_options)
