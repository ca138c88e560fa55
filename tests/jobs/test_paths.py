"""Files that flags name to be written, by the command line."""

import shutil
from pathlib import Path

import pytest

from tests.support.command import Command
from tests.support.exported_runs import ExportedRun


@pytest.mark.parametrize("name", ["run.json", "summary.json", "boxes/shard-0000000.parquet", "plan/part-00000.parquet"])
def test_a_file_of_a_run_is_not_replaced(labelled: ExportedRun, tmp_path: Path, name: str) -> None:
    run = shutil.copytree(labelled.root, tmp_path / "run", ignore=shutil.ignore_patterns("audit*", ".scratch"))
    file = tmp_path / "link"
    file.symlink_to(run / name)
    before = file.read_bytes()
    (tmp_path / "truth.csv").write_text("image_id,x0,y0,x1,y1\n")
    for words in (
        ("compare", run, run, "--out", file),
        ("show", run, "--random", "--to", file),
        ("calibrate", run, "--truth", tmp_path / "truth.csv", "--out", file),
    ):
        done = Command(*words)
        assert (done.code, f"{file} is a file of a run, which it would replace" in done.err) == (2, True), done.err
    assert file.read_bytes() == before


def test_other_files_in_a_run_s_folder_are_written(labelled: ExportedRun, tmp_path: Path) -> None:
    run = shutil.copytree(labelled.root, tmp_path / "run", ignore=shutil.ignore_patterns("audit*", ".scratch"))
    for _ in range(2):
        done = Command("compare", run, run, "--out", run / "compared.json")
        assert (done.code, (run / "compared.json").exists()) == (0, True), done.err
