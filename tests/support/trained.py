"""Networks whose every parameter and buffer counts, as training leaves them, and their logits."""

import torch
from torch import Tensor, nn


def trained(network: nn.Module) -> nn.Module:
    """Give each batch norm statistics of its own, each bias and scale a value, and leave the network in eval mode."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # as weak ones leave nothing of the pictures
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.num_batches_tracked.fill_(7)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.rand_like(parameter)
    return network.eval()


def logits_of(network: nn.Module, side: int = 64) -> Tensor:
    """Return the logits of two pictures of noise, shape (2, K)."""
    images_BCHW = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits_BK: Tensor = network(images_BCHW)
    return logits_BK
