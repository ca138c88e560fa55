"""What a command writes it can read: any text in the files of a run comes back as it was, or nothing is written."""

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cam_ops.classes import class_list
from cam_ops.errors import UsageError
from cam_ops.foreign import half_in, visible, whole
from cam_ops.tables import LABELLED
from cluster.audit.files import METRICS_FILE, audit_files, read_metrics
from cluster.export.marks import document_of
from cluster.runs.calibration import (
    read_calibration,
    write_calibration,
)
from cluster.runs.directory import RunDir
from cluster.runs.plan import read_shard, write_plan
from cluster.runs.record import MapsFrom, Run, publish_run, read_run
from cluster.storage.documents import document_bytes
from cluster.storage.parquet import decode, encode
from tests.support.command import Command
from tests.support.exported_runs import ExportedRun, calibration_file

ROUNDS = 100
HALVES = ("\ud800", "\udbff", "\udc00", "\udcff", "\udfff", "\udc80a\ud83e")
LETTERS = (
    *"aZ09 _-/\\\"'{}[]<>&;,:=%$#\t\n\r",
    *map(chr, range(32)),
    "\x7f",
    "\x85",
    "\x9b",
    "\xe4",
    "\u0645",
    "\u200d",
)
LETTERS += (
    "\u202e",
    "\u2028",
    "\ufeff",
    "\ufffe",
    "\uffff",
    "\U0001f98a",
    "\U0010ffff",
    "\ud83e\udd8a".encode("utf-16", "surrogatepass").decode("utf-16"),
)


def text(chance: random.Random, halves: float) -> str:
    """Return a text of any letters, now and then with a lone surrogate."""
    letters = chance.choices(LETTERS, k=chance.randint(1, 8))
    if chance.random() < halves:
        letters.insert(chance.randrange(len(letters) + 1), chance.choice(HALVES))
    return "".join(letters)


