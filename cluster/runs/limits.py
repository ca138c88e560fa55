"""Where the replicas' time went, and what limits a run: in words, at its end and in reports.

The stages are those of `label.replica` and `rebox.replica`; `run_shard` says there what each means.
"""

from collections.abc import Iterator, Mapping

from cam_ops.settings import Device

LEAST_S = 1.0  # of replicas: less says nothing
IDLE = "nothing to do"
MAPS = "waiting for maps, or nothing to do"  # of `rebox`: reading goes on beside the shard before, as far as that takes
WORDS = {  # of parts; the order is that of the work
    "storage": "waiting for storage",
    "decoding": "decoding",
    "network": "the network",
    "boxes": "boxes",
    "publish": "writing tables",
    IDLE: IDLE,
    MAPS: MAPS,
}


def limit_lines(
    stage_seconds: Mapping[str, float], replica_seconds: float, device: Device, *, reduced: bool
) -> Iterator[str]:
    """Yield two lines: each part's share of the time that replicas were ready to work, and what limits.

    None where there is nothing to say. `reduced` says whether JPEGs are decoded at a fraction of their size already.
    """
    parts = parts_of(stage_seconds, replica_seconds, device)
    total = sum(parts.values())
    if total < LEAST_S or not stage_seconds:
        return
    shares = ", ".join(
        f"{WORDS[part]} {parts[part] / total:.0%}" for part in WORDS if parts.get(part, 0) / total >= 0.005
    )
    yield f"the replicas' time: {shares}"
    yield limit_of(parts, device, reduced=reduced)


def parts_of(stage_seconds: Mapping[str, float], replica_seconds: float, device: Device) -> dict[str, float]:
    """Return seconds by part; they add up to the replicas' time.

    On a CPU `load` is waiting for storage and decoding. Before a GPU threads do both, so it is divided as their time
    is; boxes and tables are made there while the next shard has the GPU, and are no part of the sum.
    """
    load, decode = stage_seconds.get("load", 0.0), stage_seconds.get("decode", 0.0)
    if device == "cuda":
        threads = decode + stage_seconds.get("fetch", 0.0)
        decoding = load * decode / threads if threads else 0.0
        beside: tuple[str, ...] = ("boxes", "publish")
    else:
        decoding, beside = min(load, decode), ()
    parts = {"storage": load - decoding, "decoding": decoding}
    parts |= {
        stage: stage_seconds[stage]
        for stage in ("network", "boxes", "publish")
        if stage in stage_seconds and stage not in beside
    }
    parts[MAPS if "read" in stage_seconds else IDLE] = max(0.0, replica_seconds - sum(parts.values()))
    return parts


def limit_of(parts: Mapping[str, float], device: Device, *, reduced: bool) -> str:
    """Return one sentence on what limits: the largest of the parts, which add up to more than 0."""
    largest = max(parts, key=lambda part: parts[part])
    share = f"{parts[largest] / sum(parts.values()):.0%}"
    match largest:
        case "storage":
            return f"storage limits: replicas wait {share} of the time for pictures; storage that is nearer is the cure"
        case "decoding":
            more = "cores for each GPU" if device == "cuda" else "cores"
            cure = "" if reduced else "; where pictures are large JPEGs, --decode reduced (another run) takes less"
            return f"decoding limits: it takes {share} of the time; more {more} make it faster{cure}"
        case "network":
            more = "GPUs" if device == "cuda" else "cores, or a GPU,"
            return f"the network limits, with {share} of the time: that is as it should be; more {more} make it faster"
        case "boxes":
            return f"making boxes limits, with {share} of the time: more replicas make it faster"
        case "publish":
            return (
                f"writing tables limits, with {share} of the time: an --out that is nearer, or larger shards (label "
                "--shard-size, another run), makes it faster"
            )
    if largest == MAPS:
        return (
            f"replicas waited for maps, or had nothing to do, for {share} of the time: nearer storage is the first cure"
        )
    return f"replicas had nothing to do for {share} of the time: the run was short, or had few shards, for so many"
