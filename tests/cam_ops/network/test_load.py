"""Weights of every kind: the right ones load and say what they are, hostile ones do not run."""

import hashlib
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from cam_ops.errors import MachineError, UsageError
from cam_ops.network.load import classes_for, load_classifier, model_digest
from cam_ops.network.names import TENSORFLOW_SCALED
from cam_ops.network.zoo import find_architecture
from cam_ops.settings import ModelConfig


@pytest.fixture(scope="module")
def ten_classes() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return torchvision.models.resnet18(weights=None, num_classes=10).state_dict()


def loaded(path: Path, name: str = "resnet18") -> torch.nn.Module:
    return load_classifier(ModelConfig(model=name, weights=str(path))).network


def test_every_form_of_the_same_weights_is_the_same_network(tmp_path: Path, ten_classes: dict) -> None:
    forms = {
        "plain.pth": ten_classes,
        "wrapped.pth": {"epoch": 3, "state_dict": ten_classes},
        "parallel.pth": {"module." + name: tensor for name, tensor in ten_classes.items()},
        "compiled.pth": {"model": {"state_dict": {"_orig_mod.module." + n: t for n, t in ten_classes.items()}}},
    }
    for name, content in forms.items():
        torch.save(content, tmp_path / name)
    safetensors.torch.save_file(ten_classes, tmp_path / "plain.SafeTensors")
    digests = set()
    for name in (*forms, "plain.SafeTensors"):
        classifier = load_classifier(ModelConfig(model="resnet18", weights=str(tmp_path / name)))
        assert classifier.network.fc.out_features == 10
        assert torch.equal(classifier.network.fc.weight, ten_classes["fc.weight"])
        digests.add(classifier.digest)
    assert len(digests) == 1


class Payload:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("payload-ran"),)


def test_a_pickle_with_a_payload_is_refused_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": Payload()}, tmp_path / "torch.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    for name in ("torch.pth", "raw.pth"):
        with pytest.raises(UsageError, match=rf"{name} is not a plain state_dict: loading it would run code"):
            loaded(tmp_path / name)
    assert not (tmp_path / "payload-ran").exists()
    torch.save(nn.Linear(2, 2), tmp_path / "network.pth")
    with pytest.raises(UsageError) as refused:
        loaded(tmp_path / "network.pth")
    assert "would run code that it names, 'torch.nn.modules.linear.Linear'" in str(refused.value)
    assert str(refused.value).isprintable()
    assert "weights_only" not in str(refused.value)


def test_official_inception_weights_from_a_file_get_the_input_scaling_that_they_expect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, digits in TENSORFLOW_SCALED.items():
        assert torchvision.models.get_model_weights(name).DEFAULT.url.endswith(f"-{digits}.pth")
    known = find_architecture("inception_v3")
    torch.save(known.build().state_dict(), tmp_path / "weights.pth")
    assert not loaded(tmp_path / "weights.pth", "inception_v3").transform_input
    digest = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    monkeypatch.setitem(TENSORFLOW_SCALED, "inception_v3", digest[:8])
    assert loaded(tmp_path / "weights.pth", "inception_v3").transform_input


def test_a_module_that_exits_when_it_is_imported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exiting.py").write_text("raise SystemExit(7)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="cannot import the factory: SystemExit: 7"):
        load_classifier(ModelConfig(model="exiting:net", mean=(0, 0, 0), std=(1, 1, 1)))


