"""Metrics: what is recorded of work, that none harms it, and that page and dashboard have the names in code."""

import json
import re
from collections import Counter
from contextlib import closing, redirect_stderr
from io import StringIO
from typing import ClassVar

import pytest

from cluster.executors.dispatch import dispatch
from cluster.executors.events import Event, ignore, look_away
from cluster.executors.metrics import METRICS, Dispatch, Meters
from cluster.executors.simulated import SimulatedCluster
from cluster.executors.work import ShardReport
from tests.support.command import ROOT

DASHBOARD = json.loads((ROOT / "cluster" / "deploy" / "grafana-dashboard.json").read_text())
PAGE = (ROOT / "docs" / "metrics.md").read_text()


class Kept:
    """A metric that keeps what it is told, as Ray's are called."""

    values: ClassVar[Counter[tuple[str, ...]]] = Counter()

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.tag_keys = name, tag_keys
        assert description

    def inc(self, value: float, labels: dict[str, str]) -> None:
        assert value > 0
        self.values[self._key(labels)] += value

    def set(self, value: float, labels: dict[str, str]) -> None:
        self.values[self._key(labels)] = value

    def _key(self, labels: dict[str, str]) -> tuple[str, ...]:
        assert tuple(labels) == self.tag_keys
        return self.name, *labels.values()


class Broken(Kept):
    def inc(self, value: float, labels: dict[str, str]) -> None:
        raise OSError("no agent")


@pytest.fixture
def kept() -> Counter[tuple[str, ...]]:
    Kept.values.clear()
    return Kept.values


def simulated(cluster: SimulatedCluster, num_shards: int) -> Dispatch:
    """Return what dispatches simulated shards, whose reports are those of pictures."""

    def begin(listen, watch):
        for shard in dispatch(cluster, range(num_shards), None, listen, watch):
            yield ShardReport(
                **{"shard": shard, "statuses": {"ok": 9, "empty": shard % 2}, "seconds": {"network": 0.5}},
                **{"gpu_memory_bytes": 1000 + shard, "place": "one"},
            )

    return begin


def test_what_happens_is_counted_and_gauges_are_0_at_the_end(kept: Counter[tuple[str, ...]]) -> None:
    heard: list[Event] = []
    with SimulatedCluster(2, 0.0, {3: 1}) as cluster, redirect_stderr(StringIO()):
        reports = list(Meters(Kept, Kept).measured(simulated(cluster, 8), heard.append, look_away))
    assert len(reports) == 8
    (died,) = [event for event in heard if event.kind == "replica_died"]
    assert kept == {
        ("camray_images_total", "ok"): 72,
        ("camray_images_total", "empty"): 4,
        ("camray_shards_total",): 8,
        ("camray_stage_seconds_total", "network"): 4,
        ("camray_replica_deaths_total", "work"): 1,
        ("camray_shards_retried_total",): died.fields["shards"],
        ("camray_shards_waiting",): 0,
        ("camray_shards_at_work",): 0,
        ("camray_replicas",): 0,
        ("camray_gpu_memory_bytes", "one"): 1007,
    }
    assert {name for name, *_ in kept} == {metric.name for metric in METRICS}


def test_a_run_goes_on_without_metrics_that_fail_and_says_so_once(kept: Counter[tuple[str, ...]]) -> None:
    with SimulatedCluster(2, 0.0) as cluster, redirect_stderr(StringIO()) as said:
        reports = list(Meters(Broken, Kept).measured(simulated(cluster, 50), ignore, look_away))
    assert len(reports) == 50
    assert said.getvalue().count("camray: the run goes on without metrics: OSError: no agent\n") == 1


def test_who_stops_reading_stops_the_work(kept: Counter[tuple[str, ...]]) -> None:
    ended: list[str] = []

    def begin(listen, watch):
        try:
            while True:
                yield ShardReport(shard=0, statuses={})
        finally:
            ended.append("killed its replicas")

    with closing(Meters(Kept, Kept).measured(begin, ignore, look_away)) as reports:
        next(reports)
    assert ended == ["killed its replicas"]


def test_names_follow_the_rules_of_prometheus() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"camray(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.says.endswith(".")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_page_has_each_metric_as_the_code_has_it() -> None:
    rows = re.findall(r"^\| `(camray_\w+)` \| (\w+) \| (\w+) \| (?:`(\w+)`)? ?\| (.+) \|$", PAGE, re.MULTILINE)
    assert [(name, kind, label, says) for name, kind, _, label, says in rows] == [
        (metric.name, metric.kind, metric.label or "", metric.says) for metric in METRICS
    ]
    for name, _, unit, _, _ in rows:
        assert unit in name


def expressions() -> list[tuple[str, str]]:
    return [(target["expr"], target["legendFormat"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_every_metric_is_on_the_dashboard_and_no_other() -> None:
    shown = {name for expression, _ in expressions() for name in re.findall(r"ray_\w+", expression)}
    assert shown == {f"ray_{metric.name}" for metric in METRICS}
    by_name = {f"ray_{metric.name}": metric for metric in METRICS}
    for expression, legend in expressions():
        (metric,) = {by_name[name] for name in re.findall(r"ray_\w+", expression)}
        assert metric.kind == "counter" or "rate(" not in expression
        labels = set(re.findall(r"by \((\w+)\)", expression))
        assert labels <= {metric.label}
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) == labels
        assert expression.count("(") == expression.count(")")
        assert 'SessionName=~"$session"' in expression


def test_the_dashboard_is_built_as_grafana_reads_it() -> None:
    assert DASHBOARD.keys() >= {"title", "uid", "schemaVersion", "panels", "templating", "time", "refresh"}
    assert "id" not in DASHBOARD  # an import gives it one
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"] == {**variables["datasource"], "type": "datasource", "query": "prometheus"}
    assert variables["session"]["query"] == "label_values(ray_camray_replicas, SessionName)"
    taken = Counter[tuple[int, int]]()
    for panel in DASHBOARD["panels"]:
        assert panel.keys() >= {"id", "type", "title", "description", "gridPos", "targets", "fieldConfig", "options"}
        assert [target["refId"] for target in panel["targets"]] == list("ABC"[: len(panel["targets"])])
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        place = panel["gridPos"]
        taken.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert max(taken.values()) == 1
    assert {x for x, _ in taken} == set(range(24))
