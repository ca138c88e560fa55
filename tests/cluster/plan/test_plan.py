"""`plan` by its command, on small folders: against the folder, against `label`, and nothing is left behind."""

import os
import re
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from cluster.plan.lines import lines_of
from cluster.process.failpoints import VARIABLE
from jobs.plan import run as run_plan
from tests.support.command import ROOT, Command, loaded
from tests.support.nodes import wait_until

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
FLAGS = [*TWO, "--executor", "inline", "--precision", "fp32", "--shard-size", 4]


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return all files below a folder, with their times and bytes, and the folders."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def words(pictures: Path, out: Path, *more: object) -> list[object]:
    return ["--images", pictures, "--out", out, *FLAGS, *more]


def test_a_new_run_is_foretold_from_the_folder_and_nothing_is_written(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (pictures / "discs" / "01.png").write_bytes(b"none")
    (pictures / "notes.txt").write_text("no picture")
    (pictures / "strange").mkdir()
    (pictures / "strange" / "x.png").write_bytes((pictures / "discs" / "03.png").read_bytes())
    (tmp_path / "names.csv").write_text("id,name\n0,discs\n1,rings\n")
    labels = ["--labels", "folder", "--class-names", tmp_path / "names.csv", "--unknown-labels", "skip"]
    before = tree(pictures)
    done = Command("plan", *words(pictures, tmp_path / "out" / "run", *labels, "--json"))
    assert done.code == 0, done.err
    assert tree(pictures) == before
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "scratch").glob("camray-*"))
    document = done.document
    files = list(pictures.rglob("*.png"))
    assert document["out"]["holds"] == "no run"
    assert document["images"] == {
        **{"listed": 13, "kinds": {"png": 13}, "bytes": sum(file.stat().st_size for file in files)},
        **{"bytes_are_estimated": False, "labelled": 12, "unlabelled": 1, "classes_that_label": 2},
    }
    assert document["shards"] == {"number": 4, "images_each": 4}
    said = "\n".join(document["said"])
    assert "notes.txt" in said
    assert "'strange', which is no class" in said
    assert document["pilot"]["images"] == 12  # in batches of two
    looked = [document["pilot"], document["headers"]]
    assert sum(one["statuses"].get("ok", 0) for one in looked) in (11, 12)
    bad = [(one["image_id"], one["status"]) for part in looked for one in part["bad"]]
    assert set(bad) <= {("discs/01.png", "truncated")}


def test_a_broken_picture_is_named_with_its_reason(pictures: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (pictures / f"{number}.png").write_bytes(b"none")
    for path in pictures.rglob("0*.png"):
        path.write_bytes(b"")
    done = Command("plan", *words(pictures, tmp_path / "run"))
    assert done.code == 0, done.err
    assert re.search(r"^labelled .*\b\d+ empty", done.out, re.MULTILINE)
    assert re.search(r"^ +empty: '(discs|rings)/0\d\.png' \(the file has no bytes\)$", done.out, re.MULTILINE)


def test_bad_pictures_alone_foretell_nothing_and_that_is_said(pictures: Path, tmp_path: Path) -> None:
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"")
    done = Command("plan", *words(pictures, tmp_path / "run"))
    assert done.code == 0, done.err
    assert "none can be used: how long bad pictures take foretells nothing, so there is no forecast" in done.out
    assert "images/s" not in done.out
    document = Command("plan", *words(pictures, tmp_path / "run", "--json", "--price-per-hour", 2)).document
    assert (document["forecasts"], document["bytes_written"]) == ([], None)
    assert (document["pilot"]["images_per_second"], document["pilot"]["statuses"]) == (None, {"empty": 12})


