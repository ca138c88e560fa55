"""What the dispatch loop remembers of places: where no replica starts, and where memory ran out."""

from collections import Counter
from collections.abc import Set

from cam_ops.errors import CamrayError, MachineError

MAX_FAILED_STARTS = 3  # in a row, at one place
STORM_S = 30.0  # in which deaths of one place for lack of memory are one event


class Places:
    """Places by name; the empty name stands for all replicas that died before they were anywhere."""

    def __init__(self) -> None:
        self.failed_starts: Counter[str] = Counter()  # in a row, by place
        self.failure: CamrayError | None = None  # of the last start that failed, or the last replica that cannot go on
        self.out_of_memory_s: dict[str, float] = {}  # when a storm began, by place

    def avoided(self) -> frozenset[str]:
        """Return the places where no replica is to be started."""
        return frozenset(place for place, times in self.failed_starts.items() if times >= MAX_FAILED_STARTS)

    def started(self, place: str) -> None:
        """Note that a replica has started: failures in a row are over, there and nowhere."""
        for known in (place, ""):
            self.failed_starts.pop(known, None)

    def died_loading(self, place: str, reason: str) -> MachineError:
        """Note that a replica died before it had started; return that, with how many did so in a row, to be said."""
        self.failed_starts[place] += 1
        failure = MachineError(
            f"{self.failed_starts[place]} replica(s) died while loading their model, the last: {reason}"
        )
        self.failure = failure
        return failure

    def cannot_work(self, place: str, failure: CamrayError) -> None:
        """Avoid a place from now on: a replica has said itself what is missing there, for any other one as well."""
        self.failure, self.failed_starts[place] = failure, MAX_FAILED_STARTS

    def allow_another(self, places: Set[str]) -> bool:
        """Say whether one more replica is of use: there is a place for it, or none at all; then it waits for one."""
        avoided = self.avoided()
        return bool(places - avoided or not places) and "" not in avoided

    def is_first_of_storm(self, place: str, now_s: float) -> bool:
        """Say whether no replica was out of memory there just now: Ray ends several at once, all but one come back."""
        is_first = now_s - self.out_of_memory_s.get(place, -STORM_S) >= STORM_S
        if is_first:
            self.out_of_memory_s[place] = now_s
        return is_first
