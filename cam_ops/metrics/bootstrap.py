"""Bootstrap over images with weights that an image's id alone decides: they do not depend on how images are grouped.

Each replicate counts an image Poisson(1) times (Hanley & MacGibbon 2006), which for many images is drawing with
replacement. Weights are whole numbers, so that sums of counts are exact in any order. Two audits of the same images
have the same weights: their replicates are paired. Letters: N images, B replicates.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from cam_ops.arrays import F64, U8

U64 = NDArray[np.uint64]

TAILS = (2.5, 97.5)  # percent
MAX_WEIGHT = 12  # one image in 10**10 would have more
POISSON_CDF: F64 = np.cumsum([np.exp(-1.0) / np.prod(np.arange(1.0, k + 1)) for k in range(MAX_WEIGHT)])
GOLDEN = 0x9E3779B97F4A7C15


def image_seeds(image_ids: list[str]) -> U64:
    """Return a number for each id, (N,)."""
    digests = [hashlib.blake2b(image_id.encode(), digest_size=8).digest() for image_id in image_ids]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def uniforms(seed_N: U64, stream: int) -> F64:
    """Return a number in [0, 1) for each seed, (N,): SplitMix64's output at place `stream` (Steele et al. 2014)."""
    state_N = seed_N + np.uint64(stream * GOLDEN % 2**64)
    state_N = (state_N ^ (state_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state_N = (state_N ^ (state_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    share_N: F64 = ((state_N ^ (state_N >> np.uint64(31))) >> np.uint64(11)) * np.float64(2.0**-53)
    return share_N


def poisson_weights(seed_N: U64, num_replicates: int, first: int = 0) -> U8:
    """Return how often each replicate, from the `first` one on, counts each image, (B, N)."""
    weight_BN = np.empty((num_replicates, len(seed_N)), np.uint8)
    for b, weight_N in enumerate(weight_BN, first):
        weight_N[:] = np.searchsorted(POISSON_CDF, uniforms(seed_N, b + 1), side="right")
    return weight_BN


def interval(value: float, replicate_B: F64) -> tuple[float, float]:
    """Return the middle 95 % of a figure's replicates, moved so that their median is its value; NaN without any.

    Images that are counted twice favour what is chosen on them, maxima over thresholds and average precision: there the
    replicates are all too high, but no wider.
    """
    known_B = replicate_B[np.isfinite(replicate_B)]
    if not len(known_B):
        return float("nan"), float("nan")
    low, median, high = np.percentile(known_B, (TAILS[0], 50, TAILS[1]))
    return float(value + (low - median)), float(value + (high - median))
