"""Refined maps against a plain implementation in float64, and the equalities that must hold."""

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from cam_ops.explain.explainer import Explainer
from cam_ops.explain.mapper import Mapper
from cam_ops.explain.refine import MANTISSA_BITS, Affinity, affinity, evidence, of_images, of_pairs, refine, rounded
from cam_ops.network.heads import find_head
from cam_ops.network.stages import find_stages
from cam_ops.settings import ExplainConfig, Method, RefineConfig, Size
from tests.cam_ops.network.test_heads import network_of
from tests.support.refine_reference import reference_map, reference_tensors

WHOLE = (0.0, 0.0, 1.0, 1.0)
Pairs = tuple[Tensor, Tensor]


def explainer_of(network: nn.Module, side: Size, method: Method = "cam") -> Explainer:
    head, stages = find_head(network, side), find_stages(network, side)
    return Explainer(network=network, head=head, method=method, stages=stages)


def refined_maps(explainer: Explainer, images: Tensor, pairs: Pairs, inside: list[tuple[float, ...]]) -> Tensor:
    """Return R of (image, class) pairs, as a batch gives it."""
    with torch.no_grad():
        passed = explainer.run(images)
        maps = explainer.maps(passed, *pairs)
        return explainer.refined(passed, maps, *pairs, torch.tensor(inside))


def reference_maps(explainer: Explainer, images: Tensor, pairs: Pairs, inside: list[tuple[float, ...]]) -> np.ndarray:
    """Return R of the same pairs in float64, each from a pass of its own, with hooks and autograd."""
    exact, (a16_name, a8_name) = explainer.network.double(), explainer.stages.layers
    refined = []
    for image, class_id in zip(*(p.tolist() for p in pairs), strict=True):
        a16, a8, gradient = reference_tensors(exact, images[image : image + 1].double(), a16_name, a8_name, class_id)
        explainer.network.float()
        with torch.no_grad():
            passed = explainer.run(images[image : image + 1])
            cam = explainer.maps(passed, torch.tensor([0]), torch.tensor([class_id]))[0]
        explainer.network.double()
        a16, gradient, a8 = (on_grid(tensor, cam.shape) for tensor in (a16, gradient, a8))
        refined.append(np.maximum(reference_map(cam.numpy(), a16, a8, gradient, inside[image]), 0))
    explainer.network.float()
    return np.array(refined)


