"""Networks whose input is no square of RGB: flags, what run.json has, and maps that are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.command import Command, table_rows

NETS = """
import torch
from torch import nn

class Bright(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 2)
        self.fc.weight.data = torch.tensor([[1.0], [-1.0]])
        self.fc.bias.data = torch.zeros(2)

    def forward(self, images):
        return self.fc(images[:, :1].mean((2, 3)))

def bright():
    return Bright()

class Gray(Bright):
    def forward(self, images):
        assert images.shape[1] == 1
        return super().forward(images)

def gray():
    return Gray()
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path / "nets.py"


def label(images: Path, out: Path, *flags: object) -> Command:
    fixed = ["--precision", "fp32", "--executor", "inline", "--shard-size", 4, "--refine", "none"]
    return Command("label", "--images", images, "--out", out, *fixed, *flags)


def test_a_gray_network_maps_luminance_and_an_older_run_goes_on(pictures: Path, nets: Path, tmp_path: Path) -> None:
    out, flags = tmp_path / "run", ["--model", f"{nets}:gray", "--image-size", 48]
    refused = label(pictures, out, *flags, "--mean", 0, 0, 0, "--std", 1, 1, 1)
    assert (refused.code, "takes pictures of one channel: --channels gray" in refused.result["error"]) == (2, True)
    flags += ["--channels", "gray", "--mean", 0, "--std", 1]
    done = label(pictures, out, *flags)
    assert done.code == 0, done.err
    document = json.loads((out / "run.json").read_text())
    assert (document["request"]["preprocessing"]["mean"], document["config"]["model"]["channels"]) == ([0], "gray")
    for row in table_rows(out, "heatmaps"):
        picture = Image.open(pictures / row["image_id"]).convert("RGB")
        tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(tensor, (48, 48), mode="bilinear", antialias=True)[0]
        gray = Image.fromarray(resized.permute(1, 2, 0).numpy()).convert("L")
        expected = np.asarray(gray, np.float32) / 255 * (1 if row["class_id"] == 0 else -1)
        np.testing.assert_allclose(np.reshape(row["heatmap"], (48, 48)), expected, atol=0.51 / 255)

    del document["config"]["model"]["channels"]  # as of before there was the flag
    shard = out / "images" / "shard-0000001.parquet"
    content = shard.read_bytes()
    shard.unlink()
    (out / "run.json").write_text(json.dumps(document))
    again = label(pictures, out, *flags)
    assert (again.code, shard.read_bytes() == content) == (0, True), again.err


MARK = (96, 48, 160, 80)  # x0, y0, x1, y1 of a white mark in black pictures of 320 x 128
RECTANGLE = ["--image-size", 48, 96, "--mean", 0, 0, 0, "--std", 1, 1, 1]


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """Two pictures of 320 x 128 with the mark, one of them with the mark mirrored."""
    image_HWC = np.zeros((128, 320, 3), np.uint8)
    image_HWC[MARK[1] : MARK[3], MARK[0] : MARK[2]] = 255
    (tmp_path / "marked" / "bright").mkdir(parents=True)
    Image.fromarray(image_HWC).save(tmp_path / "marked" / "bright" / "as.png")
    Image.fromarray(image_HWC[:, ::-1]).save(tmp_path / "marked" / "bright" / "mirrored.png")
    return tmp_path / "marked"


@pytest.mark.parametrize(
    ("resize", "rectangle"),
    [
        ("warp", [0, 0, 320, 128]),
        ("letterbox", [0, -16, 320, 144]),  # 320 columns are 96, so 128 rows 38, and five of padding on either side
        ("center-crop", [48, 8, 272, 120]),  # 0.875 of the 256 x 128 pixels that have the input's proportions
    ],
)
@pytest.mark.parametrize("more", [[], ["--flip"], ["--scales", 1, 1.5]])
def test_boxes_of_a_rectangular_input_lie_on_the_mark(
    marked: Path, nets: Path, tmp_path: Path, resize: str, rectangle: list[int], more: list[object]
) -> None:
    out = tmp_path / "run"
    flags = [
        *RECTANGLE,
        "--model",
        f"{nets}:bright",
        "--resize",
        resize,
        "--threshold",
        0.5,
        "--classes",
        "top1",
        *more,
    ]
    done = label(marked, out, *flags)
    assert done.code == 0, done.err
    document = json.loads((out / "run.json").read_text())
    assert document["request"]["preprocessing"]["image_size"] == [48, 96]
    assert document["grid"] == ([72, 144] if "--scales" in more else [48, 96])
    one_pixel = max((rectangle[2] - rectangle[0]) / 96, (rectangle[3] - rectangle[1]) / 48)
    boxes = {row["image_id"]: row for row in table_rows(out, "boxes") if row["rank"] == 0}
    mirrored = (320 - MARK[2], MARK[1], 320 - MARK[0], MARK[3])
    for image, mark in (("bright/as.png", MARK), ("bright/mirrored.png", mirrored)):
        found = [boxes[image][name] for name in ("x0", "y0", "x1", "y1")]
        np.testing.assert_allclose(found, mark, atol=one_pixel + 1e-3)
    for row in table_rows(out, "heatmaps"):
        np.testing.assert_allclose([row[name] for name in ("x0", "y0", "x1", "y1")], rectangle, atol=2)


