"""Errors that end a command, and the exit code each one means.

    CamrayError           1   unexpected
    ├── UsageError        2   a flag, a file or a network that the command cannot work with
    ├── RefusedError      4   the run directory belongs to a different request
    ├── StorageError      5   input or output unreachable, full or empty
    │   ├── NoPictures          a source that holds none
    │   └── OtherWeightsError   weights that are not those of the run
    └── MachineError      6   no GPU, no weights, no Ray

Each carries one sentence that says what was expected, what came, where, and the cure.
A single picture that cannot be read is not an error of the command: see `BadImage`.
"""


class CamrayError(Exception):
    """Base of the errors that `jobs` turns into an exit code."""

    exit_code = 1
    status = "failed"


class UsageError(CamrayError):
    """The caller asked for something that cannot be done as asked."""

    exit_code = 2
    status = "usage"


class RefusedError(CamrayError):
    """Going on would mix two different requests in one run directory."""

    exit_code = 4
    status = "refused"


class StorageError(CamrayError):
    """Input or output cannot be reached, is full or is empty."""

    exit_code = 5
    status = "storage"


class NoPictures(StorageError):
    """A folder that can be searched, and holds no picture."""


class OtherWeightsError(StorageError):
    """A network whose weights are not those that the run was planned with."""


class MachineError(CamrayError):
    """The environment lacks what was asked for: a GPU, weights, a Ray cluster, a package."""

    exit_code = 6
    status = "environment"


class BadImage(Exception):
    """A picture that cannot be used; `status` is the word for its row in the images table."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
