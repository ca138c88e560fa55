"""The document of `plan` as people read it."""

from collections.abc import Iterator
from typing import Any

from cluster.plan.document import Document
from cluster.process.console import shortened, shown

UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
NUM_BAD, NUM_KINDS = 3, 6
BUSY = 0.8  # share of a core, below which others are at work there
WAITS = 0.3  # share of a shard, above which its pictures are waited for


def lines_of(document: Document) -> Iterator[str]:
    """Yield its lines."""
    yield from _out_lines(document["out"])
    if "images" not in document:
        return
    images, shards, settled = document["images"], document["shards"], document["settled"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in list(images["kinds"].items())[:NUM_KINDS])
    about = "about " * images["bytes_are_estimated"]
    size = "of unknown size" if images["bytes"] is None else about + size_text(images["bytes"])
    yield f"images   {images['listed']} ({kinds}), {size}, in {shards['number']} shards of {shards['images_each']}"
    labelled = f"{images['labelled']} images have one, of {images['classes_that_label']} classes; "
    labels = f"{labelled}{images['unlabelled']} have none" if images["labelled"] else "none"
    yield f"labels   {labels}; maps of {settled['classes']}"
    how = "refined" if settled["refined"] else "not refined"
    yield (
        f"network  {settled['model']}, {settled['method']}, {how}, {settled['device']}, {settled['precision']}, "
        f"{'compiled' if settled['compiled'] else 'not compiled'}, batches of {settled['batch_size']}"
    )
    yield from _pilot_lines(document)
    yield from _cost_lines(document)


def _out_lines(out: Document) -> Iterator[str]:
    if out["refusal"]:
        yield f"out      holds {out['holds']}, which `label` would refuse: {out['refusal']}"
    elif "shards_done" in out:
        left = f"{out['shards_left']} shards, {out['images_left']} images are left"
        yield (
            f"out      holds this run: {out['shards_done']} shards, {out['images_done']} images would be skipped; "
            f"{left if out['shards_left'] else 'nothing is left to do'}"
        )
    elif out["holds"] == "a run":
        yield f"out      holds a run, which --overwrite removes: {out['shards_removed']} committed shards"
    else:
        yield "out      holds no run: a new one would begin"


def _pilot_lines(document: Document) -> Iterator[str]:
    pilot, headers = document["pilot"], document["headers"]
    if document["forecasts"]:
        yield from _speed_lines(document)
    else:
        yield (
            f"pilot    {pilot['images']} images on {pilot['host']}, and none can be used: how long bad pictures take "
            "foretells nothing, so there is no forecast"
        )
    for title, looked in (("labelled", pilot), ("headers", headers)):
        counts = ", ".join(f"{count} {status}" for status, count in looked["statuses"].items())
        formats = ", ".join(f"{count} {form}" for form, count in looked.get("formats", {}).items())
        if counts:
            yield f"{title:8} {counts}" + (f"; {formats}" if formats else "")
        for bad in looked["bad"][:NUM_BAD]:
            yield f"         {bad['status']}: {shown(bad['image_id'])} ({shortened(bad['error'], 150)})"


def _speed_lines(document: Document) -> Iterator[str]:
    pilot, start, settled = (document[name] for name in ("pilot", "start", "settled"))
    rate = range_text(pilot["images_per_second"])
    at_once = pilot["at_once"]
    crowd = f"; with {at_once['replicas']} at once each takes {at_once['slower']:.2f} times as long"
    if at_once["slower_measured"] > at_once["slower"]:
        crowd += f" at most ({at_once['slower_measured']:.1f} were measured, beside other work on that machine)"
    yield (
        f"pilot    {pilot['images']} images on {pilot['host']}, one replica alone: {rate} images/s"
        + crowd * (at_once["replicas"] > 1)
    )
    if settled["device"] == "cpu" and pilot["stages"]["load"] < WAITS:
        for who, share in (("it", pilot["core_share"]), ("among others it", at_once["core_share"])):
            if share < BUSY:
                yield f"         {who} had {share:.0%} of a core: its machine is busy; an idle one would be faster"
                break
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in pilot["stages"].items())
    within = ", ".join(f"{stage} {share:.0%}" for stage, share in pilot["within_load"].items())
    yield f"stages   {shares}" + (f"; of load: {within}" if within else "")
    yield (
        f"start    {start['driver_s']:.0f} s until replicas are asked for, {start['replica_s']:.0f} s until they are "
        f"ready, {start['first_s'] + start['close_s']:.0f} s more for the first batch and at the end"
        + (f"; once on each machine {start['compiled_s']:.0f} s to compile" if start["compiled_s"] else "")
    )


def _cost_lines(document: Document) -> Iterator[str]:
    memory, written = document["memory_mib"], document["bytes_written"]
    gpu = "" if memory["gpu"] is None else f", {memory['gpu']:.0f} MiB of its GPU"
    yield f"memory   a replica {memory['replica']:.0f} MiB{gpu}, the driver {memory['driver']:.0f} MiB"
    if not document["forecasts"]:
        return
    low, high = size_text(written["low"]), size_text(written["high"])
    yield f"writes   {size_text(written['value'])} ({low}-{high})"
    unit = "gpu_hours" if "gpu_hours" in document["forecasts"][0] else "core_hours"
    has_price = document["price_per_hour"] is not None
    yield f"{'replicas':>8}  {'takes':28} {'images/s':24} {unit.replace('_', '-'):28} " + "cost" * has_price
    for one in document["forecasts"]:
        seconds = one["seconds"]
        takes = f"{time_text(seconds['value'])} ({time_text(seconds['low'])}-{time_text(seconds['high'])})"
        rate, hours = range_text(one["images_per_second"]), range_text(one[unit])
        cost = range_text(one["cost"]) if has_price else ""
        yield f"{one['replicas']:8}  {takes:28} {rate:24} {hours:28} {cost}".rstrip()


def range_text(interval: dict[str, Any]) -> str:
    """Return a figure with where it may lie, to three digits."""
    value, low, high = (number_text(interval[name]) for name in ("value", "low", "high"))
    return f"{value} ({low}-{high})"


def number_text(value: float) -> str:
    """Return a number to three digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def size_text(num_bytes: float) -> str:
    """Return bytes in a unit that suits them."""
    for factor, unit in UNITS:
        if num_bytes >= factor:
            return f"{number_text(num_bytes / factor)} {unit}"
    return f"{num_bytes:.0f} bytes"


def time_text(seconds: float) -> str:
    """Return a time as its two largest units."""
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
