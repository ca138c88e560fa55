"""What two audits say of the images in both: metrics with paired intervals, and the images and classes that moved."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cam_ops.arrays import F64
from cam_ops.errors import StorageError
from cluster.audit.files import PER_IMAGE, AuditFile, read_replicates
from cluster.compare.metrics import Difference, differences
from cluster.compare.scratch import Rows, ScratchTables
from cluster.compare.tables import NUM_EXAMPLES, class_name
from cluster.runs.directory import RunDir
from cluster.runs.record import Run
from cluster.storage.parquet import stream

ROWS_PER_BATCH = 2**16
_AUDITED = pa.schema(
    [
        ("image_id", pa.string()),
        ("true_class", pa.int32()),
        ("excluded", pa.string()),
        ("truth_area", pa.float32()),
        ("truth_digest", pa.uint64()),
        ("iou", pa.float32()),
        ("correct", pa.bool_()),
    ]
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
    tables: ScratchTables, run_dirs: tuple[RunDir, RunDir], audits: tuple[AuditFile, AuditFile], run: Run
) -> AuditChanges:
    """Compare two audits; `run` knows the names of the classes. Raises StorageError for files that no audit wrote."""
    for side, run_dir in zip("ab", run_dirs, strict=True):
        _load_audited(tables, f"audited_{side}", run_dir)
    unpaired = _why_unpaired(tables)
    replicates: tuple[dict[str, F64], dict[str, F64]] = ({}, {})
    if unpaired is None:
        replicates = read_replicates(run_dirs[0]), read_replicates(run_dirs[1])
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
        most_gained=_most_moved(tables, 1),
        most_lost=_most_moved(tables, -1),
        classes=_classes(tables, run),
    )


def _load_audited(tables: ScratchTables, table: str, run_dir: RunDir) -> None:
    """Make a table of per_image.parquet; raises StorageError where it is no such file."""
    tables.create(table, _AUDITED)
    where = run_dir.where(PER_IMAGE)
    try:
        with pq.ParquetFile(run_dir.open(PER_IMAGE)) as file:
            found = file.schema_arrow
            for field in _AUDITED:
                if found.names.count(field.name) != 1 or found.field(field.name).type != field.type:
                    raise StorageError(f"expected a column {field.name} of {field.type} in {where}; run `audit` again")
            for batch in stream(file, ROWS_PER_BATCH, _AUDITED.names):
                batch.validate(full=True)
                if not pc.all(pc.is_finite(batch["iou"]), min_count=0).as_py():
                    raise StorageError(f"an IoU in {where} is not finite; run `audit` again")
                tables.insert(table, pa.Table.from_batches([batch]).select(_AUDITED.names))
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot read {where}: {error}; run `audit` again") from None
    if tables.row(f"SELECT count(*) <> count(DISTINCT image_id) AS twice FROM {table}")["twice"]:  # noqa: S608
        raise StorageError(f"an image is twice in {where}; run `audit` again")


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


def _most_moved(tables: ScratchTables, moved: int) -> Rows:
    return tables.rows(
        "SELECT image_id, iou_a, iou_b FROM verdicts WHERE moved = ? ORDER BY abs(change) DESC, image_id LIMIT ?",
        moved,
        NUM_EXAMPLES,
    )


def _classes(tables: ScratchTables, run: Run) -> Rows:
    """Return the classes of which images moved, by how many more moved one way than the other."""
    classes = tables.rows(
        """
        SELECT class_id, count(*) AS images, count(*) FILTER (moved = 1) AS gained,
            count(*) FILTER (moved = -1) AS lost, avg(change) AS iou_change
        FROM verdicts WHERE class_id IS NOT NULL GROUP BY class_id HAVING gained + lost > 0
        ORDER BY abs(gained - lost) DESC, abs(iou_change) DESC, class_id LIMIT ?
        """,
        NUM_EXAMPLES,
    )
    return [{**row, "class_name": class_name(run, row["class_id"])} for row in classes]
