"""List a source of images once, and read one image's bytes later, possibly on another machine.

Further kinds of source add a case to `open_listing`, and if need be a decoder to `load_picture`; `read_image` stays the
only way to the bytes.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pyarrow as pa

from cam_ops.arrays import U8
from cam_ops.errors import StorageError, UsageError
from cam_ops.images import MAX_BYTES, STL10_BYTES, BadImage, Decoded, decode, decode_for, decode_stl10, whole
from cam_ops.settings import Preprocessing
from cam_ops.tables import LISTING
from cluster.disk_sort import ROWS_PER_BATCH, sorted_listing
from cluster.listing import Listing, image_id_of, listing_of
from cluster.manifest import is_manifest, open_manifest
from cluster.stl10 import holds_stl10, is_stl10_file, list_stl10
from cluster.storage import (
    check_prefix,
    is_object,
    is_store,
    list_objects,
    read_object,
    store_address,
    without_credentials,
)
from cluster.store_options import NO_OPTIONS, StorageOptions
from cluster.tars import COMPRESSED_SUFFIXES, is_tars, open_tars

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff")


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


def check_folder(address: str) -> None:
    """Raise StorageError unless the folder at `address` can be listed from here."""
    try:
        os.scandir(address).close()
    except OSError as error:
        raise StorageError(
            f"cannot list the image folder {address} on {os.uname().nodename}: {error.strerror}; "
            "check --images, and that every node sees it"
        ) from None


def open_listing(
    address: str, limit: int | None, skip: str = "", options: StorageOptions = NO_OPTIONS
) -> AbstractContextManager[Listing]:
    """List a source: the first `limit` images that a manifest names, or that tar files or a folder hold."""
    if is_manifest(address):
        return open_manifest(address, limit, options=options)
    if is_tars(address):
        return open_tars(address, limit, options)
    if is_store(address):
        return sorted_listing(address, _prefix_batches(address, skip, options), limit)
    if holds_stl10(address):
        return nullcontext(listing_of(list_stl10(address, limit)))
    return sorted_listing(address, _folder_batches(address, skip), limit)


def _folder_batches(address: str, skip: str) -> Iterator[pa.RecordBatch]:
    """Find the pictures below a folder by their suffix, in no order; an id is the path below the folder, with `/`.

    Directories behind symbolic links are not entered, nor is the directory `skip`, an absolute path. Raises
    StorageError if the folder cannot be listed or holds no picture.
    """
    check_folder(address)
    rows = ((image_id, Path(path).as_uri(), size) for image_id, path, size in _walk(address, skip))
    kinds = f"pictures ({', '.join(SUFFIXES)}) below {address}, or STL10's binary files in it"
    yield from _batched(rows, kinds, lambda: _tars_in(address, os.listdir(address)))


def _prefix_batches(address: str, skip: str, options: StorageOptions) -> Iterator[pa.RecordBatch]:
    """Find the pictures below an address on an object store by their suffix, in no order; an id is the key's rest.

    Keys below the address `skip` are left out. Raises StorageError if it cannot be listed or holds no picture.
    """
    objects = list_objects(address, options)
    rows = (
        (image_id_of(name), f"{address}/{name}", size)
        for name, size in objects
        if _is_named_as_picture(name.rpartition("/")[2]) and not f"{address}/{name}".startswith(f"{skip}/")
    )
    kinds = f"pictures ({', '.join(SUFFIXES)}) below {address}"
    yield from _batched(rows, kinds, lambda: _tars_in(address, [name for name, _ in objects]))


def _batched(rows: Iterator[tuple[str, str, int]], kinds: str, hint: Callable[[], str]) -> Iterator[pa.RecordBatch]:
    """Yield rows of id, uri and size in batches of schema LISTING; raises StorageError where there are none."""
    first = True
    while held := list(islice(rows, ROWS_PER_BATCH)):
        first = False
        ids, uris, sizes = zip(*held, strict=True)
        yield pa.record_batch([ids, uris, [0] * len(ids), sizes], schema=LISTING)
    if first:
        raise StorageError(f"expected {kinds}, found none; check --images{hint()}")


def _tars_in(address: str, names: list[str]) -> str:
    """Return how to read a folder's tar files, nothing where it has none."""
    has_tars = any("/" not in name and is_tars(f"{address}/{name}") for name in names)
    return f", or give its tar files, --images '{address}/*.tar'" if has_tars else ""


def _walk(folder: str, skip: str) -> Iterator[tuple[str, str, int]]:
    """Yield id, path and size of each picture below `folder`, in no particular order."""
    pending, prefix = [(folder, "")], ""
    while pending:
        folder, prefix = pending.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    image_id = prefix + image_id_of(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path != skip:
                            pending.append((entry.path, image_id + "/"))
                    elif _is_named_as_picture(entry.name) and not os.path.isdir(entry.path):
                        yield image_id, entry.path, _size(entry)
        except OSError as error:
            raise StorageError(f"cannot list {folder}: {error.strerror}; nothing was planned") from None


def _is_named_as_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith("._")  # macOS's notes on a picture, not one


def _size(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a broken link: its row will say `missing`
        return 0


def load_picture(row: dict[str, Any], options: StorageOptions = NO_OPTIONS) -> U8:
    """Fetch and decode the picture of a planned row, RGB (H, W, 3); raises what `read_image` and its decoder raise."""
    content = read_image(row["uri"], row["offset"], row["size"], options)
    return decode_stl10(content) if _is_stl10(row) else decode(content)


def decode_for_input(row: dict[str, Any], content: bytes, config: Preprocessing) -> Decoded:
    """Decode what `read_image` gave for a row, with no more pixels than the network's input needs if so configured."""
    return whole(decode_stl10(content)) if _is_stl10(row) else decode_for(content, config)


def _is_stl10(row: dict[str, Any]) -> bool:
    return is_stl10_file(row["uri"]) and row["size"] == STL10_BYTES


def read_image(uri: str, offset: int, size: int, options: StorageOptions = NO_OPTIONS) -> bytes:
    """Return `size` bytes of `uri` from `offset` on, fewer where it ends earlier; all if `size` is -1.

    Never more than MAX_BYTES + 1 are read, so that what is too large shows. `uri` is an absolute path or an s3:// or
    gs:// address as they are, or a file:// URI in percent-encoding. Raises BadImage (``missing``, ``unreadable``) where
    the file is the reason, StorageError where the storage is.
    """
    if is_store(uri):
        return _read_from_store(uri, offset, size, options)
    path = unquote_to_bytes(uri.removeprefix("file://")) if uri.startswith("file://") else uri.encode()
    if b"\0" in path:
        raise BadImage("missing", "no file has a name with a NUL byte")
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise BadImage("unreadable", "not a regular file")
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(min(found.st_size if size < 0 else size, MAX_BYTES + 1))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImage("missing", str(error.strerror)) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG):
            raise BadImage("unreadable", str(error.strerror)) from None
        raise StorageError(
            f"cannot read {os.fsdecode(path)}: {error.strerror}; the shard is left for the next run"
        ) from None


def _read_from_store(uri: str, offset: int, size: int, options: StorageOptions) -> bytes:
    if not is_object(uri):
        raise BadImage("unreadable", "no address of an object: its key is empty or has empty, . or .. parts")
    content = read_object(
        uri, options, offset=offset, max_bytes=MAX_BYTES + 1 if size < 0 else min(size, MAX_BYTES + 1)
    )
    if content is None:
        raise BadImage("missing", "no such key")
    return content
