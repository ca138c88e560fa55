"""What a check finds. Texts are one line each, for people."""

from dataclasses import dataclass
from typing import Literal

from cam_ops.errors import CamrayError

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check."""

    check: str  # python, images, out, network, ...
    verdict: Verdict
    says: str  # what was found
    cure: str = ""  # of a warn or a fail
    where: str = ""  # the node, empty for the machine of the driver


def ok(check: str, says: str) -> Finding:
    """Return that all is well."""
    return Finding(check=check, verdict="ok", says=says)


def warn(check: str, says: str, cure: str) -> Finding:
    """Return what may hurt."""
    return Finding(check=check, verdict="warn", says=says, cure=cure)


def failed(check: str, error: CamrayError, cure: str) -> Finding:
    """Return the finding of an error, with the cure that it names itself, else this one."""
    says, names_cure, own = str(error).partition("; check ")
    return fail(check, says, f"check {own}" if names_cure else cure)


def fail(check: str, says: str, cure: str) -> Finding:
    """Return what keeps a run from working."""
    return Finding(check=check, verdict="fail", says=says, cure=cure)
