"""Snapshots of Hugging Face's hub, against the library's own network and its own preprocessing."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BeitImageProcessor,
    ConvNextImageProcessor,
    EfficientNetImageProcessor,
    LevitImageProcessor,
    MobileNetV2ImageProcessor,
    MobileViTImageProcessor,
    PoolFormerImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from cam_ops.errors import CamrayError, MachineError, UsageError
from cam_ops.explain.mapper import Mapper
from cam_ops.network.load import Classifier, classes_for, load_classifier
from cam_ops.pictures.decode import whole
from cam_ops.pictures.fit import fit
from cam_ops.settings import ExplainConfig, ModelConfig
from tests.support.command import Command

NAMES = {0: "cat", 1: "dog", 2: "kangaroo"}


def resnet() -> ResNetForImageClassification:
    torch.manual_seed(0)
    config = ResNetConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic", embedding_size=8)
    config.id2label, config.label2id = NAMES, {name: number for number, name in NAMES.items()}
    return ResNetForImageClassification(config).eval()


def snapshot(folder: Path, network: Any = None, processor: Any = None) -> Path:
    (network or resnet()).save_pretrained(folder)
    (processor or ConvNextImageProcessor(size={"shortest_edge": 64})).save_pretrained(folder)
    return folder


def load(folder: Path, **flags: Any) -> Classifier:
    return load_classifier(ModelConfig(model=f"hf:{folder}", **flags))


def test_numbers_of_names_that_contradict_names_of_numbers_are_refused(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "cats") / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"label2id": {"dog": 0, "cat": 1, "kangaroo": 2}}))
    with pytest.raises(UsageError, match=r"config.json contradicts itself.*calls class 0 'cat', .* class 1; mend"):
        load(tmp_path / "cats")


def test_logits_names_and_maps_are_those_of_the_network(tmp_path: Path) -> None:
    classifier = load(snapshot(tmp_path / "cats"))
    assert classifier.name == "hf:cats"
    assert classes_for(classifier, 3).names == ("cat", "dog", "kangaroo")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(classifier.network(images), resnet()(images).logits)
    mapper = Mapper(classifier.network, ExplainConfig(), 64)
    assert (mapper.head.kind, mapper.method) == ("affine", "cam")
    pairs = torch.tensor([0, 1]), torch.tensor([2, 1])
    explained = mapper.explain(255 * images, lambda logits: pairs)
    assert explained.residual_P.max() < 1e-5
    assert load(tmp_path / "cats").digest == classifier.digest


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessor(size={"height": 64, "width": 64}),
        ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=1.0, image_mean=[0.4, 0.5, 0.6]),
        BeitImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False),
        EfficientNetImageProcessor(size={"height": 64, "width": 64}, rescale_factor=1 / 127.5, rescale_offset=True),
        ViTImageProcessor(size={"height": 64, "width": 64}, do_normalize=False),
        ViTImageProcessor(
            size={"height": 64, "width": 64}, do_rescale=False, image_mean=[127.0] * 3, image_std=[128.0] * 3
        ),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_the_input_is_what_the_library_makes_of_the_picture(tmp_path: Path, processor: Any) -> None:
    shape = load(snapshot(tmp_path, processor=processor)).preprocessing
    assert shape.image_size == 64
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = processor(pixels, return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(values)[:, None, None] for values in (shape.mean, shape.std))
    torch.testing.assert_close((pixels / 255 - mean) / std, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("processor", "fraction"),
    [
        (ConvNextImageProcessor(size={"shortest_edge": 64}), 64 / 73),
        (ConvNextImageProcessor(size={"shortest_edge": 288}, crop_pct=0.95), 288 / 303),
        (ConvNextImageProcessor(size={"shortest_edge": 384}), 1.0),
        (PoolFormerImageProcessor(), 224 / 248),
        (LevitImageProcessor(), 224 / 256),
        (MobileNetV2ImageProcessor(), 224 / 256),
        (ViTImageProcessor(size={"height": 64, "width": 64}), 1.0),
    ],
    ids=lambda value: str(value)[:12],
)
def test_the_part_that_is_cropped_is_that_which_the_library_crops(
    tmp_path: Path, processor: Any, fraction: float
) -> None:
    shape = load(snapshot(tmp_path, processor=processor), resize="center-crop").preprocessing
    assert shape.crop_fraction == fraction
    assert (shape.mean, shape.std) == (tuple(processor.image_mean), tuple(processor.image_std))
    picture = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    picture = cv2.resize(picture, (512, 512))  # so that half a pixel matters little
    theirs = processor(torch.from_numpy(picture).permute(2, 0, 1), return_tensors="pt")["pixel_values"][0]
    ours_YX3, _ = fit(whole(picture), shape)
    mean, std = (torch.tensor(values)[:, None, None] for values in (shape.mean, shape.std))
    ours = (torch.from_numpy(ours_YX3).permute(2, 0, 1) / 255 - mean) / std
    assert (ours - theirs).abs().mean() < 0.08 * theirs.std()


@pytest.mark.parametrize("do_flip", [True, False])
def test_a_network_that_takes_blue_first_gets_it(tmp_path: Path, do_flip: bool) -> None:
    processor = MobileViTImageProcessor(
        size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}, do_flip_channel_order=do_flip
    )
    classifier = load(snapshot(tmp_path, processor=processor))
    assert any("input: BGR" in note for note in classifier.notes) == do_flip
    colour = torch.tensor([200, 90, 10], dtype=torch.uint8)[:, None, None].expand(3, 72, 72)
    with torch.no_grad():
        expected = resnet()(processor(colour, return_tensors="pt")["pixel_values"]).logits
        found = classifier.network(colour[None, :, :64, :64] / 255)
    torch.testing.assert_close(found, expected)
    assert (classifier.preprocessing.mean, classifier.preprocessing.std) == ((0, 0, 0), (1, 1, 1))
    network = classifier.network
    mapper = Mapper(network, ExplainConfig(), 64)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = resnet().resnet(images.flip(1) if do_flip else images).last_hidden_state
    explained = mapper.explain(255 * images, lambda logits: (torch.tensor([0]), torch.tensor([1])))
    expected_HW = torch.einsum("c,chw->hw", resnet().classifier[1].weight[1], features[0]).detach()
    torch.testing.assert_close(explained.maps_PHW[0], expected_HW, rtol=1e-3, atol=1e-5)


def test_crops_and_resampling_are_those_of_the_processor(tmp_path: Path) -> None:
    processor = ViTImageProcessor(
        size={"shortest_edge": 80}, crop_size={"height": 64, "width": 64}, do_center_crop=True, resample=3
    )
    shape = load(snapshot(tmp_path, processor=processor)).preprocessing
    assert (shape.image_size, shape.crop_fraction, shape.interpolation) == (64, 0.8, "bicubic")
    classifier = load(snapshot(tmp_path, processor=ViTImageProcessor(size={"height": 32, "width": 32}, resample=0)))
    assert classifier.preprocessing.image_size == 32
    assert "resamples by 0, bilinear is taken" in classifier.notes[0]
    assert load(tmp_path, image_size=96).preprocessing.image_size == 96


def test_a_vision_transformer_by_command(tmp_path: Path, pictures: Path) -> None:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, image_size=64, num_labels=2
    )
    snapshot(
        tmp_path / "vit", ViTForImageClassification(config).eval(), ViTImageProcessor(size={"height": 64, "width": 64})
    )
    flags = ("--executor", "inline", "--labels", "none")
    finished = Command(
        "label", "--images", pictures, "--out", tmp_path / "run", "--model", f"hf:{tmp_path}/vit", *flags
    )
    assert finished.code == 0, finished.err
    assert "camray: logits: its output logits; scores by softmax" in finished.err
    assert "maps: legrad" in finished.err


def test_several_labels_one_name_and_pictures_of_any_size(tmp_path: Path) -> None:
    folder = snapshot(tmp_path)
    assert load(folder).scores is None
    edit(folder, "config.json", problem_type="multi_label_classification")
    assert load(folder).scores == "sigmoid"
    one = resnet()
    one.classifier[1] = torch.nn.Linear(16, 1)
    one.config.id2label, one.config.label2id = {0: "tumor"}, {"tumor": 0}
    single = load(snapshot(tmp_path / "one", one))
    assert (classes_for(single, 2).names, single.scores) == (("not tumor", "tumor"), "sigmoid")
    snapshot(tmp_path / "any", processor=ViTImageProcessor(do_resize=False))
    assert load(tmp_path / "any").preprocessing.image_size == 224
    edit(tmp_path / "any", "config.json", image_size=96)
    assert load(tmp_path / "any").preprocessing.image_size == 96


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changes}))


def without_head(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in state.items() if "classifier" not in name}, folder / "model.safetensors")


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_code(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    code = {"AutoModelForImageClassification": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"}
    edit(folder, "config.json", model_type="evil", architectures=["Evil"], auto_map=code)


def base_model(folder: Path) -> None:
    ResNetModel(resnet().config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("harm", "kind", "reason"),
    [
        (lambda f: (f / "config.json").unlink(), MachineError, "expected a folder with config.json"),
        (lambda f: (f / "config.json").write_text("{"), UsageError, "cannot read .*config.json"),
        (lambda f: (f / "config.json").write_text("[]"), UsageError, "expected an object of JSON"),
        (
            lambda f: edit(f, "config.json", model_type="bert"),
            UsageError,
            "no image classifier .* that it knows by itself",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), UsageError, "no image classifier"),
        (pickled, UsageError, r"weights as \*.safetensors .* would have to be unpickled"),
        (with_code, UsageError, "no image classifier .* that it knows by itself"),
        (without_head, UsageError, "lack 2 of the network's, such as classifier.1.bias, which would be random"),
        (base_model, UsageError, "which would be random; is it a classifier"),
        (
            lambda f: (f / "preprocessor_config.json").unlink(),
            UsageError,
            "needs --mean and --std, as there is no preproc",
        ),
        (lambda f: edit(f, "preprocessor_config.json", image_std=[0, 1, 1]), UsageError, "preprocessor_config.json"),
        (lambda f: edit(f, "preprocessor_config.json", image_mean="x"), UsageError, "cannot make an input as"),
        (
            lambda f: edit(f, "preprocessor_config.json", size={"shortest_edge": 3}),
            UsageError,
            "makes pictures of 3x3; give --image-size",
        ),
        (  # five pictures of 1 GB each
            lambda f: edit(f, "preprocessor_config.json", size={"shortest_edge": 9000}),
            UsageError,
            "cannot make an input as .*memory",
        ),
    ],
)
def test_what_is_no_snapshot_of_a_classifier_is_refused_and_no_code_runs(
    tmp_path: Path, harm: Any, kind: type[CamrayError], reason: str
) -> None:
    harm(snapshot(tmp_path / "x"))
    with pytest.raises(kind, match=reason):
        load(tmp_path / "x")
    assert not (tmp_path / "x" / "ran").exists()


def test_flags_that_do_not_go_with_a_snapshot_are_refused(tmp_path: Path) -> None:
    snapshot(tmp_path)
    for flags, reason in (({"weights": "random"}, "--weights does not go with"), ({"channels": "gray"}, "takes RGB")):
        with pytest.raises(UsageError, match=reason):
            load(tmp_path, **flags)
