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
CELLS = 2**14  # of replicates and images at once: in a core's cache


def image_seeds(image_ids: list[str]) -> U64:
    """Return a number for each id, (N,)."""
    digests = [hashlib.blake2b(image_id.encode(), digest_size=8).digest() for image_id in image_ids]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def uniforms(seed_N: U64, streams: range) -> F64:
    """Return numbers in [0, 1) for each seed, (B, N): SplitMix64's outputs at places `streams` (Steele et al. 2014)."""
    state_BN = seed_N + np.array([place * GOLDEN % 2**64 for place in streams], np.uint64)[:, None]
    state_BN = (state_BN ^ (state_BN >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state_BN = (state_BN ^ (state_BN >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    share_BN: F64 = ((state_BN ^ (state_BN >> np.uint64(31))) >> np.uint64(11)) * np.float64(2.0**-53)
    return share_BN


def poisson_weights(seed_N: U64, num_replicates: int, first: int = 0) -> U8:
    """Return how often each replicate, from the `first` one on, counts each image, (B, N)."""
    weight_BN = np.empty((num_replicates, len(seed_N)), np.uint8)
    together = max(1, CELLS // max(1, len(seed_N)))
    for start in range(0, num_replicates, together):
        some_CN = weight_BN[start : start + together]
        streams = range(first + start + 1, first + start + 1 + len(some_CN))
        some_CN[:] = np.searchsorted(POISSON_CDF, uniforms(seed_N, streams), side="right")
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
