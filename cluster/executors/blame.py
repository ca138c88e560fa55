"""What the dispatch loop holds against shards: replicas that died at them, and what they lacked at which place."""

from collections import Counter
from typing import Literal

from cam_ops.errors import CamrayError

SUSPICIOUS_DEATHS = 2  # of the replica that works on a shard: from then on its images are suspected
MAX_SHARD_DEATHS = 12  # two, and three for each of three images that kill the replica

Verdict = Literal["in its turn", "after all others", "never"]


class Blame:
    """Counts by the number of the shard."""

    def __init__(self) -> None:
        self.deaths: Counter[int] = Counter()
        self.lost: dict[int, str] = {}  # shards that are left out, with the last reason
        self.lacking: dict[int, str] = {}  # shards that lacked storage or the machine, with the place where they did

    def is_suspected(self, shard: int) -> bool:
        """Say whether so many replicas died at a shard that its images may be the reason."""
        return self.deaths[shard] >= SUSPICIOUS_DEATHS

    def died_at(self, shard: int, reason: str) -> Verdict:
        """Count a death at a shard; return when it is to be done again: at the last death it is lost."""
        self.deaths[shard] += 1
        if self.deaths[shard] == 1:
            return "in its turn"
        if self.deaths[shard] < MAX_SHARD_DEATHS:
            return "after all others"
        self.lost[shard] = reason
        return "never"

    def refuse_to_go_on(self, num_replicas: int, reason: str) -> None:
        """Raise CamrayError where so many died that no shard is to blame; for the time before any shard is done."""
        if self.deaths.total() >= max(MAX_SHARD_DEATHS, 2 * num_replicas):
            raise CamrayError(f"{self.deaths.total()} replicas died before any shard was done, the last: {reason}")

    def lacks_only_at(self, place: str, shard: int) -> bool:
        """Note that a shard lacked storage or the machine at a place; say whether it is the first one to say so."""
        return self.lacking.setdefault(shard, place) == place

    def raise_lost(self) -> None:
        """Raise CamrayError where shards were left out."""
        if self.lost:
            named = ", ".join(str(shard) for shard in sorted(self.lost)[:10])
            raise CamrayError(
                f"{len(self.lost)} shard(s) killed one replica after another and are not done: {named}; all others "
                f"are. The last reason: {list(self.lost.values())[-1]}"
            )
