"""What a kind of source is: one record each, made in the file of its kind, listed in `kinds`.

Addresses are absolute paths, and s3:// and gs:// addresses, as `kinds.source_address` returns them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from cam_ops.arrays import U8
from cluster.sources.columns import Columns
from cluster.sources.listing import Listing
from cluster.storage.options import NO_OPTIONS, StorageOptions

Row = dict[str, Any]
"""An image as the plan has it, schema LABELLED."""
Decoder = Callable[[bytes], U8]
"""From an image's bytes to its pixels, RGB (H, W, 3); raises BadImage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of a listing, beside the address of its source."""

    limit: int | None = None  # the first so many images by id
    skip: str = ""  # the address of a run, whose files are none of the images
    options: StorageOptions = NO_OPTIONS
    columns: Columns = field(default_factory=dict)
    keep: tuple[str, ...] = ()  # further columns to carry along


EVERYTHING = Asked()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLabels:
    """The labels that sources of a kind may have themselves, `Listing`'s column `label`, and what is said of them."""

    word: str  # for --labels
    needed: str  # what --images must be: "FILE.parquet"
    place: str  # where an image's label stands: "column label"
    subject: str  # the same, as a sentence begins that ends in "empty"
    names_image: str  # the column that tells a user which image it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A kind of source."""

    means: Callable[[str], bool]
    """Say whether an address that no kind before this one means is of this kind; nothing need be there any more."""
    check: Callable[[str, StorageOptions], None]
    """Raise StorageError unless what is planned from an address can be reached from here."""
    open: Callable[[str, Asked], AbstractContextManager[Listing]]
    """List an address."""
    together: Callable[[Sequence[str], Asked], AbstractContextManager[Listing]] | None = None
    """List several addresses at once, where ids begin with the names of files anyway."""
    takes_wildcards: Callable[[str], bool] = lambda address: False
    """Say whether it finds what an address with wildcards means by itself."""
    files: Callable[[str, StorageOptions], list[str]] | None = None
    """Return the files that such an address means, where one that several addresses mean would be there twice."""
    own_labels: OwnLabels | None = None
    columns: frozenset[str] = frozenset()
    """Which of `columns.NEAR` its images have; with `uri` among them there may be more to carry along, `Asked.keep`."""
    no_folders: str = ""
    """Why its ids have no folders that name classes, where they have none."""
    called: str = ""
    """What --images may be, for the flag's help."""
    inside: str = ""
    """How to give its files where they lie in a folder without pictures: `{file}` is the first, `{folder}` its own."""
    refusal: Callable[[str], str] = lambda text: ""
    """Say why what the user gave is almost of this kind, but cannot be read."""
    decoder: Callable[[Row], Decoder | None] | None = None
    """Return what decodes a planned image where the usual decoder does not; any kind may have planned it."""
