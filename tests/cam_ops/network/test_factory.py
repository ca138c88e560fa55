"""A user's own network: by package, by file; alone, or with what it says of its input."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from cam_ops.errors import CamrayError, MachineError, UsageError
from cam_ops.explain.mapper import Mapper
from cam_ops.network.load import Classifier, classes_for, load_classifier
from cam_ops.network.names import absolute_factory
from cam_ops.settings import ExplainConfig, ModelConfig, Preprocessing, RefineConfig
from tests.support.networks import chain

BIRDS = """
from dataclasses import dataclass
from layers import scale
from tests.support.networks import TwoChannels, two_channels

@dataclass
class Settings:
    scale: float = scale

def net():
    network = two_channels()
    network.fc.weight.data *= Settings().scale
    return network

def with_input():
    return net(), {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "image_size": 96}

there = net()
number = 3
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", [*sys.path])  # a process has one model; this one has many
    sys.modules.pop("layers", None)
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "birds.py").write_text(BIRDS)
    (tmp_path / "nets" / "layers.py").write_text("scale = 3\n")
    yield tmp_path / "nets"
    sys.modules.pop("layers", None)


def load(model: object, **flags: Any) -> Classifier:
    return load_classifier(ModelConfig(model=str(model), **{"mean": (0, 0, 0), "std": (1, 1, 1), **flags}))


def test_a_file_is_found_by_its_path_with_its_siblings_and_named_by_itself(
    nets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(nets.parent)
    (nets.parent / "elsewhere").mkdir()
    found = [load(f"{nets}/birds.py:net"), load("nets/birds.py:net"), load("elsewhere/../nets/birds.py:net")]
    for classifier in found:
        assert classifier.network.fc.weight.tolist() == [[3, 0], [6, -3]]
        assert classifier.name == "birds.py:net"
        assert classifier.digest == found[0].digest
    moved = nets.rename(nets.parent / "moved")
    assert load(moved / "birds.py:net").digest == found[0].digest
    assert load(moved / "birds.py:there").digest != found[0].digest  # another name, as of packages


def test_a_file_may_be_called_as_a_library_is_and_two_files_alike(nets: Path) -> None:
    for folder, scale in ((nets, 2), (nets.parent, 5)):
        code = f"from tests.support.networks import two_channels\nnet = two_channels()\nnet.fc.weight.data *= {scale}\n"
        (folder / "torchvision.py").write_text(code)
    assert load(nets / "torchvision.py:net").network.fc.weight[0, 0] == 2
    assert load(nets.parent / "torchvision.py:net").network.fc.weight[0, 0] == 5
    import torchvision as still

    assert still is torchvision


def test_a_network_that_stands_in_the_file_is_copied(nets: Path) -> None:
    first = load(nets / "birds.py:there").network
    first.fc.weight.data.zero_()
    assert load(nets / "birds.py:there").network.fc.weight[0, 0] == 3


WRAPPED = """
import torch
from torch import nn
from tests.support.networks import Chain, chain

def parallel():
    return nn.DataParallel(chain())

def compiled():
    return torch.compile(nn.DataParallel(torch.compile(chain())))

def parts():
    network = chain()
    network.a, network.fc = torch.compile(network.a), torch.compile(network.fc)
    return network

def in_place():
    network = chain()
    network.compile()
    network.b.compile()
    return network

class Calls(Chain):
    def __init__(self):
        super().__init__()
        self.squeezed = torch.compile(lambda features: features.relu())

    def stage(self, images):
        return super().stage(images) if images.requires_grad else self.squeezed(super().stage(images))

def function():
    return Calls()

class Delegates(nn.Module):
    # normalises by itself, and passes on all names to what it wraps

    def __init__(self):
        super().__init__()
        self.model = torch.compile(chain())

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.model, name)

    def forward(self, images):
        return 3 * self.model(images)

def delegates():
    return Delegates()

def deep():
    network = nn.Identity()
    for _ in range(200):
        network = nn.Sequential(network)
    return nn.Sequential(network, chain())

class Silent(Chain):
    def train(self, mode=True):
        super().train(mode)

def silent():
    network = chain()
    network.__class__ = Silent
    return network

def half():
    return chain().half()

def exported():
    shapes = ({0: torch.export.Dim("batch")},)
    return torch.export.export(chain(), (torch.rand(2, 3, 32, 32),), dynamic_shapes=shapes).module()

def traced():
    return torch.jit.trace(chain(), torch.rand(2, 3, 32, 32))
"""


def test_a_wrapper_of_the_user_s_own_stays_and_depth_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "wrapped.py").write_text(WRAPPED)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for name, times in (("delegates", 3), ("deep", 1)):
        network = load(tmp_path / f"wrapped.py:{name}", image_size=64).network
        torch.testing.assert_close(network(images), times * chain()(images))


