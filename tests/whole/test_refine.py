"""Refined maps by the command line: what is stored, what is the same as without, resuming, and what else reads them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cam_ops.explain.mapper import Mapper
from cam_ops.pictures.decode import decode_for
from cam_ops.pictures.fit import fit
from cam_ops.settings import ExplainConfig, RefineConfig
from cam_ops.tables import CORNERS
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from tests.support.command import Command, table_rows
from tests.support.networks import Chain
from tests.support.refine_reference import reference_map, reference_tensors

INLINE = ["--executor", "inline"]
EXACT = [*INLINE, "--device", "cpu", "--precision", "fp32", "--compile", "never", "--batch-size", 4, "--shard-size", 4]
COLOURS = ["--mean", 0.5, 0.4, 0.3, "--std", 0.2, 0.3, 0.25]
CHAIN = ["--model", "tests.support.networks:chain", *COLOURS, "--image-size", 64]
TWO = ["--model", "tests.support.networks:two_channels", *COLOURS, "--image-size", 32]
ROUNDING = 2.0**-5  # of a map with 5 bits behind the point, and then some


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-two pictures of bright discs on noise, wide, tall and square."""
    generator, folder = np.random.default_rng(0), tmp_path_factory.mktemp("refine") / "photos"
    folder.mkdir()
    for i in range(22):
        height, width = [(50, 64), (90, 42), (64, 64), (28, 100)][i % 4]
        image_HWC = generator.integers(0, 90, (height, width, 3), np.uint8)
        y, x = generator.integers(8, height - 8), generator.integers(8, width - 8)
        rows, columns = np.ogrid[:height, :width]
        image_HWC[(rows - y) ** 2 + (columns - x) ** 2 < 64] = (200, 220, 240)
        Image.fromarray(image_HWC).save(folder / f"{i:02d}.png")
    return folder


def label(photos: Path, out: Path, *more: object, network: list[object] = CHAIN) -> Command:
    classes = [] if "--classes" in more or "--recipe" in more else ["--classes", "topk:2"]
    return Command("label", "--images", photos, "--out", out, *EXACT, *network, *classes, *more)


def labelled(photos: Path, out: Path, *more: object, network: list[object] = CHAIN) -> Path:
    done = label(photos, out, *more, network=network)
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope="module")
def refined(photos: Path) -> Path:
    return labelled(photos, photos.parent / "refined")


@pytest.fixture(scope="module")
def plain(photos: Path) -> Path:
    return labelled(photos, photos.parent / "plain", "--refine", "none")


@pytest.fixture(scope="module")
def keeping(photos: Path) -> Path:
    return labelled(photos, photos.parent / "keeping", "--keep-cam")


def run_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())


def column(out: Path, name: str, table: str = "heatmaps") -> np.ndarray:
    return np.array([row[name] for row in table_rows(out, table)])


def corners(out: Path) -> np.ndarray:
    return np.array([[box[name] for name in CORNERS] for box in table_rows(out, "boxes")])


def assert_close(found_PN: np.ndarray, expected_PN: np.ndarray, rounding: float = ROUNDING) -> None:
    """Compare maps, each within the rounding of its values and a millionth of its peak."""
    assert len(found_PN) == len(expected_PN) > 0
    for found_N, expected_N in zip(found_PN, expected_PN, strict=True):
        np.testing.assert_allclose(found_N, expected_N, rtol=rounding, atol=1e-6 * np.abs(expected_N).max())


def copy_of(run: Path, to: Path, *without: int) -> Path:
    """Copy a run, with some of its shards undone."""
    shutil.copytree(run, to)
    for shard in without:
        (to / "images" / f"shard-{shard:07d}.parquet").unlink()
    return to


def tables(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("[bhi]*/*.parquet"))}


def fitted(photos: Path, name: str, run: Path) -> tuple[torch.Tensor, np.ndarray]:
    """Return a picture as the network of a run gets it, (1, 3, 64, 64), and the rectangle that it covers."""
    shape = existing_run(RunDir(str(run))).request.preprocessing
    pixels_SS3, rectangle = fit(decode_for((photos / name).read_bytes(), shape), shape)
    return torch.from_numpy(pixels_SS3.copy()).permute(2, 0, 1)[None], rectangle


