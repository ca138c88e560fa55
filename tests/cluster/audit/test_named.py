"""Audits by name: what is kept beside another one, what replaces it, and what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cluster.audit import named
from cluster.report.plots import marks
from tests.cluster.audit.test_audit import INLINE, label, write_truth
from tests.support.command import Command
from tests.support.stores import Store


@pytest.fixture
def once(pictures: Path, tmp_path: Path) -> Path:
    """A run and a truth."""
    label(pictures, tmp_path / "run")
    write_truth(pictures, tmp_path / "truth.csv")
    return tmp_path


def shortened(truth: Path) -> str:
    """Return a path as the refusal has it: of a long one the beginning."""
    return named.shortened(str(truth), named.MAX_SHOWN)


def metrics_of(run: Path, folder: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((run / folder / "metrics.json").read_text())
    return document


def test_an_audit_stays_where_another_is_asked_for_and_the_same_one_replaces_it(
    once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, truth = once / "run", once / "truth.csv"
    assert Command("audit", run, *INLINE, "--truth", truth, "--overwrite").code == 0
    before = metrics_of(run, "audit")
    files = sorted(path.name for path in (run / "audit").iterdir())
    for flags, changed in (
        ([], f"truth was {shortened(truth)}, now not given"),
        (["--truth", truth, "--calibrate", 0.5, "--seed", 3], "calibrate was 0.0, now 0.5; seed was 0, now 3"),
        (["--truth", truth, "--class-map", "discs=1", "rings=0"], "class_map was not given, now discs=1 rings=0"),
    ):
        refused = Command("audit", run, *INLINE, *flags)
        assert (refused.code, refused.result["status"]) == (4, "refused")
        assert f"{run}/audit holds another audit ({changed}); give --name NAME" in refused.result["error"]
        assert metrics_of(run, "audit") == before
    assert sorted(path.name for path in (run / "audit").iterdir()) == files
    truth.write_text(truth.read_text().replace("discs/01.png", "nobody.png"))  # mended: the same place
    monkeypatch.chdir(once)
    assert Command("audit", "run", *INLINE, "--truth", os.path.join(".", "truth.csv")).code == 0
    assert metrics_of(run, "audit")["audited"] == before["audited"] - 1
    assert Command("audit", run, *INLINE, "--overwrite").code == 0
    assert metrics_of(run, "audit")["truth"] is None
    assert not (run / "audit" / "bootstrap.parquet").exists()


def test_an_older_audit_is_taken_at_what_it_says_of_its_request(once: Path) -> None:
    run, truth = once / "run", once / "truth.csv"
    assert Command("audit", run, *INLINE, "--truth", truth, "--overwrite").code == 0
    older = {key: value for key, value in metrics_of(run, "audit").items() if key not in ("request", "name")}
    for kept, code in ((older, 4), ({**older, "fingerprint": "of another run"}, 0), ({"nothing": 0}, 0)):
        (run / "audit" / "metrics.json").write_text(json.dumps(kept))
        assert Command("audit", run, *INLINE, "--truth", once / "truth.csv", "--bootstrap", 7).code == code
    (run / "audit" / "metrics.json").write_text(json.dumps(older))
    assert Command("audit", run, *INLINE, "--truth", truth).code == 0


def test_each_command_takes_the_audit_of_the_name_that_is_given(once: Path) -> None:
    run, truth = once / "run", once / "few.csv"
    assert Command("audit", run, *INLINE, "--truth", once / "truth.csv", "--name", "all").code == 0
    truth.write_text("\n".join((once / "truth.csv").read_text().splitlines()[:4]))
    assert Command("audit", run, *INLINE, "--truth", truth, "--name", "few").code == 0
    assert metrics_of(run, "audit-all")["name"] == "all"
    assert metrics_of(run, "audit-all")["audited"] > metrics_of(run, "audit-few")["audited"] > 0
    compared = Command("compare", run, run, "--json", "--audit", "all", "few")
    figure = next(m for m in json.loads(_document(compared))["audit"]["metrics"] if m["metric"] == "gt_known_loc")
    audited = [metrics_of(run, f"audit-{name}")["metrics"]["gt_known_loc"]["images"] for name in ("all", "few")]
    assert [figure["images_a"], figure["images_b"]] == audited
    same = Command("compare", run, run, "--audit", "few")
    assert "0 gained, 0 lost of" in same.out
    shown = Command("show", run, "--worst", "--audit", "few")
    assert f"of the {audited[1]} audited images" in shown.err
    assert shown.out.splitlines()[0].endswith("/show/worst-few.png")
    assert Command("report", run, "--audit", "few").code == 0
    assert marks.name(str(truth)) in (run / "report.html").read_text()
    for command in (["compare", run, run], ["show", run, "--worst"], ["report", run]):
        missing = Command(*command, "--audit", "gone")
        assert (missing.code, "has no audit of the name 'gone', but all, few" in missing.result["error"]) == (2, True)
        assert Command(*command, "--audit", "a/b").code == 2
    assert Command("audit", run, *INLINE, "--name", "../x").code == 2
    assert Command("compare", run, run, "--audit", "all", "few", "few").code == 2


def _document(done: Command) -> str:
    return done.out.partition("CAMRAY_RESULT")[0]


def test_overwrite_clears_the_audits_of_all_names_on_a_store(pictures: Path, s3: Store) -> None:
    out, options = s3.address("named-audits"), ["--storage-options", *s3.words]
    label(pictures, out, *options)
    assert Command("audit", out, *INLINE, "--name", "one", *options).code == 0
    assert list(s3.folder.glob("**/named-audits/audit-one/metrics.json"))
    label(pictures, out, "--overwrite", *options)
    assert not list(s3.folder.glob("**/named-audits/audit-one/metrics.json"))
