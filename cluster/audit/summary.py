"""The rows of all images of an audit as one file, and what is read off it: classes, signals, whom to look at first.

Memory does not grow with the number of images. `path` is that file, schema PER_IMAGE_SCHEMA.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cam_ops.errors import StorageError
from cam_ops.metrics.signals import ClassSums, Shortcut
from cluster.audit.tables import PER_CLASS_SCHEMA
from cluster.storage.parquet import stream
from cluster.storage.scratch import open_database

BY_CLASS = """
SELECT true_class AS class_id, count(*) AS images, count(*) FILTER (correct) AS correct,
    100.0 * count(*) FILTER (correct) / count(*) AS gt_known_loc,
    100.0 * count(*) FILTER (correct AND top1) / count(*) AS top1_loc,
    avg(iou::DOUBLE) AS mean_iou
FROM read_parquet(?) WHERE correct IS NOT NULL GROUP BY true_class ORDER BY true_class
"""
LOOK_FIRST = """
SELECT image_id, attention, class_id, score, box_area, failure FROM read_parquet(?)
WHERE attention IS NOT NULL ORDER BY attention DESC, image_id LIMIT ?
"""
SIGNALS = ("score", "entropy", "concentration", "border_mass", "num_components", "box_area")
SUMMARY = """
SELECT count(class_id) AS images, count(*) FILTER (class_id IS NOT NULL AND box_area = 0) AS without_box,
    count(*) FILTER (box_area >= ?) AS whole_image_boxes
FROM read_parquet(?)
"""
QUANTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95}
STEPS = {name: 1 if name == "num_components" else 1000 for name in SIGNALS}  # that 1 is counted in
ROWS_AT_ONCE = 2**16
ROWS_PER_GROUP = 2**15  # that who wants the rows of some shards reads


@contextmanager
def joined_parts(parts: Iterator[pa.Table], schema: pa.Schema) -> Iterator[Path]:
    """Write the parts' rows to one scratch file, a part in memory at a time. Raises StorageError where room lacks."""
    with TemporaryDirectory(prefix="camray-") as scratch:
        path = Path(scratch, "rows.parquet")
        try:
            _write(path, parts, schema)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise StorageError(f"no room in {scratch}: {reason}; set TMPDIR to a folder with room") from None
        yield path


def _write(path: Path, parts: Iterator[pa.Table], schema: pa.Schema) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        held: list[pa.Table] = []
        for part in parts:
            held.append(part)
            if sum(map(len, held)) >= ROWS_PER_GROUP:
                writer.write_table(pa.concat_tables(held), row_group_size=ROWS_PER_GROUP)
                held = []
        if held:
            writer.write_table(pa.concat_tables(held), row_group_size=ROWS_PER_GROUP)


def class_rows(
    path: Path, names: tuple[str, ...], sums: ClassSums | None, ap_of: dict[int, float], shortcuts: list[Shortcut]
) -> pa.Table:
    """Return one row per class that is true of an image, or has maps; schema PER_CLASS_SCHEMA."""
    rows: dict[int, dict[str, object]] = {}
    for row in query(BY_CLASS, [str(path)]):
        rows[row["class_id"]] = row
    for class_id, ap in ap_of.items():
        rows.setdefault(class_id, {})["ap"] = ap
    if sums is not None:
        for c, (class_id, mean_hw) in enumerate(zip(sums.class_C.tolist(), sums.mean_maps(), strict=True)):
            rows.setdefault(class_id, {}).update(
                num_maps=int(sums.num_maps_C[c]),
                mean_map=None if np.isnan(mean_hw).any() else mean_hw.ravel().tolist(),
                box_density=sums.density_CGG[c].ravel().tolist(),
            )
    for shortcut in shortcuts:
        rows[shortcut.class_id]["suspected_place"] = shortcut.place
    complete = [
        {"images": 0, "correct": 0, "num_maps": 0, **row, "class_id": class_id, "class_name": names[class_id]}
        for class_id, row in sorted(rows.items())
    ]
    return pa.Table.from_pylist(complete, schema=PER_CLASS_SCHEMA)


def look_first(path: Path, number: int) -> list[dict[str, object]]:
    """Return the images that a person should look at first, see `cam_ops.metrics.signals.doubt`."""
    return query(LOOK_FIRST, [str(path), number])


def signal_summary(path: Path, whole_image: float) -> dict[str, object]:
    """Return quantiles of the label-free signals, and how many images have no box, or one that covers all."""
    (counts,) = query(SUMMARY, [whole_image, str(path)])
    return counts | _quantiles(path)


def _quantiles(path: Path) -> dict[str, dict[str, float | None]]:
    """Return quantiles of the signals, to a thousandth: from counts, so that memory does not grow with the run."""
    counts_of = {name: np.zeros(1, np.int64) for name in SIGNALS}
    with pq.ParquetFile(path) as file:
        for batch in stream(file, ROWS_AT_ONCE, list(SIGNALS)):
            for name in SIGNALS:
                values_N = batch[name].drop_null().to_numpy().astype(np.float64)
                steps_N = np.rint(values_N * STEPS[name]).astype(np.int64)
                counts = np.bincount(steps_N, minlength=len(counts_of[name]))
                counts[: len(counts_of[name])] += counts_of[name]
                counts_of[name] = counts
    return {
        name: {
            quantile: int(counts.cumsum().searchsorted(share * counts.sum())) / STEPS[name] if counts.any() else None
            for quantile, share in QUANTILES.items()
        }
        for name, counts in counts_of.items()
    }


def query(sql: str, values: list[object]) -> list[dict[str, Any]]:
    """Return the rows of a query."""
    with open_database(num_threads=1) as database:  # one thread: means are added up in one order
        rows: list[dict[str, Any]] = database.sql(sql, params=values).to_arrow_table().to_pylist()
        return rows
