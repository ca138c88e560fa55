"""With --json stdout is one JSON document, however a command ends, and the last line of stderr is CAMRAY_RESULT."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command import ROOT, Command, table_rows

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
INLINE = ["--executor", "inline"]


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


def test_documents_of_commands_on_a_run_are_what_its_files_hold(tmp_path: Path) -> None:
    for name in ("black/1.png", "red/2.png", "red/3.png"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), (255 * ("red" in name), 0, 0), np.uint8)).save(
            tmp_path / "pictures" / name
        )
    (tmp_path / "pictures" / "red" / "4.png").write_bytes(b"no picture")
    (tmp_path / "names.txt").write_text("black\nred\n")
    run, new = tmp_path / "run", tmp_path / "new"
    flags = ["--labels", "folder", "--class-names", tmp_path / "names.txt", "--precision", "fp32", "--shard-size", 2]
    flags += ["--max-error-rate", 0.5]
    labelled = Command("label", "--images", tmp_path / "pictures", "--out", run, *TWO, *INLINE, *flags, "--json")
    assert labelled.code == 0, labelled.err
    held = json.loads((run / "summary.json").read_text())
    totals = {name: held[name] for name in ("images", "statuses", "maps", "boxes")}
    found = labelled.document
    assert {name: found[name] for name in totals} == totals
    assert (found["out"], found["images_with_label"], found["images_with_map"]) == (str(run), 4, 3)
    (reason,) = found["reasons"]
    assert (reason["status"], reason["images"], reason["example"]) == ("undecodable", 1, "red/4.png")
    assert (found["agreement"]["judged"], found["agreement"]["top1"]) == (3, 3)

    far = Command("status", run, "--json").document
    assert {**found, "shards": 2, "shards_committed": 2, "images_planned": 4}.items() <= far.items()
    assert Command("rebox", run, "--out", new, *INLINE, "--json").document == {**found, "out": str(new)}
    assert Command("verify", run, "--json").document == {
        **{"out": str(run), "is_whole": True, "problems": [], "totals": totals, "cure": None, "part": None},
    }
    exported = ["export", run, "--to", "coco", "--out", tmp_path / "coco", *INLINE, "--json"]
    record = Command(*exported).document
    assert record == json.loads((tmp_path / "coco" / "export.json").read_text())
    assert Command(*exported).document == record  # which is there already
    page = Command("report", run, *INLINE, "--json").document
    assert page.items() >= {**found, "out": str(run / "report.html"), "images_shown": 3}.items()
    assert page["bytes"] == (run / "report.html").stat().st_size
    same = Command("compare", run, new, "--json", "--out", tmp_path / "same.json")
    assert same.out == (tmp_path / "same.json").read_text()

    (run / "images" / "shard-0000001.parquet").unlink()
    broken = Command("verify", run, "--json")
    assert (broken.code, broken.document["is_whole"]) == (3, False)
    assert f"{broken.document['problems'][0]}; {broken.document['cure']}" == broken.result["error"]
    assert Command("status", run, "--json").document["shards_committed"] == 1


def test_status_says_how_many_images_have_labels_and_maps() -> None:
    run = ROOT / "tests" / "fixtures" / "first_run" / "run"
    rows = table_rows(run, "images")
    labelled, mapped = sum(row["label"] is not None for row in rows), sum(row["num_maps"] > 0 for row in rows)
    assert 0 < mapped < labelled == len(rows)
    said = Command("status", run).out.splitlines()
    num_maps = sum(row["num_maps"] for row in rows)
    assert {f"labels  of {labelled} images", f"maps    {num_maps}, of {mapped} images"} <= set(said)
