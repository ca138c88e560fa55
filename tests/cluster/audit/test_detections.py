"""Average precision of one class with many detections: in blocks of replicates, to the same figures."""

import tracemalloc

import numpy as np
import pyarrow as pa

from cam_ops.metrics.average_precision import BITS_T, weighted_average_precision
from cam_ops.metrics.bootstrap import image_seeds, poisson_weights
from cam_ops.metrics.counts import Split
from cluster.audit.detections import MAX_CELLS, precision_of
from cluster.audit.tables import DETECTIONS_SCHEMA

NUM_IMAGES, NUM_REPLICATES = 20_000, 150


def test_blocks_of_replicates_have_the_figures_of_all_in_bounded_memory() -> None:
    generator = np.random.default_rng(0)
    seed_M, num_truth_M = image_seeds([str(i) for i in range(NUM_IMAGES)]), generator.integers(0, 3, NUM_IMAGES)
    score_N = generator.random(NUM_IMAGES).astype(np.float32)
    matched_N = (generator.integers(0, 2, (NUM_IMAGES, len(BITS_T))) @ BITS_T).astype(np.uint16)
    ignored_N = np.zeros(NUM_IMAGES, np.uint16)
    assert NUM_IMAGES * NUM_REPLICATES > MAX_CELLS
    truth = {"seed": seed_M, "num_truth": num_truth_M}
    found = {"seed": seed_M, "score": score_N, "matched": matched_N, "ignored": ignored_N, "num_truth": 0 * num_truth_M}
    batches = [_rows(truth), _rows(found)]

    tracemalloc.start()
    figures = precision_of(iter(batches), Split(num_replicates=NUM_REPLICATES)).figures
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    weight_RM = np.vstack([np.ones(NUM_IMAGES), poisson_weights(seed_M, NUM_REPLICATES)]).astype(np.int64)
    expected_RT = weighted_average_precision(score_N, matched_N, ignored_N, weight_RM, weight_RM @ num_truth_M)
    np.testing.assert_array_equal(figures["ap"].value_R, 100 * expected_RT.mean(1))
    assert peak < 16 * 8 * MAX_CELLS


def test_weights_of_some_rows_are_those_of_all() -> None:
    split, seed_M = Split(num_replicates=7), image_seeds(["a", "b", "c"])
    for rows in (range(3), range(1, 2), range(3, 8)):
        np.testing.assert_array_equal(split.weights(seed_M, rows), split.weights(seed_M)[rows.start : rows.stop])


def _rows(columns: dict[str, np.ndarray]) -> pa.RecordBatch:
    count = len(columns["seed"])
    columns = {"class_id": np.zeros(count, np.int32), **columns}
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(count, field.type)
        for field in DETECTIONS_SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=DETECTIONS_SCHEMA)
