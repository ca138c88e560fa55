"""Give each listed image its class: from the source itself, from the first directory, from a CSV file, or none."""

import shlex
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.classes import ClassList
from cam_ops.errors import UsageError
from cam_ops.tables import LABELLED, LABELS, LISTING, with_labels
from cam_ops.words import near
from cluster.process.console import say, shown
from cluster.sources.beside import Beside
from cluster.sources.kinds import OWN_LABELS
from cluster.sources.labels.files import digest_of, match_rows, read_label_file
from cluster.sources.labels.folders import FOLDERS, folder_labels
from cluster.sources.labels.words import (
    LabelChoice,
    Labels,
    Meaning,
    Words,
    by_word,
    count_words,
    in_own_order,
    meanings_of,
)
from cluster.sources.listing import Listing
from cluster.sources.source import OwnLabels

WORDS = ("none", *FOLDERS, *OWN_LABELS)


def labels_digest(spec: str) -> str:
    """Name a label source by content: one of `WORDS`, or the sha256 of the CSV file, unpacked where it is gzip."""
    if spec in WORDS:
        return spec
    try:
        return "sha256:" + digest_of(spec)
    except OSError as error:
        meant = "".join(f"; did you mean {word}?" for word in near(spec, WORDS, 1))
        raise UsageError(
            f"--labels expects {', '.join(WORDS)} or a CSV file, cannot read {spec}: {error.strerror or error}{meant}"
        ) from None


def label_images(listing: Listing, labels: Labels) -> Iterator[pa.RecordBatch]:
    """Yield the listing's batches with their classes: LABELLED, LABELS where images have several, further columns."""
    schema = pa.schema([*with_labels(LABELLED, labels.are_several), *listing.kept])
    single = pa.array([meaning[0] if len(meaning) == 1 else None for meaning in labels.meanings], pa.int32())
    several = pa.array([meaning if len(meaning) > 1 else None for meaning in labels.meanings], LABELS.type)
    for batch in listing.batches():
        place = labels.place_of(batch)
        columns = {name: batch[name] for name in (*LISTING.names, *listing.kept.names)}
        columns |= {"label": single.take(place), LABELS.name: several.take(place)}
        yield pa.record_batch([columns[name] for name in schema.names], schema=schema)


def find_labels(listing: Listing, choice: LabelChoice, classes: ClassList, whole: Listing | None = None) -> Labels:
    """Match a label source to the listing and to the class list, and say what was found.

    What folders and rows mean is told by the `whole` source, of which the listing may be a part: it does not change
    with the images that are asked for.

    Raises UsageError where folders or labels cannot be matched, and where there are none that were asked for.
    """
    if choice.spec in FOLDERS:
        return folder_labels(listing, choice, classes, whole or listing)
    if choice.spec not in WORDS:
        return _file_labels(listing, choice, classes, whole or listing)
    own = OWN_LABELS.get(choice.spec)
    if own and listing.has_labels:
        return _own_labels(listing, own, choice, classes)
    if own:
        without = f"{choice.images} has no {own.place}"
        hint = f"; give {listing.label_hint}, or --labels FILE.csv" if listing.label_hint else ""
        if choice.is_asked:
            raise UsageError(f"--labels {own.word}: {without}{hint or '; add them, or give --labels FILE.csv'}")
        say(f"labels: none, {without}{hint}")
    if choice.unknown == "skip":
        say("labels: there are none, so that --unknown-labels skip leaves out nothing")
    return Labels(meanings=[], place_of=lambda batch: pa.nulls(len(batch), pa.int32()))


def _own_labels(listing: Listing, own: OwnLabels, choice: LabelChoice, classes: ClassList) -> Labels:
    classes = in_own_order(classes, listing.class_names, choice)
    counts = {word: count for word, count in count_words(listing, _own_word).items() if word.strip()}
    if not counts:
        raise UsageError(f"{own.subject} empty; fill it, or give --labels none")

    def given(word: str) -> str:
        return f"the {own.word} gives {_row_with(word, own, listing)} the label {shown(word)}"

    meaning_of = meanings_of(Words(counts=counts, given=given), classes, choice.unknown)
    _refuse_other_names(listing.beside, meaning_of, classes)
    labels = by_word(_own_word, meaning_of)
    num_labelled = sum(counts[word] for word, meaning in meaning_of.items() if meaning)
    say(f"labels: {num_labelled} of {listing.num_images} images, from the {own.word}{_said_several(listing, labels)}")
    return labels


