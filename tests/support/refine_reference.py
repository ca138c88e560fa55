"""The finer map of a class from the network's own features, computed slowly, in float64, from the written recipe alone.

A map of a class is carried from the last grid, h x w, to the grid of stride 8, Q x Q, by the network's own features.
Letters: C channels (of whichever tensor), h, w the last grid, K the side of the grid of stride 16, Q that of stride 8.
All arrays are float64; `inside` is (x0, y0, x1, y1), the part of the square input that the picture covers, in
fractions of its side: a cell takes part if its centre lies strictly inside.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

Inside = tuple[float, float, float, float]


def reference_map(
    cam_hw: np.ndarray, a16_CKK: np.ndarray, a8_CQQ: np.ndarray, gradient_CKK: np.ndarray, inside: Inside | None = None
) -> np.ndarray:
    """Return the map R, (Q, Q), from the raw map and two feature tensors; 0 in cells outside.

    `gradient_CKK` is that of the class's score by a16. Where no cell has a seed, R is the positive part of the raw map,
    enlarged (bicubic, which may dip below 0).
    """
    cam_hw, a16_CKK, a8_CQQ, gradient_CKK = (
        np.array(array, np.float64) for array in (cam_hw, a16_CKK, a8_CQQ, gradient_CKK)
    )
    k, q = a16_CKK.shape[1], a8_CQQ.shape[1]
    cam_is_inside, key_is_inside, query_is_inside = (
        cells_inside(shape, inside) for shape in (cam_hw.shape, (k, k), (q, q))
    )
    for y in range(cam_hw.shape[0]):
        for x in range(cam_hw.shape[1]):
            if not cam_is_inside[y][x]:
                cam_hw[y, x] = 0

    seed_KK = seed_of(cam_hw, a16_CKK, gradient_CKK, key_is_inside)
    if not (seed_KK > 0).any():
        refined_QQ = enlarged(np.maximum(cam_hw, 0)[None], q, "bicubic")[0].copy()
    else:
        refined_QQ = carried(seed_KK, a16_CKK, a8_CQQ, key_is_inside, query_is_inside)
    for y in range(q):
        for x in range(q):
            if not query_is_inside[y][x]:
                refined_QQ[y, x] = 0
    return refined_QQ


def cells_inside(shape: tuple[int, int], inside: Inside | None) -> list[list[bool]]:
    """Say of each cell of a grid over the input whether its centre lies in the picture."""
    if inside is None:
        return [[True] * shape[1] for _ in range(shape[0])]
    x0, y0, x1, y1 = inside
    return [
        [x0 < (x + 0.5) / shape[1] < x1 and y0 < (y + 0.5) / shape[0] < y1 for x in range(shape[1])]
        for y in range(shape[0])
    ]


def seed_of(
    cam_hw: np.ndarray, a16_CKK: np.ndarray, gradient_CKK: np.ndarray, is_inside: list[list[bool]]
) -> np.ndarray:
    """Return the geometric mean of the enlarged map and of what each cell's features add to the score, (K, K)."""
    num_channels, k, _ = a16_CKK.shape
    cam_KK, seed_KK = enlarged(cam_hw[None], k, "bicubic")[0], np.zeros((k, k))
    for y in range(k):
        for x in range(k):
            if is_inside[y][x]:
                gain = sum(max(gradient_CKK[c, y, x] * a16_CKK[c, y, x], 0.0) for c in range(num_channels))
                seed_KK[y, x] = math.sqrt(max(cam_KK[y, x], 0.0) * gain)
    return seed_KK


