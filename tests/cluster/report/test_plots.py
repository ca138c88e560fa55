"""Plots are read back from their SVG and HTML, as an XML parser sees it, and held against what they were made of."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

import cluster.report
from cam_ops.arrays import F64
from cluster.compare.audits import AuditChanges
from cluster.compare.driver import Comparison
from cluster.compare.metrics import Difference
from cluster.compare.tables import TableChanges
from cluster.report.plots.audit import audit_part
from cluster.report.plots.classes import class_table
from cluster.report.plots.comparison import comparison_part
from cluster.report.plots.heat import mean_map, places, pooled, steps_of, where_boxes_lie
from cluster.report.plots.histograms import distributions, histogram
from cluster.report.plots.marks import count, duration, share, ticks, time_ticks
from cluster.report.plots.speed import speed_part
from cluster.report.records import AuditPart, ClassRow, Histogram
from cluster.runs.history import PastSession, Reason, RunHistory

PAGE = Path(cluster.report.__file__).with_name("page")
HOSTILE = "<script>alert(1)</script>\"'&\x1b[0m\u202e\ud800\x00" + "x" * 1000
SHARES = np.linspace(0, 1, 41)


def parsed(content: Markup) -> ET.Element:
    """Parse what has to be XML, can be written as UTF-8, and has neither styles, handlers, addresses nor ids."""
    root = ET.fromstring(f"<div>{content}</div>".encode())
    names = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in names if name in ("style", "id", "href", "src") or name.startswith("on")}
    assert {element.tag for element in root.iter()}.isdisjoint({"script", "style", "img", "a"})
    return root


def of_class(root: ET.Element, class_: str) -> list[ET.Element]:
    return [element for element in root.iter() if class_ in element.get("class", "").split()]


def text_of(element: ET.Element) -> str:
    return "".join(element.itertext())


def at(element: ET.Element, name: str) -> float:
    """Return a place along a plot in percent."""
    assert element.attrib[name].endswith("%")
    return float(element.attrib[name][:-1])


# Distributions


def of_values(name: str, values: np.ndarray, edges: F64) -> Histogram:
    return Histogram(name=name, edges=edges, counts=np.histogram(values, edges)[0].astype(np.int64))


def test_bars_are_as_high_as_their_counts_and_say_them() -> None:
    counts = np.zeros(40, np.int64)
    counts[[3, 10, 11, 39]] = 1000, 250, 500, 20
    root = parsed(histogram(Histogram(name="score", edges=SHARES, counts=counts)))
    bars = of_class(root, "column")
    heights = np.array([float(bar.attrib["height"]) for bar in bars])
    np.testing.assert_allclose(heights / heights.max(), counts / 1000, atol=1e-4)
    np.testing.assert_allclose([at(bar, "x") for bar in bars], 100 * SHARES[:-1])
    feet = {float(bar.attrib["y"]) + float(bar.attrib["height"]) for bar in bars}
    assert max(feet) - min(feet) < 0.02
    titles = [title.text for title in root.iter("title")]
    assert titles[10] == "0.25 to 0.28: 250 maps, 14\u00a0%"


def test_a_count_of_one_beside_a_thousand_million_is_a_pixel_high() -> None:
    counts = np.zeros(40, np.int64)
    counts[[0, 20]] = 1, 1_234_567_890
    root = parsed(histogram(Histogram(name="energy", edges=SHARES, counts=counts)))
    heights = [float(bar.attrib["height"]) for bar in of_class(root, "column")]
    assert heights[0] == 1
    assert heights[1] == 0
    assert [title.text for title in root.iter("title")][20] == "0.50 to 0.53: 1.23\u00a0bn boxes, >99.9\u00a0%"


@pytest.mark.parametrize("num_values", [1, 2, 999, 20_000])
def test_the_median_that_is_said_and_drawn_is_that_of_the_values_within_a_bin(num_values: int) -> None:
    values = np.random.default_rng(num_values).beta(2, 5, num_values)
    root = parsed(histogram(of_values("peak", values, SHARES)))
    said = re.search(r"median ([\d.]+); half lie between ([\d.]+) and ([\d.]+)", text_of(root))
    if said is None:
        said = re.search(r"median ([\d.]+); half have ([\d.]+)()", text_of(root))
    assert said is not None
    quantiles = np.quantile(values, [0.5, 0.25, 0.75], method="inverted_cdf")
    for word, quantile in zip(said.groups(), quantiles, strict=True):
        assert not word or abs(float(word) - quantile) <= 1 / 40 + 0.005
    (median,) = of_class(root, "median")
    (middle,) = of_class(root, "middle")
    drawn = [at(median, "cx"), at(middle, "x1"), at(middle, "x2")]
    np.testing.assert_allclose(drawn, 100 * quantiles, atol=100 / 40 + 0.01)


def test_boxes_an_image_have_a_bar_a_number_and_say_how_many_images_have_none() -> None:
    counts = np.zeros(21, np.int64)
    counts[[0, 1, 2, 7]] = 25, 50, 20, 5
    root = parsed(histogram(Histogram(name="boxes_per_image", edges=np.arange(-0.5, 21.5), counts=counts)))
    assert "median 1; half lie between 0 and 1; 25\u00a0% have none" in text_of(root)
    titles = [title.text for title in root.iter("title")]
    assert titles[1] == "1: 50 images, 50\u00a0%"
    assert len(titles) == 8  # what is empty beyond 7 is not shown
    assert at(of_class(root, "median")[0], "cx") == pytest.approx(100 * 1.5 / 8, abs=0.01)


def test_the_outermost_bin_holds_what_is_more() -> None:
    counts = np.zeros(21, np.int64)
    counts[[1, 20]] = 9, 1
    root = parsed(histogram(Histogram(name="boxes_per_image", edges=np.arange(-0.5, 21.5), counts=counts)))
    assert [title.text for title in root.iter("title")][-1] == "20 or more: 1 images, 10\u00a0%"


def test_shapes_are_told_as_sides() -> None:
    values = np.log2([1, 2, 2, 2, 4])
    root = parsed(histogram(of_values("aspect", values, np.linspace(-4, 4, 81))))
    labels = [element.text for element in of_class(root, "label")]
    assert labels == ["1:1", "2:1", "4:1"]


def test_many_bins_share_bars_and_no_count_is_lost() -> None:
    values = np.random.default_rng(0).random(10_000)
    root = parsed(histogram(of_values("score", values, np.linspace(0, 1, 1001))))
    titles = [title.text or "" for title in root.iter("title")]
    assert len(titles) <= 64
    assert sum(int(title.split(": ")[1].split()[0].replace(",", "")) for title in titles) == 10_000


def test_a_run_of_nothing_says_so() -> None:
    none = [Histogram(name=name, edges=SHARES, counts=np.zeros(40, np.int64)) for name in ("score", "probability")]
    root = parsed(distributions(none))
    assert len(list(root.iter("figure"))) == 1  # a run without probabilities has no plot of them
    assert "no maps to count" in text_of(root)
    assert not list(root.iter("svg"))


# Places


def cells(root: ET.Element) -> np.ndarray:
    """Return the step of each cell, read from the paths of the heat."""
    (heat,) = of_class(root, "heat")
    width, height = map(int, heat.attrib["viewBox"].split()[2:])
    steps_hw = np.full((height, width), -1)
    for path in heat.iter("path"):
        for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path.attrib["d"]):
            steps_hw[int(y), int(x) : int(x) + int(length)] = int(path.attrib["class"][1:])
    return steps_hw


def test_cells_are_coloured_in_the_order_of_their_counts() -> None:
    density_GG = np.random.default_rng(1).integers(0, 10**9, (16, 16))
    density_GG[:4, :4] = 0
    root = parsed(where_boxes_lie(density_GG, 2 * 10**9))
    steps_GG = cells(root)
    order = np.argsort(density_GG.ravel(), kind="stable")
    assert (np.diff(steps_GG.ravel()[order]) >= 0).all()
    assert ((steps_GG == 0) == (density_GG == 0)).all()
    assert set(steps_GG.ravel()) == set(range(10))
    assert steps_GG.ravel()[density_GG.argmax()] == 9
    assert len(str(root)) < 10_000


def test_steps_are_ninths_of_the_highest() -> None:
    np.testing.assert_array_equal(steps_of(np.array([[0, 1, 9, 10, 45, 90]]), 90), [[0, 1, 1, 1, 5, 9]])


def test_the_mean_map_weighs_classes_by_their_maps() -> None:
    rows = [class_row(maps=3, mean_map=np.eye(2)), class_row(maps=1, mean_map=np.zeros((2, 2)))]
    root = parsed(mean_map(rows, 2))
    np.testing.assert_array_equal(cells(root), [[9, 0], [0, 9]])
    assert "where it is 0.75" in text_of(root)


def test_a_run_without_boxes_and_maps_has_no_heat() -> None:
    root = parsed(places(np.zeros((16, 16), np.int64), 0, [class_row(mean_map=None, maps=0)], 1))
    assert "no boxes to count" in text_of(root)
    assert "no maps to average" in text_of(root)


def test_colours_are_evenly_apart_to_the_eye_in_light_and_in_dark() -> None:
    styles = (PAGE / "plots.css").read_text()
    colours = re.findall(r"--s(\d): #(\w{6});", styles)
    assert [step for step, _ in colours] == 2 * list("0123456789")
    for scheme in (colours[:10], colours[10:]):
        lab_S3 = np.array([oklab(colour) for _, colour in scheme])
        apart_S = np.linalg.norm(np.diff(lab_S3, axis=0), axis=1)
        assert apart_S.max() / apart_S.min() < 1.1
        assert (np.diff(lab_S3[:, 0]) < -0.05).all() or (np.diff(lab_S3[:, 0]) > 0.05).all()  # in black and white, too


def oklab(colour: str) -> F64:
    """Return a colour in OKLab, by Ottosson's definition."""
    srgb = np.array([int(colour[at : at + 2], 16) for at in (0, 2, 4)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.asarray(lab @ np.cbrt(lms @ linear))


# Classes


def class_row(**fields: Any) -> ClassRow:
    row: dict[str, Any] = {
        "class_id": 0,
        "name": "cat",
        "labelled": 10,
        "agreed": 7,
        "predicted": 9,
        "maps": 10,
        "boxes": 12,
        "empty": 1,
        "mean_score": 0.5,
        "mean_area": 0.25,
        "mean_map": np.eye(7),
        "density": np.ones((16, 16), np.int64),
        "place": None,
        "gt_known_loc": None,
        "ap": None,
    }
    return ClassRow(**{**row, **fields})


def test_a_class_has_a_row_of_what_is_known_to_sort_by() -> None:
    rows = [
        class_row(gt_known_loc=62.5, ap=12.0),
        class_row(name="dog", mean_score=None, maps=0, empty=0, place="border"),
    ]
    root = parsed(class_table(rows, 5))
    titles = [text_of(heading) for heading in root.iter("th") if heading.get("scope") == "col"]
    first, second = (list(row) for row in root.findall(".//tbody/tr"))
    values = dict(zip(titles, (cell.get("data-value") for cell in first), strict=True))
    assert values["class"] == "cat"
    assert values["maps"] == "10"
    assert float(values["agreed"] or 0) == 0.7
    assert values["GT-known"] == "62.5"
    unknown = dict(zip(titles, (cell.get("data-value") for cell in second), strict=True))
    assert unknown["score"] == unknown["empty"] == unknown["GT-known"] == ""
    assert text_of(second[0]) == "dog! looks at the border"
    assert "2 classes; 3 more with fewer maps are not shown." in text_of(root)
    assert {text_of(button) for button in root.iter("button")} == set(titles) - {"map", "where"}


def test_figures_of_an_audit_have_columns_only_where_there_is_one() -> None:
    assert "GT-known" not in text_of(parsed(class_table([class_row()], 1)))


def test_a_small_picture_has_a_digit_a_cell_in_the_order_of_the_map() -> None:
    mean_hw = np.arange(28 * 28, dtype=np.float64).reshape(28, 28)
    root = parsed(class_table([class_row(mean_map=mean_hw)], 1))
    small, where = root.iter("canvas")
    assert (small.attrib["width"], small.attrib["height"]) == ("14", "14")
    digits = np.array([int(digit) for digit in small.attrib["data-steps"]]).reshape(14, 14)
    assert (np.diff(digits, axis=0) >= 0).all()
    assert digits[-1, -1] == 9
    assert len(where.attrib["data-steps"]) == 8 * 8


def test_pooling_takes_means_of_whole_blocks() -> None:
    pooled_hw = pooled(np.arange(15, dtype=np.float64).reshape(3, 5), 3)
    np.testing.assert_array_equal(pooled_hw, [[0.5, 2.5, 4], [5.5, 7.5, 9], [10.5, 12.5, 14]])


def test_a_thousand_classes_stay_below_1_2_mb() -> None:
    generator = np.random.default_rng(0)
    rows = [
        class_row(
            name=f"{number} " + "a long name of a class" * 2,
            mean_map=generator.random((28, 28)),
            density=generator.integers(0, 10**6, (16, 16)),
            gt_known_loc=generator.random() * 100,
            ap=generator.random() * 100,
            place="bottom right",
            maps=10**6,
            boxes=10**6,
        )
        for number in range(1000)
    ]
    assert len(str(class_table(rows, 21_841)).encode()) < 1_200_000


def test_no_class_is_a_sentence() -> None:
    assert "No class has a map or a label." in text_of(parsed(class_table([], 0)))


# The audit


def metric(value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> dict[str, Any]:
    document = {"value": value, "low": low, "high": high, "images": 82, "unit": "percent", "reason": None, "note": None}
    return {**document, **more}


def metrics_of(**fields: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "settings": {"threshold": 0.2, "normalise": "minmax"},
        "truth": {"path": "annots/", "num_boxes": 131},
        "images": 90,
        "audited": 82,
        "unlabelled": None,
        "excluded": {"not in the truth": 8},
        "failures": {"wrong_class": 20, "missed": 2},
        "metrics": {
            "gt_known_loc": metric(75.0, 66.5, 85.5),
            "max_box_acc_v2_70": metric(40.0, 30.0, 50.0, threshold=0.25),
            "centre_box": metric(30.5, 22.0, 40.0),
            "centre_box_70": metric(8.5, 4.0, 14.0),
            "whole_image": metric(15.0, 9.0, 24.0),
            "px_ap": metric(None, images=0, reason="the truth has no masks"),
            "energy_ratio": metric(2.7, 2.3, 3.2, unit="ratio"),
        },
        "slices": {"small": {"gt_known_loc": metric(10.0, 5.0, 15.0)}},
        "signals": {
            "images": 82,
            "without_box": 1,
            "whole_image_boxes": 3,
            "score": {"p5": 0.1, "median": 0.5, "p95": 0.9},
        },
        "suspected_shortcuts": [
            {"class_name": "ship", "place": "border", "share": 0.6, "others": 0.3, "num_images": 25, "class_id": 1}
        ],
    }
    return {**document, **fields}


def curves_of(**fields: F64) -> dict[str, F64]:
    threshold_L = np.arange(1000) / 1000
    peak_at = {30: 0.3, 50: 0.2, 70: 0.1}
    curves = {
        f"{prefix}_{iou}": 100 - 2 * iou * np.abs(threshold_L - peak_at[iou])
        for prefix in ("box_acc", "box_acc_v2")
        for iou in (30, 50, 70)
    }
    return {
        "threshold": threshold_L,
        **curves,
        "px_precision": np.linspace(1, 0.4, 1000),
        "px_recall": np.linspace(0, 1, 1000),
        **fields,
    }


def rows_of(root: ET.Element) -> dict[str, ET.Element]:
    """Return the rows of all tables by the first word of their heads; the last of a name."""
    return {text_of(row[0]).split(" ")[0]: row for row in root.findall(".//tbody/tr")}


def test_dots_and_whiskers_stand_at_value_and_interval() -> None:
    root = parsed(audit_part(AuditPart(metrics=metrics_of(), curves=curves_of())))
    (row,) = [row for row in root.findall(".//details//tbody/tr") if text_of(row[0]).startswith("gt_known_loc")]
    (dot,) = of_class(row, "dot")
    assert at(dot, "cx") == 75
    reach, low, high = of_class(row, "whisker")
    assert (at(reach, "x1"), at(reach, "x2"), at(low, "x1"), at(high, "x1")) == (66.5, 85.5, 66.5, 85.5)
    assert text_of(row[1]) == "75.0"
    assert text_of(row[3]) == "66.5 \u2013 85.5"
    assert text_of(row[4]) == "82"


def test_a_figure_is_held_against_the_baselines_of_its_own_iou() -> None:
    root = parsed(audit_part(AuditPart(metrics=metrics_of(), curves={})))
    for name, expected in (("gt_known_loc", [30.5, 15]), ("max_box_acc_v2_70", [8.5]), ("centre_box", [])):
        (row,) = [row for row in root.findall(".//details//tbody/tr") if text_of(row[0]).split()[0] == name]
        assert [at(line, "x1") for line in of_class(row, "reference")] == expected


def test_a_figure_without_a_value_has_its_reason_and_a_ratio_no_axis_of_percent() -> None:
    root = parsed(audit_part(AuditPart(metrics=metrics_of(), curves={})))
    rows = {text_of(row[0]).split()[0]: row for row in root.findall(".//details//tbody/tr")}
    assert text_of(rows["px_ap"][1]) == "the truth has no masks"
    assert not list(rows["energy_ratio"].iter("svg"))
    assert text_of(rows["energy_ratio"][1]) == "2.70"


def test_the_highest_point_of_each_curve_is_named_where_it_is() -> None:
    root = parsed(audit_part(AuditPart(metrics=metrics_of(), curves=curves_of())))
    (plot,) = [figure for figure in root.iter("figure") if "largest region" in text_of(figure)]
    assert [element.text for element in of_class(plot, "named")][1:] == [
        f"IoU {iou}: 100.0\u00a0% at {threshold}" for iou, threshold in ((0.7, "0.10"), (0.5, "0.20"), (0.3, "0.30"))
    ]
    assert sorted(at(dot, "cx") for dot in of_class(plot, "dot")) == [10, 20, 30]
    paths = {path.attrib["class"]: path.attrib["d"] for path in of_class(plot, "curve")}
    x, y = map(float, paths["curve main"].split("L")[-1].split())  # of IoU 0.5, at threshold 0.999
    assert x == 999
    assert y == pytest.approx(190 * 0.799, abs=0.1)


def test_names_of_curves_that_coincide_stand_below_each_other() -> None:
    same = {f"{prefix}_{iou}": np.full(1000, 100.0) for prefix in ("box_acc", "box_acc_v2") for iou in (30, 50, 70)}
    root = parsed(audit_part(AuditPart(metrics=metrics_of(), curves=curves_of(**same))))
    (plot,) = [figure for figure in root.iter("figure") if "largest region" in text_of(figure)]
    heights = [float(element.attrib["y"]) for element in of_class(plot, "named")][1:]
    assert len(heights) == 3
    assert (np.diff(heights) >= 15).all()


def test_the_runs_threshold_is_marked_only_on_axes_of_such_maps() -> None:
    root = parsed(audit_part(AuditPart(metrics=metrics_of(), curves=curves_of())))
    assert {at(line, "x1") for line in of_class(root, "marked")} == {20}
    other = metrics_of(settings={"threshold": 0.2, "normalise": "max"})
    root = parsed(audit_part(AuditPart(metrics=other, curves=curves_of())))
    assert not of_class(root, "marked")
    assert "own threshold, 0.20, has no place on these axes" in text_of(root)


def test_curves_without_values_say_why() -> None:
    nothing = {name: np.full(1000, np.nan) for name in curves_of() if name.startswith("box")}
    root = parsed(audit_part(AuditPart(metrics=metrics_of(), curves=curves_of(**nothing))))
    assert text_of(root).count("there are no true boxes to hold them against") == 2
    short = {"threshold": np.arange(3.0), "px_recall": np.zeros(2), "px_precision": np.zeros(3)}
    assert "there are no true pixels" in text_of(parsed(audit_part(AuditPart(metrics=metrics_of(), curves=short))))


def test_what_went_wrong_and_what_takes_no_part_are_counted_with_their_meaning() -> None:
    root = parsed(audit_part(AuditPart(metrics=metrics_of(), curves={})))
    bars = {text_of(row[0]): row for table in of_class(root, "bars") for row in table.iter("tr")}
    assert text_of(bars["right class and box"][1]) == "60"
    wrong = bars["wrong class the box is right, another class scores best"]
    assert (text_of(wrong[1]), text_of(wrong[2])) == ("20", "24\u00a0%")
    assert at(of_class(wrong, "column")[0], "width") == pytest.approx(100 * 20 / 60, abs=0.01)
    assert text_of(bars["not in the truth the truth does not name them"][1]) == "8"


def test_without_truth_there_are_signals_and_suspected_shortcuts_and_no_figures() -> None:
    metrics = metrics_of(truth=None, metrics={}, slices={}, audited=0, excluded={"not in the truth": 90})
    root = parsed(audit_part(AuditPart(metrics=metrics, curves={})))
    words = text_of(root)
    assert "ship looks at the border: 60\u00a0% of its mean map lies there" in words
    assert "Of 82 images with a map 1 have no box, 3 one of the whole picture." in words
    assert "Figures" not in words
    assert "What takes no part" not in words
    (dot,) = of_class(root, "dot")
    assert at(dot, "cx") == 50


def test_an_audit_of_an_unlabelled_run_says_that_it_flatters() -> None:
    unlabelled = {"in_truth": 82, "images": 82, "known": 82, "audited": 47, "left_out": 35}
    root = parsed(audit_part(AuditPart(metrics=metrics_of(unlabelled=unlabelled), curves={})))
    assert "These figures flatter" in text_of(root)


ODD: tuple[Any, ...] = (
    None,
    [],
    {},
    "x",
    HOSTILE,
    float("nan"),
    float("inf"),
    -1,
    10**400,
    True,
    [HOSTILE, None],
    {"a": []},
)


def paths_into(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(found for key, value in inner for found in paths_into(value, (*path, key)))]


def test_no_odd_entry_of_a_file_ends_the_page() -> None:
    figures = {"gt_known_loc": metric(75.0, 66.5, 85.5, threshold=[0.2]), "centre_box": metric(None, reason="none")}
    for path in paths_into(metrics_of(metrics=figures))[1:]:
        for odd in ODD:
            metrics = json.loads(json.dumps(metrics_of(metrics=figures)))
            holder = metrics
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = odd
            parsed(audit_part(AuditPart(metrics=metrics, curves={})))
    parsed(audit_part(AuditPart(metrics={}, curves={})))


def test_hostile_names_stay_text() -> None:
    shortcut = {"class_name": HOSTILE, "place": HOSTILE, "share": 0.5, "others": 0.1, "num_images": 5}
    metrics = metrics_of(
        metrics={HOSTILE: metric(5.0, 1.0, 9.0), "gt_known_loc": metric(None, reason=HOSTILE)},
        suspected_shortcuts=[shortcut],
        excluded={HOSTILE: 3},
        truth={"path": HOSTILE, "num_boxes": 1},
    )
    for content in (
        class_table([class_row(name=HOSTILE, place=HOSTILE)], 1),
        audit_part(AuditPart(metrics=metrics, curves=curves_of())),
        speed_part(
            history_of([session_of(host=HOSTILE, status="failed", reason=HOSTILE, reasons=(died(HOSTILE),))]), 0
        ),
        comparison_part(comparison_of(settings={HOSTILE: (HOSTILE, HOSTILE)}, a=HOSTILE)),
    ):
        assert "<script>alert(1)</script>\"'&\\x1b[0m\\u202e\\ud800\\x00x" in text_of(parsed(content))
        assert "x" * 100 not in content


# Speed


def died(why: str, times: int = 1) -> Reason:
    return Reason(kind="replica_died", why=why, times=times)


def session_of(**fields: Any) -> PastSession:
    session: dict[str, Any] = {
        "name": "a.jsonl",
        "command": "label",
        "command_line": None,
        "executor": "ray",
        "device": "cpu",
        "replicas": 2,
        "host": "node",
        "process": 1,
        "versions": {},
        "images_pending": 100,
        "began": datetime(2026, 11, 29, 12, 30, tzinfo=UTC),
        "working_s": 0.0,
        "seconds": 10.0,
        "status": "done",
        "reason": None,
        "images": 100,
        "shards": 1,
        "bad": {},
        "events": {},
        "shards_back": 0,
        "reasons": (),
    }
    return PastSession(**{**session, **fields})


def history_of(sessions: list[PastSession], **fields: Any) -> RunHistory:
    history: dict[str, Any] = {
        "sessions": tuple(sessions),
        "working_s": sum(session.seconds for session in sessions),
        "bin_s": 1.0,
        "images_N": np.full(round(sum(session.seconds for session in sessions)), 10.0),
        "deaths_N": np.zeros(round(sum(session.seconds for session in sessions)), np.int64),
        "stage_seconds": {"load": 3.0, "network": 12.0, "boxes": 1.0, "publish": 2.0, "fetch": 5.0, "decode": 9.0},
        "foreign_lines": 0,
    }
    return RunHistory(**{**history, **fields})


def test_the_rate_of_each_bin_is_drawn_and_the_last_one_is_shorter() -> None:
    history = history_of([session_of(seconds=2.5)], images_N=np.array([10.0, 40.0, 20.0]), working_s=2.5)
    root = parsed(speed_part(history, 0))
    titles = [title.text or "" for title in root.iter("title")]
    assert [title.split(": ")[1] for title in titles[:3]] == ["10 images/s", "40 images/s", "40 images/s"]
    path = of_class(root, "rate")[0].attrib["d"]
    assert path == "M0 120V90.0H400.0V0.0H800.0V0.0H1000.0V120z"
    assert "28 images/s on average over 2.5\u00a0s of work" in text_of(root)


def test_the_largest_part_is_said_to_limit_the_run_and_all_shares_are_of_the_replicas_time() -> None:
    seconds = {"load": 3.0, "network": 12.0, "boxes": 1.0, "publish": 2.0, "fetch": 5.0, "decode": 2.0}
    root = parsed(speed_part(history_of([session_of()], stage_seconds=seconds), 0))  # 2 replicas, 10 s, 18 s of work
    assert "The network limits, with 60% of the time: that is as it should be" in text_of(root)
    (stacked,) = of_class(root, "stacked")
    widths = [at(part, "width") for part in stacked.iter("rect")]
    assert widths == [5, 10, 60, 5, 10, 10]  # of 3 s until pictures are there 2 s were decoding
    assert [at(part, "x") for part in stacked.iter("rect")] == [0, 5, 15, 75, 80, 90]
    seconds = {"load": 15.0, "fetch": 9.0, "decode": 3.0}
    slow = parsed(speed_part(history_of([session_of()], stage_seconds=seconds), 0))
    assert "Storage limits: replicas wait 60% of the time for pictures" in text_of(slow)


def test_before_a_gpu_what_goes_on_beside_it_is_no_part_of_its_time() -> None:
    seconds = {"load": 4.0, "network": 14.0, "boxes": 40.0, "publish": 9.0, "fetch": 30.0, "decode": 10.0}
    root = parsed(speed_part(history_of([session_of(device="cuda")], stage_seconds=seconds), 0))
    (stacked,) = of_class(root, "stacked")
    assert [at(part, "width") for part in stacked.iter("rect")] == [15, 5, 70, 10]
    assert "The network limits, with 70% of the time" in text_of(root)


def test_a_cross_stands_where_replicas_died() -> None:
    deaths_N = np.array([0, 0, 1, 0, 0, 3, 0, 0, 0, 0])
    root = parsed(speed_part(history_of([session_of()], deaths_N=deaths_N), 0))
    crosses = of_class(root, "death")
    assert [at(cross, "x") for cross in crosses] == [25, 55]
    assert [cross.findtext("title") for cross in crosses] == ["1 replica died", "3 replicas died"]


def test_sessions_are_marked_with_the_replicas_that_died_in_them() -> None:
    sessions = [
        session_of(events={"replica_died": 2}, reasons=(died("out of memory", 2),), status=None),
        session_of(working_s=10.0, seconds=30.0, status="failed", reason="the store is full"),
    ]
    root = parsed(speed_part(history_of(sessions), 0))
    assert [at(line, "x1") for line in of_class(root, "marked")] == [25]
    assert [element.text for element in of_class(root, "named")] == ["session 1, 2 replicas died", "session 2"]
    first, second = (text_of(row) for row in root.findall(".//tbody/tr"))
    assert "cut off, or still at work" in first
    assert "2 replicas diedout of memory (2\u00a0\u00d7)" in first
    assert "failed: the store is full" in second


@pytest.mark.parametrize("history", [None, history_of([])], ids=["none", "empty"])
def test_a_run_without_a_log_says_so(history: RunHistory | None) -> None:
    assert "The run has no log" in text_of(parsed(speed_part(history, 0)))


def test_a_session_that_did_nothing_is_told() -> None:
    nothing = history_of([session_of(seconds=0.0, images=0)], images_N=np.zeros(1), stage_seconds={}, foreign_lines=3)
    root = parsed(speed_part(nothing, 0))
    assert "no image was done" in text_of(root)
    assert "3 lines of the log cannot be read" in text_of(root)


# Two runs


def difference_of(
    name: str, a: float | None, b: float | None, low: float | None, high: float | None, **more: Any
) -> Difference:
    change = None if a is None or b is None else b - a
    fields: dict[str, Any] = {"unit": "percent", "images_a": 82, "images_b": 82, "reason": None}
    return Difference(metric=name, a=a, b=b, difference=change, low=low, high=high, **{**fields, **more})


def comparison_of(**fields: Any) -> Comparison:
    tables = TableChanges(
        images_a=100,
        images_b=90,
        images=80,
        statuses=[{"status_a": "ok", "status_b": "missing", "images": 2}],
        labels_changed=0,
        sizes_changed=0,
        class_lists_differ=False,
        top_classes=80,
        top_classes_changed=5,
        top_changes=[{"class_id_a": 0, "class_a": HOSTILE, "class_id_b": 1, "class_b": "dog", "images": 3}],
        boxes_a=1_234_567,
        boxes_b=1_000_000,
        box_pairs=70,
        only_a=6,
        only_b=4,
        mean_iou=0.875,
        below_half=7,
        images_moved=7,
        most_changed=[],
    )
    audit = AuditChanges(
        unpaired=None,
        metrics=[
            difference_of("gt_known_loc", 70.0, 60.0, -15.0, -5.0),
            difference_of("ap", 10.0, 20.0, -5.0, 20.0),
            difference_of("px_ap", None, None, None, None, reason="none in A"),
            difference_of("corloc", 50.0, None, None, None, reason="it has no value in B"),
            difference_of("centre_box", 30.0, 30.0, 0.0, 0.0),
        ],
        images=82,
        gained=3,
        lost=9,
        most_gained=[],
        most_lost=[],
        classes=[{"class_id": 1, "class_name": "dog", "images": 9, "gained": 1, "lost": 4, "iou_change": -0.25}],
    )
    comparison: dict[str, Any] = {"a": "a/", "b": "b/", "settings": {}, "incomplete": {}, "not_audited": []}
    return Comparison(**{"tables": tables, "audit": audit, **comparison, **fields})


def test_differences_stand_around_zero_and_those_that_are_sure_are_bold() -> None:
    root = parsed(comparison_part(comparison_of()))
    rows = {text_of(row[0]): row for row in of_class(root, "differences")[0].findall("tbody/tr")}
    assert list(rows) == ["gt_known_loc", "ap", "corloc"]
    row = rows["gt_known_loc"]
    (zero,) = of_class(row, "zero")
    assert at(zero, "x1") == 50
    (dot,) = of_class(row, "dot")
    assert at(dot, "cx") == pytest.approx(50 - 10 / 44 * 100, abs=0.01)  # the axis ends at 1.1 of the farthest, 20
    assert at(of_class(row, "whisker")[0], "x2") == pytest.approx(50 - 5 / 44 * 100, abs=0.01)
    assert [text_of(bold) for bold in row.iter("b")] == ["\u221210.0"]
    assert not list(rows["ap"].iter("b"))
    assert text_of(rows["corloc"][3]) == "it has no value in B"
    assert "The same in both: centre_box." in text_of(root)


def test_what_is_not_finite_is_not_drawn() -> None:
    tables, audit = comparison_of().tables, comparison_of().audit
    assert audit
    nan = float("nan")
    metrics = [difference_of("ap", nan, 1.0, nan, nan), difference_of("corloc", 1.0, 2.0, nan, float("inf"))]
    root = parsed(comparison_part(comparison_of(tables=tables, audit=replace(audit, metrics=metrics))))
    rows = {text_of(row[0]): row for row in of_class(root, "differences")[0].findall("tbody/tr")}
    assert text_of(rows["ap"][3]) == "no reason is given"
    assert len(of_class(rows["corloc"], "dot")) == 1
    assert not of_class(rows["corloc"], "whisker")


@pytest.mark.parametrize("values", [np.zeros((1, 1)), np.full((7, 7), -1.0), np.full((3, 5), np.nan)], ids=str)
def test_maps_of_nothing_are_no_error(values: F64) -> None:
    rows = [class_row(mean_map=values, density=np.zeros((16, 16), np.int64), maps=5), class_row(mean_map=np.eye(2))]
    parsed(class_table(rows, 2))
    parsed(mean_map(rows, 2))


def test_counts_of_both_runs_stand_beside_each_other() -> None:
    root = parsed(comparison_part(comparison_of()))
    rows = [[text_of(cell) for cell in row] for row in root.findall(".//tbody/tr")]
    assert ["images", "100", "90", "\u221210"] in rows
    assert ["boxes", "1.23\u00a0M", "1.00\u00a0M", "\u2212235\u00a0k"] in rows
    assert ["dog", "9", "+1", "\u22124", "\u22120.250"] in rows
    assert "mean IoU is 0.875; 7 (10\u00a0%) below 0.5" in text_of(root)


def test_runs_without_audits_have_no_figures() -> None:
    root = parsed(comparison_part(comparison_of(audit=None, not_audited=["A", "B"])))
    assert "No audit of A and B: no figures are compared." in text_of(root)
    assert not of_class(root, "differences")


# Numbers as words


def test_counts_are_rounded_to_three_digits_and_never_to_a_thousand_of_a_unit() -> None:
    told = {0: "0", 12_345: "12,345", 99_999: "99,999", 123_456: "123 k", 999_499: "999 k", 999_950: "1.00 M"}
    told |= {12_345_678: "12.3 M", 999_949_999: "1.00 bn", 1_234_567_890: "1.23 bn", 1_234_567_890_123: "1,235 bn"}
    assert {number: count(number).replace("\u00a0", " ") for number in told} == told


def test_little_is_not_nothing_and_nearly_all_is_not_all() -> None:
    told = {
        (0, 9): "0 %",
        (1, 10**9): "<0.1 %",
        (1, 20): "5.0 %",
        (1, 2): "50 %",
        (10**9 - 1, 10**9): ">99.9 %",
        (3, 3): "100 %",
    }
    assert {pair: share(*pair).replace("\u00a0", " ") for pair in told} == told
    assert share(0, 0) == "\u2013"


def test_times_are_told_in_two_units() -> None:
    told = {0.4: "0.4 s", 59.6: "1 min", 80: "1 min 20 s", 3600: "1 h", 5430: "1 h 30 min", 200_000: "2 days 7 h"}
    assert {seconds: duration(seconds).replace("\u00a0", " ") for seconds in told} == told


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-4, 4), (0, 1e9), (0.001, 0.0012), (5, 5)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 5
    assert all(low - 1e-9 * high <= tick <= high * (1 + 1e-9) for tick in found)
    times = time_ticks(max(high, 1e-3))
    assert 1 <= len(times) <= 5
    assert times[0] == 0
