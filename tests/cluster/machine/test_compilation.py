"""The compiled forward pass: its maps are those of the network itself, and its cache holds what it says."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._inductor import config as inductor

from cam_ops.tables import CORNERS
from tests.support.command import LITE0, ROOT, Command, table_rows
from tests.support.networks import Chain
from tests.support.once import compiler_in

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # torch's compiler warns of its own parts
SMALL = ["--mean", 0.5, 0.4, 0.3, "--std", 0.2, 0.3, 0.25, "--image-size", 64, "--batch-size", 4]
ROUNDED = 2.0**-5  # of refined maps, which are stored with 5 bits behind the point


class Convolution(nn.Module):
    """One strided convolution, an average, a head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.fc = nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.Linear(8, 5)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK: torch.Tensor = self.fc(self.conv(images_BCHW).relu().mean((2, 3)))
        return logits_BK


def one() -> nn.Module:
    """Factory: `--model tests.cluster.machine.test_compilation:one`."""
    return Convolution(1)


def other() -> nn.Module:
    """Factory of the same network with other weights."""
    return Convolution(2)


class OffCentre(nn.Module):
    """A convolution around 256, where bf16 counts in steps of 2, and a batch norm that brings it to 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.Linear(8, 5)
        nn.init.constant_(self.conv.bias, 256.0)
        self.norm.running_mean.fill_(256.0)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK: torch.Tensor = self.fc(self.norm(self.conv(images_BCHW)).relu().mean((2, 3)))
        return logits_BK


def off_centre() -> nn.Module:
    """Factory of a network that bf16 costs much, unless its batch norm is folded first."""
    return OffCentre()


class Trained(nn.Module):
    """Two convolutions with batch norms of many scales, the second one also in use without its batch norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 16, 3, stride=4, bias=False), nn.BatchNorm2d(16)
        self.other, self.other_norm, self.fc = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.Linear(16, 5)
        for norm in (self.norm, self.other_norm):
            for values in (norm.weight, norm.running_var):
                nn.init.uniform_(values, 0.2, 3)
            for values in (norm.bias, norm.running_mean):
                nn.init.uniform_(values, -1, 1)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        features_BCHW = self.other(self.norm(self.conv(images_BCHW)).relu())
        logits_BK: torch.Tensor = self.fc((features_BCHW + self.other_norm(features_BCHW)).relu().mean((2, 3)))
        return logits_BK


def trained() -> nn.Module:
    """Factory of a network with one batch norm that can be folded and one that cannot."""
    return Trained()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache that these tests share: each compilation takes 8 to 30 s."""
    folder, compiler = tmp_path_factory.mktemp("cache"), compiler_in(tmp_path_factory.mktemp("objects"))
    with pytest.MonkeyPatch.context() as patch, inductor.patch({"cpp.cxx": (None, compiler)}):
        patch.setenv("CAMRAY_CACHE", str(folder))
        patch.setenv("CXX", compiler)  # of processes; this one has read it already
        yield folder / "compiled"


def words(images: Path, out: Path, *flags: object) -> list[object]:
    precision = [] if "--precision" in flags else ["--precision", "fp32"]
    return ["label", "--images", images, "--out", out, "--executor", "inline", *precision, *flags]


def small(images: Path, out: Path, model: str, *flags: object) -> Command:
    return Command(*words(images, out, "--model", f"tests.cluster.machine.test_compilation:{model}", *SMALL, *flags))


def libraries(cache: Path) -> dict[str, int]:
    """Return the inode of each compiled network."""
    return {path.name: path.stat().st_ino for path in cache.glob("*.so")}


def assert_same_maps(found: Path, expected: Path, relative: float = 1e-5) -> None:
    pairs = list(zip(table_rows(found, "heatmaps"), table_rows(expected, "heatmaps"), strict=True))
    assert pairs
    for a, b in pairs:
        assert (a["image_id"], a["class_id"]) == (b["image_id"], b["class_id"])
        map_a, map_b = np.array(a["heatmap"]), np.array(b["heatmap"])
        np.testing.assert_allclose(map_a, map_b, rtol=0, atol=relative * np.abs(map_b).max())


@pytest.fixture(scope="module")
def compiled_photos(data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled run of a real classifier on 24 real photos."""
    out = tmp_path_factory.mktemp("photos") / "run"
    done = Command(*words(data / "photos", out, *LITE0, "--limit", 24, "--batch-size", 8, "--compile", "always"))
    assert (done.code, done.result["ok"]) == (0, 24), done.err
    assert done.err.count("compiling the network for 8 pictures of 224x224 pixels") == 1
    return out


