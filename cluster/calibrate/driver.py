"""`calibrate`: fit box settings and probabilities to a labelled sample of a run, from its stored maps alone."""

from collections import Counter
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from cam_ops.boxes.calibration import Calibration, ProbabilityModel
from cam_ops.errors import UsageError
from cam_ops.fitting.fit import rounded
from cam_ops.fitting.recipes import (
    BoxRecipe,
    LabelledMaps,
    are_right,
    boxes_of,
    fit_box_probability,
    fit_classes,
    fit_threshold,
    images_right,
    signals_of,
)
from cam_ops.fitting.reliability import calibration_error, coverage_table, gain_of, reliability_curve, share_of
from cam_ops.metrics.bootstrap import U64, image_seeds, poisson_weights
from cam_ops.metrics.counts import Split
from cam_ops.settings import BoxConfig, MapConfig
from cluster.calibrate.config import CalibrateConfig
from cluster.calibrate.sample import choose, read_maps
from cluster.process.console import say
from cluster.runs.calibration import (
    CALIBRATION_VERSION,
    FEW_IMAGES,
    CalibrationFile,
    Figure,
    HeldOut,
    Sample,
    maps_of_request,
    say_fitted,
    write_calibration,
)
from cluster.runs.directory import open_run_dir
from cluster.runs.record import existing_run
from cluster.runs.request import Request
from cluster.sources.reading import orientations
from cluster.storage.files import Files
from cluster.truth.prepare import prepare_truth

MIN_FITTED = 20  # images
NUM_REPLICATES = 1000
FEW_STEPS = 5  # of the probability: as many groups of twenty boxes as 100 images have


def calibrate(config: CalibrateConfig) -> CalibrationFile:
    """Fit, write and return the calibration. Raises UsageError where too few images can be fitted to."""
    cv2.setNumThreads(0)
    run_dir = open_run_dir(config.run, config.options)
    run = existing_run(run_dir)
    excluded: Counter[str] = Counter()
    with TemporaryDirectory(prefix="camray-truth-") as folder:
        truth_files = Files(folder)
        read_turns = partial(orientations, options=config.options)
        truth_format = prepare_truth(run_dir, run, config.truth, truth_files, read_turns).format
        chosen = choose(run_dir, run, truth_files, config.max_images, config.seed, excluded)
    chosen, maps = read_maps(run_dir, run, chosen, excluded)
    seed_P = image_seeds([image.image_id for image in chosen])
    held_out_P = ~Split(calibrate=1 - config.holdout, seed=config.seed).chosen(seed_P)
    fitted, held_out = maps.take(np.flatnonzero(~held_out_P)), maps.take(np.flatnonzero(held_out_P))
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(excluded.items())) or "none"
    say_fitted(len(fitted), len(held_out), f"; left out: {left_out}")
    if len(fitted) < MIN_FITTED:
        raise UsageError(
            f"expected at least {MIN_FITTED} images with truth and a map of their true class to fit to, found "
            f"{len(fitted)} (left out: {left_out}); label more, or lower --holdout"
        )
    recipes = _others(run.request)
    own = replace(recipes["run"], class_thresholds=())
    shared = recipe = fit_threshold(fitted, own)
    if shared == own:
        say("no other normaliser and threshold is surely better than the run's own, which stay")
    threshold_P = None
    if config.per_class:
        recipes["global"] = shared
        recipe, threshold_P = fit_classes(fitted, shared, config.shrinkage)
    recipes["calibrated"] = recipe
    probability = fit_box_probability(fitted, recipe, threshold_P)
    _warn_of_few(len(fitted), probability)
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
        held_out=_judge(recipes, probability, held_out, seed_P[held_out_P]) if len(held_out) else None,
    )
    write_calibration(config.out, file)
    return file


def _warn_of_few(num_fitted: int, probability: ProbabilityModel) -> None:
    """Say what a fit is good for that is a fit to few images, or has few steps."""
    steps = len(probability.knots)
    if num_fitted >= FEW_IMAGES and steps >= FEW_STEPS:
        return
    share = f"what share of such boxes is right on the whole, {probability.knots[0][1]:.2f}, and ranks none of them"
    coarse = f"boxes coarsely, between {probability.knots[0][1]:.2f} and {probability.knots[-1][1]:.2f}"
    say(
        f"warning: this fit to {num_fitted} images has a probability of {steps} step(s), where {FEW_IMAGES} images and "
        f"{FEW_STEPS} steps are the least to trust: it tells {share if steps == 1 else coarse}; label more, or lower "
        "--holdout"
    )


def _others(request: Request) -> dict[str, BoxRecipe]:
    """Return what the calibrated recipe is held against: the run's own, the default, the seed post's."""
    own = BoxRecipe(
        size=request.preprocessing.image_size,
        maps=request.maps,
        boxes=replace(request.boxes, threshold=request.boxes.threshold[:1]),
        class_thresholds=request.calibration.class_thresholds if request.calibration else (),
    )
    default = BoxRecipe(size=own.size, maps=MapConfig(), boxes=BoxConfig())
    blog = replace(default, maps=MapConfig(recipe="blog", normalise="minmax"), boxes=BoxConfig(threshold=(0.2,)))
    return {"run": own, "default": default, "blog": blog}


def _judge(recipes: dict[str, BoxRecipe], probability: ProbabilityModel, maps: LabelledMaps, seed_P: U64) -> HeldOut:
    """Measure on images held out; `seed_P` are their seeds of the bootstrap."""
    weights_BP = poisson_weights(seed_P, NUM_REPLICATES).astype(np.float64)
    right = {name: images_right(maps, recipe) for name, recipe in recipes.items()}
    figures = {
        name: Figure(
            maps=recipe.maps,
            boxes=recipe.boxes,
            gt_known_loc=share_of(right[name], weights_BP),
            gain=None if name == "calibrated" else gain_of(right["calibrated"], right[name], weights_BP),
        )
        for name, recipe in recipes.items()
    }
    recipe = recipes["calibrated"]
    boxes = boxes_of(maps, recipe, recipe.thresholds(maps.class_P))
    right_N, probability_N = are_right(maps, boxes), probability.probabilities(signals_of(maps, boxes))
    curve = reliability_curve(probability_N, right_N)
    return HeldOut(
        figures=figures,
        calibration_error=rounded(calibration_error(curve)),
        reliability=curve,
        coverage=coverage_table(probability_N, right_N, boxes.map_N, len(maps)),
    )
