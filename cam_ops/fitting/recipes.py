"""Box recipes tried on maps whose objects are known, and the best of them.

The objective is GT-known Loc: the share of images whose best box of the true class (rank 0) is right, that is, has IoU
>= .5, half-open, with an object of that class. Letters: P images, each with the map of its true class, h, w the grid, M
objects of an image, R normalisers, T thresholds, N boxes, F signals.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from cam_ops.arrays import F32, F64, I32, I64, Bools, Objects
from cam_ops.boxes.calibration import RIGHT_IOU, ClassThresholds, ProbabilityModel, box_signals, thresholds_of
from cam_ops.boxes.extract import MapBoxes, boxes_from_heatmaps
from cam_ops.errors import UsageError
from cam_ops.fitting.fit import NUM_FOLDS, best_setting, class_settings, fit_probability
from cam_ops.metrics.localization import best_overlaps
from cam_ops.settings import BoxConfig, MapConfig, Size

NORMALISERS = ("max", "minmax", "ivr:20", "ivr:30", "ivr:40", "ivr:50", "ivr:60")
THRESHOLDS = tuple(step / 40 for step in range(1, 29))
BOXES_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledMaps:
    """The maps of the true classes of some images, and the objects that are there."""

    raw_Phw: F32
    rectangle_P4: F32  # as of `boxes_from_heatmaps`
    size_P2: I64
    class_P: I32
    score_P: F32
    truth_P: Objects  # true boxes (M, 4) of each, float64, in pixels of the picture, half-open

    def __len__(self) -> int:
        return len(self.class_P)

    def take(self, place_P: I64) -> "LabelledMaps":
        """Return those of some images."""
        return LabelledMaps(**{column.name: getattr(self, column.name)[place_P] for column in fields(LabelledMaps)})


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxRecipe:
    """How boxes are made; thresholds of single classes stand beside one of all."""

    size: Size  # to which maps are enlarged
    maps: MapConfig
    boxes: BoxConfig
    class_thresholds: ClassThresholds = ()

    def thresholds(self, class_P: I32) -> F64 | None:
        """Return the threshold of each map, None where classes have none of their own."""
        if not self.class_thresholds:
            return None
        return thresholds_of(class_P, self.class_thresholds, self.boxes.threshold[0])


def boxes_of(maps: LabelledMaps, recipe: BoxRecipe, threshold_P: F64 | None = None) -> MapBoxes:
    """Box the maps, with a threshold for each where `threshold_P` is given."""
    return boxes_from_heatmaps(
        maps.raw_Phw, maps.rectangle_P4, maps.size_P2, recipe.size, recipe.maps, recipe.boxes, threshold_P
    )


def are_right(maps: LabelledMaps, boxes: MapBoxes) -> Bools:
    """Say of each box whether it is right."""
    right_N = np.zeros(len(boxes.map_N), np.bool_)
    for first in range(0, len(right_N), BOXES_AT_ONCE):
        some = slice(first, first + BOXES_AT_ONCE)
        right_N[some] = best_overlaps(boxes.boxes_N4[some], boxes.map_N[some], maps.truth_P) >= RIGHT_IOU
    return right_N


def images_right(maps: LabelledMaps, recipe: BoxRecipe) -> Bools:
    """Say of each image whether its best box is right, by a recipe."""
    boxes = boxes_of(maps, recipe, recipe.thresholds(maps.class_P))
    right_P, best_N = np.zeros(len(maps), np.bool_), boxes.rank_N == 0
    right_P[boxes.map_N[best_N]] = are_right(maps, boxes)[best_N]
    return right_P


def sweep(maps: LabelledMaps, recipe: BoxRecipe, thresholds: tuple[float, ...]) -> Bools:
    """Say of each image, at each of the rising thresholds, whether its best box is right: (T, P)."""
    boxes = boxes_of(maps, replace(recipe, boxes=replace(recipe.boxes, threshold=thresholds)))
    number_N = np.searchsorted(np.array(thresholds, np.float32), boxes.threshold_N)
    right_TP = np.zeros((len(thresholds), len(maps)), np.bool_)
    best_N = boxes.rank_N == 0
    right_TP[number_N[best_N], boxes.map_N[best_N]] = are_right(maps, boxes)[best_N]
    return right_TP


def fit_threshold(maps: LabelledMaps, own: BoxRecipe) -> BoxRecipe:
    """Return the best normaliser and threshold of all, regions as in `own`; `own` where none is surely better."""
    normalisers = dict.fromkeys([*NORMALISERS, own.maps.normalise])
    recipes = [replace(own, maps=replace(own.maps, normalise=name), class_thresholds=()) for name in normalisers]
    best = best_setting(np.stack([sweep(maps, recipe, THRESHOLDS) for recipe in recipes]), images_right(maps, own))
    if best is None:
        return own
    normaliser, place = best
    return replace(recipes[normaliser], boxes=replace(own.boxes, threshold=(THRESHOLDS[place],)))


def fit_classes(maps: LabelledMaps, shared: BoxRecipe, shrinkage: float) -> tuple[BoxRecipe, F64]:
    """Return the recipe with thresholds of single classes where these differ from the shared one.

    Also the threshold that each image's class would have without a fifth of the images that holds it, for what is
    fitted to its boxes: they are not to look better than those of other images will be.
    """
    usual = shared.boxes.threshold[0]
    thresholds = tuple(sorted({*THRESHOLDS, usual}))
    right_TP, fold_P = sweep(maps, shared, thresholds), np.arange(len(maps)) % NUM_FOLDS

    def fitted_to(is_used_P: Bools) -> ClassThresholds:
        class_P = maps.class_P[is_used_P].astype(np.int64)
        places = class_settings(right_TP[:, is_used_P], class_P, thresholds.index(usual), shrinkage)
        own = {class_id: thresholds[place] for class_id, place in places.items()}
        return tuple(sorted((class_id, threshold) for class_id, threshold in own.items() if threshold != usual))

    threshold_P = np.empty(len(maps))
    for fold in range(NUM_FOLDS):
        is_held_P = fold_P == fold
        threshold_P[is_held_P] = thresholds_of(maps.class_P[is_held_P], fitted_to(~is_held_P), usual)
    return replace(shared, class_thresholds=fitted_to(np.ones(len(maps), np.bool_))), threshold_P


def fit_box_probability(maps: LabelledMaps, recipe: BoxRecipe, threshold_P: F64 | None) -> ProbabilityModel:
    """Fit the probability of being right to all boxes; raises UsageError where there is none."""
    boxes = boxes_of(maps, recipe, threshold_P)
    if not len(boxes.map_N):
        raise UsageError("the maps have no box, as none has a positive value; nothing can be fitted to them")
    return fit_probability(signals_of(maps, boxes), are_right(maps, boxes), boxes.map_N)


def signals_of(maps: LabelledMaps, boxes: MapBoxes) -> F64:
    """Return what the probability of each box depends on, (N, F)."""
    return box_signals(maps.score_P[boxes.map_N], boxes.peak_N, boxes.energy_N, boxes.area_fraction_N)