def test_a_compiled_run_has_the_maps_and_boxes_of_an_eager_one(
    data: Path, compiled_photos: Path, tmp_path: Path
) -> None:
    eager = tmp_path / "eager"
    flags = [*LITE0, "--limit", 24, "--batch-size", 8, "--compile", "never"]
    assert Command(*words(data / "photos", eager, *flags)).code == 0
    assert_same_maps(compiled_photos, eager, ROUNDED)
    assert [len(row["heatmap"]) for row in table_rows(eager, "heatmaps")] == [28 * 28] * 24
    corners = [[[box[name] for name in CORNERS] for box in table_rows(o, "boxes")] for o in (compiled_photos, eager)]
    assert len(corners[0]) == 24
    assert corners[0] == corners[1]
    assert Command("verify", compiled_photos).code == 0
    requests = [json.loads((out / "run.json").read_text())["request"] for out in (compiled_photos, eager)]
    assert [request["compiled"] for request in requests] == [True, False]


def test_another_process_resumes_with_the_library_of_the_cache_and_not_without_it(
    data: Path, compiled_photos: Path, cache: Path
) -> None:
    before = libraries(cache)
    shard = compiled_photos / "images" / "shard-0000001.parquet"
    content = shard.read_bytes()
    shard.unlink()
    flags = [*LITE0, "--limit", 24, "--batch-size", 8]
    refused = Command(*words(data / "photos", compiled_photos, *flags, "--compile", "never"))
    assert (refused.code, "compiled was True, now False" in refused.result["error"]) == (4, True), refused.result
    resumed = Command(*words(data / "photos", compiled_photos, *flags, "--compile", "auto"), process=True)
    assert (resumed.code, "2 of 3 shards committed" in resumed.err) == (0, True), resumed.err
    assert "compiling" not in resumed.err
    assert libraries(cache) == before
    assert shard.read_bytes() == content


def test_scales_and_mirrored_views_are_compiled_once_a_side(pictures: Path, cache: Path, tmp_path: Path) -> None:
    views = ["--scales", 1, 1.5, "--flip"]
    done = small(pictures, tmp_path / "compiled", "one", *views, "--compile", "always")
    assert (done.code, done.result["ok"]) == (0, 12), done.err
    assert [f"pictures of {side}x{side} pixels" in done.err for side in (64, 96)] == [True, True]
    assert done.err.count("compiling the network") == 2
    assert small(pictures, tmp_path / "eager", "one", *views, "--compile", "never").code == 0
    assert_same_maps(tmp_path / "compiled", tmp_path / "eager")


def test_a_library_of_other_weights_is_noticed_and_made_again(pictures: Path, cache: Path, tmp_path: Path) -> None:
    before = set(libraries(cache))
    assert small(pictures, tmp_path / "one", "one", "--compile", "always").code == 0
    (of_one,) = {path.name for path in cache.glob("*.so")} - before or {newest(cache)}
    before = set(libraries(cache))
    assert small(pictures, tmp_path / "other", "other", "--compile", "always").code == 0
    (of_other,) = set(libraries(cache)) - before
    (cache / of_one).unlink()
    impostor = f"{of_one.partition('-')[0]}-{of_other.partition('-')[2]}"
    shutil.copy(cache / of_other, cache / impostor)
    again = small(pictures, tmp_path / "again", "one", "--compile", "always")
    assert (again.code, again.err.count("compiling the network")) == (0, 1), again.err
    assert table_rows(tmp_path / "again", "heatmaps") == table_rows(tmp_path / "one", "heatmaps")
    assert not (cache / impostor).exists()
    assert small(pictures, tmp_path / "third", "one", "--compile", "always").err.count("compiling the network") == 0


