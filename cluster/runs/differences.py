"""How two requests differ, and the refusal to mix them in one run."""

import shlex
from dataclasses import asdict, replace
from typing import Any

from cam_ops.errors import RefusedError
from cluster.runs.directory import RunDir
from cluster.runs.record import MapsFrom, Run, short
from cluster.runs.request import Request, canonical_digest

BOX_SETTINGS = ("maps.", "boxes.", "calibration")  # beginnings of their names


def refuse_another(run_dir: RunDir, existing: Run, asked: Request, maps_from: MapsFrom | None = None) -> None:
    """Raise RefusedError naming the fields that differ and the cheapest way out, unless the requests are equal."""
    different = changed_fields(existing, replace(existing, request=asked, maps_from=maps_from))
    if not different:
        return
    changes = "; ".join(f"{key} was {before}, now {after}" for key, (before, after) in different.items())
    ways = "give the same flags to resume it, another --out to keep both, or --overwrite to replace it"
    was, now = existing.maps_from, maps_from
    if was and now and was.root == now.root and was.fingerprint != now.fingerprint:
        ways = f"{now.root} holds other maps than then; give another --out, or --overwrite to make boxes of these"
    if existing.maps_from is None and all(key.startswith(BOX_SETTINGS) for key in different):
        if asked.calibration:
            flags = "--calibration FILE"
        else:
            after = _compared(asked, maps_from)
            settings = [key for key in after if key.startswith(BOX_SETTINGS[:2])]
            needed = settings if existing.request.calibration else different  # any of them ends a calibration
            after["boxes.min_area"] = asked.boxes.least_area  # none would be that of the run
            flags = " ".join(f"--{key.partition('.')[2].replace('_', '-')} {_shown(after[key])}" for key in needed)
        ways += (
            f"; its maps serve for these boxes, without the model: python -m jobs rebox {shlex.quote(run_dir.root)} "
            f"--out NEW {flags}"
        )
    raise RefusedError(f"{run_dir.root} holds another request ({changes}); {ways}")


def changed_fields(before: Run, after: Run) -> dict[str, tuple[str, str]]:
    """Return the fields of the request that differ, and `maps_from`, by name, each as it stands behind its flag."""
    was, now = (_compared(run.request, run.maps_from) for run in (before, after))
    different = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    return {key: (_shown(was.get(key)), _shown(now.get(key))) for key in different}


def _compared(request: Request, maps_from: MapsFrom | None) -> dict[str, Any]:
    """Return what tells two requests apart, by names that a user knows; of a calibration its digest."""
    calibration = request.calibration and f"sha256:{canonical_digest(asdict(request.calibration))}"
    return flat({**asdict(request), "calibration": calibration, "maps_from": maps_from and maps_from.root})


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree by their dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def _shown(value: Any) -> str:
    """Return a field of a request as it stands behind its flag."""
    return short(" ".join(map(str, value)) or "nothing" if isinstance(value, tuple) else value)
