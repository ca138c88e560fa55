"""Calibration: its arithmetic against scikit-learn and by hand; `calibrate`, `label` and `rebox` by the command."""

import json
import os
import re
import shlex
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from cam_ops.boxes.calibration import ProbabilityModel, box_signals, thresholds_of
from cam_ops.boxes.extract import boxes_from_heatmaps
from cam_ops.errors import StorageError
from cam_ops.fitting.fit import (
    best_setting,
    class_settings,
    fit_logistic,
    fit_probability,
    isotonic,
    plateau_middle,
    smoothed,
)
from cam_ops.fitting.reliability import calibration_error, coverage_table, gain_of, reliability_curve, share_of
from cam_ops.metrics.bootstrap import image_seeds, poisson_weights, uniforms
from cam_ops.metrics.localization import best_overlaps
from cam_ops.settings import BoxConfig, MapConfig
from cluster.calibrate.sample import choose
from cluster.runs.calibration import read_calibration, write_calibration
from cluster.runs.plan import Plan
from tests.support.command import LITE0, Command, table_rows
from tests.support.truths import Planner, coco


def test_an_image_with_an_object_that_is_nowhere_is_no_sample(planner: Planner, tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)]
    boxes = [{"image_id": number, "category_id": 7, "bbox": [1, 2, 3, 4]} for number in (1, 2)]
    (tmp_path / "truth.json").write_text(coco(images, [*boxes, {"id": 9, "image_id": 2, "bbox": []}]))
    planner.truth({"1.jpg": (40, 20, 0), "2.jpg": (40, 20, 0)}, tmp_path / "truth.json")
    run = replace(planner.template, plan=Plan(num_images=2, num_shards=1, shard_size=2, digest=""))
    excluded: Counter[str] = Counter()
    chosen = choose(planner.run_dir, run, planner.run_dir.below("audit"), 10, 0, excluded)
    assert ([image.image_id for image in chosen], excluded) == (["1.jpg"], {"truth incomplete": 1})


@pytest.mark.parametrize("seed", range(20))
def test_pooled_violators_are_scikit_learns_isotonic_regression(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values_N, weights_N = generator.random(50).round(1), generator.integers(1, 5, 50).astype(np.float64)
    expected_N = IsotonicRegression().fit_transform(np.arange(50), values_N, sample_weight=weights_N)
    np.testing.assert_allclose(isotonic(values_N, weights_N), expected_N, atol=1e-12)


@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
def test_the_logistic_regression_is_scikit_learns(ridge: float) -> None:
    generator = np.random.default_rng(1)
    signals_NF = generator.normal(size=(300, 4)) * [1, 10, 0.1, 0] + [5, 0, -3, 7]
    correct_N = signals_NF[:, 0] + 0.2 * signals_NF[:, 1] + generator.normal(size=300) > 5
    intercept, coefficients_F = fit_logistic(signals_NF, correct_N, ridge)
    standard_NF = (signals_NF - signals_NF.mean(0)) / np.where(signals_NF.std(0) > 1e-9, signals_NF.std(0), 1)
    oracle = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000).fit(standard_NF[:, :3], correct_N)
    np.testing.assert_allclose(
        1 / (1 + np.exp(-(intercept + signals_NF @ coefficients_F))),
        oracle.predict_proba(standard_NF[:, :3])[:, 1],
        atol=1e-6,
    )
    assert coefficients_F[3] == 0


def test_separable_boxes_and_boxes_that_are_all_right_have_finite_coefficients() -> None:
    signals_NF = np.arange(10.0)[:, None]
    intercept, coefficients_F = fit_logistic(signals_NF, np.arange(10) >= 5)
    combined_N = intercept + signals_NF @ coefficients_F
    assert (combined_N[:5] < 0).all()
    assert (combined_N[5:] > 0).all()
    assert fit_logistic(signals_NF, np.ones(10, bool)) == (0.0, np.zeros(1))