def _own_word(batch: pa.RecordBatch) -> pa.Array:
    return batch["label"]


def _row_with(word: str, own: OwnLabels, listing: Listing) -> str:
    """Name an image that has a label: by its id where one file holds many."""
    rows = ((batch, pc.index(batch["label"], word).as_py()) for batch in listing.batches())
    return next(shown(batch[own.names_image][at].as_py()) for batch, at in rows if at >= 0)


def _said_several(listing: Listing, labels: Labels) -> str:
    """Say how many images have several classes, with an example; nothing where none has."""
    if not labels.are_several:
        return ""
    count, example = 0, ""
    is_several = pa.array([len(meaning) > 1 for meaning in labels.meanings])
    for batch in listing.batches():
        several = batch["image_id"].filter(is_several.take(labels.place_of(batch)).fill_null(False))
        example = example or (several[0].as_py() if len(several) else "")
        count += len(several)
    return f"; {count} have several classes, such as {shown(example)}" if count else ""


def _refuse_other_names(beside: Beside, meaning_of: Mapping[str, Meaning], classes: ClassList) -> None:
    """Raise UsageError where a number means one class, and the word in another column of its row another."""
    rows = ((column, *pair, where) for column, pairs in beside.found.items() for pair, where in pairs.items())
    for column, word, other, where in rows:
        meant, meaning = classes.meanings(other), meaning_of.get(word, ())
        if meant and meaning and set(meaning).isdisjoint(meant):
            raise UsageError(
                f"{where} has the label {shown(word)}, which is the class {shown(classes.names[meaning[0]])}, and "
                f"{shown(other)} in column {shown(column)}; the numbers may count otherwise than the network's classes:"
                f" give --columns {shlex.quote(f'label={column}')}, or take the wrong column out"
            )


def _file_labels(listing: Listing, choice: LabelChoice, classes: ClassList, whole: Listing) -> Labels:
    file = read_label_file(choice.spec, choice.columns)
    words = Words(
        counts=file.counts,
        given=lambda word: f"{choice.spec} line {file.lines[word]} says {shown(word)}",
    )
    if not file.counts:
        raise UsageError(f"the column {file.label_column} of {choice.spec} is empty; fill it, or give --labels none")
    meaning_of = meanings_of(words, classes, choice.unknown)
    _refuse_other_names(file.beside, meaning_of, classes)
    match = match_rows(choice.spec, file.words_of, whole, choice.images)
    if not match.num_exact and not match.by_end:
        example = next(listing.batches())["image_id"][0].as_py()
        raise UsageError(
            f"no {file.image_column} in {choice.spec} is the path of a picture below --images; the CSV says, for "
            f"example, {shown(match.strangers[0])}, --images has {shown(example)}"
        )
    places: dict[Meaning, int] = {}

    def place(image_id: str) -> int | None:
        rows = [*match.by_end.get(image_id, ()), image_id]
        found = {class_id for row in rows for word in file.words_of.get(row, ()) for class_id in meaning_of[word]}
        return places.setdefault(tuple(sorted(found)), len(places)) if found else None

    def place_of(batch: pa.RecordBatch) -> pa.Array:
        return pa.array([place(image_id) for image_id in batch["image_id"].to_pylist()], pa.int32())

    num_labelled = sum(len(found) - found.null_count for found in map(place_of, listing.batches()))
    labels = Labels(meanings=list(places), place_of=place_of)
    say(
        f"labels: {num_labelled} of {listing.num_images} images, by the columns {file.image_column} and "
        f"{file.label_column} of {choice.spec}{_said_several(listing, labels)}"
    )
    if match.by_end:
        image_id, rows = next(iter(match.by_end.items()))
        count = len(match.by_end)
        say(f"labels: {count} of them by the end of their path, such as {shown(image_id)} by {shown(rows[0])}")
    if match.strangers:
        say(
            f"labels: {len(match.strangers)} image(s) of {choice.spec} are not below --images, such as "
            f"{shown(match.strangers[0])}"
        )
    return labels
