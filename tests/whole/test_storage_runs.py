"""Whole runs with input and output on object stores: commands as a user types them, against real servers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.runs.directory import RunDir
from cluster.runs.history import read_log
from cluster.runs.watching import Watch
from cluster.storage.listings import list_objects
from cluster.storage.objects import read_object, remove_object
from tests.support.command import ROOT, Command, table_rows
from tests.support.stores import KEY, SECRET, Store

MODEL = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
FLAGS = [*MODEL, "--precision", "fp32", "--executor", "inline", "--shard-size", 4]


def label(images: object, out: object, *more: object) -> Command:
    return Command("label", "--images", images, "--out", out, *FLAGS, *more)


def fetched(store: Store, key: str, to: Path) -> Path:
    """Copy what the store has below a key to a folder, through the store."""
    for name, _ in list_objects(store.address(key), store.options):
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_object(store.address(f"{key}/{name}"), store.options) or b"")
    return to


def rows_without(out: Path, *names: str) -> list[list[dict[str, object]]]:
    """Return the three tables of a run without some columns."""
    tables = [table_rows(out, table) for table in ("images", "heatmaps", "boxes")]
    return [[{key: row[key] for key in row if key not in names} for row in rows] for rows in tables]


def test_a_run_on_s3_is_a_local_run(s3: Store, pictures: Path, tmp_path: Path) -> None:
    options = ["--storage-options", *s3.words]
    images = s3.put(pictures, "pictures")
    local = label(pictures, tmp_path / "run", "--labels", "folder", "--class-names", _names(tmp_path))
    remote = label(images, s3.address("whole"), "--labels", "folder", "--class-names", _names(tmp_path), *options)
    assert (local.code, remote.code, remote.result["images"]) == (0, 0, 12)
    copy = fetched(s3, "whole", tmp_path / "copy")
    assert rows_without(copy, "uri") == rows_without(tmp_path / "run", "uri")
    assert [row["uri"] for row in table_rows(copy, "images")] == [
        f"{images}/{row['image_id']}" for row in table_rows(copy, "images")
    ]
    again = label(images, s3.address("whole"), "--labels", "folder", "--class-names", _names(tmp_path), *options)
    assert (again.code, again.result["boxes"]) == (0, remote.result["boxes"])
    commands = [local, remote, again]
    for words in (("verify",), ("status",), ("show", "--random"), ("show", "rings/00.png")):
        commands.append(Command(words[0], s3.address("whole"), *words[1:], *options))
        assert commands[-1].code == 0, commands[-1].err
    drawn = Command("show", tmp_path / "run", "rings/00.png", "--to", tmp_path / "local.png")
    shown = read_object(s3.address("whole/show/rings%2F00.png.png"), s3.options)
    assert s3.address("whole/show/rings%2F00.png.png") in commands[-1].out
    np.testing.assert_array_equal(
        cv2.imdecode(np.frombuffer(shown, np.uint8), -1), cv2.imread(str(tmp_path / "local.png"), -1)
    )
    assert drawn.code == 0
    other = label(images, s3.address("whole"), "--labels", "folder", "--threshold", 0.3, *options)
    assert other.code in (2, 4)
    replaced = label(images, s3.address("whole"), "--limit", 5, "--overwrite", *options)
    assert (replaced.code, replaced.result["images"]) == (0, 5)
    assert Command("verify", s3.address("whole"), *options).code == 0
    history = read_log(RunDir(s3.address("whole"), s3.options))
    assert history  # that of the run that was replaced is gone
    assert [(session.status, session.images) for session in history.sessions] == [("done", 5)]
    shown = history.sessions[0].command_line
    assert shown
    assert shown[-len(s3.words) - 1 :] == ("--storage-options", *(f"{w.partition('=')[0]}=..." for w in s3.words))
    texts = [command.out + command.err for command in [*commands, other, replaced]]
    texts += [path.read_bytes().decode("latin-1") for path in copy.rglob("*") if path.is_file()]
    texts += [path.read_bytes().decode("latin-1") for path in s3.folder.glob("whole/**/*") if path.is_file()]
    assert not [text for text in texts if SECRET in text or KEY in text]


def _names(folder: Path) -> Path:
    path = folder / "classes.txt"
    path.write_text("discs\nrings\n")
    return path


def test_a_killed_run_goes_on_and_repeats_no_committed_shard(s3: Store, pictures: Path) -> None:
    images, out = s3.put(pictures, "pictures"), s3.address("killed")
    s3.proxy.heal()
    held = s3.proxy.fault("hold", "PUT.*images/shard-0000001", 1)
    environment = {  # as pyarrow's users have it
        **{"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"},
        **{"AWS_ENDPOINT_URL": f"http://{s3.proxy.address}", "AWS_EC2_METADATA_DISABLED": "true"},
    }
    words = ["label", "--images", images, "--out", out, *map(str, FLAGS)]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert held.reached.wait(120)
        at_work = Command("status", out, "--json", env=environment).document
        assert (at_work["last_session"]["state"], at_work["images"]) == ("still at work", 4)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    s3.proxy.heal()
    options = ["--storage-options", *s3.words]
    half = Command("status", out, env=environment)
    assert (half.code, half.result["status"], half.result["images"]) == (0, "incomplete", 4)
    watch = Watch(RunDir(out, s3.options))
    assert watch.look().census.totals.images == 4
    s3.proxy.requests.clear()
    assert watch.look().census.totals.images == 4
    assert sorted(request.split()[0] for request in s3.proxy.requests) == ["GET", "GET", "HEAD"]  # listings, run.json
    assert not [request for request in s3.proxy.requests if request.startswith("GET") and "list-type" not in request]
    assert Command("verify", out, *options).code == 3
    done = label(images, out, *options)
    assert (done.code, done.result["images"], done.result["ok"]) == (0, 12, 12)
    assert "1 of 3 shards committed" in done.err
    uploaded = [request for request in s3.proxy.requests if request.startswith("PUT") and "/shard-" in request]
    assert len(uploaded) == 6
    assert not [request for request in uploaded if "shard-0000000" in request]
    assert Command("verify", out, *options).code == 0


def test_a_profile_says_who_and_where(s3: Store, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile ours]\nregion = us-east-1\n")
    keys = f"[ours]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    (tmp_path / "credentials").write_text(keys)
    environment = {
        **{"AWS_PROFILE": "ours", "AWS_CONFIG_FILE": str(tmp_path / "config")},
        **{"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_EC2_METADATA_DISABLED": "true"},
        "AWS_ENDPOINT_URL_S3": f"http://{s3.proxy.address}",
    }
    status = Command("status", s3.address("no-run"), env=environment)
    assert (status.code, "holds no run.json" in status.err) == (5, True)
    assert Command("status", s3.address("no-run"), env={**environment, "AWS_PROFILE": "other"}).code == 5


def test_a_manifest_on_s3_names_what_is_there_and_what_is_not(s3: Store, pictures: Path, tmp_path: Path) -> None:
    s3.put(pictures, "set/pictures")
    rows = {
        "a": "pictures/discs/01.png",
        "b": s3.address("set/pictures/rings/02.png"),
        "c": "pictures/none.png",
        "d": s3.address("set/x/../pictures/rings/02.png"),
        "e": str(pictures / "rings" / "02.png"),
    }
    (tmp_path / "table").mkdir()
    pq.write_table(pa.table({"image_id": list(rows), "uri": list(rows.values())}), tmp_path / "table" / "all.parquet")
    s3.put(tmp_path / "table", "set")
    options = ["--storage-options", *s3.words]
    done = label(s3.address("set/all.parquet"), tmp_path / "run", "--max-error-rate", 0.5, *options)
    assert done.code == 0, done.err
    images = table_rows(tmp_path / "run", "images")
    assert [row["status"] for row in images] == ["ok", "ok", "missing", "unreadable", "ok"]
    assert images[0]["uri"] == s3.address("set/pictures/discs/01.png")
    assert images[1]["top_scores"] == images[4]["top_scores"]
    assert SECRET not in (tmp_path / "run" / "run.json").read_text()
    gone = label(s3.address("set/none.parquet"), tmp_path / "other", *options)
    assert (gone.code, f"there is no {s3.address('set/none.parquet')}; check --images" in gone.result["error"]) == (
        5,
        True,
    )


def test_faults_on_the_way_change_nothing_but_404_is_a_row_and_403_ends_the_run(
    s3: Store, pictures: Path, tmp_path: Path
) -> None:
    options = ["--storage-options", *s3.words]
    images = s3.put(pictures, "pictures")
    s3.proxy.heal()
    faults = [
        s3.proxy.fault("503", "GET.*rings/00", 4),
        s3.proxy.fault("cut", "GET.*discs/01", 4),
        s3.proxy.fault("short", "GET.*rings/02", 2),
        s3.proxy.fault("404", "GET.*discs/03", 1),
        s3.proxy.fault("429", "PUT.*faulty/boxes/shard-0000001", 2),
        s3.proxy.fault("half-sent", "PUT.*faulty/images/shard-0000001", 4),
    ]
    done = label(images, s3.address("faulty"), "--max-error-rate", 0.1, *options)
    assert (done.code, done.result["ok"]) == (0, 11), done.err
    assert [fault.done for fault in faults] == [fault.times for fault in faults]
    clean = label(pictures, tmp_path / "clean")
    assert clean.code == 0
    copy = fetched(s3, "faulty", tmp_path / "copy")
    broken, whole = (
        {row["image_id"]: (row["status"], row["top_scores"]) for row in table_rows(out, "images")}
        for out in (copy, tmp_path / "clean")
    )
    assert broken.pop("discs/03.png") == ("missing", [])
    whole.pop("discs/03.png")
    assert broken == whole
    s3.proxy.heal()
    s3.proxy.fault("403", "GET.*rings/06", 1000)
    refused = label(images, s3.address("refused"), *options)
    assert (refused.code, refused.result["status"]) == (5, "storage")
    assert f"{images}/rings/06.png is refused: " in refused.result["error"]
    assert "ACCESS_DENIED" in refused.result["error"]
    s3.proxy.heal()
    assert label(images, s3.address("refused"), *options).code == 0


def test_a_run_on_google_cloud_storage_is_a_local_run(gcs: Store, pictures: Path, tmp_path: Path) -> None:
    options = ["--storage-options", *gcs.words]
    images = gcs.put(pictures, "pictures")
    remote = label(images, gcs.address("whole"), *options)
    assert (remote.code, remote.result["images"]) == (0, 12), remote.err
    remove_object(gcs.address("whole/images/shard-0000001.parquet"), gcs.options)
    status = Command("status", gcs.address("whole"), *options)
    assert (status.code, status.result["status"], status.result["images"]) == (0, "incomplete", 8)
    assert label(images, gcs.address("whole"), *options).code == 0
    assert Command("verify", gcs.address("whole"), *options).code == 0
    assert Command("show", gcs.address("whole"), "rings/00.png", *options).code == 0
    assert label(pictures, tmp_path / "run").code == 0
    copy = fetched(gcs, "whole", tmp_path / "copy")
    assert rows_without(copy, "uri") == rows_without(tmp_path / "run", "uri")


@pytest.mark.parametrize(
    ("images", "more", "says"),
    [
        ("s3://bucket/x", ["--storage-options", "secretkey=hidden0"], "no key 'secretkey'"),
        ("s3://bucket/x", ["--storage-option", "secret_key=hidden0"], "belongs to --storage-options"),
        ("s3://hidden0:hidden0@bucket/x", [], "expects s3://BUCKET/KEY"),
        ("s3://bucket/x", ["--storage-options", "access_key=hidden0"], "pyarrow cannot use these"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_a_credential(
    tmp_path: Path, images: str, more: list[str], says: str
) -> None:
    refused = label(images, tmp_path / "run", *more)
    assert (refused.code, says in refused.result["error"]) == (2, True), refused.result
    assert "hidden0" not in refused.out + refused.err


def test_a_yaml_file_may_hold_the_options(s3: Store, tmp_path: Path) -> None:
    entries = "".join(f"  {word.replace('=', ': ', 1)}\n" for word in s3.words)
    (tmp_path / "job.yaml").write_text(f"storage_options:\n{entries}")
    status = Command("status", s3.address("no-run"), "--config", tmp_path / "job.yaml")
    assert (status.code, "holds no run.json" in status.err) == (5, True)


def test_an_out_with_a_password_is_not_repeated() -> None:
    refused = Command("status", "s3://user:hidden0@bucket/run")
    assert (refused.code, refused.result["out"]) == (2, "s3://***@bucket/run")
    assert "hidden0" not in refused.out + refused.err
