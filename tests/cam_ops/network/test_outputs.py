"""What networks return, against the logits that they were built to have and plain autograd."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cam_ops.errors import UsageError
from cam_ops.explain.explainer import Explainer
from cam_ops.network.heads import find_head
from cam_ops.network.outputs import return_logits


@dataclass
class Output:
    logits: Tensor
    features: Tensor | None = None


Named = namedtuple("Named", "loss logits")


class Ends(nn.Module):
    """Two convolutions, an average and a linear layer; then whatever `end` makes of the logits."""

    def __init__(self, end: Callable[[Tensor], Any], num_classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.fc = nn.Linear(16, num_classes)
        self.end = end
        self.eval().requires_grad_(False)

    def features(self, images_BCHW: Tensor) -> Tensor:
        return self.second(self.first(images_BCHW).relu()).relu()

    def logits(self, images_BCHW: Tensor) -> Tensor:
        return self.fc(self.features(images_BCHW).mean((2, 3)))

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.end(self.logits(images_BCHW))


READ: dict[str, tuple[Callable[[Tensor], Any], str | None, tuple[str, ...]]] = {
    "logits": (lambda z: z, None, ()),
    "sigmoid": (torch.sigmoid, "sigmoid", ("what goes into its last sigmoid",)),
    "module": (nn.Sigmoid(), "sigmoid", ("what goes into its last sigmoid",)),
    "in place": (lambda z: z.sigmoid_(), "sigmoid", ("what goes into its last sigmoid",)),
    "log-sigmoid": (functional.logsigmoid, "sigmoid", ("what goes into its last log-sigmoid",)),
    "softmax": (lambda z: z.softmax(-1), "softmax", ("what goes into its last softmax",)),
    "log-softmax": (nn.LogSoftmax(dim=1), "softmax", ("what goes into its last log-softmax",)),
    "inner ones": (lambda z: (z.softmax(1).sum() * 0 + z).sigmoid(), "sigmoid", ("what goes into its last sigmoid",)),
    "tuple": (lambda z: (z, z[:, :, None, None].expand(-1, -1, 4, 4)), None, ("its output 0",)),
    "list": (lambda z: [None, z], None, ("its output 1",)),
    "mapping": (lambda z: {"logits": z, "embedding": 2 * z}, None, ("its output logits",)),
    "nested": (lambda z: {"heads": {"species": z}}, None, ("its output heads.species",)),
    "dataclass": (lambda z: Output(z), None, ("its output logits",)),
    "named tuple": (lambda z: Named(3 * z, z), None, ("its output logits",)),
    "mapping of probabilities": (
        lambda z: {"probability": z.sigmoid()},
        "sigmoid",
        ("its output probability", "what goes into its last sigmoid"),
    ),
    "(B, K, 1, 1)": (lambda z: z[:, :, None, None], None, ()),
    "squeezed": (lambda z: z.squeeze(), None, ()),
}


def check_maps(network: Ends, expected_BK: Callable[[Tensor], Tensor], num_classes: int) -> None:
    """Compare logits and maps with those that the last linear layer's rows give."""
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for some in (images, images[:1]):
        assert torch.equal(network(some), expected_BK(network.logits(some)))
    head = find_head(network, 32)
    assert head.kind == "affine"
    explainer = Explainer(network=network, head=head, method="cam")
    image_P, class_P = torch.tensor([0, 1, 2]), torch.tensor([0, num_classes - 1, 1])
    maps_PHW = explainer.maps(explainer.run(images), image_P, class_P)
    with torch.enable_grad():
        features = network.features(images).requires_grad_()
        logits_BK = expected_BK(network.fc(features.mean((2, 3))))
        for pair in range(3):
            score = logits_BK[image_P[pair], class_P[pair]]
            (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
            expected_HW = features[0, 0].numel() * (gradient * features)[image_P[pair]].sum(0)
            torch.testing.assert_close(maps_PHW[pair], expected_HW, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", READ)
def test_logits_are_found_in_what_is_returned_and_mapped(name: str) -> None:
    end, scores, said = READ[name]
    network = Ends(end, 5)
    reading = return_logits(network, 32)
    assert (reading.scores, reading.said()) == (scores, said)
    assert type(network).__name__ == "Ends"
    assert [child for child, _ in network.named_children()][:3] == ["first", "second", "fc"]
    check_maps(network, lambda z: z, 5)


@pytest.mark.parametrize("name", [name for name in READ if not name.endswith("softmax")])
def test_a_single_logit_is_that_of_two_classes(name: str) -> None:
    network = Ends(READ[name][0], 1)
    reading = return_logits(network, 32)
    assert (reading.is_single, reading.scores) == (True, "sigmoid")
    assert reading.said()[-1] == "-z and z of its one logit z, for negative and positive"
    check_maps(network, lambda z: torch.cat([-z, z], 1), 2)


def test_a_temperature_stays_in_the_logits() -> None:
    network = Ends(lambda z: (z / 2.5).softmax(1), 5)
    return_logits(network, 32)
    check_maps(network, lambda z: z / 2.5, 5)


def test_an_output_that_is_named_is_taken() -> None:
    network = Ends(lambda z: {"genus": -z, "species": z}, 5)
    with pytest.raises(UsageError, match=r"it returned genus \(2, 5\), species \(2, 5\); --output says which"):
        return_logits(network, 32)
    with pytest.raises(UsageError, match=r"--output family is no output of logits .*genus \(2, 5\)"):
        return_logits(network, 32, "family")
    assert return_logits(network, 32, "species").said() == ("its output species",)
    check_maps(network, lambda z: z, 5)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda z: None, "it returned NoneType; wrap it"),
        (lambda z: "cat", "it returned str"),
        (lambda z: z[:, :, None, None].expand(-1, -1, 4, 4), r"a tensor \(2, 5, 4, 4\); wrap it"),
        (lambda z: (z, z), "--output says which"),
        (lambda z: z.argmax(1), "wrap it"),
        (lambda z: z.exp() / z.exp().sum(1, keepdim=True), "returns probabilities; .* without the softmax"),
        (lambda z: z - z.amax(1, keepdim=True), "returns logits less the largest one, .* return them as they are"),
        (lambda z: z.softmax(1).log(), "returns logarithms of probabilities"),
        (lambda z: z - z.exp().sum(1, keepdim=True).log(), "returns logarithms of probabilities"),
        (lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2, "returns probabilities"),
        (lambda z: 1 / (1 + torch.exp(-z)), "returns probabilities; .* without the sigmoid"),
        (lambda z: ((z / 2).tanh() + 1) / 2, "without the sigmoid"),
        (functional.hardsigmoid, "without the sigmoid"),
        (lambda z: torch.cat([z[:, :2].sigmoid(), z[:, 2:].sigmoid()], 1), "without the sigmoid"),
        (lambda z: torch.cat([one.sigmoid() for one in z.split(1, 1)], 1), "without the sigmoid"),
        (lambda z: z.sigmoid().clamp(1e-6, 1 - 1e-6) * 0.999, "without the sigmoid"),
        (lambda z: 1 - z.sigmoid() / 2, "without the sigmoid"),
    ],
)
def test_what_has_no_single_meaning_is_refused(end: Callable[[Tensor], Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        return_logits(Ends(end, 5), 32)


def test_a_softmax_over_one_logit_says_nothing() -> None:
    with pytest.raises(UsageError, match="softmax over a single logit, which is the same for all pictures"):
        return_logits(Ends(lambda z: z.softmax(1), 1), 32)


class Chunks(Ends):
    """Works on eight pictures at a time, each chunk with a gate and a sigmoid of its own."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return torch.cat([(self.logits(part) * torch.sigmoid(part.mean())).sigmoid() for part in images_BCHW.split(8)])


def test_a_squashing_that_is_called_more_often_for_more_pictures_is_refused_and_not_left_in() -> None:
    network = Chunks(lambda z: z, 5)
    return_logits(network, 32)
    images = torch.rand(8, 3, 32, 32)
    torch.testing.assert_close(network(images), network.logits(images) * torch.sigmoid(images.mean()))
    with pytest.raises(UsageError, match=r"in 1 call\(s\) for two pictures, in 2 for 16"):
        network(torch.rand(16, 3, 32, 32))


def test_a_network_that_is_kept_is_read_again() -> None:
    network = Ends(torch.sigmoid, 5)
    first, second = return_logits(network, 32), return_logits(network, 32)
    assert first == second
    assert first.said() == ("what goes into its last sigmoid",)
    check_maps(network, lambda z: z, 5)


class Gates(Ends):
    """A gate for each picture, before the end."""

    def logits(self, images_BCHW: Tensor) -> Tensor:
        features = self.features(images_BCHW).mean((2, 3))
        return self.fc(features * torch.stack([row.mean().sigmoid() for row in features])[:, None])


def test_gates_inside_are_no_ends() -> None:
    network = Gates(lambda z: z.softmax(1), 5)
    assert return_logits(network, 32).scores == "softmax"
    for num_images in (1, 2, 7):
        images = torch.rand(num_images, 3, 32, 32)
        assert torch.equal(network(images), network.logits(images))


class Reading(Ends):
    """Has parts by the names that stand in camray's own code."""

    def __init__(self) -> None:
        super().__init__(torch.sigmoid, 5)
        self.reading, self.taken, self.path = nn.Linear(16, 16), nn.ReLU(), nn.Identity()
        self.eval().requires_grad_(False)

    def features(self, images_BCHW: Tensor) -> Tensor:
        features_BHWC = self.reading(super().features(images_BCHW).movedim(1, 3))
        return self.path(self.taken(features_BHWC)).movedim(3, 1)


def test_names_of_a_networks_parts_stay_its_own() -> None:
    network = Reading()
    assert return_logits(network, 32).scores == "sigmoid"
    check_maps(network, lambda z: z, 5)