def test_a_probability_lies_on_straight_lines_between_the_knots_and_stays_level_beyond_them() -> None:
    model = ProbabilityModel(intercept=1.0, coefficients=(2.0, 0.0, 0.0, 0.0, 0.0), knots=((0.0, 0.2), (4.0, 0.6)))
    half, ones = np.array([0.5, 0.75], np.float32), np.ones(2, np.float32)
    combined_N = [1.0, 1 + 2 * np.log(3)]  # the logits of .5 and .75 are 0 and ln 3
    expected_N = [0.2 + 0.1 * combined for combined in combined_N]
    found_N = model.probabilities(box_signals(half, ones, ones, ones))
    np.testing.assert_allclose(found_N, expected_N, rtol=1e-6)
    assert found_N.dtype == np.float32
    extremes_N = model.probabilities(box_signals(np.array([0, 1], np.float32), ones, ones, ones))
    np.testing.assert_array_equal(extremes_N, np.float32([0.2, 0.6]))


def test_fitted_probabilities_rise_with_the_combined_score_and_recover_those_that_drew_the_boxes() -> None:
    generator = np.random.default_rng(2)
    score_N = generator.random(4000).astype(np.float32)
    other_N = generator.random((3, 4000)).astype(np.float32)
    signals_NF = box_signals(score_N, *other_N)
    wanted_N = 0.1 + 0.7 * score_N**2  # not logistic: only the monotone part can find it
    model = fit_probability(signals_NF, generator.random(4000) < wanted_N, np.arange(4000))
    found_N = model.probabilities(signals_NF)
    assert np.abs(found_N - wanted_N).mean() < 0.03
    combined_N = model.intercept + signals_NF @ np.array(model.coefficients)
    assert (np.diff(found_N[np.argsort(combined_N)]) >= 0).all()


def test_a_few_boxes_give_a_cautious_model() -> None:
    signals_NF = box_signals(*np.full((4, 5), 0.5, np.float32))
    model = fit_probability(signals_NF, np.array([True] * 5), np.arange(5))
    assert model.knots == ((0.0, 1.0),)
    model = fit_probability(signals_NF, np.array([True, True, True, False, False]), np.arange(5))
    assert [probability for _, probability in model.knots] == pytest.approx([0.6])  # (3 + 2 * .6) / (5 + 2)
    signals_NF = box_signals(*np.full((4, 80), 0.5, np.float32))
    is_right_N = np.arange(80) % 40 >= 20  # in groups of twenty equal boxes, by accident of their order
    model = fit_probability(signals_NF, is_right_N, np.zeros(80, np.int64))
    assert model.knots == ((0.0, 0.5),)


