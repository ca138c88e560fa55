"""`bench`: figures that can be worked out by hand, and one small measurement of each cheap section by the command."""

import json
import math
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cam_ops.settings import RefineChoice
from cluster.bench.config import BenchConfig
from cluster.bench.copies import Copies
from cluster.bench.figures import spread
from cluster.bench.host import rate_of
from cluster.bench.inputs import label_flags
from cluster.bench.manifests import write_large_manifest, write_manifest
from cluster.bench.runs import CommandFailed, _steady, run_command
from cluster.bench.speed import _peer_precision
from cluster.executors.work import ShardReport
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from tests.support.command import Command
from tests.support.exported_runs import ExportedRun


def test_the_steady_rate_leaves_out_where_not_all_replicas_work() -> None:
    commits = [(10.0, 8), (11.0, 8), (13.0, 8), (15.0, 8), (17.0, 8), (27.0, 3)]
    # two replicas: from the second commit, when both have one behind them, to the fifth, when only one is left to do
    assert _steady(commits, 2) == 24 / 6
    assert _steady(commits, 1) == 35 / 17
    assert math.isnan(_steady(commits[:3], 2))


def test_a_spread_is_median_lowest_and_highest() -> None:
    assert spread([3.0, 1.0, 222.0]) == "3 (1-222)"


