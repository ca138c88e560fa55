"""Fit a calibration to boxes of which it is known whether they are right: thresholds and probability.

Small and deterministic, in numpy alone, as what is fitted is small. Letters: R normalisers, T thresholds in rising
order, C classes, N images or boxes, F signals, G groups of boxes, K knots.
"""

import numpy as np

from cam_ops.arrays import F64, I64, Bools
from cam_ops.boxes.calibration import ProbabilityModel

STANDARD_ERRORS = 1.5  # by which another setting must be better; 1 lost points on small samples, 2 missed gains
RIDGE = 1.0
NUM_FOLDS = 5
GROUP_SIZE = 20  # boxes whose share of right ones is one point of the monotone fit; more where there are many
MAX_GROUPS = 50
TOLERANCE = 1e-9  # figures that differ by less are equal


def smoothed(values_T: F64) -> F64:
    """Average each value with its neighbours, of which the first and the last have one; over the last axis."""
    padded_T = np.concatenate([values_T[..., :1] * 0, values_T, values_T[..., :1] * 0], axis=-1)
    counts_T = np.full(values_T.shape[-1], 3)
    counts_T[[0, -1]] = 2
    averaged: F64 = (padded_T[..., :-2] + padded_T[..., 1:-1] + padded_T[..., 2:]) / counts_T
    return averaged


