"""Truths that are not taken, as they would give wrong figures or none: a UsageError each, with the cure."""

import filecmp
import os
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.compute as pc
from duckdb import DuckDBPyConnection

from cam_ops.errors import UsageError
from cam_ops.outside import RAISE, raised
from cluster.formats.entries import Frame
from cluster.process.console import shown
from cluster.runs.directory import RunDir
from cluster.runs.plan import read_shard
from cluster.truth.classes import FindClasses
from cluster.truth.matching import Matching
from cluster.truth.placing import FRACTIONS
from cluster.truth.problems import NUM_EXAMPLES, Problems, shown_example
from cluster.truth.rows import OPEN_FRAME

STRANGERS = {
    "ambiguous_stem": "a stem that several images have",
    "other_folder": "the stem of an image in another folder or split",
    "other_filename": "the name of one image, and another's as filename",
}
MAX_OBJECTS = 10_000  # of an image
CROWDED = """
SELECT image_id, num FROM (SELECT place, count(*) AS num FROM found GROUP BY place HAVING num > $1)
JOIN images USING (place) ORDER BY num DESC LIMIT 1
"""
NEAR = -0.5, 1.5  # where fractions lie, but for objects that leave the picture by far
UNITS = """
SELECT CASE WHEN bool_or(is_near AND NOT is_whole) THEN count(*) FILTER (is_near) ELSE 0 END,
    count(*) FILTER (is_far), count(*),
    arg_min(corners, rowid) FILTER (is_near AND NOT is_whole), arg_min(corners, rowid) FILTER (is_far)
FROM (
    SELECT rowid, [x0, y0, x1, y1] AS corners, least(x0, y0, x1, y1) AS low, greatest(x0, y0, x1, y1) AS high,
        low >= $near[1] AND high <= $near[2] AS is_near, low < $fractions[1] OR high > $fractions[2] AS is_far,
        x0 = round(x0) AND y0 = round(y0) AND x1 = round(x1) AND y1 = round(y1) AS is_whole
    FROM entries WHERE has_box_of(x0, y0, x1, y1) AND isfinite(x0 + y0 + x1 + y1)
)
"""
"""How many boxes lie within the first pixel, and how many are in pixels for sure."""


def refuse_strangers(database: DuckDBPyConnection, truth: str, matching: Matching) -> None:
    """Refuse a truth of which nothing can be used, or that names no image, or none of the run's."""
    ((first,),) = database.execute("SELECT arg_min(unusable, rowid) FROM entries").fetchall()
    example = shown_example(first or "")
    if matching.num_unusable and not matching.num_boxes + matching.num_masks:
        raise UsageError(
            f"nothing in the ground truth {truth} can be used, of {matching.num_unusable} objects and files, such as "
            f"{example}; mend it, or check --truth and --truth-format"
        )
    if not matching.num_images:
        why = f" ({example})" if example else ""
        raise UsageError(f"the ground truth {truth} names no image{why}; check --truth and --truth-format")
    if not matching.matched_exact + matching.matched_stem:
        example = "SELECT (SELECT min(id) FROM truths), (SELECT min(image_id) FROM planned)"
        ((of_truth, of_run),) = database.execute(example).fetchall()
        why = "".join(
            f"; {problem.count} have {words}, such as {problem.examples[0]}"
            for name, words in STRANGERS.items()
            if (problem := matching.problems.get(name))
        )
        raise UsageError(
            f"none of the {matching.num_images} images of the ground truth {truth} is one of the run's, by path or stem"
            f"{why}; the truth says for example {of_truth[:200]!r}, the run has {of_run[:200]!r}"
        )


def refuse_crowded(database: DuckDBPyConnection, truth: str) -> None:
    """Refuse a truth that says more of an image than memory should hold."""
    for image_id, count in database.execute(CROWDED, [most := raised(MAX_OBJECTS)]).fetchall():
        raise UsageError(
            f"the ground truth {truth} has {count} objects of the image {shown(image_id)}, at most {most} are "
            f"read; leave the others out, {RAISE}"
        )


def refuse_other_units(database: DuckDBPyConnection, truth: str, frame: Frame) -> None:
    """Refuse boxes in pixels of which half or more lie within the first one, and fractions that are pixels."""
    limits = {"near": NEAR, "fractions": FRACTIONS}
    ((num_near, num_far, count, near, far),) = database.execute(UNITS, limits).fetchall()
    if frame != "fractions" and num_near * 2 >= count > 0:
        raise UsageError(
            f"{num_near} of {count} boxes of the ground truth {truth} lie between 0 and 1, such as {_corners(near)}: "
            "pixels are expected; a table of fractions of the picture is --truth-format table-fractions"
        )
    if frame == "fractions" and num_far * 2 >= count > 0:
        raise UsageError(
            f"{num_far} of {count} boxes of the ground truth {truth} lie beyond 0 and 1, such as {_corners(far)}: "
            "fractions of the picture are expected; a table of pixels is --truth-format table or table-inclusive"
        )


def _corners(box: list[float]) -> str:
    return " ".join(f"{corner:g}" for corner in box)


def refuse_two_classes(database: DuckDBPyConnection, truth: str, find: FindClasses) -> None:
    """Refuse a table in which a number and a name, of two columns, are not the same class."""
    pairs = database.execute(
        "SELECT DISTINCT word, other_word FROM found WHERE other_word IS NOT NULL ORDER BY ALL"
    ).fetchall()
    for number, name in pairs:
        if not find(number) or find(number) != find(name):
            raise UsageError(
                f"the ground truth {truth} has two columns for the class, which are not the same: {shown(number)} and "
                f"{shown(name)}; leave one of them out, or give --class-map {shown(f'{number}={name}')} ..."
            )


def refuse_pictures(run_dir: RunDir, truth: str, images: pa.Table, found: pa.Table) -> None:
    """Refuse masks that are the run's own pictures, by the first of some images; tables as `match` makes them."""
    first = images["place"][0].as_py()
    for mask in found.filter(pc.is_valid(found["mask"])).slice(0, NUM_EXAMPLES).to_pylist():
        image = images.slice(mask["place"] - first, 1).to_pylist()[0]
        (planned,) = read_shard(run_dir, image["shard"]).slice(image["row"], 1).to_pylist()
        path = os.fsdecode(unquote_to_bytes(planned["uri"].removeprefix("file://")))
        try:
            is_picture = filecmp.cmp(path, mask["mask"], shallow=False)
        except (OSError, ValueError):  # it is on a store, or gone
            continue
        if is_picture:
            raise UsageError(
                f"the mask {mask['mask']} of the ground truth {truth} is the picture {image['image_id']} itself; give "
                "--truth the folder of its masks"
            )


def refuse_open_frames(problems: Problems) -> None:
    """Refuse a truth that may have been drawn in either of two frames, where that makes a difference."""
    if (found := problems.found.pop(OPEN_FRAME, None)) is None:
        return
    told = problems.found.get("stored_frame")
    others = f" ({told.count} others have the sizes of the stored ones)" if told else ""
    raise UsageError(
        f"EXIF turns {found.count} pictures, such as {found.examples[0]}, and the truth does not tell whether it was "
        f"drawn before that or after{others}; give --truth-frame oriented, if in the picture as a viewer shows it, or "
        "stored, if in the pixels as the file has them"
    )
