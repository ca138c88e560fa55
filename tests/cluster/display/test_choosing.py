"""Which images are chosen, held to the run's tables; and what of a large run need not be read for it."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cam_ops.errors import StorageError, UsageError
from cluster.display.choosing import Chosen, Place, at_random, named, of_class, worst
from cluster.runs.directory import RunDir
from cluster.runs.record import Run, existing_run
from tests.support.command import Command, table_rows
from tests.support.first_run import KEPT

BY_LABEL = {"round": 417, "square": 549}


def opened(root: Path) -> tuple[RunDir, Run]:
    run_dir = RunDir(str(root))
    return run_dir, existing_run(run_dir)


def places_of(root: Path) -> dict[Place, str]:
    return {(row["shard"], row["row"]): row["image_id"] for row in table_rows(root, "images")}


def test_images_are_drawn_from_the_plan_the_same_ones_each_time_and_no_table_is_read(audited_copy: Path) -> None:
    places = places_of(audited_copy)
    for table in ("boxes", "heatmaps", "images"):
        for path in (audited_copy / table).iterdir():
            path.write_bytes(b"")
    run_dir, run = opened(audited_copy)
    drawn = at_random(run_dir, run, 6, seed=0)
    assert (len({*drawn.places}), {*drawn.places} <= places.keys()) == (6, True)
    assert drawn == at_random(run_dir, run, 6, seed=0) == Chosen(places=drawn.places, what=drawn.what)
    assert drawn.what == "6 of its 20 images, drawn with seed 0"
    assert {*drawn.places} < {*at_random(run_dir, run, 7, seed=0).places}  # a larger sheet has those of the smaller
    assert at_random(run_dir, run, 100, seed=5).places == sorted(places)


def test_each_image_is_drawn_as_often_as_another(audited: Path) -> None:
    run_dir, run = opened(audited)
    counts = Counter(place for seed in range(400) for place in at_random(run_dir, run, 5, seed).places)
    assert len(counts) == 20
    chi_square = sum((count - 100) ** 2 / (100 * 0.75) for count in counts.values())  # a draw of 5 of 20
    assert chi_square < 43.8  # one of a thousand is larger, with 19 degrees of freedom


def test_of_a_run_that_is_not_done_only_what_is_done_is_drawn(audited_copy: Path) -> None:
    for shard in (1, 4):
        (audited_copy / "images" / f"shard-000000{shard}.parquet").unlink()
    run_dir, run = opened(audited_copy)
    drawn = at_random(run_dir, run, 20, seed=0)
    assert drawn.places == [(shard, row) for shard in (0, 2, 3) for row in range(4)]
    assert drawn.what == "12 of the 12 images that are done, drawn with seed 0"
    assert {shard for shard, _ in of_class(run_dir, run, 417, 20, seed=0).places} == {0, 2}
    for path in (audited_copy / "images").iterdir():
        path.unlink()
    with pytest.raises(StorageError, match="no shard of"):
        at_random(run_dir, run, 1, seed=0)


def test_images_of_a_class_are_those_with_a_map_of_it(audited: Path) -> None:
    run_dir, run = opened(audited)
    mapped = {(row["shard"], row["row"]) for row in table_rows(audited, "heatmaps") if row["class_id"] == 549}
    found = of_class(run_dir, run, 549, 100, seed=0)
    assert found.places == sorted(mapped)
    assert found.what.startswith("all that have a map of ")
    few = {seed: of_class(run_dir, run, 549, 4, seed).places for seed in range(20)}
    assert all(len({*places}) == 4 and {*places} <= mapped for places in few.values())
    assert {place for places in few.values() for place in places} == mapped
    assert few[0] == of_class(run_dir, run, 549, 4, seed=0).places
    missing = next(c for c in range(1000) if c not in {row["class_id"] for row in table_rows(audited, "heatmaps")})
    with pytest.raises(UsageError, match="has a map of"):
        of_class(run_dir, run, missing, 4, seed=0)


def test_no_more_shards_are_read_than_it_takes_to_find_enough_of_a_class(audited_copy: Path) -> None:
    run_dir, run = opened(audited_copy)
    ((shard, row),) = of_class(run_dir, run, 417, 1, seed=3).places
    for path in (audited_copy / "heatmaps").iterdir():
        if path.name != f"shard-{shard:07d}.parquet":
            path.write_bytes(b"")
    found = [of_class(run_dir, run, 417, 1, seed) for seed in (3,)]
    assert found[0].places == [(shard, row)]
    with pytest.raises(StorageError, match="is damaged"):
        of_class(run_dir, run, 417, 20, seed=3)


def test_the_worst_are_those_of_lowest_iou(audited: Path) -> None:
    run_dir, run = opened(audited)
    rows = pq.read_table(audited / "audit" / "per_image.parquet").to_pylist()
    judged = [row for row in rows if row["iou"] is not None]
    assert len(judged) == 19
    ranked = sorted(judged, key=lambda row: (row["iou"], row["iou_best_threshold"], row["shard"], row["row"]))
    found = worst(run_dir, run, 7)
    assert found.places == [(row["shard"], row["row"]) for row in ranked[:7]]
    assert found.what == (
        f"the 7 of lowest IoU of the 19 audited images: {ranked[0]['iou']:.2f} to {ranked[6]['iou']:.2f}"
    )
    of_squares = [row for row in ranked if row["image_id"].startswith("square")]
    assert worst(run_dir, run, 100, 549).places == [(row["shard"], row["row"]) for row in of_squares]
    with pytest.raises(UsageError, match="holds no boxes of"):
        worst(run_dir, run, 5, 0)


def test_without_an_audit_against_truth_the_worst_are_not_known(audited_copy: Path) -> None:
    run_dir, run = opened(audited_copy)
    (audited_copy / "audit" / "metrics.json").unlink()
    with pytest.raises(UsageError, match=f"has none; run `python -m jobs audit {audited_copy} --truth TRUTH` first"):
        worst(run_dir, run, 5)
    assert Command("audit", audited_copy, "--executor", "inline").code == 0
    with pytest.raises(UsageError, match="an audit with truth"):
        worst(run_dir, run, 5)
    lines = (KEPT / "truth.csv").read_text().splitlines()
    truth = audited_copy.parent / "truth.csv"
    truth.write_text("\n".join([lines[0], "square/00.jpg,30,20,96,37,549", "round/07.jpg,8,8,57,35,417"]))
    assert Command("audit", audited_copy, "--executor", "inline", "--truth", truth, "--overwrite").code == 0
    square = next(place for place, name in places_of(audited_copy).items() if name == "square/00.jpg")
    assert worst(run_dir, run, 5).places == [square]


def test_ids_are_found_in_their_order_and_the_first_unknown_one_is_named(audited: Path) -> None:
    run_dir, run = opened(audited)
    ids = ["square/18.jpg", "round/01.jpg", "square/18.jpg"]
    assert named(run_dir, run, ids) == [(4, 3), (0, 0), (4, 3)]
    with pytest.raises(UsageError, match=r"'a\.jpg' and 1 more are no images of"):
        named(run_dir, run, ["round/01.jpg", "a.jpg", "b.jpg"])
