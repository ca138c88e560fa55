"""LeGrad: a transformer of one block by hand, and its definition on deeper ones, block by block."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from cam_ops.errors import UsageError
from cam_ops.explain.attention import find_blocks, legrad
from tests.cam_ops.network.test_heads import assert_close_to, network_of


class Uniform(nn.Module):
    """Attends equally to each token: z = mean of the tokens."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        nothing = torch.zeros_like(tokens)[:, None]
        return functional.scaled_dot_product_attention(nothing, nothing, tokens[:, None])[:, 0]


class OneBlock(nn.Module):
    """Tokens are a class token of zeros and the pixels' red and green; y = W z_class, W = [[2, -1], [0, 3]]."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Uniform()
        self.weight = nn.Parameter(torch.tensor([[2.0, -1.0], [0.0, 3.0]]), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images[:, :2].flatten(2).transpose(1, 2)
        tokens = torch.cat([torch.zeros_like(pixels[:, :1]), pixels], 1)
        return self.block(tokens)[:, 0] @ self.weight.T


def test_one_block_by_hand() -> None:
    network = OneBlock()
    blocks = find_blocks(network, 2)
    assert (blocks.names, blocks.num_tokens, blocks.grid) == (("block",), 5, (2, 2))
    image = torch.tensor([[[[1.0, 0.0], [3.0, 1.0]], [[1.0, 1.0], [0.0, 2.0]], [[9.0, 9.0], [9.0, 9.0]]]])
    maps = legrad(network, image, blocks, torch.tensor([0, 0]), torch.tensor([0, 1]))
    # ds/dA of row i and column j is W x_j for the class token's row, 0 for the 4 others; relu, mean over 5 rows.
    assert_close_to(maps[0], torch.tensor([[2.0 - 1, 0.0], [6.0, 0.0]]) / 5)  # 2 red - green: 1, -1, 6, 0
    assert_close_to(maps[1], torch.tensor([[3.0, 3.0], [0.0, 6.0]]) / 5)


def test_one_block_over_a_rectangle_by_hand() -> None:
    network = OneBlock()
    blocks = find_blocks(network, (2, 3))
    assert (blocks.num_tokens, blocks.grid) == (7, (2, 3))
    image = torch.tensor([[[[1.0, 0.0, 2.0], [3.0, 1.0, 0.0]], [[1.0, 1.0, 0.0], [0.0, 2.0, 0.0]], [[9.0] * 3] * 2]])
    maps = legrad(network, image, blocks, torch.tensor([0]), torch.tensor([0]))
    assert_close_to(maps[0], torch.tensor([[1.0, 0.0, 4.0], [6.0, 0.0, 0.0]]) / 7)  # 2 red - green, relu; over 7 rows


class Strong(nn.Module):
    """Attends equally, too, by products of 40 * 40 * 64, which float16 does not hold as it does their eighth."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        forties = torch.full((len(tokens), 1, tokens.shape[1], 64), 40.0, dtype=tokens.dtype)
        return functional.scaled_dot_product_attention(forties, forties, tokens[:, None])[:, 0].square()


def test_products_before_their_scale_do_not_overflow_in_half_precision() -> None:
    network = OneBlock()
    network.block = Strong()
    blocks = find_blocks(network, 2)
    image = torch.tensor([[[[1.0, 0.0], [3.0, 1.0]], [[1.0, 1.0], [0.0, 2.0]], [[9.0, 9.0], [9.0, 9.0]]]])
    maps = legrad(network.half(), image.half(), blocks, torch.tensor([0]), torch.tensor([1]))
    # s = 3 green^2 of the mean token, whose green is 0.8: ds/dA of the class token's row is 4.8 green
    torch.testing.assert_close(maps[0].float(), torch.tensor([[4.8, 4.8], [0.0, 9.6]]) / 5, rtol=2e-3, atol=0)


def small_vit() -> nn.Module:
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5).eval().requires_grad_(False)
    network.heads.head.weight.normal_()
    return network


def definition(network: nn.Module, image: torch.Tensor, class_id: int) -> torch.Tensor:
    """Compute LeGrad of torchvision's ViT from its own modules: a backward pass per block."""
    tokens = network._process_input(image)
    tokens = torch.cat([network.class_token.expand(len(tokens), -1, -1), tokens], 1) + network.encoder.pos_embedding
    maps = []
    for block in network.encoder.layers:
        mha, normed = block.self_attention, block.ln_1(tokens)
        query, key, value = (
            part.unflatten(2, (mha.num_heads, -1)).transpose(1, 2)
            for part in functional.linear(normed, mha.in_proj_weight, mha.in_proj_bias).chunk(3, dim=2)
        )
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1).requires_grad_()
        attended = mha.out_proj((weights @ value).transpose(1, 2).flatten(2)) + tokens
        tokens = attended + block.mlp(block.ln_2(attended))
        score = network.heads(network.encoder.ln(tokens)[:, 0])[0, class_id]
        (gradient,) = torch.autograd.grad(score, weights)
        maps.append(gradient[0].clamp(min=0).mean((0, 1)))
        tokens = tokens.detach()
    side = int((len(maps[0]) - 1) ** 0.5)
    return torch.stack(maps).mean(0)[1:].reshape(side, side)


@pytest.mark.parametrize("network", [small_vit, lambda: network_of("vit_b_32")])
def test_the_map_is_the_definition(network: object) -> None:
    network = network()
    network.heads.head.weight.data.normal_()
    side = network.image_size
    blocks = find_blocks(network, side)
    assert blocks.names == tuple(f"encoder.layers.encoder_layer_{i}" for i in range(len(network.encoder.layers)))
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    maps = legrad(network, images, blocks, torch.tensor([0, 1, 1]), torch.tensor([2, 2, 4]))
    for pair, (image, class_id) in enumerate([(0, 2), (1, 2), (1, 4)]):
        assert_close_to(maps[pair], definition(network, images[image][None], class_id))


def test_timm_s_attention_gives_the_same_with_and_without_the_fused_kernel() -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, reg_tokens=2).eval().requires_grad_(False)
    images = torch.randn(1, 3, 64, 64)
    blocks = find_blocks(network, 64)
    assert (blocks.names, blocks.num_tokens, blocks.grid) == (("blocks.0", "blocks.1", "blocks.2"), 19, (4, 4))
    pair = torch.tensor([0]), torch.tensor([9])
    fused = legrad(network, images, blocks, *pair)
    for block in network.blocks:
        block.attn.fused_attn = False
    assert_close_to(legrad(network, images, blocks, *pair), fused)


@pytest.mark.parametrize("name", ["resnet18", "swin_t"])
def test_a_network_whose_attention_is_not_over_all_tokens_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--method legrad needs a vision transformer"):
        find_blocks(network_of(name), 224)
