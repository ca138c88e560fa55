"""Vision transformers at another size: how large an input their position embeddings are for, and how they are resized.

Embeddings are (1, N, D): N is a square of patches, and the tokens before them. Bicubic, as the libraries do it.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

TORCHVISIONS, TIMMS = "encoder.pos_embedding", "pos_embed"
EMBEDDINGS = {TORCHVISIONS: "conv_proj.weight", TIMMS: "patch_embed.proj.weight"}
"""Names of embeddings, and of the convolution that makes patches, in torchvision and in timm."""
MOST_TOKENS = 8  # before the patches


def embeddings_in(state: dict[str, Tensor]) -> str | None:
    """Return the name of a network's position embeddings, None where it has none that can be resized."""
    for name, patches in EMBEDDINGS.items():
        if name in state and patches in state and state[name].ndim == 3 and state[patches].ndim == 4:
            return name
    return None


def num_tokens(state: dict[str, Tensor], name: str, side: int) -> int | None:
    """Return how many tokens stand before the patches of a network for inputs of `side`, None where that is unclear."""
    tokens = state[name].shape[1] - (side // state[EMBEDDINGS[name]].shape[-1]) ** 2
    return tokens if 0 <= tokens <= MOST_TOKENS else None


def side_of(embeddings_1ND: Tensor, patch_px: int, tokens: int) -> int | None:
    """Return the side of the input for which embeddings are, None where their patches are no square."""
    grid = math.isqrt(max(embeddings_1ND.shape[1] - tokens, 0))
    return grid * patch_px if grid and grid**2 + tokens == embeddings_1ND.shape[1] else None


def resized(embeddings_1ND: Tensor, num_positions: int, tokens: int, name: str) -> Tensor:
    """Return embeddings for `num_positions` tokens and patches, as the library does it whose embeddings have that name.

    As torchvision's `interpolate_embeddings`, and timm's `resample_abs_pos_embed`.
    """
    if embeddings_1ND.shape[1] == num_positions:
        return embeddings_1ND
    is_timm = name == TIMMS
    kept_1TD, patches_1ND = embeddings_1ND[:, :tokens].float(), embeddings_1ND[:, tokens:].float()
    old, new = math.isqrt(patches_1ND.shape[1]), math.isqrt(num_positions - tokens)
    grid_1DHW = patches_1ND.transpose(1, 2).reshape(1, -1, old, old)
    grid_1DHW = interpolate(grid_1DHW, (new, new), mode="bicubic", align_corners=not is_timm, antialias=is_timm)
    return torch.cat([kept_1TD, grid_1DHW.flatten(2).transpose(1, 2)], dim=1)