class Slow:
    """A replica whose shards have so many images each, of which each costs a second of a thread, as it says."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.feeding_s = self.ending_s = 0.0

    def run_shard(self, shard: int, number: int) -> ShardReport:
        """Take a tenth of a second."""
        time.sleep(0.1)
        self.feeding_s += self.sizes[shard]
        return ShardReport(shard=shard, statuses={"ok": self.sizes[shard] - 1, "missing": 1})


def test_a_last_shard_of_few_images_counts_as_it_is() -> None:
    slow = Slow(8, 8, 8, 2)  # the first two do not count
    measured = rate_of(slow, range(4))  # type: ignore[arg-type]
    assert measured["feeding"] == 1000  # ms a picture
    assert 10 / 0.25 < measured["images/s"] <= 10 / 0.1


def test_copies_of_a_run_are_a_whole_run_with_as_many_maps_as_they_say(labelled: ExportedRun, tmp_path: Path) -> None:
    first = pq.read_table(labelled.root / "heatmaps" / "shard-0000000.parquet")
    copies = Copies(str(labelled.root), str(tmp_path / "copies"), len(first) + 1)
    assert copies.made() == (str(tmp_path / "copies"), 2 * len(first))
    assert sum(len(pq.read_table(path)) for path in (tmp_path / "copies" / "heatmaps").iterdir()) == 2 * len(first)
    _, rss_mib = run_command(["verify", str(tmp_path / "copies")])
    assert 100 < rss_mib < 1024  # numpy and pyarrow take more than 100 MiB, these tests several thousand
    with pytest.raises(CommandFailed, match=r"^`status`, which is measured, ended with exit code 5: "):
        run_command(["status", str(tmp_path / "nowhere")])


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_ray_data_has_the_number_format_of_the_run_beside_it(precision: str, pictures: Path, tmp_path: Path) -> None:
    network = ["--model", "jobs.bench_model:head_only", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 64]
    flags = ["--executor", "inline", "--compile", "never", "--refine", "none", "--precision", precision]
    assert Command("label", "--images", pictures, "--out", tmp_path / "run", *network, *flags).code == 0
    assert existing_run(RunDir(str(tmp_path / "run"))).request.precision == precision
    assert _peer_precision(tmp_path / "run") == precision


@pytest.mark.parametrize(("given", "refined"), [("auto", True), ("none", False)])
def test_what_is_measured_has_the_maps_that_are_asked_for(
    given: RefineChoice, refined: bool, pictures: Path, tmp_path: Path
) -> None:
    config = BenchConfig(images=str(pictures), num_images=2, refine=given)
    small = ["--compile", "never", "--image-size", 64, "--executor", "inline", "--out", tmp_path / "run"]
    assert Command("label", *label_flags(config, tmp_path, "resnet18"), *small).code == 0
    assert (existing_run(RunDir(str(tmp_path / "run"))).request.refinement is not None) == refined


def test_manifests_for_measuring_name_each_row_once(pictures: Path, tmp_path: Path) -> None:
    write_manifest(str(pictures), 30, tmp_path / "small.parquet")
    small = pq.read_table(tmp_path / "small.parquet")
    assert len(set(small["image_id"].to_pylist())) == 30
    assert len(set(small["uri"].to_pylist())) == 12
    write_large_manifest(5000, tmp_path / "large.parquet")
    uris = pq.read_table(tmp_path / "large.parquet")["uri"].to_pylist()
    assert len(set(uris)) == 5000
    assert uris != sorted(uris)


def test_dispatch_and_plan_by_the_command(pictures: Path, tmp_path: Path) -> None:
    flags = ["--images", pictures, "--rounds", 1, "--rows", 2000, "--out", tmp_path / "bench.jsonl"]
    done = Command("bench", "dispatch", "plan", *flags, "--json", process=True)
    assert done.code == 0, done.err
    assert done.document["figures"] == [
        json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()
    ]
    loop, planned = map(json.loads, (tmp_path / "bench.jsonl").read_text().splitlines())
    assert {"date", "commit", "machine", "1 replicas", "1000 replicas"} <= loop.keys()
    assert (planned["rows"], planned["shards"]) == (2000, 4)


def test_nothing_is_left_where_one_stands(pictures: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    done = Command("bench", "plan", "--images", pictures, "--rounds", 1, "--rows", 2000, cwd=here)
    assert (done.code, done.result["out"], list(here.iterdir())) == (0, None, [])
    assert "rows 2000" in done.out


@pytest.fixture(scope="module")
def measured(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """Two sections of one command, which compiles the network that both measure once; a picture is bad."""
    folder = tmp_path_factory.mktemp("bench")
    photos = folder / "photos"
    photos.mkdir()
    for photo in sorted((data / "photos").glob("*/*"))[:63]:
        (photos / photo.name).symlink_to(photo)
    (photos / "0.jpg").write_bytes(b"\xff\xd8\xff\xe0 this was a picture once")
    flags = ["--images", photos, "--models", "jobs.bench_model:head_only", "--rounds", 1, "--rows", 20]
    flags += ["--num-images", 64, "--out", folder / "bench.jsonl"]
    done = Command("bench", "stages", "start", *flags, env={"CAMRAY_CACHE": str(folder / "cache")})
    assert done.code == 0, done.err
    return [json.loads(line) for line in (folder / "bench.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_starts_by_the_command(measured: list[dict[str, object]]) -> None:
    started = measured[1]
    assert started["section"] == "start, s, 20 of 22 shards committed"
    assert float(str(started["new, 64 images"]).split()[0]) > 1
    assert float(str(started["resume"]).split()[0]) > 1


@pytest.mark.long
def test_stages_of_a_replica_by_the_command(measured: list[dict[str, object]]) -> None:
    stages = measured[0]
    spent = {stage: float(str(stages[stage]).split()[0]) for stage in ("fetch", "decode", "resize", "boxes", "tables")}
    assert all(0 < milliseconds < 1000 for milliseconds in spent.values())
    assert spent["decode"] > spent["fetch"]  # of files that the first round has read


@pytest.mark.ray
def test_rebox_by_the_command(data: Path, tmp_path: Path) -> None:
    flags = ["--images", data / "photos", "--num-images", 40, "--rounds", 1]
    env = {"CAMRAY_CACHE": str(tmp_path / "cache")}
    done = Command("bench", "rebox", *flags, "--out", tmp_path / "bench.jsonl", env=env)
    assert done.code == 0, done.err
    figure = json.loads((tmp_path / "bench.jsonl").read_text())
    by_clock, by_cpu = (float(figure[name].split()[0]) for name in ("by the clock", "of the processor's time"))
    assert by_clock > 0
    assert by_cpu > 0


def test_wrong_sections_and_numbers_are_usage_errors(pictures: Path) -> None:
    assert Command("bench", "speed", "--images", pictures).code == 2
    none = Command("bench", "dispatch", "--images", pictures, "--rounds", 0)
    assert (none.code, "at least 1" in none.result["error"]) == (2, True)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["host"], "expects --num-images of at least 2048, got 512"),
        (["dispatch", "plan", "dispatch"], "bench has dispatch more than once; --rounds says how often"),
        (["dispatch", "--models", "resnet18", "resnet50", "resnet18"], "--models has resnet18 more than once"),
        (["dispatch", "--models"], "--models expects at least one network"),
    ],
)
def test_what_would_measure_nothing_or_the_same_again_is_refused(
    flags: list[object], reason: str, pictures: Path
) -> None:
    done = Command("bench", *flags, "--images", pictures)
    assert (done.code, reason in done.result["error"]) == (2, True), done.result


def test_a_network_and_pictures_that_label_refuses_are_said_as_label_says_it(pictures: Path, tmp_path: Path) -> None:
    unknown = Command("bench", "limit", "--images", pictures, "--models", "resnet19")
    assert (unknown.code, unknown.result["status"], "Traceback" in unknown.err) == (2, "usage", False)
    assert "`label`, which is measured, ended with exit code 2: " in unknown.result["error"]
    assert "no torchvision classifier" in unknown.result["error"]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 this was a picture once")
    bad = Command("bench", "memory", "--images", tmp_path / "bad", "--models", "jobs.bench_model:head_only")
    assert (bad.code, "Traceback" in bad.err) == (3, False), bad.err
    assert "100.0% of the images are bad" in bad.result["error"]


@pytest.mark.parametrize("images", ["nowhere", ""])
def test_a_folder_that_is_not_there_is_said(images: str, tmp_path: Path) -> None:
    done = Command("bench", "stages", "--images", images and tmp_path / images, "--out", tmp_path / "bench.jsonl")
    assert done.code in (2, 5), done.err
