"""`label`, `verify`, `status` and `show` by the command line, on small pictures, without Ray."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cam_ops.errors import StorageError
from cam_ops.settings import ModelConfig
from cluster.executors.progress import Progress
from cluster.executors.work import ShardReport
from cluster.label.replica import open_replica
from cluster.process.console import say
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from jobs.show import safe_name
from tests.support.command import ROOT, Command, result_of, table_rows

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]


ROOTS = """
import torch
from torch import nn

class Roots(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 4, 4, 4, bias=False), nn.Linear(4, 3)

    def forward(self, images):
        return self.fc(self.conv(images).abs().mean((2, 3)).sqrt())

def roots():
    return Roots(), {"mean": (0, 0, 0), "std": (1, 1, 1), "image_size": 32}
"""
WITHOUT_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")


def label(pictures: Path, out: Path, *more: object) -> Command:
    exact = ["--executor", "inline", "--device", "cpu", "--precision", "fp32"]
    return Command("label", "--images", pictures, "--out", out, *exact, *TWO, *more)


def test_a_job_and_what_it_says(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = label(pictures, out)
    assert done.code == 0
    assert {key: done.result[key] for key in ("command", "status", "images", "ok", "errors", "boxes")} == {
        "command": "label",
        "status": "done",
        "images": 12,
        "ok": 12,
        "errors": 0,
        "boxes": 12,
    }
    assert sorted(path.name for path in out.iterdir()) == [
        *(".scratch", "boxes", "heatmaps", "images", "log", "plan", "run.json", "summary.json")
    ]
    assert json.loads((out / "summary.json").read_text())["statuses"] == {"ok": 12}
    images = table_rows(out, "images")
    assert [image["image_id"] for image in images] == [
        f"{folder}/{i:02d}.png" for folder, start in (("discs", 1), ("rings", 0)) for i in range(start, 12, 2)
    ]
    assert all((image["width"], image["height"]) == (64, 48) for image in images)
    run = json.loads((out / "run.json").read_text())
    fingerprints = {
        json.loads(pq.read_schema(path).metadata[b"camray"])["fingerprint"] for path in out.glob("[bhi]*/*.parquet")
    }
    assert fingerprints == {run["fingerprint"]}
    assert Command("verify", out).code == 0
    assert Command("status", out).result["images"] == 12


def test_maps_and_boxes_are_those_of_an_independent_computation(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    label(pictures, out, "--classes", "topk:2", "--normalise", "minmax", "--threshold", 0.6)
    heatmaps = table_rows(out, "heatmaps")
    assert len(heatmaps) == 24
    boxes = {(box["image_id"], box["class_id"]): box for box in table_rows(out, "boxes")}
    for heatmap in heatmaps:
        with Image.open(pictures / heatmap["image_id"]) as picture:
            small = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        small = torch.nn.functional.interpolate(small, size=(32, 32), mode="bilinear", antialias=True)[0].numpy() / 255
        cam = small[0] if heatmap["class_id"] == 0 else 2 * small[0] - small[1]
        np.testing.assert_allclose(np.array(heatmap["heatmap"]).reshape(32, 32), cam, atol=1e-6)
        bias = 0.5 if heatmap["class_id"] == 0 else 0
        assert heatmap["logit"] == pytest.approx(cam.mean() + bias, abs=1e-6)
        cam = (cam - cam.min()) / (cam.max() - cam.min())
        _, _, stats, _ = cv2.connectedComponentsWithStats((cam >= 0.6).astype(np.uint8))
        x, y, width, height, _ = stats[1 + stats[1:, 4].argmax()]
        box = boxes[heatmap["image_id"], heatmap["class_id"]]
        expected = [x * 2, y * 1.5, (x + width) * 2, (y + height) * 1.5]
        assert [box[name] for name in ("x0", "y0", "x1", "y1")] == expected


def test_a_rerun_does_no_work_and_a_partial_run_does_what_is_missing(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    label(pictures, out, "--shard-size", 2)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.is_file()}
    assert label(pictures, out, "--shard-size", 2).code == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.is_file()}
    content = (out / "images" / "shard-0000002.parquet").read_bytes()
    (out / "images" / "shard-0000002.parquet").unlink()
    incomplete = Command("verify", out)
    assert incomplete.code == 3
    assert "1 of 6 shards is not committed; to mend it run `" in incomplete.result["error"]
    assert "--repair" not in cure_in(incomplete.result["error"])
    assert Command("status", out).result["status"] == "incomplete"
    again = label(pictures, out, "--shard-size", 2)
    assert "5 of 6 shards committed" in again.err
    assert (out / "images" / "shard-0000002.parquet").read_bytes() == content
    changed = {path for path in before if path.stat().st_mtime_ns != before[path]}
    assert {path.name for path in changed} == {"shard-0000002.parquet"}


def test_another_request_is_refused_and_overwrite_replaces_it(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    label(pictures, out)
    refused = label(pictures, out, "--threshold", 0.7)
    assert refused.code == 4
    assert "boxes.threshold was 0.2, now 0.7" in refused.result["error"]
    assert refused.result["status"] == "refused"
    assert Command("show", out, "discs/01.png").code == 0
    assert Command("audit", out, "--executor", "inline").code == 0
    assert Command("audit", out, "--executor", "inline", "--name", "a.b-2").code == 0
    assert Command("report", out).code == 0
    assert Command("verify", out).code == 0
    (out / "audit" / "folder").mkdir()
    (out / "audits").mkdir()
    (out / "audits" / "metrics.json").touch()
    (out / "show" / "notes.txt").touch()
    assert label(pictures, out, "--threshold", 0.7, "--overwrite").code == 0
    left = [
        path.name for folder in ("audit", "audit-a.b-2", "show") for path in (out / folder).rglob("*") if path.is_file()
    ]
    assert left == ["notes.txt"]  # nothing that was made of the run before
    assert (out / "audits" / "metrics.json").exists()
    assert not (out / "report.html").exists()
    assert len(list((out / "log").iterdir())) == 1
    assert Command("compare", out, out).code == 0
    assert {round(box["threshold"], 3) for box in table_rows(out, "boxes")} == {0.7}
    (out / "run.json").unlink()
    assert label(pictures, out).code == 4


SCALED = """
from pathlib import Path
from tests.support.networks import two_channels