@pytest.mark.parametrize("name", ["parallel", "compiled", "parts", "in_place", "function", "silent"])
def test_wrappers_are_taken_off_wherever_they_are(tmp_path: Path, name: str) -> None:
    (tmp_path / "wrapped.py").write_text(WRAPPED)
    network = load(tmp_path / f"wrapped.py:{name}", image_size=64).network
    assert [child for child, _ in network.named_children()][:5] == ["a", "b", "c", "d", "fc"]
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(images), chain()(images))
    mapper = Mapper(network, ExplainConfig(), 64, refine=RefineConfig(refine="affinity"))
    assert (mapper.head.kind, mapper.refinement.layers) == ("affine", ("c", "b"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize")
def test_what_a_module_keeps_beside_its_tensors_is_no_weight(tmp_path: Path) -> None:
    (tmp_path / "extra.py").write_text(EXTRA)
    digests = {load(tmp_path / f"extra.py:{name}", image_size=32).digest for name in ("one", "other")}
    assert len(digests) == 2  # by their names alone
    with pytest.raises(UsageError, match=r"keeps fc\._packed_params\.\w+ as \w+, and not as a tensor, as quantised"):
        load(tmp_path / "extra.py:quantised")


EXTRA = """
import torch
from tests.support.networks import TwoChannels

class Extra(TwoChannels):
    def get_extra_state(self):
        return {"epoch": 3}

    def set_extra_state(self, state):
        pass

def one():
    return Extra()

def other():
    return Extra()

def quantised():
    return torch.ao.quantization.quantize_dynamic(TwoChannels(), {torch.nn.Linear})
"""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("exported", "expected .* to return a network in Python, got an exported program"),
        ("traced", "to return a plain torch.nn.Module, got TopLevelTracedModule"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_graphs_without_modules_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "wrapped.py").write_text(WRAPPED)
    with pytest.raises(UsageError, match=reason):
        load(tmp_path / f"wrapped.py:{name}")


SAYS = """
import numpy as np
import timm.data
import torch
import torchvision
from tests.support.networks import TwoChannels

def net():
    return {returned}
"""
TIMMS = "timm.data.resolve_data_config({}, pretrained_cfg={'input_size': (3, 288, 288), 'crop_pct': 0.95})"
TORCHVISIONS = "torchvision.models.EfficientNet_B4_Weights.DEFAULT.transforms()"
ARRAYS = "'mean': np.array([0.1, 0.2, 0.3]), 'std': torch.tensor([0.5, 0.5, 0.5])"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def returning(folder: Path, returned: str) -> str:
    """Write a factory that returns what an expression says; return its --model."""
    (folder / "says.py").write_text(SAYS.replace("{returned}", returned))
    return f"{folder}/says.py:net"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "{'mean': (0.1, 0.2, 0.3), 'std': (0.4, 0.5, 0.6)}",
            ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 224, "bilinear", 0.875),
        ),
        (
            "{" + ARRAYS + ", 'image_size': (96, 96), 'interpolation': 'bicubic', 'crop_fraction': 1}",
            ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), 96, "bicubic", 1.0),
        ),
        ("{" + ARRAYS + ", 'image_size': (96, 128)}", ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), (96, 128), "bilinear", 0.875)),
        (TIMMS, (*IMAGENET, 288, "bicubic", 0.95)),
        (TORCHVISIONS, (*IMAGENET, 380, "bicubic", 380 / 384)),
    ],
)
def test_what_a_factory_says_of_its_input_is_taken_and_flags_win(tmp_path: Path, said: str, expected: tuple) -> None:
    model = returning(tmp_path, f"TwoChannels(), {said}")
    mean, std, side, interpolation, crop_fraction = expected
    assert load_classifier(ModelConfig(model=model)).preprocessing == Preprocessing(
        image_size=side,
        mean=pytest.approx(mean),
        std=pytest.approx(std),
        interpolation=interpolation,
        crop_fraction=crop_fraction,
        resize="warp",
        decode="full",
    )
    shape = load_classifier(ModelConfig(model=model, mean=(0, 0, 0), image_size=64)).preprocessing
    assert (shape.mean, shape.std, shape.image_size) == ((0, 0, 0), pytest.approx(std), 64)
    assert shape.interpolation == interpolation