def is_whole(*texts: str) -> bool:
    try:
        "".join(f"{each} " for each in texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def texts_of(tree: Any) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    parts = [*tree.keys(), *tree.values()] if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else []
    return [each for part in parts for each in texts_of(part)]


def any_run(template: Run, of: Callable[[], str]) -> Run:
    """Return a run each of whose fields that may be any text is one."""
    request = replace(
        template.request,
        images=(of(), of()),
        labels=of(),
        model=of(),
        model_digest=of(),
        class_names_digest=of(),
        cut=(of(), of()),
        columns=(of(),),
        keep_columns=(of(),),
        include=(of(),),
        exclude=(of(), of()),
    )
    names = (of(), of())
    return replace(
        template,
        request=request,
        class_names=names,
        plan=replace(template.plan, digest=of(), kept=((f"column {of()}", "string"),)),
        config={of(): of(), "model": {"weights": of(), of(): [of(), None]}},
        maps_from=MapsFrom(root="/maps/of", fingerprint=of()),
        command_line=(of(), of()),
    )


@pytest.mark.parametrize("halves", [0.0, 0.02, 1.0])
def test_run_json(halves: float, template: Run, tmp_path: Path) -> None:
    chance = random.Random(f"run {halves}")
    outcomes = set()
    for number in range(ROUNDS):
        run = any_run(template, lambda: text(chance, halves))
        run_dir = RunDir(str(tmp_path / str(number)))
        said = [run.class_names, run.config, run.command_line, run.plan.digest, run.plan.kept, run.request.fields()]
        if is_whole(*texts_of([*said, run.maps_from.fingerprint if run.maps_from else ""])):
            publish_run(run_dir, run)
            assert read_run(run_dir) == run
            outcomes.add("read")
        else:
            with pytest.raises(UsageError, match=r"run\.json cannot hold"):
                publish_run(run_dir, run)
            assert not Path(run_dir.root).exists()
            outcomes.add("refused")
    assert outcomes == {0.0: {"read"}, 0.02: {"read", "refused"}, 1.0: {"refused"}}[halves]


@pytest.mark.parametrize("halves", [0.0, 0.2])
def test_calibrations(halves: float, template: Run, tmp_path: Path) -> None:
    chance = random.Random(f"calibration {halves}")
    for number in range(ROUNDS):
        texts = [text(chance, halves) for _ in range(8)]
        request = replace(template.request, model=texts[0], model_digest=texts[1], cut=(texts[2], texts[3]))
        file = calibration_file(request, fingerprint=texts[4], truth_format=texts[5], excluded={texts[6]: 3})
        path = tmp_path / f"{number}.json"
        if is_whole(*texts[:7]):
            write_calibration(str(path), file)
            assert read_calibration(str(path)) == file
        else:
            with pytest.raises(UsageError, match="cannot hold"):
                write_calibration(str(path), file)
            assert not list(tmp_path.glob(f"{number}.*"))


def test_figures_of_audits_and_records_of_exports(tmp_path: Path) -> None:
    chance = random.Random("audit")
    files = audit_files(RunDir(str(tmp_path)))
    figure = {"value": None, "unit": "percent", "images": 0, "reason": "none"}
    for _ in range(ROUNDS):
        of = [text(chance, 0.1) for _ in range(8)]
        document: dict[str, Any] = {
            "fingerprint": of[0],
            "metrics": {of[1]: {**figure, "reason": of[2]}},
            "settings": {of[3]: of[4]},
            "truth": {"path": of[5], "problems": {of[6]: [of[7]]}},
        }
        if not is_whole(*of):
            with pytest.raises(UsageError, match="cannot hold"):
                document_bytes(document, METRICS_FILE)
            continue
        files.publish(METRICS_FILE, document_bytes(document, METRICS_FILE))
        assert document_of(document_bytes(document, METRICS_FILE)) == document
        read = read_metrics(files, of[0])
        assert read
        assert (read.settings, read.truth, list(read.metrics)) == (document["settings"], document["truth"], [of[1]])


def test_plans_and_tables(tmp_path: Path) -> None:
    chance = random.Random("plan")
    for number in range(50):
        ids = sorted({text(chance, 0) for _ in range(20)}, key=str.encode)
        extra = [text(chance, 0) for _ in ids]
        schema = LABELLED.append(pa.field(f"note {text(chance, 0)}", pa.string()))
        nothing = [0] * len(ids)
        batch = pa.record_batch([ids, extra, nothing, [-1] * len(ids), pa.nulls(len(ids), pa.int32()), extra], schema)
        run_dir = RunDir(str(tmp_path / str(number)))
        plan = write_plan(run_dir, [batch], 64)
        rows = read_shard(run_dir, 0)
        assert (rows["image_id"].to_pylist(), rows["uri"].to_pylist()) == (ids, extra)
        assert rows[schema.names[-1]].to_pylist() == extra
        assert plan.kept == ((schema.names[-1], "string"),)
        assert decode(encode(rows), "rows").equals(rows)


def test_what_is_shown_or_stored_of_a_half_is_whole() -> None:
    chance = random.Random("whole")
    for _ in range(ROUNDS):
        given = text(chance, 0.5)
        whole(given).encode()
        visible(given).encode()
        assert (whole(given) == given) is is_whole(given) is (half_in({"a": [1, {given: 2}, None]}) is None)


TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
HALF_NAME = "cat \ud83e"


def label(pictures: Path, out: object, *more: object) -> Command:
    return Command("label", "--images", pictures, "--out", out, "--executor", "inline", *TWO, *more)


def assert_nothing_written(done: Command, folder: Path, before: set[Path]) -> None:
    assert (done.code, done.result["status"]) == (2, "usage")
    assert "UTF-8" in done.result["error"] or "Unicode" in done.result["error"]
    assert {*folder.rglob("*")} == before
    json.dumps(done.result, ensure_ascii=False).encode()


def test_a_class_with_half_a_letter_is_refused_before_anything_is_written(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps([HALF_NAME, "dog"]))
    before = {*tmp_path.rglob("*")}
    assert_nothing_written(
        label(pictures, tmp_path / "run", "--class-names", tmp_path / "names.json"), tmp_path, before
    )
    with pytest.raises(UsageError, match="in Unicode"):
        class_list([()] * 2, [HALF_NAME, "dog"])


@pytest.mark.parametrize(
    "flag", ["--images", "--out", "--weights", "--labels", "--class-names", "--columns", "--include"]
)
def test_a_word_with_other_bytes_is_refused_before_anything_is_written(
    flag: str, pictures: Path, tmp_path: Path
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    odd.mkdir()
    Image.new("RGB", (32, 32)).save(odd / "a.png")
    before = {*tmp_path.rglob("*")}
    assert_nothing_written(label(pictures, tmp_path / "run", flag, odd), tmp_path, before)


def test_a_run_below_a_folder_with_other_bytes_is_refused(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    odd.mkdir()
    Image.new("RGB", (32, 32)).save(odd / "a.png")
    monkeypatch.chdir(odd)
    before = {*tmp_path.rglob("*")}
    assert_nothing_written(label(pictures, "run"), tmp_path, before)
    for words in (["status", "run"], ["verify", "run"], ["show", "run", "--random"], ["audit", "run"]):
        assert_nothing_written(Command(*words), tmp_path, before)
    run = tmp_path / "run"
    assert_nothing_written(label(Path(), run), tmp_path, before)  # whose pictures lie there
    assert label(pictures, run).code == 0
    (odd / "truth.csv").write_text("image_id,x0,y0,x1,y1\n")
    before = {*tmp_path.rglob("*")}
    assert_nothing_written(Command("audit", run, "--truth", "truth.csv"), tmp_path, before)


def test_words_with_half_a_letter_are_refused_or_escaped(pictures: Path, labelled: ExportedRun, tmp_path: Path) -> None:
    picture = min(pictures.rglob("*.png"))
    lines = tmp_path / "manifest.jsonl"
    lines.write_text(json.dumps({"uri": str(picture), "label": HALF_NAME}) + "\n")
    features = {"label": {"_type": "ClassLabel", "names": [HALF_NAME, "dog"]}, "image": {"_type": "Image"}}
    table = pa.table({"image": [{"bytes": picture.read_bytes(), "path": "a.png"}], "label": [0]})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}),
        tmp_path / "pictures.parquet",
    )
    done = label(lines, tmp_path / "run", "--labels", "manifest")
    assert (done.code, (tmp_path / "run").exists()) == (2, False), done.err
    done = label(tmp_path / "pictures.parquet", tmp_path / "run", "--labels", "manifest")  # by their order
    assert done.code == 0, done.err  # metadata that cannot be read are none: classes are numbers
    assert "cat" not in (tmp_path / "run" / "run.json").read_text()
    assert Command("verify", tmp_path / "run").code == 0
    (tmp_path / "yolo" / "labels").mkdir(parents=True)
    (tmp_path / "yolo" / "data.yaml").write_text('names: ["cat \\ud83e"]\n')
    odd = os.fsencode(tmp_path / "yolo" / "labels") + b"/\xff.txt"
    Path(os.fsdecode(odd)).write_text("0 .5 .5 .1 .1\n")
    done = Command("audit", labelled.root, "--truth", tmp_path / "yolo", "--truth-format", "yolo", "--name", "half")
    assert done.code == 2, done.err
