"""Mutate files that are no pictures, and have a command read each: `python -m tests.support.fuzz_files --count 100000`.

Mutation number i of a seed is always the same file and the same command, so that `--first i --count 1` repeats it, and
`--keep FOLDER` keeps it there and prints what the command says. `--last FILE` holds the number of the mutation that is
being read. Commands run in a child of this process with limits, which goes on behind a mutation that kills it.
"""

import argparse
import ctypes
import faulthandler
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.process.console import visible
from cluster.process.memory import peak_mib
from jobs.commands import run
from tests.support.command import ROOT, result_of
from tests.support.first_run import KEPT, PICTURES, put_pictures
from tests.support.fuzz_calibrate import of_calibrate, twice_labelled
from tests.support.fuzz_case import Case
from tests.support.fuzz_inputs import inputs
from tests.support.fuzz_outputs import audited_run, label_once, outputs
from tests.support.fuzz_readers import READERS
from tests.support.mutations import mutate

CODES = {0, 2, 3, 4, 5, 6}
MOST_S = 10  # of work: a busy machine makes nothing slow
MOST_MIB, FRESH_MIB = 1536, 512  # of a process, which begins with as much
MORE_BYTES = 6 * 2**30  # that a child may ask for
STALLED_S = 60  # by the clock
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where syncing a file costs nothing
LONGEST = 3000  # characters of an error
SPARED = 0.8  # of the mutations that would be of a slow case
PER_CHILD = 10_000  # mutations
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.mkdir": 0,
    "os.rename": 1,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.link": 1,
    "os.symlink": 1,
    "os.truncate": 0,
}
CODE = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
LIBC = ctypes.CDLL("libc.so.6")
FRAME = re.compile(r'File "[^"]*?/((?:cam_ops|cluster|jobs)/[^"]+)", line \d+,? in (\w+)')


@dataclass(slots=True)
class Place:
    """Where commands run: all that they write must lie below `root` or `work`."""

    root: Path
    work: Path  # of the files of a mutation
    strangers: list[str]  # what else was written or begun since it was last asked for


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--last", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--only", default="", help="part of the names of the cases that are taken")
    parser.add_argument("--whole", action="store_true", help="mutate nothing: each case's files with each command")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)  # this is a child, and writes its lines there
    asked = parser.parse_args()
    put_pictures()
    if asked.report:
        read_all(asked)
        return 0
    with tempfile.TemporaryDirectory(prefix="camray-fuzz-") as folder:
        document = driven(asked, Path(folder))
    print(json.dumps(document, indent=1))
    return bool(document["failures"])


# The parent


