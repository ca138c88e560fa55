"""Parts of a run: what --shards names, and what each command makes of a part, or of a run that is not complete."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cam_ops.errors import UsageError
from cluster.runs.part import covers, parse_shards, written
from tests.cluster.audit.test_audit import INLINE, label, write_truth
from tests.support.command import Command


@pytest.fixture
def run(pictures: Path, tmp_path: Path) -> Path:
    """A run of twelve images in six shards."""
    label(pictures, tmp_path / "run", "--shard-size", 2)
    return tmp_path / "run"


def metrics_of(run: Path, folder: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((run / folder / "metrics.json").read_text())
    return document


def images_of(run: Path, *shards: int) -> list[str]:
    tables = [pq.read_table(run / "images" / f"shard-{shard:07d}.parquet") for shard in shards]
    return [image_id for table in tables for image_id in table["image_id"].to_pylist()]


def test_shards_are_written_as_they_are_asked_for() -> None:
    assert parse_shards("0-9, 20") == (range(10), range(20, 21))
    assert written([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    for text in ("", "3-1", "a", "-1", "1-", "1,,2", "1234567890", "٣"):
        with pytest.raises(UsageError, match="--shards expects numbers"):
            parse_shards(text)
    assert covers(None, "0-9")
    assert covers("0-4,6-9", "6-8,2")
    assert not covers("0-4,6-9", "3-6")
    assert not covers("0-9", None)


def test_an_audit_of_a_part_does_not_replace_that_of_the_whole(run: Path, pictures: Path, tmp_path: Path) -> None:
    truth = ["--truth", write_truth(pictures, tmp_path / "truth.csv")]
    part = Command("audit", run, *INLINE, *truth, "--shards", "1-2,5")
    assert (part.code, part.result["images"]) == (0, 6)
    words = "a part: shards 1-2,5 of the run's 6, 6 images"
    document = metrics_of(run, "audit")
    assert words == part.result["part"] == document["part"] == part.out.splitlines()[0]
    assert (document["images"], document["request"]["shards"]) == (6, "1-2,5")
    assert pq.read_table(run / "audit" / "per_image.parquet")["image_id"].to_pylist() == images_of(run, 1, 2, 5)
    assert Command("audit", run, *INLINE, *truth, "--shards", "1-3").code == 4
    whole = Command("audit", run, *INLINE, *truth)
    assert (whole.code, "part" in whole.result) == (0, False)  # of more shards
    assert metrics_of(run, "audit")["part"] is None
    refused = Command("audit", run, *INLINE, *truth, "--shards", "0-4")
    assert (refused.code, "shards was not given, now 0-4" in refused.result["error"]) == (4, True)
    assert metrics_of(run, "audit")["images"] == 12
    assert Command("audit", run, *INLINE, *truth, "--shards", "0-4", "--name", "part").code == 0
    assert Command("audit", run, *INLINE, *truth, "--shards", "4-6").code == 2


def test_of_an_incomplete_run_each_command_takes_what_is_there_and_says_so(run: Path, tmp_path: Path) -> None:
    ids = images_of(run, 0, 1, 2, 4, 5)
    (run / "images" / "shard-0000003.parquet").unlink()
    words = "a part: shards 0-2,4-5 of the run's 6, 10 images; 1 shard that belongs to it is not committed"
    out, page = tmp_path / "export", tmp_path / "page.html"
    csv = ["export", run, "--to", "csv", "--keep-empty", "--executor", "inline"]
    for command in (["audit", run, *INLINE], [*csv, "--out", out], ["report", run, "--out", page]):
        done = Command(*command)
        assert (done.code, done.result["part"]) == (0, words), done.err
        assert words in done.out.splitlines()
    assert metrics_of(run, "audit")["part"] == words
    assert json.loads((out / "export.json").read_text())["part"] == words
    assert words in page.read_text().replace("&#39;", "'")
    exported = {line.partition(",")[0] for line in (out / "boxes.csv").read_text().splitlines()[1:]}
    assert exported <= {*ids}
    assert len(exported) > 5
    assert Command(*csv, "--out", out).code == 0  # it is there already
    assert Command("verify", run).code == 3
    whole = Command("verify", run, "--shards", "0-2,4")
    assert (whole.code, whole.result["images"]) == (0, 8)
    assert "a part: shards 0-2,4 of the run's 6, is whole: 8 images exactly once" in whole.out
    assert "1 of 2 shards is not committed" in Command("verify", run, "--shards", "3-4").out
    boxes = run / "boxes" / "shard-0000005.parquet"
    boxes.write_bytes(boxes.read_bytes()[:50])
    assert Command("verify", run, "--shards", "0-2").code == 0
    assert Command("verify", run, "--shards", "5").code == 3
    assert Command("audit", run, *INLINE, "--shards", "3", "--name", "none").code == 5
    label(run.parent / "pictures", run, "--shard-size", 2, "--repair")
    assert Command("audit", run, *INLINE).code == 0  # of all by now
    refused = Command(*csv, "--out", out)
    assert (refused.code, "holds an export" in refused.result["error"]) == (4, True)


def test_a_part_is_exported_and_shown_alone(run: Path, tmp_path: Path) -> None:
    csv = ["export", run, "--to", "csv", "--keep-empty", "--executor", "inline"]
    part = Command(*csv, "--out", tmp_path / "part", "--shards", "4-5", "--category-ids", "all")
    assert (part.code, part.result["images"]) == (0, 4)
    limited = Command(*csv, "--out", tmp_path / "limited", "--shards", "4-5", "--limit", 9)
    assert (limited.code, limited.result["exported"]) == (0, 1)
    nothing = Command(*csv, "--out", tmp_path / "none", "--shards", "4-5", "--limit", 8)
    assert (nothing.code, "--limit 8 ends before shard 4" in nothing.result["error"]) == (2, True)
    page = Command("report", run, "--shards", "4-5", "--out", tmp_path / "page.html")
    assert (page.code, page.result["images"]) == (0, 4)
    assert Command("report", run, "--shards", "4-5", "--against", run, "--out", tmp_path / "page.html").code == 2
