"""docs/output.md says what a run writes: its tables are the schemas', its examples run, its fields are all there."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest

from cam_ops.boxes.extract import boxes_from_heatmaps
from cam_ops.errors import BadImage
from cam_ops.settings import BoxConfig, MapConfig, Refinement
from cam_ops.tables import COLUMNS, METADATA_KEY, STATUSES
from cluster.executors.events import Kind
from cluster.executors.work import ShardReport
from cluster.label.quarantine import read_quarantine
from cluster.runs.directory import open_run_dir
from cluster.runs.session import Session
from tests.support.command import ROOT, Command
from tests.support.output_page import PAGE, SCHEMAS, made

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
OF_MASKS = {"mask unreadable", "mask of another shape"}  # reasons of `audit`, in docs/audit.md


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text()


@pytest.fixture
def run(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert Command("label", "--images", pictures, "--out", tmp_path / "run", "--executor", "inline", *TWO).code == 0
    return tmp_path / "run"


def section(page: str, title: str) -> str:
    """Return what stands below a heading, down to the next of its kind."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def fields_of(table: str) -> set[str]:
    """Return the names in the first cells of a table."""
    first_cells = " ".join(re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE))
    return set(re.findall(r"`(\w+)`", first_cells))


def test_the_tables_are_made_from_the_schemas(page: str) -> None:
    assert re.findall(r"<!-- made: (\w+) -->", page) == ["boxes", "heatmaps", "images", "statuses", "plan", "suspects"]
    assert made(page) == page, "python -m tests.support.output_page writes it anew"


def test_each_column_is_described_and_no_other() -> None:
    assert {table: set(columns) for table, columns in COLUMNS.items()} == {
        table: set(schema.names) for table, schema in SCHEMAS.items()
    }


def statuses_in(tree: ast.AST) -> set[str]:
    """Return the words that become a status: first arguments of BadImage, and values given to `.status`."""
    words: set[str] = set()
    for node in ast.walk(tree):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "BadImage":
            given = node.args[:1]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple | ast.Attribute):
            targets = getattr(node.targets[0], "elts", [node.targets[0]])
            values = getattr(node.value, "elts", [node.value])
            pairs = zip(targets, values, strict=False)
            given = [value for target, value in pairs if getattr(target, "attr", None) == "status"]
        elif isinstance(node, ast.AnnAssign) and getattr(node.target, "id", None) == "status" and node.value:
            given = [node.value]
        leaves = [leaf for value in given for leaf in ast.walk(value) if isinstance(leaf, ast.Constant)]
        words |= {leaf.value for leaf in leaves if isinstance(leaf.value, str)}
    return words


def test_each_status_that_the_code_gives_is_described_and_no_other() -> None:
    errors = ROOT / "cam_ops" / "errors.py"  # whose statuses are of commands
    files = [path for folder in ("cam_ops", "cluster") for path in (ROOT / folder).rglob("*.py") if path != errors]
    assert set().union(*(statuses_in(ast.parse(path.read_text())) for path in files)) == set(STATUSES) | OF_MASKS


def test_the_worked_example_is_what_boxes_are(page: str) -> None:
    drawn = re.search(r"raw map .*?\n\n(.*?)```", page, re.DOTALL)
    assert drawn
    raw = [[float(number) for number in line.split()[:4]] for line in drawn[1].splitlines()]
    rows = re.findall(r"^\| (?:first|second) \| [AB] \| (.+) \|$", page, re.MULTILINE)
    told = [[float(number) for number in row.replace("|", " ").split()] for row in rows]
    made_of = np.array([raw], np.float32), np.array([[0, 0, 40, 40]], np.float32), np.array([[40, 40]])
    found = boxes_from_heatmaps(*made_of, 4, MapConfig(), BoxConfig(threshold=(0.2,), components="all"))
    columns = [found.boxes_N4, found.peak_N, found.energy_N, found.area_fraction_N, found.rank_N]
    np.testing.assert_allclose(np.column_stack(columns), told, rtol=1e-6)
    (largest,) = boxes_from_heatmaps(*made_of, 4, MapConfig(), BoxConfig(threshold=(0.2,))).boxes_N4
    assert largest.tolist() == told[0][:4]
    assert np.mean(raw) == 1.5


def test_the_examples_run(page: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), {})
    shown = capsys.readouterr().out
    assert len(blocks) == 4
    assert "(12, 32, 32) discs/01.png" in shown
    assert "boxes cam pixels of the original image after EXIF orientation" in shown


def test_the_fields_of_each_document_are_those_of_the_page(page: str, run: Path) -> None:
    document = json.loads((run / "run.json").read_text())
    whole, _, of_request = section(page, "run.json").partition("Of the request:")
    assert fields_of(whole) == set(document)
    only_where_given = {"refinement", "columns", "keep_columns", "unknown_labels"}
    assert fields_of(of_request) - only_where_given == set(document["request"])
    assert fields_of(section(page, "summary.json")) == set(json.loads((run / "summary.json").read_text()))
    for group in ("plan", "preprocessing", "explain", "maps", "boxes"):
        names = (document[group] if group == "plan" else document["request"][group]).keys()
        assert all(f"`{name}`" in section(page, "run.json") for name in names), group
    assert all(f"`{field.name}`" in section(page, "run.json") for field in fields(Refinement))


