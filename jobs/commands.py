"""The commands, and how one is run: exit code and last line of stdout say how it ended."""

import importlib
import os
import select
import sys
import time
import traceback
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from typing import TextIO, cast

from cam_ops.errors import CamrayError, StorageError, UsageError
from cam_ops.words import near
from cluster.process.console import Seen, public, say, shortened
from cluster.process.interrupts import INTERRUPTED_CODE, held
from cluster.process.memory import check_addresses, memory_errors
from jobs.command import INTERRUPTED, Outcome, documents_to, error_text, json_text, result_line
from jobs.flags import out_of, wants
from jobs.screens import SCREENS, screen_of
from jobs.shell import completion_script, version_line

COMMANDS = {
    "label": "turn images into heat maps and boxes; resumes by default",
    "plan": "what label would do: time, memory, bytes and price, by a pilot",
    "rebox": "make new boxes from a run's maps, without model, pictures or GPU",
    "audit": "how well a run localizes, with ground truth or without",
    "calibrate": "fit box settings and probabilities to a labelled sample of a run",
    "export": "a dataset for another tool: COCO, YOLO, Label Studio, ...",
    "report": "one page that shows a run: galleries, a live threshold, plots",
    "verify": "prove a run whole: every planned image exactly once",
    "status": "progress of a run, from its files alone",
    "show": "draw one image with its heat maps and boxes",
    "compare": "what changed between two runs; --fail-if makes it a test",
    "doctor": "what would keep a run from working, and the cure",
    "bench": "measure this machine: stages, whole runs, peers",
    "demo": "the whole chain on real photos, in under two minutes",
}
LIGHT = ("status", "verify")
LIGHT_MIB, HEAVY_MIB = 1536, 3072  # of addresses: Arrow, and what draws, sorts or holds a network beside it
OPTIONS = ("--help", "--version", "--completion")  # in the place of a command


def run(arguments: list[str]) -> int:
    """Run the command that `arguments` name; return its exit code. Raises OSError where stdout cannot be written."""
    command = arguments[0] if arguments else ""
    if text := _text_of(command, arguments[1:]):
        print(text)
        return 0 if command else UsageError.exit_code
    with redirect_stdout(cast(TextIO, Seen(sys.stdout))), redirect_stderr(cast(TextIO, Seen(sys.stderr))):
        return _run(command, arguments)


def _run(command: str, arguments: list[str]) -> int:
    start_s = time.monotonic()
    as_json = wants(arguments, "--json")
    documents_to.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            outcome = _run_command(command, arguments[1:])
    except CamrayError as error:
        sentence = error_text(error)
        say(f"error: {sentence}")
        outcome = Outcome(status=error.status, exit_code=error.exit_code, out=out_of(arguments), error=sentence)
    except KeyboardInterrupt:
        outcome = Outcome(status=INTERRUPTED, exit_code=INTERRUPTED_CODE, out=out_of(arguments))
    except Exception as error:
        if isinstance(error, OSError) and _is_output_lost():
            raise
        traceback.print_exc()
        outcome = Outcome(
            status="failed", exit_code=1, out=out_of(arguments), error=public(f"{type(error).__name__}: {error}")
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Seen):
            stream.end()
    if outcome.status == INTERRUPTED:
        say("interrupted; type the same command again: label and rebox go on where they stopped, others begin anew")
    if as_json:
        print(json_text(outcome, None if wants(arguments, "--follow") else 1), end="", flush=True)
    stream = sys.stderr if as_json else sys.stdout
    if not stream.isatty():  # who reads a screen has been told
        print(result_line(public(command), outcome, time.monotonic() - start_s), file=stream, flush=True)
    return outcome.exit_code


def _is_output_lost() -> bool:
    """Say whether stdout is full, or it or stderr a pipe that nobody reads any more, as of `| head -1`."""
    try:
        print(flush=True)  # a line, as what could not be written may be gone from the buffer
    except OSError:
        return True
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _text_of(command: str, arguments: list[str]) -> str:
    """Return what is only to be read: help, or the version; nothing where a command is to be run."""
    if command == "--version":
        return version_line()
    if command in ("", "-h", "--help", "--help-all"):
        return _usage()
    is_short = {"-h", "--help"} & set(arguments) and command in SCREENS
    return screen_of(command, COMMANDS[command]) if is_short else ""


def _run_command(command: str, arguments: list[str]) -> Outcome:
    here = _here()
    if command == "--completion":
        print(completion_script(COMMANDS, arguments), end="")
        raise SystemExit
    if command not in COMMANDS:
        nearest = near(command, [*COMMANDS, *OPTIONS], most=1)
        cure = f"is it {nearest[0]}?" if nearest else f"expected one of {', '.join(COMMANDS)}"
        raise UsageError(f"{shortened(command, 80)!r} is no command; {cure}")
    arguments = ["--help" if word == "--help-all" else word for word in arguments]
    sys.path.insert(0, here)  # a user's factory lies beside where the command is typed, for `camray` too
    check_addresses(LIGHT_MIB if command in LIGHT else HEAVY_MIB)
    with memory_errors():
        with held():
            module = importlib.import_module(f"jobs.{command}")
        outcome: Outcome = module.run(arguments)
    return outcome


def _here() -> str:
    """Return the working directory. Raises StorageError where it has been removed: paths could not be found from it."""
    try:
        return os.getcwd()
    except OSError as error:
        raise StorageError(
            f"the working directory cannot be used: {error.strerror}; cd to one that is there, then type the command "
            "again"
        ) from None


def _usage() -> str:
    lines = [f"  {name:9} {purpose}" for name, purpose in COMMANDS.items()]
    return (
        "usage: python -m jobs COMMAND [flags], or camray COMMAND [flags]\n\n"
        + "\n".join(lines)
        + "\n\nCOMMAND --help shows examples and the flags that one needs, --help-all all.\n"
        "--version says which versions these are; --completion bash|zsh completes words."
    )
