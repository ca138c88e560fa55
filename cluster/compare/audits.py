"""What two audits say of the images in both: metrics with paired intervals, and the images and classes that moved."""

from dataclasses import dataclass

import pyarrow as pa

from cam_ops.arrays import F64
from cam_ops.errors import StorageError
from cluster.audit.files import PER_IMAGE_FILE, MetricsFile, read_per_image, read_replicates
from cluster.audit.tables import PER_IMAGE_SCHEMA
from cluster.compare.metrics import Difference, differences
from cluster.compare.scratch import Rows, ScratchTables
from cluster.compare.tables import class_name
from cluster.runs.record import Run
from cluster.storage.files import Files

_AUDITED = pa.schema(
    map(
        PER_IMAGE_SCHEMA.field,
        ("image_id", "true_class", "excluded", "truth_area", "truth_digest", "iou", "correct"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditChanges:
    """How the audit of B differs from that of A; an image without a box counts as IoU 0."""

    unpaired: str | None  # why the metrics have no paired intervals
    metrics: list[Difference]
    images: int  # with a verdict in both
    gained: int  # correct in B only
    lost: int  # correct in A only
    most_gained: Rows  # image_id, iou_a, iou_b: by the change of IoU
    most_lost: Rows
    classes: Rows  # class_id, class_name, images, gained, lost, iou_change: those that moved most


def audit_changes(
    tables: ScratchTables,
    files: tuple[Files, Files],
    audits: tuple[MetricsFile, MetricsFile],
    run: Run,
    num_examples: int,
) -> AuditChanges:
    """Compare two audits; `run` knows the names of the classes. Raises StorageError for files that no audit wrote."""
    for side, of_side in zip("ab", files, strict=True):
        _load_audited(tables, f"audited_{side}", of_side)
    unpaired = _why_unpaired(tables)
    replicates: tuple[dict[str, F64], dict[str, F64]] = ({}, {})
    if unpaired is None:
        replicates = read_replicates(files[0]), read_replicates(files[1])
    tables.execute(
        """
        CREATE TABLE verdicts AS SELECT image_id, a.true_class AS class_id, a.iou AS iou_a, b.iou AS iou_b,
            coalesce(b.iou, 0)::DOUBLE - coalesce(a.iou, 0)::DOUBLE AS change,
            CASE WHEN b.correct AND NOT a.correct THEN 1 WHEN a.correct AND NOT b.correct THEN -1 ELSE 0 END AS moved
        FROM audited_a a JOIN audited_b b USING (image_id)
        WHERE a.correct IS NOT NULL AND b.correct IS NOT NULL
        """
    )
    counts = tables.row(
        "SELECT count(*) AS images, count(*) FILTER (moved = 1) AS gained, count(*) FILTER (moved = -1) AS lost "
        "FROM verdicts"
    )
    return AuditChanges(
        unpaired=unpaired,
        metrics=differences(*audits, replicates, unpaired),
        **counts,
        most_gained=_most_moved(tables, 1, num_examples),
        most_lost=_most_moved(tables, -1, num_examples),
        classes=_classes(tables, run, num_examples),
    )


def _load_audited(tables: ScratchTables, table: str, files: Files) -> None:
    """Make a table of per_image.parquet; raises StorageError where it is no such file."""
    tables.create(table, _AUDITED)
    for rows in read_per_image(files, _AUDITED.names):
        tables.insert(table, rows)
    if tables.row(f"SELECT count(*) <> count(DISTINCT image_id) AS twice FROM {table}")["twice"]:  # noqa: S608
        raise StorageError(f"an image is twice in {files.where(PER_IMAGE_FILE)}; run `audit` again")


def _why_unpaired(tables: ScratchTables) -> str | None:
    """Say why replicates of the two audits are not over the same images and truth; None where they are."""
    counts = tables.row(
        """
        SELECT count(*) FILTER (b.image_id IS NULL) AS only_a, count(*) FILTER (a.image_id IS NULL) AS only_b,
            count(*) FILTER (in_both AND a.excluded IS DISTINCT FROM b.excluded) AS excluded,
            count(*) FILTER (
                in_both AND (a.truth_digest, a.truth_area) IS DISTINCT FROM (b.truth_digest, b.truth_area)
            ) AS truth
        FROM (SELECT a, b, a.image_id = b.image_id AS in_both
            FROM audited_a a FULL JOIN audited_b b ON a.image_id = b.image_id)
        """
    )
    texts = {
        "only_a": "are in A only",
        "only_b": "are in B only",
        "excluded": "are excluded in one only, or for another reason",
        "truth": "have other true boxes or masks",
    }
    found = [f"{counts[key]} {text}" for key, text in texts.items() if counts[key]]
    return f"the audited images differ: {', '.join(found)}" if found else None


def _most_moved(tables: ScratchTables, moved: int, num_examples: int) -> Rows:
    return tables.rows(
        "SELECT image_id, iou_a, iou_b FROM verdicts WHERE moved = ? ORDER BY abs(change) DESC, image_id LIMIT ?",
        moved,
        num_examples,
    )


def _classes(tables: ScratchTables, run: Run, num_examples: int) -> Rows:
    """Return the classes of which images moved, by how many more moved one way than the other."""
    classes = tables.rows(
        """
        SELECT class_id, count(*) AS images, count(*) FILTER (moved = 1) AS gained,
            count(*) FILTER (moved = -1) AS lost, avg(change) AS iou_change
        FROM verdicts WHERE class_id IS NOT NULL GROUP BY class_id HAVING gained + lost > 0
        ORDER BY abs(gained - lost) DESC, abs(iou_change) DESC, class_id LIMIT ?
        """,
        num_examples,
    )
    return [{**row, "class_name": class_name(run, row["class_id"])} for row in classes]