def net():
    folder = Path(__file__).parent
    with (folder / "calls").open("a") as calls:
        calls.write("x")
    network = two_channels()
    network.fc.weight.data *= float((folder / "scale").read_text())
    return network
"""


@pytest.fixture
def scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with `scaled.py`, whose network's weights are as large as the file `scale` says."""
    (tmp_path / "scaled.py").write_text(SCALED)
    (tmp_path / "scale").write_text("1")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("scaled", None)


SCALED_FLAGS = ["--model", "scaled:net", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32, "--shard-size", 2]


@pytest.mark.ray
@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_the_same_command_with_other_weights_is_refused_whole_or_not(
    pictures: Path, scaled: Path, executor: str
) -> None:
    out, shard = scaled / "run", scaled / "run" / "images" / "shard-0000002.parquet"

    def files_of(run: Path) -> dict[Path, bytes]:  # but for the log: of a run that is not whole, replicas refuse
        paths = (path for path in run.rglob("*.*") if path.is_file() and path.parent.name != "log")
        return {path: path.read_bytes() for path in paths}

    def again() -> Command:
        env = {"PYTHONPATH": f"{ROOT}:{scaled}"} if executor == "ray" else {}
        flags = [*SCALED_FLAGS, "--executor", executor, "--replicas", 1]
        return Command("label", "--images", pictures, "--out", out, *flags, env=env)

    assert again().code == 0
    content = shard.read_bytes()
    (scaled / "scale").write_text("2")
    for shards_left in (6, 5):
        before = files_of(out)
        refused = again()
        assert (refused.code, "model_digest was" in refused.result["error"]) == (4, True), refused.result
        assert files_of(out) == before
        if shards_left == 6:
            shard.unlink()
    (scaled / "scale").write_text("1")
    resumed = again()
    assert (resumed.code, "5 of 6 shards committed" in resumed.err) == (0, True), resumed.err
    assert shard.read_bytes() == content


def test_a_resume_loads_the_network_in_its_replicas_alone(pictures: Path, scaled: Path) -> None:
    def calls(*more: object) -> tuple[int, int]:
        (scaled / "calls").write_text("")
        flags = [*SCALED_FLAGS, "--executor", "inline", *more]
        code = Command("label", "--images", pictures, "--out", scaled / "run", *flags).code
        return code, len((scaled / "calls").read_text())

    shard = scaled / "run" / "images" / "shard-0000002.parquet"
    names = scaled / "names.txt"
    names.write_text("a\nb\n")
    assert calls("--class-names", names) == (0, 2)
    shard.unlink()
    assert calls("--class-names", names) == (0, 1)
    assert calls("--class-names", names) == (0, 1)  # nothing is left to do, and still it is the same network
    shard.unlink()
    assert calls("--class-names", names, "--method", "cam") == (0, 1)  # what auto was
    shard.unlink()
    assert calls("--class-names", names, "--method", "gradcam")[0] == 4
    assert calls("--class-names", names, "--resize", "letterbox")[0] == 4
    names.write_text("a\nc\n")
    assert calls("--class-names", names) == (4, 0)


