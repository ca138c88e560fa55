"""The command line as tests use it, what it leaves, and where the repository is."""

import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from cluster.sources.kinds import open_listing
from cluster.sources.source import Asked
from cluster.storage.options import NO_OPTIONS, StorageOptions
from jobs.commands import run

ROOT = Path(__file__).parent.parent.parent


LITE0 = [
    *("--model", "jobs.demo_model:efficientnet_lite0"),
    *("--mean", "0.49803922", "0.49803922", "0.49803922", "--std", "0.50196078", "0.50196078", "0.50196078"),
]


class Command:
    """A finished command: exit code, output, the document of its last line, and that of --json.

    Runs what `python -m jobs` runs, in this process; as a process of its own with `process`, an `env` or a `cwd`.
    """

    def __init__(self, *arguments: object, process: bool = False, env: dict[str, str] | None = None, cwd: Path = ROOT):
        words = [str(argument) for argument in arguments]
        if process or env or cwd != ROOT:
            self.code, self.out, self.err = _as_process(words, env or {}, cwd)
        else:
            with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
                self.code = run(words)
            self.out, self.err = out.getvalue(), err.getvalue()
        self.result = result_of(self.out, self.err)
        assert self.result["exit_code"] == self.code

    @property
    def document(self) -> dict[str, Any]:
        """What --json printed; fails where stdout has anything else."""
        return json.loads(self.out)


def _as_process(words: list[str], env: dict[str, str], cwd: Path) -> tuple[int, str, str]:
    finished = subprocess.run(
        [sys.executable, "-m", "jobs", *words],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=900,
    )
    return finished.returncode, finished.stdout, finished.stderr


LOADED = (
    "import json, sys; from jobs.commands import run; code = run(sys.argv[1:]); "
    "print(json.dumps([code, sorted({'torch', 'cv2', 'ray'} & sys.modules.keys())]))"
)


def loaded(*words: object) -> tuple[int, set[str], str]:
    """Run a command in a fresh process; return its exit code, which heavy libraries it has loaded, and its output."""
    command = [sys.executable, "-c", LOADED, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=900)
    assert done.stdout, done.stderr
    out, _, last = done.stdout.rstrip("\n").rpartition("\n")
    code, names = json.loads(last)
    return code, set(names), out


def result_of(out: str, err: str = "") -> dict[str, Any]:
    """Return the document of a command's last line, which is one of stderr with --json."""
    lasts = [text.splitlines()[-1] for text in (out, err) if text]
    last = next((last for last in lasts if last.startswith("CAMRAY_RESULT ")), None)
    assert last, (out, err)
    return json.loads(last.removeprefix("CAMRAY_RESULT "))


def table_rows(out: Path, table: str) -> list[dict[str, Any]]:
    """Return a table of a run, by image."""
    return ds.dataset(out / table).to_table().sort_by([("image_id", "ascending")]).to_pylist()


def listed(address: str, limit: int | None = None, skip: str = "", options: StorageOptions = NO_OPTIONS) -> pa.Table:
    """Return the listing of a source."""
    with open_listing(address, Asked(limit=limit, skip=skip, options=options)) as listing:
        return pa.Table.from_batches(list(listing.batches()))
