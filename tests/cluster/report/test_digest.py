"""What a run comes to in a report, against SQL on its tables."""

from pathlib import Path

import duckdb
import numpy as np
import pytest

from cluster.audit.shard import ShardTables
from cluster.report.digest import EDGES, STEPS, Digest, digest_shard, no_digest
from cluster.report.galleries import PICK, Found, best_of, share_out
from cluster.runs.directory import RunDir
from cluster.runs.reading import read_whole
from tests.support.exported_runs import ExportedRun

MOST = 1000


def digest_of(run: ExportedRun, shards: list[int], most: int = MOST) -> Digest:
    run_dir = RunDir(str(run.root))
    digest = no_digest(run.record, most)
    for shard in shards:
        tables = ShardTables(**read_whole(run_dir, run.record, run_dir, run.record, shard))
        digest += digest_shard(run.record, tables, most)
    return digest


def all_shards(run: ExportedRun) -> list[int]:
    return [*range(run.record.plan.num_shards)]


def rows(run: ExportedRun, query: str) -> list[tuple]:
    """Ask the run's tables, which are views `images`, `boxes`, `heatmaps`."""
    with duckdb.connect() as database:
        for table in ("images", "boxes", "heatmaps"):
            database.execute(f"CREATE VIEW {table} AS FROM '{run.root}/{table}/*.parquet'")
        return database.sql(query).fetchall()


def same(a: Digest, b: Digest) -> bool:
    return all(
        [
            *(np.array_equal(a.histograms[name], b.histograms[name]) for name in a.histograms),
            *(np.array_equal(a.by_class[name], b.by_class[name]) for name in a.by_class),
            *(np.array_equal(getattr(a.sums, name), getattr(b.sums, name)) for name in ("maps_Chw", "density_CGG")),
            *(np.array_equal(a.found[key].picks, b.found[key].picks) for key in a.found),
        ]
    )


def test_the_order_of_shards_and_how_they_are_grouped_change_nothing(hostile: ExportedRun) -> None:
    shards = all_shards(hostile)
    assert len(shards) > 3
    in_order = digest_of(hostile, shards, 5)
    assert same(in_order, digest_of(hostile, shards[::-1], 5))
    assert same(in_order, digest_of(hostile, shards[:2], 5) + digest_of(hostile, shards[2:], 5))
    assert not same(in_order, digest_of(hostile, shards[1:], 5))


def test_distributions_are_those_of_the_tables(hostile: ExportedRun) -> None:
    digest = digest_of(hostile, all_shards(hostile))
    values = {
        "boxes_per_image": "SELECT num_boxes FROM images WHERE num_maps > 0",
        "area": "SELECT area_fraction FROM boxes",
        "aspect": "SELECT log2((x1 - x0) / (y1 - y0)) FROM boxes",
        "score": "SELECT score FROM heatmaps",
        "energy": "SELECT energy FROM boxes",
        "peak": "SELECT peak FROM boxes",
    }
    for name, query in values.items():
        found = np.array(rows(hostile, query), np.float64).ravel()
        assert len(found) > 10
        expected, _ = np.histogram(found, EDGES[name])
        assert digest.histograms[name].tolist() == expected.tolist(), name
    assert digest.histograms["probability"].sum() == 0


def test_probabilities_are_counted_where_there_are_any(calibrated: ExportedRun, hostile: ExportedRun) -> None:
    run_dir, maps_dir = RunDir(str(calibrated.root)), RunDir(str(hostile.root))
    tables = ShardTables(**read_whole(run_dir, calibrated.record, maps_dir, hostile.record, 0))
    digest = digest_shard(calibrated.record, tables, MOST)
    expected, _ = np.histogram(tables.boxes["probability"].to_numpy(), EDGES["probability"])
    assert digest.histograms["probability"].tolist() == expected.tolist()
    assert expected.sum() == len(tables.boxes)


@pytest.mark.parametrize("name", ["hostile", "labelled"])
def test_sums_by_class_are_those_of_the_tables(name: str, request: pytest.FixtureRequest) -> None:
    run: ExportedRun = request.getfixturevalue(name)
    by_class = digest_of(run, all_shards(run)).by_class
    queries = {
        "labelled": "SELECT label, count(*) FROM images WHERE label IS NOT NULL GROUP BY 1",
        "agreed": "SELECT label, count(*) FROM images WHERE label = top_classes[1] GROUP BY 1",
        "predicted": "SELECT top_classes[1], count(*) FROM images WHERE len(top_classes) > 0 GROUP BY 1",
        "maps": "SELECT class_id, count(*) FROM heatmaps GROUP BY 1",
        "boxes": "SELECT class_id, count(*) FROM boxes GROUP BY 1",
        "empty": "SELECT class_id, count(*) FROM heatmaps ANTI JOIN boxes USING (image_id, class_id) GROUP BY 1",
    }
    for column, query in queries.items():
        expected = np.zeros(len(run.record.class_names), np.int64)
        for class_id, count in rows(run, query):
            expected[class_id] = count
        assert by_class[column].tolist() == expected.tolist(), column
    for class_id, score in rows(run, "SELECT class_id, avg(score) FROM heatmaps GROUP BY 1"):
        assert by_class["score_steps"][class_id] / STEPS / by_class["maps"][class_id] == pytest.approx(score, abs=1e-6)
    for class_id, area in rows(run, "SELECT class_id, avg(area_fraction) FROM boxes GROUP BY 1"):
        assert by_class["area_steps"][class_id] / STEPS / by_class["boxes"][class_id] == pytest.approx(area, abs=1e-6)
    if name == "labelled":
        assert by_class["labelled"].sum() == 12


