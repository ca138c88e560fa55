"""Ground truth for the images of a run: read in any format, matched to the plan, published in one frame.

`truth/part-00000.parquet` and so on hold one row per planned image, schema `TRUTH`, cut as the plan's parts are, so
that whoever has a shard finds its truth without looking for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from duckdb import DuckDBPyConnection

from cam_ops.arrays import I32
from cam_ops.errors import StorageError
from cam_ops.tables import SCHEMA_VERSION, with_metadata
from cam_ops.words import near
from cluster.formats.detect import TruthFormat, open_truth
from cluster.formats.entries import ENTRIES, ROWS_PER_BATCH
from cluster.process.console import say, shown
from cluster.runs.directory import RunDir
from cluster.runs.plan import SHARDS_PER_PART
from cluster.runs.record import Run
from cluster.storage.files import Files
from cluster.storage.parquet import encode, read_row_group
from cluster.storage.scratch import load, open_database
from cluster.truth.classes import FindClasses, class_finder
from cluster.truth.frames import Orientations, TruthFrame, turns_of
from cluster.truth.matching import PLANNED, match, planned_images, rows_between, stretches
from cluster.truth.problems import Problem, Problems, shown_example
from cluster.truth.refusals import (
    refuse_crowded,
    refuse_open_frames,
    refuse_other_units,
    refuse_pictures,
    refuse_strangers,
    refuse_two_classes,
)
from cluster.truth.rows import NO_CLASS, NOT_TOLD, TRUTH, ClassOf, truth_rows

TRUTH_FOLDER = "truth"
DOCUMENT = {"schema_version": SCHEMA_VERSION, "table": "truth"}

PROBLEMS = {
    "unmatched_truth": "images of the truth were not planned",
    "other_filename": "files of the truth have the name of one of the run's images, and another's in them; left out",
    "other_folder": "images of the truth have the stem of one in another folder or split, and are left out",
    "ambiguous_stem": "images of the truth have a stem that several have, and are left out",
    "images_without_truth": "planned images are not in the truth",
    "entries_without_image": "entries or files of the truth name no image, and are left out",
    "unusable_objects": "objects of the truth cannot be used; their images are in no figure",
    "bad_boxes": "boxes are empty, inverted, not finite or too large; their images are in no figure",
    "zero_based": "boxes begin before VOC's first pixel, which is 1; of a truth that counts from 0 give --truth-format "
    "voc-half-open or voc-inclusive",
    "duplicate_boxes": "boxes are there before, of the same image and class, and count once",
    "boxes_outside": "boxes reach more than a pixel out of their picture",
    "swapped_sizes": "sizes in the truth have width and height swapped; the pictures' own are taken",
    "other_sizes": "sizes in the truth are those of larger or smaller copies; their boxes are scaled",
    "other_shape": "sizes in the truth are of another shape than the pictures', cut, padded or stretched; their "
    "images are in no figure",
    "several_sizes": "images have several sizes in the truth; they are in no figure",
    "stored_frame": "images have the size in the truth that they have before EXIF turns them; it is turned, too",
    "unknown_turn": "pictures cannot be read, so whether EXIF turns them is not known; their truth is taken as of what "
    "is seen, see --truth-frame",
    "lost_turn": "pictures cannot be read, so how EXIF turns them and their truth is not known; they are in no figure",
    "unknown_classes": "boxes or images have a class that the network has not; see --class-map",
    "ambiguous_classes": "boxes or images have a class by a name that several have; see --class-map",
    "several_classes": "images have several classes in the truth, of which none is taken",
    "boxes_without_class": "boxes have no class where others have one; their images are in no figure of detections",
    "label_differs": "images have another class in the truth than in the run",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthConfig:
    """Where ground truth is."""

    truth: str | None = None
    """Ground truth: a COCO JSON, a CSV or Parquet file of boxes, ImageNet's LOC CSV, tar files with boxes in members
    json, a folder of Pascal VOC, YOLO, masks or wsolevaluation's metadata."""
    truth_format: TruthFormat = "auto"
    """Boxes of a table are half-open, x1 - x0 is the width; of a table-inclusive, x1 and y1 are their last pixels."""
    masks: str | None = None
    """Folder of the masks that wsolevaluation's metadata name, by default its own."""
    class_map: tuple[str, ...] = ()
    """What the truth's words for classes mean: kangaroo=104 ..., or a CSV file with the columns truth and class."""
    truth_frame: TruthFrame = "auto"
    """Where EXIF turns a picture: the truth was drawn in what is seen (oriented), or in what the file stores (stored);
    auto tells by sizes in the truth, and asks where they do not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthReport:
    """What a truth holds, and what became of it."""

    format: str
    num_images: int  # that the truth names
    num_boxes: int
    has_boxes: bool
    has_masks: bool
    matched_exact: int
    matched_stem: int
    problems: dict[str, Problem]  # by the names in `PROBLEMS`
    shares_classes: bool  # a class that the truth gives a matched box or image is one of the network


def part_name(part: int) -> str:
    """Return the name of a part of the truth, below the folder that it was prepared for."""
    return f"{TRUTH_FOLDER}/part-{part:05d}.parquet"


def prepare_truth(
    run_dir: RunDir, run: Run, config: TruthConfig, out_files: Files, orientations: Orientations
) -> TruthReport:
    """Read the ground truth, match it to the run's images and publish it below `out_files`.

    `orientations` reads the pictures' headers, where the truth has objects. Memory does not grow with the run, but for
    COCO files, which are read whole. Raises UsageError for a truth that cannot be read or used, names none of the
    images, or may be drawn in either of two frames.
    """
    assert config.truth is not None
    find = class_finder(run.class_names, config.class_map)
    source = open_truth(config.truth, config.truth_format, config.masks)
    with open_database() as database:
        load(database, "entries", ENTRIES, source.batches)
        load(database, "planned", PLANNED, planned_images(run_dir, run))
        matching = match(database)
        refuse_strangers(database, config.truth, matching)
        refuse_crowded(database, config.truth)
        refuse_other_units(database, config.truth, source.frame)
        problems = Problems()
        problems.add(matching.problems)
        refuse_two_classes(database, config.truth, find)
        class_of, has_words = _look_up(database, find, problems)
        shares_classes = False
        part_size = SHARDS_PER_PART * run.plan.shard_size
        for part, first in enumerate(range(0, run.plan.num_images, part_size)):
            tables = []
            for start, end in stretches(database, first, min(first + part_size, run.plan.num_images)):
                images, found = (rows_between(database, table, start, end) for table in ("images", "found"))
                refuse_pictures(run_dir, config.truth, images, found)
                turns = turns_of(run_dir, images, found, config.truth_frame, orientations)
                made = truth_rows(images, found, source.frame, class_of, turns)
                problems.add(made.problems)
                shares_classes |= made.shares_classes
                tables.append(made.rows)
            rows = pa.concat_tables(tables).combine_chunks().cast(with_metadata(TRUTH, DOCUMENT))
            out_files.publish(part_name(part), encode(rows, row_group_size=run.plan.shard_size))
    refuse_open_frames(problems)
    if not has_words:
        problems.found.pop("boxes_without_class", None)
    report = TruthReport(
        format=source.format,
        num_images=matching.num_images,
        num_boxes=matching.num_boxes,
        has_boxes=matching.num_boxes > 0,
        has_masks=matching.num_masks > 0,
        matched_exact=matching.matched_exact,
        matched_stem=matching.matched_stem,
        problems=problems.found,
        shares_classes=shares_classes,
    )
    _say(report, run.class_names, config.truth_frame)
    return report


def read_truth_shard(out_files: Files, shard: int) -> pa.Table:
    """Return the rows of one shard, schema `TRUTH`. Raises StorageError."""
    part, row_group = divmod(shard, SHARDS_PER_PART)
    name = part_name(part)
    try:
        return read_row_group(out_files, name, row_group, TRUTH)
    except (OSError, IndexError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {out_files.where(name)}: {error}; run the same command again") from None


def _look_up(database: DuckDBPyConnection, find: FindClasses, problems: Problems) -> tuple[ClassOf, bool]:
    """Look up each distinct word of matched images once; note those that mean no class, or several.

    Returns whether there are any words, too.
    """
    class_ids: dict[str, int] = {}
    for word, count in _words(database):
        ids = find(word)
        class_ids[word] = ids[0] if len(ids) == 1 else NOT_TOLD if ids else NO_CLASS
        if len(ids) != 1:
            name = "ambiguous_classes" if ids else "unknown_classes"
            problems.add({name: Problem(count=count, examples=(shown_example(word),))})
    words, ids_N = pa.array(class_ids, pa.string()), np.array([*class_ids.values(), NOT_TOLD], np.int32)

    def class_of(texts: pa.ChunkedArray) -> I32:
        places_N = pc.index_in(texts, value_set=words).fill_null(len(words)).to_numpy()
        class_ids_N: I32 = ids_N[places_N]
        return class_ids_N

    return class_of, bool(class_ids)


def _words(database: DuckDBPyConnection) -> Iterator[tuple[str, int]]:
    """Yield each word for a class, and how many boxes and images bear it."""
    words = database.execute(
        "SELECT word, count(*) AS num FROM (SELECT word FROM found UNION ALL SELECT image_word FROM images) "
        "WHERE word IS NOT NULL GROUP BY word ORDER BY num DESC, word"
    )
    while rows := words.fetchmany(ROWS_PER_BATCH):
        yield from rows


def _say(report: TruthReport, names: tuple[str, ...], frame: TruthFrame) -> None:
    say(
        f"truth: {report.format}, {report.num_images} images, {report.num_boxes} boxes; "
        f"{report.matched_exact} matched by path, {report.matched_stem} by stem"
    )
    for name, problem in report.problems.items():
        meant = near(problem.examples[0], names, 1) if name == "unknown_classes" else []
        asked = f"; the network has {shown(meant[0])}" if meant else ""
        if name == "swapped_sizes" and frame != "auto":
            asked = (
                f"; --truth-frame {frame} was given, which they deny if EXIF turns these pictures: then leave it out"
            )
        say(f"truth: {problem.count} {PROBLEMS[name]}, such as {problem.examples[0]}{asked}")
