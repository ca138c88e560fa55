"""Object stores through pyarrow.fs: listings, whole objects and byte ranges of `s3://BUCKET/KEY` and `gs://BUCKET/KEY`.

A key stands in an address as it is, without percent-encoding, whatever characters it has. What may pass (5xx, 429,
resets, stalls, truncated bodies) is tried again with growing pauses, for a minute unless the options say otherwise;
what is left becomes a StorageError with the store's reason. No message holds a credential.
"""

import os
import random
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from itertools import count
from mmap import mmap
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from cam_ops.errors import BadImage, StorageError, UsageError
from cluster.process.console import public, say, shortened
from cluster.storage.options import SECRETS, StorageOptions

PATIENCE_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 8.0
SAY_AFTER_S = 5.0
CHUNK_BYTES = 8 * 2**20
GUARD_BYTES = 16
SHOWN_CHARACTERS = 300
NUM_LISTERS = 8
ENOUGH_FOLDERS = 64  # to keep them busy: the rest is listed with all below it, in fewer requests
MANY_FOLDERS = 100_000
ROWS_PER_BATCH = 2**15

SCHEMES = ("s3://", "gs://")
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")
SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

Value = TypeVar("Value")


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
    bucket, _, key = _split(address)[1].partition("/")
    return is_store(address) and BUCKET.fullmatch(bucket) is not None and is_plain(key)


def is_plain(key: str) -> bool:
    """Say whether a key has no parts that pyarrow cannot send: empty ones, `.` and `..`."""
    return not {"", ".", ".."} & set(key.split("/"))


def absolute(place: str) -> str:
    """Return a path as it is from everywhere, or an address without user and password."""
    return public(place) if "://" in place else os.path.abspath(os.path.expanduser(place))


def read_object(
    address: str, options: StorageOptions, *, offset: int = 0, max_bytes: int | None = None
) -> bytes | None:
    """Return an object's bytes from `offset` on, at most `max_bytes`; None where there is no such key.

    Raises BadImage (``unreadable``) where the object itself cannot be had, StorageError where the store is the reason.
    """
    store, path = _split(address)
    read = _read_s3 if store == "s3" else _read_gs
    return _or_none(address, options, lambda system: read(system, path, offset, max_bytes))


def download(address: str, path: Path, options: StorageOptions) -> bool:
    """Copy an object to a file, piece by piece; return whether there is such a key.

    Raises StorageError, also if the object is replaced meanwhile by one of another size or time, which has seconds.
    """
    store, key = _split(address)
    version = object_version(address, options)
    if version is None:
        return False

    def copy(system: fs.FileSystem) -> None:
        with system.open_input_stream(key, compression=None) as stream, path.open("wb") as file:
            shutil.copyfileobj(stream, file, CHUNK_BYTES)

    if store == "gs":  # one stream, see `_read_gs`
        _or_none(address, options, copy)
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
    _, path = _split(address)

    def put(system: fs.FileSystem) -> None:
        stream = system.open_output_stream(path, compression=None)
        stream.write(content)
        stream.close()
        size = system.get_file_info(path).size
        if size != len(content):  # seen on an emulator of Google's after a broken upload
            raise ConnectionError(f"the store has {size} bytes of {len(content)}")

    with ThreadPoolExecutor(1) as thread:
        thread.submit(_retried, address, options, put).result()


def object_version(address: str, options: StorageOptions) -> tuple[int, int] | None:
    """Return an object's size in bytes and its time in ns; None where there is no such key. Raises StorageError."""
    _, path = _split(address)
    info = _retried(address, options, lambda system: system.get_file_info(path))
    return (info.size, info.mtime_ns) if info.type == fs.FileType.File else None


def remove_object(address: str, options: StorageOptions) -> None:
    """Remove an object if it is there. Raises StorageError."""
    _, path = _split(address)
    _or_none(address, options, lambda system: system.delete_file(path))


def check_prefix(address: str, options: StorageOptions) -> None:
    """Raise StorageError unless there is something below the address."""
    _, path = _split(address)
    info = _retried(address, options, lambda system: system.get_file_info(path))
    if info.type == fs.FileType.NotFound:
        raise StorageError(f"there is nothing at {address}; check the address, and --storage-options")


def list_objects(address: str, options: StorageOptions, *, recursive: bool = True) -> list[tuple[str, int]]:
    """Return the objects below an address in no order: the path below it, and the size in bytes; none is no error."""
    _, path = _split(address)
    selector = fs.FileSelector(path, recursive=recursive, allow_not_found=True)
    found = _retried(address, options, lambda system: system.get_file_info(selector))
    return [(info.path[len(path) + 1 :], info.size) for info in found if info.type == fs.FileType.File]


