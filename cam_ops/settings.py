"""What a user may ask of a network and its maps: records and vocabularies, importable in a fraction of a second.

They stand apart from what they configure because that needs torch, whose import takes seconds and 480 MiB: a driver
reads, compares and stores settings, and never runs a network.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cam_ops.errors import UsageError

Resize = Literal["warp", "letterbox", "center-crop"]
Interpolation = Literal["bilinear", "bicubic"]
Decode = Literal["full", "reduced"]
Recipe = Literal["default", "blog"]
Components = Literal["largest", "all", "peaks"]
Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cuda", "cpu"]
Precision = Literal["fp32", "bf16", "fp16"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
CompileChoice = Literal["auto", "always", "never"]
Channels = Literal["rgb", "gray"]
Triple = tuple[float, float, float]
PerChannel = Triple | tuple[float]
"""A number for each channel of the network's input, of RGB or of gray."""
Size = int | tuple[int, int]
"""Of the network's input in pixels: a square's side, or height and width that differ."""
Kind = Literal["affine", "score-map", "norm-affine", "cosine", "pooled", "layer"]
"""What lies between the features and the logits: see `cam_ops.network.heads`."""
MAX_IMAGE_SIZE = 4096
DECOMPOSABLE: tuple[Kind, ...] = ("affine", "score-map", "norm-affine", "cosine")
Method = Literal[
    "cam",
    "gradcam",
    "gradcam++",
    "xgradcam",
    "hirescam",
    "layercam",
    "gradcam-elementwise",
    "nwc",
    "bagcam",
    "finercam",
    "ablationcam",
    "smoothgradcam++",
    "scorecam",
    "eigencam",
    "eigengradcam",
    "pc1",
    "legrad",
]
ATTENTION: tuple[Method, ...] = ("legrad",)
RefineChoice = Literal["auto", "affinity", "none"]

MIN_AREA: dict[Components, float] = {"largest": 0, "all": 0, "peaks": 0.01}
"""What --min-area is where it is not given."""


