"""All formats by command, from photographs in folders, from tar files, from a run on S3; read by their consumers.

What each format can hold to the last digit is tested beside its writer; here every image and box arrives.
"""

import gc
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pandas
import pyarrow.dataset as ds
import pytest
import supervision
import webdataset
from datasets import load_dataset
from defusedxml.ElementTree import parse
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import VOCDetection

from cluster.export.config import FormatName
from cluster.formats.entries import VOC_CORNERS
from cluster.formats.exported import split_suffix
from tests.support.command import LITE0, Command
from tests.support.stores import KEY, SECRET, Store

pytestmark = pytest.mark.slow

Boxes = dict[str, list[list[float]]]  # by the image's name without suffix: corners in pixels, ends outside, rising


@pytest.fixture(scope="module")
def runs(data: Path, s3_session: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[str]]]:
    """Runs by name, each with what it takes to reach it: photographs, tar files, and photographs and run on S3."""
    folder, s3 = tmp_path_factory.mktemp("exports"), s3_session
    s3.proxy.heal()
    words = ["--class-names", data / "imagenet_classes.csv", *LITE0, "--precision", "fp32", "--compile", "never"]
    common = [*words, "--executor", "inline", "--refine", "none", "--components", "all"]
    few = folder / "few"
    for path in sorted((data / "photos").glob("*/*"))[::50]:
        target = few / path.relative_to(data / "photos")
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
    there, reach = s3.put(few, "exports/photos"), ["--storage-options", *s3.words]
    tars = data / "tiny_imagenet_val" / "00000.tar"
    made = {
        "photos": (["--images", data / "photos", "--labels", "folder", "--limit", 60], str(folder / "photos"), []),
        "tars": (["--images", tars, "--labels", "tar", "--limit", 60], str(folder / "tars"), []),
        "s3": (["--images", there, "--labels", "folder"], s3.address("exports/run"), reach),
    }
    for flags, out, more in made.values():
        done = Command("label", *flags, *common, "--out", out, *more)
        assert done.code == 0, done.err
    return {name: (out, more) for name, (_, out, more) in made.items()}


def of_run(where: str, s3: Store) -> Boxes:
    """Return the boxes of a run."""
    root = Path(where) if "://" not in where else s3.folder / where.removeprefix(s3.address(""))
    found: Boxes = {}
    for row in ds.dataset(root / "boxes").to_table().to_pylist():
        found.setdefault(split_suffix(row["image_id"])[0], []).append([row[name] for name in ("x0", "y0", "x1", "y1")])
    return {name: sorted(boxes) for name, boxes in found.items()}


def corners(extents: list[list[float]]) -> list[list[float]]:
    return [[x, y, x + width, y + height] for x, y, width, height in extents]


def read_coco(out: Path) -> Iterator[tuple[str, list[list[float]]]]:
    coco = COCO(str(out / "annotations.json"))
    for image in coco.loadImgs(coco.getImgIds()):
        yield image["file_name"], corners([a["bbox"] for a in coco.loadAnns(coco.getAnnIds(image["id"]))])


def read_coco_results(out: Path) -> Iterator[tuple[str, list[list[float]]]]:
    truth = out.parent / "coco"
    coco = COCO(str(truth / "annotations.json"))
    found = coco.loadRes(str(out / "results.json"))
    for image in coco.loadImgs(coco.getImgIds()):
        yield image["file_name"], corners([a["bbox"] for a in found.loadAnns(found.getAnnIds(image["id"]))])


def read_yolo(out: Path) -> Iterator[tuple[str, list[list[float]]]]:
    folders = {path.parent for path in (out / "images").rglob("*") if path.is_file()}
    for folder in folders:  # supervision reads one
        labels = out / "labels" / folder.relative_to(out / "images")
        dataset = supervision.DetectionDataset.from_yolo(str(folder), str(labels), str(out / "data.yaml"))
        for path, _, detections in dataset:
            name = str(Path(path).relative_to(out / "images"))
            yield name.partition("/")[2], detections.xyxy.astype(float).tolist()


def read_voc(out: Path) -> Iterator[tuple[str, list[list[float]]]]:
    dataset = VOCDetection(str(out.parent / "voc-root"), year="2012", image_set="trainval")
    for picture, document in dataset:
        annotation = document["annotation"]
        assert picture.size == (int(annotation["size"]["width"]), int(annotation["size"]["height"]))
        edges = [[int(thing["bndbox"][name]) for name in VOC_CORNERS] for thing in annotation["object"]]
        yield annotation["filename"], (np.array(edges) - [1, 1, 0, 0]).tolist()


def read_label_studio(out: Path) -> Iterator[tuple[str, list[list[float]]]]:
    for task in json.loads((out / "tasks.json").read_text()):
        regions = task["predictions"][0]["result"]
        sizes = [[region["original_width"], region["original_height"]] * 2 for region in regions]
        percents = [[region["value"][name] for name in ("x", "y", "width", "height")] for region in regions]
        yield task["data"]["image_id"], corners((np.array(percents) * sizes / 100).tolist())


def read_cvat(out: Path) -> Iterator[tuple[str, list[list[float]]]]:
    for image in parse(str(out / "annotations.xml")).getroot().iter("image"):
        yield image.get("name"), [[float(box.get(e)) for e in ("xtl", "ytl", "xbr", "ybr")] for box in image]


def read_csv(out: Path) -> Iterator[tuple[str, list[list[float]]]]:
    for name, rows in pandas.read_csv(out / "boxes.csv").groupby("filename"):
        yield str(name), rows[["xmin", "ymin", "xmax", "ymax"]].astype(float).to_numpy().tolist()