@pytest.mark.parametrize(
    "said",
    [
        "{'channels': 'gray', 'mean': (0.5,), 'std': [0.25]}",
        "{'channels': 1, 'mean': (0.5,), 'std': [0.25]}",
        "{'channels': 'gray', 'mean': 0.5, 'std': 0.25}",
        "{'input_size': (1, 28, 28), 'mean': np.float32(0.5), 'std': torch.tensor(0.25)}",
        "{'mean': np.array([0.5]), 'std': torch.tensor([0.25])}",
        "{'input_size': (1, 28, 28), 'mean': (0.5,), 'std': (0.25,)}",
    ],
)
def test_a_factory_says_gray_by_name_by_one_number_each_or_before_a_size(tmp_path: Path, said: str) -> None:
    model = returning(tmp_path, f"torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1)), {said}")
    shape = load_classifier(ModelConfig(model=model)).preprocessing
    assert (shape.mean, shape.std) == ((0.5,), (0.25,))
    assert load_classifier(ModelConfig(model=model, mean=(0.125,))).preprocessing.mean == (0.125,)
    with pytest.raises(UsageError, match=r"expected 1 number\(s\) for --mean, as the network's input is gray, got 3"):
        load_classifier(ModelConfig(model=model, mean=(0, 0, 0)))
    with pytest.raises(UsageError, match=r"expected 3 number\(s\) for --std, as the network's input is rgb, got 1"):
        load_classifier(ModelConfig(model=model, channels="rgb", mean=(0, 0, 0)))


