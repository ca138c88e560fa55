"""Nodes of a Ray cluster on this machine, each as `ray start` makes it, and what `ray job` says of its jobs."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

RAY = str(shutil.which("ray", path=str(Path(sys.executable).parent)))
ANY_PORT = ("--min-worker-port=0", "--max-worker-port=0")
TOKEN = "0123456789abcdef0123456789abcdef"


_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on, and none twice: what it is for may not listen yet."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def wait_until(fact: Callable[[], object], deadline_s: float = 240) -> None:
    """Return when the fact holds; fail where it does not within the deadline."""
    end_s = time.monotonic() + deadline_s
    while not fact():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.02)


class Node:
    """`ray start --block` and what it started: a node with a name, and with its own CPUs."""

    def __init__(self, env: dict[str, str], log: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        """Start it; `prefix` is a command that runs it, such as `unshare`."""
        command = [*prefix, RAY, "start", "--block", "--disable-usage-stats", *ANY_PORT, *arguments]
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, f"--dashboard-agent-listen-port={free_port()}"],
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return when the node is up."""
        wait_until(lambda: self.process.poll() is not None or "Ray runtime started" in self.log.read_text())
        assert self.process.poll() is None, self.log.read_text()

    def kill(self) -> None:
        """End every process of the node at once, as a power cut does."""
        if self.process.poll() is not None:
            return
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.suspend()  # so that none sees another end
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait()
        psutil.wait_procs(family[1:])


class Cluster:
    """A head with a dashboard, by default without CPUs, that asks for a token as `ray start` has it; nodes by name."""

    def __init__(
        self, folder: Path, prefix: tuple[str, ...] = (), head_cpus: int = 0, host: str = "", **env: str
    ) -> None:
        """Name what `start` starts; `prefix` is a command that runs all nodes but the head; `host` the head's address.

        The folder needs a short path, as Ray's sockets are in it.
        """
        self.folder, self.prefix, port, dashboard = folder, prefix, free_port(), free_port()
        (folder / "token").write_text(TOKEN)
        self.env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # jobs run the head's `python`
            "RAY_AUTH_MODE": "token",
            "RAY_memory_monitor_refresh_ms": "0",  # what else uses this machine's memory kills no replica here
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_metrics_report_interval_ms": "1000",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            **env,
        }
        self.address = f"{host or '127.0.0.1'}:{port}"
        self.nodes: dict[str, Node] = {}
        where = (f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}")
        own = (f"--node-ip-address={host}",) if host else ()
        self.head_arguments = ("--head", f"--num-cpus={head_cpus}", f"--temp-dir={folder}", *where, *own)

    def start(self) -> None:
        """Start the head."""
        self._start("head", *self.head_arguments)
        self.nodes["head"].wait()

    def add(self, name: str, *, plain: bool = False) -> None:
        """Add a node with one CPU; a plain one without the prefix."""
        own = f"--temp-dir={self.folder / name}"  # nodes that share it delete each other's working directories
        self._start(name, f"--address={self.address}", "--num-cpus=1", own, prefix=() if plain else self.prefix)
        self.nodes[name].wait()

    def have(self, *names: str) -> None:
        """See to it that there are these nodes beside the head, and no others."""
        for name in self.nodes.keys() - {"head", *names}:
            self.kill(name)
        for name in names:
            if name not in self.nodes:
                self.add(name)

    def _start(self, name: str, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        env = {**self.env, "CAMRAY_TEST_NODE": name}
        store = f"--object-store-memory={100 * 2**20}"
        self.nodes[name] = Node(env, self.folder / f"{name}.log", store, *arguments, prefix=prefix)

    def kill(self, name: str) -> None:
        """End a node as a power cut does."""
        self.nodes.pop(name).kill()

    def close(self) -> None:
        """End what is left."""
        for name in list(self.nodes):
            self.kill(name)
