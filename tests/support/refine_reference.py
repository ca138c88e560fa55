"""The finer map of a class from the network's own features, computed slowly, in float64, from the written recipe alone.

A map of a class is carried from the last grid, h x w, to the grid of stride 8, Q x V, by the network's own features.
Letters: C channels (of whichever tensor), h, w the last grid, K, L the grid of stride 16, Q, V that of stride
8.
All arrays are float64; `inside` is (x0, y0, x1, y1), the part of the input that the picture covers, in
fractions of its sides: a cell takes part if its centre lies strictly inside.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

Inside = tuple[float, float, float, float]


def reference_map(
    cam_hw: np.ndarray, a16_CKL: np.ndarray, a8_CQV: np.ndarray, gradient_CKL: np.ndarray, inside: Inside | None = None
) -> np.ndarray:
    """Return the map R, (Q, V), from the raw map and two feature tensors; 0 in cells outside.

    `gradient_CKL` is that of the class's score by a16. Where no cell has a seed, R is the positive part of the raw map,
    enlarged (bicubic, which may dip below 0).
    """
    cam_hw, a16_CKL, a8_CQV, gradient_CKL = (
        np.array(array, np.float64) for array in (cam_hw, a16_CKL, a8_CQV, gradient_CKL)
    )
    (k, m), (q, v) = a16_CKL.shape[1:], a8_CQV.shape[1:]
    cam_is_inside, key_is_inside, query_is_inside = (
        cells_inside(shape, inside) for shape in (cam_hw.shape, (k, m), (q, v))
    )
    for y in range(cam_hw.shape[0]):
        for x in range(cam_hw.shape[1]):
            if not cam_is_inside[y][x]:
                cam_hw[y, x] = 0

    seed_KL = seed_of(cam_hw, a16_CKL, gradient_CKL, key_is_inside)
    if not (seed_KL > 0).any():
        refined_QV = enlarged(np.maximum(cam_hw, 0)[None], (q, v), "bicubic")[0].copy()
    else:
        refined_QV = carried(seed_KL, a16_CKL, a8_CQV, key_is_inside, query_is_inside)
    for y in range(q):
        for x in range(v):
            if not query_is_inside[y][x]:
                refined_QV[y, x] = 0
    return refined_QV


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
    cam_hw: np.ndarray, a16_CKL: np.ndarray, gradient_CKL: np.ndarray, is_inside: list[list[bool]]
) -> np.ndarray:
    """Return the geometric mean of the enlarged map and of what each cell's features add to the score, (K, L)."""
    num_channels, k, m = a16_CKL.shape
    cam_KL, seed_KL = enlarged(cam_hw[None], (k, m), "bicubic")[0], np.zeros((k, m))
    for y in range(k):
        for x in range(m):
            if is_inside[y][x]:
                gain = sum(max(gradient_CKL[c, y, x] * a16_CKL[c, y, x], 0.0) for c in range(num_channels))
                seed_KL[y, x] = math.sqrt(max(cam_KL[y, x], 0.0) * gain)
    return seed_KL


def carried(
    seed_KL: np.ndarray,
    a16_CKL: np.ndarray,
    a8_CQV: np.ndarray,
    key_is_inside: list[list[bool]],
    query_is_inside: list[list[bool]],
) -> np.ndarray:
    """Return the square of the mean of the seed, weighted for each cell by how alike features are, (Q, V)."""
    (k, m), (q, v) = a16_CKL.shape[1:], a8_CQV.shape[1:]
    centred16_CKL = centred(a16_CKL, key_is_inside)
    centred8_CQV = centred(a8_CQV, query_is_inside)
    pooled8_CKL = adaptive_avg_pool2d(torch.from_numpy(centred8_CQV), (k, m)).numpy().copy()
    for y in range(k):
        for x in range(m):
            if not key_is_inside[y][x]:
                pooled8_CKL[:, y, x] = 0
    unit16_CKL, unit8_CQV, key8_CKL = unit(centred16_CKL), unit(centred8_CQV), unit(pooled8_CKL)
    enlarged_seed_QV = enlarged(seed_KL[None], (q, v), "bilinear")[0]

    keys = [(y, x) for y in range(k) for x in range(m) if key_is_inside[y][x]]
    similar16_of = {key: similarity(unit16_CKL, unit16_CKL[:, key[0], key[1]]) for key in keys}  # K x L
    similar16_of = {key: enlarged(similar_KL[None], (q, v), "bilinear")[0] for key, similar_KL in similar16_of.items()}
    refined_QV = np.zeros((q, v))
    for y in range(q):
        for x in range(v):
            total, weights = 0.0, 0.0
            for key in keys:
                similar8 = float(np.dot(unit8_CQV[:, y, x], key8_CKL[:, key[0], key[1]]))
                affinity = max((similar8 + similar16_of[key][y, x]) / 2, 0.0) ** 2
                total += affinity * seed_KL[key]
                weights += affinity
            refined_QV[y, x] = (total / weights) ** 2 if weights > 0 else enlarged_seed_QV[y, x] ** 2
    return refined_QV


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


def enlarged(maps_CHW: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """Resize, (C, *size), as torch does with half-pixel centres."""
    maps_1CHW = torch.from_numpy(maps_CHW)[None]
    return interpolate(maps_1CHW, size=size, mode=mode, align_corners=False)[0].numpy()


def reference_tensors(
    network: nn.Module, image_1CHW: torch.Tensor, a16_name: str, a8_name: str, class_id: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what two modules put out for one image, and the gradient of a class's logit by the first of them.

    `image_1CHW` has the network's dtype; the three arrays, (C, K, L), (C, Q, V) and (C, K, L), are float64. The
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
            (gradient_1CKL,) = torch.autograd.grad(logits_1L[0, class_id], kept[a16_name])
    finally:
        for handle in handles:
            handle.remove()
    a16_CKL, a8_CQV, gradient_CKL = (
        tensor[0].detach().double().numpy() for tensor in (kept[a16_name], kept[a8_name], gradient_1CKL)
    )
    return a16_CKL, a8_CQV, gradient_CKL