def object_times(address: str, options: StorageOptions) -> dict[str, float]:
    """Return when each object right below an address was put there, by its name: seconds since 1970."""
    _, path = _split(address)
    selector = fs.FileSelector(path, allow_not_found=True)
    found = _retried(address, options, lambda system: system.get_file_info(selector))
    return {info.base_name: (info.mtime_ns or 0) / 1e9 for info in found if info.type == fs.FileType.File}


def list_level(
    address: str, options: StorageOptions, *, with_folders: bool = True
) -> tuple[list[tuple[str, int]], list[str]]:
    """Return the objects right below an address, each with its size in bytes, and the folders; none is no error.

    Google's client names no folders: they are told by all that lies below them.
    """
    store, path = _split(address)
    selector = fs.FileSelector(path, recursive=store == "gs" and with_folders, allow_not_found=True)
    found = _retried(address, options, lambda system: system.get_file_info(selector))
    names = [(info.path[len(path) + 1 :], info) for info in found]
    files = [(name, info.size) for name, info in names if "/" not in name and info.type == fs.FileType.File]
    folders = {name.partition("/")[0] for name, info in names if "/" in name or info.type == fs.FileType.Directory}
    return files, sorted(folders)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of the objects below an address: those right in a folder of it, or all below that."""

    folder: str  # below the address, with `/` at its end, or empty
    files: list[pa.RecordBatch]  # `name`, below the address, and `size` in bytes
    folders: list[str] | None  # names right in it; None where `files` are all below it


Enter = Callable[[Part], Sequence[str]]
"""From the objects right in a folder to those of its `folders` that are of interest."""


def walk_objects(address: str, options: StorageOptions, enter: Enter) -> Iterator[Part]:
    """Yield the objects below an address part by part, in no order; none is no error.

    Several folders are listed at a time. Memory holds what lies below these: there is no way to ask pyarrow 26 for a
    page of a listing, and of Google's client none to ask for the names of folders, so that there all is one part.
    """
    ahead, under_way = deque([""]), set[Future[Part]]()
    pool = ThreadPoolExecutor(NUM_LISTERS, thread_name_prefix="list")
    try:
        while ahead or under_way:
            while ahead and len(under_way) < NUM_LISTERS:
                whole = address.startswith("gs://") or len(ahead) + len(under_way) > ENOUGH_FOLDERS
                under_way.add(pool.submit(_list_part, address, ahead.popleft(), options, whole))
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for part in (future.result() for future in done):
                if part.folders is not None and len(part.folders) > MANY_FOLDERS:  # a request for each would take hours
                    under_way.add(pool.submit(_list_part, address, part.folder, options, True))
                    continue
                ahead += [f"{part.folder}{name}/" for name in (enter(part) if part.folders else ())]
                yield part
            del done
    finally:
        pool.shutdown(cancel_futures=True)


def _list_part(address: str, folder: str, options: StorageOptions, whole: bool) -> Part:
    _, path = _split(address)
    selector = fs.FileSelector(f"{path}/{folder}".rstrip("/"), recursive=whole, allow_not_found=True)
    found = _retried(address, options, lambda system: system.get_file_info(selector))
    folders = [info.base_name for info in found if info.type == fs.FileType.Directory]
    files = []
    while found:  # freed as it goes: an entry of pyarrow's takes ten times as much
        piece = [info for info in found[-ROWS_PER_BATCH:] if info.type == fs.FileType.File]
        del found[-ROWS_PER_BATCH:]
        names, sizes = [info.path[len(path) + 1 :] for info in piece], [info.size for info in piece]
        files.append(pa.record_batch([pa.array(names, pa.string()), pa.array(sizes, pa.int64())], ["name", "size"]))
    return Part(folder=folder, files=files, folders=None if whole else folders)


def _split(address: str) -> tuple[str, str]:
    """Return the store and pyarrow's path, `BUCKET/KEY`."""
    store, _, path = address.partition("://")
    return store, path


def _or_none(address: str, options: StorageOptions, work: Callable[[fs.FileSystem], Value]) -> Value | None:
    try:
        return _retried(address, options, work)
    except FileNotFoundError:
        return None


