"""An audit of a run without labels says what that does, how to mend it, and has written what is needed for that."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cluster.audit.test_audit import INLINE, TWO, audit, label, values, write_truth
from tests.support.command import Command, table_rows
from tests.support.stores import Store

EXACT = ["--precision", "fp32", "--classes", "label+top1"]


@pytest.fixture
def truth(pictures: Path, tmp_path: Path) -> Path:
    return write_truth(pictures, tmp_path / "truth.csv")


def without_labels(pictures: Path, out: object, *more: object) -> None:
    (pictures.parent / "names.txt").write_text("discs\nrings\n")
    flags = ["--class-names", pictures.parent / "names.txt", "--precision", "fp32", *more]
    assert Command("label", "--images", pictures, "--out", out, *INLINE, *TWO, *flags).code in (0, 3)


def test_what_it_does_to_the_figures_is_said_first_and_labels_that_mend_it_are_written(
    pictures: Path, truth: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    without_labels(pictures, run)
    done = Command("audit", run, *INLINE, "--truth", truth)
    right = sum(image["top_classes"][0] == int("rings" in image["image_id"]) for image in table_rows(run, "images"))
    assert 0 < right < 12
    first, second, third = done.out.splitlines()[:3]
    assert first == (
        "the run has no labels: its maps are of the classes that the network predicts, right or wrong; the figures "
        f"have the {right} whose true class it predicted, and leave out {12 - right} that it took for another: they "
        "flatter"
    )
    assert f"`label` with --labels {run}/audit/labels.csv" in second
    assert third.startswith("figure ")
    as_json = Command("audit", run, *INLINE, "--truth", truth, "--json")
    assert first in as_json.err.splitlines()
    document = as_json.document
    counts = {"in_truth": 12, "images": 12, "known": 12, "audited": right, "left_out": 12 - right}
    assert document["unlabelled"] == counts

    rows = list(csv.DictReader((run / "audit" / "labels.csv").read_text().splitlines()))
    assert rows == [{"image_id": row["image_id"], "label": row["image_id"][:5]} for row in table_rows(run, "images")]
    label(pictures, tmp_path / "by-folder")
    known = audit(tmp_path / "by-folder", "--truth", truth)
    assert known["unlabelled"] is None
    flags = ["--labels", run / "audit" / "labels.csv", "--class-names", tmp_path / "names.txt", *EXACT]
    mended = tmp_path / "mended"
    assert Command("label", "--images", pictures, "--out", mended, *INLINE, *TWO, *flags).code == 0
    assert values(audit(mended, "--truth", truth)) == values(known)
    assert not (mended / "audit" / "labels.csv").exists()
    assert (known["metrics"]["gt_known_loc"]["images"], right) == (12, document["metrics"]["gt_known_loc"]["images"])


def test_a_run_of_which_some_images_have_a_label(pictures: Path, truth: Path, tmp_path: Path) -> None:
    (tmp_path / "half.csv").write_text("image_id,label\n" + "".join(f"discs/{i:02d}.png,0\n" for i in (1, 3, 5)))
    run = tmp_path / "run"
    without_labels(pictures, run, "--labels", tmp_path / "half.csv", "--classes", "label+top1")
    done = Command("audit", run, *INLINE, "--truth", truth)
    assert done.out.startswith("9 of the 12 images of the truth have no label in the run: their maps are")
    assert len((run / "audit" / "labels.csv").read_text().splitlines()) == 13


def test_classes_are_called_so_that_they_mean_one_thing(pictures: Path, tmp_path: Path) -> None:
    """Class 0 is called 1, and class 1 is called `a, "b"`: a number would mean another class."""
    (tmp_path / "names.txt").write_text('1\na, "b"\n')
    run, mended = tmp_path / "run", tmp_path / "mended"
    flags = ["--class-names", tmp_path / "names.txt", *INLINE, *TWO, "--precision", "fp32"]
    assert Command("label", "--images", pictures, "--out", run, *flags).code == 0
    truth = write_truth(pictures, tmp_path / "truth.csv")
    done = Command("audit", run, *INLINE, "--truth", truth, "--class-map", "discs=1", 'rings=a, "b"')
    assert done.code == 0, done.err
    labels = ["--labels", run / "audit" / "labels.csv"]
    assert Command("label", "--images", pictures, "--out", mended, *flags, *labels).code == 0
    assert {(row["image_id"][:5], row["label"]) for row in table_rows(mended, "images")} == {("discs", 0), ("rings", 1)}


def test_an_audit_without_a_figure_ends_with_3_and_the_reason(pictures: Path, truth: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    without_labels(pictures, run)
    plain = tmp_path / "plain.csv"
    plain.write_text("\n".join(",".join(line.split(",")[:5]) for line in truth.read_text().splitlines()) + "\n")
    failed = Command("audit", run, *INLINE, "--truth", plain)
    assert (failed.code, failed.result["status"]) == (3, "no_figure")
    assert failed.result["error"] == (
        "no figure has a value: of 12 images 12 true class unknown; label the run (--labels), or say with --class-map "
        "what the truth's words mean"
    )
    assert failed.out.startswith("the run has no labels: ")
    assert "the truth names no classes of the network" in failed.out.splitlines()[0]
    assert not (run / "audit" / "labels.csv").exists()
    assert pq.read_table(run / "audit" / "per_image.parquet").num_rows == 12
    assert Command("audit", run, *INLINE, "--overwrite").code == 0  # of maps alone there is something to say


def test_a_run_without_a_map_ends_with_3_with_truth_or_without(pictures: Path, truth: Path, tmp_path: Path) -> None:
    for path in pictures.glob("*/*.png"):
        path.write_bytes(b"")
    run = tmp_path / "run"
    without_labels(pictures, run)
    failed = Command("audit", run, *INLINE, "--truth", truth)
    assert failed.code == 3
    assert "no figure has a value: of 12 images 12 status empty" in failed.result["error"]
    without = Command("audit", run, *INLINE, "--overwrite")
    assert (without.code, without.result["error"]) == (
        3,
        "the run has no map to say anything of: its images are 12 empty",
    )


def test_it_is_the_same_on_a_store(s3: Store, pictures: Path, truth: Path) -> None:
    out, options = s3.address("audited-without-labels"), ["--storage-options", *s3.words]
    without_labels(pictures, out, *options)
    done = Command("audit", out, *INLINE, "--truth", truth, *options)
    assert done.code == 0, done.err
    assert f"--labels {out}/audit/labels.csv" in done.out
    (path,) = s3.folder.glob("**/audited-without-labels/audit/labels.csv")
    assert len(path.read_text().splitlines()) == 13
