"""Whether features lie over the picture: the maps of a network that crops, mirrors or turns its input lie elsewhere.

Corners of a picture of noise are replaced, and its border, and it is mirrored: what changes in the features, and where,
says how they lie.

Letters: B batch, C channels, H, W grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cam_ops.errors import UsageError
from cam_ops.network.grids import spatial_view
from cam_ops.network.watch import Place, Seen, Watch

BORDER = 16  # a network that reads all of the picture reads more than this part of its sides' ends
CORNER = 4
MIRRORED = 1e-3  # of the difference that another picture makes: rounding errors
LEAST_ORDER = -0.1
"""Of the grid's sides: networks measure +0.005 to +1, those with random weights on 2x2 cells -0.04 at the least."""


def check_lies_over(network: nn.Module, images_BCHW: Tensor, places: Sequence[Place]) -> None:
    """Raise UsageError where features at the places do not lie over the picture as its pixels do."""
    height, width = images_BCHW.shape[2:]
    picture_CHW, other_CHW = images_BCHW[0], images_BCHW[1]
    y, x = height // CORNER, width // CORNER
    top, bottom, left, right = slice(0, y), slice(height - y, height), slice(0, x), slice(width - x, width)
    variants = [picture_CHW]
    for rows, columns in ((top, left), (top, right), (bottom, left)):
        variants.append(picture_CHW.clone())
        variants[-1][:, rows, columns] = other_CHW[:, rows, columns]
    y, x = max(1, height // BORDER), max(1, width // BORDER)
    framed_CHW = other_CHW.clone()
    framed_CHW[:, y : height - y, x : width - x] = picture_CHW[:, y : height - y, x : width - x]
    variants += [framed_CHW, other_CHW, picture_CHW.flip(2), picture_CHW.flip(1)]
    found = [_features(network, torch.stack(variants[first : first + 2]), places) for first in range(0, 8, 2)]
    for place in places:
        features_BCHW = torch.cat([some[place] for some in found])
        *corners, frame_HW, whole_HW, across_HW, down_HW = (features_BCHW[1:] - features_BCHW[:1]).abs().sum(1)
        if not whole_HW.any():  # they are the same for all pictures
            continue
        where = f" at {place.name}" if place.name else ""
        if not frame_HW.any():
            raise UsageError(
                f"the network's features{where} do not depend on the borders of its input, as of one that crops it, so "
                "that its maps lie elsewhere; let it take the whole input, and crop with --resize center-crop"
            )
        for changed_HW, sides, cells in ((across_HW, "left and right", 1), (down_HW, "top and bottom", 0)):
            if changed_HW.shape[cells] > 1 and changed_HW.max() <= MIRRORED * whole_HW.max():
                raise UsageError(
                    f"the network's features{where} are the same for a picture and its mirror image, so that its maps "
                    f"cannot tell {sides}; leave the mirroring out of its forward, and see --flip"
                )
        if all(corner_HW.any() for corner_HW in corners) and not _is_in_order(torch.stack(corners)):
            raise UsageError(
                f"the network's features{where} lie mirrored or turned over its input, and so do its maps; leave that "
                "out of its forward"
            )


def _features(network: nn.Module, images_BCHW: Tensor, places: Sequence[Place]) -> dict[Place, Tensor]:
    found: dict[Place, Tensor] = {}

    def keep(seen: Seen) -> Tensor:
        if seen.place in places:
            is_pool = seen.place.cut == "pool"
            view = seen.given if is_pool else spatial_view(seen.given, len(images_BCHW), images_BCHW.shape[2:])
            assert view is not None
            found[seen.place] = view.detach().float().clone()
        return seen.returned

    names = [place.name for place in places if place.name]
    with torch.no_grad(), Watch(network, keep, images_BCHW.shape[2:], names):
        network(images_BCHW)
    return found


def _is_in_order(change_3HW: Tensor) -> bool:
    """Say whether the top right corner's change lies to the right of the others', and the bottom left one's below."""
    share_3HW = change_3HW / change_3HW.sum((1, 2), keepdim=True)
    height, width = change_3HW.shape[1:]
    y_3 = (share_3HW.sum(2) * torch.linspace(0, 1, height, device=share_3HW.device)).sum(1)
    x_3 = (share_3HW.sum(1) * torch.linspace(0, 1, width, device=share_3HW.device)).sum(1)
    orders = (x_3[1] - x_3[0], x_3[1] - x_3[2], y_3[2] - y_3[0], y_3[2] - y_3[1])
    return min(map(float, orders)) > LEAST_ORDER
