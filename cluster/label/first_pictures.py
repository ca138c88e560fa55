"""The first pictures of a listing, as the network will see them: to look at what it makes of them before the run."""

from contextlib import closing, suppress

import torch
from torch import Tensor

from cam_ops.errors import BadImage, StorageError
from cam_ops.settings import Preprocessing
from cluster.label.decoding import DecoderApart
from cluster.sources.listing import Listing
from cluster.sources.reading import read_image
from cluster.storage.options import StorageOptions

NUM_PICTURES, NUM_TRIES = 8, 16
LEAST = 2


def first_pictures(listing: Listing, config: Preprocessing, options: StorageOptions) -> Tensor | None:
    """Return some of the first pictures, uint8 (B, 3, Y, X), decoded in a process with limits; bad ones are left out.

    None where there are fewer than two.
    """
    batch = next(listing.batches())
    step = max(1, len(batch) // NUM_TRIES)
    pictures: list[Tensor] = []
    with closing(DecoderApart(config)) as decoder:
        for row in batch.take(list(range(0, len(batch), step))[:NUM_TRIES]).to_pylist():
            with suppress(BadImage, StorageError):  # the run will say so
                content = read_image(row["uri"], row["offset"], row["size"], options)
                pictures.append(torch.from_numpy(decoder.decode_and_fit(row, content).pixels_YX3))
            if len(pictures) == NUM_PICTURES:
                break
    return torch.stack(pictures).permute(0, 3, 1, 2) if len(pictures) >= LEAST else None
