"""Open a file of annotations: bounded in bytes and lines, its errors as one sentence."""

import csv
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from cam_ops.errors import UsageError
from cam_ops.outside import RAISE, raised, size_of_file
from cluster.sources.folders.names import is_hidden_file, is_hidden_folder
from cluster.sources.listing import image_id_of
from cluster.storage.objects import is_plain
from cluster.storage.packed import unpacked

MAX_LINE = 2**16  # characters
UNREADABLE = (ValueError, ArithmeticError, RecursionError, EOFError, csv.Error, zlib.error)


@contextmanager
def reading(path: str | Path, kind: str, cure: str = "mend it, or give another --truth-format") -> Iterator[None]:
    """Turn what goes wrong while a truth file is read into a UsageError that names it."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read the ground truth {path}: {error.strerror or error}; check --truth") from None
    except (*UNREADABLE, pa.ArrowException) as error:
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        if isinstance(error, UnicodeDecodeError):
            reason = "it is not in UTF-8"
        raise UsageError(f"cannot read {path} as {kind}: {reason}; {cure}") from None


def read_bounded(path: str | Path, max_bytes: int) -> bytes:
    """Return a file's bytes. Raises OSError, also if it is no file; ValueError if it has more than `max_bytes`."""
    if (size := size_of_file(path)) > (most := raised(max_bytes)):
        raise ValueError(f"it has {size} bytes, at most {most} are read; cut it, {RAISE}")
    with open(path, "rb") as file:
        return file.read(most)


def is_file(path: str, suffixes: str | tuple[str, ...]) -> bool:
    """Say whether there is something with such a suffix that is no folder."""
    return path.lower().endswith(suffixes) and os.path.exists(path) and not os.path.isdir(path)


def lines_of(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield each line of a text file that is not blank, with its number from 1, without blanks around it.

    Raises OSError; ValueError where a line is too long or not in UTF-8.
    """
    size_of_file(path)
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(bounded_lines(file), 1):
            if line := line.strip():
                yield number, line


@contextmanager
def open_text(path: str) -> Iterator[IO[str]]:
    """Open a text file, perhaps gzipped, as `csv` wants it. Raises OSError."""
    with unpacked(path) as file, io.TextIOWrapper(cast(IO[bytes], file), encoding="utf-8-sig", newline="") as text:
        yield text


def bounded_lines(file: IO[str]) -> Iterator[str]:
    """Yield the lines of an open file. Raises ValueError where one is too long."""
    most = raised(MAX_LINE)
    while line := file.readline(most):
        if len(line) == most:
            raise ValueError(f"a line has more than {most} characters: {line[:40]!r}...; shorten it, {RAISE}")
        yield line


def files_below(folder: str, suffix: str | tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the path below `folder`, as image ids have it, and the full path of each file with a suffix, in order.

    What is hidden, or systems made for themselves, is left out. Raises OSError where a folder cannot be listed.
    """

    def stop(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=stop):
        folders[:] = sorted(name for name in folders if not is_hidden_folder(name))
        for name in sorted(names):
            if name.lower().endswith(suffix) and not is_hidden_file(name):
                path = os.path.join(root, name)
                yield image_id_of(os.path.relpath(path, folder)), path


def path_below(folder: str, name: str) -> str:
    """Return the path of a file that a truth file names. Raises ValueError if the name leads out of `folder`."""
    if not is_plain(name) or "\0" in name:
        raise ValueError(f"it names {name[:200]!r}, which is absolute, or has empty, . or .. parts")
    return os.path.join(folder, name)
