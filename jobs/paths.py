"""Paths that every node of a Ray job must understand alike."""

import os

from cam_ops.errors import UsageError

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
