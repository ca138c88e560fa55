"""The map of the house is true: each package's docstring names its files, rooms are small, nothing lies outside one."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.command import ROOT

PACKAGES = sorted(
    init.parent.relative_to(ROOT)
    for top in ("jobs", "cluster", "cam_ops")
    for init in (ROOT / top).rglob("__init__.py")
)
WORDS = {
    "arrays",
    "class_lists",
    "classes",
    "compiled",
    "documents",
    "errors",
    "outside",
    "settings",
    "tables",
    "words",
}  # used by all of it


def held(package: Path) -> set[str]:
    """Return the names of a package's modules and packages."""
    modules = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    return modules | {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_a_package_is_a_docstring_that_names_its_files_a_line_each(package: Path) -> None:
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    assert len(tree.body) == 1  # it re-exports nothing
    named = re.findall(r"^\* `(\w+)`: \S", ast.get_docstring(tree) or "", re.MULTILINE)
    assert sorted(named) == sorted(held(package))


def test_every_python_file_lies_in_a_package_that_is_installed() -> None:
    for top in ("jobs", "cluster", "cam_ops"):
        assert all((path.parent / "__init__.py").exists() for path in (ROOT / top).rglob("*.py"))


def test_rooms_hold_one_to_twenty_files_and_nothing_lies_between_them() -> None:
    rooms = [package for package in PACKAGES if len(package.parts) == 2]
    assert {str(package.parent) for package in rooms} == {"cluster", "cam_ops"}
    assert all(1 <= len(held(room)) <= 20 for room in rooms)
    loose = {top: {p.stem for p in (ROOT / top).glob("*.py")} - {"__init__"} for top in ("cluster", "cam_ops")}
    assert loose == {"cluster": set(), "cam_ops": WORDS}


def test_the_readme_has_a_row_for_each_package_that_holds_code() -> None:
    rows = re.findall(r"^\| `([\w/]+)` \| \S", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(str(package) for package in PACKAGES if list((ROOT / package).glob("[!_]*.py")))
