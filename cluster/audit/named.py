"""The audits of a run by name. Each says what it was asked for: the same request replaces it, another is refused."""

from typing import Any

from cam_ops.errors import RefusedError, StorageError, UsageError
from cluster.audit.files import MetricsFile, audit_files, read_metrics
from cluster.process.console import shortened
from cluster.runs.directory import RunDir
from cluster.runs.names import AUDIT_FOLDER
from cluster.runs.part import covers
from cluster.runs.record import Run
from cluster.storage.files import Files
from cluster.storage.objects import absolute

MAX_SHOWN = 80


def refuse_another(files: Files, run: Run, request: dict[str, Any], name: str | None) -> None:
    """Raise RefusedError where the audit in place, of that name, was asked for something else.

    One that cannot be read, or is of a run that was here before, is worth nothing. An older one, which does not say
    all that it was asked for, is taken at what it says. One of more shards takes the place of one of fewer.
    """
    try:
        found = read_metrics(files, run.request.fingerprint())
        was = _asked(found) if found else request
        is_less = not covers(request["shards"], was.get("shards"))
    except (StorageError, UsageError):
        return
    different = [flag for flag in was if flag != "shards" and was[flag] != request.get(flag)]
    different += ["shards"] if is_less else []
    if different:
        changes = "; ".join(
            f"{flag} was {_shown(was.get(flag))}, now {_shown(request.get(flag))}" for flag in different
        )
        raise RefusedError(
            f"{files.root} holds another audit ({changes}); give {'another --name' if name else '--name NAME'} "
            "to keep both, or --overwrite to replace it"
        )


def _asked(found: MetricsFile) -> dict[str, Any]:
    if found.request is not None:
        return found.request
    path = (found.truth or {}).get("path")
    asked = {"truth": absolute(path) if isinstance(path, str) else None}
    return asked | {flag: found.settings[flag] for flag in ("calibrate", "seed", "bootstrap") if flag in found.settings}


def _shown(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return shortened(text, MAX_SHOWN) or "not given"


def find_audit(run_dir: RunDir, run: Run, name: str | None) -> tuple[Files, MetricsFile | None]:
    """Return a run's audit: its files, and its metrics.json, None where the run is not audited.

    Raises UsageError where there is none of the name that was given, StorageError as `read_metrics`.
    """
    files = audit_files(run_dir, name)
    metrics = read_metrics(files, run.request.fingerprint())
    if metrics is None and name:
        names = sorted(
            match[1] for folder in run_dir.folders() if (match := AUDIT_FOLDER.fullmatch(folder)) and match[1]
        )
        raise UsageError(
            f"{run_dir.root} has no audit of the name {name!r}, "
            f"{'but ' + shortened(', '.join(names), MAX_SHOWN) if names else 'nor of another'}; "
            f"make it by `audit {run_dir.root} --name {name}`"
        )
    return files, metrics
