"""What every command returns, and the line that ends its output."""

import json
from dataclasses import dataclass

from cluster.runs.totals import Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended: the fields of CAMRAY_RESULT."""

    status: str = "done"
    exit_code: int = 0
    images: int = 0
    ok: int = 0
    errors: int = 0
    boxes: int = 0
    out: str | None = None
    error: str | None = None
    exported: int | None = None  # images in an export
    images_left_out: dict[str, int] | None = None  # of it, by the reason
    boxes_left_out: dict[str, int] | None = None
    part: str | None = None  # of a run, in words: None of a whole one


def outcome_of(
    totals: Totals,
    out: str,
    *,
    status: str = "done",
    exit_code: int = 0,
    error: str | None = None,
    part: str | None = None,
) -> Outcome:
    """Return the outcome of a command on a run that holds `totals`."""
    return Outcome(
        status=status,
        exit_code=exit_code,
        images=totals.images,
        ok=totals.statuses.get("ok", 0),
        errors=totals.errors,
        boxes=totals.boxes,
        out=out,
        error=error,
        part=part,
    )


def result_line(command: str, outcome: Outcome, seconds: float) -> str:
    """Return the last line of stdout; `ray job submit` flattens exit codes to 1, this line keeps them."""
    document = {
        "command": command,
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "images": outcome.images,
        "ok": outcome.ok,
        "errors": outcome.errors,
        "boxes": outcome.boxes,
        "seconds": round(seconds, 3),
        "out": outcome.out,
    }
    for name in ("error", "exported", "images_left_out", "boxes_left_out", "part"):
        if (value := getattr(outcome, name)) is not None:
            document[name] = value
    return "CAMRAY_RESULT " + json.dumps(document)
