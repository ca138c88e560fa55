"""Which images of a run to look at: named ones, some drawn at random, some with a map of a class, the worst.

A place is an image's shard and row. What is drawn depends on the run, the number and the seed alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cam_ops.errors import StorageError, UsageError
from cluster.audit.files import read_per_image
from cluster.audit.named import find_audit
from cluster.process.console import shown
from cluster.runs.directory import RunDir
from cluster.runs.plan import find_images
from cluster.runs.reading import read_table
from cluster.runs.record import Run, again, maps_of

Place = tuple[int, int]

RANKED = ["shard", "row", "iou", "iou_best_threshold", "true_class"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Some images of a run."""

    places: list[Place]
    what: str  # they are, for people: "20 of its 500 images, drawn with seed 0"


def named(run_dir: RunDir, run: Run, image_ids: Sequence[str]) -> list[Place]:
    """Return the places of images by their ids, in their order; raises UsageError where one was not planned."""
    places = find_images(run_dir, run.plan, {*image_ids})
    strangers = [image_id for image_id in image_ids if image_id not in places]
    if strangers:
        more = f" and {len(strangers) - 1} more are no images" if len(strangers) > 1 else " is no image"
        raise UsageError(
            f"{shown(strangers[0])}{more} of {run_dir.root}; ids are paths below {' '.join(run.request.addresses)}"
        )
    return [places[image_id] for image_id in image_ids]


def at_random(run_dir: RunDir, run: Run, number: int, seed: int) -> Chosen:
    """Draw so many of the images that are done, by their places in the plan: no table is read."""
    shards = done_shards(run_dir, run)
    size, num_shards = run.plan.shard_size, run.plan.num_shards
    is_last_done = shards[-1] == num_shards - 1
    total = len(shards) * size - (num_shards * size - run.plan.num_images if is_last_done else 0)
    drawn = islice(_drawn(total, seed), min(number, total))
    places = sorted((shards[at // size], at % size) for at in drawn)
    of = f"of its {total} images" if total == run.plan.num_images else f"of the {total} images that are done"
    return Chosen(places=places, what=f"{len(places)} {of}, drawn with seed {seed}")


def of_class(run_dir: RunDir, run: Run, class_id: int, number: int, seed: int) -> Chosen:
    """Draw so many of the images that have a map of a class; raises UsageError where none has.

    Shards are read in a drawn order, one at a time, until there are enough.
    """
    name = shown(run.class_names[class_id])
    maps_dir, maps_run = maps_of(run_dir, run)
    places: list[Place] = []
    for shard in sorted(done_shards(run_dir, run), key=lambda shard: _hash(f"{seed} shard {shard}")):
        heatmaps = read_table(maps_dir, maps_run, "heatmaps", shard)
        rows = heatmaps.filter(pc.equal(heatmaps["class_id"], class_id))["row"].to_pylist()
        places += [(shard, row) for row in sorted(rows, key=lambda row: _hash(f"{seed} row {shard} {row}"))]
        if len(places) >= number:
            what = f"{number} of the images with a map of {name}, drawn with seed {seed}"
            return Chosen(places=sorted(places[:number]), what=what)
    if not places:
        raise UsageError(
            f"no image of {run_dir.root} has a map of {name}: it was labelled with --classes {run.request.classes}"
        )
    return Chosen(places=sorted(places), what=f"all that have a map of {name}: {len(places)}")


def worst(run_dir: RunDir, run: Run, number: int, class_id: int | None = None, name: str | None = None) -> Chosen:
    """Return the images whose best box has the lowest IoU by the run's audit of that name, lowest first.

    Those of a true class, if one is given. Of equal ones those come first whose map has the lower IoU at its own best
    threshold. Raises UsageError where no audit says it.
    """
    files, metrics = find_audit(run_dir, run, name)
    audit = f"run `python -m jobs audit {run_dir.root} --truth TRUTH` first"
    if metrics is None:
        raise UsageError(f"the worst images are those of an audit, and {run_dir.root} has none; {audit}")
    if not metrics.metrics:
        raise UsageError(f"the worst images are those of an audit with truth, that of {run_dir.root} has none; {audit}")
    best, num_ranked = pa.table({}), 0
    for rows in read_per_image(files, RANKED):
        ranked = rows.filter(pc.is_valid(rows["iou"]))
        ranked = ranked if class_id is None else ranked.filter(pc.equal(ranked["true_class"], class_id))
        num_ranked += len(ranked)
        best = pa.concat_tables([best, ranked], promote_options="default")
        keys_KN = [best[name].fill_null(0).to_numpy() for name in ("row", "shard", "iou_best_threshold", "iou")]
        best = best.take(np.lexsort(keys_KN)[:number])
    of_class = "" if class_id is None else f" of {shown(run.class_names[class_id])}"
    if not num_ranked:
        raise UsageError(f"the audit of {run_dir.root} holds no boxes{of_class} against true ones; {audit}")
    places = list(zip(best["shard"].to_pylist(), best["row"].to_pylist(), strict=True))
    low, high = best["iou"][0].as_py(), best["iou"][len(best) - 1].as_py()
    what = f"the {len(places)} of lowest IoU of the {num_ranked} audited images{of_class}: {low:.2f} to {high:.2f}"
    return Chosen(places=places, what=what)


def done_shards(run_dir: RunDir, run: Run) -> list[int]:
    """Return the shards that are done, rising; raises StorageError where none is."""
    shards = sorted(shard for shard in run_dir.shards("images") if shard < run.plan.num_shards)
    if not shards:
        raise StorageError(f"no shard of {run_dir.root} is done; run {again(run_dir, run)}")
    return shards


def _drawn(total: int, seed: int) -> Iterator[int]:
    """Yield all numbers below `total`, each once, in an order that the seed alone decides."""
    drawn: set[int] = set()
    for i in count():
        if len(drawn) == total:
            return
        number = _hash(f"{seed} image {i}") % total
        if number not in drawn:
            drawn.add(number)
            yield number


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest())
