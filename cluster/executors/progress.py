"""Say how a run advances: a line every few seconds in a log, one redrawn line on a terminal."""

import sys
import time

from cluster.executors.work import ShardReport
from cluster.process.console import say

LOG_INTERVAL_S = 10.0
TERMINAL_INTERVAL_S = 0.5
SHORT_S = 1.0  # what was done in less says nothing of the rate


class Progress:
    """Counts shard reports; `done_images` and `done_shards` were committed by earlier runs.

    The rate is that after the first report: loading a model does not count.
    """

    def __init__(self, *, num_images: int, num_shards: int, done_images: int, done_shards: int) -> None:
        self.num_images, self.num_shards = num_images, num_shards
        self.done_images, self.done_shards = done_images, done_shards
        self.bad_images = 0
        self.shown_s = time.monotonic()
        self.first_s: float | None = None
        self.first_images = 0
        self.terminal = sys.stderr.isatty()

    def add(self, report: ShardReport) -> None:
        """Count a finished shard, and show the state if the last line is old enough."""
        num_images = sum(report.statuses.values())
        self.done_images += num_images
        self.done_shards += 1
        self.bad_images += num_images - report.statuses.get("ok", 0)
        if self.first_s is None:
            self.first_s, self.first_images = time.monotonic(), self.done_images
        interval_s = TERMINAL_INTERVAL_S if self.terminal else LOG_INTERVAL_S
        finished = self.done_shards == self.num_shards
        if finished or time.monotonic() - self.shown_s >= interval_s:
            self.shown_s = time.monotonic()
            self._show(last=finished)

    def _show(self, *, last: bool) -> None:
        assert self.first_s is not None
        spent_s, left = time.monotonic() - self.first_s, self.num_images - self.done_images
        rate = (self.done_images - self.first_images) / spent_s if spent_s >= SHORT_S else 0.0
        eta = _duration(left / rate) if rate else "unknown" if left else _duration(0)
        line = (
            f"{self.done_images}/{self.num_images} images ({100 * self.done_images / self.num_images:.0f} %), "
            f"{self.done_shards}/{self.num_shards} shards, {f'{rate:.1f}' if rate else '?'} images/s, "
            f"{self.bad_images} bad, ETA {eta}"
        )
        say(line, end="" if self.terminal and not last else "\n")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
