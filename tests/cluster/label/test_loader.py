"""Pictures on their way to the network: pixels that are known, as no picture is resampled."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from cam_ops.errors import BadImage, StorageError
from cam_ops.settings import Preprocessing
from cam_ops.tables import PLAN
from cluster.executors.laps import Laps
from cluster.label.decoders import Decoders
from cluster.label.decoding import Fitted, decode_and_fit
from cluster.label.loader import Loader
from cluster.label.quarantine import Quarantine
from cluster.label.rows import Picture
from cluster.process.apart import ProcessEnded
from cluster.runs.directory import RunDir
from cluster.storage.options import NO_OPTIONS
from tests.support.stores import Store

SIDE = 16
CPU = torch.device("cpu")
INPUT = Preprocessing(
    image_size=SIDE,
    mean=(0, 0, 0),
    std=(1, 1, 1),
    interpolation="bilinear",
    resize="warp",
    crop_fraction=1.0,
    decode="full",
)


def planned(uris: list[str]) -> pa.Table:
    """Return the plan of one shard of whole files, with labels 100, 101, ..."""
    numbers = list(range(len(uris)))
    columns = {
        "image_id": [f"image-{number}" for number in numbers],
        "label": [100 + number for number in numbers],
        "uri": uris,
        "offset": [0] * len(uris),
        "size": [1000] * len(uris),
        "shard": [0] * len(uris),
        "row": numbers,
    }
    return pa.table({name: columns[name] for name in PLAN.names}, schema=PLAN)


@pytest.fixture
def pixels_NSS3() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, SIDE, SIDE, 3), np.uint8)


@pytest.fixture
def shard(tmp_path: Path, pixels_NSS3: np.ndarray) -> pa.Table:
    """Eleven pictures of noise, of which 0 is missing, 4 is truncated and 8 to 10 are empty."""
    for number, image_SS3 in enumerate(pixels_NSS3):
        Image.fromarray(image_SS3).save(tmp_path / f"{number}.png")
    (tmp_path / "0.png").unlink()
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:400])
    for number in (8, 9, 10):
        (tmp_path / f"{number}.png").write_bytes(b"")
    return planned([(tmp_path / f"{number}.png").as_uri() for number in range(11)])


def kept(batches: Iterator[tuple[torch.Tensor, list[Picture]]]) -> list[tuple[torch.Tensor, list[Picture]]]:
    """Return copies: a batch is good until the next one."""
    return [(pixels_BSS3.clone(), pictures) for pixels_BSS3, pictures in batches]


STATUSES = ["missing", *["ok"] * 3, "truncated", *["ok"] * 3, *["empty"] * 3]


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with closing(Decoders(3, NO_OPTIONS)) as decoders:
        yield decoders


@pytest.mark.parametrize("hands", [1, 3, 16, "processes"])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 11, 64])
def test_images_keep_order_and_place_whatever_becomes_of_their_neighbours(
    shard: pa.Table, pixels_NSS3: np.ndarray, batch_size: int, hands: int | str, decoders: Decoders
) -> None:
    loader = Loader(INPUT, SIDE, batch_size, hands if isinstance(hands, int) else decoders, CPU, NO_OPTIONS)
    kept(loader.open(shard))  # leaves its memory, with pictures in it
    batches = kept(loader.open(shard))
    assert [len(pictures) for _, pictures in batches] == [
        len(range(11)[i : i + batch_size]) for i in range(0, 11, batch_size)
    ]
    pictures = [picture for _, pictures in batches for picture in pictures]
    assert [(picture.image_id, picture.labels) for picture in pictures] == [
        (f"image-{i}", (100 + i,)) for i in range(11)
    ]
    assert [picture.status for picture in pictures] == STATUSES
    assert [picture.error is None for picture in pictures] == [status == "ok" for status in STATUSES]
    sizes = [(picture.width, picture.height, picture.rectangle.tolist()) for picture in pictures]
    assert sizes == [
        (SIDE, SIDE, [0, 0, SIDE, SIDE]) if status == "ok" else (0, 0, [0, 0, 0, 0]) for status in STATUSES
    ]
    expected = np.zeros((len(batches) * batch_size, SIDE, SIDE, 3), np.uint8)  # places without a picture are 0
    for number in (1, 2, 3, 5, 6, 7):
        expected[number] = pixels_NSS3[number]
    np.testing.assert_array_equal(torch.cat([pixels_BSS3 for pixels_BSS3, _ in batches]).numpy(), expected)


@pytest.mark.parametrize("are_processes", [False, True])
def test_a_second_shard_may_be_opened_before_the_first_is_read(
    shard: pa.Table, pixels_NSS3: np.ndarray, are_processes: bool, decoders: Decoders
) -> None:
    loader = Loader(INPUT, SIDE, 2, decoders if are_processes else 2, CPU, NO_OPTIONS)
    first, second = loader.open(shard.slice(1, 3)), loader.open(shard.slice(5, 3))
    for batches, start in ((second, 5), (first, 1)):
        (full_BSS3, _), (half_BSS3, pictures) = kept(batches)
        np.testing.assert_array_equal(full_BSS3.numpy(), pixels_NSS3[start : start + 2])
        np.testing.assert_array_equal(half_BSS3[0].numpy(), pixels_NSS3[start + 2])
        assert (half_BSS3[1].any().item(), len(pictures)) == (False, 1)


@pytest.mark.parametrize("are_processes", [False, True])
def test_shards_may_be_read_in_any_order_and_in_turn(
    shard: pa.Table, pixels_NSS3: np.ndarray, are_processes: bool, decoders: Decoders
) -> None:
    numbers = [1, 2, 3, 5, 6, 7] * 9
    loader = Loader(INPUT, SIDE, 1, decoders if are_processes else 2, CPU, NO_OPTIONS)
    opened = [loader.open(shard.take(numbers[start:])) for start in (0, 3, 10)]
    left = {0: numbers, 1: numbers[3:], 2: numbers[10:]}
    for which in np.random.default_rng(0).permutation([0] * 54 + [1] * 51 + [2] * 44):
        ((pixels_SS3,), _) = next(opened[which])
        number, *left[which] = left[which]
        np.testing.assert_array_equal(pixels_SS3.numpy(), pixels_NSS3[number])
    assert (left, [next(batches, None) for batches in opened]) == ({0: [], 1: [], 2: []}, [None] * 3)


@pytest.mark.parametrize("are_processes", [False, True])
def test_known_bad_images_are_not_touched(shard: pa.Table, are_processes: bool, decoders: Decoders) -> None:
    known = {row: BadImage("crashed_decoder", "it was deadly before") for row in (2, 6)}
    loader = Loader(INPUT, SIDE, 4, decoders if are_processes else 2, CPU, NO_OPTIONS)
    kept(loader.open(shard))
    batches = kept(loader.open(shard, known))
    pixels_BSS3 = torch.cat([pixels for pixels, _ in batches])
    pictures = [picture for _, pictures in batches for picture in pictures]
    expected = [known[i].status if i in known else STATUSES[i] for i in range(11)]
    assert [picture.status for picture in pictures] == expected
    assert [bool(pixels.any()) for pixels in pixels_BSS3[:11]] == [status == "ok" for status in expected]


@pytest.mark.server
def test_processes_fetch_from_a_store(shard: pa.Table, tmp_path: Path, s3: Store) -> None:
    address = s3.put(tmp_path, "loader")
    there = planned([f"{address}/{number}.png" for number in range(11)])
    with closing(Loader(INPUT, SIDE, 11, Decoders(1, s3.options), CPU, s3.options)) as loader:
        ((far_BSS3, far),) = kept(loader.open(there))
    ((near_BSS3, near),) = kept(Loader(INPUT, SIDE, 11, 1, CPU, NO_OPTIONS).open(shard))
    assert torch.equal(far_BSS3, near_BSS3)
    assert [picture.status for picture in far] == [picture.status for picture in near] == STATUSES


def deadly(row: dict[str, Any], encoded: bytes, config: Preprocessing) -> Fitted:
    if row["row"] == 6:
        os.kill(os.getpid(), signal.SIGSEGV)
    return decode_and_fit(row, encoded, config)


def test_a_picture_that_kills_its_process_is_a_death_of_the_replica(shard: pa.Table) -> None:
    with closing(Loader(INPUT, SIDE, 4, Decoders(2, NO_OPTIONS, deadly), CPU, NO_OPTIONS)) as loader:
        with pytest.raises(ProcessEnded, match="exit code -11"):
            kept(loader.open(shard))
        with pytest.raises(ProcessEnded, match="exit code -11"):
            kept(loader.open(shard.slice(0, 1)))


@pytest.mark.parametrize("are_processes", [False, True])
def test_storage_that_fails_beside_fails_the_shard(shard: pa.Table, are_processes: bool, decoders: Decoders) -> None:
    uris = [*shard["uri"].to_pylist(), "file:///proc/self/mem"]  # a regular file whose first bytes are an I/O error
    batches = Loader(INPUT, SIDE, 4, decoders if are_processes else 3, CPU, NO_OPTIONS).open(planned(uris))
    assert [len(next(batches)[1]) for _ in range(2)] == [4, 4]
    with pytest.raises(StorageError, match="cannot read /proc/self/mem: Input/output error; the shard is left"):
        next(batches)


def test_what_is_left_of_a_shard_that_failed_is_not_begun_beside_another(shard: pa.Table, decoders: Decoders) -> None:
    loader = Loader(INPUT, SIDE, 1, decoders, CPU, NO_OPTIONS)
    failed = loader.open(planned(["file:///proc/self/mem", *shard["uri"].to_pylist()[1:4] * 20]))
    with pytest.raises(StorageError):
        next(failed)
    num_before = next(loader.numbers)
    for _ in range(5):
        kept(loader.open(shard))
    assert next(loader.numbers) - num_before <= loader.num_ahead + 2


def test_memory_of_what_is_decoded_one_by_one_is_used_again(
    shard: pa.Table, decoders: Decoders, tmp_path: Path
) -> None:
    loader = Loader(INPUT, SIDE, 4, decoders, CPU, NO_OPTIONS)
    quarantine = Quarantine(run_dir=RunDir(str(tmp_path)), shard=0)
    for _ in range(2):
        kept(loader.open_carefully(shard.slice(0, 8), quarantine, Laps()))
    assert next(loader.numbers) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_processes_that_decode_for_a_gpu_give_the_same_pixels(shard: pa.Table, decoders: Decoders) -> None:
    here = Loader(INPUT, SIDE, 4, 3, CPU, NO_OPTIONS).open(shard)
    ahead = Loader(INPUT, SIDE, 4, decoders, torch.device("cuda"), NO_OPTIONS).open(shard)
    for (cpu_BSS3, on_cpu), (gpu_BSS3, on_gpu) in zip(here, ahead, strict=True):
        assert gpu_BSS3.is_pinned()
        assert torch.equal(cpu_BSS3, gpu_BSS3)
        described = [
            [(picture.image_id, picture.status, picture.error, picture.width, picture.height) for picture in pictures]
            for pictures in (on_cpu, on_gpu)
        ]
        assert described[0] == described[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_memory_of_a_closed_loader_is_no_longer_locked_and_the_next_one_can_lock_its_own(shard: pa.Table) -> None:
    for _ in range(3):
        loader = Loader(INPUT, 224, 64, Decoders(2, NO_OPTIONS), torch.device("cuda"), NO_OPTIONS)
        ((pixels_BYX3, _),) = list(loader.open(shard))
        assert pixels_BYX3.is_pinned()
        loader.close()
        assert not pixels_BYX3.is_pinned()
