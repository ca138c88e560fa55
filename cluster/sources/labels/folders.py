"""Folders that name classes: by name, by number or by their order, and whether it is they that the user means."""

from collections.abc import Mapping
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.classes import ClassList, numbered_classes, whole_number
from cam_ops.errors import UsageError
from cam_ops.words import folded
from cluster.process.console import say, shown
from cluster.sources.labels.words import LabelChoice, Labels, Meaning, Words, by_word, count_words, listed, meanings_of
from cluster.sources.listing import Listing
from cluster.sources.splits import SPLITS

BY_NAME, BY_NUMBER, BY_ORDER = "folder", "folder-ids", "folder-sorted"
FOLDERS = (BY_NAME, BY_NUMBER, BY_ORDER)
"""Words of --labels for them."""


def folder_labels(listing: Listing, choice: LabelChoice, classes: ClassList, whole: Listing) -> Labels:
    """Take the first directory of each image for its class, by name, number or order; raise UsageError as they do.

    Which folders there are, the `whole` source says.
    """
    first_level = partial(_first_level, listing.num_parts)
    counts = count_words(listing, first_level)
    present = counts if whole is listing else count_words(whole, first_level)
    hidden = [folder for folder in present if folder.startswith(".") and folder not in classes.ids_of]
    folders = sorted(present.keys() - hidden)
    if not folders:
        raise UsageError(
            f"--labels {choice.spec} expects pictures in one directory per class, all lie directly in --images"
        )
    if hidden:
        say(f"labels: hidden folders name no class: {listed(hidden)}; {sum(counts[name] for name in hidden)} images")
    _refuse_other_levels(whole, folders, choice, classes)
    meaning_of = _folder_meanings(folders, counts, choice, classes)
    labels = by_word(first_level, meaning_of)
    num_labelled = sum(counts[folder] for folder, meaning in meaning_of.items() if meaning)
    bare = listing.num_images - counts.total()
    apart = f"; {bare} lie in no folder, such as {shown(_without_folder(listing))}" if bare else ""
    say(f"labels: {num_labelled} of {listing.num_images} images, from {len(folders)} folder(s){apart}")
    return labels


def _folder_meanings(
    folders: list[str], counts: Mapping[str, int], choice: LabelChoice, classes: ClassList
) -> dict[str, Meaning]:
    size = len(classes.names)
    in_order: dict[str, Meaning] = {folder: (place,) for place, folder in enumerate(folders)}
    if choice.spec == BY_ORDER:
        if len(folders) != size:
            raise UsageError(
                f"--labels {BY_ORDER} expects a folder for each of the {size} classes, there are "
                f"{len(folders)}: {listed(folders)}; give --labels {BY_NAME} or FILE.csv"
            )
        return in_order
    words = Words(
        counts={folder: counts[folder] for folder in folders},
        given=lambda folder: f"--labels {choice.spec}: {choice.images} has the folder {shown(folder)}",
        cure="rename it, give --class-names with a column that holds the folders' names, --unknown-labels skip, or "
        "--labels FILE.csv" + (f"; {BY_ORDER} takes folders in sorted order" if len(folders) == size else ""),
        may_be_several=False,
    )
    if choice.spec == BY_NUMBER:
        return meanings_of(words, numbered_classes(size), choice.unknown)
    _refuse_two_orders(folders, choice, classes)
    if not choice.has_names and len(folders) == size and not any(map(classes.meanings, folders)):
        say(
            f"labels: guessed, as no folder bears the name of a class: the {size} folders are the classes in sorted "
            f"order, {listed(folders)}; --class-names would say it"
        )
        return in_order
    return meanings_of(words, classes, choice.unknown)


def _refuse_other_levels(listing: Listing, folders: list[str], choice: LabelChoice, classes: ClassList) -> None:
    """Raise UsageError where the classes' folders seem to lie a level below the first."""
    parts = [folder for folder in folders if folded(folder) in SPLITS]
    unknown = [folder for folder in folders if not classes.meanings(folder)]
    if not parts and len(unknown) < len(folders):
        return
    below = [path.split("/") for path in sorted(count_words(listing, partial(_second_level, listing.num_parts)))]
    in_parts = [(first, second) for first, second in below if first in parts]
    if (len(parts) == len(folders) and (in_parts or unknown)) or any(first in unknown for first, _ in in_parts):
        names = (
            f", which may be {listed(dict.fromkeys(second for _, second in in_parts))} below them" if in_parts else ""
        )
        inside = " ".join(f"{choice.images}/{part}" for part in parts)
        raise UsageError(
            f"--labels {choice.spec}: the folders {listed(parts)} in {choice.images} are parts of a dataset, not "
            f"classes{names}; give --images {inside}, or --labels FILE.csv"
        )
    found = next(((first, second) for first, second in below if classes.meanings(second)), None)
    if len(unknown) == len(folders) and found and (choice.spec != BY_ORDER or choice.has_names):
        raise UsageError(
            f"--labels {choice.spec}: no folder in {choice.images} is a class, but {shown('/'.join(found))} is one; "
            f"give --images {choice.images}/{found[0]}"
        )


def _refuse_two_orders(folders: list[str], choice: LabelChoice, classes: ClassList) -> None:
    """Raise UsageError where folders called by numbers are other classes in the order of their names.

    So torchvision's ImageFolder numbers the folders that a network learns from: 0, 1, 10, 11, 2. A class list that has
    these numbers says what they mean.
    """
    numbers = {folder: number for folder in folders if (number := whole_number(folder)) is not None}
    size = len(classes.names)
    is_said = classes.numbers_from is not None or any(whole_number(name) is not None for name in classes.names)
    if len(numbers) < len(folders) or len(folders) > size or (choice.has_names and is_said):
        return
    ordered = folders if len(folders) == size else sorted(map(str, range(size)))
    place_of = {folder: place for place, folder in enumerate(ordered)}
    for folder, number in numbers.items():
        if place_of.get(folder, number) != number:
            raise UsageError(
                f"--labels {BY_NAME}: the folder {shown(folder)} is class {number} by its number, but class "
                f"{place_of[folder]} in the order of names, by which torchvision's ImageFolder counts; give --labels "
                f"{BY_NUMBER} or --labels {BY_ORDER}"
            )


def _first_level(num_parts: int, batch: pa.RecordBatch) -> pa.Array:
    """Return the first directory of each image, null where it lies in none; `num_parts` of an id are no directories."""
    return _part(rf"^(?:[^/]*/){{{num_parts}}}(?P<part>[^/]*)/", batch)


def _second_level(num_parts: int, batch: pa.RecordBatch) -> pa.Array:
    """Return the first two directories of each image, `a/b`, null where it lies in fewer."""
    return _part(rf"^(?:[^/]*/){{{num_parts}}}(?P<part>[^/]+/[^/]+)/", batch)


def _part(pattern: str, batch: pa.RecordBatch) -> pa.Array:
    return pc.struct_field(pc.extract_regex(batch["image_id"], pattern), "part")


def _without_folder(listing: Listing) -> str:
    ids = (batch["image_id"].filter(_first_level(listing.num_parts, batch).is_null()) for batch in listing.batches())
    return next(str(found[0]) for found in ids if len(found))
