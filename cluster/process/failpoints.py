"""Points at which a process ends or stops itself as by `kill`, so that tests can prove what a run survives.

`CAMRAY_FAILPOINTS` holds entries POINT:SIGNAL:MARKER, separated by blanks: the name of a point, a signal (`KILL`,
`STOP`, ...), and a file that is not there yet. The first process that reaches the point makes the file and sends itself
the signal.
"""

import os
import signal

VARIABLE = "CAMRAY_FAILPOINTS"


def reach(point: str) -> None:
    """End here if the environment says so."""
    for entry in os.environ.get(VARIABLE, "").split():
        wanted, name, marker = entry.split(":", 2)
        if wanted == point:
            _end(name, marker)


def _end(name: str, marker: str) -> None:
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.Signals[f"SIG{name}"])
