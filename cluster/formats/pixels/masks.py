"""Masks of true objects: a PNG a picture, which covers the whole of it at any size; no boxes."""

from collections.abc import Iterator

from cluster.formats.entries import Entry, batches_of
from cluster.formats.files import files_below, reading
from cluster.formats.format import Format


def _entries(folder: str) -> Iterator[Entry]:
    """Read the names of ``NAME.png`` files: each is the mask of the image NAME."""
    with reading(folder, "a folder of masks"):
        for name, path in files_below(folder, ".png"):
            with reading(repr(path), "a mask", "rename it to a name in UTF-8"):
                path.encode()
            yield Entry(image=name[: -len(".png")], mask=path)


MASKS = Format(
    name="masks",
    frame="half-open",  # of no box
    is_folder=True,
    suffix=".png",
    read=lambda path, masks: batches_of(_entries(path)),
)
