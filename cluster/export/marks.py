"""By what an export's place is known: the stage of one that goes on, or did not end, and the record of a whole one."""

import re
from collections.abc import Iterable
from typing import Any

from cam_ops.documents import json_of
from cluster.export.kinds import EXPORTS
from cluster.process.console import shown

STAGE = ".camray-export-"
STAGES = re.compile(re.escape(STAGE) + "[0-9a-f]{32}")
MARKER = "marker.json"
RECORD = "export.json"
MAX_RECORD_BYTES = 2**20
ENTRIES = {RECORD, *(name for form in EXPORTS.values() for name in (*form.entries, form.folder))}
"""All that exports ever make: a record from elsewhere cannot give away anything else."""

Document = dict[str, Any]


def stage_name(token: str) -> str:
    """Return the name of an export's stage."""
    return f"{STAGE}{token}"


def stages_in(names: Iterable[str]) -> list[str]:
    """Return the stages among names."""
    return [name for name in sorted(names) if STAGES.fullmatch(name)]


def document_of(content: bytes | None) -> Document | None:
    """Return a JSON document; None where it is none."""
    try:
        document = json_of(content or b"")
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def is_record(document: Document | None) -> bool:
    """Say whether an export.json is one of ours: other tools have such, too."""
    return document is not None and document.get("command") == "export" and isinstance(document.get("asked"), dict)


def is_empty(record: Document | None) -> bool:
    """Say whether an export has no image: who mends its filters need not say that it may go."""
    counts = (record or {}).get("counts")
    return isinstance(counts, dict) and counts.get("images") == 0


def described(record: Document | None) -> str:
    """Say what a record is of, for people."""
    asked = (record or {}).get("asked", {})
    return f"--to {shown(str(asked.get('to')))} of {shown(str(asked.get('run')))}"


def entries_of(document: Document | None) -> set[str]:
    """Return the names that a marker or a record says an export made; a document from elsewhere may say anything."""
    entries = (document or {}).get("entries")
    names = entries if isinstance(entries, list) else []
    return {name for name in names if isinstance(name, str)} & ENTRIES
