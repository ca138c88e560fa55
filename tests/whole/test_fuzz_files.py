"""Mutated files that are no pictures, each read by a command: `support.fuzz_files` has what must hold."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command import ROOT
from tests.support.first_run import put_pictures
from tests.support.fuzz_files import chosen
from tests.support.fuzz_inputs import inputs
from tests.support.mutations import mutate

COUNT = 1500  # a minute of one core
REFUSED_WHOLE = {
    "run.json",
    "table boxes",
    "table heatmaps",
    "table images",
    "table plan",
}  # by `label`, of another run


def fuzz(*words: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.support.fuzz_files", *map(str, words)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=1800)
    assert finished.stdout, finished.stderr
    document: dict[str, Any] = json.loads(finished.stdout)
    return document


@pytest.mark.slow
def test_mutated_files_are_read_or_refused_within_time_and_memory() -> None:
    found = fuzz("--count", COUNT)
    assert found["failures"] == []
    assert found["mutations"] == COUNT
    assert min(found["codes"].get(code, 0) for code in ("0", "2", "5")) > COUNT / 50


@pytest.mark.slow
def test_the_files_that_are_mutated_are_whole_before() -> None:
    found = fuzz("--whole")
    assert found["failures"] == []
    assert {name for name, codes in found["cases"].items() if codes.keys() != {"0"}} == REFUSED_WHOLE
    assert found["codes"].keys() == {"0", "4"}


def test_a_mutation_of_a_number_is_always_the_same() -> None:
    put_pictures()
    once, again = ([chosen(inputs(), 7, number) for number in range(60)] for _ in range(2))
    assert once == again
    assert once != [chosen(inputs(), 8, number) for number in range(60)]


def test_nearly_every_mutation_changes_its_file() -> None:
    put_pictures()
    known = inputs()
    for name, whole in known.items():
        target = whole.targets[0]
        content = whole.files[target]
        mutated = [mutate(target, content, [content], np.random.default_rng([0, i])) for i in range(40)]
        assert sum(file != content for file in mutated) > 30, name


@pytest.mark.slow
def test_a_command_that_fails_writes_elsewhere_stalls_or_hides_is_found(tmp_path: Path) -> None:
    program = tmp_path / "broken.py"
    program.write_text(BROKEN)
    done = subprocess.run([sys.executable, program], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "fails": ["exit 1: ZeroDivisionError at ?"],
        "writes": ["writes or begins open of '/var/tmp/camray-fuzz-test'"],
        "hides": ["shows control characters: camray truth"],
        "grows": ["takes more than 1536 MiB"],
        "ends": [],
    }


BROKEN = """
import json, sys, tempfile
from argparse import Namespace
from pathlib import Path
sys.path.insert(0, ".")
from tests.support import fuzz_files
from tests.support.first_run import put_pictures

def fails(): 1 / 0
def writes(): open("/var/tmp/camray-fuzz-test", "w"); return ends()
def hides(): print("camray: truth: \\x1b[31m", file=sys.stderr); return ends()
def grows(): b"a" * 2**31; return ends()
def ends(): print('CAMRAY_RESULT {"exit_code": 0}'); return 0

put_pictures()
with tempfile.TemporaryDirectory() as folder:
    place = fuzz_files.prepared(Path(folder), Namespace(keep=None))
    fuzz_files.READERS.update({each.__name__: each for each in (fails, writes, hides, grows, ends)})
    names = ("fails", "writes", "hides", "grows", "ends")
    print(json.dumps({name: fuzz_files.read_one(place, {}, (name,))["kinds"] for name in names}))
"""
