"""A replica that is given shards by several threads."""

from pathlib import Path

import pytest

from cam_ops.settings import ModelConfig
from cluster.label.decoders import Decoders
from cluster.label.loader import Loader
from cluster.label.replica import open_replica
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run
from cluster.storage.options import NO_OPTIONS
from tests.support.command import Command
from tests.support.threads import started_in_order

MODEL = ModelConfig(model="tests.support.networks:two_channels", mean=(0, 0, 0), std=(1, 1, 1), image_size=32)
FLAGS = ["--model", MODEL.model, "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32, "--precision", "fp32"]


@pytest.mark.slow
def test_a_replica_that_publishes_when_all_is_over_changes_nothing(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["label", "--images", pictures, "--out", out, "--executor", "inline", "--shard-size", 4, *FLAGS]
    assert Command(*command).code == 0
    before = {path: path.read_bytes() for path in sorted(out.rglob("*.*")) if path.is_file()}
    run_dir = RunDir(str(out))
    zombie = open_replica(run_dir, MODEL, existing_run(run_dir).request.fingerprint())
    for number, deaths in enumerate((0, 1, 2, 3)):  # from the third on as suspicious as can be
        zombie.run_shard(1, number, deaths)
    assert {path: path.read_bytes() for path in sorted(out.rglob("*.*")) if path.is_file()} == before
    assert Command("verify", out).code == 0


@pytest.mark.parametrize("are_processes", [False, True])
def test_shards_of_two_threads_are_those_of_one_and_are_committed_by_number(
    pictures: Path, tmp_path: Path, are_processes: bool
) -> None:
    out = tmp_path / "run"
    done = Command("label", "--images", pictures, "--out", out, "--executor", "inline", "--shard-size", 4, *FLAGS)
    assert done.code == 0
    expected = {path: path.read_bytes() for path in sorted(out.glob("[bhi]*/*.parquet"))}
    assert len(expected) == 9
    for path in expected:
        path.unlink()
    run_dir = RunDir(str(out))
    replica = open_replica(run_dir, MODEL, existing_run(run_dir).request.fingerprint(), num_threads=2)
    if are_processes:  # as before a GPU, where tables are made beside the network
        old = replica.loader
        decoders = Decoders(2, NO_OPTIONS)
        replica.loader = Loader(old.input, old.input.image_size, old.batch_size, decoders, old.device, NO_OPTIONS)
    shard_of = {0: 2, 1: 0, 2: 1}  # numbers count the calls, whichever shards these are for
    reports = {}

    def run(number: int) -> None:
        reports[number] = replica.run_shard(shard_of[number], number)

    started_in_order([2, 1, 0], run)
    assert [(reports[number].shard, reports[number].statuses) for number in range(3)] == [
        (shard, {"ok": 4}) for shard in (2, 0, 1)
    ]
    assert {path: path.read_bytes() for path in expected} == expected
    replica.loader.close()
    if are_processes:
        return  # tables of one shard are made beside the next one, whichever ends first
    committed = sorted((out / "images").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [path.name for path in committed] == [f"shard-000000{shard}.parquet" for shard in (2, 0, 1)]
