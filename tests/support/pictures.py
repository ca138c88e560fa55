"""Pictures as they are read for a run."""

from cam_ops.arrays import U8
from cam_ops.pictures.decode import decode
from cluster.sources.kinds import decoder_of
from cluster.sources.reading import read_image
from cluster.sources.source import Row
from cluster.storage.options import NO_OPTIONS, StorageOptions


def load_picture(row: Row, options: StorageOptions = NO_OPTIONS) -> U8:
    """Fetch and decode the picture of a planned row, RGB (H, W, 3); raises what `read_image` and its decoder raise."""
    content = read_image(row["uri"], row["offset"], row["size"], options)
    return (decoder_of(row) or decode)(content)