def test_weights_that_do_not_fit_name_their_keys(tmp_path: Path, ten_classes: dict) -> None:
    changed = dict(ten_classes)
    changed["stem.weight"] = changed.pop("conv1.weight")
    torch.save(changed, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"missing conv1\.weight; unexpected stem\.weight"):
        loaded(tmp_path / "a.pth")
    torch.save(ten_classes, tmp_path / "b.pth")
    with pytest.raises(UsageError, match=r"does not fit resnet50: missing .* and \d+ more"):
        loaded(tmp_path / "b.pth", "resnet50")
    meta, imaginary = torch.zeros(64, device="meta"), torch.zeros(64, dtype=torch.cfloat)
    for content, reason in (
        ({1: torch.zeros(1)}, "expected a state_dict"),
        ({**ten_classes, "bn1.bias": meta}, r"of another shape or kind bn1\.bias is no dense tensor"),
        ({**ten_classes, "bn1.bias": imaginary}, r"bn1\.bias is torch\.complex64, expected torch\.float32"),
        ({**ten_classes, "bn1.bias": 3}, r"bn1\.bias is int, expected a tensor"),
    ):
        torch.save(content, tmp_path / "e.pth")
        with pytest.raises(UsageError, match=reason):
            loaded(tmp_path / "e.pth")
    (tmp_path / "c.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(UsageError, match="cannot read the weights file"):
        loaded(tmp_path / "c.safetensors")
    with pytest.raises(MachineError, match="there is none"):
        loaded(tmp_path / "d.pth")


def test_random_weights_are_seeded_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    first = load_classifier(ModelConfig(model="resnet18", weights="random"))
    assert torch.equal(torch.rand(1), before)
    assert load_classifier(ModelConfig(model="resnet18", weights="random")).digest == first.digest


def test_preprocessing_comes_from_the_default_weights_and_flags_win() -> None:
    shape = load_classifier(ModelConfig(model="efficientnet_b0", weights="random")).preprocessing
    assert (shape.image_size, shape.interpolation, shape.crop_fraction) == (224, "bicubic", 224 / 256)
    assert shape.mean == (0.485, 0.456, 0.406)
    flags = ModelConfig(model="resnet18", weights="random", image_size=96, mean=(0, 0, 0), std=(1, 1, 1))
    shape = load_classifier(flags).preprocessing
    assert (shape.image_size, shape.mean, shape.std, shape.interpolation) == (96, (0, 0, 0), (1, 1, 1), "bilinear")


def test_the_digest_is_what_design_says() -> None:
    state = {"b": torch.tensor([1, 2], dtype=torch.int64), "a": torch.tensor(0.5)}
    by_hand = hashlib.sha256(b"path")
    by_hand.update(b"\0a\0torch.float32\0()\0" + bytes.fromhex("0000003f"))
    by_hand.update(b"\0b\0torch.int64\0(2,)\0" + bytes([1] + [0] * 7 + [2] + [0] * 7))
    assert model_digest("path", state) == by_hand.hexdigest()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (ModelConfig(model="resnet19"), "no torchvision classifier"),
        (ModelConfig(model="nets/birds.PTH"), "is a file of weights; .* --model NAME --weights nets/birds.PTH"),
        (ModelConfig(model="timm:resnet18.foo"), "timm has no such network; similar names are .*resnet18"),
        (ModelConfig(model="tests.support.networks:two_channels"), "needs --mean and --std"),
        (ModelConfig(model="tests.nowhere:net", mean=(0, 0, 0), std=(1, 1, 1)), "cannot import"),
        (ModelConfig(model="tests.support.networks:nothing", mean=(0, 0, 0), std=(1, 1, 1)), "cannot import"),
        (ModelConfig(model="pathlib:Path", mean=(0, 0, 0), std=(1, 1, 1)), "to return a plain torch.nn.Module"),
        (ModelConfig(model="os:abort_", mean=(0, 0, 0), std=(1, 1, 1)), "cannot import"),
        (ModelConfig(model="sys:exit", mean=(0, 0, 0), std=(1, 1, 1)), "failed: SystemExit"),
        (ModelConfig(model="torch.nn:Linear", mean=(0, 0, 0), std=(1, 1, 1)), "failed: TypeError"),
        (ModelConfig(model="a:b", weights="x.pth", mean=(0, 0, 0), std=(1, 1, 1)), "--weights does not go with"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(config: ModelConfig, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        load_classifier(config)


def test_a_class_list_of_another_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    config = ModelConfig(model="resnet18", weights="random", class_names=str(tmp_path / "names.txt"))
    with pytest.raises(UsageError, match="has 1000 classes, the class list names 2"):
        classes_for(load_classifier(config), 1000)
