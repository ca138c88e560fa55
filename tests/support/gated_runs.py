"""Runs of `label` that wait at the gate of each node (`tests.support.gated`), and what an undisturbed run writes."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.command import ROOT, Command, result_of
from tests.support.nodes import Cluster

NUM_PICTURES = 16
FLAGS = [
    *("--model", "tests.support.gated:gated", "--mean", "0", "0", "0", "--std", "1", "1", "1", "--image-size", "32"),
    *("--shard-size", "1", "--batch-size", "1", "--precision", "fp32"),
]


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster, the pictures, the gates, and what an undisturbed run writes."""

    cluster: Cluster
    folder: Path
    expected: dict[str, bytes]

    @property
    def gate(self) -> Path:
        return self.folder / "gate"

    def arrived(self, *nodes: str) -> bool:
        return all((self.gate / f"at-{node}").exists() for node in nodes)

    def open(self, node: str, num_pictures: int = NUM_PICTURES) -> None:
        (self.gate / f"go-{node}").write_text(str(num_pictures))

    def words(self, out: Path) -> list[str]:
        return ["label", "--images", str(self.folder / "pictures"), "--out", str(out), *FLAGS]


@contextmanager
def short_folder() -> Iterator[Path]:
    """Make a folder whose path is short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="cr", dir=os.path.realpath(tempfile.gettempdir())))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def running_site(cluster: Cluster) -> Iterator[Site]:
    """Make pictures in the cluster's folder, label them without Ray, and start the cluster's head."""
    folder = cluster.folder
    for name in ("gate", "pictures"):
        (folder / name).mkdir()
    generator = np.random.default_rng(0)
    for i in range(NUM_PICTURES):
        image_HWC = generator.integers(0, 200, (48, 64, 3), np.uint8)
        image_HWC[:8, :8] = 255  # the gate is at pictures that begin in white
        Image.fromarray(image_HWC).save(folder / "pictures" / f"{i:02d}.png")
    done = Command("label", "--images", folder / "pictures", "--out", folder / "inline", *FLAGS, "--executor", "inline")
    assert (done.code, done.result["ok"]) == (0, NUM_PICTURES)
    cluster.env |= {"CAMRAY_TEST_GATE": str(folder / "gate"), "PYTHONPATH": str(ROOT)}
    try:
        cluster.start()
        yield Site(cluster, folder, tables(folder / "inline"))
    finally:
        cluster.close()


def tables(out: Path) -> dict[str, bytes]:
    """Return each file of the tables, by name: equal runs have equal bytes."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("[bhi]*/*")}


def num_committed(out: Path) -> int:
    return len(list(out.glob("images/shard-*.parquet")))


@dataclass(frozen=True, slots=True)
class Driver:
    """A running `label` and its output."""

    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def said(self) -> str:
        return (self.log / "err").read_text()

    def end(self, timeout_s: float = 400) -> tuple[int, dict]:
        code = self.process.wait(timeout_s)
        return code, result_of((self.log / "out").read_text(), self.said())


@contextmanager
def label(site: Site, out: Path, *more: str) -> Iterator[Driver]:
    """Run `label` on the cluster beside this process."""
    log = out.with_suffix(".log")
    log.mkdir()
    command = [sys.executable, "-m", "jobs", *site.words(out), *more, "--ray-address", site.cluster.address]
    with (log / "out").open("wb") as stdout, (log / "err").open("wb") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, env=site.cluster.env, stdout=stdout, stderr=stderr)
    try:
        yield Driver(process, out, log)
    finally:
        process.kill()
        process.wait()
