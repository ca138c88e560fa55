"""CAM methods on networks whose head is affine in the averaged features: closed forms, forward pass only.

There y_c = sum_k W_ck F_k + b_c with F_k = mean_xy A_k, so the gradient of y_c with respect to A_k is the constant
W_ck / N on a grid of N cells, and every gradient method has a closed form. All functions take P explained (image,
class) pairs:

* `features_PCN`: A, the averaged features of the pair's image, its grid flattened;
* `weight_PC`: W, the head's weights of the pair's class;
* `logit_P`: y, the pair's class score;

and return raw, signed maps (P, N) before any final ReLU or scaling, float32. P = 0 gives an empty tensor.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from cam_ops.errors import UsageError
from cam_ops.heads import Head

Method = Literal[
    "cam",
    "gradcam",
    "gradcam++",
    "xgradcam",
    "hirescam",
    "layercam",
    "gradcam-elementwise",
    "nwc",
    "ablationcam",
    "eigencam",
    "eigengradcam",
    "pc1",
]


def cam(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """sum_k W_ck A_k: Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", equation 2."""
    return _weighted_sum(weight_PC, features_PCN)


def gradcam(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """sum_k mean_xy(dy/dA_k) A_k: Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2 without the ReLU; CAM / N."""
    return _weighted_sum(weight_PC, features_PCN) / features_PCN.shape[2]


def hirescam(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """sum_k dy/dA_k * A_k: Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM"; CAM / N as well."""
    return gradcam(features_PCN, weight_PC, logit_P)


def xgradcam(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """sum_k [sum_xy(dy/dA_k A_k) / sum_xy A_k] A_k: Fu et al. 2020, "Axiom-based Grad-CAM".

    A channel whose sum is 0 contributes nothing.
    """
    contributes_PC = features_PCN.sum(2) != 0
    return gradcam(features_PCN, weight_PC * contributes_PC, logit_P)


def gradcam_plus_plus(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """sum_k [relu(W_ck) / (2 + W_ck F_k)] A_k: Chattopadhyay et al. 2018, "Grad-CAM++", equation 19."""
    denominator_PC = 2 + weight_PC * features_PCN.mean(2)
    return _weighted_sum(torch.where(weight_PC > 0, weight_PC / denominator_PC, 0), features_PCN)


def layercam(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """sum_k relu(dy/dA_k) A_k: Jiang et al. 2021, "LayerCAM", without the last ReLU; NWC / N."""
    return nwc(features_PCN, weight_PC, logit_P) / features_PCN.shape[2]


def gradcam_elementwise(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """sum_k relu(dy/dA_k A_k): Pillai and Pirsiavash 2021, "Explainable Models with Consistent Interpretations"."""
    return (weight_PC[:, :, None] * features_PCN).relu().sum(1) / features_PCN.shape[2]


def nwc(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """sum_k relu(W_ck) A_k: negative weights clamped, Bae et al. 2020, "Rethinking Class Activation Mapping"."""
    return _weighted_sum(weight_PC.relu(), features_PCN)


def ablationcam(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """sum_k [(y - y_without_k) / y] A_k: Ramaswamy and Ramaswamy 2020, "Ablation-CAM": the weight is W_ck F_k / y_c."""
    drop_PC = weight_PC * features_PCN.mean(2) / logit_P[:, None]
    return _weighted_sum(drop_PC, features_PCN)


def eigencam(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """Projection on the first right singular vector of A: Muhammad and Yeasin 2020, "Eigen-CAM".

    The same for every class. The paper leaves the sign open; here the map sums to a positive number.
    """
    projected_PN = _first_component(features_PCN)
    return projected_PN * _sign(projected_PN.sum(1))[:, None]


def eigengradcam(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """First principal component of dy/dA * A over the grid, centred, as in pytorch-grad-cam.

    The sign, which that leaves open, is that with which the map correlates with the class activation map.
    """
    explained_PCN = weight_PC[:, :, None] * features_PCN / features_PCN.shape[2]
    projected_PN = _first_component(explained_PCN - explained_PCN.mean(2, keepdim=True))
    return projected_PN * _sign((projected_PN * explained_PCN.sum(1)).sum(1))[:, None]


def pc1(features_PCN: Tensor, weight_PC: Tensor, logit_P: Tensor) -> Tensor:
    """First principal component of A over the grid, centred: Yasuki and Taki 2024, "CAM Back Again".

    The same for every class. The sign is that with which the map correlates with the sum of the features over channels.
    """
    projected_PN = _first_component(features_PCN - features_PCN.mean(2, keepdim=True))
    return projected_PN * _sign((projected_PN * features_PCN.sum(1)).sum(1))[:, None]


METHODS: dict[Method, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cam": cam,
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
    "hirescam": hirescam,
    "layercam": layercam,
    "gradcam-elementwise": gradcam_elementwise,
    "nwc": nwc,
    "ablationcam": ablationcam,
    "eigencam": eigencam,
    "eigengradcam": eigengradcam,
    "pc1": pc1,
}
assert set(METHODS) == set(get_args(Method))


WITH_LAYER_NORM: tuple[Method, ...] = ("cam", "eigencam", "pc1")


def check_method(method: Method, head: Head) -> None:
    """Raise UsageError for a method that has no closed form on this head.

    Through a layer norm the gradient is not W: its map sums to 0 whatever the picture shows.
    """
    if head.norm_eps is not None and method not in WITH_LAYER_NORM:
        raise UsageError(
            f"--method {method} has no closed form on a network with a layer norm after pooling; "
            f"expected one of {', '.join(WITH_LAYER_NORM)}"
        )


def explain(
    method: Method, features_BCHW: Tensor, logits_BK: Tensor, head: Head, image_P: Tensor, class_P: Tensor
) -> Tensor:
    """Return the raw map of each (image, class) pair by `method`, float32 (P, H, W)."""
    height, width = features_BCHW.shape[2:]
    maps_PN = METHODS[method](features_BCHW.flatten(2)[image_P], head.weight_KC[class_P], logits_BK[image_P, class_P])
    return maps_PN.reshape(-1, height, width)


def completeness_residuals(
    features_BCHW: Tensor, logits_BK: Tensor, head: Head, image_P: Tensor, class_P: Tensor
) -> Tensor:
    """Return |mean(M_c) + b_c - y_c| / max |y| of each pair's class activation map M_c, shape (P,).

    It is 0 where the features and the head explain the score fully, whatever the method.
    """
    mean_P = explain("cam", features_BCHW, logits_BK, head, image_P, class_P).mean((1, 2))
    explained_P = mean_P + head.bias_K[class_P]
    return (explained_P - logits_BK[image_P, class_P]).abs() / logits_BK.abs().amax(1)[image_P]


def _weighted_sum(weight_PC: Tensor, features_PCN: Tensor) -> Tensor:
    return torch.bmm(weight_PC[:, None], features_PCN)[:, 0]


def _first_component(features_PCN: Tensor) -> Tensor:
    """Project each cell's features on the first right singular vector of the (N, C) matrix, (P, N), sign undefined."""
    left_PNR, values_PR, _ = torch.linalg.svd(features_PCN.mT, full_matrices=False)
    projected_PN: Tensor = left_PNR[:, :, 0] * values_PR[:, :1]
    return projected_PN


def _sign(value_P: Tensor) -> Tensor:
    return torch.where(value_P < 0, -1.0, 1.0)
