"""The kinds of source, and who lists which.

Further kinds of source add a case to `open_listing`, and if need be a decoder to `source_reading.load_picture`.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from urllib.parse import unquote_to_bytes

from cam_ops.errors import UsageError
from cluster.sources.folder import check_folder, folder_batches, prefix_batches
from cluster.sources.listing import Listing, listing_of
from cluster.sources.manifest import is_manifest, open_manifest
from cluster.sources.sorting import sorted_listing
from cluster.sources.stl10 import holds_stl10, list_stl10
from cluster.sources.tars import COMPRESSED_SUFFIXES, is_tars, open_tars
from cluster.storage.objects import check_prefix, is_store, store_address, without_credentials
from cluster.storage.options import NO_OPTIONS, StorageOptions


def source_address(text: str) -> str:
    """Return the absolute path that a path or file:// URI means; s3:// and gs:// addresses as they are."""
    if not text:
        raise UsageError("--images expects a folder, a manifest or tar files, got an empty text")
    if text.lower().endswith(COMPRESSED_SUFFIXES):
        raise UsageError(f"--images {text}: of a compressed tar file no picture can be read alone; unpack it to a .tar")
    if is_store(text):
        return store_address(text, "--images")
    if text.startswith("file://"):
        text = os.fsdecode(unquote_to_bytes(text.removeprefix("file://")))
    elif "://" in text:
        raise UsageError(
            "--images expects a folder, a manifest or tar files, by a path, s3://... or gs://..., got "
            f"{without_credentials(text)}: this address kind is not supported"
        )
    return os.path.abspath(os.path.expanduser(text))


def check_source(address: str, options: StorageOptions) -> None:
    """Raise StorageError unless the source can be reached from here; the plan stands for a manifest."""
    if is_manifest(address):
        return
    if is_tars(address):
        address = os.path.dirname(address)
    if is_store(address):
        check_prefix(address, options)
    else:
        check_folder(address)


def open_listing(
    address: str, limit: int | None, skip: str = "", options: StorageOptions = NO_OPTIONS
) -> AbstractContextManager[Listing]:
    """List a source: the first `limit` images that a manifest names, or that tar files or a folder hold."""
    if is_manifest(address):
        return open_manifest(address, limit, options=options)
    if is_tars(address):
        return open_tars(address, limit, options)
    if is_store(address):
        return sorted_listing(address, prefix_batches(address, skip, options), limit)
    if holds_stl10(address):
        return nullcontext(listing_of(list_stl10(address, limit)))
    return sorted_listing(address, folder_batches(address, skip), limit)
