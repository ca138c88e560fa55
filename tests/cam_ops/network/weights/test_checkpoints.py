"""Files of weights as trainers leave them are read, whatever stands beside the weights; no code of a file runs."""

import argparse
import collections
import datetime
import enum
import functools
import os
import pickle
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from cam_ops.errors import UsageError
from cam_ops.network.load import load_classifier
from cam_ops.network.weights.checkpoints import Skipped, read_checkpoint, state_dicts_in
from cam_ops.network.weights.matching import Expected, match
from cam_ops.settings import ModelConfig

WEIGHT = torch.arange(6.0).reshape(2, 3)


class Stage(enum.Enum):
    FIT = 1


class Settings(dict[str, Any]):
    """As the dictionaries whose entries are attributes."""


class Logger:
    def __init__(self) -> None:
        self.folder, self.log = Path("logs"), self.write

    def write(self) -> None: ...


BESIDE: dict[str, Any] = {
    "Namespace": argparse.Namespace(lr=0.1, data=Path("/data"), dtype=np.dtype("f4")),
    "numpy scalar": np.float64(0.5),
    "numpy array": np.arange(4),
    "numpy generator": np.random.RandomState(0),
    "path": Path("a/b"),
    "dtype": torch.float16,
    "ordered": collections.OrderedDict(a=1),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "own dictionary": Settings(lr=0.1),
    "deque": collections.deque([1, 2]),
    "enum": Stage.FIT,
    "key": {Stage.FIT: 1},
    "set": {Stage.FIT},
    "partial": functools.partial(print, 1),
    "time": datetime.datetime(2026, 11, 29),
    "object": Logger(),
    "network": nn.Linear(2, 2),
    "optimizer": torch.optim.Adam([nn.Parameter(torch.ones(2))]),
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("is_zip", [True, False])
def test_what_stands_beside_weights_is_skipped(tmp_path: Path, kind: str, is_zip: bool) -> None:
    if kind == "network" and not is_zip:
        pytest.skip("the old format keeps the source of networks, and is refused")
    content = {"hyper_parameters": BESIDE[kind], "state_dict": {"fc.weight": WEIGHT}, "again": BESIDE[kind]}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=is_zip)
    found = state_dicts_in(read_checkpoint(tmp_path / "a.ckpt"))
    assert list(found) == ["state_dict"]
    assert torch.equal(found["state_dict"]["fc.weight"], WEIGHT)


