"""Images a second: the stages of a replica, whole runs against the hardware's limit and against peers, the start."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from cam_ops.network.names import LITE0
from cluster.bench.config import HOST_SHARD, BenchConfig
from cluster.bench.figures import Figure, spread
from cluster.bench.inputs import label_flags, model_of, small_run
from cluster.bench.manifests import write_manifest
from cluster.bench.runs import Measured, on_all, pretend_committed, run_label, seconds_to_work
from cluster.process.apart import Apart
from cluster.process.console import say
from cluster.runs.directory import open_run_dir
from cluster.runs.record import existing_run

PROBE_S = 4.0
HOST_FLAGS = ("--shard-size", str(HOST_SHARD), "--batch-size", "64")
FREE = "jobs.bench_model:head_only"
DEVICE_MS = 0.2  # a picture: 5,000 a second
MANY_PROCESSES = 16
DECODE_RATE = 1000.0  # pictures a second, of a process
PEER_IMAGES = {"blog": 64, "gradcam": 64, "torchcam": 128}
MAX_COMMITTED = 100_000


def stages(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Measure the stages of one replica, compiled, in one thread."""
    for model in config.models:
        replica = Apart("cluster.bench.parts:Parts", *small_run(config, scratch, model))
        spent = [replica.call("stages") for _ in range(config.rounds + 1)][1:]
        replica.close()
        yield {
            "section": "stages, ms/image",
            "model": model,
            **{stage: spread([one[stage] for one in spent]) for stage in spent[0]},
        }


