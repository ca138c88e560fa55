"""Where a Ray of our own keeps its files. Its sockets lie there, and their paths must be short."""

import os
import tempfile

from cam_ops.errors import MachineError

SOCKET_BYTES = 107  # of a path, on Linux
BELOW = (
    "/session_2026-11-29_10-00-00_000000_4194304/sockets/plasma_store"  # the longest that Ray makes, by its last PID
)
MOST_BYTES = SOCKET_BYTES - len(BELOW)
SHARED = "/tmp/ray"  # noqa: S108  where Ray puts its files by itself, of all users


def own_folder() -> tuple[str, str | None]:
    """Return the folder for a Ray that starts here, and why it is not the one that Ray would take, None where it is.

    Raises MachineError where there is none that will do.
    """
    first = _rays_own()
    why_not = {folder: _why_not(folder) for folder in (first, SHARED, f"/tmp/camray-{os.geteuid()}")}  # noqa: S108
    for folder, why in why_not.items():
        if why is None:
            return folder, why_not[first]
    reasons = "; ".join(f"{folder} {why}" for folder, why in why_not.items())
    raise MachineError(
        f"there is no folder for the files of a Ray of our own: {reasons}; set RAY_TMPDIR to a short one that can be "
        "written to, or do without Ray by --executor inline"
    )


def _rays_own() -> str:
    """Return the folder that Ray takes by itself."""
    root = os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", os.path.dirname(SHARED)))
    return os.path.join(os.path.expanduser(root), "ray")


def _why_not(folder: str) -> str | None:
    """Return what is wrong with a folder, None where it will do."""
    if len(os.fsencode(folder)) > MOST_BYTES:
        return f"is longer than {MOST_BYTES} bytes, too long for its sockets"
    there = folder
    while not os.path.lexists(there):
        there = os.path.dirname(there) or "."
    if not os.path.isdir(there):
        return "is no folder"
    if there == folder and not {os.lstat(folder).st_uid, os.stat(folder).st_uid} <= {0, os.geteuid()}:
        return "is another user's"
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return f"cannot be written to ({error.strerror})"
    return None
