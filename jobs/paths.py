"""Paths of flags: those that every node of a Ray job must understand alike, those of files to write."""

import os

from cam_ops.errors import StorageError, UsageError
from cluster.runs.directory import refuse_run_file

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the driver of `ray job submit`


def in_ray_job() -> bool:
    """Say whether this is the driver of `ray job submit`."""
    return JOB_VARIABLE in os.environ


def refuse_relative(paths: dict[str, str]) -> None:
    """Raise UsageError for a relative path inside a Ray job; `paths` by the flag or word that they stand behind."""
    for flag, path in paths.items():
        if in_ray_job() and "://" not in path and not os.path.isabs(path):
            raise UsageError(
                f"{flag} {path} is relative: inside a Ray job it would lie in Ray's temporary copy of the working "
                "directory; give an absolute path that every node sees"
            )


def refuse_unwritable_file(path: str, flag: str) -> None:
    """Raise StorageError where a file cannot be written, UsageError where it is a run's: before the work, not after."""
    if not path:
        raise UsageError(f"{flag} expects a file to write, got an empty text")
    refuse_run_file(path, flag)
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.isdir(folder):
        raise StorageError(f"cannot write {path}: expected a file in a folder that is there; check {flag}")
    is_replaced = os.path.isfile(path) or not os.path.exists(path)  # and not a device
    if not os.access(path if os.path.exists(path) else folder, os.W_OK) or (
        is_replaced and not os.access(os.path.dirname(os.path.realpath(path)), os.W_OK)
    ):
        raise StorageError(f"cannot write {path}: its rights do not allow it; check {flag}")