def test_run_json_and_the_console_say_what_maps_are_refined_from(photos: Path, plain: Path, tmp_path: Path) -> None:
    done = label(photos, tmp_path / "run")
    assert "grid 4x4, refined to 16x16 (auto) from c (8x8) and b" in done.err
    run, before = run_of(tmp_path / "run"), run_of(plain)
    assert run["request"]["refinement"] == {"layers": ["c", "b"], "cam_grid": [4, 4], "keep_cam": False}
    assert (run["grid"], before["grid"], before["request"].get("refinement")) == ([16, 16], [4, 4], None)
    assert run["fingerprint"] != before["fingerprint"]
    heatmaps = pq.read_schema(tmp_path / "run" / "heatmaps" / "shard-0000000.parquet")
    assert json.loads(heatmaps.metadata[b"camray"])["refinement"]["layers"] == ["c", "b"]
    assert "not refined (as asked)" in label(photos, tmp_path / "none", "--refine", "none").err
    assert "16x16 (as asked) from c" in label(photos, tmp_path / "affinity", "--refine", "affinity").err
    assert tables(tmp_path / "affinity") == tables(tmp_path / "run")


def test_the_stored_map_is_the_mapper_s_and_the_slow_reference_s(photos: Path, refined: Path, plain: Path) -> None:
    network = Chain()
    mapper = Mapper(network, ExplainConfig(), 64, COLOURS[1:4], COLOURS[5:8], RefineConfig())
    cams = {(row["image_id"], row["class_id"]): np.array(row["heatmap"]) for row in table_rows(plain, "heatmaps")}
    assert len(cams) == 44
    for row in table_rows(refined, "heatmaps"):
        pixels_1CSS, _ = fitted(photos, row["image_id"], refined)
        pair = torch.tensor([0]), torch.tensor([row["class_id"]])
        found_N = np.array(row["heatmap"])
        assert_close(found_N[None], mapper.explain(pixels_1CSS, lambda _, pair=pair: pair).maps_PHW.flatten(1).numpy())
        assert not (found_N.astype(np.float32).view(np.int32) & (2**18 - 1)).any()  # 5 bits of 23
        normalised_1CSS = (pixels_1CSS / 255 - mapper.mean_C[:, None, None]) / mapper.std_C[:, None, None]
        features = reference_tensors(network.double(), normalised_1CSS.double(), "c", "b", row["class_id"])
        network.float()
        cam_hw = cams[row["image_id"], row["class_id"]].reshape(4, 4)
        *features, gradient_CKK = features
        gradient_CKK = gradient_CKK * 64  # by a cell's share of 8x8
        expected_QQ = reference_map(cam_hw, *features, gradient_CKK).clip(min=0)
        np.testing.assert_allclose(
            found_N.reshape(16, 16), expected_QQ, rtol=ROUNDING, atol=1e-4 * np.abs(expected_QQ).max()
        )


def test_a_kept_cam_is_the_map_of_a_run_that_is_not_refined_bit_for_bit(
    refined: Path, plain: Path, keeping: Path
) -> None:
    assert np.array_equal(column(keeping, "cam"), column(plain, "heatmap"))
    assert np.array_equal(column(keeping, "heatmap"), column(refined, "heatmap"))
    assert (column(refined, "heatmap") >= 0).all()
    assert (column(plain, "heatmap") < 0).any()
    for name in ("class_id", "score", "logit", "residual"):
        assert np.array_equal(column(refined, name), column(plain, name)), name
        assert np.array_equal(column(keeping, name), column(plain, name)), name
    assert (column(refined, "residual") < 1e-5).all()
    assert np.array_equal(corners(refined), corners(keeping))
    assert not np.array_equal(corners(refined), corners(plain))
    schema = pq.read_schema(keeping / "heatmaps" / "shard-0000000.parquet")
    assert (schema.names[-1], schema.field("cam").type.shape) == ("cam", [4, 4])
    assert run_of(keeping)["request"]["refinement"]["keep_cam"] is True
    for out in (refined, plain, keeping):
        assert Command("verify", out).code == 0


