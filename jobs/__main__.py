"""`python -m jobs COMMAND`: the process of a command, from its first signal to its exit code."""

import atexit
import io
import os
import sys

from cluster.process.interrupts import INTERRUPTED_CODE, hold, ignore_interrupts, raise_on_sigterm

CUT_OFF = 141  # of a shell for what SIGPIPE ends


def main() -> None:
    """Entry point of `python -m jobs` and of the console script `camray`."""
    os.environ.setdefault("MIMALLOC_ARENA_EAGER_COMMIT", "0")  # else Arrow has a GiB that no bound of ours counts
    raise_on_sigterm()
    hold()  # until a command's own code is imported
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may hold bytes that are not UTF-8
    code = _run(sys.argv[1:])
    _flush()
    if code == INTERRUPTED_CODE:
        _leave(code)
    sys.exit(code)


def _open_streams() -> None:
    """Open to nowhere what the caller closed, as of `2>&-`; else a file of ours would take its number, and its text."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _run(arguments: list[str]) -> int:
    """Run the command; return its exit code, whether or not anybody reads what it prints."""
    from cam_ops.errors import StorageError  # while interrupts are held
    from cluster.process.console import say
    from jobs.commands import run

    try:
        try:
            return run(arguments)
        finally:
            ignore_interrupts()
            sys.stdout.flush()
    except BrokenPipeError:
        return CUT_OFF
    except OSError as error:
        say(f"error: cannot write to stdout: {error.strerror}; what the command printed is lost, its files are not")
        return StorageError.exit_code


def _flush() -> None:
    """Write out what is left to write, or lose it: Python would try once more at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _leave(code: int) -> None:
    """End with this code: after an interrupt amid anything Python may crash as it takes itself down, or die of SIGINT.

    What waits for the end of the process is done: Ray's processes are ended, scratch folders removed.
    """
    atexit._run_exitfuncs()
    _flush()
    os._exit(code)


if __name__ == "__main__":
    main()
