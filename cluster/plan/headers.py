"""A look at pictures without decoding them: what their first bytes and headers say, and why some cannot be used."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from cam_ops.errors import BadImage
from cam_ops.pictures.header import read_header
from cluster.plan.findings import Bad, Headers
from cluster.sources.kinds import decoder_of
from cluster.sources.reading import NUM_THREADS, read_image
from cluster.sources.source import Row
from cluster.storage.options import StorageOptions

LIMIT_S = 30.0  # for all of them
NAMED = 10


def look_at_headers(rows: Sequence[Row], options: StorageOptions, limit_s: float = LIMIT_S) -> Headers:
    """Fetch pictures and look at their headers, as many as there is time for. Raises StorageError as reading does."""
    end_s = time.monotonic() + limit_s
    statuses: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    bad: list[Bad] = []
    num_bytes = 0
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for start in range(0, len(rows), NUM_THREADS):
            if time.monotonic() > end_s:
                break
            some = rows[start : start + NUM_THREADS]
            for row, looked in zip(some, pool.map(partial(_look, options), some), strict=True):
                if isinstance(looked, BadImage):
                    statuses[looked.status] += 1
                    bad.append(Bad(image_id=row["image_id"], status=looked.status, error=str(looked)))
                    continue
                form, size = looked
                statuses["ok"] += 1
                formats[form] += 1
                num_bytes += size
    return Headers(statuses=dict(statuses), formats=dict(formats.most_common()), num_bytes=num_bytes, bad=bad[:NAMED])


def _look(options: StorageOptions, row: Row) -> tuple[str, int] | BadImage:
    """Return a picture's format and number of bytes, or why it cannot be used."""
    try:
        content = read_image(row["uri"], row["offset"], row["size"], options)
        own = decoder_of(row)
        if own is not None:  # bytes without a header, and few of them
            own(content)
            return "of its source", len(content)
        return read_header(content).form.name, len(content)
    except BadImage as bad:
        return bad
