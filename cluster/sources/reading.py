"""Read one image's bytes, wherever they are, and decode them as its kind of source says.

`read_image` is the only way to the bytes.
"""

import errno
import os
import stat
from urllib.parse import unquote_to_bytes

from cam_ops.arrays import U8
from cam_ops.errors import BadImage, StorageError
from cam_ops.pictures.decode import Decoded, decode, decode_for, whole
from cam_ops.pictures.header import MAX_BYTES
from cam_ops.settings import Preprocessing
from cluster.sources.kinds import decoder_of
from cluster.sources.source import Row
from cluster.sources.tables.cells import is_cell, read_cell
from cluster.storage.objects import is_object, is_store, read_object
from cluster.storage.options import NO_OPTIONS, StorageOptions


def load_picture(row: Row, options: StorageOptions = NO_OPTIONS) -> U8:
    """Fetch and decode the picture of a planned row, RGB (H, W, 3); raises what `read_image` and its decoder raise."""
    content = read_image(row["uri"], row["offset"], row["size"], options)
    return (decoder_of(row) or decode)(content)


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
