"""Plan, run directory and tables: what lies on disk, read back by other libraries."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cam_ops.errors import BadImage, StorageError
from cam_ops.tables import LABELLED, LISTING, heatmaps_schema, with_metadata
from cluster.runs.directory import RunDir
from cluster.runs.plan import auto_batch_size, auto_shard_size, find_images, plan_digest, read_shard, write_plan
from cluster.sources.reading import read_image
from cluster.sources.sorting import sorted_listing
from cluster.storage.options import NO_OPTIONS
from cluster.storage.parquet import decode, document_of, encode
from tests.support.command import ROOT, listed
from tests.support.stores import Store


def labelled(num_images: int, rows_per_batch: int) -> list[pa.RecordBatch]:
    ids = [f"{i:05d}.jpg" for i in range(num_images)]
    sizes = pa.array([7] * num_images, pa.int64())
    uris, labels = [f"file:///{i}" for i in ids], pa.nulls(num_images, pa.int32())
    return pa.table([ids, uris, sizes, sizes, labels], schema=LABELLED).to_batches(rows_per_batch)


def test_every_image_is_planned_once_and_shards_read_back_in_order(tmp_path: Path) -> None:
    run_dir = RunDir(str(tmp_path))
    plan = write_plan(run_dir, labelled(2503, 2503), 2)
    assert (plan.num_images, plan.num_shards) == (2503, 1252)
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    rows = [row for shard in range(1252) for row in read_shard(run_dir, shard).to_pylist()]
    assert [row["image_id"] for row in rows] == [f"{i:05d}.jpg" for i in range(2503)]
    assert all((row["shard"], row["row"]) == divmod(i, 2) for i, row in enumerate(rows))
    found = {"02502.jpg": (1251, 0), "00003.jpg": (1, 1)}
    assert find_images(run_dir, plan, [*found, "nothing.jpg"]) == found
    assert find_images(run_dir, plan, []) == {}
    everything = {f"{i:05d}.jpg": divmod(i, 2) for i in range(2503)}
    assert find_images(run_dir, plan, [*everything, "\U0010ffff", ""]) == everything
    assert plan_digest(run_dir, plan) == plan.digest
    assert [write_plan(run_dir, labelled(2503, rows), 2) for rows in (1, 999, 1000, 2001)] == [plan] * 4
    (tmp_path / "plan" / "part-00001.parquet").unlink()
    assert plan_digest(run_dir, plan) != plan.digest


def test_a_plan_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    run_dir = RunDir(str(tmp_path))
    write_plan(run_dir, labelled(5, 5), 2)
    path = tmp_path / "plan" / "part-00000.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.append_column("image_id", rows["image_id"]), path, row_group_size=2)
    with pytest.raises(StorageError, match="has not the columns that it should have, each once"):
        read_shard(run_dir, 0)


def test_images_are_found_in_a_plan_whose_footer_says_two_types_of_a_column(tmp_path: Path) -> None:
    """pyarrow 26 ends the process where it is asked for such a column's statistics."""
    run_dir = RunDir(str(tmp_path))
    plan = write_plan(run_dir, labelled(5, 5), 2)
    path = tmp_path / "plan" / "part-00000.parquet"
    text, number = b"\x15\x0c\x19", b"\x15\x02\x19"  # a column's type in a row group, before its encodings
    assert text in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(text, number))
    assert pq.read_metadata(path).row_group(0).column(0).physical_type == "INT32"
    assert find_images(run_dir, plan, ["00003.jpg"]) == {"00003.jpg": (1, 1)}


def test_small_jobs_have_small_shards_in_whole_batches() -> None:
    assert auto_batch_size(500, 16) == 16
    assert auto_shard_size(500, 2, 16) == auto_shard_size(500, 1, 16) == 16
    assert auto_shard_size(10_000_000, 64, 64) == 512
    assert auto_shard_size(64 * 4 * 64, 64, 64) == 64  # four shards for each of 64 replicas
    assert (auto_batch_size(8, 16), auto_shard_size(8, 2, 1)) == (1, 1)


