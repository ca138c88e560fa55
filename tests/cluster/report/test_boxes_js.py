"""The boxes of a page are Python's: 300 maps and more in a real browser, to the last pixel and the last bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.dataset as ds
import pytest
from playwright.sync_api import Browser

from cam_ops.settings import BoxConfig, Components, MapConfig, height_and_width
from cam_ops.tables import CORNERS
from cluster.report.colours import heat_colours
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from tests.support.browser import Opened, opened
from tests.support.browser_maps import Case, answers_of, cases_of, page_with_scripts, raw_maps
from tests.support.first_run import KEPT
from tests.support.map_values import map_rows

Answers = list[tuple[Case, dict[str, Any]]]


def has_fused_bilinear() -> bool:
    """Say whether OpenCV enlarges float32 with Intel's IPP and fused multiply-add, as the page does."""
    return cv2.ipp.useIPP() and "AVX" in cv2.ipp.getIppVersion()


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    with opened(browser, page_with_scripts(tmp_path_factory.mktemp("page"))) as page:
        yield page


@pytest.fixture(scope="module")
def answered(page: Opened) -> Answers:
    """300 made-up maps under three settings each, and the page's answers."""
    generator = np.random.default_rng(0)
    recipes = ["default", "default", "default", *(["blog"] if has_fused_bilinear() else [])]
    cases = cases_of(list(raw_maps(300, generator)), generator, settings=3, recipes=recipes)
    return list(zip(cases, answers_of(page, cases, checksums=True), strict=True))


def assert_equal_boxes(answers: Answers) -> None:
    for case, answer in answers:
        expected = case.boxes()
        found = {name: [box[name] for box in answer["boxes"]] for name in expected}
        energies = found.pop("energy"), expected.pop("energy")
        assert found == expected, case
        np.testing.assert_allclose(*energies, rtol=1.2e-7, atol=0)  # a step of float32


@pytest.mark.slow
def test_boxes_are_python_s_in_pixels_of_the_picture(answered: Answers) -> None:
    assert_equal_boxes(answered)
    counts = [len(answer["boxes"]) for _, answer in answered]
    assert (min(counts), sum(count > 1 for count in counts) > 100) == (0, True)


def test_regions_are_python_s_boxes_of_a_picture_as_large_as_the_map(page: Opened) -> None:
    generator = np.random.default_rng(1)
    cases = cases_of(list(raw_maps(100, generator)), generator, settings=2, recipes=["default"], whole=True)
    for case, answer in zip(cases, answers_of(page, cases), strict=True):
        assert [box["region"] for box in answer["boxes"]] == case.boxes()["box"], case


@pytest.mark.slow
def test_enlarged_and_normalised_maps_are_python_s_to_the_last_bit(answered: Answers) -> None:
    for case, answer in answered:
        assert answer["checksums"] == case.checksums(), case


def test_boxes_of_real_maps_are_python_s(data: Path, page: Opened) -> None:
    generator = np.random.default_rng(2)
    maps_N77 = np.load(data / "wsol_reference" / "cams.npz")["cams_NHW"][::5]
    cases = cases_of(list(maps_N77), generator, settings=3, recipes=["default"])
    assert_equal_boxes(list(zip(cases, answers_of(page, cases), strict=True)))


def test_boxes_of_a_kept_run_are_those_of_its_tables(page: Opened) -> None:
    request = existing_run(RunDir(str(KEPT / "run"))).request
    images = {row["image_id"]: row for row in ds.dataset(KEPT / "run" / "images").to_table().to_pylist()}
    rows = map_rows(KEPT / "run")
    cases = [
        Case(
            number=number,
            raw_hw=row["raw"].astype(np.float32),
            input=height_and_width(request.preprocessing.image_size),
            rectangle=tuple(row[name] for name in CORNERS),
            size=(images[row["image_id"]]["width"], images[row["image_id"]]["height"]),
            maps=request.maps,
            config=request.boxes,
            threshold=request.boxes.threshold[0],
        )
        for number, row in enumerate(rows)
    ]
    found = {
        (row["image_id"], row["class_id"], box["rank"]): (*box["box"], box["peak"], box["energy"])
        for row, answer in zip(rows, answers_of(page, cases), strict=True)
        for box in answer["boxes"]
    }
    first = np.float32(request.boxes.threshold[0])
    stored = ds.dataset(KEPT / "run" / "boxes").to_table(filter=ds.field("threshold") == first).to_pylist()
    assert len(stored) >= 20
    assert found == {
        (row["image_id"], row["class_id"], row["rank"]): tuple(row[name] for name in (*CORNERS, "peak", "energy"))
        for row in stored
    }


@pytest.mark.parametrize(
    ("components", "regions"),
    [("largest", [[0, 1, 2, 3]]), ("all", [[6, 0, 8, 2], [0, 1, 2, 3], [2, 6, 6, 7]])],
)
def test_of_equal_regions_the_largest_is_opencv_s_first_label_and_the_best_is_the_topmost(
    page: Opened, components: Components, regions: list[list[int]]
) -> None:
    """OpenCV labels blocks of 2 x 2 pixels: the region on the left begins a row lower, but in an earlier block."""
    raw_88 = np.zeros((8, 8), np.float32)
    raw_88[0:2, 6:8] = raw_88[1:3, 0:2] = raw_88[6, 2:6] = 1
    case = Case(
        number=0,
        raw_hw=raw_88,
        input=(8, 8),
        rectangle=(0, 0, 8, 8),
        size=(8, 8),
        maps=MapConfig(),
        config=BoxConfig(components=components),
        threshold=0.5,
    )
    (answer,) = answers_of(page, [case])
    assert [box["region"] for box in answer["boxes"]] == case.boxes()["box"] == regions


def test_heat_has_the_colour_of_its_level_and_fades_where_the_map_is_low(page: Opened) -> None:
    colours = heat_colours("default")
    heat = "colours => Array.from(CamrayBoxes.heat(Float64Array.of(0, 0.5, 1), colours))"
    pixels_34 = np.array(page.page.evaluate(heat, colours)).reshape(3, 4)
    assert pixels_34.tolist() == [[68, 1, 84, 0], [33, 144, 141, 102], [253, 231, 37, 204]]
    assert [heat_colours("blog")[:6], heat_colours("blog")[-6:]] == ["000080", "800000"]
    assert len(colours) == len(heat_colours("blog")) == 256 * 6
