"""What `bench` is asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro.conf

from cam_ops.errors import UsageError
from cam_ops.network.names import LITE0
from cam_ops.settings import Device, RefineChoice

Section = Literal[
    "stages",
    "limit",
    "host",
    "gpu",
    "refine",
    "executors",
    "peers",
    "start",
    "dispatch",
    "plan",
    "memory",
    "rebox",
    "audit",
    "export",
    "report",
    "shards",
]

SPEED: tuple[Section, ...] = ("stages", "limit")
HOST_SHARD = 512  # images
HOST_SHARDS = 4  # at least: the first two do not count, see `cluster.bench.host`


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """Measure this machine. Contenders take turns; medians are printed with (lowest-highest), and with --out
    appended to a file as JSON. Without sections the README's table of speed: stages and limit.
    """

    sections: tyro.conf.Positional[tuple[Section, ...]] = SPEED
    """`stages` of one replica; `limit`: whole runs against bare forward and decode on all cores; `host`: the loader of
    a GPU, with a stand-in for the device, against bare decoding; `gpu`: how near it is to the CPU, the forward pass
    and whole replicas on it; `refine`: whole runs with and without refined maps;
    `executors`: Ray against inline; `peers`: what one would run instead; `start`: seconds from the command to the first
    replica's work; `dispatch`: shards a second; `plan`: a large manifest; `memory`: resident sizes over a long run;
    `rebox` and `audit`: maps a second, in one process; `export`, `report`: seconds and memory of one process for
    --num-images maps; `shards`: `status`, `verify` and `audit` of a run of --rows shards of one picture each."""
    images: str
    """Folder of pictures; they are used again and again."""
    models: tuple[str, ...] = ("resnet50", "resnet18", LITE0, "convnext_tiny")
    """Networks: torchvision's with random weights, efficientnet_lite0, or package.module:factory, such as
    jobs.bench_model:head_only, which costs next to nothing."""
    num_images: int = 512
    """Images of each run."""
    rounds: int = 3
    """How often each contender has its turn."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format, as of `label`."""
    refine: RefineChoice = "auto"
    """Maps, as of `label`; `host` and `refine` measure both."""
    device: Device = "cuda"
    """Where `gpu` measures; cpu rehearses it."""
    batch_sizes: tuple[int, ...] = (16, 64, 256)
    """Batches that `gpu` measures; the middle one with the network compiled and by decoding processes, too."""
    seconds: float = 330.0
    """What `gpu` may take in all; what there is no time left for is left out, and said so."""
    rows: int = 10_000_000
    """Rows of the manifest that is planned, and shards of `shards`. A resume finds as many committed, at most
    100,000."""
    out: Path | None = None
    """File to append the figures to, a JSON object a line; by default none, they are printed alone."""
    json: bool = False
    """Print one JSON document to stdout; CAMRAY_RESULT goes to stderr."""

    def __post_init__(self) -> None:
        if min(self.num_images, self.rounds, self.rows) < 1:
            raise UsageError("--num-images, --rounds and --rows expect numbers of at least 1")
        if "host" in self.sections and self.num_images < HOST_SHARD * HOST_SHARDS:
            raise UsageError(
                f"host has shards of {HOST_SHARD} images, and the first do not count: it expects --num-images of at "
                f"least {HOST_SHARD * HOST_SHARDS}, got {self.num_images}"
            )
        if not self.models:
            raise UsageError("--models expects at least one network")
        for what, given in (("bench", self.sections), ("--models", self.models)):
            if repeated := [name for name in given if given.count(name) > 1]:
                raise UsageError(f"{what} has {repeated[0]} more than once; --rounds says how often it is measured")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise UsageError(f"--batch-sizes expects numbers of at least 1, got {self.batch_sizes}")
