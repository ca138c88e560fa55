"""`label` on networks of every kind, as a user types it, with nothing said but the network's name."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cam_ops.settings import Kind, Method
from tests.support.command import Command, table_rows

pytestmark = pytest.mark.slow

SMALL = ["--image-size", "96"]
NETWORKS: list[tuple[str, list[str], Kind, Method, list[int]]] = [
    ("resnet50", SMALL, "affine", "cam", [3, 3]),
    ("densenet121", SMALL, "affine", "cam", [3, 3]),
    ("efficientnet_b0", SMALL, "affine", "cam", [3, 3]),
    ("mobilenet_v3_small", SMALL, "pooled", "gradcam", [3, 3]),
    ("convnext_tiny", SMALL, "norm-affine", "cam", [3, 3]),
    ("swin_t", SMALL, "affine", "cam", [3, 3]),
    ("vit_b_32", [], "layer", "legrad", [7, 7]),
    ("alexnet", SMALL, "layer", "layercam", [5, 5]),
    ("squeezenet1_1", SMALL, "score-map", "cam", [5, 5]),
    ("inception_v3", [], "affine", "cam", [8, 8]),  # 299 pixels
    ("timm:resnet18", SMALL, "affine", "cam", [3, 3]),
    ("timm:convnext_atto", SMALL, "norm-affine", "cam", [3, 3]),
    ("timm:mobilenetv3_small_050", SMALL, "pooled", "gradcam", [3, 3]),
    ("timm:vit_tiny_patch16_224", [], "layer", "legrad", [14, 14]),
    ("timm:pit_ti_224", [], "layer", "layercam", [7, 7]),
    (
        "tests.support.networks:two_channels",
        ["--image-size", "32", "--mean", *"000", "--std", *"111"],
        "affine",
        "cam",
        [32, 32],
    ),
]


NOT_REFINED = [
    "tests.support.networks:two_channels",
    "timm:resnet18",  # with random weights its blocks end in a scale of 0, which no gradient passes
]


@pytest.mark.parametrize(("model", "flags", "kind", "method", "grid"), NETWORKS, ids=[n[0] for n in NETWORKS])
def test_label_runs(
    pictures: Path, tmp_path: Path, model: str, flags: list[str], kind: Kind, method: Method, grid: list[int]
) -> None:
    weights = [] if ":" in model and not model.startswith("timm:") else ["--weights", "random"]
    out = tmp_path / "run"
    flags = [
        *flags,
        *weights,
        "--executor",
        "inline",
        "--precision",
        "fp32",
        "--limit",
        "5",
        "--classes",
        "topk:2",
        "--out",
        str(out),
    ]
    done = Command("label", "--images", pictures, "--model", model, *flags)
    assert (done.code, done.result["ok"]) == (0, 5), done.err
    run = json.loads((out / "run.json").read_text())
    request = run["request"]
    before = request["refinement"]["cam_grid"] if "refinement" in request else run["grid"]
    assert (request["head"], request["explain"]["method"], before) == (kind, method, grid)
    assert ("refinement" in request) == (model not in NOT_REFINED)
    assert run["grid"] >= grid
    rows = table_rows(out, "heatmaps")
    assert len(rows) == 10
    assert {row["method"] for row in rows} == {method}
    if method == "cam":
        assert max(row["residual"] for row in rows) < 1e-5
    else:
        assert {row["residual"] for row in rows} == {None}
    metadata = json.loads(pq.read_schema(next((out / "heatmaps").iterdir())).metadata[b"camray"])
    assert (metadata["head"], metadata["method"], metadata["layers"]) == (kind, method, request["cut"])
    assert bool(request["cut"]) == (method == "layercam")
    assert Command("verify", out).code == 0
