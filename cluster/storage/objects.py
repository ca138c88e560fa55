"""Object stores through pyarrow.fs: whole objects and byte ranges of `s3://BUCKET/KEY` and `gs://BUCKET/KEY`.

A key stands in an address as it is, without percent-encoding, whatever characters it has. Failures: see `attempts`.
"""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from mmap import mmap
from pathlib import Path

from pyarrow import fs

from cam_ops.errors import StorageError, UsageError
from cluster.process.console import public
from cluster.storage.attempts import or_none, retried, split
from cluster.storage.options import StorageOptions

CHUNK_BYTES = 8 * 2**20
GUARD_BYTES = 16

SCHEMES = ("s3://", "gs://")
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")


def is_store(address: str) -> bool:
    """Say whether an address is on an object store."""
    return address.startswith(SCHEMES)


def store_address(text: str, flag: str) -> str:
    """Return `s3://BUCKET[/KEY]` or `gs://...` without slashes at its end. Raises UsageError for another form of it."""
    scheme, _, path = text.partition("://")
    bucket, _, key = path.rstrip("/").partition("/")
    if not BUCKET.fullmatch(bucket) or (key and not is_plain(key)):
        raise UsageError(
            f"{flag} expects {scheme}://BUCKET/KEY, the key without empty, . and .. parts, got "
            f"{public(text)}; credentials and endpoints go into --storage-options or the environment"
        )
    return f"{scheme}://{path.rstrip('/')}"


def is_object(address: str) -> bool:
    """Say whether an address is one of an object that pyarrow can ask for."""
    bucket, _, key = split(address)[1].partition("/")
    return is_store(address) and BUCKET.fullmatch(bucket) is not None and is_plain(key)


def is_plain(key: str) -> bool:
    """Say whether a key has no parts that pyarrow cannot send: empty ones, `.` and `..`."""
    return not {"", ".", ".."} & set(key.split("/"))


def absolute(place: str) -> str:
    """Return a path as it is from everywhere, or an address without user and password."""
    return public(place) if "://" in place else os.path.abspath(os.path.expanduser(place))


def real(place: str) -> str:
    """Return where an absolute path leads, whatever links are on the way; an address as it is."""
    return place if is_store(place) else os.path.realpath(place)


def read_object(
    address: str, options: StorageOptions, *, offset: int = 0, max_bytes: int | None = None
) -> bytes | None:
    """Return an object's bytes from `offset` on, at most `max_bytes`; None where there is no such key.

    Raises BadImage (``unreadable``) where the object itself cannot be had, StorageError where the store is the reason.
    """
    store, path = split(address)
    read = _read_s3 if store == "s3" else _read_gs
    return or_none(address, options, lambda system: read(system, path, offset, max_bytes))


def download(address: str, path: Path, options: StorageOptions) -> bool:
    """Copy an object to a file, piece by piece; return whether there is such a key.

    Raises StorageError, also if the object is replaced meanwhile by one of another size or time, which has seconds.
    """
    store, key = split(address)
    version = object_version(address, options)
    if version is None:
        return False

    def copy(system: fs.FileSystem) -> None:
        with system.open_input_stream(key, compression=None) as stream, path.open("wb") as file:
            shutil.copyfileobj(stream, file, CHUNK_BYTES)

    if store == "gs":  # one stream, see `_read_gs`
        or_none(address, options, copy)
    else:
        with path.open("wb") as file:
            for offset in range(0, version[0], CHUNK_BYTES):
                file.write(read_object(address, options, offset=offset, max_bytes=CHUNK_BYTES) or b"")
    if object_version(address, options) != version:
        raise StorageError(f"{address} was changed while it was read; run the same command again")
    return True


def _read_s3(system: fs.FileSystem, path: str, offset: int, max_bytes: int | None) -> bytes:
    """Read a range, and prove that the last of it was written: pyarrow 26 does not see that a body was too short."""
    with system.open_input_file(path) as file:
        length = max(0, file.size() - offset)
        length = length if max_bytes is None else min(length, max_bytes)
        if not length:
            return b""
        guard = os.urandom(min(length, GUARD_BYTES))
        content = bytearray(length)
        content[-len(guard) :] = guard
        file.seek(offset)
        if file.readinto(content) < length or content.endswith(guard):
            raise ConnectionError("the answer was shorter than the object")
    return bytes(content)


def _read_gs(system: fs.FileSystem, path: str, offset: int, max_bytes: int | None) -> bytes:
    """Read a stream from its beginning: pyarrow 26's random access loses errors, and waits while it holds the GIL."""
    left = None if max_bytes is None else offset + max_bytes
    pieces = []
    with system.open_input_stream(path, compression=None) as stream:
        while left is None or left:
            piece = stream.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))
            if not piece:
                break
            pieces.append(piece)
            left = None if left is None else left - len(piece)
    return b"".join(pieces)[offset:]


def put_object(address: str, content: bytes | mmap, options: StorageOptions) -> None:
    """Upload a whole object, which replaces what bears its name; raises StorageError.

    In a thread, where no interrupt comes between: a stream that is dropped publishes what it has.
    """
    _, path = split(address)

    def put(system: fs.FileSystem) -> None:
        stream = system.open_output_stream(path, compression=None)
        stream.write(content)
        stream.close()
        size = system.get_file_info(path).size
        if size != len(content):  # seen on an emulator of Google's after a broken upload
            raise ConnectionError(f"the store has {size} bytes of {len(content)}")

    with ThreadPoolExecutor(1) as thread:
        thread.submit(retried, address, options, put).result()


def object_version(address: str, options: StorageOptions) -> tuple[int, int] | None:
    """Return an object's size in bytes and its time in ns; None where there is no such key. Raises StorageError."""
    _, path = split(address)
    info = retried(address, options, lambda system: system.get_file_info(path))
    return (info.size, info.mtime_ns) if info.type == fs.FileType.File else None


def remove_object(address: str, options: StorageOptions) -> None:
    """Remove an object if it is there. Raises StorageError."""
    _, path = split(address)
    or_none(address, options, lambda system: system.delete_file(path))


def check_prefix(address: str, options: StorageOptions) -> None:
    """Raise StorageError unless there is something below the address."""
    _, path = split(address)
    info = retried(address, options, lambda system: system.get_file_info(path))
    if info.type == fs.FileType.NotFound:
        raise StorageError(f"there is nothing at {address}; check the address, and --storage-options")