def plateau_middle(values_T: F64) -> tuple[int, int]:
    """Return the middle of the longest run of places with the highest value, the first of equals, and its length."""
    runs: list[list[int]] = []
    for place in np.flatnonzero(values_T >= values_T.max() - TOLERANCE).tolist():
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    longest = max(runs, key=len)
    return longest[(len(longest) - 1) // 2], len(longest)


def best_setting(correct_RTN: Bools, own_N: Bools) -> tuple[int, int] | None:
    """Return normaliser and threshold that are best, None where no other is surely better than one's own.

    What counts is by how much larger the share of right images is than with one's own setting, less 1.5 standard errors
    of that difference, image by image. Shares are `smoothed` over the thresholds, so that one lucky threshold does not
    win. Of equal ones the middle of the longest plateau is taken, of equally long ones the first normaliser's.
    """
    gain_RT = np.stack([_sure_gain(correct_TN, own_N) for correct_TN in correct_RTN])
    if gain_RT.max() <= TOLERANCE:
        return None
    best_R = [plateau_middle(gain_T) for gain_T in gain_RT]
    candidates = [normaliser for normaliser, gain in enumerate(gain_RT.max(1)) if gain >= gain_RT.max() - TOLERANCE]
    normaliser = max(candidates, key=lambda candidate: best_R[candidate][1])
    return normaliser, best_R[normaliser][0]


def _sure_gain(correct_TN: Bools, own_N: Bools) -> F64:
    gain_NT = smoothed(correct_TN.T.astype(np.float64)) - own_N[:, None]
    sure_T: F64 = gain_NT.mean(0) - STANDARD_ERRORS * gain_NT.std(0) / np.sqrt(len(gain_NT))
    return sure_T


def class_settings(correct_TN: Bools, class_N: I64, shared: int, shrinkage: float) -> dict[int, int]:
    """Return the best threshold of each class in `class_N`, shrunk towards the `shared` one of all.

    To a class's own images come `shrinkage` further ones that are as all are on average, at no threshold better than at
    the shared one. So a class of few images keeps that one unless they are clear about another. A class that has half
    of the images or more keeps it, too: it was chosen on these, with more caution. Shares are `smoothed`.
    """
    share_T = smoothed(correct_TN.mean(1))
    usual_T = np.minimum(share_T, share_T[shared])
    settings: dict[int, int] = {}
    for class_id in np.unique(class_N).tolist():
        own_TN = correct_TN[:, class_N == class_id]
        shrunk_T = (smoothed(own_TN.sum(1)) + shrinkage * usual_T) / (own_TN.shape[1] + shrinkage)
        is_rare = 2 * own_TN.shape[1] < len(class_N)
        is_better = is_rare and shrunk_T.max() > shrunk_T[shared] + TOLERANCE
        settings[class_id] = plateau_middle(shrunk_T)[0] if is_better else shared
    return settings


def fit_probability(signals_NF: F64, correct_N: Bools, image_N: I64) -> ProbabilityModel:
    """Fit the probability that a box is right: a logistic regression of its signals, made honest by a monotone fit.

    The monotone fit (isotonic, centred: Oron & Flournoy 2017) is made to scores that boxes get from a regression
    without the boxes of their own image (cross-fitting in five folds of `image_N`), in groups of at least twenty
    boxes that are each drawn to the mean of all by two more; straight lines lie between the groups.
    """
    intercept, coefficients_F = fit_logistic(signals_NF, correct_N)
    combined_N = np.empty(len(correct_N))
    for fold in range(NUM_FOLDS):
        left_out_N = image_N % NUM_FOLDS == fold
        its_intercept, its_F = fit_logistic(signals_NF[~left_out_N], correct_N[~left_out_N])
        combined_N[left_out_N] = its_intercept + signals_NF[left_out_N] @ its_F
    return ProbabilityModel(
        intercept=rounded(intercept),
        coefficients=tuple(map(rounded, coefficients_F.tolist())),
        knots=_knots(combined_N, correct_N),
    )


def rounded(number: float) -> float:
    """Round to nine digits: what is written does not show the last bits of a processor's arithmetic."""
    return float(f"{number:.9g}")


def fit_logistic(signals_NF: F64, correct_N: Bools, ridge: float = RIDGE) -> tuple[float, F64]:
    """Return intercept and coefficients of the logistic regression of highest penalised likelihood.

    Signals are standardised first; the penalty is `ridge` / 2 times the sum of their squared coefficients, without the
    intercept. Newton's method, each step halved until it is an improvement. Signals that do not vary have coefficient
    0, and all have where no box is right, or all are.
    """
    num_signals = signals_NF.shape[1]
    if len(correct_N) == 0 or correct_N.all() or not correct_N.any():
        return 0.0, np.zeros(num_signals)
    mean_F, deviation_F = signals_NF.mean(0), signals_NF.std(0)
    varies_F = deviation_F > TOLERANCE
    scale_F = np.where(varies_F, deviation_F, 1)
    design = np.column_stack([np.ones(len(correct_N)), (signals_NF - mean_F) / scale_F * varies_F])
    penalty = np.array([0.0, *[ridge] * num_signals])
    weights = np.zeros(num_signals + 1)

    def loss(weights: F64) -> float:
        combined_N = design @ weights
        return float(np.logaddexp(0, np.where(correct_N, -combined_N, combined_N)).sum() + penalty @ weights**2 / 2)

    for _ in range(100):
        probability_N = (1 + np.tanh(design @ weights / 2)) / 2  # the logistic function, without overflow
        gradient = design.T @ (probability_N - correct_N) + penalty * weights
        curvature = (design.T * (probability_N * (1 - probability_N))) @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        before = loss(weights)
        while loss(weights - step) > before and np.abs(step).max() > TOLERANCE:
            step /= 2
        weights = weights - step
        if np.abs(step).max() <= TOLERANCE:
            break
    coefficients_F: F64 = np.where(varies_F, weights[1:] / scale_F, 0)
    return float(weights[0] - coefficients_F @ mean_F), coefficients_F


def _knots(combined_N: F64, correct_N: Bools) -> tuple[tuple[float, float], ...]:
    order_N = np.argsort(combined_N, kind="stable")
    num_groups = max(1, min(MAX_GROUPS, len(order_N) // GROUP_SIZE))
    groups = np.array_split(order_N, num_groups)
    scores = [rounded(float(combined_N[group].mean())) for group in groups]
    score_G, place = np.unique(scores, return_inverse=True)  # groups of equal score are one
    size_G = np.bincount(place, weights=[len(group) for group in groups]).astype(np.float64)
    right_G = np.bincount(place, weights=[correct_N[group].sum() for group in groups])
    level_G = isotonic((right_G + 2 * correct_N.mean()) / (size_G + 2), size_G)
    knots: dict[float, float] = {}
    for level in np.unique(level_G).tolist():
        inside_G = level_G == level
        knots[rounded(float(np.average(score_G[inside_G], weights=size_G[inside_G])))] = rounded(level)
    return tuple(sorted(knots.items()))


def isotonic(values_N: F64, weights_N: F64) -> F64:
    """Return the rising sequence nearest to the values, by weighted squares: pool adjacent violators."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values_N.tolist(), weights_N.tolist(), strict=True):
        mean, mass, length = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, its_mass, its_length = blocks.pop()
            mean = (before * its_mass + mean * mass) / (its_mass + mass)
            mass, length = its_mass + mass, its_length + length
        blocks.append((mean, mass, length))
    means = [mean for mean, _, _ in blocks]
    return np.repeat(np.array(means), [length for _, _, length in blocks])