def height_and_width(size: Size) -> tuple[int, int]:
    """Return the two sides, in torch's order."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a picture becomes the network's input; mean and std are for pixels scaled to 0..1, of one number for gray."""

    image_size: Size
    mean: PerChannel
    std: PerChannel
    interpolation: Interpolation
    resize: Resize
    crop_fraction: float  # side of the centre crop as a fraction of the picture's shorter side
    decode: Decode


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which network labels the images, and what its input looks like."""

    model: str
    """A torchvision classifier by name (resnet50), a timm one (timm:convnext_tiny), hf:FOLDER with a snapshot of one of
    Hugging Face's, efficientnet_lite0 where the extra `demo` is installed, or package.module:factory or
    FILE.py:factory, a function without arguments that returns a network with its weights in place, or a pair of that
    and a mapping with mean, std and image_size."""
    weights: str | None = None
    """For a name: a state_dict FILE (.pth, .safetensors), DEFAULT (the library's own, may download) or random (seeded,
    for benchmarks); DEFAULT if not given."""
    checkpoint_key: str | None = None
    """Where in --weights FILE the network is, where there are several, as keys with dots: state_dict_ema, ema.state,
    state_dict.teacher for names that begin with `teacher.`."""
    transform_input: Literal["yes", "no"] | None = None
    """Only for googlenet and inception_v3 with own weights: `yes` where they were fine-tuned from torchvision's default
    weights, whose input is scaled otherwise; no state_dict says it. By default no."""
    class_names: str | None = None
    """FILE with the class names in the order of the logits: .txt, .json or .csv."""
    output: str | None = None
    """Which of several things that the network returns are the logits: a name or a number, such as `logits`, `0` or
    `heads.species`."""
    channels: Channels | None = None
    """What the network's input has: rgb, or gray, one channel with the pictures' luminance; a factory may say it, else
    rgb."""
    mean: PerChannel | None = None
    """Channel means for RGB scaled to 0..1, one for gray; a name takes them from its default weights, a factory may
    return them."""
    std: PerChannel | None = None
    """Channel standard deviations, like --mean."""
    image_size: Size | None = None
    """Side of the network's square input in pixels, or its HEIGHT WIDTH; a name takes it from its default weights, a
    factory may return it, else 224, or what the network itself says where it does not take that."""
    resize: Resize = "warp"
    """How a picture fits that input: the whole picture stretched, padded, or a centred crop of it."""
    decode: Decode = "full"
    """`reduced` decodes a JPEG at 1/2, 1/4 or 1/8 where that is still no smaller than the network's input: faster, and
    boxes differ a little; other formats and smaller pictures are decoded in full."""
    dilate: bool = False
    """Maps on twice the grid (14x14 for 7x7) without retraining: the last stage's stride becomes dilation. For networks
    like ResNet; proven to leave the features unchanged where the network had them."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (*(self.mean or ()), *(self.std or ()))):
            raise UsageError(f"--mean and --std expect finite numbers, got {self.mean} and {self.std}")
        for flag, numbers in (("--mean", self.mean), ("--std", self.std)):
            if max(numbers or (0.0,)) > 1:
                shown = " ".join(map(str, (flag, *(numbers or ()))))
                raise UsageError(f"--mean and --std are for pixels scaled to 0..1, got {shown}; divide both by 255")
        if self.image_size is not None:
            height, width = height_and_width(self.image_size)
            if not all(8 <= side <= MAX_IMAGE_SIZE for side in (height, width)):
                shown = " ".join(map(str, dict.fromkeys((height, width))))
                raise UsageError(f"--image-size expects 8 to {MAX_IMAGE_SIZE} pixels, got {shown}")
            if height == width:
                object.__setattr__(self, "image_size", height)  # equal inputs are equal requests
        if self.std is not None and not all(s > 0 for s in self.std):
            raise UsageError(f"--std expects numbers above 0, got {self.std}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainConfig:
    """How features become a map."""

    method: Method | Literal["auto"] = "auto"
    """How features become a map. `auto` is cam where the maps add up to the logits, else gradcam behind an average,
    legrad in a vision transformer, layercam at a layer. On an affine head all but scorecam need the forward pass only;
    elsewhere what lies behind the cut is differentiated, once for all classes. eigencam and pc1 are the same for every
    class."""
    layer: tuple[str, ...] = ()
    """Names of modules to map instead of what the network averages, as in model.named_modules(), for gradient methods;
    the maps of several are fused: the mean of each divided by its peak."""
    scales: tuple[float, ...] = (1.0,)
    """Sides of the input in units of --image-size; maps are averaged over them, the first decides scores and classes.
    """
    flip: bool = False
    """Also average with the maps of the mirrored picture."""

    def __post_init__(self) -> None:
        if not self.scales or not all(math.isfinite(scale) and 0.1 <= scale <= 10 for scale in self.scales):
            raise UsageError(f"--scales expects numbers from 0.1 to 10, got {' '.join(map(str, self.scales))}")
        if len(set(self.scales)) < len(self.scales):
            raise UsageError(f"--scales expects each scale once, got {' '.join(map(str, self.scales))}")
        if self.method in ATTENTION and self.layer:
            raise UsageError(f"--method {self.method} looks at all attention, and at no --layer; leave one of them out")
        if self.method == "cam" and self.layer:
            raise UsageError("--method cam maps what the network averages; leave --layer out, or use a gradient method")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineConfig:
    """Whether maps are refined from the network's own features, and from which."""

    refine: RefineChoice = "auto"
    """`affinity` refines maps from the network's features before its last two reductions of the grid: tighter boxes,
    on a grid 4 times finer, for about a quarter of the forward pass. `none` keeps the maps as they are. `auto` is
    affinity where the network has such features, else none; what it chose is said and stored."""
    refine_layers: tuple[str, ...] = ()
    """Names of two modules to refine from instead of those that are found, as in model.named_modules(). What the
    deeper one returns must be all that the logits see of the picture."""
    keep_cam: bool = False
    """Also store the map before it was refined, as column `cam`: it says where the network looks, and adds up to the
    logit; the refined one says where the object ends."""

    def __post_init__(self) -> None:
        if self.refine_layers and not len(self.refine_layers) == len(set(self.refine_layers)) == 2:
            raise UsageError(f"--refine-layers expects two names, got {' '.join(self.refine_layers)}")
        if self.refine == "none" and self.refine_layers:
            raise UsageError("--refine-layers needs --refine affinity or auto; leave one of the two out")
        if self.refine == "none" and self.keep_cam:
            raise UsageError("--keep-cam: with --refine none the maps are these already; leave one of the two out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What refined maps of a run were made from."""

    layers: tuple[str, str]  # the deeper one first
    cam_grid: tuple[int, int]  # of the maps before
    keep_cam: bool  # they are stored, too


@dataclass(frozen=True, slots=True, kw_only=True)
class MapConfig:
    """How a raw map becomes the picture that is thresholded."""

    recipe: Recipe = "default"
    """`default` enlarges (bicubic) and then normalises; `blog` presets the seed post's values: 128 px, no mean and
    std, top1, min-max before a bilinear enlargement, boxes at .2. Explicit flags win over the preset."""
    normalise: str = "max"
    """`minmax`; `max` (negative values to 0, divide by the peak); `ivr:P` (subtract the P-th percentile first)."""

    def __post_init__(self) -> None:
        name, _, percentile = self.normalise.partition(":")
        try:
            known = (name in ("minmax", "max") and not percentile) or (name == "ivr" and 0 <= float(percentile) < 100)
        except ValueError:
            known = False
        if not known:
            raise UsageError(f"--normalise expects minmax, max or ivr:P with 0 <= P < 100, got {self.normalise!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxConfig:
    """Which parts of a map count as an object."""

    threshold: tuple[float, ...] = (0.2,)
    """Fraction of the map's own peak (Zhou et al. 2016, section 3.2); a pixel at the threshold is inside. With several,
    each has boxes with ranks of its own, and num_boxes counts those of the first."""
    components: Components = "largest"
    """Box only the region with the most pixels, or `all` 8-connected regions, or `peaks`: regions are split between two
    maxima where the map falls by .3 of its peak from either, and pieces that reach less than .3 are left out."""
    min_area: float | None = None
    """With `all` and `peaks`: regions and pieces of a smaller area are left out, as a fraction of the picture's; by
    default 0.01 for `peaks`, else 0."""

    def __post_init__(self) -> None:
        shown = " ".join(map(str, self.threshold))
        if not self.threshold or not all(0 < threshold < 1 for threshold in self.threshold):
            raise UsageError(f"--threshold must lie strictly between 0 and 1, got {shown or 'nothing'}")
        if len({float(np.float32(threshold)) for threshold in self.threshold}) < len(self.threshold):
            raise UsageError(f"--threshold expects each number once, got {shown}")
        if self.min_area is not None:
            if not 0 <= self.min_area < 1:
                raise UsageError(f"--min-area expects a fraction of at least 0 and below 1, got {self.min_area}")
            if self.min_area == MIN_AREA[self.components]:
                object.__setattr__(self, "min_area", None)  # equal recipes are equal requests, however they were given
            elif self.components == "largest":
                raise UsageError("--min-area goes with --components all or peaks; give one of these, or leave it out")

    @property
    def least_area(self) -> float:
        """--min-area, or its default."""
        return MIN_AREA[self.components] if self.min_area is None else self.min_area
