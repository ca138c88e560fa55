"""Manifests to measure with: of a folder's pictures again and again, or of pictures that do not exist."""

import itertools
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cam_ops.classes import numbered_classes
from cluster.process.memory import peak_mib
from cluster.runs.directory import open_run_dir
from cluster.runs.plan import Plan, write_plan
from cluster.sources.kinds import open_listing, source_address
from cluster.sources.labels.find import find_labels, label_images
from cluster.sources.labels.words import LabelChoice
from cluster.sources.listing import Listing


def write_manifest(folder: str, num_images: int, path: Path) -> None:
    """List the pictures of a folder again and again, each time by other ids, until there are enough."""
    with open_listing(source_address(folder)) as listing:
        uris = [uri for batch in listing.batches() for uri in batch["uri"].to_pylist()]
    rows = list(itertools.islice(itertools.cycle(uris), num_images))
    ids = [f"{number:08d}" for number in range(num_images)]
    pq.write_table(pa.table({"uri": rows, "image_id": ids}), path)


def write_large_manifest(num_rows: int, path: Path) -> None:
    """Write a manifest of pictures that do not exist, in no order, with labels 0..999."""
    schema = pa.schema([("uri", pa.string()), ("label", pa.int64())])
    step = 7_368_787  # prime to any round number: each row once, shuffled
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_rows, 1_000_000):
            numbers = [i * step % num_rows for i in range(start, min(start + 1_000_000, num_rows))]
            uris = [f"/data/imagenet/train/n{n % 1000:08d}/n{n % 1000:08d}_{n:010d}.JPEG" for n in numbers]
            writer.write_table(pa.table({"uri": uris, "label": [n % 1000 for n in numbers]}, schema=schema))


class Planner:
    """Plans a manifest, without torch, in a process of its own."""

    def plan(self, manifest: str, out: str, num_classes: int) -> tuple[Plan, float, float]:
        """Return the plan, the seconds it took, and this process's largest resident size in MiB."""
        start_s = time.perf_counter()

        def planned(listing: Listing) -> Plan:
            choice = LabelChoice(spec="manifest", images=manifest)
            labels = find_labels(listing, choice, numbered_classes(num_classes))
            return write_plan(open_run_dir(out), label_images(listing, labels), 512)

        with open_listing(manifest) as listing:
            plan = planned(listing)
        return plan, time.perf_counter() - start_s, peak_mib()
