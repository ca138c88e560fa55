"""What a listing is counted to hold, and the sample that is drawn of it."""

import numpy as np
import pyarrow as pa

from cam_ops.tables import LABELLED, LABELS
from cluster.sources.inventory import CELL, OTHER, drawn, take_inventory


def test_a_sample_has_one_row_of_each_part_of_the_listing_in_an_order_of_its_own() -> None:
    places_N = drawn(10_000, 100)
    assert sorted(places_N // 100) == list(range(100))
    assert list(places_N) != sorted(places_N)
    assert list(places_N) == list(drawn(10_000, 100))
    assert sorted(drawn(7, 100)) == list(range(7))
    assert len(set(places_N % 100)) > 50  # not each part's first


def test_all_rows_are_counted_and_the_drawn_ones_are_taken() -> None:
    ids = ["a.JPG", "b.tar/c.png", "d", "e", "t.parquet/00000001", "f.md"]
    uris = ["file:///a.JPG", "/b.tar", "/list/d.webp", "/e", "/t.parquet", "/f.md"]
    sizes = [10, 20, -1, 5, -2, 7]
    labels = [1, None, 0, None, None, 1]
    several = [None, [2, 3], None, None, None, None]
    schema = pa.schema([*LABELLED, LABELS])
    table = pa.table([ids, uris, [0] * 6, sizes, labels, several], schema=schema)
    found = take_inventory(iter(table.to_batches(max_chunksize=4)), 6, 4)
    assert found.kinds == {OTHER: 2, "jpg": 1, "png": 1, "webp": 1, CELL: 1}
    assert (found.num_bytes, found.num_sized) == (42, 4)
    assert (found.num_labelled, found.num_classes) == (4, 4)
    expected = [ids[place] for place in drawn(6, 4)]
    assert found.sample["image_id"].to_pylist() == expected
    assert found.sample.schema == schema


def test_an_empty_draw_takes_nothing() -> None:
    table = pa.table([["a"], ["/a"], [0], [1], [None]], schema=LABELLED)
    assert len(take_inventory(iter(table.to_batches()), 1, 0).sample) == 0
    assert np.array_equal(drawn(5, 0), [])
