"""Further columns of tables, carried along into plan and images by --keep-columns."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.support.command import Command, table_rows

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
COLUMNS: dict[str, list[Any]] = {
    "breed": ["tabby", None, "a,b", 'say "x"', "ünï", "007"] * 2,
    "age": [1, 2, None, -4, 5, 2**40] * 2,
    "weight": [1.5, None, 2.0, 1e300, -0.25, 4.0] * 2,
    "is_wild": [True, False, None, True, True, False] * 2,
}
KEEP = ["--keep-columns", *COLUMNS]


def label(images: Path, out: Path, *more: object) -> Command:
    exact = ["--executor", "inline", "--precision", "fp32", "--shard-size", 5]
    return Command("label", "--images", images, "--out", out, *exact, *TWO, *more)


def kept(out: Path, table: str = "images") -> dict[str, dict[str, Any]]:
    """Return the further columns of each image, by the picture's own name."""
    return {row["image_id"].split("/")[-1]: {name: row[name] for name in COLUMNS} for row in table_rows(out, table)}


@pytest.fixture
def paths(pictures: Path) -> list[Path]:
    return sorted(pictures.glob("*/*.png"), key=lambda path: path.name)


@pytest.fixture
def expected(paths: list[Path]) -> dict[str, dict[str, Any]]:
    return {path.name: {name: values[i] for name, values in COLUMNS.items()} for i, path in enumerate(paths)}


def test_columns_of_a_parquet_manifest_keep_their_types(
    paths: list[Path], expected: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    types = {"age": pa.int64(), "weight": pa.float64(), "is_wild": pa.bool_()}
    columns = {name: pa.array(values, types.get(name)) for name, values in COLUMNS.items()}
    columns["breed"] = columns["breed"].dictionary_encode()
    table = {"uri": list(map(str, paths)), **columns, "n": pa.array(range(12), pa.uint8()), "other": [[1]] * 12}
    pq.write_table(pa.table(table), tmp_path / "list.parquet")
    out = tmp_path / "run"
    assert label(tmp_path / "list.parquet", out, *KEEP, "n").code == 0
    schema = ds.dataset(out / "images").schema
    assert {name: schema.field(name).type for name in (*COLUMNS, "n")} == {
        **types,
        "breed": pa.string(),
        "n": pa.uint8(),
    }
    assert schema.names[-5:] == [*COLUMNS, "n"]
    features = json.loads(pq.read_schema(out / "images" / "shard-0000000.parquet").metadata[b"huggingface"])
    assert features["info"]["features"]["weight"] == {"dtype": "float64", "_type": "Value"}
    assert kept(out) == kept(out, "plan") == expected
    assert [row["n"] for row in table_rows(out, "images")] == [
        int(row["image_id"][-6:-4]) for row in table_rows(out, "images")
    ]
    assert json.loads((out / "run.json").read_text())["plan"]["kept"] == [
        ["breed", "string"],
        ["age", "int64"],
        ["weight", "double"],
        ["is_wild", "bool"],
        ["n", "uint8"],
    ]


def test_they_go_through_all_commands_and_a_resume(
    paths: list[Path], expected: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"uri": list(map(str, paths)), **COLUMNS}), tmp_path / "list.parquet")
    out = tmp_path / "run"
    assert label(tmp_path / "list.parquet", out, *KEEP).code == 0
    shard = out / "images" / "shard-0000001.parquet"
    content = shard.read_bytes()
    shard.unlink()
    (tmp_path / "list.parquet").unlink()
    assert label(tmp_path / "list.parquet", out, *KEEP).code == 0
    assert shard.read_bytes() == content
    other = label(tmp_path / "list.parquet", out, *KEEP[:-1])
    assert (other.code, "keep_columns" in other.result["error"]) == (4, True), other.result["error"]
    assert Command("verify", out).code == 0
    assert Command("rebox", out, "--out", tmp_path / "boxes", "--threshold", 0.5, "--executor", "inline").code == 0
    assert kept(tmp_path / "boxes") == expected
    assert Command("verify", tmp_path / "boxes").code == 0
    assert Command("status", out).code == 0
    assert Command("compare", out, tmp_path / "boxes").code in (0, 3)
    assert Command("show", out, str(paths[3])).code == 0
    rows = pq.read_table(shard)
    changed = rows.set_column(rows.column_names.index("age"), "age", pa.nulls(len(rows), pa.int64()))
    pq.write_table(changed.replace_schema_metadata(rows.schema.metadata), shard)
    assert "column age of its images is not the plan's" in Command("verify", out).out


