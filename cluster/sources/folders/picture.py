"""A single picture, named by its address: its id is the name of its file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from cam_ops.errors import StorageError
from cam_ops.pictures.formats import format_named, read_suffixes, suffix_of
from cam_ops.tables import LISTING
from cluster.sources.folders.names import is_named_as_picture
from cluster.sources.listing import Listing, image_id_of
from cluster.sources.source import Asked, Source
from cluster.storage.objects import is_store, object_version
from cluster.storage.options import StorageOptions


def _is_picture(address: str) -> bool:
    return is_named_as_picture(os.path.basename(address)) and (is_store(address) or not os.path.isdir(address))


@contextmanager
def _open_picture(address: str, asked: Asked) -> Iterator[Listing]:
    size = _size(address, asked.options)
    uri = address if is_store(address) else Path(address).as_uri()
    batch = pa.record_batch([[image_id_of(os.path.basename(address))], [uri], [0], [size]], schema=LISTING)
    yield Listing(num_images=1, has_labels=False, batches=lambda: iter([batch]), names_files=True)


def _size(address: str, options: StorageOptions) -> int:
    """Return how many bytes a picture has. Raises StorageError where it is not there."""
    if is_store(address):
        version = object_version(address, options)
        if version is None:
            raise StorageError(f"there is no picture {address}; check --images")
        return version[0]
    try:
        return os.stat(address).st_size
    except OSError as error:
        raise StorageError(
            f"cannot read the picture {address} on {os.uname().nodename}: {error.strerror}; check --images"
        ) from None


def _check(address: str, options: StorageOptions) -> None:
    """Nothing to check: what is missing is a row that says so."""


def _refusal(text: str) -> str:
    """Say why a file that other tools take for a picture is none here."""
    suffix = suffix_of(text)
    form = format_named(suffix)
    if form is None or suffix in read_suffixes() or (not is_store(text) and os.path.isdir(text)):
        return ""
    return f"{form.name} is not read; {form.cure}"


PICTURE = Source(
    means=_is_picture,
    check=_check,
    open=_open_picture,
    called="a single picture of these kinds",
    refusal=_refusal,
)