def test_the_blog_s_recipe_is_not_refined_unless_asked(photos: Path, tmp_path: Path) -> None:
    recipe = ["--recipe", "blog", "--image-size", 64]
    blog = run_of(labelled(photos, tmp_path / "blog", *recipe))
    assert (blog["request"].get("refinement"), blog["grid"]) == (None, [4, 4])
    both = run_of(labelled(photos, tmp_path / "both", *recipe, "--refine", "affinity"))
    assert both["grid"] == [16, 16]


def test_auto_falls_back_where_there_is_nothing_and_affinity_is_refused(photos: Path, tmp_path: Path) -> None:
    reason = "the network reduces its grid 0 time(s), two are needed"
    done = label(photos, tmp_path / "auto", network=TWO)
    assert (done.code, f"not refined (auto, as {reason})" in done.err) == (0, True), done.err
    labelled(photos, tmp_path / "none", "--refine", "none", network=TWO)
    assert run_of(tmp_path / "auto")["fingerprint"] == run_of(tmp_path / "none")["fingerprint"]
    assert tables(tmp_path / "auto") == tables(tmp_path / "none")
    for out in ("auto", "new"):
        refused = label(photos, tmp_path / out, "--refine", "affinity", network=TWO)
        assert (refused.code, refused.result["error"]) == (2, f"--refine affinity: {reason}; or use --refine none")
    assert not (tmp_path / "new" / "run.json").exists()


@pytest.mark.parametrize("undone", [(), (1,)])
def test_resuming_with_other_words_for_the_same_goes_on_and_with_another_refinement_is_refused(
    photos: Path, refined: Path, plain: Path, keeping: Path, tmp_path: Path, undone: tuple[int, ...]
) -> None:
    named = labelled(photos, tmp_path / "named", "--refine-layers", "a", "b")
    assert run_of(named)["request"]["refinement"]["layers"] == ["b", "a"]
    cases: list[tuple[Path, list[object], str]] = [
        (plain, [], ""),
        (plain, ["--refine", "none"], ""),
        (plain, ["--keep-cam"], ""),
        (plain, ["--refine", "affinity"], "refinement.layers was None, now c b"),
        (plain, ["--refine-layers", "c", "b"], "refinement.layers was None, now c b"),
        (refined, [], ""),
        (refined, ["--refine", "affinity"], ""),
        (refined, ["--refine-layers", "b", "c"], ""),
        (refined, ["--refine", "none"], "refinement.layers was c b, now None"),
        (refined, ["--refine-layers", "a", "b"], "refinement.layers was c b, now b a"),
        (refined, ["--keep-cam"], "refinement.keep_cam was False, now True"),
        (keeping, ["--keep-cam"], ""),
        (keeping, [], "refinement.keep_cam was True, now False"),
        (named, ["--refine-layers", "a", "b"], ""),
        (named, [], ""),
        (named, ["--refine", "affinity"], "refinement.layers was b a, now c b"),
    ]
    for number, (run, flags, reason) in enumerate(cases):
        out = copy_of(run, tmp_path / str(number), *undone)
        again = label(photos, out, *flags)
        assert (again.code, reason in again.result.get("error", "")) == (4 if reason else 0, True), (flags, again.err)
        if not reason:
            assert tables(out) == tables(run), flags
            assert run_of(out) == run_of(run)
            assert "compiling" not in again.err
            assert ("they are what --keep-cam would keep" in again.err) == (run is plain and "--keep-cam" in flags)


def test_a_number_that_is_not_finite_is_found_in_the_kept_map_too(keeping: Path, tmp_path: Path) -> None:
    out = copy_of(keeping, tmp_path / "run")
    path = out / "heatmaps" / "shard-0000001.parquet"
    table = pq.read_table(path)
    cam = table["cam"].combine_chunks()
    values = cam.storage.flatten().to_numpy().copy()
    values[5] = np.nan
    damaged = pa.ExtensionArray.from_storage(cam.type, pa.FixedSizeListArray.from_arrays(values, 16))
    at = table.schema.get_field_index("cam")
    table = table.set_column(at, table.schema.field(at), damaged.cast(cam.type))
    pq.write_table(table.replace_schema_metadata(pq.read_schema(path).metadata), path)
    found = Command("verify", out)
    assert (found.code, "a map holds a number that is not finite" in found.err + found.out) == (3, True), found.result


