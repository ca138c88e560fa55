"""Images that a truth knows and the run has no label for: how many, and labels.csv, with which they can have one.

Memory does not grow with the number of images. `per_image` is the file of all images' rows, schema PER_IMAGE_SCHEMA.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from cluster.audit.summary import ROWS_AT_ONCE, query
from cluster.storage.parquet import stream

UNLABELLED = """
SELECT count(*) AS in_truth, count(*) FILTER (label IS NULL) AS images,
    count(*) FILTER (label IS NULL AND true_class IS NOT NULL) AS known,
    count(*) FILTER (label IS NULL AND excluded IS NULL) AS audited,
    count(*) FILTER (label IS NULL AND excluded = 'no map of the true class') AS left_out
FROM read_parquet(?) WHERE excluded IS DISTINCT FROM 'not in the truth'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlabelled:
    """Images of the truth that have no label in the run."""

    in_truth: int  # images of the truth, with a label or without
    images: int  # of these, without
    known: int  # of these, whose class the truth knows: they are in labels.csv
    audited: int  # of these, in the figures: the run has a map of their true class
    left_out: int  # of these, in none, as the network predicted another class


def find_unlabelled(per_image: Path) -> Unlabelled:
    """Count them."""
    (counts,) = query(UNLABELLED, [str(per_image)])
    return Unlabelled(**counts)


def write_labels(per_image: Path, names: tuple[str, ...]) -> Path:
    """Write the true class of each image where it is known, as `label --labels` reads it, and return the file.

    A class is called by its name, or by its number where several have that name; where a class bears that number as
    its name, neither has one meaning, and its images are left out.
    """
    words = pa.array(_words(names), pa.string())
    path = per_image.with_name("labels.csv")
    schema = pa.schema([("image_id", pa.string()), ("label", pa.string())])
    with csv.CSVWriter(path, schema) as writer, pq.ParquetFile(per_image) as file:
        for batch in stream(file, ROWS_AT_ONCE, ["image_id", "true_class"]):
            rows = pa.Table.from_batches([batch])
            labels = words.take(rows["true_class"].combine_chunks())
            labelled = pa.table({"image_id": rows["image_id"], "label": labels}, schema=schema)
            writer.write_table(labelled.filter(np.asarray(labels.is_valid())))
    return path


def _words(names: tuple[str, ...]) -> list[str | None]:
    """Return the word by which to call each class, None where there is none."""
    number_of = Counter(names)
    return [
        name if number_of[name] == 1 else None if str(class_id) in number_of else str(class_id)
        for class_id, name in enumerate(names)
    ]
