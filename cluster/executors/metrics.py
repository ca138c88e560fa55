"""What can be measured of work from outside while it goes on: names, units, labels. Ray exports each as `ray_NAME`.

Nothing here needs Ray: `ray_actors` brings its two kinds of metric. All are recorded in the driver, which hears of
replicas anyway. Ray forgets a gauge that is not set again within twice its export interval, of 10 s by default.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from cluster.executors.events import Event, Listener, Standing, Watcher
from cluster.executors.work import ShardReport
from cluster.process.console import say


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric by the rules of Prometheus: base units, which the name ends with; `_total` of what only grows."""

    name: str
    kind: Literal["counter", "gauge"]
    says: str
    label: str | None = None


IMAGES = Metric(name="camray_images_total", kind="counter", label="status", says="Images done, by status.")
SHARDS = Metric(name="camray_shards_total", kind="counter", says="Shards done.")
STAGES = Metric(
    name="camray_stage_seconds_total", kind="counter", label="stage", says="Seconds of replicas, by what they did."
)
RETRIED = Metric(
    name="camray_shards_retried_total",
    kind="counter",
    says="Shards that went back to the queue, as their replica died.",
)
DEATHS = Metric(
    name="camray_replica_deaths_total",
    kind="counter",
    label="at",
    says="Replicas that died, at work or at their start.",
)
WAITING = Metric(name="camray_shards_waiting", kind="gauge", says="Shards that no replica holds yet: the queue.")
AT_WORK = Metric(name="camray_shards_at_work", kind="gauge", says="Shards that replicas hold, at most two each.")
REPLICAS = Metric(name="camray_replicas", kind="gauge", says="Replicas that are ready to work.")
GPU_MEMORY = Metric(
    name="camray_gpu_memory_bytes", kind="gauge", label="node", says="Most GPU memory that a replica there has held."
)
METRICS = (IMAGES, SHARDS, STAGES, RETRIED, DEATHS, WAITING, AT_WORK, REPLICAS, GPU_MEMORY)

Dispatch = Callable[[Listener, Watcher], Generator[ShardReport, None, None]]


class Meters:
    """Metrics, made when they are first needed. Where one fails that is said once, and nothing more is measured."""

    def __init__(self, counter: type[Any], gauge: type[Any]) -> None:
        """Both are called with a name, a description and the names of labels, as Ray's are."""
        self.kinds = {"counter": counter, "gauge": gauge}
        self.made: dict[str, Any] = {}
        self.gpu_memory: dict[str, int] = {}  # bytes, by place
        self.failed = False

    def record(self, metric: Metric, value: float, label: str = "") -> None:
        """Add to a counter, or set a gauge."""
        if self.failed or (metric.kind == "counter" and not value > 0):
            return
        labels = {metric.label: label} if metric.label else {}
        try:
            if metric.name not in self.made:
                self.made[metric.name] = self.kinds[metric.kind](metric.name, metric.says, tuple(labels))
            made = self.made[metric.name]
            made.inc(value, labels) if metric.kind == "counter" else made.set(value, labels)
        except Exception as error:  # noqa: BLE001  whatever it is, a run does not depend on it
            self.failed = True
            say(f"the run goes on without metrics: {type(error).__name__}: {error}")

    def measured(self, dispatch: Dispatch, listen: Listener, watch: Watcher) -> Generator[ShardReport, None, None]:
        """Yield what `dispatch` yields, and measure it and what is told meanwhile."""

        def heard(event: Event) -> None:
            self._count(event)
            listen(event)

        def seen(standing: Standing) -> None:
            self._stand(standing)
            watch(standing)

        try:
            with closing(dispatch(heard, seen)) as reports:
                for report in reports:
                    self._add(report)
                    yield report
        finally:
            self._stand(Standing(0, 0, 0))

    def _add(self, report: ShardReport) -> None:
        self.record(SHARDS, 1)
        if report.gpu_memory_bytes > self.gpu_memory.get(report.place, 0):
            self.gpu_memory[report.place] = report.gpu_memory_bytes
        for status, images in report.statuses.items():
            self.record(IMAGES, images, status)
        for stage, seconds in report.seconds.items():
            self.record(STAGES, seconds, stage)

    def _count(self, event: Event) -> None:
        if event.kind == "replica_died":
            self.record(DEATHS, 1, "work")
            self.record(RETRIED, float(str(event.fields["shards"])))
        elif event.kind == "replica_not_started":
            self.record(DEATHS, 1, "start")

    def _stand(self, standing: Standing) -> None:
        self.record(WAITING, standing.waiting)
        self.record(AT_WORK, standing.at_work)
        self.record(REPLICAS, standing.replicas)
        for node, held in self.gpu_memory.items():
            self.record(GPU_MEMORY, held, node)
