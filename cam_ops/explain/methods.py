"""CAM methods: from features, and gradients where a method asks for them, to raw maps.

All functions take P explained (image, class) pairs:

* `features_PCN`: A, the features of the pair's image at the cut, its grid flattened;
* `gradient_PCX`: dy/dA of the pair's class score, X = N, or X = 1 where it is the same in all cells. Behind a global
  average it always is; on an affine head it is W / N, and each formula becomes the closed form that its test states;

and return raw, signed maps (P, N) before any final ReLU or scaling, float32. P = 0 gives an empty tensor.
"""

from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from cam_ops.errors import UsageError
from cam_ops.network.heads import Head
from cam_ops.settings import ATTENTION, DECOMPOSABLE, Method


def cam(features_PCN: Tensor, weight_PC: Tensor) -> Tensor:
    """sum_k W_ck A_k: Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", equation 2."""
    return _weighted_sum(weight_PC[:, :, None], features_PCN)


def gradcam(features_PCN: Tensor, gradient_PCX: Tensor) -> Tensor:
    """sum_k mean_xy(dy/dA_k) A_k: Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2 without the ReLU.

    On an affine head CAM / N.
    """
    return _weighted_sum(gradient_PCX.mean(2, keepdim=True), features_PCN)


def hirescam(features_PCN: Tensor, gradient_PCX: Tensor) -> Tensor:
    """sum_k dy/dA_k * A_k: Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM". On an affine head CAM / N."""
    return _weighted_sum(gradient_PCX, features_PCN)


def xgradcam(features_PCN: Tensor, gradient_PCX: Tensor) -> Tensor:
    """sum_k [sum_xy(dy/dA_k A_k) / sum_xy A_k] A_k: Fu et al. 2020, "Axiom-based Grad-CAM".

    A channel whose sum is 0 contributes nothing. On an affine head CAM / N.
    """
    total_PC = features_PCN.sum(2)
    weight_PC = torch.where(total_PC != 0, (gradient_PCX * features_PCN).sum(2) / total_PC, 0)
    return _weighted_sum(weight_PC[:, :, None], features_PCN)


def gradcam_plus_plus(features_PCN: Tensor, gradient_PCX: Tensor) -> Tensor:
    """sum_k w_k A_k with w_k = sum_xy alpha_k relu(g_k): Chattopadhyay et al. 2018, "Grad-CAM++", equation 19.

    alpha_k = g_k^2 / (2 g_k^2 + g_k^3 sum_xy A_k), 0 where g_k is. On an affine head w_k = relu(W_ck) / (2 + W_ck F_k).
    """
    return smooth_gradcam_plus_plus(features_PCN, gradient_PCX, gradient_PCX**2, gradient_PCX**3)


def smooth_gradcam_plus_plus(
    features_PCN: Tensor, gradient_PCX: Tensor, squared_PCX: Tensor, cubed_PCX: Tensor
) -> Tensor:
    """Grad-CAM++ from means of g, g^2 and g^3 over noisy copies of the input: Omeiza et al. 2019, "Smooth Grad-CAM++".

    alpha's numerator is the mean square, as in Grad-CAM++; the paper prints the first power. On an affine head noise
    changes no gradient, so this is Grad-CAM++.
    """
    denominator_PCX = 2 * squared_PCX + cubed_PCX * features_PCN.sum(2, keepdim=True)
    alpha_PCX = torch.where(denominator_PCX != 0, squared_PCX / denominator_PCX, 0)
    weight_PC1 = (alpha_PCX * gradient_PCX.relu()).mean(2, keepdim=True) * features_PCN.shape[2]
    return _weighted_sum(weight_PC1, features_PCN)


def layercam(features_PCN: Tensor, gradient_PCX: Tensor) -> Tensor:
    """sum_k relu(dy/dA_k) A_k: Jiang et al. 2021, "LayerCAM", without the last ReLU. On an affine head NWC / N."""
    return _weighted_sum(gradient_PCX.relu(), features_PCN)


def gradcam_elementwise(features_PCN: Tensor, gradient_PCX: Tensor) -> Tensor:
    """sum_k relu(dy/dA_k A_k): Pillai and Pirsiavash 2021, "Explainable Models with Consistent Interpretations"."""
    return (gradient_PCX * features_PCN).relu().sum(1)


def nwc(features_PCN: Tensor, gradient_PCX: Tensor) -> Tensor:
    """sum_k relu(W_ck) A_k, negative weights clamped: Bae et al. 2020, "Rethinking Class Activation Mapping".

    W_ck is N times the mean gradient: the head's weight where that is affine.
    """
    return _weighted_sum(gradient_PCX.mean(2, keepdim=True).relu(), features_PCN) * features_PCN.shape[2]


def bagcam(features_PCN: Tensor, gradient_PCX: Tensor) -> Tensor:
    """sum_k relu((1 + mean_xy(g_k A_k)) g_k A_k): Zhu et al. 2022, "Bagging Regional Classification Activation Maps".

    g is the gradient with guided ReLUs; before the last average, where no ReLU follows, the gradient itself.
    """
    explained_PCN = gradient_PCX * features_PCN
    return ((1 + explained_PCN.mean(2, keepdim=True)) * explained_PCN).relu().sum(1)