def read_loc(out: Path) -> Iterator[tuple[str, list[list[float]]]]:
    for _, row in pandas.read_csv(out / "loc.csv").iterrows():
        words = np.array(row["PredictionString"].split()).reshape(-1, 5)[:, 1:].astype(float)
        yield row["ImageId"], np.add(words, [0, 0, 1, 1]).tolist()


def read_huggingface(out: Path) -> Iterator[tuple[str, list[list[float]]]]:
    for row in load_dataset(str(out), split="train", cache_dir=str(out.parent / "cache")):
        assert row["image"].size == (row["width"], row["height"])
        yield row["image_id"], corners(row["objects"]["bbox"])


def read_webdataset(out: Path) -> Iterator[tuple[str, list[list[float]]]]:
    shards = sorted(map(str, (out / "shards").glob("*.tar")))
    with warnings.catch_warnings(category=ResourceWarning, action="ignore"):  # it does not close its files
        samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pil"))
        gc.collect()
    for sample in samples:
        yield sample["json"]["image_id"], sample["json"]["boxes"]


def read_wsol(out: Path) -> Iterator[str]:
    for path in (out / "scoremaps").rglob("*.npy"):
        score_SS = np.load(path)
        assert (score_SS.shape, score_SS.min(), score_SS.max()) == ((224, 224), 0, 1)
        yield str(path.relative_to(out / "scoremaps"))[: -len(".npy")]


def read_seeds(out: Path) -> Iterator[str]:
    numbers = {*pandas.read_csv(out / "classes.csv")["number"]}
    for path in (out / "seeds").rglob("*.png"):
        assert {*np.unique(np.asarray(Image.open(path)))} <= {0, 255} | numbers
        yield str(path.relative_to(out / "seeds"))


def read_masks(out: Path) -> Iterator[str]:
    for _, row in pandas.read_csv(out / "masks.csv").iterrows():
        assert np.asarray(Image.open(out / row["file"])).max() > 200
        yield row["image_id"]


READERS: dict[str, tuple[Callable[[Path], Iterator[tuple[str, list[list[float]]]]], float]] = {
    "coco": (read_coco, 1e-3),
    "coco-results": (read_coco_results, 1e-3),
    "yolo": (read_yolo, 1e-3),
    "voc": (read_voc, 0.5),
    "label-studio": (read_label_studio, 1e-3),
    "cvat": (read_cvat, 1e-3),
    "csv": (read_csv, 1e-3),
    "loc": (read_loc, 0.5),
    "huggingface": (read_huggingface, 1e-3),
    "webdataset": (read_webdataset, 1e-3),
}
"""By format: its consumer, and by how many pixels a side may be off, rounding of two corners included."""
OF_MAPS = {"wsol": read_wsol, "seeds": read_seeds, "masks": read_masks}
FLAGS = {
    "yolo": ["--split", "train=0.5,val=0.5"],
    "label-studio": ["--url-prefix", "https://pictures/"],
    "seeds": ["--category-ids", "used"],
}


def test_each_format_has_its_reader_here() -> None:
    assert {*READERS, *OF_MAPS} == {*get_args(FormatName)}


@pytest.mark.parametrize("name", ["photos", "tars", "s3"])
def test_every_image_and_box_of_a_run_arrives_in_every_format(
    runs: dict[str, tuple[str, list[str]]],
    name: str,
    s3_session: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    where, more = runs[name]
    expected = of_run(where, s3_session)
    assert len(expected) == (10 if name == "s3" else 60)
    for form, (read, off_px) in READERS.items():
        out = tmp_path / "voc-root" / "VOCdevkit" / "VOC2012" if form == "voc" else tmp_path / form
        done = Command("export", where, "--to", form, "--out", out, *FLAGS.get(form, []), *more)
        assert (done.code, done.result["exported"]) == (0, len(expected)), (form, done.err)
        found = {split_suffix(image)[0]: sorted(boxes) for image, boxes in read(tmp_path / form)}
        assert found.keys() == expected.keys(), form
        for image, boxes in expected.items():
            near = np.sort(np.array(found[image]), axis=0), np.sort(np.array(boxes), axis=0)
            assert near[0].shape == near[1].shape, (form, image)
            assert np.abs(near[0] - near[1]).max() <= off_px + 1e-3, (form, image)
    for form, reader in OF_MAPS.items():
        done = Command("export", where, "--to", form, "--out", tmp_path / form, *FLAGS.get(form, []), *more)
        assert (done.code, done.result["exported"]) == (0, len(expected)), (form, done.err)
        assert {split_suffix(image)[0] for image in reader(tmp_path / form)} == expected.keys(), form


def test_a_report_of_a_run_on_a_store_has_its_pictures_and_boxes_and_no_secret(
    runs: dict[str, tuple[str, list[str]]], s3_session: Store, tmp_path: Path
) -> None:
    where, more = runs["s3"]
    local = tmp_path / "page.html"
    assert Command("report", where, *more).code == 0
    assert Command("report", where, "--out", local, *more).code == 0
    there = s3_session.folder / "exports" / "run" / "report.html"
    log = "".join(path.read_text() for path in there.parent.glob("log/*.jsonl"))
    assert len(log.splitlines()) > 3
    for text in (there.read_text(), local.read_text(), log, (there.parent / "run.json").read_text()):
        assert SECRET not in text
        assert KEY not in text
    state = json.loads(there.read_text().split('<script type="application/json" id="state">')[1].split("</script>")[0])
    expected = of_run(where, s3_session)
    found = {
        split_suffix(card["id"])[0]: sorted(box["box"] for shown in card["maps"] for box in shown["boxes"])
        for card in state["cards"]
    }
    assert found == {name: expected.get(name, []) for name in found}
    assert len(found) == 10
    assert there.read_text().count('src="data:image/webp;base64,') == 10