def test_publishing_replaces_whole_files_and_leaves_no_scratch(tmp_path: Path) -> None:
    run_dir = RunDir(str(tmp_path))
    run_dir.publish("images/shard-0000003.parquet", b"one")
    run_dir.publish("images/shard-0000003.parquet", b"two")
    (tmp_path / "images" / "shard-0000004.parquet.tmp").touch()
    assert run_dir.read("images/shard-0000003.parquet") == b"two"
    assert run_dir.shards("images") == {3}
    assert list((tmp_path / ".scratch").iterdir()) == []


def in_batches(ids: list[str]) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(ids), 1000):
        part = ids[start : start + 1000]
        yield pa.record_batch([part, [f"file:///{i}" for i in part], [0] * len(part), range(len(part))], schema=LISTING)


def test_images_come_in_the_order_of_their_ids_bytes_through_a_sort_on_disk() -> None:
    generator = random.Random(0)
    alphabet = "/-. aZ_é日\uffff😀\\\n'"
    ids = list({"".join(generator.choices(alphabet, k=generator.randrange(1, 9))) for _ in range(100_000)})
    for limit in (None, 40_000):
        with sorted_listing("anywhere", in_batches(ids), limit) as listing:
            rows = [row for batch in listing.batches() for row in batch.to_pylist()]
            assert rows == [row for batch in listing.batches() for row in batch.to_pylist()]  # it can be read again
            assert listing.num_images == len(rows)
        assert [row["image_id"] for row in rows] == sorted(ids, key=str.encode)[:limit]
        assert {row["uri"] for row in rows} == {f"file:///{row['image_id']}" for row in rows}


def test_a_sort_without_room_says_so() -> None:
    ids = [f"{i:0300d}" for i in range(100_000)]
    with (
        pytest.raises(StorageError, match=r"cannot sort the images of anywhere in .*; set TMPDIR to a folder"),
        sorted_listing("anywhere", in_batches(ids), None, memory_limit="2MiB"),
    ):
        pass


PUBLISH = "import sys; from cluster.runs.directory import RunDir; RunDir(sys.argv[1]).publish('run.json', b'half')"


def test_what_a_killed_process_left_is_swept_after_a_day_and_files_of_others_never(tmp_path: Path) -> None:
    scratch = tmp_path / ".scratch"
    for killed in ("first", "second"):
        env = {**os.environ, "CAMRAY_FAILPOINTS": f"scratch-run.json:KILL:{tmp_path / killed}"}
        assert subprocess.run([sys.executable, "-c", PUBLISH, tmp_path], cwd=ROOT, env=env).returncode == -9
    leftover, fresh = scratch.iterdir()
    foreign = scratch / "thesis.txt"
    foreign.touch()
    two_days_ago = time.time() - 2 * 86400
    for old in (leftover, foreign):
        os.utime(old, (two_days_ago, two_days_ago))
    RunDir(str(tmp_path)).sweep_scratch()
    assert set(scratch.iterdir()) == {fresh, foreign}


