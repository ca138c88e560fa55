"""LeGrad: maps of vision transformers from the gradients of their attention weights.

Bousselham et al. 2024, "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity":
the score s_l of block l is what the network's end makes of that block's tokens; the map is the mean over blocks, heads
and querying tokens of relu(ds_l / dA_l), A_l being the block's attention weights.

The blocks are found by watching one dry run for attention, whatever module or function computes it. One forward pass
gives all s_l: the last block hands the tokens of all blocks to the network's end as one larger batch.

Letters: B batch, L blocks, H heads, T tokens, D channels of a head, K classes, P explained (image, class) pairs.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cam_ops.errors import UsageError
from cam_ops.explain.passes import batches_of_gradients, one_class
from cam_ops.network.grids import Grid, token_grid
from cam_ops.network.heads import swap_test
from cam_ops.network.takes import IDENTITY, Normalisation
from cam_ops.network.trial import in_a_sentence, trial_pictures
from cam_ops.network.watch import Place
from cam_ops.settings import Size

SOFTMAX = (functional.softmax, torch.softmax, Tensor.softmax)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The transformer blocks of a network, by module name, in order, each with one attention over all tokens."""

    names: tuple[str, ...]
    num_tokens: int
    grid: Grid  # of the patch tokens; class and register tokens come before it


class _WatchAttention(TorchFunctionMode):
    """While entered, `on_weights` sees the attention weights (B, H, T, T) of each call and may replace them."""

    def __init__(self, on_weights: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.on_weights = on_weights

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return self._scaled_dot_product(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        returned = func(*args, **kwargs)
        if func in SOFTMAX and returned.ndim == 4 and returned.shape[2] == returned.shape[3]:
            return self.on_weights(returned)
        return returned

    def _scaled_dot_product(
        self,
        query_BHTD: Tensor,
        key_BHTD: Tensor,
        value_BHTD: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if is_causal or enable_gqa or (attn_mask is not None and attn_mask.dtype == torch.bool):
            raise UsageError("--method legrad knows plain attention only; this network masks it")
        query_BHTD = query_BHTD * (scale or query_BHTD.shape[-1] ** -0.5)  # before the product, which fp16 may not hold
        score_BHTT = query_BHTD @ key_BHTD.mT
        weights_BHTT = (score_BHTT if attn_mask is None else score_BHTT + attn_mask).softmax(-1)
        if weights_BHTT.ndim == 4 and weights_BHTT.shape[2] == weights_BHTT.shape[3]:
            weights_BHTT = self.on_weights(weights_BHTT)
        return weights_BHTT @ value_BHTD

    def _multi_head(
        self,
        query_TBE: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim_to_check: int,
        num_heads: int,
        in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: Tensor,
        out_proj_bias: Tensor | None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        is_plain = key is query_TBE and value is query_TBE and others.get("attn_mask") is None
        if not is_plain or in_proj_weight is None:
            raise UsageError("--method legrad knows plain self-attention only; this network's is another")
        mixed_TBE = functional.linear(query_TBE, in_proj_weight, in_proj_bias)
        query, key, value = (
            torch.unflatten(part, 2, (num_heads, -1)).permute(1, 2, 0, 3) for part in mixed_TBE.chunk(3, dim=2)
        )
        attended_BHTD = self._scaled_dot_product(query, key, value)
        joined_TBE = attended_BHTD.permute(2, 0, 1, 3).flatten(2)
        return functional.linear(joined_TBE, out_proj_weight, out_proj_bias), None


@in_a_sentence
def find_blocks(network: nn.Module, image_size: Size, normalisation: Normalisation = IDENTITY) -> Blocks:
    """Find the transformer blocks of `network`, in eval mode, float32; raise UsageError where LeGrad does not apply."""
    images_BCHW = trial_pictures(network, image_size, normalisation=normalisation)
    inside: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}  # of the modules' results
    stacks: list[tuple[list[str], int]] = []  # of each attention: the modules around it, and its tokens

    def on_weights(weights_BHTT: Tensor) -> Tensor:
        if weights_BHTT.shape[0] == len(images_BCHW):
            stacks.append((list(inside), weights_BHTT.shape[2]))
        return weights_BHTT

    def enter(name: str, module: nn.Module, given: Any) -> None:
        inside.append(name)

    def leave(module: nn.Module, given: Any, returned: Any) -> None:
        shapes[inside.pop()] = tuple(returned.shape) if isinstance(returned, Tensor) else ()

    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.named_modules():
            hooks.callback(module.register_forward_pre_hook(partial(enter, name)).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        with _WatchAttention(on_weights):
            logits_BK = network(images_BCHW)
    around = [name for stack, _ in stacks for name in set(stack)]
    names = [next((name for name in stack if name and around.count(name) == 1), "") for stack, _ in stacks]
    tokens = {num_tokens for _, num_tokens in stacks}
    if not names or not all(shapes.get(name, ())[:-1] == (len(images_BCHW), *tokens) for name in names):
        raise UsageError(
            "--method legrad needs a vision transformer whose blocks each attend over all tokens once and return "
            f"(batch, tokens, channels); this network has {len(names)} attentions over {sorted(tokens)} tokens"
        )
    (num_tokens,) = tokens
    grid = token_grid(num_tokens, images_BCHW.shape[2:])
    if grid is None:
        raise UsageError(
            f"--method legrad needs a grid of tokens over pictures of {images_BCHW.shape[3]}x{images_BCHW.shape[2]} "
            f"pixels, this network has {num_tokens} tokens"
        )
    if not swap_test(network, images_BCHW, logits_BK, Place("module", 0, names[-1])):
        raise UsageError(f"--method legrad: the logits do not depend on the last block, {names[-1]}, alone")
    return Blocks(names=tuple(names), num_tokens=num_tokens, grid=grid)


def legrad(network: nn.Module, images_BCHW: Tensor, blocks: Blocks, image_P: Tensor, class_P: Tensor) -> Tensor:
    """Return the map of each (image, class) pair, float32 (P, h, w), at least 0."""
    leaves: list[Tensor] = []
    tokens: list[Tensor] = []

    def on_weights(weights_BHTT: Tensor) -> Tensor:
        leaves.append(weights_BHTT.detach().requires_grad_())
        return leaves[-1]

    def on_block(module: nn.Module, given: Any, returned: Tensor) -> Tensor:
        tokens.append(returned)
        if len(tokens) < len(blocks.names):
            return returned.detach()  # s_l is differentiated in A_l alone, not in what earlier blocks attend to
        return torch.cat(tokens)

    with ExitStack() as hooks, torch.enable_grad(), _WatchAttention(on_weights):
        for name in blocks.names:
            hooks.callback(network.get_submodule(name).register_forward_hook(on_block).remove)
        graph_BK = torch.unflatten(network(images_BCHW), 0, (len(blocks.names), -1)).sum(0)
    maps_PT = leaves[0].new_zeros(len(image_P), blocks.num_tokens, dtype=torch.float32)
    for pairs, gradients in batches_of_gradients(graph_BK, tuple(leaves), one_class(image_P, class_P)):
        for gradient in gradients:
            maps_PT[pairs] += gradient.float().relu().mean((1, 2)) / len(blocks.names)
    height, width = blocks.grid
    return maps_PT[:, blocks.num_tokens - height * width :].reshape(-1, height, width)
