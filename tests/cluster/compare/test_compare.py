"""`compare`: differences of real runs counted again by hand, paired intervals, gates that fail, what is refused."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from threading import Timer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cam_ops.errors import StorageError, UsageError
from cluster.compare.gates import parse_gate
from cluster.compare.scratch import scratch_tables
from tests.support.command import Command, table_rows
from tests.support.stores import Store

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
INLINE = ["--executor", "inline", "--precision", "fp32", "--max-error-rate", 1]
PER_IMAGE = pa.schema(
    [
        ("image_id", pa.string()),
        ("shard", pa.int32()),
        ("true_class", pa.int32()),
        ("excluded", pa.string()),
        ("truth_area", pa.float32()),
        ("truth_digest", pa.uint64()),
        ("iou", pa.float32()),
        ("correct", pa.bool_()),
    ]
)


def label(pictures: Path, out: object, *more: object) -> Command:
    done = Command("label", "--images", pictures, "--out", out, *INLINE, *TWO, *more)
    assert done.code == 0, done.err
    return done


def compared(a: object, b: object, *more: object) -> dict:
    """Return the document of a comparison."""
    done = Command("compare", a, b, "--json", *more)
    assert done.code == 0, done.err
    return done.document


def iou(a: dict, b: dict) -> float:
    width = min(a["x1"], b["x1"]) - max(a["x0"], b["x0"])
    height = min(a["y1"], b["y1"]) - max(a["y0"], b["y0"])
    shared = max(0, width) * max(0, height)
    areas = sum((box["x1"] - box["x0"]) * (box["y1"] - box["y0"]) for box in (a, b))
    return shared / (areas - shared)


def best_boxes(out: Path) -> dict[tuple[str, int], dict]:
    return {(row["image_id"], row["class_id"]): row for row in table_rows(out, "boxes") if row["rank"] == 0}


@pytest.fixture
def two_runs(pictures: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run, and one of other boxes, shards and pictures: one is damaged, one is new, one is gone."""
    a, b = tmp_path / "a", tmp_path / "b"
    label(pictures, a, "--shard-size", 5, "--classes", "topk:2", "--components", "all", "--threshold", 0.3)
    (pictures / "discs" / "03.png").write_bytes(b"")
    (pictures / "discs" / "05.png").rename(pictures / "rings" / "new.png")
    label(pictures, b, "--shard-size", 3, "--classes", "topk:2", "--normalise", "minmax", "--threshold", 0.8)
    return a, b


def test_what_changed_between_two_runs_is_what_their_tables_say(two_runs: tuple[Path, Path]) -> None:
    a, b = two_runs
    found = compared(a, b)
    assert found["settings"]["boxes.threshold"] == ["0.3", "0.8"]
    assert found["settings"]["maps.normalise"] == ["max", "minmax"]
    assert set(found["settings"]) == {"boxes.threshold", "boxes.components", "maps.normalise", "shard_size"}
    tables = found["tables"]
    assert [tables[name] for name in ("images_a", "images_b", "images")] == [12, 12, 11]
    assert tables["statuses"] == [{"status_a": "ok", "status_b": "empty", "images": 1}]
    images_a, images_b = ({row["image_id"]: row for row in table_rows(out, "images")} for out in (a, b))
    both = images_a.keys() & images_b.keys()
    assert tables["boxes_a"] == sum(images_a[image]["num_boxes"] for image in both)
    assert tables["boxes_b"] == sum(images_b[image]["num_boxes"] for image in both)
    boxes_a, boxes_b = best_boxes(a), best_boxes(b)
    overlaps = {key: iou(boxes_a[key], boxes_b[key]) for key in boxes_a.keys() & boxes_b.keys() if key[0] in both}
    assert tables["box_pairs"] == len(overlaps) > 10
    assert tables["only_a"] == len([key for key in boxes_a.keys() - boxes_b.keys() if key[0] in both])
    assert tables["only_b"] == len([key for key in boxes_b.keys() - boxes_a.keys() if key[0] in both])
    assert tables["only_a"] > 0
    assert tables["mean_iou"] == pytest.approx(np.mean(list(overlaps.values())), abs=1e-12)
    assert tables["below_half"] == sum(overlap < 0.5 for overlap in overlaps.values()) > 0
    lowest = sorted((overlap, *key) for key, overlap in overlaps.items() if overlap < 1)[:10]
    shown = [(row["iou"], row["image_id"], row["class_id"]) for row in tables["most_changed"]]
    assert [row[1:] for row in shown] == [row[1:] for row in lowest]
    np.testing.assert_allclose([row[0] for row in shown], [row[0] for row in lowest], rtol=1e-12)
    assert found["audit"] is None
    text = Command("compare", a, b).out
    assert "boxes.threshold: 0.3 -> 0.8" in text
    assert "1 ok -> empty" in text
    assert "audit       none of A and B" in text


