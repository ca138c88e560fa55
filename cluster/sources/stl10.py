"""STL10's own binary files, as its authors publish them: their pictures, listed without being read.

`SPLIT_X.bin` holds pictures of `STL10_BYTES` bytes one after the other (`cam_ops.pictures.decode.decode_stl10`),
`SPLIT_y.bin` one byte 1..10 for each: its class. Any subset of the files will do, with at least one `SPLIT_X.bin`.
"""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa

from cam_ops.arrays import U8
from cam_ops.class_lists import read_class_names
from cam_ops.errors import StorageError, UsageError
from cam_ops.pictures.decode import STL10_BYTES, decode_stl10
from cam_ops.tables import LISTING
from cluster.process.console import SHOWN_CHARACTERS, shortened
from cluster.sources.folders.folder import check_folder
from cluster.sources.listing import listing_of
from cluster.sources.source import Decoder, Row, Source

SPLITS = ("test", "train", "unlabeled")
PICTURE_FILES = {f"{split}_X.bin" for split in SPLITS}
CLASS_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def _list(address: str, limit: int | None) -> pa.Table:
    """List the pictures of all splits in a folder, sorted by id, schema LISTING.

    The id is ``CLASS/SPLIT-NNNNNN`` with the picture's place in its file, or ``SPLIT-NNNNNN`` where the split has no
    ``SPLIT_y.bin``. Raises UsageError for files that are not STL10's or not whole, StorageError for unreadable ones.
    """
    folder = Path(address)
    try:
        names = _class_names(folder / "class_names.txt")
        found = sorted(row for split in _splits_in(folder) for row in _list_split(folder, split, names))[:limit]
    except OSError as error:
        raise StorageError(f"cannot read {error.filename}: {error.strerror}; nothing was planned") from None
    ids, uris, offsets = zip(*found, strict=True)
    return pa.table([ids, uris, offsets, [STL10_BYTES] * len(ids)], schema=LISTING)


def _splits_in(folder: Path) -> list[str]:
    return [split for split in SPLITS if os.path.isfile(folder / f"{split}_X.bin")]


def _class_names(path: Path) -> tuple[str, ...]:
    """Return the names in class_names.txt, the official ones where there is no such file."""
    if not os.path.lexists(path):
        return CLASS_NAMES
    names = read_class_names(path).names
    if not len(names) == len(set(names)) == len(CLASS_NAMES) or "/" in "".join(names):
        raise UsageError(
            f"expected {len(CLASS_NAMES)} different class names without a / in {path}, found {len(names)}: "
            f"{shortened(', '.join(names), SHOWN_CHARACTERS)}; mend the file, or remove it for STL10's own names"
        )
    return names


def _list_split(folder: Path, split: str, names: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
    """Yield id, URI and offset of each picture of one split."""
    pictures, labels = folder / f"{split}_X.bin", folder / f"{split}_y.bin"
    num_pictures = _num_pictures(pictures)
    prefixes = [""] * num_pictures
    if os.path.lexists(labels):
        prefixes = [f"{names[label - 1]}/" for label in _read_labels(labels, num_pictures)]
    uri = pictures.as_uri()
    for i, prefix in enumerate(prefixes):
        yield f"{prefix}{split}-{i:06d}", uri, i * STL10_BYTES


def _num_pictures(path: Path) -> int:
    size = path.stat().st_size
    if not size or size % STL10_BYTES:
        raise UsageError(
            f"expected pictures of {STL10_BYTES} bytes each in {path}, found {size} bytes, which is no whole number of "
            "them above 0; copy the file again, or take it out of the folder"
        )
    return size // STL10_BYTES


def _read_labels(path: Path, num_pictures: int) -> U8:
    """Return the labels of one split, 1..10, shape (num_pictures,)."""
    size = path.stat().st_size
    if size != num_pictures:
        raise UsageError(
            f"expected {num_pictures} labels of one byte in {path}, one for each picture, found {size} bytes; "
            "copy both files again, or take this one out of the folder to go without labels"
        )
    labels_N = np.frombuffer(path.read_bytes(), np.uint8)
    wrong = np.flatnonzero((labels_N < 1) | (labels_N > len(CLASS_NAMES)))
    if len(wrong):
        raise UsageError(
            f"expected labels from 1 to {len(CLASS_NAMES)} in {path}, found {labels_N[wrong[0]]} at byte {wrong[0]}; "
            "copy the file again, or take it out of the folder to go without labels"
        )
    return labels_N


def _decoder(row: Row) -> Decoder | None:
    """Tell by file and size, as a manifest may name such a file."""
    is_picture = row["size"] == STL10_BYTES and os.path.basename(row["uri"]) in PICTURE_FILES
    return decode_stl10 if is_picture else None


STL10 = Source(
    means=lambda address: bool(_splits_in(Path(address))),
    check=lambda address, options: check_folder(address),
    open=lambda address, asked: nullcontext(listing_of(_list(address, asked.limit))),
    called="a folder with STL10's own binary files",
    decoder=_decoder,
)
