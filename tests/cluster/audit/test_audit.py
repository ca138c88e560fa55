"""`audit`: figures against plain loops over the stored tables; sharding, frames, splits, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image

from cam_ops.metrics.bootstrap import image_seeds, poisson_weights
from cam_ops.metrics.counts import Split
from tests.support.command import Command, table_rows
from tests.support.stores import Store
from tests.support.wsol_reference import SIDE, level_ious, score_map
from tests.support.wsol_run import reference_run

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
INLINE = ["--executor", "inline"]
LEVELS = [int(t * 255) for t in np.arange(0, 1, 0.001)]


def disc_of(path: Path) -> tuple[int, int, int, int]:
    """Return the half-open box of a picture's disc."""
    y, x = np.nonzero((np.asarray(Image.open(path)) == (200, 220, 240)).all(2))
    return x.min(), y.min(), x.max() + 1, y.max() + 1


def write_truth(pictures: Path, path: Path, words: dict[str, str] | None = None) -> Path:
    """Write the discs as a table; every third has a second object, which no map shows."""
    rows = ["image_id,x0,y0,x1,y1,class"]
    for number, picture in enumerate(sorted(pictures.glob("*/*.png"))):
        name = picture.parent.name
        word = words[name] if words else name
        rows.append(f"{name}/{picture.name},{','.join(map(str, disc_of(picture)))},{word}")
        if number % 3 == 0:
            rows.append(f"{name}/{picture.name},0,0,4,4,{word}")
    path.write_text("\n".join(rows) + "\n")
    return path


def label(pictures: Path, out: object, *more: object) -> None:
    names = pictures.parent / "names.txt"
    names.write_text("discs\nrings\n")
    flags = ["--labels", "folder", "--class-names", names, "--classes", "label+top1", "--precision", "fp32"]
    assert Command("label", "--images", pictures, "--out", out, *INLINE, *TWO, *flags, *more).code == 0


def audit(out: object, *more: object, code: int = 0) -> dict[str, Any]:
    done = Command("audit", out, *INLINE, "--overwrite", *more)
    assert done.code == code, done.err
    return json.loads((Path(str(out)) / "audit" / "metrics.json").read_text())


def values(document: dict[str, Any]) -> dict[str, float | None]:
    return {name: figure["value"] for name, figure in document["metrics"].items()}


@pytest.fixture
def run(pictures: Path, tmp_path: Path) -> Path:
    label(pictures, tmp_path / "run", "--components", "all", "--threshold", 0.25)
    return tmp_path / "run"


@pytest.fixture
def truth(pictures: Path, tmp_path: Path) -> Path:
    return write_truth(pictures, tmp_path / "truth.csv")


class Plain:
    """The same figures by plain loops."""

    def __init__(self, run: Path, pictures: Path) -> None:
        self.images = {row["image_id"]: row for row in table_rows(run, "images")}
        class_of = {"discs": 0, "rings": 1}
        maps = {(row["image_id"], row["class_id"]): row for row in heatmap_rows(run)}
        boxes = [row for row in table_rows(run, "boxes") if row["class_id"] == class_of[row["image_id"][:5]]]
        self.ids = sorted(self.images)
        self.passes, self.best, self.first, self.top = [], [], [], []
        for number, image_id in enumerate(self.ids):
            image, true_class = self.images[image_id], class_of[image_id[:5]]
            half_open = [disc_of(pictures / image_id), *([(0, 0, 4, 4)] if number % 3 == 0 else [])]
            scale = [SIDE / image["width"], SIDE / image["height"]] * 2
            ends = [[x0, y0, x1 - 1, y1 - 1] for x0, y0, x1, y1 in half_open]
            scaled = [[int(end * by) for end, by in zip(box, scale, strict=True)] for box in ends]
            ious = level_ious(score_map(maps[image_id, true_class]["heatmap"]), scaled)[:2]
            self.passes.append(np.array(ious)[:, None] >= np.array([0.3, 0.5, 0.7])[:, None])
            ranked = sorted((row for row in boxes if row["image_id"] == image_id), key=lambda row: row["rank"])
            found = torch.tensor([[row[name] for name in ("x0", "y0", "x1", "y1")] for row in ranked]).reshape(-1, 4)
            overlap = torchvision.ops.box_iou(found.double(), torch.tensor(half_open).double()).max(1).values.tolist()
            self.first.append(overlap[0] if overlap else 0.0)
            self.best.append(max(overlap, default=0.0))
            self.top.append(image["top_classes"][0] == true_class)

    def figures(self, weights: np.ndarray) -> dict[str, float]:
        curve_2DT = np.tensordot(weights, np.array(self.passes), 1)[..., LEVELS] * 100 / weights.sum()
        correct, top = np.array(self.first) >= 0.5, np.array(self.top)
        return {
            "max_box_acc": curve_2DT[0, 1].max(),
            "max_box_acc_v2": curve_2DT[1].max(1).mean(),
            "box_acc_oracle": 100 * weights @ np.array(self.passes)[:, 0, 1].any(1) / weights.sum(),
            "gt_known_loc": 100 * weights @ correct / weights.sum(),
            "top1_loc": 100 * weights @ (correct & top) / weights.sum(),
            "mean_best_iou": 100 * weights @ np.array(self.best) / weights.sum(),
        }


