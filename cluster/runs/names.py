"""The names of a run's files, below its directory."""

import re

from cam_ops.errors import UsageError

LOG = "log"  # folder of the sessions' files
AUDIT = "audit"
AUDIT_SUFFIXES = (".json", ".parquet", ".png", ".svg", ".csv")
QUARANTINE = "quarantine"  # folder of what is known of pictures that kill their replica
DERIVED = {
    "show": (".png",),
    LOG: (".jsonl",),
}  # what is no part of a run's tables, by folder; audits have folders by their names
TABLES = ("heatmaps", "boxes", "images")  # in the order of publication: the last commits the shard
WRITTEN = (*TABLES, "plan", LOG, QUARANTINE)  # folders of what `label` and `rebox` write
RUN, SUMMARY, SUSPECTS, REPORT = "run.json", "summary.json", "suspects.parquet", "report.html"
SESSION_FILE = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.jsonl", re.ASCII)  # in log/; by name they are in order
SHARD_FILE = re.compile(r"shard-(\d{7,})\.parquet")
AUDIT_FOLDER = re.compile(rf"{AUDIT}(?:-([A-Za-z0-9][A-Za-z0-9._-]{{0,63}}))?", re.ASCII)
QUARANTINE_FILE = re.compile(r"shard-(\d{7,})\.json")


def shard_name(table: str, shard: int) -> str:
    """Return the name of a shard's file, below the run directory."""
    return f"{table}/shard-{shard:07d}.parquet"


def quarantine_name(shard: int) -> str:
    """Return the name of the file on a shard's pictures that kill their replica, below the run directory."""
    return f"{QUARANTINE}/shard-{shard:07d}.json"


def plan_name(part: int) -> str:
    """Return the name of a part of the plan, below the run directory."""
    return f"plan/part-{part:05d}.parquet"


def audit_folder(name: str | None) -> str:
    """Return the folder of the audit of that name, or of the one without; raises UsageError for what is no name."""
    folder = f"{AUDIT}-{name}" if name else AUDIT
    if not AUDIT_FOLDER.fullmatch(folder):
        raise UsageError(
            f"expected a name of 1 to 64 letters, digits, '.', '_' and '-' for an audit, as in --name strict, got "
            f"{name!r:.80}"
        )
    return folder


def audit_pair(names: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Return the audits of two runs that --audit names: of one name both, of none those without. An empty text is none.

    Raises UsageError.
    """
    if len(names) > 2:
        raise UsageError(f"--audit expects one name, or two: of A's audit and of B's, got {len(names)}")
    for name in names:
        audit_folder(name)
    first, second = (*names, *names, "", "")[:2]
    return first or None, second or None
