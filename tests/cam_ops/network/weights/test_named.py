"""Names of classes beside weights: torchvision's own class_to_idx, and the keys of other trainers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from cam_ops.errors import UsageError
from cam_ops.network.load import Classifier, classes_for, load_classifier
from cam_ops.network.weights.named import names_in
from cam_ops.settings import ModelConfig
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from tests.support.command import Command, table_rows

NAMES = ["bulbul", "kite", "owl"]


@pytest.fixture(scope="module")
def birds() -> Classifier:
    return replace(load_classifier(ModelConfig(model="resnet18", weights="random")), categories=NAMES)


@pytest.mark.parametrize(
    ("beside", "key"),
    [
        ({"class_to_idx": {"owl": 2, "bulbul": 0, "kite": 1}}, "class_to_idx"),
        ({"hyper_parameters": {"idx_to_class": {1: "kite", 0: "bulbul", 2: "owl"}}}, "hyper_parameters.idx_to_class"),
        ({"config": {"id2label": {"2": "owl", "0": "bulbul", "1": "kite"}}}, "config.id2label"),
        ({"meta": {"dataset_meta": {"classes": tuple(NAMES)}}}, "meta.dataset_meta.classes"),
        ({"meta": {"CLASSES": NAMES}}, "meta.CLASSES"),
    ],
)
def test_names_are_taken_by_their_number(beside: dict, key: str) -> None:
    assert names_in({"state_dict": {"fc.weight": torch.zeros(3, 2)}, **beside}, 3) == {key: NAMES}


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"class_to_idx": {"owl": 2, "bulbul": 0, "kite": 3}},
        {"class_to_idx": {"owl": 2, "bulbul": 0}},
        {"classes": ["owl", "owl", "kite"]},
        {"classes": ["owl", "", "kite"]},
        {"classes": [1, 2, 3]},
        {"classes": torch.zeros(3)},
        {"classes": 3, "class_to_idx": None, "idx_to_class": {(): "owl", 1: "kite", 2: "b"}},
        {"class_to_idx": {"owl": [2], "bulbul": {}, "kite": 10**5000}},
        {"class_to_idx": {"owl": True, "bulbul": 0, "kite": 2}},
        {"class_to_idx": [0, 1, 2], "classes": {"owl": 2, "bulbul": 0, "kite": 1}},
        {"classes": ["owl", "kite", "b" * 1001]},
        {"id2label": {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}},
    ],
)
def test_what_names_not_each_class_once_names_none(beside: dict) -> None:
    assert names_in({"state_dict": {}, **beside}, 3) == {}
    assert names_in(["bulbul", "kite", "owl"], 3) == {}


def test_one_output_has_the_names_of_its_two_classes() -> None:
    assert names_in({"class_to_idx": {"tumor": 1, "none": 0}}, 1) == {"class_to_idx": ["none", "tumor"]}
    assert names_in({"class_to_idx": {"tumor": 1, "none": 0}}, 3) == {}
    assert names_in({"class_to_idx": {"tumor": 0, "none": 0}}, 1) == {}


@pytest.mark.parametrize(
    ("names", "suffix", "wrong"),
    [
        ("bulbul\nkite\nowl\n", ".txt", None),
        ("Bulbul\n KITE\nowl\n", ".txt", None),
        ("bulbul\nowl\nkite\n", ".txt", "class 1 is 'owl' there, and 'kite' by the weights of resnet18"),
        ("OWL\nkite\nBulbul\n", ".txt", "class 0 is 'OWL' there, and 'bulbul' by"),
        ("folder,name\nowl,Strix\nkite,Milvus\nbulbul,Ixos\n", ".csv", "class 0 is 'Strix' there, and 'bulbul' by"),
        ("folder,name\nbulbul,Ixos\nkite,Milvus\nowl,Strix\n", ".csv", None),
        ("Strix\nMilvus\nbulbul\n", ".txt", None),  # the others may be other words for the same
        ("Strix\nowl\nkite\n", ".txt", "class 1 is 'owl' there, and 'kite' by"),
    ],
)
def test_a_list_in_another_order_is_refused(
    birds: Classifier, names: str, suffix: str, wrong: str | None, tmp_path: Path
) -> None:
    (tmp_path / f"names{suffix}").write_text(names)
    found = replace(birds, class_names=str(tmp_path / f"names{suffix}"))
    if wrong is None:
        assert len(classes_for(found, 3).names) == 3
    else:
        with pytest.raises(UsageError, match=wrong):
            classes_for(found, 3)


def test_names_that_are_numbers_contradict_no_list(birds: Classifier, tmp_path: Path) -> None:
    """ImageFolder sorts folders 1, 10, 2 as texts; a list of other names says nothing about numbers."""
    (tmp_path / "names.txt").write_text("bulbul\nkite\nowl\n")
    found = replace(birds, categories=["1", "0", "2"], class_names=str(tmp_path / "names.txt"))
    assert classes_for(found, 3).names == tuple(NAMES)


def test_folders_are_labels_by_the_names_that_imagefolder_gave_a_checkpoint(birds: Classifier, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / "birds" / name).mkdir(parents=True)
        Image.new("RGB", (40, 30), "white").save(tmp_path / "birds" / name / "a.jpg")
    state = birds.network.state_dict()
    state = {**state, "fc.weight": state["fc.weight"][:3], "fc.bias": state["fc.bias"][:3]}
    saved = {"model": state, "class_to_idx": ImageFolder(str(tmp_path / "birds")).class_to_idx}
    torch.save(saved, tmp_path / "a.pth")
    torch.save({**saved, "classes": NAMES[::-1]}, tmp_path / "b.pth")
    (tmp_path / "birds" / "kite" / "a.jpg").unlink()  # two folders of three classes
    (tmp_path / "birds" / "kite").rmdir()
    label = ["label", "--images", tmp_path / "birds", "--model", "resnet18", "--image-size", 64, "--executor", "inline"]

    by_one = Command(*label, "--weights", tmp_path / "a.pth", "--labels", "folder", "--out", tmp_path / "one")
    assert by_one.code == 0
    assert f"the classes' names are those of class_to_idx in {tmp_path / 'a.pth'}" in by_one.err
    assert existing_run(RunDir(str(tmp_path / "one"))).class_names == tuple(NAMES)
    labels = {row["image_id"]: row["label"] for row in table_rows(tmp_path / "one", "images")}
    assert labels == {"bulbul/a.jpg": 0, "owl/a.jpg": 2}

    by_two = Command(*label, "--weights", tmp_path / "b.pth", "--out", tmp_path / "two")
    assert by_two.code == 0
    assert "names the classes twice, and not alike (class_to_idx, classes); neither is taken" in by_two.err
    assert existing_run(RunDir(str(tmp_path / "two"))).class_names == ("0", "1", "2")