def carried(
    seed_KK: np.ndarray,
    a16_CKK: np.ndarray,
    a8_CQQ: np.ndarray,
    key_is_inside: list[list[bool]],
    query_is_inside: list[list[bool]],
) -> np.ndarray:
    """Return the square of the mean of the seed, weighted for each cell by how alike features are, (Q, Q)."""
    k, q = a16_CKK.shape[1], a8_CQQ.shape[1]
    centred16_CKK = centred(a16_CKK, key_is_inside)
    centred8_CQQ = centred(a8_CQQ, query_is_inside)
    pooled8_CKK = adaptive_avg_pool2d(torch.from_numpy(centred8_CQQ), (k, k)).numpy().copy()
    for y in range(k):
        for x in range(k):
            if not key_is_inside[y][x]:
                pooled8_CKK[:, y, x] = 0
    unit16_CKK, unit8_CQQ, key8_CKK = unit(centred16_CKK), unit(centred8_CQQ), unit(pooled8_CKK)
    enlarged_seed_QQ = enlarged(seed_KK[None], q, "bilinear")[0]

    keys = [(y, x) for y in range(k) for x in range(k) if key_is_inside[y][x]]
    similar16_of = {key: similarity(unit16_CKK, unit16_CKK[:, key[0], key[1]]) for key in keys}  # K x K
    similar16_of = {key: enlarged(similar_KK[None], q, "bilinear")[0] for key, similar_KK in similar16_of.items()}
    refined_QQ = np.zeros((q, q))
    for y in range(q):
        for x in range(q):
            total, weights = 0.0, 0.0
            for key in keys:
                similar8 = float(np.dot(unit8_CQQ[:, y, x], key8_CKK[:, key[0], key[1]]))
                affinity = max((similar8 + similar16_of[key][y, x]) / 2, 0.0) ** 2
                total += affinity * seed_KK[key]
                weights += affinity
            refined_QQ[y, x] = (total / weights) ** 2 if weights > 0 else enlarged_seed_QQ[y, x] ** 2
    return refined_QQ


def centred(features_CHW: np.ndarray, is_inside: list[list[bool]]) -> np.ndarray:
    """Subtract from each channel its mean over the cells inside; 0 outside."""
    num_channels, height, width = features_CHW.shape
    cells = [(y, x) for y in range(height) for x in range(width) if is_inside[y][x]]
    centred_CHW = np.zeros(features_CHW.shape)
    for c in range(num_channels):
        mean = sum(features_CHW[c, y, x] for y, x in cells) / max(len(cells), 1)
        for y, x in cells:
            centred_CHW[c, y, x] = features_CHW[c, y, x] - mean
    return centred_CHW


def unit(features_CHW: np.ndarray) -> np.ndarray:
    """Divide the features of each cell by their length; those of length 0 stay 0."""
    unit_CHW = np.zeros(features_CHW.shape)
    for y in range(features_CHW.shape[1]):
        for x in range(features_CHW.shape[2]):
            length = math.sqrt(sum(value * value for value in features_CHW[:, y, x].tolist()))
            if length > 0:
                unit_CHW[:, y, x] = features_CHW[:, y, x] / length
    return unit_CHW


def similarity(unit_CHW: np.ndarray, key_C: np.ndarray) -> np.ndarray:
    """Return the product of each cell's features with those of one key, (H, W)."""
    similar_HW = np.zeros(unit_CHW.shape[1:])
    for y in range(similar_HW.shape[0]):
        for x in range(similar_HW.shape[1]):
            similar_HW[y, x] = float(np.dot(unit_CHW[:, y, x], key_C))
    return similar_HW


def enlarged(maps_CHW: np.ndarray, side: int, mode: str) -> np.ndarray:
    """Resize, (C, side, side), as torch does with half-pixel centres."""
    maps_1CHW = torch.from_numpy(maps_CHW)[None]
    return interpolate(maps_1CHW, size=(side, side), mode=mode, align_corners=False)[0].numpy()


def reference_tensors(
    network: nn.Module, image_1CHW: torch.Tensor, a16_name: str, a8_name: str, class_id: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what two modules put out for one image, and the gradient of a class's logit by the first of them.

    `image_1CHW` has the network's dtype; the three arrays, (C, K, K), (C, Q, Q) and (C, K, K), are float64. The
    network must be in eval mode, and must not change a module's output in place.
    """
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            kept[name] = output

        return network.get_submodule(name).register_forward_hook(hook)

    handles = [keep(name) for name in dict.fromkeys((a16_name, a8_name))]
    try:
        with torch.enable_grad():
            logits_1L = network(image_1CHW.detach().clone().requires_grad_())
            (gradient_1CKK,) = torch.autograd.grad(logits_1L[0, class_id], kept[a16_name])
    finally:
        for handle in handles:
            handle.remove()
    a16_CKK, a8_CQQ, gradient_CKK = (
        tensor[0].detach().double().numpy() for tensor in (kept[a16_name], kept[a8_name], gradient_1CKK)
    )
    return a16_CKK, a8_CQQ, gradient_CKK
