"""What `cluster.sources` and `cluster.formats` say of themselves: a new kind is one file, and a line in a tuple.

It is done to a copy of the program, whose own commands then know the kind.
"""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command import ROOT, Command, table_rows

TINY = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]

LINES = '''
"""A text file of lines `PATH CLASS`; a file .rgb is 32 x 32 pixels, byte by byte."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa

from cam_ops.tables import LISTING
from cluster.sources.listing import Listing
from cluster.sources.source import OwnLabels, Source


def _open(address, asked):
    lines = sorted(line.split() for line in Path(address).read_text().splitlines())[: asked.limit]
    rows = [(path, path, 0, -1, word) for path, word in lines]
    batch = pa.record_batch(list(zip(*rows)), schema=LISTING.append(pa.field("label", pa.string())))
    return nullcontext(Listing(num_images=len(rows), has_labels=True, batches=lambda: iter([batch])))


LINES = Source(
    means=lambda address: address.endswith(".lines"),
    check=lambda address, options: None,
    open=_open,
    own_labels=OwnLabels(
        word="lines", needed="FILE.lines", place="second word", subject="second words are", names_image="image_id"
    ),
    decoder=lambda row: _decode if row["uri"].endswith(".rgb") else None,
)


def _decode(content):
    return np.frombuffer(content, np.uint8).reshape(32, 32, 3)
'''

CORNERS = '''
"""A text file of lines `IMAGE x0 y0 x1 y1 CLASS`, pixels whose ends are inside, counted from 0."""

from cluster.formats.entries import Entry, batches_of
from cluster.formats.files import is_file, lines_of, reading
from cluster.formats.format import Format


def _entries(path):
    with reading(path, "lines of corners"):
        for _, line in lines_of(path):
            image, *corners, word = line.split()
            yield Entry(image=image, box=tuple(map(float, corners)), word=word)


CORNERS = Format(
    name="corners",
    frame="inclusive",
    recognise=lambda path: is_file(path, ".corners"),
    read=lambda path, masks: batches_of(_entries(path)),
)
'''


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy of the program; in it, `python -m jobs` is the copy's."""
    folder = tmp_path / "program"
    for package in ("cam_ops", "cluster", "jobs"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder


def add(program: Path, package: str, file: str, text: str, tuple_file: str, tuple_name: str) -> None:
    """Add a file that makes a record by its own name in capitals, and that record as the tuple's first."""
    (program / "cluster" / package / f"{file}.py").write_text(text)
    path = program / "cluster" / package / f"{tuple_file}.py"
    before, begin, after = path.read_text().partition(f"{tuple_name} = (\n")
    assert begin
    head, first_import, rest = before.partition("\nfrom cluster.")
    added = f"\nfrom cluster.{package}.{file} import {file.upper()}"
    path.write_text(f"{head}{added}{first_import}{rest}{begin}    {file.upper()},\n{after}")


@pytest.mark.slow
def test_a_new_kind_of_source_is_a_file_and_a_line(program: Path, tmp_path: Path) -> None:
    add(program, "sources", "lines", LINES, "kinds", "KINDS: tuple[Source, ...]")
    Image.new("RGB", (48, 40), (255, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "b.rgb").write_bytes(bytes((0, 255, 0)) * 32 * 32)
    (tmp_path / "x.lines").write_text(f"{tmp_path}/b.rgb 0\n{tmp_path}/a.png 1\n")
    out = tmp_path / "run"
    command = Command(
        "label", "--images", tmp_path / "x.lines", "--out", out, "--executor", "inline", *TINY, cwd=program
    )
    assert command.code == 0, command.err
    assert "labels: 2 of 2 images, from the lines" in command.err
    rows = [(row["image_id"], row["status"], row["label"], row["width"]) for row in table_rows(out, "images")]
    assert rows == [(f"{tmp_path}/a.png", "ok", 1, 48), (f"{tmp_path}/b.rgb", "ok", 0, 32)]
    assert [row["class_id"] for row in table_rows(out, "heatmaps")] == [1, 0]
    wrong = Command("label", "--images", tmp_path, "--labels", "lines", "--out", out, *TINY, cwd=program)
    assert (wrong.code, "--labels lines needs --images FILE.lines" in wrong.result["error"]) == (2, True)


@pytest.mark.slow
def test_a_new_annotation_format_is_a_file_and_a_line(program: Path, pictures: Path, tmp_path: Path) -> None:
    add(program, "formats", "corners", CORNERS, "detect", "FORMATS: tuple[Format, ...]")
    out, truth = tmp_path / "run", tmp_path / "boxes.corners"
    assert Command("label", "--images", pictures, "--out", out, "--executor", "inline", *TINY).code == 0
    truth.write_text("rings/00.png 10 5 29 14 1\n")
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1,class\nrings/00.png,10,5,30,15,1\n")
    added = Command("audit", out, "--truth", truth, "--executor", "inline", cwd=program)
    assert added.code == 0, added.err
    assert "truth: corners, 1 images, 1 boxes; 1 matched by path" in added.err
    said = [row["truth_digest"] for row in table_rows(out / "audit", "per_image.parquet")]
    assert Command("audit", out, "--truth", tmp_path / "boxes.csv", "--executor", "inline", "--overwrite").code == 0
    assert said == [row["truth_digest"] for row in table_rows(out / "audit", "per_image.parquet")]
    assert len(set(said)) > 1
    flags = [
        "--truth",
        pictures / "rings" / "00.png",
        "--truth-format",
        "corners",
        "--executor",
        "inline",
        "--overwrite",
    ]
    named = Command("audit", out, *flags, cwd=program)
    assert (named.code, "as lines of corners" in named.result["error"]) == (2, True), named.err
