"""A network of one logit by command: two classes, labelled by their folders, whose maps are each other's negative."""

from pathlib import Path

import numpy as np

from tests.support.command import Command, table_rows

NET = """
import torch
from tests.support.networks import Chain

class One(Chain):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.fc = torch.nn.Linear(8, 1)
        self.eval().requires_grad_(False)

    def forward(self, images):
        return torch.sigmoid(super().forward(images)).squeeze(1)

def net():
    return One(), {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "image_size": 64}
"""


def test_both_classes_of_one_logit_are_labelled_and_mapped(pictures: Path, tmp_path: Path) -> None:
    (pictures / "discs").rename(pictures / "positive")
    (pictures / "rings").rename(pictures / "negative")
    (tmp_path / "one.py").write_text(NET)
    flags = ("--model", f"{tmp_path}/one.py:net", "--executor", "inline", "--precision", "fp32", "--refine", "none")
    out = tmp_path / "run"
    finished = Command("label", "--images", pictures, "--out", out, *flags, "--labels", "folder", "--classes", "topk:2")
    assert finished.code == 0, finished.err
    assert "what goes into its last sigmoid, -z and z of its one logit z" in finished.err
    images = {row["image_id"]: row for row in table_rows(out, "images")}
    assert {(name.split("/")[0], row["label"]) for name, row in images.items()} == {("negative", 0), ("positive", 1)}
    maps: dict[str, dict[int, np.ndarray]] = {}
    for row in table_rows(out, "heatmaps"):
        maps.setdefault(row["image_id"], {})[row["class_id"]] = np.array(row["heatmap"], np.float32)
    assert len(maps) == 12
    for name, by_class in maps.items():
        np.testing.assert_allclose(by_class[0], -by_class[1], rtol=1e-5, atol=1e-7)
        assert abs(sum(images[name]["top_scores"]) - 1) < 1e-5


def test_a_class_list_names_the_two_classes_and_softmax_is_refused(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(NET)
    (tmp_path / "names.txt").write_text("rings\ndiscs\n")
    flags = ("--model", f"{tmp_path}/one.py:net", "--executor", "inline", "--labels", "folder")
    named = ("--class-names", tmp_path / "names.txt", "--classes", "label")
    finished = Command("label", "--images", pictures, "--out", tmp_path / "run", *flags, *named)
    assert finished.code == 0, finished.err
    refused = Command("label", "--images", pictures, "--out", tmp_path / "other", *flags, *named, "--scores", "softmax")
    assert refused.code == 2
    assert "the network has a single logit, whose score is its sigmoid; leave --scores out" in refused.err