def on_grid(features: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return features (C, H, W); of tokens (T, C) those of the patches, without the class token."""
    return features if features.ndim == 3 else features[1:].T.reshape(-1, *grid)


def assert_same_shape(found: Tensor, expected: np.ndarray) -> None:
    """Compare maps divided by their peaks: R's unit is a matter of the grid."""
    peaks = expected.max((1, 2), keepdims=True)
    assert (peaks > 0).all()
    found_maps = found.double().numpy()
    np.testing.assert_allclose(found_maps / found_maps.max((1, 2), keepdims=True), expected / peaks, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", (96, 96)), ("squeezenet1_1", (96, 96)), ("resnet18", (64, 128))]
)
def test_maps_are_those_of_the_plain_implementation(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    explainer = explainer_of(network_of(name), size)
    images = torch.randn(3, 3, *size)
    pairs = torch.tensor([0, 0, 1, 2]), torch.tensor([3, 999, 3, 500])
    inside = [WHOLE, (0.0, 0.2, 1.0, 0.75), (0.1, 0.0, 0.8, 1.0)]
    found = refined_maps(explainer, images, pairs, inside)
    assert found.shape[1:] == explainer.refined_grid
    assert_same_shape(found, reference_maps(explainer, images, pairs, inside))


@pytest.mark.parametrize("size", [(96, 96), (64, 112)])
def test_a_vision_transformer_is_refined_from_its_patches(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=size, depth=4, num_classes=7).eval()
    explainer = explainer_of(network.requires_grad_(False), size, "layercam")
    assert explainer.stages.layers == ("blocks.2", "blocks.1")
    assert explainer.refined_grid == (size[0] // 16, size[1] // 16)
    images, pairs = torch.randn(2, 3, *size), (torch.tensor([0, 1, 1]), torch.tensor([3, 0, 6]))
    found = refined_maps(explainer, images, pairs, [WHOLE, WHOLE])
    assert_same_shape(found, reference_maps(explainer, images, pairs, [WHOLE, WHOLE]))


@pytest.mark.parametrize("method", ["cam", "bagcam", "finercam", "ablationcam", "eigencam", "gradcam-elementwise"])
def test_several_classes_at_once_are_each_class_by_itself(method: Method) -> None:
    torch.manual_seed(1)
    explainer = explainer_of(network_of("mobilenet_v3_small") if method == "bagcam" else network_of("resnet18"), 96)
    explainer = Explainer(network=explainer.network, head=explainer.head, method=method, stages=explainer.stages)
    images, inside = torch.randn(3, 3, 96, 96), [WHOLE, (0.0, 0.2, 1.0, 0.75), WHOLE]
    pairs = torch.tensor([0, 1, 1, 1, 2]), torch.tensor([5, 5, 0, 999, 7])
    together = refined_maps(explainer, images, pairs, inside)
    for place in range(5):
        one = pairs[0][place : place + 1], pairs[1][place : place + 1]
        alone = refined_maps(explainer, images, one, inside)[0]
        torch.testing.assert_close(together[place], alone, rtol=1e-3, atol=1e-5 * float(alone.max()))


def random_parts(seed: int, batch: int = 2, coarse: int = 6, fine: int = 12) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "cam": (batch, 3, 3),
        "coarse": (batch, 5, coarse, coarse),
        "fine": (batch, 4, fine, fine),
        "gradient": (batch, 5, coarse, coarse),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def map_of(parts: dict[str, Tensor], inside: tuple[float, ...] = WHOLE) -> Tensor:
    inside_B4 = torch.tensor([inside]).repeat(len(parts["cam"]), 1)
    resemblance = affinity(parts["coarse"], parts["fine"], inside_B4)
    evidence_BKK = evidence(parts["coarse"], parts["gradient"])
    side = parts["fine"].shape[2]
    spread = of_images(resemblance.weight_BIJ)
    return refine(parts["cam"], evidence_BKK, spread, resemblance.is_orphan_BI, (side, side), inside_B4)


def shape_of(maps: Tensor) -> Tensor:
    assert (maps.amax((1, 2)) > 0).all()
    return maps / maps.amax((1, 2), keepdim=True)


@pytest.mark.parametrize("name", ["cam", "coarse", "fine", "gradient"])
@pytest.mark.parametrize("scale", [1e-6, 3.7, 1e6])
def test_the_scale_of_logits_and_features_does_not_matter(name: str, scale: float) -> None:
    parts = random_parts(0)
    scaled = {**parts, name: scale * parts[name]}
    torch.testing.assert_close(shape_of(map_of(scaled)), shape_of(map_of(parts)), rtol=1e-3, atol=1e-5)


def test_the_map_scales_with_the_square_of_the_score() -> None:
    parts = random_parts(0)
    tripled = {**parts, "cam": 3 * parts["cam"], "gradient": 3 * parts["gradient"]}
    torch.testing.assert_close(map_of(tripled), 9 * map_of(parts), rtol=1e-4, atol=1e-5)


def test_mirrored_parts_make_the_mirrored_map() -> None:
    parts = random_parts(1)
    for inside, mirrored in [(WHOLE, WHOLE), ((0.3, 0.0, 1.0, 0.9), (0.0, 0.0, 0.7, 0.9))]:
        flipped = {name: tensor.flip(-1) for name, tensor in parts.items()}
        torch.testing.assert_close(map_of(flipped, mirrored).flip(2), map_of(parts, inside), rtol=1e-4, atol=1e-6)


def test_the_order_of_the_keys_does_not_matter() -> None:
    parts = random_parts(2)
    parts = {**parts, "cam": torch.randn(2, 6, 6), "fine": torch.randn(2, 4, 6, 6)}  # one grid: nothing is enlarged
    order = torch.randperm(36, generator=torch.Generator().manual_seed(3))
    shuffled = {name: tensor.flatten(-2)[..., order].reshape(tensor.shape) for name, tensor in parts.items()}
    expected = map_of(parts).flatten(1)[:, order].reshape(2, 6, 6)
    torch.testing.assert_close(map_of(shuffled), expected, rtol=1e-4, atol=1e-6)


def test_padding_has_no_say() -> None:
    parts, inside = random_parts(3), (0.0, 0.25, 1.0, 0.75)
    others = {}
    for name, tensor in parts.items():
        side = tensor.shape[-1]
        centre = (torch.arange(side) + 0.5) / side
        is_padding = (centre < 0.25) | (centre > 0.75)
        others[name] = tensor.clone()
        others[name][..., is_padding, :] = 1e4 * torch.randn(others[name][..., is_padding, :].shape)
    found, expected = map_of(others, inside), map_of(parts, inside)
    assert torch.equal(found, expected)
    assert (found[:, :3] == 0).all()
    assert (found[:, 9:] == 0).all()
    assert (found[:, 3:9].amax((1, 2)) > 0).all()


def test_features_without_contrast_leave_the_enlarged_seed_and_no_seed_the_enlarged_map() -> None:
    parts = random_parts(4)
    flat = {**parts, "coarse": torch.full((2, 5, 6, 6), 3.1), "fine": torch.full((2, 4, 12, 12), -0.7)}
    gain = (flat["coarse"] * flat["gradient"]).clamp(min=0).sum(1)
    enlarged = nn.functional.interpolate(flat["cam"][:, None], (6, 6), mode="bicubic").clamp(min=0)
    seed = (enlarged[:, 0] * gain).sqrt()
    expected = nn.functional.interpolate(seed[:, None], (12, 12), mode="bilinear")[:, 0].square()
    torch.testing.assert_close(map_of(flat), expected, rtol=1e-4, atol=1e-5)
    for name, without in {"gradient": torch.zeros(2, 5, 6, 6), "coarse": torch.zeros(2, 5, 6, 6)}.items():
        plain = nn.functional.interpolate(parts["cam"].clamp(min=0)[:, None], (12, 12), mode="bicubic")[:, 0]
        torch.testing.assert_close(map_of({**parts, name: without}), plain.clamp(min=0))
    assert not map_of({**parts, "cam": torch.full((2, 3, 3), -1.0)}).any()


@pytest.mark.parametrize("name", ["cam", "coarse", "fine", "gradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_whose_numbers_overflow_does_not_touch_the_others(name: str, value: float) -> None:
    parts = random_parts(5, batch=3)
    broken = {key: tensor.clone() for key, tensor in parts.items()}
    broken[name][1, ..., 2, 1] = value
    found, expected = map_of(broken), map_of(parts)
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    assert found[1].isfinite().all() == (name == "fine")  # it is never the plain map in the place of the refined one


def test_products_beyond_the_range_of_half_precision_count() -> None:
    parts = random_parts(5)
    large = {**parts, "coarse": 400 * parts["coarse"], "gradient": 400 * parts["gradient"]}
    half = {name: tensor if name == "cam" else tensor.half() for name, tensor in large.items()}
    assert (half["coarse"] * half["gradient"]).isinf().any()
    torch.testing.assert_close(shape_of(map_of(half)), shape_of(map_of(large)), rtol=0, atol=0.01)


def test_grids_of_one_cell_and_single_channels() -> None:
    ones = {"cam": torch.ones(1, 1, 1), "coarse": torch.ones(1, 1, 1, 1), "fine": torch.ones(1, 1, 2, 2)}
    torch.testing.assert_close(map_of({**ones, "gradient": torch.full((1, 1, 1, 1), 4.0)}), torch.full((1, 2, 2), 4.0))
    parts = random_parts(6)
    single = {**parts, **{name: parts[name][:, :1] for name in ("coarse", "fine", "gradient")}}
    reference = [
        reference_map(*(single[name][i].numpy() for name in ("cam", "coarse", "fine", "gradient"))) for i in (0, 1)
    ]
    assert_same_shape(map_of(single), np.maximum(np.array(reference), 0))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_is_near(dtype: torch.dtype, tolerance: float) -> None:
    parts = random_parts(7)
    half = {name: tensor if name == "cam" else tensor.to(dtype) for name, tensor in parts.items()}
    found = map_of(half)
    assert found.dtype == torch.float32
    torch.testing.assert_close(shape_of(found), shape_of(map_of(parts)), rtol=0, atol=tolerance)


def test_seeds_of_pairs_are_spread_as_those_of_images() -> None:
    resemblance: Affinity = affinity(random_parts(8)["coarse"], random_parts(8)["fine"], torch.tensor([WHOLE, WHOLE]))
    image_P, seed_PJ = torch.tensor([1, 0, 1]), torch.rand(3, 36)
    expected = torch.stack([resemblance.weight_BIJ[i] @ seed for i, seed in zip(image_P, seed_PJ, strict=True)])
    torch.testing.assert_close(of_pairs(resemblance.weight_BIJ, image_P)(seed_PJ), expected)
    sums = resemblance.weight_BIJ.sum(2)
    torch.testing.assert_close(sums, torch.where(resemblance.is_orphan_BI, 0.0, 1.0))


def test_a_stored_map_has_few_bits_and_the_nearest_of_them() -> None:
    values = torch.rand(1, 50, 50) * torch.logspace(-30, 30, 50)
    found = rounded(values)
    assert torch.equal(rounded(found), found)
    mantissas, _ = np.frexp(found.numpy())
    steps = mantissas * 2.0 ** (MANTISSA_BITS + 1)
    np.testing.assert_array_equal(steps, np.round(steps))
    exact, own_exponents = np.frexp(values.numpy())
    expected = np.ldexp(np.round(exact * 2.0 ** (MANTISSA_BITS + 1)), own_exponents - MANTISSA_BITS - 1)
    np.testing.assert_array_equal(found.numpy(), expected)
    odd = torch.tensor([[[0.0, float("inf"), float("nan"), 1.0]]])
    torch.testing.assert_close(rounded(odd), odd, equal_nan=True)


def test_the_mapper_refines_each_view_and_lays_it_back() -> None:
    torch.manual_seed(0)
    network, refined = network_of("resnet18"), RefineConfig(refine="affinity")
    images = 255 * torch.rand(2, 3, 96, 96)
    inside = torch.tensor([[0.0, 0.1, 0.7, 1.0], WHOLE])

    def choose(logits: Tensor) -> Pairs:
        return torch.tensor([0, 1]), torch.tensor([3, 4])

    mapper = Mapper(network, ExplainConfig(flip=True), 96, refine=refined)
    both = mapper.explain(images, choose, inside)
    plain, mirrored_inside = (
        Mapper(network, ExplainConfig(), 96, refine=refined),
        torch.tensor([[0.3, 0.1, 1, 1], WHOLE]),
    )
    views = [
        plain.explain(images, choose, inside).maps_PHW,
        plain.explain(images.flip(3), choose, mirrored_inside).maps_PHW.flip(2),
    ]
    torch.testing.assert_close(both.maps_PHW, (views[0] + views[1]) / 2, rtol=2**-MANTISSA_BITS, atol=0)
    assert (mapper.grid, mapper.cam_grid, mapper.refinement.layers) == ((12, 12), (3, 3), ("layer3", "layer2"))
    unrefined = Mapper(network, ExplainConfig(flip=True), 96).explain(images, choose)
    torch.testing.assert_close(both.cams_Phw, unrefined.maps_PHW)
    torch.testing.assert_close(both.residual_P, unrefined.residual_P, rtol=1e-2, atol=1e-6)
