"""What is held of the names that stand beside numbers of classes."""

import pyarrow as pa

from cluster.sources.beside import MAX_BYTES, Beside


def test_texts_too_long_to_be_names_are_not_held() -> None:
    held = Beside()
    words = ["cat", "d" * MAX_BYTES, "x" * (MAX_BYTES + 1), None]
    held.note_all(pa.array(["0", "1", "2", "3"]), "name", pa.array(words, pa.string()).cast(pa.binary()), "list.csv")
    expected = {("0", "cat"): "list.csv", ("1", "d" * MAX_BYTES): "list.csv"}
    assert held.found == {"name": expected}
    held.note("2", "name", "x" * (MAX_BYTES + 1), "list.csv")
    held.note("4", "name", "dog", "list.csv")
    assert held.found == {"name": {**expected, ("4", "dog"): "list.csv"}}
