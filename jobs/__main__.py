"""`python -m jobs COMMAND`: run one command; exit code and last line of stdout say how it ended."""

import importlib
import io
import os
import select
import sys
import time
import traceback

from cam_ops.errors import CamrayError, UsageError
from cluster.console import say
from cluster.interrupts import ignore_sigterm, raise_on_sigterm
from cluster.storage import without_credentials
from jobs.command import Outcome, result_line
from jobs.flags import last_value

COMMANDS = {
    "label": "turn a folder of images into heat maps and boxes; resumes by default",
    "rebox": "make new boxes from a run's maps, without model, pictures or GPU",
    "audit": "how well a run localizes: against ground truth, and by signs that need none",
    "calibrate": "fit box settings and probabilities to a labelled sample of a run",
    "verify": "prove a run whole: every planned image exactly once, files readable, boxes inside their image",
    "status": "progress of a run, from its files alone",
    "show": "draw one image with its heat maps and boxes",
    "compare": "what changed between two runs; --fail-if makes it a test",
    "bench": "measure this machine: stages, whole runs, peers",
    "demo": "the whole chain on real photos, in under two minutes",
}
CUT_OFF = 141  # of a shell for what SIGPIPE ends


def main() -> None:
    """Entry point of `python -m jobs` and of the console script `camray`."""
    raise_on_sigterm()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may hold bytes that are not UTF-8
    try:
        try:
            code = run(sys.argv[1:])
        finally:
            ignore_sigterm()
            sys.stdout.flush()
    except BrokenPipeError:
        code = CUT_OFF
        for stream in (sys.stdout, sys.stderr):  # which Python flushes once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command that `arguments` name; return its exit code. Raises BrokenPipeError where nobody reads on."""
    command = arguments[0] if arguments else ""
    if command in ("", "-h", "--help"):
        print(_usage())
        return 0 if command else 2
    start_s, out = time.monotonic(), _out_of(arguments)
    try:
        outcome = _run_command(command, arguments[1:])
    except CamrayError as error:
        say(f"error: {error}")
        outcome = Outcome(status=error.status, exit_code=error.exit_code, out=out, error=str(error))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where this one stopped")
        outcome = Outcome(status="interrupted", exit_code=130, out=out)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            raise
        traceback.print_exc()
        outcome = Outcome(status="failed", exit_code=1, out=out, error=f"{type(error).__name__}: {error}")
    print(result_line(command, outcome, time.monotonic() - start_s), flush=True)
    return outcome.exit_code


def _is_unread() -> bool:
    """Say whether stdout or stderr is a pipe that nobody reads any more, as of `| head -1`."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _run_command(command: str, arguments: list[str]) -> Outcome:
    if command not in COMMANDS:
        raise UsageError(f"{command!r} is no command; expected one of {', '.join(COMMANDS)}")
    sys.path.insert(0, os.getcwd())  # a user's factory lies beside where the command is typed, for `camray` too
    outcome: Outcome = importlib.import_module(f"jobs.{command}").run(arguments)
    return outcome


def _out_of(arguments: list[str]) -> str | None:
    """Return the run directory that the arguments name, by flag or as the first word after the command."""
    positional = arguments[1] if len(arguments) > 1 and not arguments[1].startswith("-") else None
    out = last_value(arguments, "--out") or positional
    return out and without_credentials(out)


def _usage() -> str:
    lines = [f"  {name:9} {purpose}" for name, purpose in COMMANDS.items()]
    return (
        "usage: python -m jobs COMMAND [flags], or camray COMMAND [flags]; COMMAND --help lists its flags\n\n"
        + "\n".join(lines)
    )


if __name__ == "__main__":
    main()
