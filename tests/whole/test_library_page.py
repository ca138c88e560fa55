"""The code of docs/library.md runs; its box is where the object is, and its map adds up to the logit."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cam_ops.metrics.localization import overlaps
from jobs.demo_photos import PHOTOS
from tests.support.command import ROOT

(CODE,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(), re.DOTALL)
ESPRESSO = 967


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's code leaves, run on a photograph by a network whose weights are here."""
    skimage = importlib.util.find_spec("skimage")
    if skimage is None or skimage.origin is None:
        pytest.skip("needs scikit-image's photographs (pip install 'camray[demo]')")
    monkeypatch.chdir(tmp_path)
    with Image.open(Path(skimage.origin).parent / "data" / "coffee.png") as photo:
        photo.convert("RGB").save("photo.jpg")
    left: dict[str, Any] = {}
    exec(CODE, left)
    return left


def test_the_page_boxes_and_draws_the_object_of_a_photograph(variables: dict[str, Any]) -> None:
    boxes_N4, (width, height) = variables["boxes"].boxes_N4, (600, 400)
    assert (variables["picture"].width, variables["picture"].height) == (width, height)
    assert variables["found"].class_P.tolist() == [ESPRESSO]
    (x0, y0, x1, y1) = boxes_N4[0].tolist()
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    by_eye_14 = np.array([next(photo.box for photo in PHOTOS if photo.file == "coffee.png")], np.float64)
    assert overlaps(boxes_N4, by_eye_14).item() >= 0.5
    with Image.open("overlay.png") as drawn:
        assert drawn.size == (width, height)


def test_its_map_adds_up_to_the_logit_of_the_network_itself(variables: dict[str, Any]) -> None:
    network, shape, found = variables["classifier"].network, variables["shape"], variables["found"]
    mean, std = (torch.tensor(values)[:, None, None] for values in (shape.mean, shape.std))
    with torch.no_grad():
        logits_1K = network((variables["pixels_BCYX"] / 255 - mean) / std)
    assert (variables["mapper"].method, int(logits_1K.argmax())) == ("cam", ESPRESSO)
    explained = variables["raw_Phw"].mean() + float(network._fc.bias[ESPRESSO])
    assert explained == pytest.approx(float(logits_1K[0, ESPRESSO]), rel=1e-4)
    assert float(found.residual_P[0]) < 1e-5


def test_it_is_fifteen_lines_beside_the_imports() -> None:
    lines = [line for line in CODE.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 15
