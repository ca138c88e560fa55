"""How long shards take, as the dispatch loop sees it: which one hangs, which is slow and given out a second time."""

import statistics
from collections import deque

SUSPECT_TIMEOUT_S = 300.0  # the least a suspected shard is given: a picture may hold two decoders for a minute each
TIMEOUT_S = 600.0  # the least that `auto` allows a shard
TIMEOUT_FACTOR = 10  # times the longest shard so far
SLOW_FACTOR = 2  # times the median: a shard that takes longer is also given to a replica that has nothing to do
SLOW_S = 2.0  # the least that counts as slow
RECENT = 100  # shards that the median is taken of


class Pace:
    """The time that shards took so far; `timeout_s` is the limit asked for, None for ten times the longest."""

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self.spent_s: deque[float] = deque(maxlen=RECENT)
        self.longest_s = 0.0
        self.copied: set[int] = set()  # slow shards that two replicas hold

    def took(self, seconds: float) -> None:
        """Note that a shard is done."""
        self.spent_s.append(seconds)
        self.longest_s = max(self.longest_s, seconds)

    def limit_s(self, *, is_suspected: bool) -> float:
        """Return how long a shard may take before its replica counts as dead; without end before the first is done."""
        limit_s = max(TIMEOUT_S, TIMEOUT_FACTOR * self.longest_s) if self.longest_s else float("inf")
        limit_s = limit_s if self.timeout_s is None else self.timeout_s
        return max(limit_s, SUSPECT_TIMEOUT_S) if is_suspected else limit_s

    def slow_s(self) -> float:
        """Return how long a shard takes that is slow; without end before the first is done."""
        return max(SLOW_S, SLOW_FACTOR * statistics.median(self.spent_s)) if self.spent_s else float("inf")
