"""The images of a source: a stream of record batches that can be read again."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from cluster.process.console import say
from cluster.sources.beside import Beside

AND = "|"  # between the words of a label that is several

Remarks = dict[str, tuple[int, str]]  # what is said once of a source: how often it was seen, and an example


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Images in rising order of their ids' UTF-8 bytes, each id once.

    Batches have the schema `cam_ops.tables.LISTING`, and a further column `label`, string, where `has_labels`: the
    source's own word for the class, null or blank where an image has none, several with `AND` between them. Then come
    the columns `kept`.
    """

    num_images: int
    has_labels: bool
    batches: Callable[[], Iterator[pa.RecordBatch]]  # from the first image on, at each call
    label_hint: str = ""  # without labels: how to take what may be some, such as `--columns label=class`
    class_names: tuple[str, ...] = ()  # the source's own list of classes, in its order
    names_files: bool = False  # whether ids begin with the names of the source's own files
    num_parts: int = 0  # of ids, by which sources are told apart: folders that name classes come after them
    kept: pa.Schema = field(default_factory=lambda: pa.schema([]))
    beside: Beside = field(default_factory=Beside)  # what its rows say beside their labels


def listing_of(table: pa.Table) -> Listing:
    """Return a table that is a listing already, schema LISTING, as one."""
    return Listing(num_images=len(table), has_labels=False, batches=lambda: iter(table.to_batches()))


def image_id_of(path: str) -> str:
    """Return the id of a file by its path below the source: bytes that are not UTF-8 appear as ``\\xNN``.

    A backslash that is part of a name is doubled, so that no two files share an id.
    """
    return os.fsencode(path).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def remark(remarks: Remarks, what: str, example: str, count: int = 1) -> None:
    """Add to what will be said of a source."""
    before, first = remarks.get(what, (0, example))
    remarks[what] = (before + count, first)


def say_remarks(source: str, remarks: Remarks) -> None:
    """Say them, a line each."""
    for what, (count, example) in remarks.items():
        say(f"{source}: {count} {what}, such as {example}")
