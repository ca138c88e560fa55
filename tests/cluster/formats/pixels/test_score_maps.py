"""wsolevaluation's score maps: read as its evaluator does, they give the figures that `audit` gives."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.command import Command, table_rows
from tests.support.exported_runs import THREE, ExportedRun, write_picture
from tests.support.map_values import map_rows
from tests.support.written import picture_of, settings_of, written
from tests.support.wsol_reference import SIDE, level_ious, score_map
from tests.support.wsol_run import reference_run

LEVELS = [int(t * 255) for t in np.arange(0, 1, 0.001)]
INLINE = ["--executor", "inline"]


def loaded(scoremap_root: Path, image_id: str) -> np.ndarray:
    """Load a score map and check it as the evaluator does."""
    score_SS = np.load(f"{scoremap_root}/{image_id}.npy")
    assert (score_SS.dtype, score_SS.shape) == (np.float64, (SIDE, SIDE))
    assert not np.isnan(score_SS).any()
    assert (score_SS.min(), score_SS.max()) in ((0, 1), (0, 0))
    return score_SS


def lines(folder: Path, name: str) -> list[list[str]]:
    """Read a list as the evaluator does, which splits at each comma."""
    with (folder / f"{name}.txt").open() as file:
        return [line.strip("\n").split(",") for line in file.readlines()]


def num_correct(out: Path, truth: dict[str, list[list[int]]]) -> np.ndarray:
    """Count the images of an export whose boxes are right: by contours (the largest, all), IoU and threshold."""
    counts_23T = np.zeros((2, 3, len(LEVELS)))
    sizes = {image_id: (int(width), int(height)) for image_id, width, height in lines(out / "metadata", "image_sizes")}
    for (image_id,) in lines(out / "metadata", "image_ids"):
        scaled = (np.array(truth[image_id]) * float(SIDE) / np.array(sizes[image_id] * 2)).astype(int).tolist()
        iou_2L = np.array(level_ious(loaded(out / "scoremaps", image_id), scaled)[:2])
        counts_23T += (iou_2L[:, None] >= np.array([0.3, 0.5, 0.7])[:, None])[..., LEVELS]
    return counts_23T


def audited(run: Path, truth: Path, num_images: int) -> np.ndarray:
    """Return the same counts as `audit` has them."""
    assert Command("audit", run, *INLINE, "--truth", truth).code == 0
    curves = pq.read_table(run / "audit" / "curves.parquet").to_pydict()
    names = [[f"{name}_{iou}" for iou in (30, 50, 70)] for name in ("box_acc", "box_acc_v2")]
    percent_23T = np.array([[curves[name] for name in some] for some in names])
    return np.rint(percent_23T * num_images / 100)


@pytest.mark.slow
def test_the_references_maps_give_the_references_figures(data: Path, tmp_path: Path) -> None:
    run, out = reference_run(data, tmp_path), tmp_path / "out"
    done = Command("export", run, "--to", "wsol", "--out", out, *INLINE, "--keep-empty")
    assert (done.code, done.result["exported"], done.result["boxes"]) == (0, 500, 0)
    truth: dict[str, list[list[int]]] = {}
    for path, *corners in lines(tmp_path / "truth", "localization"):
        truth.setdefault(str(Path(path).with_suffix(".png")), []).append([int(corner) for corner in corners])
    counts_23T = num_correct(out, truth)
    expected = json.loads((data / "wsol_reference" / "expected.json").read_text())
    for counts_3T, contours in zip(counts_23T, ("largest_contour", "multi_contour"), strict=True):
        assert counts_3T.tolist() == [expected[contours]["num_correct"][iou] for iou in ("30", "50", "70")]
    np.testing.assert_array_equal(audited(run, tmp_path / "truth", 500), counts_23T)


def label(pictures: Path, out: Path, *more: object) -> Path:
    (pictures.parent / "names.txt").write_text("discs\nrings\n")
    words = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    words += ["--labels", "folder", "--class-names", pictures.parent / "names.txt", "--precision", "fp32"]
    assert Command("label", "--images", pictures, "--out", out, *INLINE, *words, *more).code == 0
    return out


@pytest.mark.parametrize("resize", ["warp", "letterbox", "center-crop"])
def test_labels_maps_give_the_figures_that_audit_gives(pictures: Path, tmp_path: Path, resize: str) -> None:
    """The label is the top class of none of the rings."""
    run = label(pictures, tmp_path / "run", "--classes", "label+top1", "--resize", resize)
    truth, rows = {}, ["image_id,x0,y0,x1,y1"]
    for path in sorted(pictures.glob("*/*.png")):
        y, x = np.nonzero((np.array(Image.open(path)) == (200, 220, 240)).all(2))
        image_id = str(path.relative_to(pictures))
        truth[image_id] = [[x.min(), y.min(), x.max(), y.max()]]
        rows.append(f"{image_id},{x.min()},{y.min()},{x.max() + 1},{y.max() + 1}")
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    out = tmp_path / "out"
    assert Command("export", run, "--to", "wsol", "--out", out, *INLINE, "--keep-empty").code == 0
    counts_23T = num_correct(out, truth)
    np.testing.assert_array_equal(audited(run, tmp_path / "truth.csv", 12), counts_23T)
    assert 0 < counts_23T.sum() < counts_23T.size * 12
    labels = {image_id: int(word) for image_id, word in lines(out / "metadata", "class_labels")}
    assert labels == {image_id: int(image_id.startswith("rings")) for image_id in truth}
    assert not (out / "metadata" / "localization.txt").exists()
    tops = {row["image_id"]: row["top_classes"][0] for row in table_rows(run, "images")}
    assert any(tops[image_id] != labels[image_id] for image_id in truth)


def test_an_image_without_a_map_of_its_label_has_the_top_classs_and_is_in_no_list(
    pictures: Path, tmp_path: Path
) -> None:
    run, out = label(pictures, tmp_path / "run", "--classes", "top1"), tmp_path / "out"
    assert Command("export", run, "--to", "wsol", "--out", out, *INLINE, "--keep-empty").code == 0
    label_of = {row["image_id"]: row["label"] for row in table_rows(run, "images")}
    top_of = {row["image_id"]: row["class_id"] for row in map_rows(run)}
    right = sorted(image_id for image_id, class_id in top_of.items() if class_id == label_of[image_id])
    assert 0 < len(right) < 12
    for name in ("image_ids", "class_labels", "image_sizes"):
        assert [cells[0] for cells in lines(out / "metadata", name)] == right
    for row in map_rows(run):
        np.testing.assert_array_equal(loaded(out / "scoremaps", row["image_id"]), score_map(row["raw"]))


def test_names_that_break_lists_lead_to_their_maps(hostile: ExportedRun, tmp_path: Path) -> None:
    """Without labels each map is of the class that scores highest, and the lists hold all images but for labels."""
    out = tmp_path / "out"
    done = hostile.export("wsol", out, "--keep-empty")
    assert done.code == 0, done.err
    names = [image_id for (image_id,) in lines(out / "metadata", "image_ids")]
    assert len({*names}) == len(names) == done.result["exported"]
    assert lines(out / "metadata", "class_labels") == []
    sizes = {image_id: (int(width), int(height)) for image_id, width, height in lines(out / "metadata", "image_sizes")}
    best = {}
    for row in map_rows(hostile.root):
        if row["image_id"] not in best or row["score"] > best[row["image_id"]]["score"]:
            best[row["image_id"]] = row
    assert len(best) == len(names)
    for name, image_id in zip(names, sorted(best), strict=True):  # both in the order of ids
        image = hostile.images[image_id]
        assert sizes[name] == (image["width"], image["height"])  # upright
        np.testing.assert_array_equal(loaded(out / "scoremaps", name), score_map(best[image_id]["raw"]))
    assert len(list((out / "scoremaps").rglob("*.npy"))) == len(names)


def test_names_that_differ_in_a_comma_alone_stay_apart(tmp_path: Path) -> None:
    """The evaluator takes a comma for the end of a name."""
    for name in ("a,b.png", "a_b.png"):
        write_picture(tmp_path / "pictures" / "discs" / name, THREE, (50, 40))
    run, out = label(tmp_path / "pictures", tmp_path / "run"), tmp_path / "out"
    assert Command("export", run, "--to", "wsol", "--out", out, *INLINE).code == 0
    names = [image_id for (image_id,) in lines(out / "metadata", "image_ids")]
    assert len({*names}) == 2
    assert {f"{name}.npy" for name in names} == {
        str(path.relative_to(out / "scoremaps")) for path in out.rglob("*.npy")
    }


def test_images_without_a_box_go_out_where_asked_and_without_a_map_never(hostile: ExportedRun, tmp_path: Path) -> None:
    ok = [image_id for image_id, row in hostile.images.items() if row["status"] == "ok"]
    mapped = {row["image_id"] for row in map_rows(hostile.root)}
    few, all_of = (
        hostile.export("wsol", tmp_path / str(at), *words) for at, words in enumerate([(), ("--keep-empty",)])
    )
    assert few.result["exported"] == len(hostile.boxes) < all_of.result["exported"] == len(mapped)
    assert all_of.result["images_left_out"].get("no map", 0) == len(ok) - len(mapped)


def test_of_several_labels_the_one_that_scores_highest(tmp_path: Path) -> None:
    flat, corner = [[1.0, 1], [1, 1]], [[1.0, 0], [0, 0]]
    picture = picture_of((4, 4), {0: flat, 1: flat, 2: corner}, scores={0: 0.9, 1: 0.1, 2: 0.2}, labels=(1, 2))
    out = written("wsol", settings_of(3), [picture], tmp_path / "out")
    assert lines(out / "metadata", "class_labels") == [["a.jpg", "2"]]
    np.testing.assert_array_equal(loaded(out / "scoremaps", "a.jpg"), score_map(np.array(corner)))


def test_splits_have_lists_of_their_own(labelled: ExportedRun, tmp_path: Path) -> None:
    assert labelled.export("wsol", tmp_path / "out", "--split", "folder").code == 0
    for split, count in (("train", 9), ("val", 3)):
        names = [cells[0] for cells in lines(tmp_path / "out" / "metadata" / split, "class_labels")]
        assert len(names) == count
        assert all(f"/{split}/" in name for name in names)