def driven(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Have children read all mutations; return what became of them."""
    start_s, end, first = time.monotonic(), asked.first + asked.count, asked.first
    found: list[dict[str, Any]] = []
    last, report, stalled = (folder / name for name in ("last", "report", "stalled"))
    while first < end:
        for path in (report, stalled):
            path.write_text("")
        words = ["--seed", asked.seed, "--first", first, "--count", min(PER_CHILD, end - first), "--only", asked.only]
        words += ["--whole"] * asked.whole
        words += ["--last", asked.last or last, "--report", report, *(["--keep", asked.keep] if asked.keep else [])]
        command = [sys.executable, "-m", "tests.support.fuzz_files", *map(str, words)]
        finished = subprocess.run(command, cwd=ROOT, capture_output=not asked.keep, text=True, errors="replace")
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        found += lines
        first += len(lines)
        if asked.whole and not finished.returncode:
            break
        if finished.returncode:
            assert (asked.last or last).exists(), finished.stderr
            number = int((asked.last or last).read_text())
            kind = _death(finished.returncode, stalled.read_text(), finished.stderr or "")
            found.append({"number": number, "kinds": [kind], "seconds": 0, "mib": 0, **_named(asked, number)})
            first = number + 1
    return _summary(asked, found, time.monotonic() - start_s)


def _named(asked: argparse.Namespace, number: int) -> dict[str, Any]:
    return {"case": "?", "code": None, "repeat": _repeat(asked, number)}


def _death(code: int, stalled: str, said: str) -> str:
    frames = FRAME.findall(stalled)
    if frames:
        return f"takes more than {STALLED_S} s at {':'.join(frames[0])}"
    return f"takes more than {STALLED_S} s" if stalled else f"kills the process: {code} {said.strip()[-200:]}"


def _summary(asked: argparse.Namespace, found: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    kinds: dict[str, list[dict[str, Any]]] = {}
    for line in found:
        for kind in line["kinds"]:
            kinds.setdefault(kind, []).append(line)
    outcomes: dict[str, Counter[str]] = {}
    for line in found:
        outcomes.setdefault(line["case"], Counter())[str(line["code"])] += 1
    return {
        "mutations": len(found),
        "codes": dict(sum(outcomes.values(), Counter()).most_common()),
        "cases": {name: dict(sorted(counts.items())) for name, counts in sorted(outcomes.items())},
        "failures": [
            {
                "kind": kind,
                "count": len(lines),
                "cases": sorted({line["case"] for line in lines}),
                "repeat": _repeat(asked, lines[0]["number"]),
            }
            for kind, lines in sorted(kinds.items(), key=lambda item: -len(item[1]))
        ],
        "longest_s": max((line["seconds"] for line in found), default=0),
        "most_mib": max((line["mib"] for line in found), default=0),
        "seconds": round(seconds, 1),
    }


def _repeat(asked: argparse.Namespace, number: int) -> str:
    only = f" --only '{asked.only}'" if asked.only else ""
    return f"python -m tests.support.fuzz_files --seed {asked.seed}{only} --first {number} --count 1 --keep FOLDER"


# The child


def read_all(asked: argparse.Namespace) -> None:
    """Read mutations, a line of JSON for each into `asked.report`."""
    warnings.simplefilter("ignore")
    with (
        tempfile.TemporaryDirectory(prefix="camray-fuzz-", dir=SCRATCH, ignore_cleanup_errors=True) as folder,
        asked.report.open("w", buffering=1) as report,
    ):
        place = prepared(Path(folder), asked)
        cases = inputs() | outputs(place.root / "run") | of_calibrate(place.root / "twice")
        known = {name: each for name, each in cases.items() if asked.only in name}
        resource.setrlimit(resource.RLIMIT_AS, (_virtual_bytes() + MORE_BYTES,) * 2)
        stalled = (asked.report.parent / "stalled").open("w")
        os.chdir(place.root / "a/b/c")
        end = asked.first + asked.count if not asked.whole else min(asked.first + asked.count, len(unmutated(known)))
        for number in range(asked.first, end):
            asked.last.write_text(str(number))
            name, files, words = unmutated(known)[number] if asked.whole else chosen(known, asked.seed, number)
            faulthandler.dump_traceback_later(STALLED_S, exit=True, file=stalled)
            line = read_one(place, files, words, is_shown=bool(asked.keep))
            faulthandler.cancel_dump_traceback_later()
            report.write(json.dumps({"number": number, "case": name, **line}) + "\n")
            if asked.whole and line["code"]:
                print(name, words[0], line, file=sys.stderr)


def prepared(root: Path, asked: argparse.Namespace) -> Place:
    """Make runs, and have all that a command may write by itself below `root`."""
    for name in ("a/b/c", "home", "tmp"):
        (root / name).mkdir(parents=True)
    os.environ.update(HOME=str(root / "home"), TMPDIR=str(root / "tmp"), XDG_CACHE_HOME=str(root / "home"))
    tempfile.tempdir = None
    for name in ("run", "other"):
        shutil.copytree(KEPT / "run", root / name)
        audited_run(root / name)
    label_once(root)
    twice_labelled(root / "twice")
    place = Place(root, asked.keep or root / "work", [])
    sys.addaudithook(lambda event, arguments: _watch(place, event, arguments))
    return place


def _watch(place: Place, event: str, arguments: tuple[Any, ...]) -> None:
    """Note what is written elsewhere, and other programs."""
    if event == "open" and isinstance(arguments[0], (str, bytes)) and (arguments[2] or 0) & WRITING:
        path: Any = arguments[0]
    elif event in CHANGES:
        path = arguments[CHANGES[event]]
    elif event in CODE:
        place.strangers.append(f"{event} {str(arguments[0])[:100]}")
        return
    else:
        return
    text = os.path.realpath(os.fsdecode(path)) if not isinstance(path, int) else ""
    if (
        text
        and not text.startswith((str(place.root), str(place.work), "/dev/", "/proc/"))
        and "__pycache__" not in text
    ):
        place.strangers.append(f"{event} of {os.fsdecode(path)[:200]!r}")


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def chosen(known: dict[str, Case], seed: int, number: int) -> tuple[str, dict[str, bytes], tuple[str, ...]]:
    """Return the name of a case, its files, one of which is mutated, and the words of a command."""
    generator = np.random.default_rng([seed, number])
    name = sorted(known)[generator.integers(len(known))]
    if known[name].is_slow and generator.random() < SPARED:
        name = sorted(known)[generator.integers(len(known))]
    case = known[name]
    target = case.targets[generator.integers(len(case.targets))]
    words = case.words[generator.integers(len(case.words))]
    others = [case.files[other] for other in sorted(case.files)][:8]
    return name, {**case.files, target: mutate(target, case.files[target], others, generator)}, words


def unmutated(known: dict[str, Case]) -> list[tuple[str, dict[str, bytes], tuple[str, ...]]]:
    """Return each case's files as they are, with each command."""
    return [(name, known[name].files, words) for name in sorted(known) for words in dict.fromkeys(known[name].words)]


def read_one(place: Place, files: dict[str, bytes], words: tuple[str, ...], is_shown: bool = False) -> dict[str, Any]:
    """Run a command on files; return its exit code, time, memory, and what is wrong with that."""
    work, out_folder, kept_path = place.work, place.work.with_name(f"{place.work.name}-out"), list(sys.path)
    for folder in (work, out_folder):
        shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    named = {
        "WORK": str(work),
        "OUT": str(out_folder),
        "RUN": str(place.root / "run"),
        "OTHER": str(place.root / "other"),
        "TWICE": str(place.root / "twice"),
        "PICTURES": str(PICTURES),
    }
    words = tuple(
        re.sub("^(WORK|OUT|RUN|OTHER|TWICE|PICTURES)\\b", lambda found: named[found[1]], word) for word in words
    )
    place.strangers.clear()
    pa.default_memory_pool().release_unused()  # of what the mutation took
    LIBC.malloc_trim(0)
    before_mib = _resident_mib()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory is that of this command
    start_s = time.process_time()
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        try:
            code = READERS[words[0]](*words[1:]) if words[0] in READERS else run(list(words))
        except Exception:  # noqa: BLE001  what is looked for
            traceback.print_exc()
            code = 1
    seconds, mib = time.process_time() - start_s, FRESH_MIB + int(peak_mib() - before_mib)
    sys.path[:] = kept_path  # which a command puts its folder into
    if is_shown:
        print(" ".join(words), out.getvalue(), err.getvalue(), sep="\n")
    kinds = [
        *_wrong_end(code, out.getvalue(), err.getvalue()),
        *(f"writes or begins {each}" for each in place.strangers[:1]),
    ]
    kinds += [f"takes more than {MOST_S} s"] if seconds > MOST_S else []
    kinds += [f"takes more than {MOST_MIB} MiB"] if mib > MOST_MIB else []
    return {"code": code, "seconds": round(seconds, 3), "mib": mib, "kinds": kinds}


def _wrong_end(code: int, out: str, err: str) -> list[str]:
    """Return what is wrong with an exit code and with what was said."""
    if code not in CODES or "Traceback (most" in err:
        error = [line for line in err.splitlines() if re.match(r"[\w.]+(:|$)", line) and not line.startswith("camray")]
        frames = FRAME.findall(err)
        return [
            f"exit {code}: {(error or ['?'])[-1].partition(':')[0]} at {':'.join(frames[-1] if frames else ('?',))}"
        ]
    said = result_of(out, err).get("error", "")
    kinds = [] if not code or said else [f"exit {code} without a word"]
    kinds += [f"an error of more than {LONGEST} characters"] if len(said) > LONGEST else []
    hidden = [line for line in (out + err).split("\n") if visible(line) != line]
    return kinds + [f"shows control characters: {_place_of(line)}" for line in hidden[:1]]


def _place_of(line: str) -> str:
    """Return the words of a line that stand in our own text, more or less: those that are plain."""
    return " ".join(re.findall(r"\b[a-z]{2,}\b", line)[:5])


if __name__ == "__main__":
    sys.exit(main())
