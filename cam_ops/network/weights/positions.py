"""Vision transformers at another size: how large an input their position embeddings are for, and how they are resized.

Embeddings are (1, N, D): N counts the tokens before the patches, and a square of patches.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

TORCHVISIONS, TIMMS = "encoder.pos_embedding", "pos_embed"
PATCHES = {TORCHVISIONS: "conv_proj.weight", TIMMS: "patch_embed.proj.weight"}  # the convolutions that make them
MOST_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """The position embeddings of a network."""

    name: str
    patch_px: int
    num_tokens: int  # before the patches

    def side_of(self, embeddings_1ND: Tensor) -> int | None:
        """Return the side in pixels of the inputs for which embeddings are, None where patches are no square."""
        num_patches = embeddings_1ND.shape[1] - self.num_tokens
        grid = math.isqrt(max(num_patches, 0))
        return grid * self.patch_px if grid and grid**2 == num_patches else None

    def resized(self, embeddings_1ND: Tensor, side: int) -> Tensor:
        """Return them for inputs of `side` pixels, bicubic and float32, as the library does it whose name they have.

        As torchvision's `interpolate_embeddings`, and timm's `resample_abs_pos_embed`.
        """
        is_timm = self.name == TIMMS
        tokens_1TD = embeddings_1ND[:, : self.num_tokens].float()
        patches_1ND = embeddings_1ND[:, self.num_tokens :].float()
        old, new = math.isqrt(patches_1ND.shape[1]), side // self.patch_px
        if old == new:
            return embeddings_1ND
        grid_1DHW = patches_1ND.transpose(1, 2).reshape(1, -1, old, old)
        grid_1DHW = interpolate(grid_1DHW, (new, new), mode="bicubic", align_corners=not is_timm, antialias=is_timm)
        return torch.cat([tokens_1TD, grid_1DHW.flatten(2).transpose(1, 2)], dim=1)


def embeddings_in(state: dict[str, Tensor], side: int) -> Positions | None:
    """Return the position embeddings of a network for inputs of `side` pixels, None where it has none as these."""
    for name, patches in PATCHES.items():
        if name in state and patches in state and state[name].ndim == 3 and state[patches].ndim == 4:
            patch_px = state[patches].shape[-1]
            num_tokens = state[name].shape[1] - (side // patch_px) ** 2
            if 0 <= num_tokens <= MOST_TOKENS:
                return Positions(name=name, patch_px=patch_px, num_tokens=num_tokens)
    return None
