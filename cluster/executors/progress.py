"""Say how work advances: a line now and then in a log, one redrawn line with a bar on a terminal."""

import time
from collections import Counter, deque

from cluster.executors.events import Standing
from cluster.executors.work import ShardReport
from cluster.process.console import PREFIX, is_screen, num_columns, say

LOG_INTERVAL_S = 10.0
TERMINAL_INTERVAL_S = 0.5
MINUTE_S = 60.0  # that the rate is of
SHORT_S = 1.0  # what was done in less says nothing of the rate
QUIET_S = 60.0  # without a report before that is said; the next time after twice as long
QUIET_FACTOR = 2  # times the longest time between two reports: what is usual is not said
BAR_CELLS = 10, 40  # of the bar: the least, and the most
ESSENTIAL = 2  # parts that matter more than a bar


class Rate:
    """Images a second of the last minute, or of the time since the report before, if that is longer."""

    def __init__(self) -> None:
        self.points: deque[tuple[float, int]] = deque()  # times of reports, and images done by then: one a second

    def add(self, moment_s: float, num_images: int) -> None:
        """Note how many images are done. The first ones do not count: their time was also that of loading a model."""
        if len(self.points) > 1 and moment_s - self.points[-2][0] < 1:
            self.points.pop()
        self.points.append((moment_s, num_images))
        while len(self.points) > 2 and moment_s - self.points[1][0] >= MINUTE_S:
            self.points.popleft()

    def per_s(self) -> float:
        """Return the rate, 0 where it is not known yet."""
        (first_s, first), (last_s, last) = (self.points[0], self.points[-1]) if self.points else ((0.0, 0), (0.0, 0))
        return (last - first) / (last_s - first_s) if last_s - first_s >= SHORT_S else 0.0


class Progress:
    """Counts shard reports; `done_images` and `done_shards` were committed by earlier runs."""

    def __init__(self, *, num_images: int, num_shards: int, done_images: int, done_shards: int) -> None:
        self.num_images, self.num_shards = num_images, num_shards
        self.done_images, self.done_shards = done_images, done_shards
        self.bad: Counter[str] = Counter()  # images that are not ok, by status
        self.stage_seconds: Counter[str] = Counter()  # of all replicas; see `run_shard` of the replica
        self.replica_seconds = 0.0  # that replicas were ready to work, added up
        self.standing = Standing(0, 0, 0)
        self.rate, self.first_images = Rate(), 0  # done with the first report
        self.start_s = self.shown_s = self.heard_s = self.seen_s = time.monotonic()
        self.first_s = 0.0  # the first report came
        self.longest_s = 0.0  # between two reports
        self.quiet_s = QUIET_S  # without a report, that are said next
        self.screen = is_screen()

    def look(self, standing: Standing) -> None:
        """Note how the work stands; say it where no report has come for long."""
        self._count_replicas()
        self.standing = standing
        quiet_s = self.seen_s - self.heard_s
        is_quiet = standing.at_work > 0 or standing.waiting > 0
        if is_quiet and quiet_s >= max(self.quiet_s, QUIET_FACTOR * self.longest_s):
            self.quiet_s = 2 * quiet_s
            say(f"nothing finished for {duration(quiet_s)}: {self._waiting_for()}")
            self.shown_s = self.seen_s
        elif self.screen and self.first_s and self.seen_s - self.shown_s >= TERMINAL_INTERVAL_S:
            self._show(last=False)

    def add(self, report: ShardReport) -> None:
        """Count a finished shard, and show the state if the last line is old enough."""
        self._count_replicas()
        now_s, num_images = self.seen_s, sum(report.statuses.values())
        self.done_images += num_images
        self.done_shards += 1
        self.bad += Counter({status: images for status, images in report.statuses.items() if status != "ok"})
        self.stage_seconds.update(report.seconds)
        self.rate.add(now_s, self.done_images)
        if self.first_s:
            self.longest_s = max(self.longest_s, now_s - self.heard_s)
        else:
            self.first_s, self.first_images = now_s, self.done_images
        self.heard_s, self.quiet_s = now_s, QUIET_S
        finished = self.done_shards == self.num_shards
        interval_s = TERMINAL_INTERVAL_S if self.screen else LOG_INTERVAL_S
        if finished or now_s - self.shown_s >= interval_s:
            self._show(last=finished)

    def _count_replicas(self) -> None:
        now_s = time.monotonic()
        self.replica_seconds += self.standing.replicas * (now_s - self.seen_s)
        self.seen_s = now_s

    def _waiting_for(self) -> str:
        stands = self.standing
        if not stands.replicas:
            return "no replica is ready; does the cluster have free resources for them?"
        return (
            f"{stands.replicas} replica(s) are at work on {stands.at_work} shard(s), {stands.waiting} wait, "
            f"{self.done_images}/{self.num_images} images are done"
        )

    def _show(self, *, last: bool) -> None:
        self.shown_s = self.seen_s
        if last:
            say(", ".join([*self._done(), self._mean_rate(), self._bad_images(), self._spent()]))
            return
        rate, left = self.rate.per_s(), self.num_images - self.done_images
        eta = f"ETA {duration(left / rate)}" if rate else "ETA unknown"
        pace = f"{rate:.1f} images/s" if rate else "? images/s"
        images, shards = self._done()
        if self.screen:
            parts = [images, eta, pace, self._bad_images(), shards]
            say(with_bar(self.done_images / self.num_images, parts, num_columns() - len(PREFIX) - 1), end="")
        else:
            say(", ".join([images, shards, pace, self._bad_images(), eta]))

    def _done(self) -> list[str]:
        return [
            f"{self.done_images}/{self.num_images} images ({percent(self.done_images, self.num_images)} %)",
            f"{self.done_shards}/{self.num_shards} shards",
        ]

    def _mean_rate(self) -> str:
        spent_s, images = self.heard_s - self.first_s, self.done_images - self.first_images
        return f"{images / spent_s:.1f} images/s after the first shard" if spent_s >= SHORT_S else "? images/s"

    def _bad_images(self) -> str:
        if not self.bad:
            return "0 bad"
        (status, images), *others = self.bad.most_common()
        return f"{self.bad.total()} bad ({f'{images} ' if others else ''}{status})"

    def _spent(self) -> str:
        return f"with the start in {duration(self.seen_s - self.start_s)}"


def with_bar(share: float, parts: list[str], columns: int) -> str:
    """Return the parts with a bar before them, in so many columns; where these are few, without bar or last parts."""
    least, most = BAR_CELLS
    room = columns - len("[] ") - least
    texts = [", ".join(parts[:number]) for number in range(len(parts), 0, -1)]
    for text in texts[: 1 - ESSENTIAL]:
        if len(text) <= room:
            cells = min(most, least + room - len(text))
            filled = int(share * cells)
            return f"[{'#' * filled}{'.' * (cells - filled)}] {text}"
    return next((text for text in texts if len(text) <= columns), texts[-1][: max(0, columns)])


def percent(done: int, num: int, digits: int = 0) -> str:
    """Return how much is done of `num`, which is more than 0, in percent: 100 is all of it."""
    most = 100.0 if done >= num else 100 - 10**-digits
    return f"{min(most, 100 * done / num):.{digits}f}"


def duration(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