def test_the_calibration_error_by_hand() -> None:
    probability_N = np.array([0.05, 0.15, 0.19, 0.95, 1.0], np.float32)
    correct_N = np.array([False, True, False, True, True])
    curve = reliability_curve(probability_N, correct_N)
    assert [entry.boxes for entry in curve] == [1, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (curve[1].probability, curve[1].precision) == (pytest.approx(0.17), 0.5)
    assert (curve[9].probability, curve[9].precision) == (pytest.approx(0.975), 1.0)
    assert curve[5].probability is None
    assert calibration_error(curve) == pytest.approx((1 * 0.05 + 2 * 0.33 + 2 * 0.025) / 5)


def test_the_coverage_table_by_hand() -> None:
    probability_N = np.array([0.05, 0.3, 0.9, 0.95], np.float32)
    rows = coverage_table(probability_N, np.array([False, True, False, True]), np.array([0, 0, 1, 2]), 4)
    assert [(row.probability, row.boxes, row.precision, row.images) for row in rows[::3]] == [
        (0.0, 4, 0.5, 0.75),
        (0.3, 3, pytest.approx(2 / 3, abs=1e-6), 0.75),
        (0.6, 2, 0.5, 0.5),
        (0.9, 2, 0.5, 0.5),
    ]


def test_the_bootstrap_interval_is_that_of_a_binomial_share() -> None:
    correct_N = np.arange(400) < 100
    weights_BN = poisson_weights(image_seeds([str(i) for i in range(400)]), 1000).astype(np.float64)
    share = share_of(correct_N, weights_BN)
    assert (share.value, share.images) == (25, 400)
    deviation = 100 * np.sqrt(0.25 * 0.75 / 400)
    assert share.low == pytest.approx(25 - 1.96 * deviation, abs=0.6)
    assert share.high == pytest.approx(25 + 1.96 * deviation, abs=0.6)
    same = gain_of(correct_N, correct_N, weights_BN)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_thresholds_are_smoothed_and_the_middle_of_the_plateau_is_taken() -> None:
    np.testing.assert_allclose(smoothed(np.array([3.0, 0, 6, 9])), [1.5, 3, 5, 7.5])
    assert plateau_middle(np.array([0, 5, 5, 0, 5, 5, 5, 1])) == (5, 3)
    assert plateau_middle(np.array([4.0])) == (0, 1)
    lucky, broad = np.zeros((9, 40), bool), np.zeros((9, 40), bool)
    lucky[1] = True  # every image is right at one threshold and none at its neighbours
    broad[3:8, :30] = True
    none = np.zeros(40, bool)
    assert best_setting(np.stack([lucky, broad]), none) == (1, 5)
    assert best_setting(np.stack([broad, broad]), none) == (0, 5)


def test_ones_own_setting_is_kept_unless_another_is_better_by_one_and_a_half_standard_errors() -> None:
    """Of 100 images 20 are right; the other setting adds n and loses none, so that its share of gains g is n / 100 and
    g > 1.5 sqrt(g (1 - g) / 100) holds from n = 3 on."""
    own_N = np.arange(100) < 20
    for num_more, found in ((2, None), (3, (0, 1))):
        other_TN = np.tile(np.arange(100) < 20 + num_more, (3, 1))
        assert best_setting(other_TN[None], own_N) == found


def test_rare_classes_are_shrunk_towards_all_images() -> None:
    """Five thresholds, the first one shared. Class 7 has 30 images, right at the first two; class 8 has 2, at the last
    two. Smoothed, 30/32 of all are right at the first and 2/32 at the last, so that with n average images
    class 8 has n 30/32 there and 2 + n 2/32 here: its own threshold is better up to n = 2."""
    correct_TN = np.zeros((5, 32), bool)
    correct_TN[:2, :30] = True
    correct_TN[3:, 30:] = True
    class_N = np.array([7] * 30 + [8] * 2)
    for shrinkage, found in ((0, 4), (2, 4), (2.4, 0), (20, 0)):
        assert class_settings(correct_TN, class_N, 0, shrinkage) == {7: 0, 8: found}
    always = np.ones((5, 32), bool)
    assert class_settings(always, class_N, 3, 20) == {7: 3, 8: 3}  # nothing is better than the shared one


def test_overlaps_are_torchvisions_and_a_map_without_truth_has_none() -> None:
    generator = np.random.default_rng(3)
    corners_N22 = np.sort(generator.random((40, 2, 2)), axis=1)
    boxes_N4 = corners_N22.reshape(40, 4).astype(np.float32)
    truth_PM4 = np.sort(generator.random((4, 3, 2, 2)), axis=2).reshape(4, 3, 4)
    truth_PM4[1, 2], truth_PM4[3] = 0, 0
    map_N = np.arange(40) % 4
    found_N = best_overlaps(boxes_N4, map_N, truth_PM4)
    for box, place, found in zip(boxes_N4, map_N, found_N, strict=True):
        truth = torch.from_numpy(truth_PM4[place])
        expected = torchvision.ops.box_iou(torch.from_numpy(box[None]).double(), truth).nan_to_num().max()
        assert found == pytest.approx(float(expected), abs=1e-12)
    assert (found_N[map_N == 3] == 0).all()
    assert best_overlaps(boxes_N4[:1], map_N[:1], np.zeros((1, 0, 4))).tolist() == [0]
    of_each = np.empty(4, np.object_)  # as many as each has
    for place, truth_M4 in enumerate(truth_PM4):
        of_each[place] = truth_M4[truth_M4.any(1)]
    assert best_overlaps(boxes_N4, map_N, of_each).tolist() == found_N.tolist()


def test_maps_may_have_a_threshold_each() -> None:
    raw_Phw = np.random.default_rng(4).normal(size=(6, 5, 5)).astype(np.float32)
    rectangle_P4, size_P2 = np.tile(np.float32([0, 0, 60, 40]), (6, 1)), np.tile([60, 40], (6, 1))
    thresholds = np.array([0.1, 0.3, 0.5, 0.3, 0.7, 0.2])
    common = {"size": 32, "maps": MapConfig()}
    found = boxes_from_heatmaps(
        raw_Phw, rectangle_P4, size_P2, config=BoxConfig(components="all"), threshold_P=thresholds, **common
    )
    for place, threshold in enumerate(thresholds):
        config = BoxConfig(components="all", threshold=(float(threshold),))
        alone = boxes_from_heatmaps(raw_Phw[place : place + 1], rectangle_P4[:1], size_P2[:1], config=config, **common)
        np.testing.assert_array_equal(found.boxes_N4[found.map_N == place], alone.boxes_N4)
        np.testing.assert_array_equal(found.rank_N[found.map_N == place], alone.rank_N)
        np.testing.assert_array_equal(found.threshold_N[found.map_N == place], alone.threshold_N)


def test_a_class_without_a_threshold_of_its_own_has_the_usual_one() -> None:
    class_P = np.array([0, 2, 3, 9, 10], np.int32)
    assert thresholds_of(class_P, ((2, 0.3), (9, 0.4)), 0.2).tolist() == [0.2, 0.3, 0.2, 0.4, 0.2]
    assert thresholds_of(class_P, (), 0.2).tolist() == [0.2] * 5


TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
INLINE = ["--executor", "inline"]
NUM_HALOS = 120


@pytest.fixture(scope="module")
def halos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright squares amid halos of half their brightness: of class 0 the square is the object, of class 1 the halo.

    The network's map of either class is the red channel. So the right threshold is above .5 for class 0 and below for
    class 1; three of four pictures are of class 0.
    """
    folder = tmp_path_factory.mktemp("halos")
    generator = np.random.default_rng(5)
    (folder / "pictures").mkdir()
    truth, labels = ["image_id,x0,y0,x1,y1,class_id"], ["image_id,label"]
    for i in range(NUM_HALOS):
        image_HWC = np.zeros((48, 64, 3), np.uint8)
        x, y = generator.integers(2, 30), generator.integers(2, 14)
        image_HWC[y : y + 32, x : x + 32, 0] = 120
        image_HWC[y + 8 : y + 24, x + 8 : x + 24, 0] = 240
        Image.fromarray(image_HWC).save(folder / "pictures" / f"{i:03d}.png")
        class_id, margin = (1, 0) if i % 4 == 3 else (0, 8)
        labels.append(f"{i:03d}.png,{class_id}")
        box = x + margin, y + margin, x + 32 - margin, y + 32 - margin
        truth.append(f"{i:03d}.png,{','.join(map(str, box))},{class_id}")
    (folder / "labels.csv").write_text("\n".join(labels))
    (folder / "truth.csv").write_text("\n".join(truth))
    assert label(folder, folder / "run").code == 0
    assert calibrate(folder / "run", folder, "--per-class").code == 0
    return folder


def label(halos: Path, out: Path, *more: object) -> Command:
    source = ["--images", halos / "pictures", "--labels", halos / "labels.csv", "--precision", "fp32"]
    return Command("label", *source, "--out", out, *INLINE, *TWO, *more)


def calibrate(run: Path, halos: Path, *more: object, to: str = "calibration.json") -> Command:
    return Command("calibrate", run, "--truth", halos / "truth.csv", "--out", halos / to, *more)


def rebox(run: Path, out: Path, *more: object) -> Command:
    return Command("rebox", run, "--out", out, *INLINE, *more)


def files(out: Path) -> dict[str, bytes]:
    paths = [path for name in ("plan", "boxes", "images") for path in (out / name).iterdir()]
    return {str(path.relative_to(out)): path.read_bytes() for path in [*paths, out / "summary.json"]}


def test_calibrate_finds_the_thresholds_that_are_right(halos: Path) -> None:
    found = json.loads((halos / "calibration.json").read_text())
    own = dict(found["calibration"]["class_thresholds"])
    assert 0.5 < found["boxes"]["threshold"][0] < 1
    assert list(own) == [1]
    assert own[1] < 0.5
    assert found["sample"]["fitted"] + found["sample"]["held_out"] == NUM_HALOS
    shares = {name: figure["gt_known_loc"]["value"] for name, figure in found["held_out"]["figures"].items()}
    assert shares["calibrated"] == 100
    assert shares["run"] == shares["default"] == shares["blog"] == pytest.approx(100 - shares["global"], abs=0.002)
    assert found["held_out"]["figures"]["run"]["gain"]["low"] > 0
    assert found["held_out"]["calibration_error"] < 0.1
    before = (halos / "calibration.json").read_bytes()
    again = calibrate(halos / "run", halos, "--per-class", "--json")
    assert "GT-known Loc" in again.err
    assert again.document == found
    assert (halos / "calibration.json").read_bytes() == before
    assert calibrate(halos / "run", halos, "--seed", 1, "--max-images", 50, "--holdout", 0, to="other.json").code == 0
    other = json.loads((halos / "other.json").read_text())
    assert (other["sample"]["fitted"], other["held_out"]) == (50, None)
    assert other["sample"]["excluded"] == {"beyond --max-images": 70}


def test_a_file_that_cannot_be_written_nor_its_part_be_removed_is_refused_in_a_sentence(
    halos: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="Not a directory; check --out"):
        write_calibration(
            str(tmp_path / "file" / "calibration.json"), read_calibration(str(halos / "calibration.json"))
        )


def test_rebox_and_label_with_one_calibration_write_the_same_bytes(halos: Path, tmp_path: Path) -> None:
    flags = ["--calibration", halos / "calibration.json"]
    refused = label(halos, halos / "run", *flags)
    assert refused.code == 4
    assert refused.result["error"].endswith("--out NEW --calibration FILE")
    assert rebox(halos / "run", tmp_path / "new", *flags).code == 0
    assert label(halos, tmp_path / "wanted", *flags).code == 0
    assert files(tmp_path / "new") == files(tmp_path / "wanted")
    assert label(halos, tmp_path / "wanted", *flags).code == 0  # which resumes
    for out in (tmp_path / "new", tmp_path / "wanted"):
        assert Command("verify", out).code == 0
        assert Command("show", out, "003.png", "--to", out / "shown.png").code == 0
    found = json.loads((halos / "calibration.json").read_text())
    model = found["calibration"]["probability"]
    scores, probabilities = np.array(model["knots"]).T
    images = {image["image_id"]: image for image in table_rows(tmp_path / "new", "images")}
    for box in table_rows(tmp_path / "new", "boxes"):
        usual = found["boxes"]["threshold"][0]
        own = dict(found["calibration"]["class_thresholds"]).get(box["class_id"], usual)
        assert box["threshold"] == np.float32(own)
        shares = np.clip([box[name] for name in ("score", "energy", "area_fraction", "peak")], 1e-6, 1 - 1e-6)
        log_odds, logs = np.log(shares / (1 - shares)), np.log(shares)
        combined = model["intercept"] + np.dot(
            model["coefficients"], [log_odds[0], log_odds[1], logs[2], logs[2] ** 2, logs[3]]
        )
        assert box["probability"] == pytest.approx(np.interp(combined, scores, probabilities), abs=1e-6)
        assert images[box["image_id"]]["num_boxes"] == 1
    assert "probability" not in table_rows(halos / "run", "boxes")[0]


@pytest.mark.slow
def test_a_run_whose_classes_have_thresholds_of_their_own_is_audited_and_compared(halos: Path, tmp_path: Path) -> None:
    assert rebox(halos / "run", tmp_path / "new", "--calibration", halos / "calibration.json").code == 0
    for out in (halos / "run", tmp_path / "new"):
        assert Command("audit", out, *INLINE, "--truth", halos / "truth.csv").code == 0
    document = json.loads((tmp_path / "new" / "audit" / "metrics.json").read_text())
    assert document["metrics"]["gt_known_loc"]["value"] == 100  # each class's box is the object, see `halos`
    assert document["signals"]["without_box"] == 0
    found = Command("compare", halos / "run", tmp_path / "new", "--json", "--fail-if", "gt_known_loc <= 0")
    assert found.code == 0, found.out
    assert json.loads(found.out.partition("CAMRAY_RESULT")[0])["tables"]["box_pairs"] == NUM_HALOS


def test_a_run_keeps_its_calibration_until_a_flag_says_otherwise(halos: Path, tmp_path: Path) -> None:
    assert label(halos, tmp_path / "source", "--calibration", halos / "calibration.json").code == 0
    assert rebox(tmp_path / "source", tmp_path / "same").code == 0
    assert files(tmp_path / "same") == files(tmp_path / "source")
    assert rebox(tmp_path / "source", tmp_path / "plain", "--threshold", 0.2).code == 0
    assert "probability" not in table_rows(tmp_path / "plain", "boxes")[0]
    refused = label(halos, tmp_path / "source")
    assert refused.code == 4
    command = shlex.split(re.search(r"python -m jobs (rebox .*)", refused.result["error"])[1])
    back = [str(tmp_path / "back") if word == "NEW" else word for word in command]
    assert Command(*back, *INLINE).code == 0
    assert files(tmp_path / "back") == files(halos / "run")


def test_a_calibration_of_peaks_brings_peaks_and_the_smallest_area(halos: Path, tmp_path: Path) -> None:
    asked = ["--components", "peaks", "--min-area", 0.02]
    assert rebox(halos / "run", tmp_path / "peaks", *asked).code == 0
    assert calibrate(tmp_path / "peaks", halos, to="peaks.json").code == 0
    found = json.loads((halos / "peaks.json").read_text())
    assert found["boxes"]["components"] == "peaks"
    assert found["boxes"]["min_area"] == 0.02
    assert rebox(halos / "run", tmp_path / "new", "--calibration", halos / "peaks.json").code == 0
    assert label(halos, tmp_path / "wanted", "--calibration", halos / "peaks.json").code == 0
    assert files(tmp_path / "new") == files(tmp_path / "wanted")
    boxes = json.loads((tmp_path / "new" / "run.json").read_text())["request"]["boxes"]
    assert boxes == found["boxes"]


def test_a_calibration_of_other_maps_or_beside_other_flags_is_refused(halos: Path, tmp_path: Path) -> None:
    flags = ["--calibration", halos / "calibration.json"]
    for more in (["--threshold", 0.3], ["--normalise", "minmax"], ["--components", "all"], ["--min-area", 0.1]):
        assert label(halos, tmp_path / "out", *flags, *more).code == 2
        refused = rebox(halos / "run", tmp_path / "out", *flags, *more)
        assert (refused.code, "give either" in refused.result["error"]) == (2, True)
    other = label(halos, tmp_path / "out", *flags, "--flip")
    assert other.code == 2
    assert "its explain.flip is False, here True; run `calibrate`" in other.result["error"]
    assert not (tmp_path / "out").exists()


def test_a_fit_to_few_images_is_said_to_be_one_and_halves_are_those_of_audit(halos: Path) -> None:
    """Halos of one class: of 40 images no two groups of twenty boxes differ surely."""
    few = calibrate(halos / "run", halos, "--max-images", 40, "--holdout", 0, to="few.json")
    knots = json.loads((halos / "few.json").read_text())["calibration"]["probability"]["knots"]
    assert len(knots) < 5
    assert f"warning: this fit to 40 images has a probability of {len(knots)} step(s)" in few.err
    assert f"{knots[0][1]:.2f}" in few.err.partition("it tells")[2]
    halves = calibrate(halos / "run", halos, "--seed", 3, "--holdout", 0.25, to="few.json")
    said = next(line for line in halves.err.splitlines() if "fitting to" in line).partition(";")[0]
    audited = Command(
        *("audit", halos / "run", *INLINE, "--truth", halos / "truth.csv", "--name", "halves"),
        *("--calibrate", 0.75, "--seed", 3, "--bootstrap", 0),
    )
    assert said in audited.err.splitlines()
    assert ("warning: a threshold" in audited.err) == (int(said.split()[3]) < 100)


def test_too_few_images_are_refused(halos: Path, tmp_path: Path) -> None:
    few = calibrate(halos / "run", halos, "--max-images", 10, to="few.json")
    assert (few.code, "expected at least 20 images" in few.result["error"]) == (2, True)
    assert label(halos, tmp_path / "top", "--classes", "top1", "--limit", 40).code == 0
    assert calibrate(tmp_path / "top", halos, "--holdout", 0, to="few.json").code == 0
    excluded = json.loads((halos / "few.json").read_text())["sample"]["excluded"]
    assert list(excluded) == ["no map of the true class"]
    assert calibrate(halos / "run", halos, "--holdout", 1).code == 2
    assert calibrate(halos / "run", halos, to="no such folder/few.json").code == 2
    before = (halos / "truth.csv").read_bytes()
    (halos / "link.csv").symlink_to("truth.csv")
    same = calibrate(halos / "run", halos, to="link.csv")
    assert (same.code, "is the file of --truth, which it would replace" in same.result["error"]) == (2, True)
    assert (halos / "truth.csv").read_bytes() == before
    assert calibrate(tmp_path / "nothing", halos).code == 5


KNOTS = ("calibration", "probability", "knots")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*KNOTS, 0), [float("nan"), 0.5]),
        ((*KNOTS, 0), [1e300, 0.5]),
        (KNOTS, [[0.0, 0.5], [0.0, 0.6]]),
        (KNOTS, [[0.0, 0.6], [1.0, 0.5]]),
        (KNOTS, [[0.0, 1.5]]),
        (KNOTS, []),
        (KNOTS, [[float(i), 0.5] for i in range(2000)]),
        (("calibration", "probability", "coefficients"), [1.0]),
        (("calibration", "probability", "coefficients", 2), "1"),
        (("calibration", "probability", "intercept"), float("inf")),
        (("calibration", "class_thresholds"), [[1, 0.3], [0, 0.3]]),
        (("calibration", "class_thresholds"), [[-1, 0.3]]),
        (("calibration", "class_thresholds"), [[1, 1.0]]),
        (("boxes", "threshold"), [0.2, 0.3]),
        (("boxes", "threshold"), [2.0]),
        (("boxes", "threshold"), [0.2] * 100_000),
        (("maps", "normalise"), "ivr:nan"),
        (("schema_version",), "9" * 100_000),
        (("sample",), None),
    ],
    ids=str,
)
def test_a_file_that_calibrate_would_not_write_is_refused(
    halos: Path, tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    document = json.loads((halos / "calibration.json").read_text())
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (tmp_path / "bad.json").write_text(json.dumps(document))
    refused = rebox(halos / "run", tmp_path / "out", "--calibration", tmp_path / "bad.json")
    assert refused.code == 2
    assert f"{tmp_path / 'bad.json'} is not what `calibrate` writes" in refused.result["error"]
    assert len(refused.result["error"]) < 500 + len(str(tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_calibration_that_is_no_file_of_ours_is_refused(halos: Path, tmp_path: Path) -> None:
    whole = (halos / "calibration.json").read_bytes()
    (tmp_path / "cut.json").write_bytes(whole[:-20])
    (tmp_path / "deep.json").write_bytes(b"[" * 100_000)
    with (tmp_path / "long.json").open("wb") as file:
        file.truncate(2**30)
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("cut", "deep", "long", "pipe", "missing"):
        path = tmp_path / f"{name}.json"
        assert rebox(halos / "run", tmp_path / "out", "--calibration", path).code == 2, name
        assert label(halos, tmp_path / "out", "--calibration", path).code == 2, name


def test_run_json_of_before_calibrations_is_read_and_one_that_lies_is_not(halos: Path, tmp_path: Path) -> None:
    shutil.copytree(halos / "run", tmp_path / "run")
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    del document["request"]["calibration"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    assert Command("verify", tmp_path / "run").code == 0
    calibration = json.loads((halos / "calibration.json").read_text())["calibration"]
    calibration["probability"]["knots"] = [[0.0, 7.0]]
    document["request"]["calibration"] = calibration
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    assert Command("verify", tmp_path / "run").code == 5


@pytest.mark.slow
def test_kangaroos_end_to_end(data: Path, tmp_path: Path) -> None:
    """Labels, a calibration on half of them, boxes with it; its figures against torchvision's IoU of the tables."""
    photos, run = data / "kangaroo" / "images", tmp_path / "run"
    names = sorted(path.name for path in photos.iterdir())
    (tmp_path / "labels.csv").write_text("\n".join(["image_id,label", *(f"{name},104" for name in names)]))
    source = ["--images", photos, "--labels", tmp_path / "labels.csv", "--precision", "fp32"]
    assert Command("label", *source, "--out", run, *INLINE, *LITE0).code == 0
    truth = ["--truth", data / "kangaroo" / "annots", "--class-map", "kangaroo=104"]
    done = Command("calibrate", run, *truth, "--out", tmp_path / "calibration.json")
    assert (done.code, done.result["images"]) == (0, len(names))
    assert rebox(run, tmp_path / "new", "--calibration", tmp_path / "calibration.json").code == 0
    assert Command("verify", tmp_path / "new").code == 0
    held_out = json.loads((tmp_path / "calibration.json").read_text())["held_out"]
    for out, figure in ((run, "run"), (tmp_path / "new", "calibrated")):
        rows = table_rows(out, "boxes")
        is_held_out_N = uniforms(image_seeds([row["image_id"] for row in rows]), range(2**32, 2**32 + 1))[0] >= 0.5
        rows = [row for row, is_held_out in zip(rows, is_held_out_N, strict=True) if is_held_out]
        assert len(rows) == held_out["figures"][figure]["gt_known_loc"]["images"]
        right = [overlap(row, data / "kangaroo" / "annots") >= 0.5 for row in rows]
        assert held_out["figures"][figure]["gt_known_loc"]["value"] == pytest.approx(100 * np.mean(right), abs=1e-3)
    assert all(0 <= row["probability"] <= 1 for row in rows)


def overlap(row: dict[str, Any], annotations: Path) -> float:
    """Return a box's largest IoU with a true box, read of its XML: whole pixels that count from 1."""
    text = (annotations / row["image_id"]).with_suffix(".xml").read_text()
    truth_M4 = np.array(re.findall(r"<(?:xmin|ymin|xmax|ymax)>(\d+)<", text), np.float64).reshape(-1, 4)
    box_14 = torch.tensor([[row[name] for name in ("x0", "y0", "x1", "y1")]], dtype=torch.float64)
    return float(torchvision.ops.box_iou(box_14, torch.from_numpy(truth_M4 - [1, 1, 0, 0])).max())
