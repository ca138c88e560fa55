"""A run that the code of 2026-11-28 made, before its files were in rooms, is one that today's code goes on with."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command import Command
from tests.support.first_run import KEPT, PICTURES, put_pictures

TABLES = ("heatmaps", "boxes", "images")
FLAGS = [
    *("--images", PICTURES, "--labels", KEPT / "labels.csv", "--classes", "label+top1"),
    *("--model", "jobs.demo_model:efficientnet_lite0", "--mean", *[0.498] * 3, "--std", *[0.502] * 3),
    *("--threshold", 0.2, 0.4, "--executor", "inline", "--device", "cpu", "--precision", "fp32", "--compile", "never"),
    *("--batch-size", 4, "--shard-size", 4, "--max-error-rate", 0.1),
]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A copy of the run, and its pictures in their place."""
    put_pictures()
    return Path(shutil.copytree(KEPT / "run", tmp_path / "run"))


def agree(ours: Path, theirs: Path) -> None:
    """Hold a table to another of the same settings, from a machine whose floats may differ in the last bits."""
    a, b = pq.read_table(ours), pq.read_table(theirs)
    assert a.schema.equals(b.schema, check_metadata=True)
    for name in a.column_names:
        x, y = a[name].combine_chunks(), b[name].combine_chunks()
        if name == "heatmap":
            x, y = x.storage.flatten(), y.storage.flatten()
        if name == "top_scores":
            x, y = x.flatten(), y.flatten()
        if pa.types.is_floating(x.type):
            np.testing.assert_allclose(x.to_numpy(False), y.to_numpy(False), rtol=1e-3, atol=1e-3, err_msg=name)
        else:
            assert x.equals(y), name


def test_it_is_whole(kept: Path) -> None:
    verified = Command("verify", kept)
    assert (verified.code, verified.result["images"], verified.result["boxes"]) == (0, 20, 38)


def test_it_is_resumed_and_what_is_made_anew_is_what_was_there(kept: Path) -> None:
    for shard in (1, 3):
        for table in TABLES:
            (kept / table / f"shard-{shard:07d}.parquet").unlink()
    (kept / "summary.json").unlink()
    resumed = Command("label", "--out", kept, *FLAGS)
    assert (resumed.code, resumed.result["images"], resumed.result["ok"]) == (0, 20, 19)
    assert "resuming" in resumed.err
    for table in TABLES:
        for shard in range(5):
            agree(kept / table / f"shard-{shard:07d}.parquet", KEPT / "run" / table / f"shard-{shard:07d}.parquet")
    assert (kept / "summary.json").read_bytes() == (KEPT / "run" / "summary.json").read_bytes()


def test_its_maps_are_not_refined_and_a_request_for_others_is_refused(kept: Path) -> None:
    for flags, reason in (
        (["--refine", "affinity"], "refinement.layers was None, now _blocks.10 _blocks.4"),
        (["--refine", "auto"], ""),
        (["--refine", "none"], ""),
    ):
        again = Command("label", "--out", kept, *FLAGS, *flags)
        assert (again.code, reason in again.result.get("error", "")) == (4 if reason else 0, True), again.result


def test_labelled_anew_it_has_the_same_fingerprint_plan_and_tables(kept: Path, tmp_path: Path) -> None:
    assert Command("label", "--out", tmp_path / "new", *FLAGS, "--refine", "none").code == 0
    before, after = (json.loads((run / "run.json").read_text()) for run in (kept, tmp_path / "new"))
    for name in ("fingerprint", "request", "plan", "grid", "class_names", "maps_from"):
        assert before[name] == after[name]
    for table in TABLES:
        for shard in range(5):
            name = f"{table}/shard-{shard:07d}.parquet"
            agree(tmp_path / "new" / name, KEPT / "run" / name)


def test_it_is_reboxed_with_the_same_settings_to_the_same_tables(kept: Path, tmp_path: Path) -> None:
    new = tmp_path / "reboxed"
    assert Command("rebox", kept, "--out", new, "--executor", "inline").code == 0
    assert Command("verify", new).code == 0
    for table in ("boxes", "images"):
        for shard in range(5):
            agree(new / table / f"shard-{shard:07d}.parquet", KEPT / "run" / table / f"shard-{shard:07d}.parquet")


def test_its_audit_has_the_same_figures(kept: Path) -> None:
    assert Command("audit", kept, "--truth", KEPT / "truth.csv", "--executor", "inline").code == 0
    before, after = (json.loads(path.read_text()) for path in (KEPT / "metrics.json", kept / "audit" / "metrics.json"))
    assert before["failures"] == after["failures"]
    assert before["excluded"] == after["excluded"]
    assert before["metrics"].keys() == after["metrics"].keys()
    for name, figure in before["metrics"].items():
        assert after["metrics"][name]["images"] == figure["images"]
        assert after["metrics"][name]["value"] == pytest.approx(figure["value"], abs=1e-3), name
