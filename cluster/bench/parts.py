"""One replica's parts, measured alone: its stages, its forward pass, its decoding.

Rates are images per second; stages are milliseconds per image in one thread.
"""

import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pyarrow.compute as pc

from cam_ops.errors import BadImage, NoPictures
from cluster.label.rows import ShardRows
from cluster.runs.directory import open_run_dir
from cluster.runs.names import TABLES
from cluster.runs.plan import read_shard
from cluster.runs.record import existing_run
from cluster.sources.reading import decode_for_input, read_image

IN_BATCHES = 64  # of the shard's pictures


class Parts:
    """One replica's parts, alone, for a run in place; lives in a process of its own (`cluster.process.apart`)."""

    def __init__(self, out: str, model: Any) -> None:
        from cluster.label.replica import open_replica

        run_dir = open_run_dir(out)
        run = existing_run(run_dir)
        self.replica = open_replica(run_dir, model, run.request.fingerprint())
        shard = read_shard(self.replica.run_dir, 0)
        self.all_rows, self.all_encoded = self._good(shard.to_pylist())
        self.rows, self.encoded = self.all_rows[:IN_BATCHES], self.all_encoded[:IN_BATCHES]
        self.planned = shard.filter(pc.field("row").isin([row["row"] for row in self.rows]))
        self.batches = [(pixels.clone(), pictures) for pixels, pictures in self.replica.loader.open(self.planned)]

    def _good(self, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[bytes]]:
        """Return the rows whose pictures can be decoded, as some of any folder cannot, and their files' bytes."""
        from cluster.label.decoding import decode_and_fit

        good: list[tuple[dict[str, Any], bytes]] = []
        for row in rows:
            with suppress(BadImage):
                encoded = read_image(row["uri"], row["offset"], row["size"])
                decode_and_fit(row, encoded, self.replica.loader.input)
                good.append((row, encoded))
        if not good:
            raise NoPictures(f"none of the {len(rows)} first pictures can be decoded; check --images")
        return [row for row, _ in good], [encoded for _, encoded in good]

    def forward(self, seconds: float) -> float:
        """Return the rate of the bare forward pass, with a refined map an image, of pixels in memory."""
        import torch

        from cam_ops.explain.forward import results_of

        view = self.replica.mapper.views[0]
        inputs = [pixels_BYX3.to(self.replica.device).permute(0, 3, 1, 2) for pixels_BYX3, _ in self.batches]
        class_P = torch.zeros(len(inputs[0]), dtype=torch.int64, device=self.replica.device)

        def run(number: int) -> None:
            pixels_BCYX = view.of(inputs[number % len(inputs)])
            with torch.no_grad():
                results_of(view.engine, view.explainer, pixels_BCYX, class_P)[-1].sum().item()

        return len(inputs[0]) * _rate(run, seconds)

    def decode(self, seconds: float) -> float:
        """Return the rate of bare decoding and resizing, of files in memory."""
        from cluster.label.decoding import decode_and_fit

        loader = self.replica.loader

        def run(number: int) -> None:
            place = number % len(self.all_rows)
            decode_and_fit(self.all_rows[place], self.all_encoded[place], loader.input)

        return _rate(run, seconds)

    def stages(self) -> dict[str, float]:
        """Return the milliseconds per image of each stage, once over the pictures held."""
        from cam_ops.pictures.fit import fit

        replica, loader, count = self.replica, self.replica.loader, len(self.rows)
        spent: dict[str, float] = {}

        def timed(stage: str, work: Callable[[], Any]) -> Any:
            start_s = time.perf_counter()
            done = work()
            spent[stage] = spent.get(stage, 0) + (time.perf_counter() - start_s) / count * 1e3
            return done

        timed("fetch", lambda: [read_image(row["uri"], row["offset"], row["size"]) for row in self.rows])
        pairs = list(zip(self.rows, self.encoded, strict=True))
        decoded = timed("decode", lambda: [decode_for_input(row, encoded, loader.input) for row, encoded in pairs])
        timed("resize", lambda: [fit(picture, loader.input) for picture in decoded])
        rows = ShardRows(replica.run, self.planned)
        for pixels_BYX3, pictures in self.batches:
            maps = timed("forward and map", partial(replica.explain, pixels_BYX3, pictures))
            rows.add(pictures, maps)
        boxes = timed("boxes", rows.box)
        tables = timed("tables", partial(rows.tables, boxes))
        for table in TABLES:
            timed("publish", partial(replica.run_dir.publish, f"{table}/bench.parquet", tables[table]))
            replica.run_dir.remove(f"{table}/bench.parquet")
        return spent


def _rate(run: Callable[[int], None], seconds: float) -> float:
    """Return calls per second, after one that does not count."""
    run(0)
    start_s = time.perf_counter()
    for number in itertools.count(1):
        run(number)
        if (spent_s := time.perf_counter() - start_s) >= seconds:
            return number / spent_s
    raise AssertionError
