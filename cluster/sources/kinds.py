"""The kinds of source, and which of them an address is: the first in `KINDS` that means it."""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from urllib.parse import unquote_to_bytes

from cam_ops.errors import UsageError
from cluster.process.console import public
from cluster.sources.cifar import CIFAR
from cluster.sources.folders.folder import folder_source
from cluster.sources.folders.picture import PICTURE
from cluster.sources.folders.prefix import prefix_source
from cluster.sources.listing import Listing
from cluster.sources.manifest import MANIFEST
from cluster.sources.source import EVERYTHING, Asked, Decoder, OwnLabels, Row, Source
from cluster.sources.stl10 import STL10
from cluster.sources.tars import TARS
from cluster.storage.objects import is_store, store_address


def _instead(folder: str, names: Iterable[str]) -> str:
    """Say how to give files in a folder without pictures, nothing where no kind means one of them."""
    files = [f"{folder}/{name}" for name in names]
    found = ((kind, next(filter(kind.means, files), None)) for kind in KINDS if kind.inside)
    return "".join(
        f", or give {kind.inside.format(file=file, folder=os.path.dirname(file))}" for kind, file in found if file
    )


PREFIX, FOLDER = prefix_source(_instead), folder_source(_instead)
KINDS: tuple[Source, ...] = (
    MANIFEST,
    TARS,
    CIFAR,
    PICTURE,
    PREFIX,  # any address on a store
    STL10,
    FOLDER,  # any path
)
DECODERS = tuple(kind.decoder for kind in KINDS if kind.decoder)
OWN_LABELS: dict[str, OwnLabels] = {kind.own_labels.word: kind.own_labels for kind in KINDS if kind.own_labels}


def source_address(text: str) -> str:
    """Return the absolute path that a path or file:// URI means; s3:// and gs:// addresses as they are."""
    if not text:
        raise UsageError("--images expects a folder, a manifest or tar files, got an empty text")
    for kind in KINDS:
        if why := kind.refusal(text):
            raise UsageError(f"--images {text}: {why}")
    if is_store(text):
        return store_address(text, "--images")
    if text.startswith("file://"):
        text = os.fsdecode(unquote_to_bytes(text.removeprefix("file://")))
    elif "://" in text:
        raise UsageError(
            "--images expects a folder, a manifest or tar files, by a path, s3://... or gs://..., got "
            f"{public(text)}: this address kind is not supported"
        )
    return os.path.abspath(os.path.expanduser(text))


def kind_of(address: str) -> Source:
    """Return the kind of source that an address is."""
    return next(kind for kind in KINDS if kind.means(address))


def is_any_folder(address: str) -> bool:
    """Say whether no more is known of an address than that it may be a folder, here or on a store."""
    return kind_of(address) in (PREFIX, FOLDER)


def images_help() -> str:
    """Say what --images may be."""
    kinds = ". ".join(f"{kind.called[0].upper()}{kind.called[1:]}" for kind in reversed(KINDS) if kind.called)
    return (
        f"{kinds}. Each by a path, s3://BUCKET/KEY or gs://BUCKET/KEY. Several may be given, also by patterns in "
        "quotes, such as 'sets/*' or 'shards/{000000..000009}.tar'; ids then begin with what tells them apart."
    )


def open_listing(address: str, asked: Asked = EVERYTHING) -> AbstractContextManager[Listing]:
    """List a source."""
    return kind_of(address).open(address, asked)


def decoder_of(row: Row) -> Decoder | None:
    """Return what decodes a planned image where the usual decoder does not."""
    return next((decoder for decoder_of_kind in DECODERS if (decoder := decoder_of_kind(row))), None)
