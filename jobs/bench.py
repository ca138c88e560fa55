"""`bench`: measure this machine: stages, whole runs against the hardware's limit and against peers, plans, memory."""

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import tyro.conf

from cam_ops.errors import StorageError, UsageError
from cam_ops.network.names import LITE0
from cam_ops.settings import ModelConfig
from cluster.bench.manifests import write_large_manifest, write_manifest
from cluster.bench.runs import Measured, on_all, pretend_committed, run_label, seconds_to_work
from cluster.executors.simulated import simulate
from cluster.process.apart import Apart
from cluster.process.console import say
from jobs.command import Outcome
from jobs.flags import parse
from jobs.paths import refuse_unwritable_file

Section = Literal[
    "stages",
    "limit",
    "refine",
    "executors",
    "peers",
    "start",
    "dispatch",
    "plan",
    "memory",
    "rebox",
    "audit",
    "export",
    "report",
]
Figure = dict[str, Any]

SPEED: tuple[Section, ...] = ("stages", "limit")
HALF = (0.5, 0.5, 0.5)
PROBE_S = 4.0
PEER_IMAGES = {"blog": 64, "gradcam": 64, "torchcam": 128}
REPLICAS = (1, 10, 100, 1000)
MAX_COMMITTED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """Measure this machine. Contenders take turns; medians are printed with (lowest-highest), and with --out
    appended to a file as JSON. Without sections the README's table of speed: stages and limit.
    """

    sections: tyro.conf.Positional[tuple[Section, ...]] = SPEED
    """`stages` of one replica; `limit`: whole runs against bare forward and decode on all cores; `refine`: whole runs
    with and without refined maps; `executors`: Ray against inline; `peers`: what one would run instead; `start`:
    seconds from the command to the first replica's work; `dispatch`: shards a second; `plan`: a large manifest;
    `memory`: resident sizes over a long run; `rebox` and `audit`: maps a second, in one process; `export`, `report`:
    seconds and memory of one process for --num-images maps."""
    images: str
    """Folder of pictures; they are used again and again."""
    models: tuple[str, ...] = ("resnet50", "resnet18", LITE0, "convnext_tiny")
    """Networks: torchvision's with random weights, efficientnet_lite0, or package.module:factory, such as
    jobs.bench_model:head_only, which costs next to nothing."""
    num_images: int = 512
    """Images of each run."""
    rounds: int = 3
    """How often each contender has its turn."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format, as of `label`."""
    rows: int = 10_000_000
    """Rows of the manifest that is planned. A resume finds as many shards committed, at most 100,000."""
    out: Path | None = None
    """File to append the figures to, a JSON object a line; by default none, they are printed alone."""
    json: bool = False
    """Print one JSON document to stdout; CAMRAY_RESULT goes to stderr."""

    def __post_init__(self) -> None:
        if min(self.num_images, self.rounds, self.rows) < 1:
            raise UsageError("--num-images, --rounds and --rows expect numbers of at least 1")


def run(arguments: list[str]) -> Outcome:
    """Measure the sections one after the other; a figure is printed as soon as it is there."""
    config = parse(BenchConfig, arguments, "bench")
    if not os.path.isdir(config.images):
        raise StorageError(f"there is no folder {config.images}; check --images")
    if config.out is not None:
        refuse_unwritable_file(str(config.out), "--out")
    print(f"{_now()}  {_commit()}  {_machine()}", flush=True)
    figures: list[Figure] = []
    with TemporaryDirectory(prefix="camray-bench-") as scratch:
        for section in config.sections:
            for figure in MEASURES[section](config, Path(scratch)):
                figures.append({"date": _now(), "commit": _commit(), "machine": _machine(), **figure})
                if config.out:
                    _append(config.out, figures[-1])
                print(_line(figure), flush=True)
    return Outcome(out=str(config.out) if config.out else None, document={"figures": figures})


