"""A hundred networks made at random: each is mapped as plain autograd says, or refused in a sentence."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cam_ops.errors import UsageError
from cam_ops.explain.mapper import Mapper
from cam_ops.network.load import load_classifier
from cam_ops.settings import ExplainConfig, ModelConfig
from tests.support.command import Command
from tests.support.odd_networks import SIDE, Odd, odd, recipe_of

NUM_NETWORKS = 150
TOLERANCE = 1e-4
EXACT = ("affine", "score-map", "norm-affine", "cosine")


def expected_map(network: Odd, mapper: Mapper, images: Tensor, image: int, class_id: int) -> Tensor:
    """Return the map (H, W) by autograd: of the features before the pooling, or of the module where it is cut."""
    kept: list[Tensor] = []
    cut = network.get_submodule(mapper.head.layers[0]) if mapper.head.layers else network.tap
    with torch.enable_grad():
        handle = cut.register_forward_hook(lambda module, given, returned: kept.append(returned))
        network.is_frozen = mapper.head.kind in EXACT
        leaf = images.clone().requires_grad_()
        score = network.scaled(leaf)[image, class_id]
        handle.remove()
        features = kept[-1]
        (gradient,) = torch.autograd.grad(score, features)
    network.is_frozen = False
    features, gradient = features[image].detach(), gradient[image]
    if mapper.method == "cam":
        return features[0].numel() * (gradient * features).sum(0)
    if mapper.method == "gradcam":
        return (gradient.mean((1, 2), keepdim=True) * features).sum(0)
    assert mapper.method == "layercam"
    return (gradient.relu() * features).sum(0)


def check(number: int, network: nn.Module, mapper: Mapper) -> None:
    """Compare logits and maps of three pictures with autograd's, in float64."""
    recipe, exact = recipe_of(number), odd(number)
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(number))
    logits_BK = exact.scaled(images.double())
    torch.testing.assert_close(network(images).double(), logits_BK, rtol=TOLERANCE, atol=TOLERANCE, msg=str(recipe))
    classes = [0, logits_BK.shape[1] - 1, min(1, logits_BK.shape[1] - 1)]
    pairs = torch.arange(3), torch.tensor(classes)
    maps_PHW = mapper.explain(255 * images, lambda logits: pairs).maps_PHW.double()
    for image, class_id in enumerate(classes):
        expected_HW = expected_map(exact, mapper, images.double(), image, class_id)
        far = (maps_PHW[image] - expected_HW).abs().max()
        assert far <= TOLERANCE * expected_HW.abs().max() + 1e-9, recipe


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # of a reentrant checkpoint
def test_each_is_mapped_as_autograd_says_or_refused_in_a_sentence() -> None:
    outcomes: Counter[str] = Counter()
    refusals: list[str] = []
    for number in range(NUM_NETWORKS):
        try:
            network = load_classifier(ModelConfig(model=f"tests.support.odd_networks:network_{number}")).network
            mapper = Mapper(network, ExplainConfig(), SIDE)
        except UsageError as error:
            refusals.append(str(error))
        else:
            check(number, network, mapper)
            outcomes[mapper.head.kind] += 1
    assert not [refusal for refusal in refusals if "\n" in refusal or len(refusal) > 700]
    assert len(refusals) < NUM_NETWORKS * 0.45  # each has something odd, many have two things
    assert min(outcomes[kind] for kind in (*EXACT, "pooled", "layer")) > 0, outcomes


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_the_command_refuses_in_a_sentence_or_labels(pictures: Path, tmp_path: Path) -> None:
    codes: Counter[int] = Counter()
    for number in range(NUM_NETWORKS, NUM_NETWORKS + 12):
        flags = ("--model", f"tests.support.odd_networks:network_{number}", "--executor", "inline", "--refine", "auto")
        finished = Command("label", "--images", pictures, "--out", tmp_path / str(number), *flags, "--classes", "top1")
        codes[finished.code] += 1
        assert "Traceback" not in finished.err
    assert codes.keys() == {0, 2}
