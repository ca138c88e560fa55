"""What modules keep beside parameters and buffers goes where the network goes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cam_ops.errors import UsageError
from cam_ops.network.load import model_digest
from cam_ops.network.takes import IDENTITY
from cam_ops.network.weights.moving import check_runs_there, hidden_state, move

META, CPU = torch.device("meta"), torch.device("cpu")
OUTSIDE = torch.full((3, 1, 1), 0.5)


class Plain(nn.Module):
    """A convolution, an average, a linear layer, of pictures less a mean that `kept` keeps."""

    OF_CLASS = torch.full((3, 1, 1), 0.3)

    def __init__(self, kept: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kept, self.conv, self.fc = kept, nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)
        mean_C11 = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
        if kept == "buffer":
            self.register_buffer("mean", mean_C11)
        elif kept == "attribute":
            self.mean = mean_C11
        self.means: dict[str, Any] = {"of": [(mean_C11,)]} if kept == "mapping" else {}
        self.more = [nn.Conv2d(8, 8, 1), self.conv] if kept == "module" else []
        self.eval().requires_grad_(False)

    def _mean(self) -> Any:
        if self.kept == "mapping":
            return self.means["of"][0][0]
        return {"class": self.OF_CLASS, "global": OUTSIDE}.get(self.kept, getattr(self, "mean", 0.25))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features_BCHW = self.conv(images_BCHW - self._mean())
        return self.fc((self.more[0](features_BCHW) if self.more else features_BCHW).relu().mean((2, 3)))


@pytest.mark.parametrize("kept", ["buffer", "attribute", "mapping", "class", "module"])
def test_tensors_and_modules_that_are_plain_attributes_go_with_the_network(kept: str) -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    expected_BK = Plain(kept)(images)
    network = move(Plain(kept), CPU, torch.bfloat16)
    assert network(images.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(network(images.bfloat16()).float(), expected_BK, rtol=0.05, atol=0.01)
    assert Plain(kept)(images).equal(expected_BK)  # those of a class stay as they are
    there = move(Plain(kept), META, torch.float32)
    assert there(images.to(META)).device == META
    if kept == "module":
        assert there.more[0].weight.device == META
    check_runs_there(there, 16, IDENTITY, META, torch.float32)


def test_half_precision_is_that_of_a_network_whose_tensors_are_buffers() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    found = [move(Plain(kept), CPU, torch.bfloat16)(images) for kept in ("buffer", "attribute", "mapping")]
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])


def test_what_no_module_keeps_is_refused_where_the_network_fails_for_it() -> None:
    network = move(Plain("global"), META, torch.float32)
    with pytest.raises(
        UsageError, match=r"fails on meta \(RuntimeError: .*test_moving.py line \d+\); .*register_buffer"
    ):
        check_runs_there(network, 16, IDENTITY, META, torch.float32)


class Computes(Plain):
    """Has a weight that a hook computes of two parameters, and knows its parent."""

    def __init__(self) -> None:
        super().__init__("buffer")
        self.fc = nn.utils.weight_norm(self.fc)
        self.fc.parents = [self]
        self.counts, self.phase = torch.tensor([2**40]), torch.tensor([1j])


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_computed_weights_whole_and_complex_numbers_and_circles_are_left_right() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    expected_BK = Computes()(images)
    network = move(Computes(), CPU, torch.bfloat16)
    torch.testing.assert_close(network(images.bfloat16()).float(), expected_BK, rtol=0.05, atol=0.01)
    assert (network.counts.tolist(), network.phase.tolist()) == ([2**40], [1j])


def test_weights_that_a_state_dict_lacks_are_in_the_digest() -> None:
    first, second = Plain("module"), Plain("module")
    assert sorted(hidden_state(first)) == ["more.0.bias", "more.0.weight"]
    second.more[0].weight.data += 1
    digests = [model_digest("a", {**network.state_dict(), **hidden_state(network)}) for network in (first, second)]
    assert digests[0] != digests[1]
    assert hidden_state(Plain("attribute")) == {}