def test_galleries_hold_the_images_that_they_name(hostile: ExportedRun) -> None:
    found = digest_of(hostile, all_shards(hostile)).found
    first = "(SELECT image_id, arg_min(class_id, rowid) AS class_id FROM (SELECT *, row_number() OVER () AS rowid "
    first += "FROM heatmaps) GROUP BY 1)"
    best = (
        f"{first} f LEFT JOIN (FROM boxes WHERE rank = 0) b USING (image_id, class_id) JOIN images i USING (image_id)"
    )
    belong = {
        "random": f"SELECT i.shard, i.row FROM {best}",
        "whole": f"SELECT i.shard, i.row FROM {best} WHERE area_fraction >= 0.95",
        "empty": f"SELECT i.shard, i.row FROM {best} WHERE b.image_id IS NULL",
        "unlike": "SELECT shard, row FROM images WHERE label IS NOT NULL AND label <> top_classes[1]",
    }
    for key, query in belong.items():
        expected = sorted(rows(hostile, query))
        assert (
            sorted(zip(found[key].picks["shard"].tolist(), found[key].picks["row"].tolist(), strict=True)) == expected
        )
        assert found[key].total == len(expected)
    assert found["empty"].total > 0
    score = f"SELECT i.shard, i.row FROM {first} f JOIN heatmaps h USING (image_id, class_id) "
    score += "JOIN images i USING (image_id)"
    surest, least = (rows(hostile, f"{score} ORDER BY h.score {order} LIMIT 1") for order in ("DESC", "ASC"))
    for key, expected in (("surest", surest), ("least-sure", least)):
        assert (found[key].picks["shard"][0], found[key].picks["row"][0]) == expected[0]


def test_the_attention_gallery_is_the_audits_ranking(hostile: ExportedRun, tmp_path: Path) -> None:
    import shutil

    from tests.support.command import Command

    root = tmp_path / "run"
    shutil.copytree(hostile.root, root, ignore=shutil.ignore_patterns("audit*"))
    assert Command("audit", root, "--executor", "inline").code == 0
    with duckdb.connect() as database:
        per_image = f"FROM '{root}/audit/per_image.parquet'"
        ranked = database.sql(f"SELECT attention {per_image} WHERE attention IS NOT NULL ORDER BY 1 DESC").fetchall()
        several = database.sql(f"SELECT shard, row {per_image} WHERE num_components > 1").fetchall()
    found = digest_of(hostile, all_shards(hostile)).found
    assert found["attention"].picks["rank"].tolist() == pytest.approx([value for (value,) in ranked], abs=1e-6)
    picks = found["several"].picks
    assert sorted(zip(picks["shard"].tolist(), picks["row"].tolist(), strict=True)) == sorted(several)


def test_a_random_gallery_is_drawn_from_all_shards(hostile: ExportedRun) -> None:
    picks = digest_of(hostile, all_shards(hostile), 6).found["random"].picks
    assert len(picks) == 6
    assert len({*picks["shard"].tolist()}) > 1


def picks_of(*places: tuple[int, int]) -> np.ndarray:
    return np.array([(0.0, 0, shard, row) for shard, row in places], PICK)


def test_images_are_shared_out_in_turn_and_one_that_is_shown_costs_nothing() -> None:
    first = picks_of((0, 0), (0, 1), (0, 2), (0, 3))
    second = picks_of((0, 2), (0, 0), (9, 9))
    assert share_out([first, second], 3) == [[0, 1, 2], [0, 1]]
    assert share_out([first, second], 100) == [[0, 1, 2, 3], [0, 1, 2]]
    assert share_out([picks_of(), second], 1) == [[], [0]]
    assert share_out([], 5) == []


def test_of_equal_rank_the_hash_decides_and_of_joined_picks_the_best_stay() -> None:
    picks = np.array([(1.0, 7, 0, 0), (2.0, 9, 0, 1), (1.0, 3, 1, 0)], PICK)
    assert best_of(picks, 2)["row"].tolist() == [1, 0]
    assert best_of(picks, 2)["shard"].tolist() == [0, 1]
    joined = Found(total=3, picks=best_of(picks, 1), most=1) + Found(total=4, picks=picks[2:], most=1)
    assert (joined.total, joined.picks.tolist()) == (7, [(2.0, 9, 0, 1)])
