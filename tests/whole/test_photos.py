"""The main job on 250 real photographs with a real classifier: Ray, kills, replicas, orientation, `ray job submit`."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional

from jobs.demo_model import efficientnet_lite0
from tests.support.command import LITE0, ROOT, Command, result_of, table_rows
from tests.support.nodes import RAY, Cluster, free_port

pytestmark = pytest.mark.ray  # runs of all photographs that the tests share

NUM_PHOTOS, NUM_TRUNCATED = 250, 5
NUM_IMAGES = NUM_PHOTOS + NUM_TRUNCATED
SHARD = 16


def flags(data: Path) -> list[str]:
    names = ["--class-names", str(data / "imagenet_classes.csv")]
    alike = ["--precision", "fp32", "--compile", "never", "--batch-size", str(SHARD), "--shard-size", str(SHARD)]
    return [*LITE0, "--labels", "folder", *names, "--keep-cam", *alike]  # a run of some is the beginning of that of all


@pytest.fixture(scope="module")
def photos(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every second photo, with five more that end too early."""
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted((data / "photos").glob("*/*"))[::2]:
        target = folder / path.relative_to(data / "photos")
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(path.resolve())
    for i, path in enumerate(sorted(folder.glob("*/*"))[:NUM_TRUNCATED]):
        content = path.read_bytes()
        (path.parent / f"truncated-{i}.JPEG").write_bytes(content[: len(content) * (i + 1) // 7])
    return folder


@pytest.fixture(scope="module")
def labelled(data: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over all of them, on two Ray actors of its own."""
    out = tmp_path_factory.mktemp("run") / "out"
    done = Command("label", "--images", photos, "--out", out, *flags(data), "--replicas", 2, process=True)
    assert (done.code, done.result["images"], done.result["errors"]) == (0, NUM_IMAGES, NUM_TRUNCATED), done.err
    assert "started a Ray of its own on this machine" in done.err
    assert "device: cpu, because there are 0 GPU(s)" in done.err or torch.cuda.is_available()
    return out


def test_every_photo_has_its_row_and_the_truncated_are_said_to_be(labelled: Path) -> None:
    images = table_rows(labelled, "images")
    assert len(images) == len({image["image_id"] for image in images}) == NUM_IMAGES
    bad = {image["image_id"].split("/")[1]: image["status"] for image in images if image["status"] != "ok"}
    assert bad == {f"truncated-{i}.JPEG": "truncated" for i in range(NUM_TRUNCATED)}
    assert Command("verify", labelled).code == 0


def test_the_classifier_is_right_on_at_least_four_fifths(labelled: Path) -> None:
    images = [image for image in table_rows(labelled, "images") if image["status"] == "ok"]
    right = sum(image["top_classes"][0] == image["label"] for image in images)
    assert right >= 0.8 * len(images)
    assert all(len(image["top_scores"]) == 5 for image in images)


def test_every_map_adds_up_to_its_logit(labelled: Path) -> None:
    residuals = [heatmap["residual"] for heatmap in table_rows(labelled, "heatmaps")]
    assert len(residuals) == NUM_PHOTOS
    assert max(residuals) < 1e-3


def test_twenty_photos_agree_with_an_independent_computation(labelled: Path, photos: Path) -> None:
    network = efficientnet_lite0().eval()
    heatmaps = table_rows(labelled, "heatmaps")[::13]
    boxes = {box["image_id"]: box for box in table_rows(labelled, "boxes")}
    assert len(heatmaps) == 20
    for heatmap in heatmaps:
        pixels = cv2.imread(str(photos / heatmap["image_id"]))[..., ::-1]
        image = functional.resize(functional.to_image(pixels.copy()), [224, 224], antialias=True)
        with torch.no_grad():
            features = network.extract_features((image[None].float() - 127) / 128)
        weight = network._fc.weight[heatmap["class_id"]]
        cam = (weight[:, None, None] * features[0]).sum(0).detach().numpy()
        np.testing.assert_allclose(np.array(heatmap["cam"]).reshape(7, 7), cam, atol=2e-4)
        refined = np.array(heatmap["heatmap"], np.float64).reshape(28, 28)
        large = np.maximum(cv2.resize(refined, (224, 224), interpolation=cv2.INTER_CUBIC), 0)
        mask = (large >= 0.2 * large.max()).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        x, y, width, height, _ = stats[1 + stats[1:, 4].argmax()]
        scale_x, scale_y = pixels.shape[1] / 224, pixels.shape[0] / 224
        expected = [x * scale_x, y * scale_y, (x + width) * scale_x, (y + height) * scale_y]
        found = [boxes[heatmap["image_id"]][name] for name in ("x0", "y0", "x1", "y1")]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_duckdb_and_pandas_read_the_tables(labelled: Path) -> None:
    query = f"SELECT count(*) FROM '{labelled}/boxes/*.parquet' JOIN '{labelled}/images/*.parquet' USING (image_id)"
    assert duckdb.sql(query).fetchall() == [(NUM_PHOTOS,)]
    assert len(pd.read_parquet(labelled / "images")) == NUM_IMAGES


def contents(out: Path, num_shards: int | None = None) -> dict[str, list]:
    """The rows of each table file, or of those of the first shards, without the metadata."""
    tables = [sorted((out / table).iterdir())[:num_shards] for table in ("images", "boxes", "heatmaps")]
    files = itertools.chain.from_iterable(tables)
    return {f"{path.parent.name}/{path.name}": pq.read_table(path).to_pylist() for path in files}


def test_inline_one_replica_and_two_give_the_very_same_tables(
    data: Path, photos: Path, labelled: Path, tmp_path: Path
) -> None:
    common = ["label", "--images", photos, *flags(data), "--limit", 4 * SHARD, "--max-error-rate", 1]
    assert Command(*common, "--executor", "inline", "--out", tmp_path / "inline").code == 0
    assert Command(*common, "--replicas", 1, "--out", tmp_path / "one", process=True).code == 0
    expected = contents(tmp_path / "inline")
    assert len(expected) == 3 * 4
    assert contents(tmp_path / "one") == expected
    assert contents(labelled, 4) == expected  # by two


def test_more_replicas_than_the_machine_has_are_refused(data: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    failed = Command("label", "--images", photos, *flags(data), "--replicas", 999, "--out", out, process=True)
    assert failed.code == 6
    assert f"use --replicas {os.cpu_count()}" in failed.result["error"]


def shards_in(out: Path) -> list[Path]:
    return sorted((out / "images").glob("shard-*.parquet"))


def wait_for_shards(out: Path, number: int) -> None:
    deadline_s = time.monotonic() + 280
    while len(shards_in(out)) < number:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


NUM_DISTURBED = 7  # shards of a run that is disturbed, the first ones of the undisturbed run


def start_label(data: Path, photos: Path, out: Path) -> subprocess.Popen:
    some = ["--limit", str(NUM_DISTURBED * SHARD), "--max-error-rate", "1"]
    command = [sys.executable, "-m", "jobs", "label", "--images", str(photos), "--out", str(out), *flags(data), *some]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_driver_loses_nothing(data: Path, photos: Path, labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    driver = start_label(data, photos, out)
    wait_for_shards(out, 2)
    driver.kill()
    driver.communicate()
    assert driver.returncode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in shards_in(out)}
    assert 2 <= len(before) < NUM_DISTURBED
    again = start_label(data, photos, out)
    result = result_of(again.communicate(timeout=900)[0])
    assert (again.returncode, result["images"]) == (0, NUM_DISTURBED * SHARD)
    untouched = [path for path, mtime in before.items() if path.stat().st_mtime_ns == mtime]
    assert len(untouched) >= len(before) - 1  # a shard may land while the dead driver's actors end
    assert Command("verify", out).code == 0
    assert contents(out) == contents(labelled, NUM_DISTURBED)


def replica_of(driver_pid: int) -> int:
    """Return the process of a replica among the driver's descendants."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    processes = [line.split(None, 2) for line in listed.splitlines()]
    family = {driver_pid}
    while grown := {int(pid) for pid, parent, _ in processes if int(parent) in family} - family:
        family |= grown
    return next(int(pid) for pid, _, words in processes if int(pid) in family and words.startswith("ray::_Actor"))


def test_a_killed_actor_is_replaced(data: Path, photos: Path, labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    driver = start_label(data, photos, out)
    wait_for_shards(out, 2)
    os.kill(replica_of(driver.pid), signal.SIGKILL)
    stdout, stderr = driver.communicate(timeout=900)
    result = result_of(stdout)
    assert stderr.count("a replica died") == 1
    assert (driver.returncode, result["images"]) == (0, NUM_DISTURBED * SHARD)
    assert contents(out) == contents(labelled, NUM_DISTURBED)


def test_the_same_scene_in_all_orientations_has_the_same_boxes(data: Path, tmp_path: Path) -> None:
    source = sorted((data / "photos").glob("*/*"))[7]
    with Image.open(source) as opened:
        upright = opened.convert("RGB")
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transposition that the orientation undoes
    (tmp_path / "turned").mkdir()
    for orientation, turn in undo.items():
        turned = upright if turn is None else upright.transpose(Image.Transpose(turn))
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned.save(tmp_path / "turned" / f"{orientation}.png", exif=exif)
        with Image.open(tmp_path / "turned" / f"{orientation}.png") as reopened:
            np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(reopened)), np.asarray(upright))
    out = tmp_path / "out"
    assert Command("label", "--images", tmp_path / "turned", "--out", out, *LITE0, "--executor", "inline").code == 0
    boxes = [[box[name] for name in ("x0", "y0", "x1", "y1")] for box in table_rows(out, "boxes")]
    assert len(boxes) == 8
    assert all(box == boxes[0] for box in boxes)
    assert {(i["width"], i["height"]) for i in table_rows(out, "images")} == {upright.size}


def submit(env: dict[str, str], *arguments: object) -> tuple[int, str]:
    command = [RAY, "job", "submit", "--working-dir", ".", "--", "python", "-m", "jobs", *map(str, arguments)]
    finished = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    return finished.returncode, finished.stdout


def result_in(log: str) -> dict:
    return result_of(next(line for line in reversed(log.splitlines()) if line.startswith("CAMRAY_RESULT")))


def test_ray_job_submit_joins_that_cluster_and_keeps_its_exit_codes(data: Path, photos: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="cr", dir=os.path.realpath(tempfile.gettempdir())))  # sockets need it short
    cluster = Cluster(folder, head_cpus=2)
    try:
        cluster.start()
        common = ["label", "--images", photos, *flags(data), "--limit", 2 * SHARD, "--max-error-rate", 1]
        code, log = submit(cluster.env, *common, "--out", folder / "out")
        assert code == 0, log
        assert "joined the Ray cluster" in log
        assert result_in(log)["exit_code"] == 0
        assert Command("verify", folder / "out").code == 0
        code, log = submit(cluster.env, *common, "--out", folder / "out", "--threshold", 0.5)
        assert (code, result_in(log)["exit_code"]) == (1, 4)
        code, log = submit(cluster.env, *common, "--out", "relative")
        assert (code, result_in(log)["exit_code"]) == (1, 2)
        joined = Command(*common, "--out", folder / "two", "--ray-address", cluster.address, env=cluster.env)
        assert joined.code == 0
        assert f"joined the Ray cluster at {cluster.address}" in joined.err
    finally:
        cluster.close()
        shutil.rmtree(folder)


def test_a_cluster_that_is_not_there_is_exit_6(data: Path, photos: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    out = tmp_path / "out"
    failed = Command("label", "--images", photos, *flags(data), "--out", out, env={"RAY_ADDRESS": address})
    assert failed.code == 6
    assert f"cannot join the Ray cluster at {address}" in failed.result["error"]
