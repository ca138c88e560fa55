"""With --json stdout is one JSON document, however a command ends, and the last line of stderr is CAMRAY_RESULT."""

import json
from pathlib import Path

import pytest

from tests.support.command import Command


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["compare", "a", "b", "--json"], 5, "holds no run"),
        (["compare", "a", "b", "--json", "--limit", "3"], 2, "--limit"),
        (["show", "a", "--json"], 2, "--json"),  # which has no such flag
        (["compare", "a", "b", "--config", "as_json.yaml"], 5, "holds no run"),
        (["no-command", "--json"], 2, "no-command"),
    ],
)
def test_an_error_is_one_document_too(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "as_json.yaml").write_text("json: true\n")
    done = Command(*(tmp_path / word if word == "as_json.yaml" else word for word in words))
    assert done.code == done.document["exit_code"] == code, done.err
    assert done.document == {name: done.result[name] for name in ("error", "status", "exit_code")}
    assert said in done.err


def test_json_that_is_switched_off_again_is_off() -> None:
    done = Command("compare", "a", "b", "--json", "--no-json")
    assert done.out.startswith("CAMRAY_RESULT ")
    assert "CAMRAY_RESULT" not in done.err


def test_a_document_ends_in_a_newline_and_is_indented_by_one() -> None:
    done = Command("compare", "a", "b", "--json", process=True)
    assert done.out == json.dumps(done.document, indent=1) + "\n"
