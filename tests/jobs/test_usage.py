"""Wrong commands, flags and values: one sentence each, which names what was meant."""

from pathlib import Path

import pytest

from tests.support.command import Command

LABEL = ["label", "--images", "photos", "--out", "run", "--model", "resnet50"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["labl"], "'labl' is no command; is it label?"),
        (["help"], "'help' is no command; is it --help?"),
        (["--versio"], "'--versio' is no command; is it --version?"),
        (["frobnicate"], "'frobnicate' is no command; expected one of label, plan, rebox"),
        ([*LABEL, "--treshold", "0.3"], "--treshold is no flag of label; is it --threshold?"),
        ([*LABEL, "--Batch_Size=3"], "--Batch-Size is no flag of label; is it --batch-size?"),
        ([*LABEL, "--zzz"], "--zzz is no flag of label; `label --help-all` lists all"),
        (["show", "run", "--clas", "cat"], "--clas is no flag of show; is it --class?"),
        ([*LABEL, "--no-flp"], "--no-flp is no flag of label; is it --no-flip?"),
        ([*LABEL, "--device", "tpu"], "--device expects one of auto, cuda, cpu, got tpu; is it cpu?"),
        (["export", "run", "--to", "yolov8", "--out", "x"], "got yolov8; is it yolo?"),
        ([*LABEL, "--limit", "many"], "--limit expects INT, got 'many'"),
        ([*LABEL, "--mean", "1", "2"], "--mean expects FLOAT FLOAT FLOAT or FLOAT, got '1', '2'"),
        ([*LABEL, "--threshold", "low"], "--threshold expects FLOAT ..., got 'low'"),
        ([*LABEL, "--limit"], "--limit expects a value"),
        ([*LABEL, "--flip", "yes"], "label does not know what to do with yes"),
        (["label", "--images", "photos"], "label needs --out and --model"),
        (["status"], "status needs OUT"),
        (["compare", "run"], "compare needs A and B"),
    ],
)
def test_a_mistake_is_said_once_for_people_and_once_in_the_result(words: list[str], said: str) -> None:
    done = Command(*words)
    assert done.code == 2
    assert said in done.result["error"]
    assert done.err == f"camray: error: {done.result['error']}\n"


def test_a_wrong_name_in_a_file_of_flags_is_named_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("treshold: 0.3\n")
    done = Command(*LABEL, "--config", tmp_path / "job.yaml")
    assert f"{tmp_path}/job.yaml: treshold is no flag of label; is it threshold?" in done.result["error"]


@pytest.mark.parametrize("command", ["status", "verify", "audit", "report", "show", "demo"])
def test_each_command_takes_its_flags_from_a_file(command: str, tmp_path: Path) -> None:
    name = "grid: none" if command == "show" else "out: /dev/null/x" if command == "demo" else "storage_options: {a: b}"
    (tmp_path / "job.yaml").write_text(f"{name}\n")
    words = [] if command == "demo" else ["run", *(["x.jpg"] if command == "show" else [])]
    said = Command(command, *words, "--config", tmp_path / "job.yaml").result["error"]
    assert {"show": "--grid", "demo": "/dev/null/x"}.get(command, "--storage-options") in said


def test_a_sentence_with_a_long_value_keeps_its_beginning_and_its_cure(tmp_path: Path) -> None:
    (tmp_path / "flags.yaml").write_text("normalise: " + "b" * 50_000)
    words = ["label", "--images", tmp_path, "--out", tmp_path / "run", "--model", "resnet18"]
    error = Command(*words, "--config", tmp_path / "flags.yaml").result["error"]
    assert error.startswith("--normalise expects minmax")
    assert 1000 < len(error) < 3000