@pytest.fixture
def truth(photos: Path, plain: Path, tmp_path: Path) -> Path:
    """The discs' boxes, as if the network were right about their classes."""
    rows = ["image_id,x0,y0,x1,y1,class_id"]
    top = {row["image_id"]: row["top_classes"][0] for row in table_rows(plain, "images")}
    for path in sorted(photos.glob("*.png")):
        y, x = np.nonzero((np.asarray(Image.open(path)) == (200, 220, 240)).all(2))
        rows.append(f"{path.name},{x.min()},{y.min()},{x.max() + 1},{y.max() + 1},{top[path.name]}")
    (tmp_path / "truth.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "truth.csv"


def test_what_reads_runs_reads_refined_ones(
    photos: Path, refined: Path, plain: Path, keeping: Path, truth: Path, tmp_path: Path
) -> None:
    boxes = ["--threshold", 0.5, "--components", "all"]
    wanted = labelled(photos, tmp_path / "wanted", "--keep-cam", *boxes)
    assert Command("rebox", keeping, "--out", tmp_path / "reboxed", *INLINE, *boxes).code == 0
    assert Command("verify", tmp_path / "reboxed").code == 0
    reboxed = tables(tmp_path / "reboxed")
    assert reboxed == {name: content for name, content in tables(wanted).items() if name in reboxed}
    assert len(reboxed) == 12
    refused = label(photos, copy_of(keeping, tmp_path / "run"), "--keep-cam", *boxes)
    assert (refused.code, "rebox" in refused.result["error"]) == (4, True)
    for run in (plain, keeping):
        out = copy_of(run, tmp_path / f"{run.name}-audited")
        assert Command("audit", out, "--truth", truth, *INLINE).code == 0
        assert Command("show", out, "03.png", "--to", out / "shown.png").code == 0
        assert Command("status", out).code == 0
    compared = Command("compare", tmp_path / "plain-audited", tmp_path / "keeping-audited")
    assert compared.code == 0, compared.err
    assert "refinement.layers" in compared.out


def test_a_calibration_holds_for_maps_refined_from_the_same_layers_only(
    photos: Path, refined: Path, keeping: Path, plain: Path, truth: Path, tmp_path: Path
) -> None:
    files = {run.name: tmp_path / f"{run.name}.json" for run in (plain, refined)}
    for run in (plain, refined):
        done = Command("calibrate", run, "--truth", truth, "--out", files[run.name], "--holdout", 0)
        assert done.code == 0, done.err
    for run in (refined, keeping):
        out = tmp_path / f"{run.name}-calibrated"
        assert Command("rebox", run, "--out", out, *INLINE, "--calibration", files["refined"]).code == 0
    for run, other in ((plain, "refined"), (refined, "plain")):
        refused = Command("rebox", run, "--out", tmp_path / "new", *INLINE, "--calibration", files[other])
        assert (refused.code, "its refined_from is" in refused.result["error"]) == (2, True), refused.result
    before = json.loads(files["plain"].read_text())
    assert before["maps_of"].pop("refined_from") == []
    files["plain"].write_text(json.dumps(before))  # as before maps could be refined
    assert Command("rebox", plain, "--out", tmp_path / "old", *INLINE, "--calibration", files["plain"]).code == 0


def test_of_a_letterboxed_picture_the_map_is_0_outside_and_the_reference_s_inside(photos: Path, tmp_path: Path) -> None:
    out = labelled(photos, tmp_path / "run", "--resize", "letterbox", "--keep-cam")
    network, seen, num_maps = Chain().double(), set(), 0
    sizes = {row["image_id"]: (row["width"], row["height"]) for row in table_rows(out, "images")}
    for row in table_rows(out, "heatmaps"):
        pixels_1CSS, (x0, y0, x1, y1) = fitted(photos, row["image_id"], out)
        width, height = sizes[row["image_id"]]
        inside = -x0 / (x1 - x0), -y0 / (y1 - y0), (width - x0) / (x1 - x0), (height - y0) / (y1 - y0)
        centre_Q = (np.arange(16) + 0.5) / 16
        is_in_QQ = np.outer(
            (inside[1] < centre_Q) & (centre_Q < inside[3]), (inside[0] < centre_Q) & (centre_Q < inside[2])
        )
        map_QQ = np.array(row["heatmap"]).reshape(16, 16)
        assert (map_QQ[~is_in_QQ] == 0).all()
        seen.add(int(is_in_QQ.sum()))
        num_maps += map_QQ.any()
        normalised_1CSS = (pixels_1CSS / 255 - torch.tensor(COLOURS[1:4])[:, None, None]) / torch.tensor(COLOURS[5:8])[
            :, None, None
        ]
        features = reference_tensors(network, normalised_1CSS.double(), "c", "b", row["class_id"])
        *features, gradient_CKK = features
        gradient_CKK = gradient_CKK * 64  # by a cell's share of 8x8
        expected_QQ = reference_map(np.array(row["cam"]).reshape(4, 4), *features, gradient_CKK, inside).clip(min=0)
        np.testing.assert_allclose(map_QQ, expected_QQ, rtol=ROUNDING, atol=1e-4 * np.abs(expected_QQ).max())
    assert num_maps > 30  # the network says no class of some cells
    assert seen == {16 * 12, 8 * 16, 16 * 16, 4 * 16}
    boxes = table_rows(out, "boxes")
    assert len(boxes) == num_maps
    for box in boxes:
        width, height = sizes[box["image_id"]]
        assert 0 <= box["x0"] < box["x1"] <= width
        assert 0 <= box["y0"] < box["y1"] <= height


def test_of_a_cropped_picture_all_cells_count(photos: Path, tmp_path: Path) -> None:
    out = labelled(photos, tmp_path / "run", "--resize", "center-crop", "--classes", "top1")
    mapper = Mapper(Chain(), ExplainConfig(), 64, COLOURS[1:4], COLOURS[5:8], RefineConfig())
    rows = table_rows(out, "heatmaps")
    for row in rows:
        pixels_1CSS, _ = fitted(photos, row["image_id"], out)
        pair = torch.tensor([0]), torch.tensor([row["class_id"]])
        expected_1N = mapper.explain(pixels_1CSS, lambda _, pair=pair: pair).maps_PHW.flatten(1).numpy()
        assert_close(np.array(row["heatmap"])[None], expected_1N)
    rectangles = {row["image_id"]: [row[name] for name in CORNERS] for row in rows}
    for box in table_rows(out, "boxes"):
        x0, y0, x1, y1 = rectangles[box["image_id"]]
        assert x0 <= box["x0"] < box["x1"] <= x1
        assert y0 <= box["y0"] < box["y1"] <= y1


def test_three_classes_at_once_have_the_maps_of_three_runs_of_one(photos: Path, tmp_path: Path) -> None:
    together = table_rows(labelled(photos, tmp_path / "three", "--classes", "topk:3"), "heatmaps")
    assert len(together) == 66
    alone: dict[tuple[str, int], list[float]] = {}
    for rank in range(3):
        chosen = together[rank::3]
        rows = "\n".join(f"{row['image_id']},{row['class_id']}" for row in chosen)
        (tmp_path / f"{rank}.csv").write_text(f"image_id,label\n{rows}\n")
        one = ["--labels", tmp_path / f"{rank}.csv", "--classes", "label"]
        found = table_rows(labelled(photos, tmp_path / str(rank), *one), "heatmaps")
        alone |= {(row["image_id"], row["class_id"]): row["heatmap"] for row in found}
    expected = [alone[row["image_id"], row["class_id"]] for row in together]
    assert_close(np.array([row["heatmap"] for row in together]), np.array(expected))


def test_a_batch_in_which_no_picture_has_a_class_has_no_map(photos: Path, refined: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image_id,label\n21.png,1\n")
    for flags in ([], ["--keep-cam"]):
        out = tmp_path / f"run{len(flags)}"
        labelled(photos, out, "--labels", tmp_path / "labels.csv", "--classes", "label", *flags)
        assert [row["image_id"] for row in table_rows(out, "heatmaps")] == ["21.png"]
        assert Command("verify", out).code == 0


def test_bad_pictures_leave_the_maps_of_the_others_in_their_batch_as_they_are(
    photos: Path, keeping: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    (folder / "01.png").write_bytes((folder / "01.png").read_bytes()[:1500])
    for name in ("04.png", "05.png", "06.png", "07.png"):  # a batch of none
        (folder / name).write_text("a picture of a disc")
    tolerant = ["--max-error-rate", 1, "--keep-cam"]
    out = labelled(folder, tmp_path / "run", *tolerant)
    (folder / "02.png").unlink()
    (out / "images" / "shard-0000000.parquet").unlink()
    assert label(folder, out, *tolerant).code == 0
    bad = {row["image_id"]: row["status"] for row in table_rows(out, "images") if row["status"] != "ok"}
    assert bad == {
        "01.png": "truncated",
        "02.png": "missing",
        **dict.fromkeys(("04.png", "05.png", "06.png", "07.png"), "undecodable"),
    }
    for table in ("heatmaps", "boxes"):
        assert table_rows(out, table) == [row for row in table_rows(keeping, table) if row["image_id"] not in bad]
    assert Command("verify", out).code == 0


def test_views_are_refined_each_and_then_averaged(photos: Path, tmp_path: Path) -> None:
    out = labelled(photos, tmp_path / "run", "--scales", 1, 1.5, "--flip", "--classes", "top1", "--resize", "letterbox")
    assert (run_of(out)["grid"], run_of(out)["request"]["refinement"]["cam_grid"]) == ([24, 24], [6, 6])
    assert Command("verify", out).code == 0
    single = []
    for size in (64, 96):
        one = labelled(photos, tmp_path / str(size), "--image-size", size, "--classes", "top1", "--resize", "letterbox")
        side = run_of(one)["grid"][0]
        maps_PSS = torch.tensor(column(one, "heatmap")).reshape(-1, 1, side, side).float()
        single.append(torch.nn.functional.interpolate(maps_PSS, (24, 24), mode="bilinear").flatten(1).numpy())
    found = column(out, "heatmap")
    for found_N, expected_N in zip(found, np.mean(single, 0), strict=True):  # a mirrored disc is much like a disc
        assert np.corrcoef(found_N, expected_N)[0, 1] > 0.8


def test_in_bf16_maps_are_nearly_those_in_fp32(photos: Path, keeping: Path, tmp_path: Path) -> None:
    out = labelled(photos, tmp_path / "run", "--precision", "bf16")
    expected = {(row["image_id"], row["class_id"]): row["heatmap"] for row in table_rows(keeping, "heatmaps")}
    found = {(row["image_id"], row["class_id"]): row["heatmap"] for row in table_rows(out, "heatmaps")}
    both = [pair for pair in found if pair in expected]
    assert len(both) > 30
    largest: dict[str, float] = {}
    for (image, _), map_N in expected.items():
        largest[image] = max(largest.get(image, 0), float(np.linalg.norm(map_N)))
    for image, class_id in both:
        apart = np.subtract(found[image, class_id], expected[image, class_id])
        assert np.linalg.norm(apart) < 0.1 * largest[image]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--refine", "none", "--keep-cam"], "--keep-cam: with --refine none the maps are these already"),
        (["--refine", "none", "--refine-layers", "c", "b"], "--refine-layers needs --refine affinity or auto"),
        (["--refine-layers", "c"], "--refine-layers expects two names, got c"),
        (["--refine-layers", "c", "c"], "--refine-layers expects two names, got c c"),
        (["--refine-layers", "a", "b", "c"], "--refine-layers expects two names, got a b c"),
        (["--refine-layers", "c", "bb"], "--refine-layers bb: the network has no such module; similar names are b"),
        (["--refine-layers", "c", "fc"], "--refine-layers fc gives no spatial features"),
        (["--refine", "sharp"], "--refine expects one of auto, affinity, none, got sharp"),
    ],
)
def test_flags_that_will_not_do_are_exit_2(photos: Path, tmp_path: Path, flags: list[str], reason: str) -> None:
    refused = label(photos, tmp_path / "run", *flags)
    assert (refused.code, reason in refused.result["error"]) == (2, True), refused.result
    assert not (tmp_path / "run" / "run.json").exists()