def test_a_compiled_network_nearer_to_fp32_than_the_eager_one_is_accepted_however_far_they_are_apart(
    pictures: Path, cache: Path, tmp_path: Path
) -> None:
    runs = [("exact", "fp32", "never"), ("eager", "bf16", "never"), ("compiled", "bf16", "always")]
    for name, precision, compiling in runs:
        done = small(pictures, tmp_path / name, "off_centre", "--precision", precision, "--compile", compiling)
        assert (done.code, done.result["ok"]) == (0, 12), done.err
    exact, eager, compiled = (logits(tmp_path / name) for name, _, _ in runs)
    largest = np.abs(exact).max()
    assert np.abs(eager - compiled).max() > 0.1 * largest
    assert np.abs(compiled - exact).max() < 0.02 * largest


def test_another_network_in_bf16_is_not_accepted(pictures: Path, cache: Path, tmp_path: Path) -> None:
    before = set(libraries(cache))
    flags = ["--precision", "bf16", "--compile", "always"]
    assert small(pictures, tmp_path / "other", "other", *flags).code == 0
    (of_other,) = set(libraries(cache)) - before
    assert small(pictures, tmp_path / "one", "one", *flags).code == 0
    (of_one,) = set(libraries(cache)) - before - {of_other}
    (cache / of_one).unlink()
    impostor = f"{of_one.partition('-')[0]}-{of_other.partition('-')[2]}"
    shutil.copy(cache / of_other, cache / impostor)
    again = small(pictures, tmp_path / "again", "one", *flags)
    assert (again.code, again.err.count("compiling the network")) == (0, 1), again.err
    assert not (cache / impostor).exists()
    assert table_rows(tmp_path / "again", "heatmaps") == table_rows(tmp_path / "one", "heatmaps")


def test_batch_norms_are_folded_only_where_the_convolution_has_no_other_use(
    pictures: Path, cache: Path, tmp_path: Path
) -> None:
    runs = [("exact", "fp32", "never"), ("compiled", "bf16", "always")]
    for name, precision, compiling in runs:
        done = small(pictures, tmp_path / name, "trained", "--precision", precision, "--compile", compiling)
        assert (done.code, done.result["ok"]) == (0, 12), done.err
    exact, compiled = (logits(tmp_path / name) for name, _, _ in runs)
    assert np.abs(compiled - exact).max() < 0.02 * np.abs(exact).max()


def logits(out: Path) -> np.ndarray:
    return np.array([row["logit"] for row in table_rows(out, "heatmaps")])


def newest(cache: Path) -> str:
    """Return what was loaded last: loading marks a library as used."""
    return max(cache.glob("*.so"), key=lambda path: path.stat().st_mtime_ns).name


