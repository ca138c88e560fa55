"""Read one image's bytes, wherever they are; decode them as its kind of source says; or tell how EXIF turns it.

`read_image` is the only way to the bytes.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from threading import Event
from urllib.parse import unquote_to_bytes

from cam_ops.errors import BadImage, StorageError
from cam_ops.pictures.decode import Decoded, decode_for, whole
from cam_ops.pictures.header import JPEG, MAX_BYTES, PILLOW_ERRORS
from cam_ops.pictures.orientation import AS_STORED, QUARTER, UNKNOWN_TURN, orientation_of
from cam_ops.settings import Preprocessing
from cluster.sources.kinds import decoder_of
from cluster.sources.source import Row
from cluster.sources.tables.cells import is_cell, read_cell
from cluster.storage.objects import is_object, is_store, read_object
from cluster.storage.options import NO_OPTIONS, StorageOptions

HEAD_BYTES = 2**17  # in which a JPEG's header ends, its largest segment of EXIF included
NUM_THREADS = 16  # that wait for storage


def decode_for_input(row: Row, content: bytes, config: Preprocessing) -> Decoded:
    """Decode what `read_image` gave for a row, with no more pixels than the network's input needs if so configured."""
    own = decoder_of(row)
    return decode_for(content, config) if own is None else whole(own(content))


def read_image(uri: str, offset: int, size: int, options: StorageOptions = NO_OPTIONS) -> bytes:
    """Return `size` bytes of `uri` from `offset` on, fewer where it ends earlier; all if `size` is -1.

    Smaller sizes are cells of a Parquet file, `cluster.sources.tables.cells`, and `offset` the row. Never more than
    MAX_BYTES + 1 are read, so that what is too large shows. `uri` is an absolute path or an s3:// or gs:// address as
    they are, or a file:// URI in percent-encoding. Raises BadImage (``missing``, ``unreadable``, ``undecodable``) where
    the file is the reason, StorageError where the storage is.
    """
    if is_store(uri) and not is_cell(size):
        return _read_from_store(uri, offset, size, options)
    path = unquote_to_bytes(uri.removeprefix("file://")) if uri.startswith("file://") else uri.encode()
    if b"\0" in path:
        raise BadImage("missing", "no file has a name with a NUL byte")
    if is_cell(size):
        content = read_cell(os.fsdecode(path), offset, size, options)
        return content if isinstance(content, bytes) else read_image(content, 0, -1, options)
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise BadImage("unreadable", "not a regular file")
        return _read_file(path, offset, min(found.st_size if size < 0 else size, MAX_BYTES + 1))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImage("missing", str(error.strerror)) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG):
            raise BadImage("unreadable", str(error.strerror)) from None
        raise StorageError(
            f"cannot read {os.fsdecode(path)}: {error.strerror}; the shard is left for the next run"
        ) from None


def _read_file(path: bytes, offset: int, num_bytes: int) -> bytes:
    """Return so many bytes, fewer where the file ends earlier; with three calls of the system, as each gives Python's
    lock away.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        content = os.pread(descriptor, num_bytes, offset)
        while len(content) < num_bytes:  # it ends here, or the system gave less than it has
            more = os.pread(descriptor, num_bytes - len(content), offset + len(content))
            if not more:
                break
            content += more
        return content
    finally:
        os.close(descriptor)


def _read_from_store(uri: str, offset: int, size: int, options: StorageOptions) -> bytes:
    if not is_object(uri):
        raise BadImage("unreadable", "no address of an object: its key is empty or has empty, . or .. parts")
    content = read_object(
        uri, options, offset=offset, max_bytes=MAX_BYTES + 1 if size < 0 else min(size, MAX_BYTES + 1)
    )
    if content is None:
        raise BadImage("missing", "no such key")
    return content


def orientations(rows: Sequence[Row], options: StorageOptions) -> list[int]:
    """Return the EXIF orientation of planned pictures, 1 to 8, whose rows have their width and height as they are seen.

    UNKNOWN_TURN where a picture cannot be read, or has another size by now. Where the storage fails, no more are read.
    """
    failed = Event()
    with ThreadPoolExecutor(min(NUM_THREADS, max(1, len(rows)))) as pool:
        return list(pool.map(_orientation, rows, repeat(options), repeat(failed)))


def _orientation(row: Row, options: StorageOptions, failed: Event) -> int:
    if decoder_of(row):
        return AS_STORED
    try:
        number, width, height = (UNKNOWN_TURN, 0, 0) if failed.is_set() else header_of(row, options)
    except (BadImage, *PILLOW_ERRORS):
        return UNKNOWN_TURN
    except StorageError:
        failed.set()
        return UNKNOWN_TURN
    seen = (height, width) if number >= QUARTER else (width, height)
    return number if seen == (row["width"], row["height"]) else UNKNOWN_TURN


def header_of(row: Row, options: StorageOptions) -> tuple[int, int, int]:
    """Return what `orientation_of` says of a planned picture, and raises; of a JPEG by its first bytes if they do."""
    size = row["size"]
    if is_cell(size):
        return orientation_of(read_image(row["uri"], row["offset"], size, options))
    head = read_image(row["uri"], row["offset"], HEAD_BYTES if size < 0 else min(size, HEAD_BYTES), options)
    if head.startswith(JPEG):
        with contextlib.suppress(*PILLOW_ERRORS):  # its header is longer
            return orientation_of(head)
    return orientation_of(read_image(row["uri"], row["offset"], size, options) if len(head) == HEAD_BYTES else head)