def test_a_run_is_the_same_as_itself_and_the_first_threshold_counts(pictures: Path, tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    label(pictures, one, "--threshold", 0.4)
    assert Command("rebox", one, "--out", many, "--threshold", 0.4, 0.1, "--executor", "inline").code == 0
    for found in (compared(one, one), compared(one, many)):
        tables = found["tables"]
        assert (tables["box_pairs"], tables["mean_iou"], tables["most_changed"]) == (tables["boxes_a"], 1, [])
        assert (tables["only_a"], tables["only_b"], tables["statuses"], tables["top_classes_changed"]) == (0, 0, [], 0)
    assert compared(one, one)["settings"] == {}


def test_changed_classes_labels_and_sizes_are_counted(pictures: Path, tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    names = tmp_path / "names.txt"
    names.write_text("discs\nrings\n")
    label(pictures, a, "--labels", "folder", "--class-names", names, "--classes", "topk:2")
    red, wide = np.full((48, 64, 3), (250, 0, 0), np.uint8), np.zeros((48, 70, 3), np.uint8)
    wide[10:30, 40:60] = (250, 200, 200)
    for name, image_HWC in (("discs/01.png", red), ("rings/02.png", wide)):
        Image.fromarray(image_HWC).save(pictures / name)
    label(pictures, b, "--class-names", names, "--classes", "topk:2")
    tables = compared(a, b)["tables"]
    tops_a, tops_b = ({row["image_id"]: row["top_classes"][0] for row in table_rows(out, "images")} for out in (a, b))
    changed = [image for image in tops_a if tops_a[image] != tops_b[image]]
    assert (tables["top_classes"], tables["top_classes_changed"]) == (12, len(changed))
    assert sum(row["images"] for row in tables["top_changes"]) == len(changed)
    assert (tables["labels_changed"], tables["sizes_changed"]) == (12, 1)
    pairs = best_boxes(a).keys() & best_boxes(b).keys()
    assert tables["box_pairs"] == len([image for image, _ in pairs if image != "rings/02.png"]) < len(pairs)
    names.write_text("rings\ndiscs\n")
    label(pictures, c, "--class-names", names)
    tables = compared(b, c)["tables"]
    assert (tables["class_lists_differ"], tables["top_classes"], tables["box_pairs"]) == (True, 0, 0)
    assert "different lists of classes" in Command("compare", b, c).out


CORRECT = {"a": [True, True, False, False, True, None], "b": [True, False, True, True, True, None]}
IOUS = {"a": [0.75, 0.5, 0.25, None, 1.0, None], "b": [0.75, None, 0.875, 0.5, 0.5, None]}
CLASSES = [0, 0, 1, 1, 1, None]


def audit(out: Path, side: str, **changes: object) -> None:
    """Write an audit's files by the contract: six images, the last one excluded; Poisson weights as if by image."""
    correct, overlaps = CORRECT[side], IOUS[side]
    weight_BI = np.random.default_rng(7).poisson(1, (400, 5))
    hits_I = np.array(correct[:5], float)
    with np.errstate(invalid="ignore"):  # a replicate may have no image
        replicates = {"max_box_acc": 100 * (weight_BI @ hits_I) / weight_BI.sum(1), "px_ap": np.full(400, np.nan)}
    known = {"value": 100 * hits_I.mean(), "low": 10.0, "high": 90.0, "images": 5, "unit": "percent", "reason": None}
    metrics = {
        "max_box_acc": known,
        "px_ap": {**known, "value": None, "low": None, "high": None, "reason": "there are no masks"},
        "mean_iou": {**known, "value": 0.5 if side == "a" else 0.55, "unit": "ratio", "note": "a note"},
    }
    document = {"schema_version": "1.0.0", "out": str(out), "truth": None, "images": 5, "excluded": {"missing": 1}}
    document["fingerprint"] = json.loads((out / "run.json").read_text())["fingerprint"]
    rows = {
        "image_id": [f"{place}/{i:02d}.png" for i, place in enumerate(("rings", "discs") * 3)],
        "shard": [0] * 6,
        "true_class": CLASSES,
        "excluded": [None] * 5 + ["missing"],
        "truth_area": [0.5] * 5 + [None],
        "truth_digest": [2**64 - 1 - i for i in range(6)],
        "iou": overlaps,
        "correct": correct,
        **changes,
    }
    folder = out / "audit"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps({**document, "settings": {"side": side}, "metrics": metrics}))
    pq.write_table(pa.table(replicates), folder / "bootstrap.parquet")
    pq.write_table(pa.table(rows, schema=PER_IMAGE), folder / "per_image.parquet")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `a`, and `b` of other boxes."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "pictures").mkdir()
    for name, colour in (("red", (250, 0, 0)), ("green", (0, 250, 0))):
        image_HWC = np.zeros((32, 32, 3), np.uint8)
        image_HWC[8:20, 8:24] = colour
        Image.fromarray(image_HWC).save(folder / "pictures" / f"{name}.png")
    (folder / "names.txt").write_text("discs\nrings\n")
    label(folder / "pictures", folder / "a", "--class-names", folder / "names.txt")
    assert Command("rebox", folder / "a", "--out", folder / "b", "--threshold", 0.5, "--executor", "inline").code == 0
    return folder


@pytest.fixture
def audited(runs: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Those two runs with an audit each."""
    for name in "ab":
        shutil.copytree(runs / name, tmp_path / name)
        audit(tmp_path / name, name)
    return tmp_path / "a", tmp_path / "b"


def test_audits_are_paired_replicate_by_replicate(runs: Path, audited: tuple[Path, Path]) -> None:
    found = compared(*audited)
    assert found["settings"] == {
        "boxes.threshold": ["0.2", "0.5"],
        "maps_from": ["None", str(runs / "a")],
        "audit.side": ["a", "b"],
    }
    by_name = {row["metric"]: row for row in found["audit"]["metrics"]}
    weight_BI = np.random.default_rng(7).poisson(1, (400, 5))
    weight_BI = weight_BI[weight_BI.any(1)]
    change_B = 100 * (weight_BI @ np.array([0, -1, 1, 1, 0])) / weight_BI.sum(1)
    accuracy = by_name["max_box_acc"]
    assert (accuracy["a"], accuracy["b"], accuracy["difference"]) == (60, 80, 20)
    np.testing.assert_allclose([accuracy["low"], accuracy["high"]], np.percentile(change_B, (2.5, 97.5)), atol=1e-9)
    assert (by_name["px_ap"]["difference"], by_name["px_ap"]["reason"]) == (
        None,
        "it has no value in A: there are no masks",
    )
    assert by_name["mean_iou"]["difference"] == 0.05
    assert by_name["mean_iou"]["reason"] == "the audit of A has no bootstrap replicates of it"
    moved = found["audit"]
    assert (moved["unpaired"], moved["images"], moved["gained"], moved["lost"]) == (None, 5, 2, 1)
    assert moved["most_gained"] == [
        {"image_id": "rings/02.png", "iou_a": 0.25, "iou_b": 0.875},
        {"image_id": "discs/03.png", "iou_a": None, "iou_b": 0.5},
    ]
    assert moved["most_lost"] == [{"image_id": "discs/01.png", "iou_a": 0.5, "iou_b": None}]
    assert moved["classes"] == [
        {
            "class_id": 1,
            "class_name": "rings",
            "images": 3,
            "gained": 2,
            "lost": 0,
            "iou_change": (0.625 + 0.5 - 0.5) / 3,
        },
        {"class_id": 0, "class_name": "discs", "images": 2, "gained": 0, "lost": 1, "iou_change": -0.5 / 2},
    ]
    text = Command("compare", *audited).out
    assert "+20.00" in text
    assert "(the audit of A has no bootstrap replicates of it)" in text
    assert "2 gained, 1 lost of 5" in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_id": [f"rings/{i}" for i in range(6)]}, "6 are in A only, 6 are in B only"),
        ({"excluded": [None] * 4 + ["missing", "missing"]}, "1 are excluded in one only, or for another reason"),
        ({"truth_digest": [2**64 - 1 - i for i in (0, 1, 2, 3, 4, 6)]}, "1 have other true boxes or masks"),
        ({"truth_area": [0.5, 0.5, 0.25, 0.25, None, None]}, "3 have other true boxes or masks"),
    ],
)
def test_audits_of_other_images_or_other_truth_are_not_paired(
    audited: tuple[Path, Path], changes: dict[str, list], reason: str
) -> None:
    audit(audited[1], "b", **changes)
    found = compared(*audited)["audit"]
    assert found["unpaired"] == f"the audited images differ: {reason}"
    accuracy = found["metrics"][0]
    assert (accuracy["difference"], accuracy["low"], accuracy["high"]) == (20, None, None)
    assert f"no intervals: the audited images differ: {reason}" in Command("compare", *audited).out
    judged = Command("compare", *audited, "--fail-if", "max_box_acc.low < -1000")
    assert (judged.code, "cannot be judged: the audited images differ" in judged.result["error"]) == (2, True)


@pytest.mark.parametrize(
    ("conditions", "code", "sentence"),
    [
        (["max_box_acc < -1.0"], 0, None),
        (["max_box_acc<20"], 0, None),
        (["max_box_acc <= 20"], 3, "--fail-if 'max_box_acc <= 20' holds: it is +20"),
        (["max_box_acc < -1", "mean_iou >= .05"], 3, "--fail-if 'mean_iou >= .05' holds: it is +0.05"),
        (["max_box_acc.low < 0"], 3, "--fail-if 'max_box_acc.low < 0' holds: it is -"),
        (["max_box_acc.high < 0"], 0, None),
        (["top1_loc < 0"], 2, "names no metric of these audits; they have max_box_acc, px_ap, mean_iou"),
        (["px_ap < 0"], 2, "cannot be judged: it has no value in A: there are no masks"),
        (["mean_iou.low < 0"], 2, "cannot be judged: the audit of A has no bootstrap replicates"),
        (["max_box_acc == 0"], 2, "expects METRIC OP NUMBER"),
    ],
)
def test_a_condition_that_holds_is_exit_3_and_one_that_cannot_be_judged_exit_2(
    audited: tuple[Path, Path], conditions: list[str], code: int, sentence: str | None
) -> None:
    judged = Command("compare", *audited, "--fail-if", *conditions)
    assert judged.code == code
    assert sentence is None or (sentence in judged.result["error"] and sentence in judged.err)


def test_each_of_several_conditions_counts_however_they_are_given(audited: tuple[Path, Path], tmp_path: Path) -> None:
    judged = Command("compare", *audited, "--fail-if", "max_box_acc > 1", "--fail-if", "max_box_acc < 1")
    assert judged.code == 3
    (tmp_path / "gate.yaml").write_text('fail_if: ["max_box_acc < 1", "max_box_acc > 1"]\n')
    assert Command("compare", *audited, "--config", tmp_path / "gate.yaml").code == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ap",
        "ap <",
        "< 1",
        "ap < x",
        "ap < 1 or 1",
        "ap.mid < 1",
        "ap < nan",
        "__import__('os') < 1",
        "ap << 1",
        "a b < 1",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expects METRIC OP NUMBER"):
        parse_gate(text)


def test_a_difference_is_free_of_the_noise_of_floating_point(audited: tuple[Path, Path]) -> None:
    for out, value in zip(audited, (2.2, 1.2), strict=True):
        path = out / "audit" / "metrics.json"
        document = json.loads(path.read_text())
        document["metrics"]["max_box_acc"]["value"] = value
        path.write_text(json.dumps(document))
    assert 1.2 - 2.2 < -1
    assert Command("compare", *audited, "--fail-if", "max_box_acc < -1.0").code == 0


def test_without_audits_a_condition_is_not_passed(two_runs: tuple[Path, Path]) -> None:
    judged = Command("compare", *two_runs, "--fail-if", "max_box_acc < -1")
    assert (judged.code, "they have none, as not both runs are audited" in judged.result["error"]) == (2, True)


def test_audits_that_a_stranger_wrote_are_refused(audited: tuple[Path, Path]) -> None:
    a, b = audited
    folder = b / "audit"

    def refused(sentence: str) -> None:
        done = Command("compare", a, b)
        assert (done.code, sentence in done.result["error"]) == (5, True), done.result
        audit(b, "b")

    (folder / "metrics.json").write_text('{"fingerprint": "", "metrics": {"ap": {"value": "1"}}, "settings": {}}')
    refused("is not an audit's: metrics.ap.value")
    (folder / "metrics.json").write_text("[" * 100_000)
    refused("is not an audit's")
    document = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**document, "fingerprint": "0" * 64}))
    refused("is of another run that was here before")
    (folder / "bootstrap.parquet").unlink()
    refused("bootstrap.parquet is missing")
    pq.write_table(pa.table({"max_box_acc": ["1"]}), folder / "bootstrap.parquet")
    refused("expected columns of float64")
    (folder / "per_image.parquet").write_bytes(b"PAR1")
    refused("cannot read")
    pq.write_table(pa.table({"image_id": ["x"]}), folder / "per_image.parquet")
    refused("expected a column true_class of int32")
    audit(b, "b", image_id=["x"] * 6)
    refused("an image is twice")
    audit(b, "b", iou=[float("nan")] * 6)
    refused("is not finite")


def test_damaged_tables_and_no_run_at_all_are_refused(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two_runs
    path = next((b / "boxes").iterdir())
    table = pq.read_table(path)
    for name, value, problem in (
        ("x1", float("nan"), "a box is empty or reaches outside its image"),
        ("class_id", 9999, "it names classes that the run has not"),
        ("row", 9999, "its boxes name rows that the shard has not"),
    ):
        at = table.schema.names.index(name)
        values = pa.array([value] * len(table), table.schema.types[at])
        pq.write_table(table.set_column(at, table.schema.field(at), values), path)
        damaged = Command("compare", a, b)
        assert (damaged.code, f"is damaged: {problem}" in damaged.result["error"]) == (5, True), damaged.err
    assert Command("compare", a, tmp_path / "nowhere").code == 5
    assert Command("compare", a).code == 2


def test_a_long_query_is_interrupted(interruptible: None) -> None:
    start_s = time.monotonic()
    Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), scratch_tables() as tables:
        tables.execute("SELECT count(*) FROM range(100000) a, range(10000000) b WHERE a.range * b.range % 7 = 3")
    assert time.monotonic() - start_s < 20


def test_without_room_for_the_tables_the_cure_is_said() -> None:
    with pytest.raises(StorageError, match="set TMPDIR to a folder with room"), scratch_tables("1MiB") as tables:
        tables.execute("CREATE TABLE t AS SELECT range, random() AS x FROM range(3000000) ORDER BY x")


def test_an_incomplete_run_is_compared_as_far_as_it_is(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = two_runs
    (b / "images" / "shard-0000001.parquet").unlink()
    found = compared(a, b, "--out", tmp_path / "changes.json")
    assert found["incomplete"] == {"B": "3 of 4 shards are committed"}
    assert found["tables"]["images_b"] == 9
    assert json.loads((tmp_path / "changes.json").read_text()) == found
    assert Command("compare", a, b, "--out", tmp_path / "no" / "folder").code == 5


def test_runs_without_an_image_in_common_are_refused(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    picture = tmp_path / "other" / "z.png"
    picture.parent.mkdir()
    Image.fromarray(np.full((48, 64, 3), (250, 0, 0), np.uint8)).save(picture)
    label(picture.parent, tmp_path / "c")
    refused = Command("compare", two_runs[0], tmp_path / "c")
    assert (refused.code, "have no image in common" in refused.result["error"]) == (2, True)


def test_runs_on_a_store_are_compared(audited: tuple[Path, Path], s3: Store) -> None:
    addresses = [s3.put(out, f"compare/{out.name}") for out in audited]
    near, far = compared(*audited), compared(*addresses, "--storage-options", *s3.words)
    assert far.pop("a") == addresses[0]
    assert far.pop("b") == addresses[1]
    assert {**near, "a": None, "b": None} == {**far, "a": None, "b": None}
