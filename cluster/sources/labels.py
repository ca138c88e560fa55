"""Give each listed image its class: from the source itself, from the first directory, from a CSV file, or none."""

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.classes import ClassList
from cam_ops.errors import UsageError
from cam_ops.tables import LABELLED, LISTING
from cluster.process.console import shown
from cluster.sources.kinds import OWN_LABELS
from cluster.sources.listing import Listing
from cluster.sources.source import OwnLabels

WORDS = ("none", "folder", *OWN_LABELS)

LabelsOf = Callable[[pa.RecordBatch], pa.Array]
"""From a batch of a listing to the class of each image, int32, null where it has none."""


def labels_digest(spec: str) -> str:
    """Name a label source by content: one of `WORDS`, or the sha256 of the CSV file."""
    if spec in WORDS:
        return spec
    try:
        return "sha256:" + hashlib.sha256(Path(spec).read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(
            f"--labels expects {', '.join(WORDS)} or a CSV file, cannot read {spec}: {error.strerror}"
        ) from None


def label_images(listing: Listing, labels_of: LabelsOf) -> Iterator[pa.RecordBatch]:
    """Yield the listing's batches with their classes, schema LABELLED."""
    for batch in listing.batches():
        columns = [batch[name] for name in LISTING.names]
        yield pa.record_batch([*columns, labels_of(batch)], schema=LABELLED)


def find_labels(listing: Listing, spec: str, classes: ClassList, say: Callable[[str], None]) -> LabelsOf:
    """Match a label source to the listing and to the class list.

    Raises UsageError where folders or labels cannot be matched.
    """
    own = OWN_LABELS.get(spec)
    if spec == "none" or (own and not listing.has_labels):
        return lambda batch: pa.nulls(len(batch), pa.int32())
    if spec == "folder":
        return _folder_labels(listing, classes, say)
    if own:
        return _own_labels(listing, own, classes, say)
    return _csv_labels(listing, spec, classes, say)


def _by_word(words_of: LabelsOf, class_of: dict[str, int]) -> LabelsOf:
    """Look up a word for each image, a distinct word once."""
    words, ids = pa.array(class_of, pa.string()), pa.array(class_of.values(), pa.int32())
    return lambda batch: pc.take(ids, pc.index_in(words_of(batch), value_set=words))


def _count_words(listing: Listing, words_of: LabelsOf) -> Counter[str]:
    """Count the images of each word, those without a word left out."""
    counts: Counter[str] = Counter()
    for batch in listing.batches():
        for entry in pc.value_counts(words_of(batch).drop_null()).to_pylist():
            counts[entry["values"]] += entry["counts"]
    return counts


def _own_labels(listing: Listing, own: OwnLabels, classes: ClassList, say: Callable[[str], None]) -> LabelsOf:
    counts = _count_words(listing, _own_word)
    class_of = {word: _find(word, own, classes, listing) for word in counts if word.strip()}
    if not class_of:
        raise UsageError(f"{own.subject} empty; fill it, or give --labels none")
    say(f"labels: {sum(counts[word] for word in class_of)} of {listing.num_images} images, from the {own.word}")
    return _by_word(_own_word, class_of)


def _own_word(batch: pa.RecordBatch) -> pa.Array:
    return batch["label"]


def _find(word: str, own: OwnLabels, classes: ClassList, listing: Listing) -> int:
    """Return the class that a source's own word means; raises UsageError naming a row."""
    try:
        class_id = classes.find(word)
    except UsageError as error:
        raise UsageError(f"{error} ({own.word}, row of {_row_with(word, own, listing)})") from None
    if class_id is None:
        raise UsageError(
            f"the {own.word} gives {_row_with(word, own, listing)} the label {shown(word)}, which is no class of the "
            "network, by number or name; mend it, give --class-names with that name, or --labels none"
        )
    return class_id


def _row_with(word: str, own: OwnLabels, listing: Listing) -> str:
    """Name an image that has a label: by its id where one file holds many."""
    rows = ((batch, pc.index(batch["label"], word).as_py()) for batch in listing.batches())
    return next(shown(batch[own.names_image][at].as_py()) for batch, at in rows if at >= 0)


def _folder_labels(listing: Listing, classes: ClassList, say: Callable[[str], None]) -> LabelsOf:
    folders = sorted(_count_words(listing, _first_level))
    if not folders:
        raise UsageError("--labels folder expects pictures in one directory per class, all lie directly in --images")
    ids = [classes.find(folder) for folder in folders]
    unknown = [folder for folder, class_id in zip(folders, ids, strict=True) if class_id is None]
    if len(unknown) == len(folders) == len(classes.names):
        say(f"labels: no folder bears a class name; the {len(folders)} folders are the classes in sorted order")
        return _by_word(_first_level, {folder: class_id for class_id, folder in enumerate(folders)})
    if unknown:
        raise UsageError(
            f"--labels folder: {len(unknown)} of {len(folders)} folders match none of the {len(classes.names)} "
            f"classes, for example {unknown[0]!r}; give --class-names with a column that holds the folders' names, "
            "or --labels FILE.csv"
        )
    return _by_word(
        _first_level, {f: class_id for f, class_id in zip(folders, ids, strict=True) if class_id is not None}
    )


def _first_level(batch: pa.RecordBatch) -> pa.Array:
    ids = batch["image_id"]
    first = pc.list_element(pc.split_pattern(ids, "/", max_splits=1), 0)
    return pc.if_else(pc.match_substring(ids, "/"), first, None)


def _csv_labels(listing: Listing, spec: str, classes: ClassList, say: Callable[[str], None]) -> LabelsOf:
    try:
        class_of = _read_csv(Path(spec), classes)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {spec} as a CSV file: {error}") from None

    def labels_of(batch: pa.RecordBatch) -> pa.Array:
        return pa.array([class_of.get(image_id) for image_id in batch["image_id"].to_pylist()], pa.int32())

    num_labelled = sum(len(labels) - labels.null_count for labels in map(labels_of, listing.batches()))
    if not num_labelled:
        example = next(listing.batches())["image_id"][0].as_py()
        raise UsageError(
            f"no image_id in {spec} is the path of a picture below --images; the CSV says for example "
            f"{next(iter(class_of), '')!r}, the folder has {example!r}"
        )
    say(
        f"labels: {num_labelled} of {listing.num_images} images; {len(class_of) - num_labelled} rows of {spec} match "
        "no image"
    )
    return labels_of


def _read_csv(path: Path, classes: ClassList) -> dict[str, int]:
    class_of: dict[str, int] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"image_id", "label"} <= set(reader.fieldnames or ()):
            raise UsageError(f"expected the columns image_id and label in {path}, found {reader.fieldnames}")
        for record in reader:
            image_id, word = record["image_id"], record["label"] or ""
            if not word.strip():
                continue
            class_id = classes.find(word)
            if class_id is None:
                raise UsageError(
                    f"{path} line {reader.line_num}: {word!r} is no class of the network, by number or name"
                )
            if class_of.setdefault(image_id, class_id) != class_id:
                raise UsageError(f"{path} line {reader.line_num}: {image_id!r} has two different labels")
    return class_of
