"""Truths that are not taken, as they would give wrong figures or none: a UsageError each, with the cure."""

from duckdb import DuckDBPyConnection

from cam_ops.errors import UsageError
from cluster.truth.matching import Matching
from cluster.truth.problems import Problems, shown_example
from cluster.truth.rows import OPEN_FRAME

FRACTIONS = """
SELECT CASE WHEN bool_and(least(x0, y0, x1, y1) >= 0 AND greatest(x0, y0, x1, y1) <= 1)
        AND bool_or(x0 <> round(x0) OR y0 <> round(y0) OR x1 <> round(x1) OR y1 <> round(y1)) THEN count(*) ELSE 0 END,
    arg_min(x0, rowid), arg_min(y0, rowid), arg_min(x1, rowid), arg_min(y1, rowid)
FROM entries WHERE has_box_of(x0, y0, x1, y1)
"""


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
        ambiguous = matching.problems.get("ambiguous_stem")
        why = f"; {ambiguous.count} have a stem that several images have" if ambiguous else ""
        raise UsageError(
            f"none of the {matching.num_images} images of the ground truth {truth} is one of the run's, by path or stem"
            f"{why}; the truth says for example {of_truth[:200]!r}, the run has {of_run[:200]!r}"
        )


def refuse_fractions(database: DuckDBPyConnection, truth: str) -> None:
    """Refuse boxes in pixels that all lie within the first one."""
    ((count, x0, y0, x1, y1),) = database.execute(FRACTIONS).fetchall()
    if count:
        raise UsageError(
            f"all {count} boxes of the ground truth {truth} lie between 0 and 1, such as {x0:g} {y0:g} {x1:g} {y1:g}: "
            "pixels are expected; a table of fractions of the picture is --truth-format table-fractions"
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
