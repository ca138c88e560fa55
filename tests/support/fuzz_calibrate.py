"""Cases of the fuzz for `calibrate`, which takes twenty pictures that are whole: a run of the kept ones, each twice."""

import csv
from pathlib import Path

from tests.support.command import Command
from tests.support.first_run import KEPT, PICTURES
from tests.support.fuzz_case import NAMES, NETWORK, Case, Words, case, table_text

LISTED, NAMED = PICTURES.parent / "twice.csv", PICTURES.parent / "two.txt"  # stand in run.json, so always here
CALIBRATE: Words = ("--out", "OUT.json", "--holdout", "0")
PER_CLASS: Words = (*CALIBRATE, "--per-class")


def twice_labelled(run: Path) -> None:
    """Label them."""
    rows = [{**row, "uri": str(PICTURES / row["image_id"][2:])} for row in _rows()]
    LISTED.write_bytes(table_text([{name: row[name] for name in ("image_id", "uri", "class")} for row in rows]))
    NAMED.write_text("\n".join(NAMES))
    words = [*NETWORK, "--image-size", 32, "--executor", "inline", "--compile", "never", "--max-error-rate", 1]
    classes = ["--class-names", NAMED, "--labels", "manifest", "--columns", "label=class"]
    done = Command("label", "--images", LISTED, "--out", run, *words, *classes)
    assert done.code == 0, done.err


def of_calibrate(run: Path) -> dict[str, Case]:
    """Return cases by their names; `run` is that of `twice_labelled`."""
    truth = {"truth.csv": table_text(_rows())}
    kept = [path for path in sorted(run.rglob("*.*")) if path.suffix in (".json", ".parquet")]
    files = {f"run/{path.relative_to(run)}": path.read_bytes() for path in kept}
    files = {name: content.replace(str(run).encode(), b"/run") for name, content in files.items()}
    tables = [name for name in files if name.startswith(("run/images", "run/heatmaps", "run/plan", "run/run.json"))]
    of_run = ("calibrate", "WORK/run", "--truth", "WORK/truth.csv", *CALIBRATE)
    return {
        "calibrate truth.csv": case(
            truth,
            *[("calibrate", "TWICE", "--truth", "WORK/truth.csv", *more) for more in (CALIBRATE, PER_CLASS)],
            is_slow=True,
        ),
        "calibrate run": case(truth | files, of_run, targets=tables, is_slow=True),
    }


def _rows() -> list[dict[str, str]]:
    """Return the truth of the pictures, each twice, by their folder's class."""
    rows = list(csv.DictReader((KEPT / "truth.csv").read_text().splitlines()))
    return [
        {name: row[name] for name in ("x0", "y0", "x1", "y1")}
        | {"image_id": f"{copy}/{row['image_id']}", "class": row["image_id"].partition("/")[0]}
        for copy in "ab"
        for row in rows
    ]
