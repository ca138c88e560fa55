"""docs/audit.md explains every name that `audit` prints or writes, and what is missing where a run has no labels."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cam_ops.metrics.localization import FAILURES
from tests.cluster.audit.test_audit import INLINE, TWO, audit, disc_of, label, values, write_truth
from tests.support.command import ROOT, Command

PAGE = (ROOT / "docs" / "audit.md").read_text()
NAMED = set(re.findall(r"`([^`\n]+)`", PAGE))
OF_DATA = ("excluded", "failures", "problems")  # whose keys are reasons


def names_in(document: Any) -> Iterator[str]:
    """Yield the keys of a document, down to its leaves."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            if key not in OF_DATA:
                yield from names_in(value)
            elif key == "problems":
                yield from (name for problem in value.values() for name in problem)
    elif isinstance(document, list):
        for value in document:
            yield from names_in(value)


def write_masks(pictures: Path, folder: Path) -> Path:
    for picture in pictures.glob("*/*.png"):
        disc_HW = (np.asarray(Image.open(picture)) == (200, 220, 240)).all(2)
        mask = folder / picture.parent.name / picture.name
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(disc_HW.astype(np.uint8) * 255).save(mask)
    return folder


@pytest.fixture
def truth(pictures: Path, tmp_path: Path) -> Path:
    return write_truth(pictures, tmp_path / "truth.csv")


def unlabelled(pictures: Path, out: Path, *more: object) -> Path:
    (pictures.parent / "names.txt").write_text("discs\nrings\n")
    flags = ["--class-names", pictures.parent / "names.txt", "--precision", "fp32"]
    assert Command("label", "--images", pictures, "--out", out, *INLINE, *TWO, *flags, *more).code == 0
    return out


def test_each_name_that_is_printed_or_written_is_explained(pictures: Path, truth: Path, tmp_path: Path) -> None:
    label(pictures, tmp_path / "run")
    strange = truth.with_name("strange.csv")
    strange.write_text(truth.read_text() + "nobody.png,0,0,9,9,discs\n")  # a problem
    names: set[str] = set()
    run, without = tmp_path / "run", unlabelled(pictures, tmp_path / "without")
    names |= set(names_in(audit(without, "--truth", truth)["unlabelled"]))
    assert "labels.csv" in NAMED
    for more in (
        ["--truth", strange, "--calibrate", 0.5],
        ["--truth", write_masks(pictures, tmp_path / "masks"), "--bootstrap", 0],
        [],
    ):
        done = Command("audit", run, *INLINE, "--overwrite", *more)
        table = done.out.split("not audited:")[0].split("failures:")[0].split("maps:")[0]
        names |= {line.split()[0] for line in table.splitlines()[1:]}
        names |= set(names_in(json.loads((tmp_path / "run" / "audit" / "metrics.json").read_text())))
        for path in (tmp_path / "run" / "audit").glob("*.parquet"):
            names |= set(pq.read_schema(path).names)
            assert path.name in NAMED
    assert {"max_box_acc_v2_70", "box_acc_v2_calibrated", "px_precision", "mean_map", "examples", "p95"} <= names
    assert names - NAMED == set()


def test_each_failure_is_explained_in_the_order_in_which_it_is_said() -> None:
    told = re.findall(r"^\| `(\w+)` \|", PAGE.partition("## What went wrong")[2].partition("\n## ")[0], re.MULTILINE)
    assert sorted(told) == sorted(FAILURES)


@pytest.mark.slow
def test_without_labels_only_the_images_that_the_network_classified_right_are_in_the_figures(
    pictures: Path, truth: Path, tmp_path: Path
) -> None:
    label(pictures, tmp_path / "labelled")
    known = audit(tmp_path / "labelled", "--truth", truth)
    run = unlabelled(pictures, tmp_path / "run")
    found = audit(run, "--truth", truth)
    right = sum(row["top1"] for row in pq.read_table(run / "audit" / "per_image.parquet").to_pylist())
    assert 0 < right < 12
    assert found["excluded"] == {"no map of the true class": 12 - right}
    assert values(found)["top1_loc"] == values(found)["gt_known_loc"]
    assert found["metrics"]["gt_known_loc"]["images"] == right
    assert values(found)["top1_loc"] * right == pytest.approx(12 * values(known)["top1_loc"])
    assert found["metrics"]["ap"]["images"] == 12


def test_without_labels_and_without_words_for_classes_there_is_no_figure(
    pictures: Path, truth: Path, tmp_path: Path
) -> None:
    plain = truth.with_name("plain.csv")
    plain.write_text("\n".join(",".join(line.split(",")[:5]) for line in truth.read_text().splitlines()) + "\n")
    run = unlabelled(pictures, tmp_path / "run")
    document = audit(run, "--truth", plain, code=3)
    assert document["excluded"] == {"true class unknown": 12}
    assert set(values(document).values()) == {None}
    assert document["signals"]["images"] == 12


def test_each_reason_why_an_image_takes_no_part_is_told(pictures: Path, truth: Path, tmp_path: Path) -> None:
    reasons: set[str] = set()
    masks = write_masks(pictures, tmp_path / "masks")
    (masks / "discs" / "01.png").write_bytes(b"no picture")
    label(pictures, tmp_path / "labelled")
    reasons |= set(audit(tmp_path / "labelled", "--truth", masks)["excluded"])
    wsol = tmp_path / "wsol"
    wsol.mkdir()
    ids = [f"{path.parent.name}/{path.name}" for path in sorted(pictures.glob("*/*.png"))]
    (wsol / "image_ids.txt").write_text("\n".join(ids[1:]))
    boxes = [",".join(map(str, (name, *disc_of(pictures / name)))) for name in ids[2:]]
    (wsol / "localization.txt").write_text("\n".join(boxes))
    (pictures / ids[-1]).write_bytes(b"")
    run = unlabelled(pictures, tmp_path / "run", "--max-error-rate", 0.5)
    for truth_of_run, code in ((truth, 0), (wsol, 3)):
        reasons |= set(audit(run, "--truth", truth_of_run, code=code)["excluded"])
    assert reasons == {
        *("mask unreadable", "not in the truth", "status empty", "no true box or mask", "true class unknown"),
        "no map of the true class",
    }
    assert reasons <= NAMED
