"""The log of a session: what one driver saw of a run, in a file of its own in log/, published while it is at work.

It is for people, and no part of what a run proves: where it cannot be written that is said, and the run goes on.
"""

import os
import time
import uuid
from datetime import UTC, datetime
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Self

from cam_ops.errors import CamrayError, StorageError
from cluster.executors.events import Event
from cluster.executors.work import ShardReport
from cluster.process.console import say
from cluster.runs.directory import RunDir
from cluster.runs.names import LOG, RUN, SESSION_FILE
from cluster.runs.record import Run, versions
from cluster.runs.session import Fields, Session
from cluster.storage.attempts import without_secrets

PACE_S = 10.0  # between two publications at least
ALIVE_S = 60.0  # at most: the file's time says that the driver lives
END_S = 5.0  # that a driver waits for the last one
MAX_SESSIONS = 100  # whose files are kept: those of the last
MAX_COMMAND_CHARACTERS = 20_000


class RunLog:
    """Keeps the log of a session from its start line on, and publishes it every few seconds while there is news.

    Else it does so every minute. A thread publishes, so that a slow store holds up nothing. Ends the session where its
    block ends, whatever way.
    """

    def __init__(self, run_dir: RunDir, start: Fields, pace_s: float = PACE_S) -> None:
        self.run_dir, self.pace_s = run_dir, pace_s
        self.start_s = time.monotonic()
        began = datetime.now(UTC)
        self.name = f"{LOG}/{began:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}.jsonl"
        self.session = Session(began, start)
        self.num_images = 0
        self.changed = Condition()  # guards what follows, and the session
        self.is_new, self.is_over, self.has_said = True, False, False
        self.trouble: StorageError | None = None  # of the last publication
        self.run_json: tuple[int, int] | None = None  # of the run that is logged
        self.thread = Thread(target=self._publish_on, name="log", daemon=True)

    def __enter__(self) -> Self:
        """Publish the start, and remove the oldest sessions' files beyond MAX_SESSIONS."""
        try:
            self._publish()
            names = sorted(name for name in self.run_dir.names(LOG) if SESSION_FILE.fullmatch(name))
            for name in names[:-MAX_SESSIONS]:
                self.run_dir.remove(f"{LOG}/{name}")
        except StorageError as error:
            self.trouble = error
            self._say_trouble()
        self.thread.start()
        return self

    def tell(self, event: Event) -> None:
        """Note what an executor tells of."""
        at_s = self._now_s()
        fields = {name: self._shown(value) for name, value in event.fields.items()}
        with self.changed:
            self.session.add_event(event.kind, fields, at_s)
            self.is_new = True
        self._say_trouble()

    def add(self, report: ShardReport) -> None:
        """Note a shard that is done."""
        at_s = self._now_s()
        self.num_images += sum(report.statuses.values())
        with self.changed:
            self.session.add_shard(report, at_s)
            self.is_new = True
        self._say_trouble()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have the end published, but do not wait for long."""
        seconds = self._now_s()
        status, reason = "done", None
        if isinstance(error, KeyboardInterrupt):
            status = "interrupted"
        elif error is not None:
            text = str(error) if isinstance(error, CamrayError) else f"{type(error).__name__}: {error}"
            status, reason = "failed", self._shown(text)
        with self.changed:
            end = {"status": status, "reason": reason, "images": self.num_images, "seconds": seconds}
            self.session.add_end(end, seconds)
            self.is_new = self.is_over = True
            self.changed.notify()
        self.thread.join(END_S)
        self._say_trouble()

    def _publish_on(self) -> None:
        """Publish news until the session is over, and its end."""
        is_over, published_s = False, self._now_s()
        while not is_over:
            with self.changed:
                self.changed.wait_for(lambda: self.is_over, self.pace_s)
                is_over, is_new = self.is_over, self.is_new
            if is_new or self._now_s() - published_s >= ALIVE_S:
                published_s = self._now_s()
                try:
                    self._publish()
                    self.trouble = None
                except StorageError as error:
                    self.trouble = error

    def _publish(self) -> None:
        """Put the file in place, unless the run has gone, or another one has come."""
        with self.changed:
            content = self.session.content()
            self.is_new = False
        found = self.run_dir.version(RUN)
        self.run_json = self.run_json or found
        if found and found == self.run_json:
            self.run_dir.publish(self.name, content)

    def _say_trouble(self) -> None:
        """Say once, in the driver's own thread, that the log is not written."""
        trouble = self.trouble
        if trouble and not self.has_said:
            self.has_said = True
            say(f"the run goes on without its log: {trouble}")

    def _now_s(self) -> float:
        return time.monotonic() - self.start_s

    def _shown(self, value: Any) -> Any:
        return without_secrets(value, self.run_dir.options) if isinstance(value, str) else value


def start_of(run: Run, command_line: tuple[str, ...] | None, **about: str | int) -> Fields:
    """Return the fields of a session's start line: the run, this process, and what more is known of the session."""
    return {
        "command": run.command,
        "command_line": command_line and _bounded(command_line),
        "fingerprint": run.request.fingerprint(),
        "images": run.plan.num_images,
        "shards": run.plan.num_shards,
        "device": run.request.device,
        **about,
        "host": os.uname().nodename,
        "process": os.getpid(),
        "versions": versions(),
    }


def _bounded(words: tuple[str, ...]) -> list[str]:
    """Return the first words of a command line; run.json has all of the one that began the run."""
    kept: list[str] = []
    left = MAX_COMMAND_CHARACTERS
    for word in words:
        left -= len(word) + 1
        if left < 0:
            return [*kept, "..."]
        kept.append(word)
    return kept