def test_reduced_decoding_is_another_request_with_the_same_sizes_and_nearly_the_same_boxes(tmp_path: Path) -> None:
    generator, folder = np.random.default_rng(0), tmp_path / "large"
    folder.mkdir()
    for i in range(8):
        image_HWC = cv2.resize(generator.integers(0, 90, (6, 8, 3), np.uint8), (1203, 901))
        x, y = generator.integers(150, 1000), generator.integers(150, 700)
        cv2.ellipse(image_HWC, (int(x), int(y)), (140, 90), 30.0 * i, 0, 360, (240, 40, 40), cv2.FILLED)
        exif = Image.Exif()
        exif[0x0112] = i + 1
        Image.fromarray(image_HWC).save(folder / f"{i}.jpg", quality=90, exif=exif)
    full, reduced = tmp_path / "full", tmp_path / "reduced"
    assert label(folder, full, "--threshold", 0.6).code == 0
    assert label(folder, reduced, "--threshold", 0.6, "--decode", "reduced").code == 0
    refused = label(folder, full, "--threshold", 0.6, "--decode", "reduced")
    assert (refused.code, "preprocessing.decode was full, now reduced" in refused.result["error"]) == (4, True)
    assert Command("verify", reduced).code == 0
    for before, after in zip(table_rows(full, "images"), table_rows(reduced, "images"), strict=True):
        assert (before["width"], before["height"]) == (after["width"], after["height"])
        assert before["num_boxes"] == after["num_boxes"]
    grid_cell = max(1203, 901) / 32
    corners = [
        np.array([[box[name] for name in ("x0", "y0", "x1", "y1")] for box in table_rows(out, "boxes")])
        for out in (full, reduced)
    ]
    assert len(corners[0]) == 8
    np.testing.assert_allclose(corners[1], corners[0], atol=grid_cell)
    maps = [np.array([row["heatmap"] for row in table_rows(out, "heatmaps")]) for out in (full, reduced)]
    assert 0 < np.abs(maps[1] - maps[0]).mean() < 0.01