def metadata_of(path: Path) -> dict[str, Any]:
    return json.loads(pq.read_schema(path).metadata[METADATA_KEY.encode()])


def test_the_fields_that_each_file_carries_are_those_of_the_page(page: str, run: Path) -> None:
    told = fields_of(section(page, "The document in each file"))
    for table in ("heatmaps", "boxes", "images"):
        assert set(metadata_of(run / table / "shard-0000000.parquet")) == told - {
            "calibration",
            "refinement",
            "agreement",
        }
    assert set(metadata_of(run / "plan" / "part-00000.parquet")) == {"schema_version", "table"}


def test_what_suspects_carry_is_on_the_page(page: str, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("discs\nrings\n")
    flags = ["--labels", "folder", "--class-names", tmp_path / "names.txt", "--executor", "inline", *TWO]
    assert Command("label", "--images", pictures, "--out", tmp_path / "labelled", *flags).code == 0
    document = metadata_of(tmp_path / "labelled" / "suspects.parquet")
    assert set(document) == fields_of(section(page, "The document in each file")) - {"calibration", "refinement"}
    assert all(f"`{name}`" in section(page, "The document in each file") for name in document["agreement"])
    tree = re.search(r"```\nrun/\n(.*?)```", page, re.DOTALL)
    assert tree
    assert {path.name for path in (tmp_path / "labelled").iterdir()} <= set(re.findall(r"[\w.]+", tree[1]))


def test_the_fields_of_a_quarantine_are_those_of_the_page(page: str, tmp_path: Path) -> None:
    quarantine = read_quarantine(open_run_dir(str(tmp_path)), 0, after_death=False)
    quarantine.add(3, BadImage("crashed_decoder", "SIGSEGV"))
    document = json.loads((tmp_path / "quarantine" / "shard-0000000.json").read_text())
    assert fields_of(section(page, "quarantine")) == set(document)
    assert document["bad"] == {"3": ["crashed_decoder", "SIGSEGV"]}


def test_the_events_of_a_log_and_their_fields_are_those_of_the_page(page: str, run: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", section(page, "log"), re.MULTILINE)
    told = {event: set(re.findall(r"`(\w+)`", text)) for event, text in rows}
    assert set(told) == {*get_args(Kind), "start", "shard_done", "left_out", "end"}
    session = Session(datetime(2026, 11, 29, tzinfo=UTC), {}, max_shard_lines=1, max_events=1)
    for _ in range(3):
        session.add_event("replica_up", {"place": "", "seconds": 0.0}, 0.0)
    session.add_shard(ShardReport(shard=0, statuses={"ok": 1}), 0.0)
    session.add_shard(ShardReport(shard=1, statuses={"ok": 1}), 0.0)
    (file,) = (run / "log").iterdir()
    for line in map(json.loads, [*file.read_text().splitlines(), *session.content().splitlines()[1:]]):
        statuses = {"done", "failed", "interrupted", "ok", "load"} if line["event"] in ("end", "shard_done") else set()
        assert told[line["event"]] - statuses >= line.keys() - {"time", "event"}
        assert told[line["event"]] - statuses - line.keys() <= {"since"}
    assert all(
        f"`{stage}`" in section(page, "log")
        for stage in ("load", "network", "boxes", "publish", "fetch", "decode", "read")
    )
    script = ROOT / "cluster" / "executors" / "events.py"
    for kind in get_args(Kind):
        said = re.search(rf'"{kind}",  # (.+)', script.read_text())
        assert said
        assert all(name in said[1] for name in told[kind]), kind


def test_the_lines_that_ask_a_log_work(page: str, run: Path) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", section(page, "log"), re.DOTALL)
    asked, filtered = block.splitlines()
    words = shlex.split(asked)
    assert words[:2] == ["python", "-c"]
    done = subprocess.run([sys.executable, "-c", words[2]], cwd=run.parent, capture_output=True, text=True, timeout=60)
    assert " 12 " in done.stdout, done.stderr
    if shutil.which("jq"):
        done = subprocess.run(filtered, shell=True, cwd=run.parent, capture_output=True, text=True, timeout=60)
        assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["end"]


def test_the_tree_shows_what_lies_in_a_run(page: str, run: Path) -> None:
    tree = re.search(r"```\nrun/\n(.*?)```", page, re.DOTALL)
    assert tree
    drawn = {re.split(r"[/ ]", line[4:])[0] for line in tree[1].splitlines()}
    assert {path.name for path in run.iterdir()} <= drawn
    assert not list((run / ".scratch").iterdir())