def _retried(address: str, options: StorageOptions, work: Callable[[fs.FileSystem], Value]) -> Value:
    """Do a request, again and again while it fails for a reason that may pass.

    Raises FileNotFoundError where there is no such key, BadImage and StorageError as `read_object` says.
    """
    store, _ = _split(address)
    system = _file_system(store, options)
    start_s = time.monotonic()
    limit_s = options.of(store).get("retry_time_limit", PATIENCE_S)
    has_said = False
    for attempt in count():
        try:
            return work(system)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            if _code(error) in MISSING:
                raise FileNotFoundError(address) from None
            reason = _reason(error, options)
            if _code(error) == "INVALID_OBJECT_STATE":  # archived
                raise BadImage("unreadable", reason) from None
            if _is_final(error):
                cure = CHUNKS_CURE if _http_status(error) == NO_CHUNKS else REFUSAL_CURE
                raise StorageError(f"{address} is refused: {reason}; {cure}") from None
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311
            spent_s = time.monotonic() - start_s
            if spent_s + pause_s > limit_s:
                raise StorageError(
                    f"cannot reach {address} ({attempt + 1} attempts in {spent_s:.0f} s): {reason}; the same command "
                    "goes on where this one stopped"
                ) from None
            if spent_s > SAY_AFTER_S and not has_said:
                say(f"cannot reach {address} yet, it is tried for {limit_s:.0f} s: {reason}")
                has_said = True
            time.sleep(pause_s)
    raise AssertionError


MISSING = ("NO_SUCH_KEY", "RESOURCE_NOT_FOUND")
FINAL = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "INVALID_CLIENT_TOKEN_ID", "MISSING_AUTHENTICATION_TOKEN"),
    *("SIGNATURE_DOES_NOT_MATCH", "INVALID_SIGNATURE", "INCOMPLETE_SIGNATURE", "UNRECOGNIZED_CLIENT"),
    *("NO_SUCH_BUCKET", "OPT_IN_REQUIRED", "VALIDATION", "ACCOUNT_PROBLEM"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED", "FAILED_PRECONDITION"),
)
PASSING = (408, 429)
NO_CHUNKS = 411  # Amazon's client uploads in chunks to add a checksum, which not all stores of its kind take
CHUNKS_CURE = "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required in the environment of every node"
REFUSAL_CURE = (
    "check address, region and credentials (--storage-options, or the environment of every node); without the right to "
    "list, a missing key is refused, too"
)


def _code(error: Exception) -> str:
    """Return Amazon's or Google's word for what happened, empty where the error has none."""
    found = re.search(r"AWS Error (\w+)|google::cloud::Status\((\w+)", str(error))
    return (found[1] or found[2]) if found else ""


def _http_status(error: Exception) -> int:
    """Return the status where Amazon's client has no word for it, else 0."""
    found = re.search(r"AWS Error \w+ \(HTTP status (\d+)\)", str(error))
    return int(found[1]) if found else 0


def _is_final(error: Exception) -> bool:
    status = _http_status(error)
    is_refusal = status // 100 in (3, 4) and status not in PASSING
    return isinstance(error, PermissionError) or _code(error) in FINAL or is_refusal


def _reason(error: Exception, options: StorageOptions) -> str:
    """Return an error's first line without Google's appendix and without any credential."""
    text = str(error).partition("\n")[0].partition(" error_info=")[0]
    return shortened(without_secrets(text, options), SHOWN_CHARACTERS)


def without_secrets(text: str, options: StorageOptions) -> str:
    """Return a text without the secrets among options and environment, should it hold any."""
    secrets = [str(value) for _, name, value in options.values if name in SECRETS]
    for secret in [*secrets, *(os.environ.get(name, "") for name in SECRET_VARIABLES)]:
        text = text.replace(secret, "***") if secret else text
    return text


@lru_cache(maxsize=8)
def _file_system(store: str, options: StorageOptions) -> fs.FileSystem:
    """Return pyarrow's file system, one in each process."""
    given = options.of(store)
    given.pop("retry_time_limit", None)  # `_retried` has it: Google's client gives up early
    try:
        if store == "gs":
            return fs.GcsFileSystem(**given, retry_time_limit=timedelta(seconds=1))
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        defaults = {"request_timeout": 15, "connect_timeout": 5, "endpoint_override": endpoint}
        return fs.S3FileSystem(**defaults | given, allow_delayed_open=True)  # small objects: one request
    except (ValueError, OSError, pa.ArrowException) as error:
        raise UsageError(f"pyarrow cannot use these --storage-options for {store}: {_reason(error, options)}") from None
