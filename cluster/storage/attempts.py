"""Requests to object stores: tried again while they may pass, and the store's reason where they do not.

What may pass (5xx, 429, resets, stalls, truncated bodies) is tried again with growing pauses, for a minute unless the
options say otherwise; what is left becomes a StorageError. No message holds a credential.
"""

import os
import random
import re
import time
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from itertools import count
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from cam_ops.errors import BadImage, StorageError, UsageError
from cluster.process.console import say, shortened
from cluster.storage.options import SECRETS, StorageOptions

PATIENCE_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 8.0
SAY_AFTER_S = 5.0
SHOWN_CHARACTERS = 300
SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

Value = TypeVar("Value")


class ListingError(OSError):
    """Why a page of a listing is not to be had: the store's word, and the HTTP status, 0 where none was answered."""

    def __init__(self, word: str, status: int, reason: str) -> None:
        super().__init__(reason)
        self.word, self.status = word, status


def split(address: str) -> tuple[str, str]:
    """Return the store and pyarrow's path, `BUCKET/KEY`."""
    store, _, path = address.partition("://")
    return store, path


def or_none(address: str, options: StorageOptions, work: Callable[[fs.FileSystem], Value]) -> Value | None:
    """Do a request as `retried` does; None where there is no such key."""
    try:
        return retried(address, options, work)
    except FileNotFoundError:
        return None


def retried(address: str, options: StorageOptions, work: Callable[[fs.FileSystem], Value]) -> Value:
    """Do a request, again and again while it fails for a reason that may pass.

    Raises FileNotFoundError where there is no such key, BadImage and StorageError as `objects.read_object` says.
    """
    store, _ = split(address)
    system = file_system(store, options)
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
            reason = reason_of(error, options)
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
    if isinstance(error, ListingError):
        return error.word
    found = re.search(r"AWS Error (\w+)|google::cloud::Status\((\w+)", str(error))
    return (found[1] or found[2]) if found else ""


def _http_status(error: Exception) -> int:
    """Return the status where the client says it, else 0."""
    if isinstance(error, ListingError):
        return error.status
    found = re.search(r"AWS Error \w+ \(HTTP status (\d+)\)", str(error))
    return int(found[1]) if found else 0


def _is_final(error: Exception) -> bool:
    status = _http_status(error)
    is_refusal = status // 100 in (3, 4) and status not in PASSING
    return isinstance(error, PermissionError) or _code(error) in FINAL or is_refusal


def reason_of(error: Exception, options: StorageOptions) -> str:
    """Return an error's first line without Google's appendix and without any credential."""
    text = str(error).partition("\n")[0].partition(" error_info=")[0]
    return shortened(without_secrets(text, options), SHOWN_CHARACTERS)


def without_secrets(text: str, options: StorageOptions) -> str:
    """Return a text without the secrets among options and environment, should it hold any."""
    secrets = [str(value) for _, name, value in options.values if name in SECRETS]
    for secret in [*secrets, *(os.environ.get(name, "") for name in SECRET_VARIABLES)]:
        text = text.replace(secret, "***") if secret else text
    return text


def endpoint_of_s3() -> str | None:
    """Return the endpoint that the environment names: pyarrow does not look there."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@lru_cache(maxsize=8)
def file_system(store: str, options: StorageOptions) -> fs.FileSystem:
    """Return pyarrow's file system, one in each process."""
    given = options.of(store)
    given.pop("retry_time_limit", None)  # `retried` has it: Google's client gives up early
    try:
        if store == "gs":
            return fs.GcsFileSystem(**given, retry_time_limit=timedelta(seconds=1))
        defaults = {"request_timeout": 15, "connect_timeout": 5, "endpoint_override": endpoint_of_s3()}
        return fs.S3FileSystem(**defaults | given, allow_delayed_open=True)  # small objects: one request
    except (ValueError, OSError, pa.ArrowException) as error:
        raise UsageError(
            f"pyarrow cannot use these --storage-options for {store}: {reason_of(error, options)}"
        ) from None
