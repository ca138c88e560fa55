"""The README shows what there is: commands, make targets; and the demo that it begins with works."""

import re
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from cam_ops.settings import BoxConfig, ExplainConfig, MapConfig, ModelConfig, RefineConfig
from cluster.label.config import LabelConfig
from jobs.commands import COMMANDS
from jobs.flags import parse
from jobs.shell import config_of
from tests.support.command import ROOT, loaded, result_of

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
CONFIGS = {command: config_of(command) for command in COMMANDS}


def commands_of(text: str) -> list[list[str]]:
    """Return the words after `python -m jobs` or `camray` of each command in the code blocks."""
    blocks = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = re.findall(r"(?:python -m jobs|^camray) (.+)$", blocks, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_the_readme_lists_each_command_once() -> None:
    listed = re.findall(r"^\* \[`(\w+)`\]\(docs/", README, re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


def test_the_first_screen_is_two_make_targets_that_exist() -> None:
    targets = re.findall(r"^make (\w+)$", README, re.MULTILINE)
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets)
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"


def test_every_flag_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(LabelConfig, ["--help"], "label")
    shown = capsys.readouterr().out
    nested = ModelConfig, ExplainConfig, RefineConfig, MapConfig, BoxConfig
    names = {field.name for config in nested for field in fields(config)}
    names |= {field.name for field in fields(LabelConfig)} - {"explain", "maps", "boxes"}
    assert all(f"--{name.replace('_', '-')}" in shown for name in names)
    assert "Fraction of the map's own peak" in " ".join(shown.replace("│", " ").split())


@pytest.mark.ray
def test_the_demo_labels_verifies_audits_and_reports_and_does_without_torch(tmp_path: Path) -> None:
    code, libraries, out = loaded("demo", "--out", tmp_path / "demo")
    result = result_of(out)
    assert (code, result["images"], result["ok"], "torch" in libraries) == (0, 8, 8, False)
    overlaps = {line.split()[0]: float(line.split()[-1]) for line in out.splitlines() if "IoU with" in line}
    assert len(overlaps) == 8
    assert sum(overlap >= 0.5 for overlap in overlaps.values()) >= 4
    assert "whole: every image exactly once" in out
    address = next(line.split()[1] for line in out.splitlines() if line.startswith("report"))
    page = Path(address.removeprefix("file://")).read_text()
    assert page.count('src="data:image/webp;base64,') == 8
    assert all(name in page for name in overlaps)
    assert '"truth":{"boxes":[[77.0,17.0,480.0,390.0]]' in page.replace(" ", "")  # the cup, by eye
    line = next(line for line in out.splitlines() if line.startswith("ask DuckDB")).removeprefix("ask DuckDB")
    asked = subprocess.run(shlex.split(line), cwd=ROOT, capture_output=True, text=True)
    assert (asked.returncode, "espresso" in asked.stdout) == (0, True)
