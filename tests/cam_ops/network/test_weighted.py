"""Weights as libraries published them, or for inputs of another size: logits are those of the library's network."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import densenet, googlenet, inception_v3
from torchvision.models.vision_transformer import interpolate_embeddings

from cam_ops.errors import UsageError
from cam_ops.network.load import Classifier, load_classifier
from cam_ops.settings import ModelConfig
from tests.support.trained import logits_of, trained

State = dict[str, Tensor]
OLD = re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)")
TINY = "timm:vit_tiny_patch16_224"


def load(name: str, path: Path, state: object, **flags: Any) -> Classifier:
    torch.save(state, path / "a.pth")
    return load_classifier(ModelConfig(model=name, weights=str(path / "a.pth"), **flags))


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(0)
    return trained(torchvision.models.densenet121(weights=None, num_classes=7))


@pytest.fixture(scope="module")
def vision() -> nn.Module:
    """A vision transformer that is small enough to be saved often, trained at 224 px."""
    torch.manual_seed(0)
    return trained(timm.create_model("vit_tiny_patch16_224", num_classes=5))


def old_names(network: nn.Module) -> State:
    return {OLD.sub(r"\1.\2", name): tensor for name, tensor in network.state_dict().items()}


def test_densenets_weights_by_their_old_names_are_read(tmp_path: Path, dense: nn.Module) -> None:
    old = {name: tensor for name, tensor in old_names(dense).items() if not name.endswith("num_batches_tracked")}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old

    class Published:
        def get_state_dict(self, **_: object) -> State:
            return dict(old)

    theirs = torchvision.models.densenet121(weights=None, num_classes=7).eval()
    densenet._load_state_dict(theirs, Published(), progress=False)  # type: ignore[arg-type]
    found = load("densenet121", tmp_path, old).network
    assert torch.equal(logits_of(found), logits_of(theirs))
    assert torch.equal(logits_of(found), logits_of(dense))


def test_default_weights_by_old_names_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    network = trained(torchvision.models.densenet121(weights=None))
    url = torchvision.models.DenseNet121_Weights.DEFAULT.url
    torch.save(old_names(network), tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    found = load_classifier(ModelConfig(model="densenet121", weights="DEFAULT"))
    assert torch.equal(logits_of(found.network), logits_of(network))
    assert found.categories
    assert len(found.categories) == 1000


def test_a_vision_transformer_by_old_names_is_read_by_torchvision_and_by_us_alike(tmp_path: Path) -> None:
    network = torchvision.models.vit_b_32(weights=None, num_classes=3)
    old = {
        re.sub(r"mlp\.([03])\.", lambda found: f"mlp.linear_{1 + int(found[1]) // 3}.", name): tensor
        for name, tensor in network.state_dict().items()
    }
    assert "encoder.layers.encoder_layer_0.mlp.linear_2.weight" in old
    theirs = torchvision.models.vit_b_32(weights=None, num_classes=3).eval()
    theirs.load_state_dict(old)
    found = load("vit_b_32", tmp_path, old).network
    assert torch.equal(logits_of(found, 224), logits_of(theirs, 224))


def test_mnasnets_weights_without_the_version_that_torch_keeps_beside_them_are_read(tmp_path: Path) -> None:
    network = trained(torchvision.models.mnasnet0_5(weights=None, num_classes=3))
    assert torch.equal(logits_of(load("mnasnet0_5", tmp_path, dict(network.state_dict())).network), logits_of(network))


@pytest.mark.parametrize(("name", "build"), [("googlenet", googlenet), ("inception_v3", inception_v3)])
def test_heads_for_training_only_may_be_missing_or_of_other_classes(tmp_path: Path, name: str, build: Any) -> None:
    torch.manual_seed(0)
    network = trained(build(weights=None, num_classes=4, init_weights=False))
    whole = network.state_dict()
    without = {key: tensor for key, tensor in whole.items() if not key.lower().startswith("aux")}
    head = next(key for key in whole if key.lower().startswith("aux") and key.endswith(("fc.weight", "fc2.weight")))
    for form, has_them in ((whole, True), (without, False), ({**whole, head: torch.ones(9, 9)}, False)):
        found = load(name, tmp_path, form, transform_input="no").network
        assert torch.equal(logits_of(found, 96), logits_of(network, 96))
        kept = [key for key in found.state_dict() if key.lower().startswith("aux")]
        assert len(kept) == (len(whole) - len(without) if has_them else 0)
    more = {**torchvision.models.mobilenet_v3_small(weights=None).state_dict(), "aux1.fc.weight": torch.ones(1)}
    assert "left out 1: aux1.fc.weight" in load("mobilenet_v3_small", tmp_path, more).notes[0]


@pytest.mark.parametrize(("name", "build"), [("googlenet", googlenet), ("inception_v3", inception_v3)])
def test_how_the_input_is_scaled_is_as_the_flag_says_and_said_where_nothing_says_it(
    tmp_path: Path, name: str, build: Any
) -> None:
    torch.manual_seed(0)
    network = trained(build(weights=None, num_classes=4, init_weights=False, transform_input=True))
    state = network.state_dict()
    scaled = load(name, tmp_path, state, transform_input="yes")
    assert torch.equal(logits_of(scaled.network, 96), logits_of(network, 96))
    network.transform_input = False
    plain, unsaid = load(name, tmp_path, state, transform_input="no"), load(name, tmp_path, state)
    for classifier in (plain, unsaid):
        assert torch.equal(logits_of(classifier.network, 96), logits_of(network, 96))
    assert not torch.allclose(logits_of(scaled.network, 96), logits_of(network, 96))
    assert (len(scaled.notes), len(plain.notes), len(unsaid.notes)) == (1, 1, 2)
    assert "does not say how its network's input was scaled; taken is --transform-input no" in unsaid.notes[1]
    assert plain.digest == unsaid.digest != scaled.digest  # another flag is another request
    by_hand = hashlib.sha256(f"torchvision.models:{name}:transform_input=True".encode())
    for key in sorted(state):
        by_hand.update(f"\0{key}\0{state[key].dtype}\0{tuple(state[key].shape)}\0".encode())
        by_hand.update(state[key].numpy().tobytes())
    assert scaled.digest == by_hand.hexdigest()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"model": "resnet18", "transform_input": "yes"}, "--transform-input is for googlenet and inception_v3 alone"),
        ({"model": "a:b", "transform_input": "no"}, "--transform-input is for"),
        ({"model": "resnet18", "weights": "random", "checkpoint_key": "ema"}, "--checkpoint-key says where"),
        ({"model": "resnet18", "checkpoint_key": "ema"}, "--checkpoint-key says where"),
        ({"model": "a:b", "checkpoint_key": "ema"}, "--checkpoint-key does not go with --model a:b, which has its own"),
    ],
)
def test_flags_on_weights_that_mean_nothing_are_refused(flags: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        load_classifier(ModelConfig(**flags))


def test_embeddings_of_another_size_in_a_torchvision_file_decide_the_networks_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    large = trained(torchvision.models.vit_b_32(weights=None, num_classes=3, image_size=96))
    found = load("vit_b_32", tmp_path, large.state_dict())
    assert found.preprocessing.image_size == 96
    assert torch.equal(logits_of(found.network, 96), logits_of(large, 96))
    assert found.notes[1] == "weights: position embeddings are for inputs of 96 px, which the network is built for"
    asked = load("vit_b_32", tmp_path, large.state_dict(), image_size=160)
    theirs = torchvision.models.vit_b_32(weights=None, num_classes=3, image_size=160).eval()
    theirs.load_state_dict(interpolate_embeddings(160, 32, dict(large.state_dict())))  # type: ignore[arg-type]
    assert torch.equal(logits_of(asked.network, 160), logits_of(theirs, 160))
    assert "position embeddings for 96 px are resized to 160 px, as --image-size says" in asked.notes[1]
    with pytest.raises(UsageError, match=r"vit_b_32 cannot be built for inputs of 100 px \(Input shape indivisible"):
        load("vit_b_32", tmp_path, large.state_dict(), image_size=100)


def test_default_weights_of_a_vision_transformer_at_another_size_are_resized_as_torchvision_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    network = torchvision.models.vit_b_32(weights=None)
    url = torchvision.models.ViT_B_32_Weights.DEFAULT.url
    torch.save(network.state_dict(), tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    found = load_classifier(ModelConfig(model="vit_b_32", image_size=96))
    theirs = torchvision.models.vit_b_32(weights=None, image_size=96).eval()
    theirs.load_state_dict(interpolate_embeddings(96, 32, network.state_dict()))
    assert torch.equal(logits_of(found.network, 96), logits_of(theirs, 96))
    said = "in a network for inputs of 96 px; what in them depends on 224 px is resized"
    assert found.notes == (f"weights: the default ones, {said}",)


def test_embeddings_of_a_timm_network_are_resized_as_timm_does(tmp_path: Path, vision: nn.Module) -> None:
    state = vision.state_dict()
    found = load(TINY, tmp_path, state)
    assert torch.equal(logits_of(found.network, 224), logits_of(vision, 224))
    smaller = load(TINY, tmp_path, state, image_size=96)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=96).eval()
    theirs.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(dict(state), theirs))
    torch.testing.assert_close(logits_of(smaller.network, 96), logits_of(theirs, 96), rtol=0, atol=1e-6)
    own = load(TINY, tmp_path, theirs.state_dict())
    assert own.preprocessing.image_size == 96
    assert torch.equal(logits_of(own.network, 96), logits_of(theirs, 96))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's own interpolation
def test_other_parts_that_depend_on_the_size_are_resized_as_timm_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = "coatnet_nano_rw_224"
    state = timm.create_model(name, num_classes=3).state_dict()
    theirs = timm.create_model(name, num_classes=3, img_size=192).eval()
    theirs.load_state_dict(timm.models.maxxvit.checkpoint_filter_fn(dict(state), theirs))
    found = load(f"timm:{name}", tmp_path, state, image_size=192)
    assert torch.equal(logits_of(found.network, 192), logits_of(theirs, 192))
    assert ", 9 resized or reshaped by timm: stages.2.blocks.0.attn.rel_pos" in found.notes[0]
    state = timm.create_model("pit_ti_224", num_classes=3).state_dict()
    with pytest.raises(
        UsageError,
        match=r"pos_embed is .* expected .*; is --model the network that was trained, and --image-size its size\?",
    ):
        load("timm:pit_ti_224", tmp_path, state, image_size=256)


@pytest.mark.long
def test_the_largest_transformer_of_torchvision_is_built_for_its_default_weights() -> None:
    found = load_classifier(ModelConfig(model="vit_h_14", weights="random"))
    assert found.preprocessing.image_size == found.network.image_size == 518


def test_a_seeded_network_is_built_at_the_size_that_is_asked_for() -> None:
    found = load_classifier(ModelConfig(model=TINY, weights="random", image_size=96))
    assert found.network.state_dict()["pos_embed"].shape == (1, 37, 192)
    assert logits_of(found.network, 96).isfinite().all()


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "mobilenetv3_small_050.lamb_in1k", "tinynet_e.in1k"])
def test_a_tagged_timm_network_of_other_classes_is_read(tmp_path: Path, name: str) -> None:
    network = trained(timm.create_model(name, num_classes=9))
    found = load(f"timm:{name}", tmp_path, network.state_dict()).network
    assert torch.equal(logits_of(found), logits_of(network))


def test_a_timm_network_whose_default_has_another_number_of_classes_is_read(tmp_path: Path) -> None:
    network = trained(timm.create_model("mixer_b32_224", num_classes=9))
    name = "vit_tiny_patch16_224.augreg_in21k"  # of 21,843 classes
    other = trained(timm.create_model(name, num_classes=9))
    found = load(f"timm:{name}", tmp_path, other.state_dict()).network
    assert torch.equal(logits_of(found, 224), logits_of(other, 224))
    with pytest.raises(UsageError, match="does not fit"):
        load(f"timm:{name}", tmp_path, network.state_dict())


def test_a_timm_network_with_layers_as_wide_as_its_default_has_classes_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = "fastvit_mci0.apple_mclip"  # of 512 classes, as CLIP's embeddings have numbers, and layers of 512 channels
    network = trained(timm.create_model(name, num_classes=9))
    found = load(f"timm:{name}", tmp_path, network.state_dict(), image_size=64).network
    assert torch.equal(logits_of(found), logits_of(network))
    state = network.state_dict()
    head = next(key for key in state if state[key].shape[:1] == (9,))
    with pytest.raises(UsageError, match=r"does not fit.*size mismatch"):
        load(f"timm:{name}", tmp_path, {**state, head: torch.ones(512, *state[head].shape[1:])}, image_size=64)


def test_weights_that_timm_translates_when_it_downloads_them_are_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published: State = {}
    for key, tensor in timm.create_model("convnext_atto", num_classes=6).state_dict().items():
        old = key.replace("stem.", "downsample_layers.0.").replace("head.norm.", "norm.").replace("head.fc.", "head.")
        old = re.sub(r"stages\.(\d)\.downsample\.", lambda found: f"downsample_layers.{found[1]}.", old)
        old = re.sub(r"stages\.(\d)\.blocks\.", r"stages.\1.", old)
        old = old.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        published[old] = tensor
    convnext = timm.create_model("convnext_atto", num_classes=6).eval()
    convnext.load_state_dict(timm.models.convnext.checkpoint_filter_fn(dict(published), convnext))
    found = load("timm:convnext_atto", tmp_path, published).network
    assert torch.equal(logits_of(found), logits_of(convnext))