def ablationcam(features_PCN: Tensor, drop_PC: Tensor) -> Tensor:
    """sum_k [(y - y_without_k) / y] A_k: Ramaswamy and Ramaswamy 2020, "Ablation-CAM", equation 3.

    `drop_PC` is the bracket; on an affine head it is W_ck F_k / y_c.
    """
    return _weighted_sum(drop_PC[:, :, None], features_PCN)


def scorecam(features_PCN: Tensor, masked_score_PC: Tensor) -> Tensor:
    """sum_k softmax_k(y of the picture masked by A_k) A_k: Wang et al. 2020, "Score-CAM", equations 7 to 9.

    A mask is A_k enlarged and scaled to 0..1; the baseline's score cancels in the softmax.
    """
    return _weighted_sum(masked_score_PC.softmax(1)[:, :, None], features_PCN)


def eigencam(features_PCN: Tensor) -> Tensor:
    """Projection on the first right singular vector of A: Muhammad and Yeasin 2020, "Eigen-CAM".

    The same for every class. The paper leaves the sign open; here the map sums to a positive number.
    """
    projected_PN = _first_component(features_PCN)
    return projected_PN * _sign(projected_PN.sum(1))[:, None]


def eigengradcam(features_PCN: Tensor, gradient_PCX: Tensor) -> Tensor:
    """First principal component of dy/dA * A over the grid, centred, as in pytorch-grad-cam.

    The sign, which that leaves open, is that with which the map correlates with HiResCAM's.
    """
    explained_PCN = gradient_PCX * features_PCN
    projected_PN = _first_component(explained_PCN - explained_PCN.mean(2, keepdim=True))
    return projected_PN * _sign((projected_PN * explained_PCN.sum(1)).sum(1))[:, None]


def pc1(features_PCN: Tensor) -> Tensor:
    """First principal component of A over the grid, centred: Yasuki and Taki 2024, "CAM Back Again".

    The same for every class. The sign is that with which the map correlates with the sum of the features over channels.
    """
    projected_PN = _first_component(features_PCN - features_PCN.mean(2, keepdim=True))
    return projected_PN * _sign((projected_PN * features_PCN.sum(1)).sum(1))[:, None]


FROM_FEATURES: dict[Method, Callable[[Tensor], Tensor]] = {"eigencam": eigencam, "pc1": pc1}
FROM_GRADIENTS: dict[Method, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
    "hirescam": hirescam,
    "layercam": layercam,
    "gradcam-elementwise": gradcam_elementwise,
    "nwc": nwc,
    "bagcam": bagcam,
    "finercam": gradcam,  # of a class score less those of similar classes: Zhang et al. 2025, "Finer-CAM", equation 4
    "eigengradcam": eigengradcam,
}
FROM_CELL_SHARES: tuple[Method, ...] = (  # maps in units of dy/dA, which shrinks with the number of cells
    *("gradcam", "xgradcam", "hirescam", "layercam", "gradcam-elementwise", "bagcam", "finercam", "eigengradcam"),
)


def methods_for(head: Head) -> list[Method]:
    """Return the methods that make sense behind this cut, but for those that look at attention."""
    return [
        method
        for method in get_args(Method)
        if method not in ATTENTION and (method != "cam" or head.kind in DECOMPOSABLE)
    ]


def check_method(method: Method, head: Head) -> None:
    """Raise UsageError for a method that the head does not allow."""
    if method == "finercam" and head.num_classes < 2:
        raise UsageError("--method finercam compares classes, the network has a single one; use another")
    if method in ATTENTION or method in methods_for(head):
        return
    why = {
        "pooled": "its logits are not an affine function of the averaged features",
        "layer": "no average of a whole grid alone decides its logits",
    }[head.kind]
    raise UsageError(
        f"--method {method} does not exist for this network: {why}; expected one of {', '.join(methods_for(head))}"
    )


def _weighted_sum(weight_PCX: Tensor, features_PCN: Tensor) -> Tensor:
    """Return sum_k weight_k A_k, (P, N), for weights of each cell or of each channel."""
    if weight_PCX.shape[2] == 1:
        return torch.bmm(weight_PCX.mT, features_PCN)[:, 0]
    return (weight_PCX * features_PCN).sum(1)


def _first_component(features_PCN: Tensor) -> Tensor:
    """Project each cell's features on the first right singular vector of the (N, C) matrix, (P, N), sign undefined.

    NaN for pairs whose features are not finite, for which torch raises an error.
    """
    is_finite_P = features_PCN.isfinite().all(2).all(1)
    finite_PCN = torch.where(is_finite_P[:, None, None], features_PCN, 0)
    left_PNR, values_PR, _ = torch.linalg.svd(finite_PCN.mT, full_matrices=False)
    return torch.where(is_finite_P[:, None], left_PNR[:, :, 0] * values_PR[:, :1], torch.nan)


def _sign(value_P: Tensor) -> Tensor:
    return torch.where(value_P < 0, -1.0, 1.0)