def test_a_full_disk_is_a_storage_error_and_publishes_nothing(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        run_dir = RunDir(str(tmp_path))
        with pytest.raises(StorageError, match=os.strerror(errno.ENOSPC)):
            run_dir.publish("images/shard-0000000.parquet", b"x" * 200_000)
        assert run_dir.shards("images") == set()
        assert list((tmp_path / ".scratch").iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_listing_has_pictures_in_any_case_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.Jpeg", "a/y.tiff", "n.txt", "a/q.webp", "spa ce#1.png", "deep/er/x.bmp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "broken.png").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"bytes")
    (tmp_path / r"\xff.png").write_bytes(b"backslash")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ours.png").touch()
    listing = listed(str(tmp_path), skip=str(tmp_path / "run"))
    assert listing["image_id"].to_pylist() == [
        *(r"\\xff.png", r"\xff.png", "a/q.webp", "a/y.tiff", "a/z.Jpeg", "b.JPG", "broken.png", "deep/er/x.bmp"),
        *("self.png", "spa ce#1.png"),
    ]
    rows = {row["image_id"]: row for row in listing.to_pylist()}
    for name, content in (("spa ce#1.png", b"spa ce#1.png"), (r"\xff.png", b"bytes"), (r"\\xff.png", b"backslash")):
        assert read_image(rows[name]["uri"], 0, rows[name]["size"]) == content
    assert read_image(rows["b.JPG"]["uri"], 2, 3) == b"JPG"
    for name, status in (("self.png", "unreadable"), ("broken.png", "missing")):
        with pytest.raises(BadImage) as caught:
            read_image(rows[name]["uri"], 0, 1)
        assert caught.value.status == status
    assert len(listed(str(tmp_path), 3)) == 3
    with pytest.raises(StorageError, match="found none"):
        listed(str(tmp_path / "folder.jpg"))
    with pytest.raises(StorageError, match="cannot list"):
        listed(str(tmp_path / "nowhere"))


def test_links_to_folders_are_followed_once_and_what_is_not_entered_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, store = tmp_path / "root", tmp_path / "store"
    for path in (store / "dogs" / "1.png", store / "cats" / "2.png", root / "own" / "3.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (root / "n01").symlink_to(store / "dogs")
    (root / "n02").symlink_to("../store/cats")
    (root / "n03").symlink_to(store / "birds")  # is not there
    (store / "dogs" / "friends").symlink_to(store / "cats")
    (store / "cats" / "friends").symlink_to(store / "dogs")  # and so on
    (root / "own" / "all").symlink_to(root)
    listing = listed(str(root))
    ids = ["n01/1.png", "n01/friends/2.png", "n02/2.png", "n02/friends/1.png", "own/3.png"]
    assert listing["image_id"].to_pylist() == ids
    assert [read_image(row["uri"], 0, row["size"]) for row in listing.to_pylist()] == [b"x"] * 5
    said = capsys.readouterr().err
    assert "3 links lead back to a folder that they lie in" in said
    assert f"1 links lead nowhere or where this user may not look, and are left out, such as '{root / 'n03'}'" in said
    shutil.rmtree(root / "own")
    (root / "n01").unlink()
    (root / "n02").unlink()
    with pytest.raises(StorageError, match="found none"):
        listed(str(root))
    assert "links lead nowhere" in capsys.readouterr().err


def test_run_directories_and_what_was_drawn_of_them_are_no_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], s3: Store
) -> None:
    for name in ("a.png", "sub/run.json", "sub/b.png", "run/run.json", "run/plan/part-00000.parquet", "run/show/a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    for address, options in ((str(tmp_path / "in"), NO_OPTIONS), (s3.put(tmp_path / "in", "runs"), s3.options)):
        assert listed(address, options=options)["image_id"].to_pylist() == ["a.png", "sub/b.png"]
        assert f"1 run directories of this program are not searched for pictures, such as '{address}/run" in (
            capsys.readouterr().err
        )


def test_heat_maps_are_read_by_pyarrow_duckdb_and_pandas(tmp_path: Path) -> None:
    grid = (2, 3)
    raw = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    schema = with_metadata(heatmaps_schema(grid), {"table": "heatmaps"})
    columns = {field.name: pa.array(["a", "b"] if pa.types.is_string(field.type) else [0, 1]) for field in schema}
    columns["heatmap"] = pa.FixedShapeTensorArray.from_numpy_ndarray(raw)
    table = pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)
    path = tmp_path / "shard.parquet"
    path.write_bytes(encode(table))
    read = decode(path.read_bytes(), "shard")
    np.testing.assert_array_equal(read["heatmap"].combine_chunks().to_numpy_ndarray(), raw)
    assert document_of(read.schema) == {"table": "heatmaps"}
    features = json.loads(read.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["heatmap"] == {"shape": [2, 3], "dtype": "float32", "_type": "Array2D"}
    found = duckdb.sql(f"SELECT heatmap FROM '{path}'").fetchall()
    np.testing.assert_array_equal(np.array(found).reshape(2, 2, 3), raw)
    np.testing.assert_array_equal(np.stack(pd.read_parquet(path)["heatmap"]).reshape(2, 2, 3), raw)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    assert (column.compression, column.has_column_index, column.has_dictionary_page) == ("ZSTD", True, True)


def test_a_file_that_is_no_parquet_is_named() -> None:
    with pytest.raises(StorageError, match=r"boxes/shard-0000001\.parquet is not a whole Parquet file"):
        decode(b"PAR1 and then nothing", "boxes/shard-0000001.parquet")