def limit(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Compare whole runs with 1 / (1/F + 1/D), F and D the rates of bare forward and decode with all cores loaded."""
    num_cores = len(os.sched_getaffinity(0))
    for model in config.models:
        replicas = [Apart("cluster.bench.parts:Parts", *small_run(config, scratch, model)) for _ in range(num_cores)]
        rounds: list[tuple[float, float, Measured]] = []
        for number in range(config.rounds):
            forward, decode = (sum(on_all(replicas, what, PROBE_S)) for what in ("forward", "decode"))
            flags = label_flags(config, scratch, model)
            rounds.append((forward, decode, run_label(flags, scratch / f"limit-{model}-{number}", num_cores)))
        for replica in replicas:
            replica.close()
        limits = [1 / (1 / forward + 1 / decode) for forward, decode, _ in rounds]
        yield {
            "section": "limit, images/s",
            "model": model,
            "refine": config.refine,
            "forward": spread([forward for forward, _, _ in rounds]),
            "decode": spread([decode for _, decode, _ in rounds]),
            "limit": spread(limits),
            "label": spread([measured.steady for *_, measured in rounds]),
            "of_limit": spread([one[2].steady / bound for one, bound in zip(rounds, limits, strict=True)]),
            "first_commit_s": spread([measured.first_commit_s for *_, measured in rounds]),
            "bytes_per_image": spread([measured.bytes_per_image for *_, measured in rounds]),
            "driver_mib": spread([measured.max_rss_mib for *_, measured in rounds]),
        }


def refine(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Compare whole runs with refined maps and without, on all cores; start-up does not count."""
    num_cores = len(os.sched_getaffinity(0))
    for model in config.models:
        flags = label_flags(config, scratch, model)
        found: dict[str, list[float]] = {"none": [], "affinity": []}
        for number in range(config.rounds):
            for name, rates in found.items():
                measured = run_label([*flags, "--refine", name], scratch / f"{name}-{model}-{number}", num_cores)
                rates.append(measured.steady)
        costs = [plain / refined for plain, refined in zip(found["none"], found["affinity"], strict=True)]
        both = {name: spread(rates) for name, rates in found.items()}
        yield {"section": "refine, images/s", "model": model, **both, "cost": spread(costs)}


def host(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Compare a replica whose device is a stand-in with bare decoding and resizing, on all cores; and without decoding.

    First, with nothing else that lives, runs of CPU replicas with a network that costs next to nothing.
    """
    num_cores = len(os.sched_getaffinity(0))
    decoders = [Apart("cluster.bench.parts:Parts", *small_run(config, scratch, LITE0)) for _ in range(num_cores)]
    free = [*label_flags(config, scratch, FREE), "--refine", "none", *HOST_FLAGS]
    runs: list[tuple[float, float]] = []
    for number in range(config.rounds):
        bare = sum(on_all(decoders, "decode", PROBE_S))
        runs.append((bare, run_label(free, scratch / f"host-{number}", num_cores).steady))
    yield {
        "section": f"host, images/s, {config.num_images} images, {num_cores} CPU replicas with {FREE}, --refine none",
        "bare decoding": spread([bare for bare, _ in runs]),
        "label": spread([rate for _, rate in runs]),
        "of bare": spread([rate / bare for bare, rate in runs]),
    }
    for refine in ("none", "affinity"):
        flags = [*label_flags(config, scratch, LITE0), "--refine", refine, *HOST_FLAGS]
        out = scratch / f"host-{refine}"
        seconds_to_work(flags, out)  # leaves its plan
        found: list[tuple[float, dict[str, float]]] = []
        with closing(Apart("cluster.bench.host:Host", str(out), model_of(LITE0), num_cores, DEVICE_MS)) as before_gpu:
            before_gpu.call("rate")
            for _ in range(config.rounds):
                bare = sum(on_all(decoders, "decode", PROBE_S))
                found.append((bare, before_gpu.call("rate")))
        with closing(
            Apart("cluster.bench.host:Host", str(out), model_of(LITE0), MANY_PROCESSES, 0.0, 1000 / DECODE_RATE)
        ) as simulated:
            many = [simulated.call("rate") for _ in range(config.rounds)]
        yield {
            "section": f"host, images/s, {config.num_images} images, --refine {refine}",
            "bare decoding": spread([bare for bare, _ in found]),
            "before a GPU": spread([rates["images/s"] for _, rates in found]),
            "of bare": spread([rates["images/s"] / bare for bare, rates in found]),
            "feeding, ms": spread([rates["feeding"] for _, rates in found]),
            "boxes, tables, publication, ms": spread([rates["ending"] for _, rates in found]),
            f"{MANY_PROCESSES} processes that sleep instead of decoding": spread([rates["images/s"] for rates in many]),
        }
    for decoder in decoders:
        decoder.close()


def executors(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Compare a replica on Ray with one inline; start-up does not count."""
    for model in config.models:
        flags = label_flags(config, scratch, model)
        found: dict[str, list[float]] = {"inline": [], "ray": []}
        for number in range(config.rounds):
            for name, more in (("inline", ["--executor", "inline"]), ("ray", ["--replicas", "1"])):
                measured = run_label([*flags, *more], scratch / f"{name}-{model}-{number}", 1)
                found[name].append(measured.steady)
        ratios = [ray / inline for ray, inline in zip(found["ray"], found["inline"], strict=True)]
        rates = {name: spread(rates) for name, rates in found.items()}
        yield {"section": "executors, images/s", "model": model, **rates, "ray_of_inline": spread(ratios)}


def peers(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Compare whole runs, start-up included, with Ray Data's on as many images, and steady ones with others' loops."""
    num_cores = len(os.sched_getaffinity(0))
    for model in config.models:
        found: dict[str, list[float]] = {}
        for number in range(config.rounds):
            out = scratch / f"peers-{model}-{number}"
            measured = run_label(label_flags(config, scratch, model), out, num_cores)
            found.setdefault("label, total", []).append(measured.rate)
            found.setdefault("label, steady", []).append(measured.steady)
            precisions = {"ray-data": _peer_precision(out)}
            for peer, num_images in {**PEER_IMAGES, "ray-data": config.num_images}.items():
                rate = _peer_rate(config, peer, model, num_images, precisions.get(peer, "fp32"))
                found.setdefault(peer, []).append(rate)
        ratios = {
            f"over {peer}": statistics.median(found["label, total" if peer == "ray-data" else "label, steady"])
            / statistics.median(found[peer])
            for peer in (*PEER_IMAGES, "ray-data")
        }
        yield {
            "section": f"peers, images/s, {config.num_images} images",
            "model": model,
            **{name: spread(rates) for name, rates in found.items()},
            **{name: f"{ratio:.2f}" for name, ratio in ratios.items()},
            "ray-data in": precisions["ray-data"],
        }


def _peer_precision(out: Path) -> str:
    """Return the number format of Ray Data's turn beside a run of `label`: the run's, which `auto` may have chosen."""
    return "bf16" if existing_run(open_run_dir(str(out))).request.precision == "bf16" else "fp32"


def start(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Start a new run of --num-images, and one of which all shards but two are committed; the cache is warm."""
    num_committed = min(config.rows, MAX_COMMITTED)
    manifest = scratch / "start.parquet"
    write_manifest(config.images, num_committed + 2, manifest)
    for model in config.models:
        Apart(
            "cluster.bench.parts:Parts", *small_run(config, scratch, model)
        ).close()  # leaves the compiled network in the cache
        flags = [*label_flags(config, scratch, model), "--batch-size", "16"]
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
            f"new, {config.num_images} images": spread(new),
            "resume": spread(resumed),
        }


def memory(config: BenchConfig, scratch: Path) -> Iterator[Figure]:
    """Watch the resident size of a replica over a run of --num-images in one process."""
    for model in config.models:
        flags = [*label_flags(config, scratch, model), "--executor", "inline"]
        measured = run_label(flags, scratch / f"memory-{model}", 1)
        sizes, tenth = measured.later_rss_mib, max(1, len(measured.later_rss_mib) // 10)
        yield {
            "section": f"memory, MiB, {config.num_images} images",
            "model": model,
            "after_a_tenth": _median(sizes[tenth : 2 * tenth + 1]),
            "last_tenth": _median(sizes[-tenth:]),
            "largest": f"{measured.max_rss_mib:.0f}",
        }


def _median(sizes: Sequence[float]) -> str:
    """Return the median of sizes, `nan` where the run ended before there was one."""
    return f"{statistics.median(sizes):.0f}" if sizes else "nan"


def _peer_rate(config: BenchConfig, peer: str, model: str, num_images: int, precision: str) -> float:
    command = [sys.executable, "-m", "jobs.peers", peer, model_of(model).model, str(num_images), config.images]
    finished = subprocess.run([*command, "--precision", precision], capture_output=True, text=True)
    if finished.returncode:
        say(f"{peer} failed on {model}: {' '.join(finished.stderr.strip().splitlines()[-1:])}")
        return float("nan")
    return float(json.loads(finished.stdout.splitlines()[-1])["images_per_s"])
