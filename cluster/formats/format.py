"""What an annotation format is: one record each, made in the file of its format, listed in `detect`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from cluster.formats.entries import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """An annotation format."""

    name: str  # for --truth-format
    frame: Frame
    read: Callable[[str, str], Iterator[pa.RecordBatch]]
    """Read a file or folder, and the folder of its masks where they may lie elsewhere; batches of schema ENTRIES.

    Raises UsageError.
    """
    is_folder: bool = False
    """There is no single file of it."""
    recognise: Callable[[str], bool] = lambda path: False
    """Say whether a path, at which nothing need be, is of this format: by names, or a header. Raises UsageError."""
    suffix: str | None = None
    """Of the files of a folder, by which it is told where no format recognises it."""
