"""What the images and boxes tables of two runs say of the images in both.

A box is compared with the other run's best box (rank 0, first threshold) of the same image and class.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.errors import StorageError
from cam_ops.tables import CORNERS, LABELS
from cluster.compare.scratch import Rows, ScratchTables
from cluster.runs.directory import RunDir
from cluster.runs.reading import box_problems, damaged, first_boxes, read_table
from cluster.runs.record import Run

_IMAGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("label", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("status", pa.string()),
        ("num_boxes", pa.int32()),
        LABELS,
        ("top", pa.int32()),
    ]
)
_BOXES = pa.schema([("image_id", pa.string()), ("class_id", pa.int32()), *((name, pa.float64()) for name in CORNERS)])


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChanges:
    """How the tables of B differ from those of A; images in both, unless a name says otherwise."""

    images_a: int
    images_b: int
    images: int
    statuses: Rows  # status_a, status_b, images: where they differ, the most frequent first
    labels_changed: int
    sizes_changed: int  # pictures of another size; their boxes are not compared
    class_lists_differ: bool  # then labels, classes and boxes are not compared
    top_classes: int  # images with a best class in both
    top_classes_changed: int
    top_changes: Rows  # class_id_a, class_a, class_id_b, class_b, images: the most frequent
    boxes_a: int  # at the first threshold
    boxes_b: int
    box_pairs: int  # (image, class) with a box in both
    only_a: int  # (image, class) with a box in A only
    only_b: int
    mean_iou: float | None  # of the pairs
    below_half: int  # pairs with an IoU below 0.5
    images_moved: int  # images of which a pair has an IoU below 1
    most_changed: Rows  # image_id, class_id, class_name, iou: the lowest IoUs


def load_tables(tables: ScratchTables, side: str, run_dir: RunDir, run: Run, shards: list[int]) -> None:
    """Make images_a and boxes_a, or those of b, from committed shards; raises StorageError for a damaged one."""
    tables.create(f"images_{side}", _IMAGES)
    tables.create(f"boxes_{side}", _BOXES)
    for shard in shards:
        images = read_table(run_dir, run, "images", shard)
        top = pc.list_element(pc.list_slice(images["top_classes"], 0, 1, return_fixed_size_list=True), 0)
        if not run.plan.several_labels:
            images = images.append_column(LABELS, pa.nulls(len(images), LABELS.type))
        tables.insert(f"images_{side}", images.select(_IMAGES.names[:-1]).append_column("top", top))
        boxes = read_table(run_dir, run, "boxes", shard)
        if problems := box_problems(run, images, boxes):
            raise damaged(run_dir, run, shard, problems[0])
        boxes = first_boxes(run.request, boxes)
        best = boxes.filter(np.equal(boxes["rank"].to_numpy(), 0)).select(_BOXES.names).cast(_BOXES)
        tables.insert(f"boxes_{side}", best)
    for table, key in ((f"images_{side}", "image_id"), (f"boxes_{side}", "(image_id, class_id)")):
        if tables.row(f"SELECT count(*) <> count(DISTINCT {key}) AS twice FROM {table}")["twice"]:  # noqa: S608
            raise StorageError(f"{run_dir.root} has an image or a best box twice; see `verify`")


def table_changes(tables: ScratchTables, a: Run, b: Run, num_examples: int) -> TableChanges:
    """Compare what `load_tables` loaded, with so many examples at most."""
    tables.execute(
        """
        CREATE TABLE images AS SELECT
            image_id, a.status AS status_a, b.status AS status_b, a.num_boxes AS num_boxes_a,
            b.num_boxes AS num_boxes_b, a.top AS top_a, b.top AS top_b,
            a.label IS DISTINCT FROM b.label OR a.labels IS DISTINCT FROM b.labels AS other_label,
            a.status = 'ok' AND b.status = 'ok' AND (a.width, a.height) <> (b.width, b.height) AS other_size
        FROM images_a a JOIN images_b b USING (image_id)
        """
    )
    if a.class_names != b.class_names:
        tables.execute("UPDATE images SET top_a = NULL, other_label = false; DELETE FROM boxes_a; DELETE FROM boxes_b")
    counts = tables.row(
        """
        SELECT (SELECT count(*) FROM images_a) AS images_a, (SELECT count(*) FROM images_b) AS images_b,
            count(*) AS images, count(*) FILTER (other_label) AS labels_changed,
            count(*) FILTER (other_size) AS sizes_changed,
            count(*) FILTER (top_a IS NOT NULL AND top_b IS NOT NULL) AS top_classes,
            count(*) FILTER (top_a <> top_b) AS top_classes_changed,
            coalesce(sum(num_boxes_a), 0)::BIGINT AS boxes_a, coalesce(sum(num_boxes_b), 0)::BIGINT AS boxes_b
        FROM images
        """
    )
    statuses = tables.rows(
        """
        SELECT status_a, status_b, count(*) AS images FROM images WHERE status_a <> status_b
        GROUP BY ALL ORDER BY images DESC, status_a, status_b
        """
    )
    top_changes = tables.rows(
        """
        SELECT top_a AS class_id_a, top_b AS class_id_b, count(*) AS images FROM images WHERE top_a <> top_b
        GROUP BY ALL ORDER BY images DESC, top_a, top_b LIMIT ?
        """,
        num_examples,
    )
    for row in top_changes:
        row["class_a"], row["class_b"] = class_name(a, row["class_id_a"]), class_name(b, row["class_id_b"])
    return TableChanges(
        **counts,
        statuses=statuses,
        class_lists_differ=a.class_names != b.class_names,
        top_changes=top_changes,
        **_box_changes(tables, a, num_examples),
    )


def _box_changes(tables: ScratchTables, run: Run, num_examples: int) -> dict[str, Any]:
    tables.execute(
        """
        CREATE TABLE pairs AS SELECT image_id, class_id, a.x0 IS NULL AS only_b, b.x0 IS NULL AS only_a,
            greatest(0, least(a.x1, b.x1) - greatest(a.x0, b.x0))
                * greatest(0, least(a.y1, b.y1) - greatest(a.y0, b.y0)) AS shared,
            (a.x1 - a.x0) * (a.y1 - a.y0) + (b.x1 - b.x0) * (b.y1 - b.y0) - shared AS joint,
            CASE WHEN NOT only_a AND NOT only_b THEN shared / joint END AS iou
        FROM boxes_a a FULL JOIN boxes_b b USING (image_id, class_id)
        SEMI JOIN (FROM images WHERE NOT other_size) USING (image_id)
        """
    )
    counts = tables.row(
        """
        SELECT count(iou) AS box_pairs, count(*) FILTER (only_a) AS only_a, count(*) FILTER (only_b) AS only_b,
            avg(iou) AS mean_iou,
            count(*) FILTER (iou < 0.5) AS below_half, count(DISTINCT image_id) FILTER (iou < 1) AS images_moved
        FROM pairs
        """
    )
    most_changed = tables.rows(
        "SELECT image_id, class_id, iou FROM pairs WHERE iou < 1 ORDER BY iou, image_id, class_id LIMIT ?", num_examples
    )
    for row in most_changed:
        row["class_name"] = class_name(run, row["class_id"])
    return {**counts, "most_changed": most_changed}


def class_name(run: Run, class_id: int) -> str:
    """Return the name of a class, its number where the run has none of that number."""
    return run.class_names[class_id] if 0 <= class_id < len(run.class_names) else str(class_id)
