"""Networks that do more to their input than to look at it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cam_ops.errors import UsageError
from cam_ops.network.heads import find_head

SIDE = 64


class Sees(nn.Module):
    """A small network behind something that is done to the picture."""

    def __init__(self, done: Callable[[Tensor], Tensor], ends_in_average: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.done, self.ends_in_average = done, ends_in_average
        self.conv, self.more = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, 2, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features = self.more(self.conv(self.done(images_BCHW)).relu()).relu()
        return self.fc(features.mean((2, 3)) if self.ends_in_average else features.logsumexp((2, 3)))


@pytest.mark.parametrize("ends_in_average", [True, False])
@pytest.mark.parametrize(
    ("done", "reason"),
    [
        (lambda x: x[:, :, 8:-8, 8:-8], "do not depend on the borders of its input, .* --resize center-crop"),
        (lambda x: functional.interpolate(x[:, :, 6:-6, 6:-6], (SIDE, SIDE)), "do not depend on the borders"),
        (lambda x: x.flip(3), "lie mirrored or turned over its input"),
        (lambda x: x.flip(2), "lie mirrored or turned over its input"),
        (lambda x: x.transpose(2, 3), "lie mirrored or turned over its input"),
        (lambda x: x.rot90(1, (2, 3)), "lie mirrored or turned over its input"),
        (lambda x: x + x.flip(3), "are the same for a picture and its mirror image, .* cannot tell left and right"),
        (lambda x: torch.maximum(x, x.flip(2)), "are the same for .* cannot tell top and bottom"),
    ],
)
def test_networks_whose_maps_would_lie_elsewhere_are_refused(
    done: Callable[[Tensor], Tensor], reason: str, ends_in_average: bool
) -> None:
    with pytest.raises(UsageError, match=f"the network's features.* {reason}"):
        find_head(Sees(done, ends_in_average).eval().requires_grad_(False), SIDE)


class SeesBothWays(Sees):
    """Adds up the features of the picture and of its mirror image, as trained test-time augmentation does."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features = [self.more(self.conv(x).relu()).relu() for x in (images_BCHW, images_BCHW.flip(3))]
        return self.fc((features[0] + features[1]).mean((2, 3)))


def test_features_of_a_picture_and_its_mirror_image_are_no_map_of_either() -> None:
    network = SeesBothWays(lambda x: x, ends_in_average=True).eval().requires_grad_(False)
    with pytest.raises(UsageError, match="are the same for a picture and its mirror image"):
        find_head(network, SIDE)


@pytest.mark.parametrize("ends_in_average", [True, False])
@pytest.mark.parametrize(
    "done",
    [
        lambda x: x,
        lambda x: x.flip(1),  # of its channels
        lambda x: functional.interpolate(x, (48, 48), mode="bilinear"),
        lambda x: functional.pad(x, (8, 8, 8, 8)),
        lambda x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True),
    ],
)
def test_others_are_not(done: Callable[[Tensor], Tensor], ends_in_average: bool) -> None:
    head = find_head(Sees(done, ends_in_average).eval().requires_grad_(False), SIDE)
    assert head.kind == ("affine" if ends_in_average else "layer")
