"""What a listing holds, counted in one pass, and a sample that is spread over all of it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.arrays import I64
from cam_ops.pictures.formats import format_named
from cam_ops.tables import LABELS

CELL, OTHER = "cell of a table", "no suffix"
SUFFIX = r"\.(?P<suffix>[A-Za-z0-9]{1,8})$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What is there to label."""

    num_images: int
    kinds: dict[str, int]  # images by the suffix of their names, the most frequent first
    num_bytes: int  # of those whose size is known without a look at them
    num_sized: int  # so many are
    num_labelled: int
    num_classes: int  # that label an image
    sample: pa.Table  # rows of the listing, in an order that has nothing to do with that of the listing


def take_inventory(batches: Iterator[pa.RecordBatch], num_images: int, num_rows: int) -> Inventory:
    """Count the images of a labelled listing, schema LABELLED as far as that goes; draw `num_rows` of them, or all."""
    places_N = drawn(num_images, num_rows)
    order_N = np.argsort(places_N)
    sorted_N = places_N[order_N]
    kinds: Counter[str] = Counter()
    num_bytes = num_sized = num_labelled = first = 0
    classes: set[int] = set()
    taken: list[pa.RecordBatch] = []
    for batch in batches:
        kinds.update(_kinds(batch))
        known = batch["size"].filter(pc.greater_equal(batch["size"], 0))
        num_bytes += pc.sum(known).as_py() or 0
        num_sized += len(known)
        is_labelled = batch["label"].is_valid()
        classes.update(batch["label"].unique().drop_null().to_pylist())
        if LABELS.name in batch.schema.names:
            several = batch[LABELS.name]
            is_labelled = pc.or_(is_labelled, several.is_valid())
            classes.update(several.flatten().unique().to_pylist())
        num_labelled += pc.sum(is_labelled).as_py() or 0
        begin, end = np.searchsorted(sorted_N, [first, first + len(batch)])
        taken.append(batch.take(pa.array(sorted_N[begin:end] - first)))
        first += len(batch)
    assert first == num_images
    return Inventory(
        num_images=num_images,
        kinds=dict(kinds.most_common()),
        num_bytes=num_bytes,
        num_sized=num_sized,
        num_labelled=num_labelled,
        num_classes=len(classes),
        sample=pa.Table.from_batches(taken).take(pa.array(np.argsort(order_N))).combine_chunks(),
    )


def drawn(num_images: int, num_rows: int) -> I64:
    """Draw places from 0 to `num_images` - 1, each once, one from each part of as many equal ones; in random order.

    The same arguments give the same places.
    """
    generator = np.random.default_rng(0)
    num_rows = min(num_rows, num_images)
    edges = np.arange(num_rows + 1) * num_images // max(1, num_rows)
    places_N: I64 = generator.permutation(generator.integers(edges[:-1], edges[1:]))
    return places_N


def _kinds(batch: pa.RecordBatch) -> Counter[str]:
    """Count images by the suffix of their id, or else of their address."""
    names = ["image_id", "uri"]
    suffixes = [pc.struct_field(pc.extract_regex(batch[name], SUFFIX), "suffix") for name in names]
    columns = [*map(pc.utf8_lower, suffixes), pc.less(batch["size"], -1)]
    counted = pa.table(columns, names=[*names, "cell"]).group_by([*names, "cell"]).aggregate([([], "count_all")])
    found: Counter[str] = Counter()
    for row in counted.to_pylist():
        suffix = next((row[name] for name in names if row[name] and format_named(row[name])), None)
        found[suffix or (CELL if row["cell"] else OTHER)] += row["count_all"]
    return found
