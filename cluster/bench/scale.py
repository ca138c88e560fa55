"""What does not run a network: dispatch and plans of many shards, and commands on many stored maps."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from cluster.bench.config import BenchConfig
from cluster.bench.figures import Figure, spread, two_clocks
from cluster.bench.inputs import few_flags, to_copy
from cluster.bench.manifests import write_large_manifest
from cluster.bench.runs import run_command, run_label
from cluster.executors.simulated import simulate
from cluster.process.apart import Apart

REPLICAS = (1, 10, 100, 1000)


def dispatch(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Measure the loop that hands out shards, with simulated replicas that have nothing to do."""
    rates = {f"{count} replicas": spread([simulate(count, 50_000) for _ in range(config.rounds)]) for count in REPLICAS}
    yield {"section": "dispatch, shards/s", **rates}


def plan(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Plan a manifest of many rows in no order."""
    manifest = scratch / "large.parquet"
    write_large_manifest(config.rows, manifest)
    for number in range(config.rounds):
        planner = Apart("cluster.bench.manifests:Planner")
        planned, seconds, rss_mib = planner.call("plan", str(manifest), str(scratch / f"plan-{number}"), 1000)
        planner.close()
        yield {
            "section": "plan",
            "rows": planned.num_images,
            "shards": planned.num_shards,
            "seconds": f"{seconds:.1f}",
            "max_rss_mib": f"{rss_mib:.0f}",
        }


def rebox(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Make new boxes of at least --num-images maps, whole copies of those of 512 pictures, in one process."""
    with closing(Apart("cluster.bench.copies:Copies", *to_copy(config, scratch, "rebox"))) as copies:
        _, num_maps = copies.call("made")
        rates = [copies.call("rebox", str(scratch / f"rebox-{number}")) for number in range(config.rounds)]
    yield {"section": f"rebox, maps/s, {num_maps} maps", **two_clocks(rates)}


def audit(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Audit as many maps, whole copies of those of 512 pictures, in one process; and boxes at all thresholds alone."""
    with closing(Apart("cluster.bench.copies:Copies", *to_copy(config, scratch, "audit"))) as copies:
        _, num_maps = copies.call("made")
        copies.call("audit", 200)  # compiles
        rates = [copies.call("audit", 200) for _ in range(config.rounds)]
        alone = [copies.call("score_maps", 64) for _ in range(config.rounds)]
    yield {"section": f"audit, maps/s, {num_maps} maps", **two_clocks(rates)}
    yield {
        "section": "boxes at 1,000 thresholds, score maps/s of the processor's time",
        "camray, largest and all contours": spread([ours for ours, _, _ in alone]),
        "wsolevaluation, largest": spread([largest for _, largest, _ in alone]),
        "wsolevaluation, all": spread([every for _, _, every in alone]),
        "camray / largest": spread([ours / largest for ours, largest, _ in alone]),
        "camray / both": spread([ours * (1 / largest + 1 / every) for ours, largest, every in alone]),
    }


def shards(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Ask a run of --rows shards of one picture for its status, verify it and audit it: once, by the commands."""
    source, out = scratch / "shards", scratch / "shards-copies"
    run_label([*few_flags(config, scratch, 1), "--shard-size", "1"], source, 1)
    with closing(Apart("cluster.bench.copies:Copies", str(source), str(out), config.rows)) as copies:
        truth = copies.call("truth")
    audit = ("audit", str(out), "--truth", truth, "--executor", "inline", "--bootstrap", "200")
    for words in (("status", str(out)), ("verify", str(out)), audit):
        seconds, rss_mib = run_command(words)
        yield {
            "section": f"{words[0]} of {config.rows} shards of one picture",
            "seconds": f"{seconds:.1f}",
            "ms a shard": f"{seconds / config.rows * 1000:.2f}",
            "max_rss_mib": f"{rss_mib:.0f}",
        }


def export(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Export the boxes of as many maps, whole copies of those of 512 pictures, with links to pictures for yolo."""
    with closing(Apart("cluster.bench.copies:Copies", *to_copy(config, scratch, "export"))) as copies:
        run, _ = copies.call("made")
    for form in ("coco", "yolo"):
        found = []
        for number in range(config.rounds):
            with closing(Apart("cluster.bench.copies:Exports")) as exports:
                found.append(exports.call("export", run, form, str(scratch / f"export-{form}-{number}")))
        yield {
            "section": f"export to {form}, {found[0][0]} boxes",
            "seconds": spread([seconds for _, seconds, _ in found]),
            "boxes/s": spread([boxes / seconds for boxes, seconds, _ in found]),
            "max_rss_mib": spread([rss_mib for *_, rss_mib in found]),
        }


def report(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Report on as many maps, whole copies of those of 512 pictures, in one process."""
    with closing(Apart("cluster.bench.copies:Copies", *to_copy(config, scratch, "report"))) as copies:
        run, num_maps = copies.call("made")
    found = []
    for number in range(config.rounds):
        with closing(Apart("cluster.bench.copies:Reports")) as reports:
            found.append(reports.call("report", run, str(scratch / f"report-{number}.html")))
    yield {
        "section": f"report of {num_maps} images",
        "seconds": spread([seconds for _, seconds, _ in found]),
        "images/s": spread([num_maps / seconds for _, seconds, _ in found]),
        "page_mb": spread([num_bytes / 1e6 for num_bytes, *_ in found]),
        "max_rss_mib": spread([rss_mib for *_, rss_mib in found]),
    }
