"""The pages of docs/ name what the code has: methods, heads, and commands that the real parser takes."""

import re
from dataclasses import fields
from typing import get_args

import numpy as np

from cam_ops.boxes.calibration import Calibration, ProbabilityModel
from cam_ops.fitting.recipes import NORMALISERS, THRESHOLDS
from cam_ops.fitting.reliability import CoverageRow, ReliabilityBin, Share
from cam_ops.settings import Kind, Method
from cluster.calibrate.driver import MIN_FITTED
from cluster.compare.audits import AuditChanges
from cluster.compare.driver import Comparison
from cluster.compare.gates import OPERATORS, parse_gate
from cluster.compare.metrics import Difference
from cluster.compare.tables import TableChanges
from cluster.formats.detect import FORMATS
from cluster.label.replica import RESIDUAL_LIMIT
from cluster.runs.calibration import CalibrationFile, Figure, HeldOut, MapsOf, Sample
from cluster.truth.placing import half_open
from cluster.truth.prepare import PROBLEMS
from tests.support.command import ROOT

DOCS = ROOT / "docs"
PAGES = ("audit", "calibrate", "compare", "library", "methods", "output", "truth")


def first_cells(text: str) -> set[str]:
    """Return the names that begin the rows of tables; flags are their heads."""
    return set(re.findall(r"^\| `(?!--)([^`]+)`[^|]*\|", text, re.MULTILINE))


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text()


def test_each_method_has_its_formula_and_its_cost_and_each_kind_of_head_its_row() -> None:
    page = text_of("methods")
    formulas, _, costs = page.partition("## Methods")[2].partition("### What each costs")
    assert first_cells(formulas) == set(get_args(Method))
    groups = re.findall(r"^\| (`.+?) \|", costs.partition("### ")[0], re.MULTILINE)
    assert sorted(re.findall(r"`([^`]+)`", " ".join(groups))) == sorted(get_args(Method))
    assert first_cells(page.partition("## Methods")[0]) == set(get_args(Kind))
    for precision, limit in RESIDUAL_LIMIT.items():
        assert f"{limit:g} in {precision}" in page


def test_the_truth_page_has_each_format_and_each_problem() -> None:
    page = text_of("truth")
    assert first_cells(page) == {known.name for known in FORMATS} | set(PROBLEMS)


def test_the_conventions_of_the_truth_page_are_one_box() -> None:
    page = text_of("truth")
    cells = r"^\| (5 3 8 5) \| ([\d ]+) \| ([\d ]+) \| centre (\S+) (\S+), width (\S+), height (\S+) \|"
    row = re.search(cells, page, re.MULTILINE)
    assert row
    corners = [np.array([row[place].split()], np.float64) for place in (1, 2, 3)]
    for raw_14, frame in zip(corners, ("half-open", "inclusive", "from-1"), strict=True):
        assert half_open(raw_14, frame, np.array([[20, 10]])).tolist() == [[5, 3, 8, 5]]
    x, y, width, height = (float(row[place]) for place in (4, 5, 6, 7))
    fractions_14 = np.array([[x - width / 2, y - height / 2, x + width / 2, y + height / 2]])
    assert half_open(fractions_14, "fractions", np.array([[20, 10]])).tolist() == [[5, 3, 8, 5]]


def names_of(record: type) -> set[str]:
    return {field.name for field in fields(record)}


def test_the_page_of_comparisons_has_each_key_of_its_json() -> None:
    page = text_of("compare").partition("## --json")[2]
    told = set(re.findall(r"`(\w+)`", page))
    for record in (Comparison, TableChanges, AuditChanges, Difference):
        assert names_of(record) <= told, record


def test_the_page_of_calibrations_has_each_key_of_the_file() -> None:
    page = text_of("calibrate").partition("## calibration.json")[2]
    told = set(re.findall(r"`(\w+)`", page))
    records = (CalibrationFile, MapsOf, Sample, HeldOut, Figure, Share, ReliabilityBin, CoverageRow)
    for record in (*records, Calibration, ProbabilityModel):
        assert names_of(record) <= told, record
    assert f"At least {MIN_FITTED} images" in text_of("calibrate")
    assert f"({len(NORMALISERS)} normalisers, {len(THRESHOLDS)} thresholds)" in text_of("calibrate")


def test_the_conditions_of_the_page_of_comparisons_are_parsed() -> None:
    page = text_of("compare")
    examples = re.findall(r'["`](\w+(?:\.\w+)? [<>]=? [-\d.]+)["`]', page)
    assert {parse_gate(example).part for example in examples} == {"difference", "low", "high"}
    assert all(f"`{sign}`" in page for sign in OPERATORS)
