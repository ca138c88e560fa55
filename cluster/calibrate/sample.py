"""The sample of a run that a calibration is fitted to: images with truth, and the maps of their true classes."""

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cam_ops.arrays import F32
from cam_ops.fitting.recipes import LabelledMaps
from cam_ops.tables import CORNERS
from cluster.runs.directory import RunDir
from cluster.runs.plan import read_shard
from cluster.runs.reading import damaged, maps_problems, raw_maps, read_table
from cluster.runs.record import Run, maps_of
from cluster.storage.files import Files
from cluster.truth.prepare import read_truth_shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An image of the sample, before its map is read."""

    image_id: str
    shard: int
    row: int
    class_id: int
    boxes: list[dict[str, Any]]


def hash_of(seed: int, image_id: str) -> float:
    """Return a number from 0 to 1, excluded, by which an image is chosen."""
    digest = hashlib.blake2b(f"{seed} choose {image_id}".encode(errors="surrogatepass"), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48


def choose(
    run_dir: RunDir, run: Run, truth_files: Files, max_images: int, seed: int, excluded: Counter[str]
) -> list[Chosen]:
    """Return the images of lowest hash of those that have truth, at most `max_images`, in order of their hash."""
    held: list[tuple[float, int, Chosen]] = []  # a heap: the highest hash is the first
    committed = run_dir.shards("images")
    for shard in range(run.plan.num_shards):
        if shard not in committed:
            excluded["not computed yet"] += len(read_shard(run_dir, shard))
            continue
        for number, image in enumerate(_with_truth(run_dir, truth_files, shard, excluded)):
            entry = (-hash_of(seed, image.image_id), -shard * 2**24 - number, image)
            if len(held) < max_images:
                heapq.heappush(held, entry)
            else:
                heapq.heappushpop(held, entry)
                excluded["beyond --max-images"] += 1
    return [image for _, _, image in sorted(held, key=lambda entry: (-entry[0], entry[2].image_id))]


def _with_truth(run_dir: RunDir, truth_files: Files, shard: int, excluded: Counter[str]) -> Iterator[Chosen]:
    """Yield the images of a shard whose class and objects are known."""
    truth = (
        read_truth_shard(truth_files, shard)
        .select(["row", "truth_id", "true_class", "boxes", "num_missing"])
        .to_pylist()
    )
    ids = read_shard(run_dir, shard)["image_id"].to_pylist()
    for image_id, row in zip(ids, truth, strict=True):
        boxes = [box for box in row["boxes"] or () if not box["crowd"]]
        own = [box for box in boxes if box["class_id"] == row["true_class"]]
        if row["truth_id"] is None:
            excluded["not in the truth"] += 1
        elif row["num_missing"]:
            excluded["truth incomplete"] += 1
        elif row["true_class"] is None:
            excluded["true class unknown"] += 1
        elif not boxes:
            excluded["no box in the truth"] += 1
        else:
            yield Chosen(image_id=image_id, shard=shard, row=row["row"], class_id=row["true_class"], boxes=own or boxes)


def read_maps(
    run_dir: RunDir, run: Run, chosen: list[Chosen], excluded: Counter[str]
) -> tuple[list[Chosen], LabelledMaps]:
    """Return the chosen images that have a map of their true class, and those maps; in the order given."""
    maps_dir, maps_run = maps_of(run_dir, run)
    by_shard: dict[int, list[int]] = defaultdict(list)
    for place, image in enumerate(chosen):
        by_shard[image.shard].append(place)
    found: dict[int, tuple[F32, list[float], list[int], float]] = {}
    for shard, places in sorted(by_shard.items()):
        images, heatmaps = (read_table(maps_dir, maps_run, table, shard) for table in ("images", "heatmaps"))
        if problems := maps_problems(maps_run, read_shard(run_dir, shard), images, heatmaps):
            raise damaged(maps_dir, maps_run, shard, problems[0])
        at = {key: number for number, key in enumerate(_keys(heatmaps))}
        raw_Nhw = raw_maps(heatmaps)
        for place in places:
            image = chosen[place]
            number = at.get((image.row, image.class_id))
            if number is None:
                is_ok = images["status"][image.row].as_py() == "ok"
                excluded["no map of the true class" if is_ok else "the picture is not ok"] += 1
                continue
            rectangle = [heatmaps[name][number].as_py() for name in CORNERS]
            size = [images[name][image.row].as_py() for name in ("width", "height")]
            found[place] = raw_Nhw[number].copy(), rectangle, size, heatmaps["score"][number].as_py()
    kept = [chosen[place] for place in sorted(found)]
    rows = [found[place] for place in sorted(found)]
    truth_P = np.empty(len(kept), np.object_)
    for place, image in enumerate(kept):
        truth_P[place] = np.array([[box[name] for name in CORNERS] for box in image.boxes], np.float64)
    return kept, LabelledMaps(
        raw_Phw=np.array([raw_hw for raw_hw, *_ in rows], np.float32).reshape(-1, *run.grid),
        rectangle_P4=np.array([rectangle for _, rectangle, _, _ in rows], np.float32).reshape(-1, 4),
        size_P2=np.array([size for _, _, size, _ in rows], np.int64).reshape(-1, 2),
        class_P=np.array([image.class_id for image in kept], np.int32),
        score_P=np.array([score for *_, score in rows], np.float32),
        truth_P=truth_P,
    )


def _keys(heatmaps: pa.Table) -> Iterator[tuple[int, int]]:
    """Yield the (row, class) of each map."""
    return zip(heatmaps["row"].to_pylist(), heatmaps["class_id"].to_pylist(), strict=True)