def heatmap_rows(run: Path) -> list[dict[str, Any]]:
    table = ds.dataset(run / "heatmaps").to_table()
    maps = table["heatmap"].combine_chunks().to_numpy_ndarray()
    return [{**row, "heatmap": raw} for row, raw in zip(table.drop(["heatmap"]).to_pylist(), maps, strict=True)]


def test_figures_and_replicates_are_those_of_plain_loops(run: Path, truth: Path, pictures: Path) -> None:
    document = audit(run, "--truth", truth, "--bootstrap", 50)
    plain = Plain(run, pictures)
    expected = plain.figures(np.ones(12))
    assert {name: values(document)[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    weights_BN = poisson_weights(image_seeds(plain.ids), 50)
    replicates = pq.read_table(run / "audit" / "bootstrap.parquet")
    for b, weights_N in enumerate(weights_BN.astype(float)):
        drawn = plain.figures(weights_N)
        assert {name: replicates[name][b].as_py() for name in drawn} == pytest.approx(drawn, abs=1e-4)
    low, median, high = np.percentile(replicates["gt_known_loc"], (2.5, 50, 97.5)) - expected["gt_known_loc"]
    figure = document["metrics"]["gt_known_loc"]
    assert (figure["low"] - figure["value"], figure["high"] - figure["value"]) == pytest.approx(
        (low - median, high - median)
    )
    rows = pq.read_table(run / "audit" / "per_image.parquet").to_pylist()
    assert [row["image_id"] for row in rows] == plain.ids
    assert [row["iou"] for row in rows] == pytest.approx(plain.first, abs=1e-6)
    assert 0 < expected["gt_known_loc"] < 100  # some are found, some are not


@pytest.mark.ray
def test_sharding_and_actors_change_nothing(pictures: Path, truth: Path, tmp_path: Path) -> None:
    documents, files = [], []
    for size, executor in ((12, INLINE), (5, INLINE), (2, ["--executor", "ray", "--replicas", 2])):
        out = tmp_path / f"run-{size}"
        label(pictures, out, "--shard-size", size)
        assert Command("audit", out, *executor, "--truth", truth, "--calibrate", 0.5).code == 0
        document = json.loads((out / "audit" / "metrics.json").read_text())
        documents.append({name: entry for name, entry in document.items() if name not in ("out", "fingerprint")})
        names = ("per_image", "per_class", "bootstrap", "curves")
        tables = [pq.read_table(out / "audit" / f"{name}.parquet") for name in names]
        files.append([table.drop([n for n in ("shard", "row") if n in table.column_names]) for table in tables])
    assert documents[0] == documents[1] == documents[2]
    assert all(a.to_pandas().equals(b.to_pandas()) for other in files[1:] for a, b in zip(files[0], other, strict=True))


def test_a_threshold_is_chosen_on_some_images_and_reported_on_the_others(
    run: Path, truth: Path, pictures: Path
) -> None:
    plain, split = Plain(run, pictures), Split(calibrate=0.5, seed=3)
    figure = audit(run, "--truth", truth, "--calibrate", 0.5, "--seed", 3)["metrics"]["box_acc_calibrated"]
    chosen_N = split.chosen(image_seeds(plain.ids))
    curve_NL = np.array(plain.passes)[:, 0, 1]
    level = curve_NL[chosen_N].sum(0).argmax()
    assert figure["images"] == (~chosen_N).sum() < 12
    assert figure["value"] == pytest.approx(100 * curve_NL[~chosen_N][:, level].mean())
    assert LEVELS.index(level) / 1000 == figure["threshold"]


@pytest.mark.parametrize("resize", ["letterbox", "center-crop"])
def test_maps_of_a_part_or_of_more_than_the_picture_are_seen_in_its_own_frame(
    pictures: Path, truth: Path, tmp_path: Path, resize: str
) -> None:
    """The highest pixel of a map of brightness lies in the disc, wherever the map's grid lies."""
    label(pictures, tmp_path / "run", "--resize", resize, "--threshold", 0.5)
    document = audit(tmp_path / "run", "--truth", truth)
    rows = pq.read_table(tmp_path / "run" / "audit" / "per_image.parquet").to_pylist()
    left, top, right, bottom = (-99, -99, 99, 99) if resize == "letterbox" else (11, 3, 53, 45)  # 7/8 of 48
    seen = []
    for number, row in enumerate(rows):
        boxes = [disc_of(pictures / row["image_id"]), *([(0, 0, 4, 4)] if number % 3 == 0 else [])]
        visible = [
            max(0, min(x1, right) - max(x0, left)) * max(0, min(y1, bottom) - max(y0, top)) / ((x1 - x0) * (y1 - y0))
            for x0, y0, x1, y1 in boxes
        ]
        seen.append(max(visible))
    firsts = [row for row in rows if row["image_id"].startswith("discs")]
    assert all(row["pointing"] for row in firsts if row["reachable_iou"] > 0.5)
    reachable = [row["reachable_iou"] for row in rows]
    assert reachable == pytest.approx(seen)
    assert (min(reachable) < 0.9) == (resize == "center-crop")
    assert document["metrics"]["reachable_70"]["value"] == 100 * np.mean(np.array(reachable) >= 0.7)


@pytest.mark.slow
def test_the_references_maps_and_metadata_give_the_references_figures(data: Path, tmp_path: Path) -> None:
    out = reference_run(data, tmp_path)
    document = audit(out, "--truth", tmp_path / "truth")
    expected = json.loads((data / "wsol_reference" / "expected.json").read_text())
    figures = document["metrics"]
    _, at_50, _ = expected["largest_contour"]["max_box_acc_at_iou_30_50_70"]
    assert figures["max_box_acc"]["value"] == pytest.approx(at_50, abs=1e-9)
    at_all = expected["multi_contour"]["max_box_acc_at_iou_30_50_70"]
    assert figures["max_box_acc_v2"]["value"] == pytest.approx(np.mean(at_all), abs=1e-9)
    assert figures["px_ap_box_filled"]["value"] == pytest.approx(expected["px_ap_box_filled_masks"], abs=1e-9)
    curves = pq.read_table(out / "audit" / "curves.parquet").to_pydict()
    for name, contours in (("box_acc", "largest_contour"), ("box_acc_v2", "multi_contour")):
        for iou, counted in expected[contours]["num_correct"].items():
            assert np.rint(np.array(curves[f"{name}_{iou}"]) * 5).astype(int).tolist() == counted


def test_without_truth_the_maps_themselves_are_judged(run: Path) -> None:
    done = Command("audit", run, *INLINE)
    assert done.code == 0
    document = json.loads((run / "audit" / "metrics.json").read_text())
    assert document["truth"] is None
    assert document["metrics"] == {}
    rows = pq.read_table(run / "audit" / "per_image.parquet").to_pylist()
    boxes = {(row["image_id"], row["class_id"]): row for row in table_rows(run, "boxes") if row["rank"] == 0}
    assert [row["class_id"] for row in rows] == [0] * 6 + [1] * 6  # the label's map, which is the first
    for row in rows:
        assert row["box_area"] == boxes[row["image_id"], row["class_id"]]["area_fraction"]
        assert row["correct"] is None
    first = max(rows, key=lambda row: row["attention"])["image_id"]
    assert document["look_first"][0]["image_id"] == first
    assert repr(first) in done.out


def test_classes_by_map_or_not_at_all(run: Path, pictures: Path, tmp_path: Path) -> None:
    words = {"discs": "Scheibe", "rings": "Ring"}
    truth = write_truth(pictures, tmp_path / "german.csv", words)
    unknown = audit(run, "--truth", truth)["metrics"]
    assert unknown["ap"]["value"] is unknown["corloc"]["value"] is None
    assert "--class-map" in unknown["ap"]["reason"]
    assert unknown["gt_known_loc"]["images"] == 12  # by the run's own labels
    known = audit(run, "--truth", truth, "--class-map", "Scheibe=discs", "Ring=1")["metrics"]
    assert known["ap"]["value"] > 0
    assert known["corloc"]["value"] > 0


def test_a_truth_that_cannot_be_used_leaves_the_earlier_audit_as_it_was(run: Path, truth: Path) -> None:
    audit(run, "--truth", truth)
    names = ("metrics.json", "per_image.parquet", "bootstrap.parquet")
    before = [(run / "audit" / name).read_bytes() for name in names]
    strangers = truth.with_name("strangers.csv")
    strangers.write_text("image_id,x0,y0,x1,y1\nnobody.png,0,0,9,9\n")
    for useless in (strangers, "/nowhere.csv"):
        assert Command("audit", run, *INLINE, "--truth", useless, "--overwrite").code == 2
    assert [(run / "audit" / name).read_bytes() for name in names] == before


def test_where_no_image_is_drawn_no_threshold_is_chosen(run: Path, truth: Path) -> None:
    metrics = audit(run, "--truth", truth, "--calibrate", 1e-9)["metrics"]
    for name in ("box_acc_calibrated", "box_acc_v2_calibrated"):
        assert metrics[name]["value"] is None
        assert "drew none" in metrics[name]["reason"]


def test_masks_give_pixel_figures(run: Path, pictures: Path, tmp_path: Path) -> None:
    counts_2E = np.zeros((2, 1002))
    edges = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])
    maps = {(row["image_id"], row["class_id"]): row["heatmap"] for row in heatmap_rows(run)}
    for picture in pictures.glob("*/*.png"):
        disc_HW = (np.asarray(Image.open(picture)) == (200, 220, 240)).all(2)
        mask = tmp_path / "masks" / picture.parent.name / picture.name
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(disc_HW.astype(np.uint8) * 255).save(mask)
        score_SS = score_map(maps[f"{picture.parent.name}/{picture.name}", int(picture.parent.name == "rings")])
        inside_SS = cv2.resize(disc_HW.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) > 0.5
        counts_2E += [np.histogram(score_SS[inside_SS == value], bins=edges)[0] for value in (True, False)]
    document = audit(run, "--truth", tmp_path / "masks")
    true_E, false_E = counts_2E[:, ::-1].cumsum(1)
    gains = (np.diff(true_E / true_E[-1]) * (true_E / np.maximum(true_E + false_E, 1))[1:]).sum()
    assert document["metrics"]["px_ap"]["value"] == pytest.approx(100 * gains, abs=1e-9)
    assert (
        document["metrics"]["max_box_acc"] | {"value": None, "reason": "the truth has masks alone"}
        == document["metrics"]["max_box_acc"]
    )
    assert document["metrics"]["pointing_game"]["images"] == 12