def test_more_bad_images_than_allowed_exit_3_and_every_image_keeps_its_row(pictures: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    assert label(pictures, good).code == 0
    (pictures / "discs" / "01.png").write_bytes((pictures / "discs" / "01.png").read_bytes()[:2000])
    (pictures / "rings" / "02.png").write_bytes(b"")
    (pictures / "rings" / "04.png").write_text("a picture of a ring")
    out = tmp_path / "run"
    bad = label(pictures, out)
    assert label(pictures, tmp_path / "again").code == 3
    for path in out.glob("[bhi]*/*.parquet"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(out)).read_bytes()
    assert (bad.code, bad.result["images"], bad.result["errors"]) == (3, 12, 3)
    statuses = {image["image_id"]: image["status"] for image in table_rows(out, "images") if image["status"] != "ok"}
    assert statuses == {"discs/01.png": "truncated", "rings/02.png": "empty", "rings/04.png": "undecodable"}
    neighbours = [box for box in table_rows(good, "boxes") if box["image_id"] not in statuses]
    assert table_rows(out, "boxes") == neighbours
    assert label(pictures, out, "--max-error-rate", 0.25).code == 0
    assert Command("verify", out).code == 0


def test_a_file_that_vanishes_after_the_plan_is_missing(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    label(pictures, out, "--shard-size", 2)
    shutil.rmtree(out / "images")
    (pictures / "discs" / "03.png").unlink()
    label(pictures, out, "--shard-size", 2)
    assert [image["image_id"] for image in table_rows(out, "images") if image["status"] == "missing"] == [
        "discs/03.png"
    ]


def test_a_picture_that_overflows_is_accounted_for_and_a_network_that_overflows_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, grey in (("a", 0), ("b", 10), ("c", 255), ("d", 20)):
        Image.new("RGB", (32, 32), (grey, grey, grey)).save(folder / f"{name}.png")
    flags = [*TWO, "--std", *[1e-5] * 3, "--precision", "fp16", "--executor", "inline", "--batch-size", 2]
    out = tmp_path / "run"  # white is 1e5, beyond the largest float16, 65504
    done = Command("label", "--images", folder, "--out", out, *flags)
    assert (done.code, done.result["ok"], done.result["errors"]) == (3, 3, 1)
    rows = {row["image_id"]: row for row in table_rows(out, "images")}
    assert (rows["c.png"]["status"], rows["c.png"]["num_maps"], rows["d.png"]["num_maps"]) == ("overflow", 0, 1)
    assert rows["c.png"]["error"] == "the network's logits are not finite in fp16"
    assert Command("verify", out).code == 0
    (folder / "a.png").write_bytes((folder / "c.png").read_bytes())
    refused = Command("label", "--images", folder, "--out", tmp_path / "other", *flags)
    assert (refused.code, "use --precision bf16 or fp32" in refused.result["error"]) == (2, True)
    assert Command("label", "--images", folder, "--out", tmp_path / "third", *flags, "--precision", "bf16").code == 0


@pytest.mark.parametrize(
    ("precision", "cure"), [("bf16", "use --precision fp32"), ("fp32", "its gradient .* a root at 0")]
)
def test_a_map_that_no_precision_makes_finite_is_not_cured_by_one(tmp_path: Path, precision: str, cure: str) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")  # its features are 0, where a root is infinitely steep
    (tmp_path / "nets.py").write_text(ROOTS)
    flags = ["--model", tmp_path / "nets.py:roots", "--executor", "inline", "--precision", precision]
    refused = Command("label", "--images", tmp_path / "black.png", "--out", tmp_path / "run", *flags)
    assert refused.code == 2
    assert re.search(
        f"the maps of nets.py:roots for black.png are not finite in {precision}; .*{cure}", refused.result["error"]
    )


def test_a_map_that_overflows_is_no_plain_map_in_the_place_of_a_refined_one(tmp_path: Path) -> None:
    folder, generator = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for name, low in (("a", 0), ("b", 50), ("c", 245), ("d", 100)):
        Image.fromarray(generator.integers(low, low + 10, (64, 64, 3), np.uint8)).save(folder / f"{name}.png")
    flags = ["--model", "tests.support.networks:steep", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 64]
    flags += ["--refine", "affinity", "--keep-cam", "--executor", "inline", "--batch-size", 2, "--classes", "topk:2"]
    out = tmp_path / "run"
    done = Command("label", "--images", folder, "--out", out, *flags, "--precision", "fp16")
    assert (done.code, done.result["ok"], done.result["errors"]) == (3, 3, 1)
    rows = {row["image_id"]: row for row in table_rows(out, "images")}
    assert rows["c.png"]["error"] == "the network's maps are not finite in fp16"
    assert [row["num_maps"] for row in rows.values()] == [2, 2, 0, 2]
    assert len(table_rows(out, "heatmaps")) == 6
    assert Command("verify", out).code == 0
    shutil.copy(folder / "c.png", folder / "a.png")
    refused = Command("label", "--images", folder, "--out", tmp_path / "other", *flags, "--precision", "fp16")
    assert (refused.code, "the maps of tests.support.networks:steep" in refused.result["error"]) == (2, True)
    assert Command("label", "--images", folder, "--out", tmp_path / "third", *flags, "--precision", "fp32").code == 0


def test_auto_precision_is_what_it_says(pictures: Path, tmp_path: Path) -> None:
    done = label(pictures, tmp_path / "run", "--precision", "auto")
    known = set(Path("/proc/cpuinfo").read_text().split())  # as Linux has it
    expected = "bf16" if known & {"amx_bf16", "avx512_bf16"} else "fp32"
    precision = json.loads((tmp_path / "run" / "run.json").read_text())["request"]["precision"]
    assert precision == expected
    assert f"precision {precision} (auto, as this CPU has " in done.err
    assert label(pictures, tmp_path / "run", "--precision", "auto").code == 0  # resumes with what was chosen
    assert label(pictures, tmp_path / "run", "--precision", "fp16").code == 4


def test_a_network_that_takes_no_other_precision_gets_float32_by_auto_and_is_refused_else(
    pictures: Path, tmp_path: Path
) -> None:
    flags = ["--model", "tests.support.networks:only_float32"]
    done = label(pictures, tmp_path / "auto", *flags, "--precision", "auto")
    assert done.code == 0
    assert json.loads((tmp_path / "auto" / "run.json").read_text())["request"]["precision"] == "fp32"
    for precision in ("bf16", "fp16"):
        refused = label(pictures, tmp_path / precision, *flags, "--precision", precision)
        assert (refused.code, "fails on this network in" in refused.result["error"]) == (2, True)
        assert not (tmp_path / precision / "run.json").exists()


def test_a_compiled_network_is_unwrapped(pictures: Path, tmp_path: Path) -> None:
    assert label(pictures, tmp_path / "plain").code == 0
    assert label(pictures, tmp_path / "compiled", "--model", "tests.support.networks:compiled").code == 0
    assert table_rows(tmp_path / "plain", "heatmaps") == table_rows(tmp_path / "compiled", "heatmaps")


def test_images_without_label_are_ok_and_have_no_map(pictures: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("image_id,label\ndiscs/01.png,1\n")
    done = label(pictures, tmp_path / "run", "--labels", labels)
    assert (done.code, done.result["ok"]) == (0, 12)
    assert [(h["image_id"], h["class_id"]) for h in table_rows(tmp_path / "run", "heatmaps")] == [("discs/01.png", 1)]
    assert {box["class_source"] for box in table_rows(tmp_path / "run", "boxes")} == {"label"}


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--threshold", "1.5"], 2, "--threshold must lie strictly between 0 and 1"),
        (["--colour", "red"], 2, "--colour is no flag of label"),
        (["--classes", "label"], 2, "needs labels"),
        (["--batch-size", "100000000"], 2, "--batch-size expects at most 16384"),
        (["--shard-size", "100000000"], 2, "--shard-size expects at most 1048576"),
        (["--labels", "nowhere.csv"], 2, "cannot read nowhere.csv"),
        (["--images", "/nowhere"], 5, "cannot list the image folder /nowhere"),
        (["--images", "ftp://host/x"], 2, "not supported"),
        (["--out", "/proc/run"], 5, "cannot write /proc/run"),
        (["--out", "/dev/null"], 5, "cannot write /dev/null"),
        (["--out", "/dev/null", "--overwrite"], 5, "cannot write /dev/null"),
        (["--out", ""], 2, "got an empty text"),
        (["--images="], 2, "got an empty text"),
        (["--mean", "nan", "0", "0"], 2, "expect finite numbers"),
        pytest.param(["--device", "cuda"], 6, "there is no GPU", marks=WITHOUT_CUDA),
        (["--replicas", "2"], 2, "inline is one replica"),
        (["--model", "vgg11", "--weights", "random", "--method", "cam"], 2, "--method cam does not exist for this"),
        (["--layer", "layer5", "--method", "gradcam"], 2, "no such module; similar names are fc"),
        (["--method", "legrad"], 2, "needs a vision transformer"),
        (["--model", "timm:resnet1"], 2, "timm has no such network; similar names are"),
        (["--config", "nowhere.yaml"], 2, "cannot read --config"),
        (["--images", ROOT, "--out", ROOT], 2, "is the folder of --images; give a folder of its own"),
    ],
)
def test_what_cannot_be_done_has_its_exit_code_and_one_sentence(
    pictures: Path, tmp_path: Path, flags: list[str], code: int, says: str
) -> None:
    failed = label(pictures, tmp_path / "run", *flags)
    assert failed.code == code
    assert says in failed.result["error"]
    assert "Traceback" not in failed.err
    assert not (tmp_path / "run" / "run.json").exists()


def test_relative_paths_inside_a_ray_job_are_refused(pictures: Path) -> None:
    job = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    refused = Command("label", "--images", pictures, "--out", "run", *TWO, env=job)
    assert refused.code == 2
    assert "--out run is relative" in refused.result["error"]


def test_flags_from_a_file_give_way_to_flags(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "flags.yaml").write_text("threshold: 0.6\nmean: [0, 0, 0]\ncomponents: all\noverwrite: false\n")
    out = tmp_path / "run"
    assert (
        label(pictures, out, "--shard-size", 1, "--config", tmp_path / "flags.yaml", "--components", "largest").code
        == 0
    )
    boxes = json.loads((out / "run.json").read_text())["request"]["boxes"]
    assert boxes == {"threshold": [0.6], "components": "largest"}
    assert Command("verify", out).code == 0  # shards of one image
    (tmp_path / "flags.yaml").write_text(f"out: {out}\nimages: {pictures}\nthreshold: 0.7\n")
    refused = Command("label", *TWO, "--config", tmp_path / "flags.yaml")
    assert (refused.code, refused.result["out"]) == (4, str(out))


def cure_in(error: str) -> list[str]:
    """Return the words behind `python -m jobs` of the command that a message names."""
    return shlex.split(error.partition("`python -m jobs ")[2].partition("`")[0])


def test_what_mends_a_run_is_typed_without_overwrite_and_a_complete_label_names_verify(
    pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "the run"
    (tmp_path / "flags.yaml").write_text("overwrite: true\nshard_size: 4\n")
    label(pictures, out, "--config", tmp_path / "flags.yaml", "--overwrite")
    boxes = out / "boxes" / "shard-0000001.parquet"
    kept, whole = (out / "boxes" / "shard-0000000.parquet").stat().st_mtime_ns, boxes.read_bytes()
    boxes.write_bytes(whole[:100])
    complete = label(pictures, out, "--shard-size", 4)
    assert (complete.code, f"`python -m jobs verify '{out}'` proves them" in complete.err) == (0, True)
    shutil.copytree(out, tmp_path / "moved")
    moved = cure_in(Command("verify", tmp_path / "moved").result["error"])
    assert moved[moved.index("--out") + 1] == str(tmp_path / "moved")
    assert moved.count("--out") == 1
    for command in (["verify"], ["audit", "--executor", "inline"]):
        failed = Command(command[0], out, *command[1:])
        words = cure_in(failed.result["error"])
        assert words[0] == "label"
        assert words[-4:] == ["--no-overwrite", "--out", str(out), "--repair"]
        assert "--overwrite" not in words
    assert Command(*words).code == 0
    assert boxes.read_bytes() == whole
    assert (out / "boxes" / "shard-0000000.parquet").stat().st_mtime_ns == kept


def scramble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[10:50] = b"x" * 40
    path.write_bytes(content)


def test_verify_finds_each_kind_of_damage(pictures: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    label(pictures, out, "--shard-size", 4)
    label(pictures, other, "--shard-size", 4, "--threshold", 0.4)
    shard = Path("shard-0000001.parquet")
    images, table = (pq.read_table(out / name / shard) for name in ("images", "boxes"))
    grown = table.set_column(
        table.schema.get_field_index("x1"), table.schema.field("x1"), pa.array([999.0] * 4, pa.float32())
    )
    names = pa.array(["bogus"] * 4)
    renamed = table.set_column(table.schema.get_field_index("class_name"), table.schema.field("class_name"), names)
    damages = {
        "is not a whole Parquet file": lambda: (out / "boxes" / shard).write_bytes(b"PAR1junkPAR1"),
        "belongs to another request": lambda: shutil.copy(other / "boxes" / shard, out / "boxes"),
        "is missing, though its images are committed": (out / "heatmaps" / shard).unlink,
        "num_boxes does not count its boxes": lambda: pq.write_table(table.slice(1), out / "boxes" / shard),
        "4 box(es) are empty or reach outside": lambda: pq.write_table(grown, out / "boxes" / shard),
        "column image_id of its images is not": lambda: pq.write_table(images.slice(0, 0), out / "images" / shard),
        "never planned, such as 7": lambda: shutil.copy(out / "boxes" / shard, out / "boxes" / "shard-0000007.parquet"),
        "cannot read the plan": lambda: scramble(out / "plan" / "part-00000.parquet"),
        "class names that are not the run's": lambda: pq.write_table(renamed, out / "boxes" / shard),
        "does not add up": lambda: (out / "summary.json").write_text("{}"),
        "plan's files are not those": lambda: (out / "plan" / "part-00000.parquet").write_bytes(
            (other / "run.json").read_bytes()
        ),
    }
    assert Command("verify", out).code == 0
    for reason, damage in damages.items():
        whole = tmp_path / "whole"
        shutil.copytree(out, whole)
        damage()
        verdict = Command("verify", out)
        assert (verdict.code, reason in verdict.out) == (3, True), (reason, verdict.out, verdict.err)
        if "plan" in reason and "planned" not in reason:
            assert "no command mends a plan" in verdict.result["error"]
        else:
            mended = Command(*cure_in(verdict.result["error"]))
            assert (mended.code, Command("verify", out).code) == (0, 0), (reason, mended.err)
        shutil.rmtree(out)
        whole.rename(out)


@pytest.mark.parametrize(
    ("table", "column"),
    [("heatmaps", "score"), *(("boxes", name) for name in ("score", "peak", "energy", "area_fraction"))],
)
def test_numbers_of_tables_that_cannot_be_are_damage(pictures: Path, tmp_path: Path, table: str, column: str) -> None:
    out = tmp_path / "run"
    label(pictures, out, "--shard-size", 4)
    path = out / table / "shard-0000001.parquet"
    rows = pq.read_table(path)
    at = rows.schema.get_field_index(column)
    reason = f"its {'maps' if table == 'heatmaps' else 'boxes'} have a {column} that is not from 0 to 1"
    for value in (float("nan"), float("inf"), -0.1, 1.1):
        pq.write_table(rows.set_column(at, rows.schema.field(at), pa.array([value] * len(rows), pa.float32())), path)
        proved = Command("verify", out)
        assert (proved.code, f"shard 1: {reason}" in proved.out) == (3, True)
    for words in (["audit", "--executor", "inline"], ["export", "--to", "seeds", "--out", tmp_path / "export"]):
        refused = Command(words[0], out, *words[1:])
        assert (refused.code, reason in refused.result["error"]) == (5, True)
    assert label(pictures, out, "--shard-size", 4, "--repair").code == 0
    assert pq.read_table(path).equals(rows)


@pytest.mark.parametrize(("table", "column"), [("boxes", "score"), ("images", "top_scores")])
def test_verify_finds_a_flipped_bit_among_numbers(pictures: Path, tmp_path: Path, table: str, column: str) -> None:
    out = tmp_path / "run"
    label(pictures, out, "--shard-size", 4)
    path = out / table / "shard-0000001.parquet"
    group = pq.read_metadata(path).row_group(0)
    chunks = [group.column(i) for i in range(group.num_columns)]
    (chunk,) = (chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] == column)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 1 - chunk.total_compressed_size // 4] ^= 1
    path.write_bytes(content)
    verdict = Command("verify", out)
    assert (verdict.code, f"{table}/shard-0000001.parquet is not a whole Parquet file" in verdict.out) == (3, True)


def test_verify_finds_a_name_of_a_column_that_is_no_text(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    label(pictures, out, "--shard-size", 4)
    path = out / "boxes" / "shard-0000001.parquet"
    path.write_bytes(path.read_bytes().replace(b"image_id", b"\xf9mage_id"))
    verdict = Command("verify", out)
    assert (verdict.code, f"{path.parent.name}/{path.name} is not a whole Parquet file" in verdict.out) == (3, True)


def test_repair_does_the_damaged_shards_again_and_no_others(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    label(pictures, out, "--shard-size", 2)
    whole = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file() and path.suffix != ".jsonl"}
    truncated, swapped = out / "heatmaps" / "shard-0000001.parquet", out / "boxes" / "shard-0000003.parquet"
    truncated.write_bytes(truncated.read_bytes()[:100])
    shutil.copy(out / "boxes" / "shard-0000004.parquet", swapped)
    shutil.copy(out / "images" / "shard-0000004.parquet", out / "images" / "shard-0000009.parquet")
    (out / "images" / "shard-0000005.parquet").write_bytes(b"")
    before = {path: path.stat().st_mtime_ns for path in whole}
    assert Command("verify", out).code == 3
    refused = label(pictures, out, "--shard-size", 2, "--repair", "--threshold", 0.7)
    assert (refused.code, truncated.stat().st_size) == (4, 100)
    repaired = label(pictures, out, "--shard-size", 2, "--repair")
    assert (repaired.code, repaired.err.count("is done again"), repaired.err.count("was never planned")) == (0, 3, 1)
    assert {path: path.read_bytes() for path in whole} == whole
    left = {path for path in out.rglob("*.*") if path.is_file() and path.suffix != ".jsonl"}
    assert left == set(whole)
    changed = {path.name for path in whole if path.stat().st_mtime_ns != before[path]}
    assert changed == {f"shard-000000{shard}.parquet" for shard in (1, 3, 5)}
    assert Command("verify", out).code == 0
    (out / "plan" / "part-00000.parquet").write_bytes(b"PAR1")
    assert label(pictures, out, "--shard-size", 2, "--repair").code == 5


def test_show_draws_heat_and_box_into_its_own_folder(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    label(pictures, out, "--threshold", 0.6)
    shown = Command("show", out, "discs/01.png")
    assert shown.code == 0
    assert shown.result["boxes"] == sum(box["image_id"] == "discs/01.png" for box in table_rows(out, "boxes")) == 1
    drawn = cv2.imread(shown.out.splitlines()[0])
    assert drawn.shape == (48, 64, 3)
    assert Path(shown.out.splitlines()[0]).parent == out / "show"
    assert Command("show", out, "discs/01.png", "--to", tmp_path / "one.png").code == 0
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "one.png")), drawn)
    unknown = Command("show", out, "../../etc/passwd")
    assert (unknown.code, "is no image of" in unknown.result["error"]) == (2, True)
    nowhere = Command("show", tmp_path, "a.png")
    assert (nowhere.code, "holds no run.json" in nowhere.result["error"]) == (5, True)


def test_the_blog_recipe_draws_the_post_s_three_pictures(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--model", "resnet18", "--weights", "random", "--recipe", "blog", "--executor", "inline"]
    assert Command("label", "--images", pictures, "--out", out, *flags).code == 0
    request = json.loads((out / "run.json").read_text())["request"]
    assert request["preprocessing"]["image_size"] == 128
    assert (request["preprocessing"]["mean"], request["preprocessing"]["std"]) == ([0, 0, 0], [1, 1, 1])
    Command("show", out, "rings/02.png", "--to", tmp_path / "blog.png")
    panels = cv2.imread(str(tmp_path / "blog.png"))
    assert panels.shape == (128, 3 * 128, 3)
    cam = np.array(
        next(h["heatmap"] for h in table_rows(out, "heatmaps") if h["image_id"] == "rings/02.png"), np.float32
    )
    cam = cam.reshape(4, 4) - np.min(cam)  # from here on, the post's own lines
    cam = cam / np.max(cam)
    resized_cam = cv2.resize(cam, (128, 128))
    heatmap = cv2.applyColorMap(np.uint8(255 * resized_cam), cv2.COLORMAP_JET)
    img = cv2.resize(cv2.imread(str(pictures / "rings" / "02.png")), (128, 128))
    cv2.imwrite(str(tmp_path / "cam.png"), heatmap * 0.3 + img * 0.5)
    np.testing.assert_array_equal(panels[:, 128:256], heatmap)
    np.testing.assert_array_equal(panels[:, 256:], cv2.imread(str(tmp_path / "cam.png")))
    assert Command("show", out, "rings/02.png", "--grid", "1x1", "--to", tmp_path / "sheet.png").code == 0
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    fitted = cv2.resize(panels, (320, 107), interpolation=cv2.INTER_AREA)
    _, _, (x, y), _ = cv2.minMaxLoc(cv2.matchTemplate(sheet, fitted, cv2.TM_SQDIFF))
    np.testing.assert_array_equal(sheet[y : y + 107, x : x + 320], fitted)  # the three stand on it, too


@pytest.mark.slow
def test_two_requests_at_once_on_one_out_do_not_mix(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["label", "--images", str(pictures), "--out", str(out), "--executor", "inline", *map(str, TWO)]
    drivers = [
        subprocess.Popen([sys.executable, "-m", "jobs", *words, "--threshold", t], cwd=ROOT, stdout=subprocess.DEVNULL)
        for t in ("0.3", "0.6")
    ]
    assert sorted(driver.wait(240) for driver in drivers) == [0, 4]
    assert Command("verify", out).code == 0


def test_a_run_that_is_replaced_under_a_driver_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    label(pictures, out, "--shard-size", 2)
    run = existing_run(RunDir(str(out)))
    model = ModelConfig(model="tests.support.networks:two_channels", mean=(0, 0, 0), std=(1, 1, 1), image_size=32)
    replica = open_replica(RunDir(str(out)), model, run.request.fingerprint())
    label(pictures, out, "--threshold", 0.6, "--overwrite")
    before = {path: path.read_bytes() for path in out.rglob("*.parquet")}
    with pytest.raises(StorageError, match="now holds another run"):
        replica.run_shard(0, 0)
    assert before == {path: path.read_bytes() for path in out.rglob("*.parquet")}


def test_show_has_one_file_name_per_id() -> None:
    ids = (".a.jpg", "a.jpg", "a/b.jpg", "a%2Fb.jpg", "x" * 255, "x" * 254, "../../etc/passwd")
    names = {safe_name(image_id) for image_id in ids}
    assert len(names) == 7
    assert all(len(name) < 200 and "/" not in name and not name.startswith(".") for name in names)


def test_progress_counts_the_short_last_shard(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    label(pictures, out, "--shard-size", 5)
    assert Command("verify", out).code == 0
    (out / "images" / "shard-0000000.parquet").unlink()
    assert "12/12 images (100 %), 3/3 shards" in label(pictures, out, "--shard-size", 5).err


def test_on_a_terminal_a_line_takes_the_place_of_the_state_and_the_state_comes_again() -> None:
    theirs, ours = os.openpty()
    with open(ours, "w") as terminal, open(theirs, "rb", buffering=0) as screen, redirect_stderr(terminal):
        progress = Progress(num_images=3, num_shards=3, done_images=0, done_shards=0)
        for shard in range(3):
            progress.shown_s = 0.0  # long ago
            progress.add(ShardReport(shard=shard, statuses={"ok": 1}))
            if shard == 1:
                say("a replica died")
        shown = b""
        while shown.count(b"\n") < 2:  # a terminal hands on what it has in pieces
            shown += screen.read(4096)
    lines = [line.rpartition("\r\033[K")[2] for line in shown.decode().split("\r\n")]
    assert lines[0] == "camray: a replica died"
    assert lines[1].startswith("camray: 3/3 images (100 %)")
    assert lines[2:] == [""]


@pytest.mark.slow
def test_a_factory_beside_the_user_is_found(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from tests.support.networks import two_channels as net\n")
    flags = ["--model", "mine:net", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--executor", "inline"]
    env = {"PYTHONPATH": str(ROOT)}
    assert Command("label", "--images", pictures, "--out", "out", *flags, cwd=tmp_path, env=env).code == 0


@pytest.mark.slow
def test_sigterm_exits_130_and_the_same_command_finishes(pictures: Path, tmp_path: Path) -> None:
    for i in range(300):
        shutil.copy(pictures / "discs" / "01.png", pictures / f"copy-{i}.png")
    out = tmp_path / "run"
    flags = [*map(str, TWO), "--shard-size", "2", "--batch-size", "1", "--executor", "inline"]
    flags += ["--precision", "fp32"]
    command = [sys.executable, "-m", "jobs", "label", "--images", str(pictures), "--out", str(out), *flags]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ)
    deadline_s = time.monotonic() + 60
    while not list(out.glob("images/*")) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    driver.send_signal(signal.SIGTERM)
    stdout, _ = driver.communicate(timeout=240)
    assert driver.returncode == 130
    committed = len(list(out.glob("images/*")))
    assert 0 < committed < 156
    result = result_of(stdout)
    assert (result["status"], result["images"], result["ok"]) == ("interrupted", 2 * committed, 2 * committed)
    assert label(pictures, out, "--shard-size", 2, "--batch-size", 1).code == 0
    assert Command("verify", out).result["images"] == 312


AT_IMPORT = """
import os, signal, sys

class Sends:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "jobs.label":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Sends)
"""

AT_END = """
import os, signal
from tests.support.networks import two_channels as net

class Sends:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)  # when Python has given signals back to the system

sends = Sends()
"""


def test_sigterm_before_the_command_is_imported_exits_130(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT)
    done = Command("label", "--images", tmp_path, "--out", tmp_path / "run", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert (done.code, done.result["status"]) == (130, "interrupted")


@pytest.mark.slow
def test_sigterm_while_python_ends_leaves_the_exit_code(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(AT_END)
    flags = ["--model", "mine:net", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--executor", "inline"]
    env = {"PYTHONPATH": str(ROOT)}
    done = Command("label", "--images", pictures, "--out", "out", *flags, cwd=tmp_path, env=env)
    assert (done.code, done.result["status"]) == (0, "done")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_gives_the_maps_of_the_cpu(pictures: Path, tmp_path: Path) -> None:
    flags = ["--model", "resnet18", "--weights", "random", "--image-size", 64, "--executor", "inline"]
    flags += ["--precision", "fp32"]
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        assert Command("label", "--images", pictures, "--out", out, *flags, "--device", device).code == 0
    maps = [np.array([h["heatmap"] for h in table_rows(tmp_path / device, "heatmaps")]) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(maps[1], maps[0], rtol=1e-2, atol=1e-3 * np.abs(maps[0]).max())
