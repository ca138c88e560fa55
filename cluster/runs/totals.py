"""What a run holds so far, as summary.json has it."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a run holds, as in summary.json."""

    images: int
    statuses: dict[str, int]
    maps: int
    boxes: int

    @property
    def errors(self) -> int:
        """Images that are not ok."""
        return self.images - self.statuses.get("ok", 0)


def summary_of(fingerprint: str, totals: Totals) -> bytes:
    """Return the content of summary.json."""
    return json.dumps({"fingerprint": fingerprint, **asdict(totals)}, indent=1).encode()
