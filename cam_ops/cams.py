"""Class activation maps of networks whose head is affine in the averaged features.

Letters: B images, C channels, H, W the grid, K classes, P explained (image, class) pairs.
"""

import torch
from torch import Tensor

from cam_ops.heads import Head


def class_activation_maps(features_BCHW: Tensor, head: Head, image_P: Tensor, class_P: Tensor) -> Tensor:
    """Return M_c(x, y) = sum_k W_ck f_k(x, y) for each pair: raw, signed, float32, shape (P, H, W).

    No bias, no ReLU, no scaling. `image_P` indexes the batch and `class_P` the classes, both int64; P = 0 gives an
    empty tensor. Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", equation 2.
    """
    height, width = features_BCHW.shape[2:]
    weight_P1C = head.weight_KC[class_P][:, None]
    features_PCN = features_BCHW.flatten(2)[image_P]
    return torch.bmm(weight_P1C, features_PCN).reshape(-1, height, width)


def completeness_residuals(cams_PHW: Tensor, logits_BK: Tensor, head: Head, image_P: Tensor, class_P: Tensor) -> Tensor:
    """Return |mean(M_c) + b_c - y_c| / max |y| for each pair, shape (P,): 0 where the map explains its score fully."""
    explained_P = cams_PHW.mean((1, 2)) + head.bias_K[class_P]
    return (explained_P - logits_BK[image_P, class_P]).abs() / logits_BK.abs().amax(1)[image_P]
