"""The command line as run.json and logs show it."""

import random
from pathlib import Path

import pytest

from cam_ops.errors import UsageError
from cluster.label.config import LabelConfig
from jobs.flags import parse, shown_line

NEEDED = ["--images", "photos", "--out", "run", "--model", "resnet50"]


def test_the_line_is_what_was_typed() -> None:
    assert shown_line("label", [*NEEDED, "--threshold=0.3", "--normalise", "ivr:5"]) == (
        *("label", "--images", "photos", "--out", "run", "--model", "resnet50", "--threshold=0.3", "--normalise"),
        "ivr:5",
    )
    assert shown_line("rebox", ["run", "--out", "new"]) == ("rebox", "run", "--out", "new")


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("--storage-options secret_key=S region=S", "--storage-options secret_key=... region=..."),
        ("--storage_options s3.secret_key=S", "--storage_options s3.secret_key=..."),
        ("--storage-options=secret_key=S region=S", "--storage-options=secret_key=... region=..."),
        ("--storage_options=secret_key=S=S", "--storage_options=secret_key=..."),
        ("--storage-options S --storage-options region=S", "--storage-options ... --storage-options region=..."),
        (
            "--storage-options region=S --config f secret_key=S",
            "--storage-options region=... --config f secret_key=...",
        ),
        (
            "--storage-options region=S --config=f secret_key=S",
            "--storage-options region=... --config=f secret_key=...",
        ),
        ("--storage-options secret_key=S --limit 5", "--storage-options secret_key=... --limit 5"),
    ],
)
def test_values_of_storage_options_are_left_out_in_each_form_that_is_parsed(
    typed: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("limit: 7\n")
    assert all("S" in value for value in parse(LabelConfig, [*NEEDED, *typed.split()], "label").storage_options)
    assert shown_line("label", [*NEEDED, *typed.split()]) == ("label", *NEEDED, *shown.split())


def test_no_line_that_is_parsed_shows_a_secret(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("seed: 7\n")
    pieces = [
        *(["--storage-options", "secret_key=HIDDEN"], ["--storage_options=access_key=HIDDEN"], ["region=HIDDEN"]),
        *(["--config", str(tmp_path / "f")], [f"--config={tmp_path / 'f'}"], ["--flip"], ["--limit=5"], ["HIDDEN"]),
        *(["--storage-options"], ["session_token=HIDDEN"], ["-HIDDEN"], ["--threshold", "0.5"]),
    ]
    generator = random.Random(0)
    num_parsed = 0
    for _ in range(300):
        words = [*NEEDED, *(word for piece in generator.choices(pieces, k=generator.randint(1, 5)) for word in piece)]
        try:
            config = parse(LabelConfig, words, "label")
        except UsageError:
            continue
        if "HIDDEN" in str(config):
            continue  # behind another flag; storage options are not printed
        num_parsed += 1
        assert "HIDDEN" not in " ".join(shown_line("label", words)), words
    assert num_parsed > 30


def test_credentials_in_an_address_are_left_out() -> None:
    line = shown_line("rebox", ["s3://key:secret@bucket/run", "--out=gs://u:secret@bucket/new"])
    assert line == ("rebox", "s3://***@bucket/run", "--out=gs://***@bucket/new")


def test_bytes_that_are_no_text_become_escapes_that_are() -> None:
    assert shown_line("rebox", ["ru\udcffn"])[1].encode() == b"ru\\udcffn"