def test_a_library_cut_short_is_made_again_by_one_of_two_processes(pictures: Path, cache: Path, tmp_path: Path) -> None:
    assert small(pictures, tmp_path / "run", "one", "--compile", "always").code == 0
    damaged = cache / newest(cache)
    os.truncate(damaged, damaged.stat().st_size // 2)
    before, expected = set(libraries(cache)) - {damaged.name}, table_rows(tmp_path / "run", "heatmaps")
    flags = ["--model", "tests.cluster.machine.test_compilation:one", *SMALL, "--compile", "always"]
    drivers = [
        subprocess.Popen(
            [sys.executable, "-m", "jobs", *map(str, words(pictures, tmp_path / name, *flags))],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    said = [driver.communicate(timeout=300)[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    assert sorted(err.count("compiling the network") for err in said) == [0, 1]
    assert len(set(libraries(cache)) - before) == 1
    assert [table_rows(tmp_path / name, "heatmaps") for name in ("a", "b")] == [expected, expected]


def other_chain() -> nn.Module:
    """Factory of the small network whose maps are refined, with other weights behind what they are refined from."""
    network = Chain()
    network.d.weight.data = network.d.weight.data.flip(0)
    return network


@pytest.mark.long
def test_a_refined_run_has_two_libraries_and_both_are_made_again_where_one_is_missing_short_or_of_other_weights(
    pictures: Path, cache: Path, tmp_path: Path
) -> None:
    def label(out: str, compiling: str, model: str = "tests.support.networks:chain") -> int:
        """Return how often the network was compiled."""
        flags = ["--model", model, *SMALL, "--classes", "topk:2", "--keep-cam", "--compile", compiling]
        done = Command(*words(pictures, tmp_path / out, *flags))
        assert (done.code, done.result["ok"]) == (0, 12), done.err
        return done.err.count("compiling the network")

    def parts(before: set[str]) -> tuple[Path, Path]:
        """Return the two libraries made since; the second one's key is the first one's, and a 1."""
        first, second = sorted(path for path in cache.glob("*.so") if path.name not in before)
        assert second.name.partition("-")[0] == first.name.partition("-")[0] + "1"
        return first, second

    before = set(libraries(cache))
    assert label("other", "always", "tests.cluster.machine.test_compilation:other_chain") == 1
    of_other = parts(before)[1]
    before = set(libraries(cache))
    assert label("run", "always") == 1
    assert label("eager", "never") == 0
    assert_same_maps(tmp_path / "run", tmp_path / "eager", ROUNDED)
    corners = [[[box[name] for name in CORNERS] for box in table_rows(tmp_path / o, "boxes")] for o in ("run", "eager")]
    assert corners[0] == corners[1]
    expected = table_rows(tmp_path / "run", "heatmaps")

    parts(before)[1].unlink()
    assert label("missing", "always") == 1
    first, _ = parts(before)
    os.truncate(first, first.stat().st_size // 2)
    assert label("short", "always") == 1
    _, second = parts(before)
    second.unlink()
    shutil.copy(of_other, cache / f"{second.name.partition('-')[0]}-{of_other.name.partition('-')[2]}")
    assert label("impostor", "always") == 1
    parts(before)
    assert label("last", "always") == 0
    for out in ("missing", "short", "impostor", "last"):
        assert table_rows(tmp_path / out, "heatmaps") == expected
    assert {path.suffix for path in cache.iterdir()} == {".so", ".lock"}  # nothing else is kept


def test_a_cache_that_others_can_write_is_refused(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMRAY_CACHE", str(tmp_path))
    (tmp_path / "compiled").mkdir()
    for mode in (0o777, 0o770, 0o702):
        (tmp_path / "compiled").chmod(mode)
        refused = small(pictures, tmp_path / f"run-{mode}", "one", "--compile", "always")
        assert (refused.code, "can be written by others" in refused.result["error"]) == (5, True)
    assert not list((tmp_path / "compiled").iterdir())


@pytest.mark.parametrize(
    ("model", "method"), [("tests.cluster.machine.test_compilation:one", "scorecam"), ("mobilenet_v3_small", "gradcam")]
)
def test_a_method_beyond_one_forward_pass_cannot_be_compiled(
    pictures: Path, tmp_path: Path, model: str, method: str
) -> None:
    weights = [] if ":" in model else ["--weights", "random"]
    flags = ["--model", model, *weights, *SMALL, "--method", method, "--compile"]
    refused = Command(*words(pictures, tmp_path / "always", *flags, "always"))
    reason = f"--method {method} needs more of this network than one forward pass"
    assert (refused.code, refused.result["error"]) == (2, reason)
    assert not (tmp_path / "always" / "run.json").exists()
    done = Command(*words(pictures, tmp_path / "auto", *flags, "auto"))
    assert (done.code, f"not compiled (auto: {reason})" in done.err) == (0, True), done.err


def test_auto_says_that_a_small_job_is_not_worth_it(pictures: Path, tmp_path: Path) -> None:
    done = small(pictures, tmp_path / "run", "one")
    assert "not compiled (auto: about 0 s of eager forward passes for each replica)" in done.err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["request"]["compiled"] is False


def test_without_a_compiler_auto_is_eager_and_always_is_exit_6(pictures: Path, tmp_path: Path) -> None:
    flags = ["--model", "tests.cluster.machine.test_compilation:one", *SMALL, "--compile"]
    done = Command(*words(pictures, tmp_path / "auto", *flags, "auto"), env={"CXX": str(tmp_path / "nothing")})
    assert (done.code, "not compiled (auto: there is no C++ compiler" in done.err) == (0, True), done.err
    failed = Command(*words(pictures, tmp_path / "always", *flags, "always"), env={"CXX": str(tmp_path)})
    assert (failed.code, "install g++" in failed.result["error"]) == (6, True), failed.result  # a folder cannot be run
