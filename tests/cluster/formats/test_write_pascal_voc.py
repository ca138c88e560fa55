"""Pascal VOC as an export: what torchvision, supervision and our own audit read of it is the run's."""

from pathlib import Path

import numpy as np
import pytest
import supervision
from defusedxml.ElementTree import parse
from PIL import Image
from torchvision.datasets import VOCDetection

from cluster.formats.entries import VOC_CORNERS
from tests.support.exported_runs import ExportedRun, corners, labelled_run

DEVKIT = "VOCdevkit/VOC2012"  # where torchvision looks
HALF = 0.5 + 1e-6  # by which a side may be off: the nearest line between pixels; no box of these runs is thinner


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_torchvision_reads_each_box_of_the_run_on_upright_jpeg_files(hostile: ExportedRun, tmp_path: Path) -> None:
    done = hostile.export("voc", tmp_path / DEVKIT)
    assert done.code == 0, done.err
    dataset = VOCDetection(str(tmp_path), year="2012", image_set="trainval")
    ids = {image_id.strip(): image_id for image_id in hostile.boxes}  # torchvision strips texts
    found = set()
    for path, (picture, target) in zip(dataset.images, dataset, strict=True):
        annotation = target["annotation"]
        image_id = ids[annotation["source"]["image"]]
        rows, image = hostile.boxes[image_id], hostile.images[image_id]
        assert picture.size == (image["width"], image["height"])
        assert annotation["size"] == {"width": str(image["width"]), "height": str(image["height"]), "depth": "3"}
        assert path == str(tmp_path / DEVKIT / "JPEGImages" / annotation["filename"])
        with Image.open(path) as file:
            assert (file.format, file.getexif().get(0x0112, 1)) == ("JPEG", 1)
        drawn = [[int(thing["bndbox"][name]) for name in VOC_CORNERS] for thing in annotation["object"]]
        np.testing.assert_allclose(np.array(drawn) - [1, 1, 0, 0], corners(rows), rtol=0, atol=HALF)
        assert np.min(drawn) >= 1
        assert (np.max(drawn, axis=0)[2:] <= picture.size).all()
        numbered = {0: "crane (0)", 3: "crane (3)"}  # of one name
        names = [numbered.get(row["class_id"], row["class_name"]) for row in rows]
        assert [thing["name"] for thing in annotation["object"]] == names
        scores = [float(thing["score"]) for thing in annotation["object"]]
        np.testing.assert_allclose(scores, [row["score"] for row in rows], rtol=0, atol=1e-6)
        found.add(image_id)
    assert found == hostile.boxes.keys()


def test_the_colour_under_a_box_of_a_turned_picture_is_that_of_its_class(hostile: ExportedRun, tmp_path: Path) -> None:
    assert hostile.export("voc", tmp_path / "out").code == 0
    with Image.open(tmp_path / "out" / "JPEGImages" / "turned.jpg") as file:
        pixels_HWC = np.asarray(file)
    for thing in parse(tmp_path / "out" / "Annotations" / "turned.xml").findall("object"):
        xmin, ymin, xmax, ymax = (int(thing.findtext(f"bndbox/{name}")) for name in VOC_CORNERS)
        channel = {"crane (0)": 0, 'a <b>"c" & d</b>, e': 1}[thing.findtext("name")]
        assert pixels_HWC[(ymin + ymax) // 2, (xmin + xmax) // 2].argmax() == channel


def test_supervision_reads_the_same_boxes_of_one_folder(hostile: ExportedRun, tmp_path: Path) -> None:
    assert hostile.export("voc", tmp_path / "out").code == 0
    folder = tmp_path / "out" / "JPEGImages"
    dataset = supervision.DetectionDataset.from_pascal_voc(str(folder), str(tmp_path / "out" / "Annotations"))
    assert len(dataset) == len(list(folder.glob("*.jpg"))) == 13
    plain = [path for path in dataset.image_paths if Path(path).name in {"turned.jpg", "@-+ 100% #1?.jpg"}]
    assert len(plain) == 2
    for path in plain:
        rows = hostile.boxes[Path(path).name]
        np.testing.assert_allclose(dataset.annotations[path].xyxy, corners(rows), rtol=0, atol=HALF)


def test_our_own_audit_finds_each_box_where_the_run_has_it(
    hostile: ExportedRun, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    run = labelled_run(tmp_path_factory.mktemp("labelled"), scale=10)
    assert run.export("voc", tmp_path / "whole").code == 0
    figures = run.audited(tmp_path / "whole" / "Annotations")
    assert {figures[name]["value"] for name in ("ap", "ap_50", "gt_known_loc", "mean_best_iou")} == {100}
    assert figures["ap"]["images"] == 12
    assert hostile.export("voc", tmp_path / "rounded").code == 0
    figures = hostile.audited(tmp_path / "rounded" / "Annotations")
    assert (figures["ap_50"]["value"], figures["ap_50"]["images"]) == (100, 7)  # the others bear another name there


def test_splits_are_lists_of_names_beside_one_folder_of_pictures(labelled: ExportedRun, tmp_path: Path) -> None:
    assert labelled.export("voc", tmp_path / "out", "--split", "folder").code == 0
    sets = {path.stem: lines(path) for path in (tmp_path / "out" / "ImageSets" / "Main").iterdir()}
    ids = sorted(labelled.boxes)
    assert sets == {
        split: [image_id.rpartition(".")[0] for image_id in ids if f"/{split}/" in image_id]
        for split in ("train", "val")
    }
    for stem in sets["train"] + sets["val"]:
        for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
            assert (tmp_path / "out" / folder / f"{stem}.{suffix}").is_file()


def test_without_pictures_each_still_has_a_file_of_its_own(hostile: ExportedRun, tmp_path: Path) -> None:
    assert hostile.export("voc", tmp_path / "out", "--pictures", "none").code == 0
    assert not (tmp_path / "out" / "JPEGImages").exists()
    ids = [parse(path).findtext("source/image") for path in (tmp_path / "out" / "Annotations").rglob("*.xml")]
    assert sorted(ids) == sorted(hostile.boxes)  # a.jpg, a.png and A.JPG among them


def test_a_kept_picture_without_a_box_has_no_object(hostile: ExportedRun, tmp_path: Path) -> None:
    assert hostile.export("voc", tmp_path / "out", "--keep-empty").code == 0
    root = parse(tmp_path / "out" / "Annotations" / "black.xml").getroot()
    assert (root.findtext("filename"), root.findall("object")) == ("black.jpg", [])
    assert "black" in lines(tmp_path / "out" / "ImageSets" / "Main" / "trainval.txt")


def test_a_calibrated_box_has_its_probability(calibrated: ExportedRun, tmp_path: Path) -> None:
    assert calibrated.export("voc", tmp_path / "out", "--pictures", "none").code == 0
    objects = parse(tmp_path / "out" / "Annotations" / "turned.xml").findall("object")
    found = [float(thing.findtext("probability")) for thing in objects]
    expected = [row["probability"] for row in calibrated.boxes["turned.jpg"]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