def test_lists_in_text_and_tables_with_pictures_carry_them_too(
    paths: list[Path], expected: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    cells = [path.read_bytes() for path in paths]
    names = [path.name for path in paths]
    pq.write_table(pa.table({"image": cells, "image_id": names, **COLUMNS}), tmp_path / "cells.parquet")
    lines = [
        {"file_name": str(path), **{name: values[i] for name, values in COLUMNS.items() if values[i] is not None}}
        for i, path in enumerate(paths)
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name in ("cells.parquet", "list.jsonl"):
        out = tmp_path / "runs" / name
        assert label(tmp_path / name, out, *KEEP).code == 0
        assert kept(out) == expected
        assert [str(ds.dataset(out / "images").schema.field(name).type) for name in COLUMNS] == [
            *("string", "int64", "double", "bool")
        ]


def test_cells_of_a_csv_are_texts_as_they_stand(paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"uri,code,Age Group\n{paths[0]},007,1.0\n{paths[1]},,\n")
    out = tmp_path / "run"
    assert label(tmp_path / "list.csv", out, "--keep-columns", "code", "age_group").code == 0
    assert [(row["code"], row["age_group"]) for row in table_rows(out, "images")] == [(None, None), ("007", "1.0")]


def test_without_the_flag_a_run_has_no_such_columns(paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"uri,code\n{paths[0]},007\n")
    assert label(tmp_path / "list.csv", tmp_path / "run").code == 0
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    assert ("kept" in document["plan"], "keep_columns" in document["request"]) == (False, False)
    assert "code" not in ds.dataset(tmp_path / "run" / "images").schema.names


REFUSED = [
    (["label"], "--keep-columns label: the table images has a column of that name; rename it"),
    (["URI"], "the table images has a column of that name"),
    (["labels"], "the table images has a column of that name"),
    (["code", "Code"], "expects names of columns, each once, got 'code'"),
    ([" "], "expects names of columns, each once, got ' '"),
    (["cod"], "has the columns 'uri', 'code', 'many', 'both'; did you mean code?"),
    (["many"], "one of them in all rows|texts, numbers and true or false are carried along"),
    (["both"], "texts, numbers and true or false are carried along, of one kind in all rows; .* has int, str"),
]


@pytest.mark.parametrize(("names", "says"), REFUSED)
def test_what_cannot_be_carried_is_refused(tmp_path: Path, names: list[str], says: str) -> None:
    lines = [{"uri": "a", "code": 1, "many": [1], "both": 1}, {"uri": "b", "both": "x"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    refused = label(tmp_path / "list.jsonl", tmp_path / "run", "--keep-columns", *names)
    assert refused.code == 2
    with pytest.raises(ValueError, match=says):
        raise ValueError(refused.result["error"])


def test_types_that_are_none_of_these_and_sources_without_columns_are_refused(pictures: Path, tmp_path: Path) -> None:
    for column in (pa.array([[1]]), pa.array([b"x"]), pa.array([{"a": 1}]), pa.array([1]).cast(pa.timestamp("ms"))):
        pq.write_table(pa.table({"uri": ["a"], "x": column}), tmp_path / "list.parquet")
        kind = pq.read_schema(tmp_path / "list.parquet").field("x").type
        refused = label(tmp_path / "list.parquet", tmp_path / "run", "--columns", "uri=uri", "--keep-columns", "x")
        assert (refused.code, f"has {kind} there" in refused.result["error"]) == (2, True)
    refused = label(pictures, tmp_path / "run", "--keep-columns", "x")
    assert (refused.code, "--keep-columns needs --images with columns" in refused.result["error"]) == (2, True)


def test_a_run_json_with_columns_that_cannot_be_is_refused(paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"uri,code\n{paths[0]},007\n")
    out = tmp_path / "run"
    assert label(tmp_path / "list.csv", out, "--keep-columns", "code").code == 0
    text = (out / "run.json").read_text()
    for kept_columns in ([["code", "list<int>"]], [["uri", "string"]], [["code", "string"]] * 2, [["code"]]):
        document = json.loads(text)
        document["plan"]["kept"] = kept_columns
        (out / "run.json").write_text(json.dumps(document))
        assert Command("verify", out).code == 5
