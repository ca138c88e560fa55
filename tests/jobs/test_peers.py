"""The peers of the benchmark run on eight real photographs, and those that compute the same agree on the boxes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cam_ops.errors import MachineError, StorageError, UsageError
from jobs.peers import PeerConfig, boxes_of, find_files, find_target, largest_box, load
from tests.support.command import ROOT

pytestmark = pytest.mark.slow

NUM_PHOTOS = 8


@pytest.fixture
def eight(data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "eight"
    folder.mkdir()
    for photo in sorted((data / "photos").glob("*/*"))[:NUM_PHOTOS]:
        shutil.copy(photo, folder)
    return folder


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Two threads wait for each other where other processes share the cores."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def peer(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.peers", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("name", "package"), [("blog", "torch"), ("gradcam", "pytorch_grad_cam"), ("torchcam",) * 2])
def test_a_peer_prints_its_speed(name: str, package: str, eight: Path) -> None:
    pytest.importorskip(package)
    finished = peer(name, "resnet18", NUM_PHOTOS, eight)
    assert finished.returncode == 0, finished.stderr
    document = json.loads(finished.stdout)
    assert (document["peer"], document["model"], document["images"]) == (name, "resnet18", NUM_PHOTOS)
    assert document["images_per_s"] == pytest.approx(NUM_PHOTOS / document["seconds"], abs=0.01)


@pytest.mark.usefixtures("_one_thread")
def test_the_blogs_loop_and_torchcam_find_the_same_boxes(eight: Path) -> None:
    pytest.importorskip("torchcam")
    found = [
        np.array(list(boxes_of(name, find_target("resnet18"), find_files(eight)))) for name in ("blog", "torchcam")
    ]
    assert found[0].shape == (NUM_PHOTOS, 4)
    np.testing.assert_allclose(found[1], found[0], atol=1)  # pixels of the input: the sums are taken in another order


@pytest.mark.usefixtures("_one_thread")
def test_grad_cam_finds_the_box_of_the_positive_part_of_the_class_activation_map(eight: Path) -> None:
    """Behind an average the gradient is the class's weight / N; the package clamps the sum at 0, then scales it."""
    pytest.importorskip("pytorch_grad_cam")
    found = list(boxes_of("gradcam", find_target("resnet18"), find_files(eight)))
    network = find_target("resnet18").network
    trunk = torch.nn.Sequential(*list(network.children())[:-2])
    expected = []
    for file in find_files(eight):
        with torch.no_grad():
            features_CHW = trunk(load(file)[None])[0].numpy()
            weight_C = network.fc.weight[network(load(file)[None]).argmax()].numpy()
        cam_HW = np.maximum(np.tensordot(weight_C, features_CHW, 1), 0)
        cam_SS = cv2.resize((cam_HW - cam_HW.min()) / (cam_HW.max() - cam_HW.min()), (224, 224))
        expected.append(largest_box(cam_SS - cam_SS.min()))
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=1)


def test_the_largest_region_is_boxed_and_a_flat_map_of_zeros_is_whole() -> None:
    cam_hw = np.zeros((9, 9), np.float32)
    assert largest_box(cam_hw) == (0, 0, 9, 9)
    cam_hw[1, 1], cam_hw[4:6, 3:7], cam_hw[8, 8] = 1, 0.2, 0.19
    assert largest_box(cam_hw) == (3, 4, 7, 6)


def test_the_target_is_the_last_grid_and_the_last_linear_layer() -> None:
    for model, layer, linear in (("resnet18", "layer4", "fc"), ("densenet121", "features", "classifier")):
        target = find_target(model)
        assert (target.layer, target.linear) == (layer, linear)


def test_what_cannot_be_measured_is_said(eight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="expected JPEG files"):
        find_files(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="runs in fp32"):
        PeerConfig(peer="blog", model="resnet18", num_images=8, folder=eight, precision="bf16")
    with pytest.raises(UsageError, match="both"):
        find_target("squeezenet1_0")
    monkeypatch.setitem(sys.modules, "torchcam.methods", None)  # as if it were not installed
    with pytest.raises(MachineError, match=r"pip install -e '\.\[bench\]'"):
        list(boxes_of("torchcam", find_target("resnet18"), find_files(eight)))