def test_images_without_a_mask_are_in_no_pixel_figure_where_others_have_one(
    run: Path, pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    lines, masked = [], []
    for number, picture in enumerate(sorted(pictures.glob("*/*.png"))):
        image_id = f"{picture.parent.name}/{picture.name}"
        x0, y0, x1, y1 = disc_of(picture)
        if number % 2:
            lines.append(f"{image_id},{x0},{y0},{x1 - 1},{y1 - 1}")
            continue
        disc_HW = (np.asarray(Image.open(picture)) == (200, 220, 240)).all(2)
        Image.fromarray(disc_HW.astype(np.uint8) * 255).save(folder / f"{number}.png")
        lines.append(f"{image_id},{number}.png,")
        masked.append(lines[-1])
    (folder / "localization.txt").write_text("\n".join(lines))
    mixed = audit(run, "--truth", folder, "--calibrate", 0.5)["metrics"]
    calibrated = mixed["box_acc_calibrated"]["images"]
    chosen = Split(calibrate=0.5).chosen(image_seeds(sorted(row["image_id"] for row in table_rows(run, "images"))))
    assert (mixed["max_box_acc"]["images"], calibrated) == (6, 6 - chosen[1::2].sum())
    (folder / "localization.txt").write_text("\n".join(masked))
    alone = audit(run, "--truth", folder)["metrics"]
    for name in ("px_ap", "pointing_game", "energy_pointing_game", "energy_ratio"):
        assert mixed[name] == alone[name]
        assert mixed[name]["images"] == 6


def test_images_outside_the_figures_are_counted_by_reason(pictures: Path, tmp_path: Path) -> None:
    truth = write_truth(pictures, tmp_path / "truth.csv")
    rows = [row for row in truth.read_text().splitlines() if not row.startswith("rings/00")]
    truth.write_text("\n".join(rows) + "\n")
    (pictures / "discs" / "01.png").write_bytes(b"")
    label(pictures, tmp_path / "run", "--max-error-rate", 0.5)
    document = audit(tmp_path / "run", "--truth", truth)
    assert document["excluded"] == {"not in the truth": 1, "status empty": 1}
    assert document["audited"] == document["metrics"]["max_box_acc"]["images"] == 10
    assert document["images"] == 12


def test_objects_that_are_given_by_shape_or_not_at_all_make_no_right_box_wrong(pictures: Path, tmp_path: Path) -> None:
    """Each image has one box, and its object lies where that is: precision is 100, whatever cannot be read."""
    label(pictures, tmp_path / "run", "--components", "largest", "--classes", "label")
    images, known, lacking = [], [], []
    for number, box in enumerate(table_rows(tmp_path / "run", "boxes")):
        x0, y0, x1, y1 = (round(box[name]) for name in ("x0", "y0", "x1", "y1"))
        images.append({"id": number, "file_name": box["image_id"], "width": 64, "height": 48})
        inside_HW = np.zeros((48, 64), np.uint8)
        inside_HW[y0:y1, x0:x1] = 1
        runs = np.diff(np.flatnonzero(np.diff(inside_HW.T.ravel(), prepend=1 - inside_HW[0, 0], append=2)))
        shape = (
            {"bbox": [x0, y0, x1 - x0, y1 - y0]},
            {"bbox": [], "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]]},
            {"bbox": None, "segmentation": {"size": [48, 64], "counts": [0] * int(inside_HW[0, 0]) + runs.tolist()}},
        )[number % 3]
        said = {"id": number, "image_id": number, "category_id": box["class_id"]}
        known.append({**said, **shape})
        lacking.append({**said, "bbox": shape["bbox"]})
    assert [len(images), len({image["file_name"] for image in images})] == [12, 12]
    figures = {}
    for name, annotations in (("known", known), ("lacking", lacking)):
        categories = [{"id": 0, "name": "discs"}, {"id": 1, "name": "rings"}]
        document = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / "truth.json").write_text(json.dumps(document))
        found = audit(tmp_path / "run", "--truth", tmp_path / "truth.json")
        metrics = found["metrics"]
        wanted = ("instance_precision", "instance_recall", "ap_50", "corloc", "gt_known_loc", "mean_best_iou")
        figures[name] = [metrics[figure]["value"] for figure in wanted]
        assert figures[name][:5] == [100] * 5
        assert metrics["gt_known_loc"]["images"] == metrics["ap_50"]["images"] == (12 if name == "known" else 4)
        assert found["excluded"] == ({} if name == "known" else {"truth incomplete": 8})
    assert found["truth"]["problems"]["unusable_objects"]["count"] == 8
    assert all(iou > 90 for *_, iou in figures.values())


def test_an_object_of_no_known_class_makes_no_detection_wrong(pictures: Path, tmp_path: Path) -> None:
    label(pictures, tmp_path / "run", "--components", "largest", "--classes", "label")
    rows = table_rows(tmp_path / "run", "boxes")
    lines = [
        f"{row['image_id']},{row['x0']},{row['y0']},{row['x1']},{row['y1']},{row['class_name'] if number % 3 else ''}"
        for number, row in enumerate(rows)
    ]
    (tmp_path / "truth.csv").write_text("image,x0,y0,x1,y1,class\n" + "\n".join(lines) + "\n")
    found = audit(tmp_path / "run", "--truth", tmp_path / "truth.csv")
    figures = found["metrics"]
    for name, images in (("instance_precision", 8), ("gt_known_loc", 12)):
        assert (figures[name]["value"], figures[name]["images"]) == (100, images)
    assert found["truth"]["problems"]["boxes_without_class"]["count"] == 4


def test_a_truth_that_was_drawn_before_exif_turned_its_pictures(tmp_path: Path) -> None:
    """A disc in pictures of all orientations, boxed in the stored pixels, is found as well as in upright ones."""
    for folder, exif in (("turned", True), ("upright", False)):
        (tmp_path / folder / "discs").mkdir(parents=True)
        (tmp_path / folder / "rings").mkdir()
        rows = ["image,x0,y0,x1,y1,class"]
        for number in range(1, 9):
            pixels_HW3 = np.full((48, 64, 3), 10, np.uint8)
            pixels_HW3[6:22, 8:28] = 240
            tag = Image.Exif()
            tag[274] = number
            picture = Image.fromarray(pixels_HW3)
            path = tmp_path / folder / "discs" / f"{number}.png"
            (picture.save(path, exif=tag) if exif else picture.save(path))
            rows.append(f"discs/{number}.png,8,6,28,22,discs")
        Image.new("RGB", (64, 48)).save(tmp_path / folder / "rings" / "0.png")
        (tmp_path / f"{folder}.csv").write_text("\n".join(rows) + "\n")
        label(tmp_path / folder, tmp_path / f"run-{folder}", "--threshold", 0.5)
    turned = tmp_path / "run-turned"
    asked = Command("audit", turned, *INLINE, "--truth", tmp_path / "turned.csv")
    assert (asked.code, "EXIF turns 7 pictures, such as discs/2.png" in asked.result["error"]) == (2, True)
    stored = audit(turned, "--truth", tmp_path / "turned.csv", "--truth-frame", "stored")
    upright = audit(tmp_path / "run-upright", "--truth", tmp_path / "upright.csv")
    oriented = audit(turned, "--truth", tmp_path / "turned.csv", "--truth-frame", "oriented")
    assert upright["metrics"]["gt_known_loc"]["value"] == stored["metrics"]["gt_known_loc"]["value"] == 100
    assert oriented["metrics"]["gt_known_loc"]["value"] < 50
    assert (upright["audited"], stored["audited"]) == (8, 8)
    for path in (tmp_path / "turned").rglob("*.png"):
        path.unlink()
    gone = audit(turned, "--truth", tmp_path / "turned.csv")
    assert gone["truth"]["problems"]["unknown_turn"]["count"] == 8


def test_two_audits_of_the_same_images_are_compared_in_pairs(pictures: Path, truth: Path, tmp_path: Path) -> None:
    for name, threshold in (("a", 0.25), ("b", 0.6)):
        label(pictures, tmp_path / name, "--threshold", threshold)
        audit(tmp_path / name, "--truth", truth)
    found = Command("compare", tmp_path / "a", tmp_path / "b", "--fail-if", "gt_known_loc.low > 0")
    assert found.code == 3, found.out
    better = Command("compare", tmp_path / "a", tmp_path / "b", "--fail-if", "max_box_acc_v2 > 0", "max_box_acc_v2 < 0")
    assert better.code == 0  # of the same maps


@pytest.mark.slow
def test_audits_are_paired_where_the_true_boxes_are_the_same_and_not_where_one_has_moved(
    pictures: Path, truth: Path, tmp_path: Path
) -> None:
    label(pictures, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    audit(tmp_path / "run", "--truth", truth)
    header, *lines = truth.read_text().splitlines()
    truth.write_text("\n".join([header, *reversed(lines)]))  # the same in another order
    audit(tmp_path / "other", "--truth", truth)
    assert Command("compare", tmp_path / "run", tmp_path / "other", "--fail-if", "max_box_acc.low < 0").code == 0
    image_id, *corners, class_name = lines[0].split(",")
    moved = [str(int(corner) + 1) for corner in corners]
    truth.write_text("\n".join([header, ",".join([image_id, *moved, class_name]), *lines[1:]]))
    audit(tmp_path / "other", "--truth", truth)
    found = Command("compare", tmp_path / "run", tmp_path / "other", "--fail-if", "max_box_acc.low < 0")
    assert (found.code, "1 have other true boxes or masks" in found.result["error"]) == (2, True)


def test_a_run_on_s3_is_audited_there(s3: Store, pictures: Path, truth: Path) -> None:
    out = s3.address("audited-by-command")
    label(pictures, out, "--storage-options", *s3.words)
    done = Command("audit", out, *INLINE, "--truth", truth, "--storage-options", *s3.words)
    assert done.code == 0, done.err
    again = Command("audit", out, *INLINE, "--truth", truth, "--json", "--storage-options", *s3.words)
    document = again.document
    assert document["metrics"]["gt_known_loc"]["images"] == 12


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--calibrate", 0.3], 2, "--calibrate needs --truth"),
        (["--calibrate", 1], 2, "below 1"),
        (["--bootstrap", -1], 2, "--bootstrap"),
        (["--truth", "/nowhere.csv"], 2, "/nowhere.csv"),
        (["--replicas", 0], 2, "--replicas"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Path, flags: list[object], code: int, said: str) -> None:
    refused = Command("audit", run, *flags)
    assert (refused.code, said in refused.result["error"]) == (code, True), refused.result


def test_of_a_run_that_is_not_whole_what_is_there_is_audited_and_damage_is_named(run: Path, truth: Path) -> None:
    shard = run / "images" / "shard-0000001.parquet"
    content = shard.read_bytes()
    shard.unlink()
    missing = Command("audit", run, *INLINE, "--truth", truth)
    assert (missing.code, missing.result["images"]) == (0, 10)
    assert missing.result["part"] == missing.out.splitlines()[0]
    assert "that belongs to it is not committed" in missing.result["part"]
    shard.write_bytes(content[:-100])
    damaged = Command("audit", run, *INLINE, "--truth", truth)
    assert (damaged.code, "shard-0000001" in damaged.result["error"]) == (5, True)
    shard.write_bytes(content)
    assert Command("audit", run, *INLINE, "--truth", truth).code == 0
    assert Command("verify", run).code == 0


def test_a_mask_that_cannot_be_read_leaves_its_image_out(run: Path, pictures: Path, tmp_path: Path) -> None:
    for picture in pictures.glob("*/*.png"):
        mask = tmp_path / "masks" / picture.parent.name / picture.name
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (64, 48), 255).save(mask)
    (tmp_path / "masks" / "discs" / "01.png").write_bytes(b"no picture")
    document = audit(run, "--truth", tmp_path / "masks")
    assert document["excluded"] == {"mask unreadable": 1}
    assert document["metrics"]["px_ap"]["images"] == 11


def test_masks_that_say_nothing_are_as_boxes_that_are_not_there(run: Path, pictures: Path, tmp_path: Path) -> None:
    """Images without an object, whichever way it is said, are in no figure; nor are masks of another shape."""
    masks, rows = tmp_path / "masks", ["image_id,x0,y0,x1,y1"]
    for number, picture in enumerate(sorted(pictures.glob("*/*.png"))):
        mask = masks / picture.parent.name / picture.name
        mask.parent.mkdir(parents=True, exist_ok=True)
        size = (48, 64) if number == 3 else (128, 96)
        Image.new("L", size, 255 if number > 2 else 0).save(mask)
        box = ",,," if number <= 2 else "0,0,64,48"
        rows.append(f"{picture.parent.name}/{picture.name},{box}")
    document = audit(run, "--truth", masks)
    assert document["excluded"] == {"no true box or mask": 3, "mask of another shape": 1}
    assert (document["metrics"]["pointing_game"]["images"], document["metrics"]["pointing_game"]["value"]) == (8, 100)
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    assert audit(run, "--truth", tmp_path / "boxes.csv")["excluded"] == {"no true box or mask": 3}


def test_pictures_are_no_masks(run: Path, pictures: Path, tmp_path: Path) -> None:
    """Neither themselves nor as a copy."""
    shutil.copytree(pictures, tmp_path / "copy")
    for folder in (pictures, tmp_path / "copy"):
        refused = Command("audit", run, *INLINE, "--truth", folder)
        assert refused.code == 2
        assert "is the picture discs/" in refused.result["error"]


def test_an_audit_that_fails_costs_no_earlier_one_and_leaves_nothing(run: Path, truth: Path) -> None:
    before = audit(run, "--truth", truth)
    shard = run / "heatmaps" / "shard-0000001.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:-50])
    assert Command("audit", run, *INLINE, "--truth", truth).code == 5
    assert json.loads((run / "audit" / "metrics.json").read_text()) == before
    assert not list((run / "audit").glob("audit-*"))