def test_gray_is_no_guess_of_one_number_and_no_network_by_name(tmp_path: Path) -> None:
    model = returning(tmp_path, "torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1))")
    with pytest.raises(UsageError, match="as the network's input is rgb, got 1; give --channels gray with one number"):
        load_classifier(ModelConfig(model=model, mean=(0.5,), std=(0.5,)))
    with pytest.raises(UsageError, match="needs --mean and --std, one number each for gray"):
        load_classifier(ModelConfig(model=model, channels="gray"))
    shape = load_classifier(ModelConfig(model=model, channels="gray", mean=(0.5,), std=(0.5,))).preprocessing
    assert shape.mean == (0.5,)
    (tmp_path / "bare").mkdir()
    network = "torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1))"
    bare = returning(tmp_path / "bare", f"{network}, {{'mean': 0.5, 'std': 0.25}}")
    with pytest.raises(UsageError, match=r"says mean 0.5 of its input; expected three numbers .* or \(0.5,\) for gray"):
        load_classifier(ModelConfig(model=bare))  # of each of three, or of one
    shape = load_classifier(ModelConfig(model=bare, channels="gray")).preprocessing
    assert (shape.mean, shape.std) == ((0.5,), (0.25,))
    with pytest.raises(UsageError, match="--channels gray: resnet18 takes RGB"):
        load_classifier(ModelConfig(model="resnet18", weights="random", channels="gray"))


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("None", "to return a plain torch.nn.Module, got NoneType"),
        ("{'mean': (0, 0, 0)}", "got dict"),
        ("()", "returns 0 things"),
        ("1, 2, 3", "returns 3 things; expected the network, or it and a mapping with mean, std"),
        ("{'mean': (0, 0, 0), 'std': (1, 1, 1)}, TwoChannels()", "got dict"),
        ("TwoChannels", "got type"),
        ("torch.nn.LazyLinear(3)", "has lazy parameters"),
        ("torch.nn.Linear(3, 2, device='meta')", r"has no numbers in weight \(2 such in all\), which is on the device"),
        (
            "torch.nn.ParameterList([torch.eye(3).to_sparse()])",
            r"keeps 0 as a sparse tensor \(1 such in all\); let it keep that as to_dense",
        ),
        ("type('Odd', (TwoChannels,), {'train': lambda self: self})()", r"fails in its eval\(\): TypeError"),
        (
            "torch.nn.Linear(3, 2, dtype=torch.cfloat)",
            r"has complex numbers in weight \(2 such in all\): a forward pass",
        ),
        ("torch.nn.ParameterList([torch.tensor([1e300, float('inf')]).double()])", "needs --mean"),
        ("torch.nn.ParameterList([torch.tensor([1e300], dtype=torch.double)])", "in 0 that float32 cannot hold"),
        ("1 / 0", "failed: ZeroDivisionError"),
        ("TwoChannels(), 3", "returns int beside the network"),
        ("TwoChannels(), torchvision.transforms.ToTensor()", "returns ToTensor beside the network"),
        ("TwoChannels(), {'means': (0, 0, 0)}", "says means of its input, which means nothing here"),
        ("TwoChannels(), {1: 2}", "says 1 of its input"),
        ("TwoChannels(), {'crop_pct': 0.9, 'crop_fraction': 0.8}", "says one thing of its input by two names"),
        ("TwoChannels(), {'mean': 0.5}", "says mean 0.5 of its input; expected three numbers"),
        ("TwoChannels(), {'mean': (0.5, 0.5)}", r"says mean \(0.5, 0.5\) of its input; expected three numbers"),
        ("TwoChannels(), {'mean': (123.7, 116.3, 103.5)}", "expected three numbers for RGB in 0..1"),
        ("TwoChannels(), {'mean': (float('nan'), 0, 0)}", "says mean"),
        ("TwoChannels(), {'std': (0, 1, 1)}", "expected three numbers above 0"),
        (
            "TwoChannels(), {'mean': (0, 0, 0), 'std': (255, 255, 255)}",
            "expected three numbers above 0 for RGB in 0..1",
        ),
        (
            "TwoChannels(), {'image_size': (96, 4)}",
            r"says image_size \(96, 4\) .* a side, or height and width, of 8 to",
        ),
        ("TwoChannels(), {'image_size': True}", "says image_size True"),
        ("TwoChannels(), {'image_size': 4}", "says image_size 4"),
        ("TwoChannels(), {'image_size': 'large'}", "says image_size large"),
        ("TwoChannels(), {'channels': 4}", "by channels that its network takes 4 channels; expected 3, which is rgb"),
        ("TwoChannels(), {'channels': 'L'}", "by channels that its network takes L channels; expected 3"),
        ("TwoChannels(), {'input_size': (4, 96, 96)}", "by input_size that its network takes 4 channels"),
        (
            "TwoChannels(), {'channels': 'gray', 'mean': (0, 0, 0)}",
            "says two things of channels: mean rgb, channels gray",
        ),
        ("TwoChannels(), {'mean': (0, 0, 0), 'std': (1,)}", "says two things of channels: mean rgb, std gray"),
        ("TwoChannels(), {'image_size': float('inf')}", "says image_size inf"),
        ("TwoChannels(), {'interpolation': 'lanczos'}", "expected bilinear or bicubic"),
        ("TwoChannels(), {'crop_pct': 1.2}", "expected a number above 0, at most 1"),
        ("TwoChannels(), {}", "needs --mean and --std"),
        ("TwoChannels(), None", "needs --mean and --std"),
        ("TwoChannels(), {'mean': (0, 0, 0)}", "needs --mean and --std"),
    ],
)
def test_what_means_nothing_is_refused_in_a_sentence(tmp_path: Path, returned: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        load_classifier(ModelConfig(model=returning(tmp_path, returned)))


def test_whole_numbers_of_a_network_stay_whole(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(
        "import torch\n"
        "from tests.support.networks import TwoChannels\n"
        "def net():\n"
        "    network = TwoChannels().double()\n"
        "    network.register_buffer('large', torch.tensor([2**40 + 1]))\n"
        "    network.register_buffer('mask', torch.tensor([True]))\n"
        "    return network\n"
    )
    network = load(f"{tmp_path}/counting.py:net").network
    assert network.fc.weight.dtype == torch.float32
    assert network.large.tolist() == [2**40 + 1]
    assert network.mask.dtype == torch.bool


@pytest.mark.parametrize(
    ("model", "kind", "reason"),
    [
        ("birds.py", UsageError, "names no function; give birds.py:FUNCTION"),
        ("nowhere/birds.py:net", MachineError, "expected the factory's file at .*/nowhere/birds.py, there is none"),
        (".py:net", MachineError, "there is none"),
        ("birds.py:nte", UsageError, "has no nte; similar names are net"),
        ("birds.py:number", UsageError, "is no function, it is int"),
        ("birds.py:net()", UsageError, "expects package.module:function or FILE.py:function"),
        ("birds.py:", UsageError, "expects package.module:function"),
        (":net", UsageError, "expects package.module:function"),
        ("../nets/birds:net", UsageError, "is no package.module; a file is given as FILE.py:net"),
        ("birds.ipynb:net", UsageError, "cannot import the factory"),
        ("broken.py:net", UsageError, "cannot import the factory: SyntaxError"),
        ("exits.py:net", UsageError, "SystemExit: 3; put what it does as a program, .* below `if __name__"),
        ("of_package.py:net", UsageError, "a module of a package is given as package.module:function"),
        ("birds.py:Settings", UsageError, "to return a plain torch.nn.Module, got Settings"),
    ],
)
def test_a_factory_that_is_none_is_refused_in_a_sentence(
    nets: Path, monkeypatch: pytest.MonkeyPatch, model: str, kind: type[CamrayError], reason: str
) -> None:
    (nets / "broken.py").write_text("def net(:\n")
    (nets / "exits.py").write_text("raise SystemExit(3)\n")
    (nets / "of_package.py").write_text("from .layers import scale\n")
    monkeypatch.chdir(nets)
    with pytest.raises(kind, match=reason):
        load(model)


def test_only_a_file_has_an_absolute_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    names = ["resnet50", "timm:convnext_tiny", "nets.birds:net", "birds.py:net", "../birds.py:net", "~/birds.py:net"]
    assert [absolute_factory(name) for name in names] == [
        *names[:3],
        f"{tmp_path}/birds.py:net",
        f"{tmp_path.parent}/birds.py:net",
        "/home/me/birds.py:net",
    ]


def test_the_demos_network_has_a_name_with_its_preprocessing_and_classes() -> None:
    by_name = load_classifier(ModelConfig(model="efficientnet_lite0"))
    by_factory = load("jobs.demo_model:efficientnet_lite0", mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    assert by_name.preprocessing == by_factory.preprocessing
    assert by_name.digest == by_factory.digest
    assert (by_name.name, by_factory.name) == ("efficientnet_lite0", "jobs.demo_model:efficientnet_lite0")
    assert (classes_for(by_name, 1000).names[104], classes_for(by_factory, 1000).names[104]) == ("wallaby", "104")


def test_weights_of_other_classes_for_the_demos_network(tmp_path: Path) -> None:
    network = load_classifier(ModelConfig(model="efficientnet_lite0", weights="random")).network
    assert network._fc.out_features == 1000
    state = network.state_dict()
    state["_fc.weight"], state["_fc.bias"] = state["_fc.weight"][:7], state["_fc.bias"][:7]
    torch.save(state, tmp_path / "seven.pth")
    seven = load_classifier(ModelConfig(model="efficientnet_lite0", weights=str(tmp_path / "seven.pth")))
    assert seven.network._fc.out_features == 7
    assert classes_for(seven, 7).names[6] == "6"
