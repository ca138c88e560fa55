"""EfficientNet-Lite0 as a factory, `--model jobs.demo_model:efficientnet_lite0`, and the names of its classes.

`--model efficientnet_lite0` is the same network with its preprocessing and names; runs of before go on by the factory.
Needs the extra `demo`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `demo` does without torch
    from torch import nn


def efficientnet_lite0() -> "nn.Module":
    """Return the network with its weights in place: 1000 ImageNet classes, average pooling and a linear layer."""
    from cam_ops.network.names import LITE0
    from cam_ops.network.zoo import find_architecture

    network, _ = find_architecture(LITE0).pretrained()
    return network


class ImageNet:
    """The names of its classes, as torchvision has them: for a process of its own, since torchvision brings torch."""

    def names(self) -> list[str]:
        """Return them in the order of the logits."""
        from torchvision.models import ResNet18_Weights

        return list(ResNet18_Weights.DEFAULT.meta["categories"])