class Calling:
    """Calls a function with arguments where it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def test_code_beside_weights_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    payloads = [
        Calling(exec, "open('ran', 'w')"),
        Calling(eval, "open('ran', 'w')"),
        Calling(open, "ran", "w"),
        Calling(functools.partial(open, "ran", "w")),
        Calling(map, open, ["ran"], ["w"]),
        Calling(warnings.warn, "ran"),
        Calling(torch.load, "ran"),
        Calling(torch.hub.load, "ran", "ran"),
        Calling(np.save, "ran", 1),
        Calling(Path("ran").touch),
        Calling(getattr, Path, "touch"),
    ]
    for payload in payloads:
        for is_zip in (True, False):
            content = {"payload": payload, "state_dict": {"fc.weight": WEIGHT}}
            torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
            if said := refusal_of(tmp_path / "a.pth"):
                assert "would run code that it names" in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
    torch.save({"a": Calling(os.system, "touch ran"), "w": WEIGHT}, tmp_path / "a.pth")
    assert "would run code that it names, 'posix.system'" in refusal_of(tmp_path / "a.pth")
    torch.save(Calling(os.system, "touch ran"), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert "would run code that it names, 'posix.system'" in refusal_of(tmp_path / "a.pth")


def refusal_of(path: Path, place: str = "state_dict") -> str:
    """Return why a file cannot be read, "" where its weights are those that were saved."""
    try:
        found = state_dicts_in(read_checkpoint(path))
    except UsageError as refused:
        return str(refused)
    assert torch.equal(found[place]["fc.weight"], WEIGHT)
    return ""


def test_a_stand_in_keeps_nothing_and_no_class_is_looked_up(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"\x80\x02cno_such_module\nno_such_class\n)\x81}X\x01\x00\x00\x00aK\x01sb.")
    torch.save({"x": 1}, tmp_path / "b.pth")
    with zipfile.ZipFile(tmp_path / "b.pth") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        for name, content in members.items():
            is_pickle = name.endswith("data.pkl")
            archive.writestr(name, (tmp_path / "a.pth").read_bytes() if is_pickle else content)
    found = read_checkpoint(tmp_path / "c.pth")
    assert isinstance(found, Skipped)
    assert (found.named, vars(found)) == ("no_such_module.no_such_class", {})


def test_a_state_dict_that_holds_itself_ends(tmp_path: Path) -> None:
    own: dict[str, Any] = {"w": WEIGHT}
    own["state_dict"] = own
    torch.save(own, tmp_path / "a.pth")
    assert list(state_dicts_in(read_checkpoint(tmp_path / "a.pth"))) == [""]


def test_a_head_that_repeats_one_row_takes_no_more_memory_than_its_file(tmp_path: Path) -> None:
    huge = torch.zeros(1).as_strided((2**40, 1024), (0, 0))
    state = torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict()
    torch.save({**state, "fc.weight": huge, "fc.bias": huge[:, 0]}, tmp_path / "a.pth")
    with pytest.raises(
        UsageError, match=r"fc\.weight is \(1099511627776, 1024\) by repeating what the file holds once"
    ):
        load_classifier(ModelConfig(model="shufflenet_v2_x0_5", weights=str(tmp_path / "a.pth")))


def test_a_packed_file_that_unpacks_to_far_more_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"w": WEIGHT}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as saved,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for info in saved.infolist():
            packed.writestr(info.filename, saved.read(info) + bytes(10**7 if info.filename.endswith("data.pkl") else 0))
    with pytest.raises(UsageError, match=r"b\.pth unpacks to 100\d{5} bytes, which is not how torch saves weights"):
        read_checkpoint(tmp_path / "b.pth")


def test_a_number_that_was_changed_behind_its_checksum_is_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": WEIGHT}, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content.replace(np.float32(3).tobytes(), np.float32(4).tobytes()))
    assert torch.load(tmp_path / "a.pth")["fc.weight"].tolist() == [[0, 1, 2], [4, 4, 5]]  # torch does not look
    assert "it is damaged, or of another kind (Bad CRC-32 for file 'a/data/0')" in refusal_of(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 46827520\n")
    assert f"{name} is a pointer of Git LFS to the file itself; fetch that by `git lfs pull`" in refusal_of(
        tmp_path / name
    )


def test_a_file_that_was_saved_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"fc.weight": WEIGHT}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert refusal_of(tmp_path / "a.pth", "") == ""


def _damaged(content: bytes, rng: random.Random) -> bytes:
    """Return a file with bytes changed, cut out, doubled or put in."""
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(len(damaged) + 1)
        length = rng.choice([1, 1, 4, 100])
        kind = rng.randrange(5)
        if kind == 0:
            damaged[place : place + length] = rng.randbytes(length)
        elif kind == 1:
            del damaged[place : place + length]
        elif kind == 2:
            damaged[place:place] = damaged[place : place + length]
        elif kind == 3:
            damaged[place:place] = rng.randbytes(length)
        else:
            del damaged[place:]
    return bytes(damaged)


class Small(nn.Module):
    """A network of which all names stand in the first bytes of a file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)


def _small_files(folder: Path, state: dict[str, torch.Tensor]) -> list[bytes]:
    contents: list[Any] = [
        state,
        {
            "state_dict": {"model." + name: tensor for name, tensor in state.items()},
            "hyper_parameters": BESIDE["object"],
        },
    ]
    for content in contents:
        torch.save(content, folder / f"{len(list(folder.iterdir()))}.pth")
        torch.save(content, folder / f"{len(list(folder.iterdir()))}.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, folder / "a.safetensors")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_damaged_files_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    like = Small().state_dict()
    files, rng, refused = _small_files(tmp_path / "whole", like), random.Random(19), 0
    expected = Expected(name="small", state=like, num_classes=2, positions=None, cure="", rewritten=None)
    for number in range(400):
        kind = number % len(files)
        path = tmp_path / ("a.safetensors" if kind == len(files) - 1 else "a.pth")
        head = 700 if number % 2 else None  # where the names are; the weights lie behind
        content = files[kind]
        path.write_bytes(content if number < len(files) else _damaged(content[:head], rng) + content[head or 10**9 :])
        said = _said_of(path, expected)
        assert not said or number >= len(files), said
        assert said.isprintable(), said
        assert len(said) < 2500
        refused += bool(said)
    assert 200 < refused < 400


def _said_of(path: Path, expected: Expected) -> str:
    """Return why weights do not fit, "" where they do."""
    try:
        fit, _ = match(read_checkpoint(path), expected, path, None)
    except UsageError as error:
        return str(error)
    assert fit.state.keys() == expected.state.keys()
    if path.read_bytes()[:2] == b"PK":  # it has checksums
        assert all(torch.equal(fit.state[name], tensor) for name, tensor in expected.state.items())
    return ""


def test_a_pickle_of_another_protocol_is_refused_in_a_sentence(tmp_path: Path) -> None:
    torch.save({"w": WEIGHT}, tmp_path / "a.pth", pickle_protocol=4)
    with pytest.raises(UsageError, match=r"a\.pth is no file of weights that torch can read safely; save it with"):
        read_checkpoint(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"w": 1}, protocol=4))
    with pytest.raises(UsageError, match="torch can read safely"):
        read_checkpoint(tmp_path / "b.pth")
