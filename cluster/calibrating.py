"""`calibrate`: fit box settings and probabilities to a labelled sample of a run, from its stored maps alone.

The objective is GT-known Loc: the share of images whose best box of the true class (rank 0) has IoU >= .5, half-open,
with an object of that class. Letters: P images of the sample, each with the map of its true class, h, w the grid, M
objects of an image, R normalisers, T thresholds, N boxes.
"""

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import tyro.conf

from cam_ops.arrays import F32, F64, I32, I64, Bools
from cam_ops.boxes import BoxConfig, MapBoxes, best_overlaps, boxes_from_heatmaps, joined_boxes
from cam_ops.calibrating import best_setting, class_settings, fit_probability, rounded
from cam_ops.calibration import (
    RIGHT_IOU,
    Calibration,
    ClassThresholds,
    ProbabilityModel,
    box_signals,
    thresholds_of,
)
from cam_ops.errors import StorageError, UsageError
from cam_ops.maps import MapConfig
from cam_ops.reliability import (
    calibration_error,
    coverage_table,
    gain_of,
    poisson_weights,
    reliability_curve,
    share_of,
)
from cluster.calibration_file import (
    CALIBRATION_VERSION,
    CalibrationFile,
    Figure,
    HeldOut,
    Sample,
    maps_of_request,
    write_calibration,
)
from cluster.console import say
from cluster.plan import read_shard
from cluster.request import Request, Run, existing_run, maps_of
from cluster.rows import CORNERS
from cluster.rundir import RunDir, open_run_dir
from cluster.store_options import StorageOptions, parse_options
from cluster.truth import TruthConfig, prepare_truth, read_truth_shard
from cluster.verify import maps_problems, read_table

NORMALISERS = ("max", "minmax", "ivr:20", "ivr:30", "ivr:40", "ivr:50", "ivr:60")
THRESHOLDS = tuple(step / 40 for step in range(1, 33))
MIN_FITTED = 20  # images
MAX_SAMPLE = 2**17  # images, in memory
MAPS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateConfig:
    """Fit normaliser, threshold and box probability to a labelled sample of a run, for `label` and `rebox` to use."""

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
    """Fraction of the sample that is not fitted to but reported on, chosen by hash of the image's id."""
    max_images: int = 5000
    """Size of the sample, chosen by hash as well."""
    seed: int = 0
    """Another seed chooses and splits otherwise."""
    storage_options: tuple[str, ...] = field(default=(), repr=False)
    """KEY=VALUE ... to reach s3:// and gs://, as of `label`."""

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise UsageError(f"--holdout expects a fraction of at least 0 and below 1, got {self.holdout}")
        if not 1 <= self.max_images <= MAX_SAMPLE:
            raise UsageError(f"--max-images expects 1 to {MAX_SAMPLE}, got {self.max_images}")
        if not 0 <= self.shrinkage < float("inf"):
            raise UsageError(f"--shrinkage expects a number of images, got {self.shrinkage}")
        parse_options(self.storage_options)

    @property
    def options(self) -> StorageOptions:
        """--storage-options, parsed."""
        return parse_options(self.storage_options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An image of the sample, before its map is read."""

    image_id: str
    shard: int
    row: int
    class_id: int
    boxes: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """The maps of the true classes of some images, and the objects that are there."""

    raw_Phw: F32
    rectangle_P4: F32
    size_P2: I64
    class_P: I32
    score_P: F32
    truth_PM4: F64  # filled up with boxes of zeros

    def __len__(self) -> int:
        return len(self.class_P)

    def take(self, place_P: I64) -> "Maps":
        """Return those of some images."""
        return Maps(**{column.name: getattr(self, column.name)[place_P] for column in fields(Maps)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How boxes are made; thresholds of single classes stand beside one of all."""

    maps: MapConfig
    boxes: BoxConfig
    class_thresholds: ClassThresholds = ()


def calibrate(config: CalibrateConfig) -> CalibrationFile:
    """Fit, write and return the calibration. Raises UsageError where too few images can be fitted to."""
    cv2.setNumThreads(0)
    run_dir = open_run_dir(config.run, config.options)
    run = existing_run(run_dir)
    excluded: Counter[str] = Counter()
    with TemporaryDirectory(prefix="camray-truth-") as folder:
        truth_dir = open_run_dir(folder)
        truth_format = prepare_truth(run_dir, run, config.truth, truth_dir).format
        chosen = _choose(run_dir, run, truth_dir, config, excluded)
    chosen, maps = _read_maps(run_dir, run, chosen, excluded)
    held_out_P = np.array([_hash(config.seed, "split", image.image_id) < config.holdout for image in chosen], bool)
    fitted, held_out = maps.take(np.flatnonzero(~held_out_P)), maps.take(np.flatnonzero(held_out_P))
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(excluded.items())) or "none"
    say(f"fitting to {len(fitted)} images, {len(held_out)} are held out; left out: {left_out}")
    if len(fitted) < MIN_FITTED:
        raise UsageError(
            f"expected at least {MIN_FITTED} images with truth and a map of their true class to fit to, found "
            f"{len(fitted)} (left out: {left_out}); label more, or lower --holdout"
        )
    shared = _fit_threshold(run.request, fitted)
    recipe = _fit_classes(run.request, shared, fitted, config.shrinkage) if config.per_class else shared
    probability = _fit_probability(run.request, recipe, fitted)
    recipes = {"global": shared} if config.per_class else {}
    recipes = {**_others(run.request), **recipes, "calibrated": recipe}
    file = CalibrationFile(
        schema_version=CALIBRATION_VERSION,
        maps_of=maps_of_request(run.request),
        maps=recipe.maps,
        boxes=recipe.boxes,
        calibration=Calibration(class_thresholds=recipe.class_thresholds, probability=probability),
        sample=Sample(
            fingerprint=run.request.fingerprint(),
            truth_format=truth_format,
            fitted=len(fitted),
            held_out=len(held_out),
            excluded=dict(sorted(excluded.items())),
            seed=config.seed,
            holdout=config.holdout,
            max_images=config.max_images,
            per_class=config.per_class,
            shrinkage=config.shrinkage,
        ),
        held_out=_judge(run.request, recipes, probability, held_out, config.seed) if len(held_out) else None,
    )
    write_calibration(config.out, file)
    return file


