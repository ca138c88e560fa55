"""What every command returns, and how its output ends: a line, and with --json one document."""

import json
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from cam_ops.foreign import HALF, visible
from cluster.process.console import public

if TYPE_CHECKING:
    from cluster.runs.census import Totals

INTERRUPTED = "interrupted"
MOST_SAID = (1500, 500)  # characters of an error, from its beginning and to its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended: the fields of CAMRAY_RESULT."""

    status: str = "done"
    exit_code: int = 0
    images: int = 0
    ok: int | None = 0  # None: not counted
    errors: int | None = 0
    boxes: int | None = 0
    out: str | None = None
    error: str | None = None
    exported: int | None = None  # images in an export
    images_left_out: dict[str, int] | None = None  # of it, by the reason
    boxes_left_out: dict[str, int] | None = None
    part: str | None = None  # of a run, in words: None of a whole one
    document: dict[str, Any] | None = None  # what --json prints


def outcome_of(
    totals: "Totals",
    out: str,
    *,
    status: str = "done",
    exit_code: int = 0,
    error: str | None = None,
    part: str | None = None,
    document: dict[str, Any] | None = None,
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
        document=document,
    )


def document_text(document: dict[str, Any], indent: int | None = 1) -> str:
    """Return a document as --json prints it, with the newline that ends it; as one line where `indent` is None."""
    return _ascii(document, indent) + "\n"


def _ascii(document: dict[str, Any], indent: int | None = None) -> str:
    """Return JSON in printable ASCII that all readers take: what UTF-8 cannot hold is an escape within the text."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    whole = HALF.sub(lambda half: rf"\\u{ord(half[0]):04x}", text)
    return json.dumps(json.loads(whole), indent=indent).replace("\x7f", r"\u007f")


documents_to: ContextVar[TextIO | None] = ContextVar("documents_to", default=None)  # with --json: what was stdout


def print_lines(lines: Iterable[str]) -> None:
    """Print lines for people, as they come: text from files and stores may hold what a terminal obeys."""
    for line in lines:
        print(visible(public(line)), flush=True)


def print_document(document: dict[str, Any]) -> None:
    """Print a document as a line, before the command's last one."""
    print(document_text(document, None), end="", file=documents_to.get() or sys.stdout, flush=True)


def json_text(outcome: Outcome, indent: int | None = 1) -> str:
    """Return what --json prints: the command's document, or that of the error that it ended with."""
    error = {"error": outcome.error or outcome.status, "status": outcome.status, "exit_code": outcome.exit_code}
    return document_text(outcome.document or error, indent)


def error_text(error: Exception) -> str:
    """Return what an error says; of a long one, as a file's value may stand there, the beginning and the cure."""
    text = public(str(error))
    return text if len(text) <= sum(MOST_SAID) else f"{text[: MOST_SAID[0]]}...{text[-MOST_SAID[1] :]}"


def result_line(command: str, outcome: Outcome, seconds: float) -> str:
    """Return the last line of stdout, of stderr with --json; it keeps the exit code that `ray job submit` flattens."""
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
    return "CAMRAY_RESULT " + _ascii(document)
