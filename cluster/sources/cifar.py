"""CIFAR-10's and CIFAR-100's binary files, as their authors publish them: pictures listed by their labels alone.

A record is one byte 0..9, the class, or two, the coarse class and the fine one, 0..99; then a picture of 32x32 pixels,
its red, green and blue planes, each row by row (https://www.cs.toronto.edu/~kriz/cifar.html). Any of the files will do.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from cam_ops.arrays import U8
from cam_ops.errors import BadImage, StorageError, UsageError
from cam_ops.tables import LISTING
from cluster.process.console import shown
from cluster.sources.folders.folder import check_folder
from cluster.sources.folders.names import is_named_as_picture
from cluster.sources.folders.patterns import WILDCARDS, addresses_of, fixed_part
from cluster.sources.listing import Listing, listing_of
from cluster.sources.source import Asked, Decoder, Row, Source
from cluster.storage.objects import is_store, object_version, read_object
from cluster.storage.options import StorageOptions

SIDE = 32
PICTURE_BYTES = 3 * SIDE * SIDE
SUFFIX = ".bin"
MAX_BYTES = 2**30  # of a file on a store
MAX_NAMES_BYTES = 2**20
NUM_LOOKED_AT = 10_000  # files below a folder
HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"


HUNDRED_NAMES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edition:
    """One of the two datasets."""

    files: tuple[str, ...]
    names_file: str
    names: tuple[str, ...]
    num_labels: int  # bytes before a picture, the last of which is the class


TEN = _Edition(
    files=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
    names_file="batches.meta.txt",
    names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    num_labels=1,
)
HUNDRED = _Edition(
    files=("train.bin", "test.bin"),
    names_file="fine_label_names.txt",
    names=tuple(HUNDRED_NAMES.split()),
    num_labels=2,
)
FILES = {name: edition for edition in (TEN, HUNDRED) for name in edition.files}


def _is_cifar(address: str) -> bool:
    """Say whether an address means one of the files, several by wildcards, or a local folder that has some.

    CIFAR-100's have names that anything may have: the list of classes must lie beside them. On a store nothing else
    ends so.
    """
    folder, name = os.path.split(address)
    if is_store(address) or (WILDCARDS & set(name) and not os.path.exists(address)):
        return name.endswith(SUFFIX)
    if os.path.isdir(address):
        return bool(_files_in(address))
    return name in TEN.files or (name in HUNDRED.files and os.path.isfile(f"{folder}/{HUNDRED.names_file}"))


def _files_in(folder: str) -> list[str]:
    editions = [TEN, *([HUNDRED] if os.path.isfile(f"{folder}/{HUNDRED.names_file}") else [])]
    return [f"{folder}/{name}" for each in editions for name in each.files if os.path.isfile(f"{folder}/{name}")]


def _open(address: str, asked: Asked) -> AbstractContextManager[Listing]:
    """List the pictures of the files, sorted by id: ``CLASS/FILE-NNNNN`` with the picture's place in its file.

    Raises UsageError for files that are not CIFAR's or not whole, StorageError for those that cannot be reached.
    """
    files = _files_in(address) if _is_folder(address) else addresses_of(address, asked.options, files_only=True)
    if _is_folder(address) and (beside := _picture_below(address)):
        raise UsageError(
            f"{address} holds CIFAR's binary files and other pictures, such as {shown(beside)}; say which are meant: "
            f"--images {os.path.join(address, '*' + SUFFIX)!r}, or move the files"
        )
    if strangers := [file for file in files if os.path.basename(file) not in FILES]:
        raise UsageError(f"expected CIFAR's files, {', '.join(FILES)}, found {shown(strangers[0])}; check --images")
    if len({FILES[os.path.basename(file)].num_labels for file in files}) > 1:
        raise UsageError(f"expected files of CIFAR-10 or of CIFAR-100, found both in {address}; give one folder each")
    by_name = {os.path.basename(file): file for file in reversed(files)}
    if twice := [file for file in files if by_name[os.path.basename(file)] != file]:
        name = os.path.basename(twice[0])
        raise UsageError(
            f"two files are called {name}, so that ids would be there twice: {shown(by_name[name])} and "
            f"{shown(twice[0])}; give each by a word of its own, --images A B"
        )
    found = sorted(row for file in files for row in _rows(file, asked.options))[: asked.limit]
    ids, uris, offsets = zip(*found, strict=True)
    return nullcontext(listing_of(pa.table([ids, uris, offsets, [PICTURE_BYTES] * len(ids)], schema=LISTING)))


def _picture_below(folder: str) -> str | None:
    """Return a picture among the first files below a folder."""
    paths = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    return next((path for path in islice(paths, NUM_LOOKED_AT) if is_named_as_picture(os.path.basename(path))), None)


def _is_folder(address: str) -> bool:
    return not is_store(address) and os.path.isdir(address)


def _rows(address: str, options: StorageOptions) -> Iterator[tuple[str, str, int]]:
    """Yield id, URI and offset of each picture of a file."""
    folder, name = os.path.split(address)
    edition = FILES[name]
    names = _class_names(folder, edition, options)
    size = edition.num_labels + PICTURE_BYTES
    label_N = _labels(address, size, edition, options)
    uri = address if is_store(address) else Path(address).as_uri()
    for i, label in enumerate(label_N.tolist()):
        yield f"{names[label]}/{name.removesuffix(SUFFIX)}-{i:05d}", uri, i * size + edition.num_labels


def _labels(address: str, size: int, edition: _Edition, options: StorageOptions) -> U8:
    """Return the class of each record of a file."""
    try:
        content = _content(address, options) if is_store(address) else np.memmap(address, np.uint8, "r")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is empty"
        raise StorageError(f"cannot read {address}: {reason}; nothing was planned") from None
    if not len(content) or len(content) % size:
        raise UsageError(
            f"expected records of {size} bytes each in {address}, found {len(content)} bytes, which is no whole number "
            "of them above 0; copy the file again, or take it out of the folder"
        )
    label_N: U8 = np.array(content.reshape(-1, size)[:, edition.num_labels - 1])
    wrong = np.flatnonzero(label_N >= len(edition.names))
    if len(wrong):
        raise UsageError(
            f"expected classes from 0 to {len(edition.names) - 1} in {address}, found {label_N[wrong[0]]} in record "
            f"{wrong[0]}; copy the file again"
        )
    return label_N


def _content(address: str, options: StorageOptions) -> U8:
    version = object_version(address, options)
    if version is None:
        raise StorageError(f"there is no {address}; check --images")
    if version[0] > MAX_BYTES:
        raise UsageError(f"{address} has {version[0]} bytes, more than any of CIFAR's files")
    return np.frombuffer(_read(address, options, MAX_BYTES) or b"", np.uint8)


def _read(address: str, options: StorageOptions, max_bytes: int) -> bytes | None:
    try:
        return read_object(address, options, max_bytes=max_bytes)
    except BadImage as bad:
        raise StorageError(f"cannot read {address}: {bad}") from None


def _class_names(folder: str, edition: _Edition, options: StorageOptions) -> tuple[str, ...]:
    """Return the names in the file that lies beside the pictures, the official ones where there is none."""
    address = f"{folder}/{edition.names_file}"
    if is_store(folder):
        content = _read(address, options, MAX_NAMES_BYTES)
    else:
        try:
            content = Path(address).read_bytes()[:MAX_NAMES_BYTES]
        except FileNotFoundError:
            content = None
        except OSError as error:
            raise StorageError(f"cannot read {address}: {error.strerror}; nothing was planned") from None
    if content is None:
        return edition.names
    names = tuple(line.strip() for line in content.decode("utf-8", "replace").splitlines() if line.strip())
    if not len(names) == len(set(names)) == len(edition.names) or "/" in "".join(names):
        raise UsageError(
            f"expected {len(edition.names)} different class names without a / in {address}, found {len(names)}: "
            f"{shown(', '.join(names))}; mend the file, or remove it for CIFAR's own names"
        )
    return names


def _refusal(text: str) -> str:
    """Say why CIFAR's Python version is not read."""
    is_ten = os.path.isfile(f"{text}/batches.meta") and os.path.isfile(f"{text}/data_batch_1")
    is_hundred = all(os.path.isfile(f"{text}/{name}") for name in ("meta", "train", "test"))
    if is_store(text) or not (is_ten or is_hundred):
        return ""
    return (
        f"CIFAR's Python version is pickled, which may run code, and is not read; take the binary version from {HOME}"
    )


def _decoder(row: Row) -> Decoder | None:
    """Tell by file and size, as a manifest may name such a file."""
    is_picture = row["size"] == PICTURE_BYTES and os.path.basename(row["uri"]) in FILES
    return _decode if is_picture else None


def _decode(raw: bytes) -> U8:
    if len(raw) < PICTURE_BYTES:
        raise BadImage("truncated", f"{len(raw)} of the {PICTURE_BYTES} bytes of a CIFAR picture are left")
    planes_CHW = np.frombuffer(raw, np.uint8).reshape(3, SIDE, SIDE)
    return np.ascontiguousarray(planes_CHW.transpose(1, 2, 0))


def _check(address: str, options: StorageOptions) -> None:
    if not is_store(address):
        check_folder(address if os.path.isdir(address) else fixed_part(os.path.dirname(address)) or "/")


CIFAR = Source(
    means=_is_cifar,
    check=_check,
    open=_open,
    takes_wildcards=lambda address: True,
    files=partial(addresses_of, files_only=True),
    called="CIFAR-10's and CIFAR-100's binary files, or a folder with them",
    inside="CIFAR's files, --images '{folder}/*.bin'",
    refusal=_refusal,
    decoder=_decoder,
)
