"""Listings that are not to be had: a bucket that is not there, credentials that nobody gives, an interrupt."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from cam_ops.errors import StorageError
from cluster.storage.listings import list_objects, walk_objects
from cluster.storage.options import parse_options
from tests.support.stores import Store


@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_a_bucket_that_is_not_there_is_refused_and_not_empty(kind: str, request: pytest.FixtureRequest) -> None:
    store: Store = request.getfixturevalue(kind)
    address = store.address("a").replace("bucket", "no-such-bucket")
    with pytest.raises(StorageError, match=r"is refused: .*bucket"):
        list(list_objects(address, store.options))
    assert list(list_objects(store.address("nothing-there"), store.options)) == []


@contextmanager
def silent_server(on_connection: str) -> Iterator[tuple[int, list[int]]]:
    """Take connections, and end each at once (`end`), or answer none and interrupt this process (`interrupt`)."""
    server, seen, held = socket.create_server(("127.0.0.1", 0)), list[int](), list[socket.socket]()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            seen.append(len(seen))
            if on_connection == "end":
                connection.close()
                continue
            held.append(connection)
            os.kill(os.getpid(), signal.SIGINT)

    thread = Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1], seen
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
        for connection in held:
            connection.close()


def test_credentials_whose_service_is_not_reached_are_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    options = parse_options(["endpoint_override=http://127.0.0.1:9", "region=us-east-1", "retry_time_limit=0.5"])
    with silent_server("end") as (port, seen):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/keys")
        with pytest.raises(StorageError, match=r"cannot reach s3://bucket/a .*attempts"):
            list(list_objects("s3://bucket/a", options))
        assert len(seen) > 3  # botocore itself asks three times


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_amid_a_listing_waits_for_no_answer() -> None:
    with silent_server("interrupt") as (port, _):
        words = [f"endpoint_override=http://127.0.0.1:{port}", "access_key=a", "secret_key=b", "region=us-east-1"]
        options = parse_options([*words, "retry_time_limit=0.1"])
        start_s = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            next(walk_objects("s3://bucket/a", options, lambda part: ()))
        assert time.monotonic() - start_s < 10  # a request is waited for 15 s