def _others(request: Request) -> dict[str, Recipe]:
    """Return what the calibrated recipe is held against: the run's own, the default, the seed post's."""
    own = Recipe(
        maps=request.maps,
        boxes=replace(request.boxes, threshold=request.boxes.threshold[:1]),
        class_thresholds=request.calibration.class_thresholds if request.calibration else (),
    )
    blog = Recipe(maps=MapConfig(recipe="blog", normalise="minmax"), boxes=BoxConfig(threshold=(0.2,)))
    return {"run": own, "default": Recipe(maps=MapConfig(), boxes=BoxConfig()), "blog": blog}


def _hash(seed: int, purpose: str, image_id: str) -> float:
    """Return a number from 0 to 1, excluded, by which an image is chosen or split."""
    digest = hashlib.blake2b(f"{seed} {purpose} {image_id}".encode(errors="surrogatepass"), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48


def _choose(
    run_dir: RunDir, run: Run, truth_dir: RunDir, config: CalibrateConfig, excluded: Counter[str]
) -> list[Chosen]:
    """Return the images of lowest hash of those that have truth, at most --max-images, in order of their hash."""
    held: list[tuple[float, int, Chosen]] = []  # a heap: the highest hash is the first
    committed = run_dir.shards("images")
    for shard in range(run.plan.num_shards):
        if shard not in committed:
            excluded["not computed yet"] += len(read_shard(run_dir, shard))
            continue
        for number, image in enumerate(_with_truth(run_dir, truth_dir, shard, excluded)):
            entry = (-_hash(config.seed, "choose", image.image_id), -shard * 2**24 - number, image)
            if len(held) < config.max_images:
                heapq.heappush(held, entry)
            else:
                heapq.heappushpop(held, entry)
                excluded["beyond --max-images"] += 1
    return [image for _, _, image in sorted(held, key=lambda entry: (-entry[0], entry[2].image_id))]


def _with_truth(run_dir: RunDir, truth_dir: RunDir, shard: int, excluded: Counter[str]) -> Iterator[Chosen]:
    """Yield the images of a shard whose class and objects are known."""
    truth = read_truth_shard(truth_dir, shard).select(["row", "truth_id", "true_class", "boxes"]).to_pylist()
    ids = read_shard(run_dir, shard)["image_id"].to_pylist()
    for image_id, row in zip(ids, truth, strict=True):
        boxes = [box for box in row["boxes"] or () if not box["crowd"]]
        own = [box for box in boxes if box["class_id"] == row["true_class"]]
        if row["truth_id"] is None:
            excluded["not in the truth"] += 1
        elif row["true_class"] is None:
            excluded["true class unknown"] += 1
        elif not boxes:
            excluded["no box in the truth"] += 1
        else:
            yield Chosen(image_id=image_id, shard=shard, row=row["row"], class_id=row["true_class"], boxes=own or boxes)


def _read_maps(run_dir: RunDir, run: Run, chosen: list[Chosen], excluded: Counter[str]) -> tuple[list[Chosen], Maps]:
    """Return the chosen images that have a map of their true class, and those maps; in the order given."""
    maps_dir, maps_run = maps_of(run_dir, run)
    by_shard: dict[int, list[int]] = defaultdict(list)
    for place, image in enumerate(chosen):
        by_shard[image.shard].append(place)
    found: dict[int, tuple[F32, list[float], list[int], float]] = {}
    for shard, places in sorted(by_shard.items()):
        images, heatmaps = (read_table(maps_dir, maps_run, table, shard) for table in ("images", "heatmaps"))
        if problems := maps_problems(maps_run, read_shard(run_dir, shard), images, heatmaps):
            raise StorageError(f"shard {shard} of {maps_dir.root} is damaged: {problems[0]}; see `verify`")
        at = {key: number for number, key in enumerate(_keys(heatmaps))}
        raw_Nhw = heatmaps["heatmap"].combine_chunks().storage.flatten().to_numpy().reshape(-1, *run.grid)
        for place in places:
            image = chosen[place]
            number = at.get((image.row, image.class_id))
            if number is None:
                is_ok = images["status"][image.row].as_py() == "ok"
                excluded["no map of the true class" if is_ok else "the picture is not ok"] += 1
                continue
            rectangle = [heatmaps[name][number].as_py() for name in CORNERS]
            size = [images[name][image.row].as_py() for name in ("width", "height")]
            found[place] = raw_Nhw[number].copy(), rectangle, size, heatmaps["score"][number].as_py()
    kept = [chosen[place] for place in sorted(found)]
    rows = [found[place] for place in sorted(found)]
    truth_PM4 = np.zeros((len(kept), max((len(image.boxes) for image in kept), default=0), 4))
    for place, image in enumerate(kept):
        truth_PM4[place, : len(image.boxes)] = [[box[name] for name in CORNERS] for box in image.boxes]
    return kept, Maps(
        raw_Phw=np.array([raw_hw for raw_hw, *_ in rows], np.float32).reshape(-1, *run.grid),
        rectangle_P4=np.array([rectangle for _, rectangle, _, _ in rows], np.float32).reshape(-1, 4),
        size_P2=np.array([size for _, _, size, _ in rows], np.int64).reshape(-1, 2),
        class_P=np.array([image.class_id for image in kept], np.int32),
        score_P=np.array([score for *_, score in rows], np.float32),
        truth_PM4=truth_PM4,
    )


def _keys(heatmaps: pa.Table) -> Iterator[tuple[int, int]]:
    """Yield the (row, class) of each map."""
    return zip(heatmaps["row"].to_pylist(), heatmaps["class_id"].to_pylist(), strict=True)


def _boxes(request: Request, recipe: Recipe, maps: Maps) -> MapBoxes:
    """Box the maps, some at a time."""
    firsts = range(0, max(len(maps), 1), MAPS_AT_ONCE)
    parts = [maps.take(np.arange(first, min(first + MAPS_AT_ONCE, len(maps)))) for first in firsts]
    found = [
        boxes_from_heatmaps(
            part.raw_Phw,
            part.rectangle_P4,
            part.size_P2,
            request.preprocessing.image_size,
            recipe.maps,
            recipe.boxes,
            thresholds_of(part.class_P, recipe.class_thresholds, recipe.boxes.threshold[0])
            if recipe.class_thresholds
            else None,
        )
        for part in parts
    ]
    return joined_boxes(found, [len(part) for part in parts])


def _are_right(maps: Maps, boxes: MapBoxes) -> Bools:
    """Say of each box whether it overlaps enough with an object."""
    right_N: Bools = best_overlaps(boxes.boxes_N4, boxes.map_N, maps.truth_PM4) >= RIGHT_IOU
    return right_N


def _images_right(request: Request, recipe: Recipe, maps: Maps) -> Bools:
    """Say of each image, at each of the recipe's rising thresholds, whether its best box is right: (T, P)."""
    boxes = _boxes(request, recipe, maps)
    right_TP = np.zeros((len(recipe.boxes.threshold), len(maps)), np.bool_)
    best_N = (boxes.rank_N == 0) & _are_right(maps, boxes)
    number_N = np.searchsorted(np.array(recipe.boxes.threshold, np.float32), boxes.threshold_N[best_N])
    right_TP[0 if recipe.class_thresholds else number_N, boxes.map_N[best_N]] = True
    return right_TP


def _fit_threshold(request: Request, maps: Maps) -> Recipe:
    """Return the best normaliser with the best threshold of all; regions as in the run."""
    normalisers = dict.fromkeys([*NORMALISERS, request.maps.normalise])
    recipes = [
        Recipe(maps=replace(request.maps, normalise=name), boxes=replace(request.boxes, threshold=THRESHOLDS))
        for name in normalisers
    ]
    normaliser, place = best_setting(np.stack([_images_right(request, recipe, maps) for recipe in recipes]))
    return replace(recipes[normaliser], boxes=replace(request.boxes, threshold=(THRESHOLDS[place],)))


def _fit_classes(request: Request, shared: Recipe, maps: Maps, shrinkage: float) -> Recipe:
    """Return the recipe with thresholds of single classes, where these differ from that of all."""
    swept = replace(shared, boxes=replace(shared.boxes, threshold=THRESHOLDS))
    places = class_settings(_images_right(request, swept, maps), maps.class_P.astype(np.int64), shrinkage)
    thresholds = {class_id: THRESHOLDS[place] for class_id, place in places.items()}
    own = sorted(item for item in thresholds.items() if item[1] != shared.boxes.threshold[0])
    return replace(shared, class_thresholds=tuple(own))


def _signals(maps: Maps, boxes: MapBoxes) -> F64:
    return box_signals(maps.score_P[boxes.map_N], boxes.peak_N, boxes.energy_N, boxes.area_fraction_N)


def _fit_probability(request: Request, recipe: Recipe, maps: Maps) -> ProbabilityModel:
    """Fit to all boxes that the recipe makes."""
    boxes = _boxes(request, recipe, maps)
    if not len(boxes.map_N):
        raise UsageError("the maps have no box at any threshold, as none has a positive value; nothing can be fitted")
    return fit_probability(_signals(maps, boxes), _are_right(maps, boxes), boxes.map_N)


def _judge(
    request: Request, recipes: dict[str, Recipe], probability: ProbabilityModel, maps: Maps, seed: int
) -> HeldOut:
    """Measure on images held out; the last recipe is the calibrated one."""
    weights_BP = poisson_weights(len(maps), seed)
    right = {name: _images_right(request, recipe, maps)[0] for name, recipe in recipes.items()}
    figures = {
        name: Figure(
            maps=recipe.maps,
            boxes=recipe.boxes,
            gt_known_loc=share_of(right[name], weights_BP),
            gain=None if name == "calibrated" else gain_of(right["calibrated"], right[name], weights_BP),
        )
        for name, recipe in recipes.items()
    }
    boxes = _boxes(request, recipes["calibrated"], maps)
    right_N, probability_N = _are_right(maps, boxes), probability.probabilities(_signals(maps, boxes))
    curve = reliability_curve(probability_N, right_N)
    return HeldOut(
        figures=figures,
        calibration_error=rounded(calibration_error(curve)),
        reliability=curve,
        coverage=coverage_table(probability_N, right_N, boxes.map_N, len(maps)),
    )
