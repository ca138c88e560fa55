"""What every command returns, and the line that ends its output."""

import json
from dataclasses import dataclass


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
    if outcome.error is not None:
        document["error"] = outcome.error
    return "CAMRAY_RESULT " + json.dumps(document)
