"""The first pictures of a listing, as the network will see them: to look at what it makes of them before the run."""

from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from cam_ops.arrays import U8
from cam_ops.settings import Preprocessing
from cluster.process.apart import Apart, ProcessEnded
from cluster.sources.listing import Listing
from cluster.storage.options import StorageOptions

NUM_PICTURES, NUM_TRIES, LEAST = 8, 16, 2
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Rows of a listing, and how their pictures become the network's input."""

    rows: list[dict[str, Any]]
    shape: Preprocessing


def wanted_of(listing: Listing, shape: Preprocessing) -> Wanted:
    """Choose some of the first pictures, spread over the first batch of the listing."""
    batch = next(listing.batches())
    step = max(1, len(batch) // NUM_TRIES)
    return Wanted(rows=batch.take(list(range(0, len(batch), step))[:NUM_TRIES]).to_pylist(), shape=shape)


def load_first(wanted: Wanted, options: StorageOptions) -> list[U8]:
    """Return a few of the wanted pictures, each (Y, X, 3), read and decoded in a process with limits.

    Bad ones are left out; none are returned where fewer than two are good, or one of them kills the process.
    """
    with closing(Apart("cluster.label.decoding:LimitedDecoder", wanted.shape)) as decoder, suppress(ProcessEnded):
        pictures: list[U8] = decoder.call("decode_first", wanted.rows, NUM_PICTURES, options, timeout_s=TIMEOUT_S)
        return pictures if len(pictures) >= LEAST else []
    return []
