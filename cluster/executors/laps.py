"""Seconds of a shard by stage, as a replica measures them."""

import time


class Laps:
    """Each lap is the time since the one before, or since `start`; so all laps add up to the time since then.

    What threads do meanwhile is added beside them.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Begin the first lap now."""
        self.last_s = time.perf_counter()

    def end(self, stage: str) -> None:
        """End a lap, which was spent on `stage`; the next one begins."""
        now_s = time.perf_counter()
        self.add(stage, now_s - self.last_s)
        self.last_s = now_s

    def add(self, stage: str, seconds: float) -> None:
        """Add what was measured elsewhere."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