def test_bytes_are_those_that_label_writes(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    foretold = Command("plan", *words(pictures, out, "--json")).document["bytes_written"]
    assert Command("label", *words(pictures, out)).code == 0
    tables = [path for table in ("heatmaps", "boxes", "images") for path in (out / table).iterdir()]
    written = sum(path.stat().st_size for path in tables)
    assert foretold["low"] <= foretold["value"] <= foretold["high"]
    assert written / 1.1 < foretold["value"] < written * 1.1


def test_a_run_cut_off_is_told_what_a_resume_skips_and_stays_as_it_is(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruptible: None
) -> None:
    out = tmp_path / "run"
    monkeypatch.setenv(VARIABLE, f"report-1:{signal.SIGINT.name[3:]}:{tmp_path}/reached")
    assert Command("label", *words(pictures, out)).code == 130
    before = tree(out)
    assert len(list((out / "images").iterdir())) == 2
    half = Command("plan", *words(pictures, out, "--json")).document
    assert half["out"] == {
        **{"holds": "this run", "refusal": None, "shards_removed": 0},
        **{"shards_done": 2, "images_done": 8, "shards_left": 1, "images_left": 4},
    }
    assert (half["images"]["listed"], half["shards"]["number"]) == (4, 1)
    (forecast,) = half["forecasts"]
    assert forecast["images_per_second"]["value"] * forecast["work_seconds"]["value"] == pytest.approx(4)
    anew = Command("plan", *words(pictures, out, "--json", "--overwrite")).document
    assert (anew["out"]["holds"], anew["out"]["shards_removed"], anew["images"]["listed"]) == ("a run", 2, 12)
    assert tree(out) == before
    assert Command("label", *words(pictures, out)).code == 0
    before = tree(out)
    whole = Command("plan", *words(pictures, out))
    assert whole.code == 0
    assert "3 shards, 12 images would be skipped; nothing is left to do" in whole.out
    assert tree(out) == before


def test_another_request_is_foretold_and_refused_as_label_refuses_it(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert Command("label", *words(pictures, out)).code == 0
    before = tree(out)
    other = words(pictures, out, "--limit", 6)
    refused, told = Command("label", *other), Command("plan", *other, "--json")
    assert (told.code, told.result["status"], told.result["error"]) == (4, "refused", refused.result["error"])
    assert told.document["out"]["refusal"] == refused.result["error"]
    assert told.document["images"]["listed"] == 6
    assert len(told.document["forecasts"]) == 1
    assert tree(out) == before


@pytest.mark.parametrize(
    "flags",
    [
        ["--model", "tests.support.networks:nothing_there"],
        ["--labels", "nowhere.csv"],
        ["--images", "/nowhere/at/all"],
        ["--include", "nothing*"],
        ["--classes", "label"],
        ["--device", "cuda"],
        ["--replicas", 2],
    ],
    ids=lambda flags: str(flags[0]),
)
def test_what_label_cannot_do_plan_refuses_alike(flags: list[object], pictures: Path, tmp_path: Path) -> None:
    asked = words(pictures, tmp_path / "run", *flags)
    expected, found = Command("label", *asked), Command("plan", *asked)
    assert expected.code in (2, 5, 6)
    assert (found.code, found.result["error"]) == (expected.code, expected.result["error"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "value"), [("--pilot", 0), ("--for-replicas", 0), ("--price-per-hour", -1), ("--price-per-hour", "nan")]
)
def test_flags_of_its_own_are_checked(flag: str, value: object, pictures: Path, tmp_path: Path) -> None:
    done = Command("plan", *words(pictures, tmp_path / "run", flag, value))
    assert (done.code, flag in done.result["error"]) == (2, True)


def test_what_is_printed_is_the_document(pictures: Path, tmp_path: Path) -> None:
    more = ["--for-replicas", 8, "--price-per-hour", 2, "--pilot", 4]
    with redirect_stdout(StringIO()) as out:
        outcome = run_plan([str(word) for word in words(pictures, tmp_path / "run", *more)])
    document, text = outcome.document, out.getvalue()
    assert document
    assert f"images   {document['images']['listed']} (12 png), " in text
    memory = document["memory_mib"]
    assert f"a replica {memory['replica']:.0f} MiB, the driver {memory['driver']:.0f} MiB" in text
    shares = re.findall(r"(load|network|boxes|publish) (\d+)%", text.partition("of load")[0])
    assert {stage: int(share) for stage, share in shares} == {
        stage: round(100 * share) for stage, share in document["pilot"]["stages"].items()
    }
    assert sum(document["pilot"]["stages"].values()) == pytest.approx(1)
    for one in document["forecasts"]:
        seconds, hours, cost = one["seconds"], one["core_hours"], one["cost"]
        for end in ("value", "low", "high"):
            assert hours[end] == pytest.approx(seconds[end] * one["replicas"] / 3600)
            assert cost[end] == pytest.approx(2 * hours[end])
        row = re.search(rf"^ *{one['replicas']}  .*$", text, re.MULTILINE)
        assert row
        assert row[0].endswith(f"({cost['low']:.3g}-{cost['high']:.3g})")
        assert f" {hours['value']:.3g} (" in row[0]
    assert [one["replicas"] for one in document["forecasts"]] == [1, 8]


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_an_interrupted_pilot_leaves_nothing(executor: str, pictures: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    flags = ["--images", pictures, "--out", tmp_path / "run", *TWO, "--executor", executor, "--replicas", 1]
    command = [sys.executable, "-m", "jobs", "plan", *map(str, flags)]
    env = {**os.environ, "TMPDIR": str(scratch), "RAY_TMPDIR": "/tmp"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as planning:
        wait_until(lambda: any(scratch.rglob("run.json")))
        planning.terminate()
        planning.communicate(timeout=120)
    assert planning.returncode == 130
    assert not list(scratch.glob("camray-*"))


def test_a_machine_that_was_busy_only_among_the_replicas_is_said_to_be(pictures: Path, tmp_path: Path) -> None:
    document = Command("plan", *words(pictures, tmp_path / "run", "--pilot", 4, "--json")).document
    pilot = document["pilot"]
    pilot["stages"]["load"] = 0.1
    pilot["core_share"] = 0.93
    pilot["at_once"] = {"replicas": 2, "slower": 2.0, "slower_measured": 10.6, "core_share": 0.09}
    assert "takes 2.00 times as long at most (10.6 were measured, beside other work" in "".join(lines_of(document))
    assert "         among others it had 9% of a core: its machine is busy; an idle one would be faster" in lines_of(
        document
    )
    pilot["at_once"]["core_share"] = 0.9
    assert "busy" not in "".join(lines_of(document))


@pytest.mark.ray
def test_on_ray_the_pilot_is_an_actor_and_is_timed_among_others_too(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    flags = ["--images", pictures, "--out", tmp_path / "run", *TWO, "--replicas", 2, "--pilot", 4]
    code, names, out = loaded("plan", *flags)
    assert (code, "torch" in names) == (0, False)
    assert re.search(r"^pilot    \d+ images on .*; with 2 at once each takes", out, re.MULTILINE)
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "scratch").glob("camray-*"))