def test_a_run_of_rectangles_is_resumed_reboxed_drawn_audited_and_verified(
    marked: Path, nets: Path, tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("bright\ndark\n")
    out, flags = (
        tmp_path / "run",
        [
            *RECTANGLE,
            "--model",
            f"{nets}:bright",
            "--threshold",
            0.5,
            "--labels",
            "folder",
            "--class-names",
            tmp_path / "names.txt",
        ],
    )
    assert label(marked, out, *flags).code == 0
    kept = {path: path.read_bytes() for path in out.glob("*/*.parquet")}
    (out / "images" / "shard-0000000.parquet").unlink()
    assert label(marked, out, *flags).code == 0
    assert {path: path.read_bytes() for path in out.glob("*/*.parquet")} == kept
    other = label(marked, out, *flags, "--image-size", 48)
    assert (other.code, "preprocessing.image_size was 48 96, now 48" in other.result["error"]) == (4, True), (
        other.result
    )
    assert Command("verify", out).code == 0
    again = Command("rebox", out, "--out", tmp_path / "again", "--threshold", 0.5, "--executor", "inline")
    assert again.code == 0
    corners = ("x0", "y0", "x1", "y1", "energy", "area_fraction")
    boxes, reboxed = (
        [[row[c] for c in corners] for row in table_rows(run, "boxes")] for run in (out, tmp_path / "again")
    )
    assert reboxed == boxes
    assert Command("show", out, "bright/as.png", "--to", tmp_path / "shown.png").code == 0
    shown_HWC = np.asarray(Image.open(tmp_path / "shown.png"))[:128].astype(int)
    redness_HW = shown_HWC[..., 0] - shown_HWC[..., 2]
    rows, columns = np.nonzero(redness_HW > 90)  # the hottest colour, and the box that is drawn around it
    assert (abs(columns.min() - MARK[0]), abs(rows.min() - MARK[1])) <= (6, 6)
    assert (abs(columns.max() - MARK[2]), abs(rows.max() - MARK[3])) <= (6, 6)
    truth = "image_id,x0,y0,x1,y1\n" + "".join(
        f"bright/{name}.png,{x0},48,{x1},80\n" for name, x0, x1 in (("as", 96, 160), ("mirrored", 160, 224))
    )
    (tmp_path / "truth.csv").write_text(truth)
    audited = Command("audit", out, "--truth", tmp_path / "truth.csv", "--executor", "inline")
    assert audited.code == 0, audited.err
    metrics = json.loads((out / "audit" / "metrics.json").read_text())
    assert "gt_known_loc" in json.dumps(metrics)


def test_equal_sides_are_a_square_and_others_must_be_possible(pictures: Path, nets: Path, tmp_path: Path) -> None:
    out, flags = tmp_path / "run", ["--model", f"{nets}:bright", "--mean", 0, 0, 0, "--std", 1, 1, 1]
    assert label(pictures, out, *flags, "--image-size", 48, 48).code == 0
    assert json.loads((out / "run.json").read_text())["request"]["preprocessing"]["image_size"] == 48
    assert label(pictures, out, *flags, "--image-size", 48).code == 0
    refused = label(pictures, tmp_path / "other", *flags, "--image-size", 48, 4)
    assert (refused.code, "--image-size expects 8 to 4096 pixels, got 48 4" in refused.result["error"]) == (2, True)
    document = json.loads((out / "run.json").read_text())
    document["request"]["preprocessing"]["image_size"] = [48, 48]
    (out / "run.json").write_text(json.dumps(document))
    assert "an input of (48, 48) pixels" in Command("status", out).result["error"]


def test_a_size_that_only_the_network_knows_is_taken_and_said(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "vit.py").write_text(
        "import torch\n"
        "from tests.cam_ops.network.test_takes import small_vit\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    network = small_vit((64, 96))\n"
        "    torch.nn.init.normal_(network.head.weight)\n"
        "    return network, {'mean': (0.5,) * 3, 'std': (0.5,) * 3}\n"
    )
    out, flags = tmp_path / "run", ["--model", f"{tmp_path}/vit.py:net"]
    done = label(pictures, out, *flags)
    assert done.code == 0, done.err
    said = "vit.py:net takes no pictures of 224x224 pixels; it says that it takes 96x64: --image-size 64 96 is taken"
    assert said in done.err
    document = json.loads((out / "run.json").read_text())
    assert (document["request"]["preprocessing"]["image_size"], document["grid"]) == ([64, 96], [4, 6])
    (out / "images" / "shard-0000001.parquet").unlink()
    assert label(pictures, out, *flags).code == 0
    refused = label(pictures, tmp_path / "other", *flags, "--image-size", 224)
    assert (refused.code, "takes 96x64: --image-size 64 96" in refused.result["error"]) == (2, True)