def stages(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Measure the stages of one replica, compiled, in one thread."""
    for model in config.models:
        replica = _replica(config, scratch, model)
        spent = [replica.call("stages") for _ in range(config.rounds + 1)][1:]
        replica.close()
        yield {
            "section": "stages, ms/image",
            "model": model,
            **{stage: _spread([one[stage] for one in spent]) for stage in spent[0]},
        }


def limit(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Compare whole runs with 1 / (1/F + 1/D), F and D the rates of bare forward and decode with all cores loaded."""
    num_cores = len(os.sched_getaffinity(0))
    for model in config.models:
        replicas = [_replica(config, scratch, model) for _ in range(num_cores)]
        rounds: list[tuple[float, float, Measured]] = []
        for number in range(config.rounds):
            forward, decode = (sum(on_all(replicas, what, PROBE_S)) for what in ("forward", "decode"))
            flags = _label_flags(config, scratch, model)
            rounds.append((forward, decode, run_label(flags, scratch / f"limit-{model}-{number}", num_cores)))
        for replica in replicas:
            replica.close()
        limits = [1 / (1 / forward + 1 / decode) for forward, decode, _ in rounds]
        yield {
            "section": "limit, images/s",
            "model": model,
            "forward": _spread([forward for forward, _, _ in rounds]),
            "decode": _spread([decode for _, decode, _ in rounds]),
            "limit": _spread(limits),
            "label": _spread([measured.steady for *_, measured in rounds]),
            "of_limit": _spread([one[2].steady / bound for one, bound in zip(rounds, limits, strict=True)]),
            "first_commit_s": _spread([measured.first_commit_s for *_, measured in rounds]),
            "bytes_per_image": _spread([measured.bytes_per_image for *_, measured in rounds]),
            "driver_mib": _spread([measured.max_rss_mib for *_, measured in rounds]),
        }


def refine(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Compare whole runs with refined maps and without, on all cores; start-up does not count."""
    num_cores = len(os.sched_getaffinity(0))
    for model in config.models:
        flags = _label_flags(config, scratch, model)
        found: dict[str, list[float]] = {"none": [], "affinity": []}
        for number in range(config.rounds):
            for name, rates in found.items():
                measured = run_label([*flags, "--refine", name], scratch / f"{name}-{model}-{number}", num_cores)
                rates.append(measured.steady)
        costs = [plain / refined for plain, refined in zip(found["none"], found["affinity"], strict=True)]
        both = {name: _spread(rates) for name, rates in found.items()}
        yield {"section": "refine, images/s", "model": model, **both, "cost": _spread(costs)}


def executors(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Compare a replica on Ray with one inline; start-up does not count."""
    for model in config.models:
        flags = _label_flags(config, scratch, model)
        found: dict[str, list[float]] = {"inline": [], "ray": []}
        for number in range(config.rounds):
            for name, more in (("inline", ["--executor", "inline"]), ("ray", ["--replicas", "1"])):
                measured = run_label([*flags, *more], scratch / f"{name}-{model}-{number}", 1)
                found[name].append(measured.steady)
        ratios = [ray / inline for ray, inline in zip(found["ray"], found["inline"], strict=True)]
        rates = {name: _spread(rates) for name, rates in found.items()}
        yield {"section": "executors, images/s", "model": model, **rates, "ray_of_inline": _spread(ratios)}


def peers(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Compare whole runs, start-up included, with Ray Data's on as many images, and steady ones with others' loops."""
    num_cores = len(os.sched_getaffinity(0))
    for model in config.models:
        found: dict[str, list[float]] = {}
        for number in range(config.rounds):
            for peer, num_images in {**PEER_IMAGES, "ray-data": config.num_images}.items():
                found.setdefault(peer, []).append(_peer_rate(config, peer, model, num_images))
            out = scratch / f"peers-{model}-{number}"
            measured = run_label(_label_flags(config, scratch, model), out, num_cores)
            found.setdefault("label, total", []).append(measured.rate)
            found.setdefault("label, steady", []).append(measured.steady)
        ratios = {
            f"over {peer}": statistics.median(found["label, total" if peer == "ray-data" else "label, steady"])
            / statistics.median(found[peer])
            for peer in (*PEER_IMAGES, "ray-data")
        }
        yield {
            "section": f"peers, images/s, {config.num_images} images",
            "model": model,
            **{name: _spread(rates) for name, rates in found.items()},
            **{name: f"{ratio:.2f}" for name, ratio in ratios.items()},
        }


def start(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Start a new run of --num-images, and one of which all shards but two are committed; the cache is warm."""
    num_committed = min(config.rows, MAX_COMMITTED)
    manifest = scratch / "start.parquet"
    write_manifest(config.images, num_committed + 2, manifest)
    for model in config.models:
        _replica(config, scratch, model).close()  # leaves the compiled network in the cache
        flags = [*_label_flags(config, scratch, model), "--batch-size", "16"]
        large = [*flags, "--images", str(manifest), "--shard-size", "1"]
        out = scratch / f"start-{model}"
        seconds_to_work(large, out)  # leaves its plan
        new, resumed = [], []
        for number in range(config.rounds):
            new.append(seconds_to_work(flags, scratch / f"start-{model}-{number}"))
            pretend_committed(out, num_committed)
            resumed.append(seconds_to_work(large, out))
        yield {
            "section": f"start, s, {num_committed} of {num_committed + 2} shards committed",
            "model": model,
            f"new, {config.num_images} images": _spread(new),
            "resume": _spread(resumed),
        }


def dispatch(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Measure the loop that hands out shards, with simulated replicas that have nothing to do."""
    rates = {
        f"{count} replicas": _spread([simulate(count, 50_000) for _ in range(config.rounds)]) for count in REPLICAS
    }
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


def memory(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Watch the resident size of a replica over a run of --num-images in one process."""
    for model in config.models:
        flags = [*_label_flags(config, scratch, model), "--executor", "inline"]
        measured = run_label(flags, scratch / f"memory-{model}", 1)
        sizes, tenth = measured.later_rss_mib, max(1, len(measured.later_rss_mib) // 10)
        yield {
            "section": f"memory, MiB, {config.num_images} images",
            "model": model,
            "after_a_tenth": f"{statistics.median(sizes[tenth : 2 * tenth + 1]):.0f}",
            "last_tenth": f"{statistics.median(sizes[-tenth:]):.0f}",
            "largest": f"{measured.max_rss_mib:.0f}",
        }


def rebox(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Make new boxes of --num-images maps, copies of those of 512 pictures, in one process."""
    with closing(_copies(config, scratch, "rebox")) as copies:
        rates = [copies.call("rebox", str(scratch / f"rebox-{number}")) for number in range(config.rounds)]
    yield {"section": f"rebox, maps/s, {config.num_images} maps", **_two_clocks(rates)}


def audit(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Audit --num-images maps, copies of those of 512 pictures, in one process; and boxes at all thresholds alone."""
    with closing(_copies(config, scratch, "audit")) as copies:
        copies.call("audit", 200)  # compiles
        rates = [copies.call("audit", 200) for _ in range(config.rounds)]
        alone = [copies.call("score_maps", 64) for _ in range(config.rounds)]
    yield {"section": f"audit, maps/s, {config.num_images} maps", **_two_clocks(rates)}
    yield {
        "section": "boxes at 1,000 thresholds, score maps/s of the processor's time",
        "camray, largest and all contours": _spread([ours for ours, _, _ in alone]),
        "wsolevaluation, largest": _spread([largest for _, largest, _ in alone]),
        "wsolevaluation, all": _spread([every for _, _, every in alone]),
        "camray / largest": _spread([ours / largest for ours, largest, _ in alone]),
        "camray / both": _spread([ours * (1 / largest + 1 / every) for ours, largest, every in alone]),
    }


def export(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Export the boxes of --num-images maps, copies of those of 512 pictures, with links to the pictures for yolo."""
    with closing(_copies(config, scratch, "export")) as copies:
        run = copies.call("where")
    for form in ("coco", "yolo"):
        found = []
        for number in range(config.rounds):
            with closing(Apart("cluster.bench.copies:Exports")) as exports:
                found.append(exports.call("export", run, form, str(scratch / f"export-{form}-{number}")))
        yield {
            "section": f"export to {form}, {found[0][0]} boxes",
            "seconds": _spread([seconds for _, seconds, _ in found]),
            "boxes/s": _spread([boxes / seconds for boxes, seconds, _ in found]),
            "max_rss_mib": _spread([rss_mib for *_, rss_mib in found]),
        }


def report(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Report on --num-images maps, copies of those of 512 pictures, in one process."""
    with closing(_copies(config, scratch, "report")) as copies:
        run = copies.call("where")
    found = []
    for number in range(config.rounds):
        with closing(Apart("cluster.bench.copies:Reports")) as reports:
            found.append(reports.call("report", run, str(scratch / f"report-{number}.html")))
    yield {
        "section": f"report of {config.num_images} images",
        "seconds": _spread([seconds for _, seconds, _ in found]),
        "images/s": _spread([config.num_images / seconds for _, seconds, _ in found]),
        "page_mb": _spread([num_bytes / 1e6 for num_bytes, *_ in found]),
        "max_rss_mib": _spread([rss_mib for *_, rss_mib in found]),
    }


MEASURES: dict[Section, Callable[[BenchConfig, Path], Iterator[Figure]]] = {
    "stages": stages,
    "limit": limit,
    "refine": refine,
    "executors": executors,
    "peers": peers,
    "start": start,
    "dispatch": dispatch,
    "plan": plan,
    "memory": memory,
    "rebox": rebox,
    "audit": audit,
    "export": export,
    "report": report,
}


def _copies(config: BenchConfig, scratch: Path, name: str) -> Apart:
    """Return `cluster.bench.copies.Copies` of a run over 512 pictures."""
    source = scratch / name
    run_label([*_label_flags(config, scratch, LITE0), "--limit", "512", "--shard-size", "512"], source, 1)
    return Apart("cluster.bench.copies:Copies", str(source), f"{source}-copies", config.num_images)


def _two_clocks(rates: list[tuple[float, float]]) -> Figure:
    by_clock, by_cpu = zip(*rates, strict=True)
    return {"by the clock": _spread(by_clock), "of the processor's time": _spread(by_cpu)}


def _label_flags(config: BenchConfig, scratch: Path, model: str) -> list[str]:
    manifest = scratch / "images.parquet"
    if not manifest.exists():
        write_manifest(config.images, config.num_images, manifest)
    return [*("--images", str(manifest)), *_model_flags(model), "--precision", config.precision, "--compile", "always"]


def _model(name: str) -> ModelConfig:
    if name == LITE0:
        return ModelConfig(model=LITE0)
    if ":" in name:
        return ModelConfig(model=name, mean=HALF, std=HALF)
    return ModelConfig(model=name, weights="random")


def _model_flags(name: str) -> list[str]:
    model = _model(name)
    flags = ["--model", model.model]
    if model.mean and model.std:
        return [*flags, "--mean", *map(str, model.mean), "--std", *map(str, model.std)]
    return [*flags, "--weights", model.weights] if model.weights else flags


def _replica(config: BenchConfig, scratch: Path, model: str) -> Apart:
    """Return a replica in a process of its own, for a small run with the settings of the large ones."""
    out = scratch / f"replica-{model}"
    if not out.exists():
        small = [*_label_flags(config, scratch, model), "--limit", "64", "--batch-size", "16", "--executor", "inline"]
        run_label(small, out, 1)
    return Apart("cluster.bench.parts:Parts", str(out), _model(model))


def _peer_rate(config: BenchConfig, peer: str, model: str, num_images: int) -> float:
    command = [sys.executable, "-m", "jobs.peers", peer, _model(model).model, str(num_images), config.images]
    precision = ["--precision", "bf16"] if peer == "ray-data" and config.precision == "bf16" else []
    finished = subprocess.run([*command, *precision], capture_output=True, text=True)
    if finished.returncode:
        say(f"{peer} failed on {model}: {finished.stderr.strip().splitlines()[-1:]}")
        return float("nan")
    return float(json.loads(finished.stdout.splitlines()[-1])["images_per_s"])


def _spread(values: Sequence[float]) -> str:
    """Return the median with the lowest and the highest value, three digits each."""
    return f"{_digits(statistics.median(values))} ({_digits(min(values))}-{_digits(max(values))})"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or math.isnan(value) else f"{value:.3g}"


def _line(figure: Figure) -> str:
    return "  ".join(f"{name} {value}" if name != "section" else f"{value}:" for name, value in figure.items())


def _append(path: Path, document: Figure) -> None:
    with path.open("a") as file:
        file.write(json.dumps(document) + "\n")


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M")


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return found.stdout.strip() or "no commit"


def _machine() -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{len(os.sched_getaffinity(0))} x {name}"
