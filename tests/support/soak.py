"""Kill actors, nodes and drivers of real runs in turn, at random moments, and compare what they leave with what an
undisturbed run does: `python -m tests.support.soak --seconds 600 --seed 0`, or `make soak`.

A run is one manifest of thousands of images on a cluster of two nodes, driven to its end whatever is killed meanwhile.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from itertools import count, cycle
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from tests.support.command import ROOT, Command
from tests.support.nodes import Cluster

NUM_PICTURES, NUM_IMAGES = 40, 4000
FLAGS = [
    *(
        "--model",
        "tests.support.networks:two_channels",
        "--mean",
        "0",
        "0",
        "0",
        "--std",
        "1",
        "1",
        "1",
        "--image-size",
        "32",
    ),
    *("--shard-size", "20", "--batch-size", "10", "--precision", "fp32", "--compile", "never", "--shard-timeout", "20"),
]
FAULTS = ("actor", "driver", "node", "hang", "stop")
PAUSE_S = (1.0, 6.0)


def tables(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("[bhi]*/*"))}


def write_manifest(folder: Path, num_images: int) -> Path:
    """Write pictures, a broken one among them, and a manifest that names each of them many times."""
    generator = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for i in range(NUM_PICTURES):
        path = folder / "pictures" / f"{i:02d}.png"
        Image.fromarray(generator.integers(0, 255, (96, 128, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    rows = [f"{folder}/pictures/{i % NUM_PICTURES:02d}.png,image-{i:05d}" for i in range(num_images)]
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(["uri,image_id", *rows, ""]))
    return manifest


class Soak:
    """The cluster, the random moments, and the counts."""

    def __init__(self, folder: Path, seed: int, num_images: int) -> None:
        self.folder, self.random, self.num_images = folder, random.Random(seed), num_images
        self.manifest = write_manifest(folder, num_images)
        self.counts: Counter[str] = Counter()
        self.faults, self.names = cycle(FAULTS), (f"n{number}" for number in count())
        self.due = next(self.faults)
        undisturbed = folder / "undisturbed"
        done = Command("label", *self.words(undisturbed), "--executor", "inline")
        assert (done.code, done.result["images"]) == (3, num_images), done.err
        self.expected = tables(undisturbed)
        self.cluster = Cluster(folder, PYTHONPATH=str(ROOT))

    def words(self, out: Path) -> list[str]:
        return ["--images", str(self.manifest), "--out", str(out), *FLAGS]

    def run(self, seconds: float) -> None:
        """Do runs until the time is over; the last one is driven to its end without further faults."""
        self.cluster.start()
        self.cluster.have(next(self.names), next(self.names))
        end_s = time.monotonic() + seconds
        try:
            for number in count():
                out = self.folder / f"run-{number}"
                self.drive(out, end_s)
                self.judge(out)
                shutil.rmtree(out)
                if time.monotonic() > end_s:
                    return
        finally:
            self.cluster.close()

    def drive(self, out: Path, end_s: float) -> None:
        """Type the command again and again until it ends by itself."""
        while True:
            with (self.folder / "driver.log").open("ab") as log:
                command = [
                    sys.executable,
                    "-m",
                    "jobs",
                    "label",
                    *self.words(out),
                    "--ray-address",
                    self.cluster.address,
                ]
                driver = subprocess.Popen(command, cwd=ROOT, env=self.cluster.env, stdout=log, stderr=log)
            self.counts["commands"] += 1
            self.disturb(driver, end_s)
            code = driver.wait(600)
            if code == 3:  # more bad images than 2 %: done
                return
            assert code in (-signal.SIGKILL, 130), (code, (self.folder / "driver.log").read_text()[-5000:])

    def disturb(self, driver: subprocess.Popen, end_s: float) -> None:
        while time.monotonic() < end_s:
            with suppress(subprocess.TimeoutExpired):
                driver.wait(self.random.uniform(*PAUSE_S))
                return
            fault = self.due
            if fault == "stop" and not catches_sigterm(driver.pid):
                continue  # Python is still starting
            if fault in ("driver", "stop"):
                driver.send_signal(signal.SIGKILL if fault == "driver" else signal.SIGTERM)
            elif not self.harm(fault):
                continue  # there is no actor yet
            self.counts[fault] += 1
            self.due = next(self.faults)
            if fault in ("driver", "stop"):
                return

    def harm(self, fault: str) -> bool:
        """Kill or stop an actor, or kill a node and add another; return whether there was any."""
        if fault == "node":
            self.cluster.kill(self.random.choice([name for name in self.cluster.nodes if name != "head"]))
            self.cluster.add(next(self.names))
            return True
        actors = [actor for actor in self.actors() if actor.status() != psutil.STATUS_STOPPED]
        for actor in self.random.sample(actors, min(1, len(actors))):
            with suppress(psutil.NoSuchProcess):
                actor.send_signal(signal.SIGSTOP if fault == "hang" else signal.SIGKILL)
                return True
        return False

    def actors(self) -> list[psutil.Process]:
        found = []
        for name, node in self.cluster.nodes.items():
            if name != "head":
                for process in psutil.Process(node.process.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        found += [process] if process.cmdline()[:1] and "ray::_Actor" in process.cmdline()[0] else []
        return found

    def judge(self, out: Path) -> None:
        """Count the images that are lost, there twice, or other than in the undisturbed run."""
        found = tables(out)
        verdict = Command("verify", out)
        self.counts["runs"] += 1
        self.counts["images"] += verdict.result["images"]
        self.counts["lost"] += self.num_images - verdict.result["images"]
        self.counts["tables that differ"] += sum(found.get(name) != self.expected[name] for name in self.expected)
        self.counts["foreign files"] += len(found.keys() - self.expected.keys())
        self.counts["not whole"] += verdict.code != 0


def catches_sigterm(pid: int) -> bool:
    caught = re.search(r"^SigCgt:\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert caught
    return bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def soak(seconds: float, seed: int, num_images: int = NUM_IMAGES) -> Counter[str]:
    """Soak for so long, and then to the end of the run at hand; return the counts."""
    folder = Path(tempfile.mkdtemp(prefix="cr", dir=os.path.realpath(tempfile.gettempdir())))  # sockets need it short
    try:
        soaking = Soak(folder, seed, num_images)
        soaking.run(seconds)
        return soaking.counts
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    counts = soak(asked.seconds, asked.seed)
    print(", ".join(f"{counts[name]} {name}" for name in ("runs", "images", "commands", *FAULTS)))
    bad = {name: counts[name] for name in ("lost", "tables that differ", "foreign files", "not whole")}
    print(", ".join(f"{number} {name}" for name, number in bad.items()))
    sys.exit(any(bad.values()))
