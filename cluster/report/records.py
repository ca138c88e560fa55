"""What a report's page is made of. All texts are as they are in the run: the template escapes them.

Boxes are pixels of the original picture, half-open. Letters: h, w a map's grid, G the side of a density.
"""

from dataclasses import dataclass
from typing import Any

from cam_ops.arrays import F32, F64, I64
from cam_ops.settings import Recipe
from cluster.compare.driver import Comparison
from cluster.runs.history import RunHistory

Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownBox:
    """One box of the run, as its table has it, at the first threshold."""

    corners: Corners
    peak: float
    energy: float
    probability: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMap:
    """One map of a shown image, and the boxes made of it."""

    class_id: int
    class_name: str
    score: float
    threshold: float  # of this map: that of its class in a calibrated run
    rectangle: Corners  # the part of the picture that the grid covers; reaches beyond it where that was padded
    raw_hw: F32
    boxes: tuple[ShownBox, ...]  # best first


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the audit knows of a shown image."""

    class_id: int | None  # the true class, whose map IoU and failure are of
    boxes: tuple[Corners, ...]  # none where the truth is masks alone
    iou: float | None
    failure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One shown image."""

    image_id: str
    width: int
    height: int
    labels: tuple[str, ...]  # names of classes
    top: tuple[tuple[str, float], ...]  # best classes and their scores
    picture: bytes | None  # WebP, its longer side at most some hundred pixels; None where it is gone
    missing: str  # why there is no picture; else empty
    maps: tuple[ShownMap, ...]  # the one to show first is first
    truth: Truth | None

    @property
    def label(self) -> str | None:
        """Its labels in words."""
        return ", ".join(self.labels) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Images that have something in common, and which of them are shown."""

    key: str  # random, surest, ...: names it in addresses
    title: str
    says: str  # a sentence: which images these are, and how they were drawn
    total: int  # images of the run that belong here
    cards: tuple[int, ...]  # places among the report's cards, in the gallery's order
    others: tuple[int, ...] = ()  # where two runs are compared: for each card that of the other run, in `Against.cards`


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How boxes are made of maps: where the slider begins."""

    input: tuple[int, int]  # height, width of the network's input
    recipe: Recipe
    normalise: str
    components: str
    threshold: float
    least_areas: dict[str, float]  # of a region, as a share of the picture, by --components
    is_calibrated: bool  # then boxes have probabilities, which go where another setting is given
    is_per_class: bool  # classes have thresholds of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """A distribution over the whole run."""

    name: str  # boxes_per_image, area, aspect, score, energy, probability, peak
    edges: F64  # one more than counts
    counts: I64


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """What the run says of one class."""

    class_id: int
    name: str
    labelled: int  # images with this label
    agreed: int  # of them: the best class is the label
    predicted: int  # images whose best class it is
    maps: int
    boxes: int
    empty: int  # maps without a box
    mean_score: float | None  # of its maps
    mean_area: float | None  # of its boxes, as a share of the picture
    mean_map: F64 | None  # (h, w), 0..1
    density: I64  # (G, G): boxes that cover the centre of each cell
    place: str | None  # border or a corner, where most of its maps lie: a shortcut is suspected
    gt_known_loc: float | None  # percent, from the audit
    ap: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why images are bad."""

    status: str
    error: str
    images: int
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What was run on what."""

    root: str
    command_line: str | None  # as typed, quoted for a shell
    sources: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]  # name and value, in order: network, digest, method, precision, ...
    images: int  # planned
    done: int  # images with a row; less where the run is not complete
    ok: int
    maps: int
    boxes: int
    without_box: int  # maps
    reasons: tuple[Reason, ...]  # commonest first
    other_reasons: int  # that are not among them
    rate: float | None  # images a second of working time, by the log
    labels: str | None  # how far network and labels agree, a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A line to copy."""

    name: str  # resume, rebox, audit, export, verify
    does: str
    line: str  # for a shell; of rebox the page replaces {threshold}, {normalise}, {components}, {min_area}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPart:
    """What the audit found."""

    metrics: dict[str, Any]  # metrics.json, as far as a page needs it, its types checked
    curves: dict[str, F64]  # curves.parquet, empty without truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """The other run, of `report A --against B`."""

    root: str
    comparison: Comparison  # from this run to the other
    setting: Setting  # how the other's boxes were made
    cards: tuple[Card, ...]  # of the other run; without a picture, and nothing `missing`, where it is this run's


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A page."""

    made: str  # UTC
    version: str  # of camray
    head: Head
    setting: Setting
    commands: tuple[Command, ...]
    galleries: tuple[Gallery, ...]
    cards: tuple[Card, ...]
    notes: tuple[str, ...]  # what the page lacks, and why
    left_out: int  # images of the galleries that did not fit
    histograms: tuple[Histogram, ...]
    density: I64  # (G, G), of all classes
    classes: tuple[ClassRow, ...]  # most maps first
    classes_total: int  # of which `classes` are shown
    audit: AuditPart | None
    against: Against | None
    history: RunHistory | None  # None where there is no log
