"""CIFAR's binary files: written by the format's description, their pictures compared with torchvision's reader."""

import pickle
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from cam_ops.errors import CamrayError, StorageError, UsageError
from cluster.sources.cifar import HUNDRED, TEN
from cluster.sources.kinds import source_address
from tests.support.command import Command, listed, table_rows
from tests.support.pictures import load_picture
from tests.support.stores import Store

TWO = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]


class OwnTen(CIFAR10):
    """torchvision's reader for files of ours, whose checksums it cannot know."""

    train_list = ()
    test_list = (("test_batch", None),)
    meta = MappingProxyType({**CIFAR10.meta, "md5": None})


class OwnHundred(CIFAR100):
    train_list = ()
    test_list = (("test", None),)
    meta = MappingProxyType({**CIFAR100.meta, "md5": None})


def pictures(number: int, seed: int = 0) -> np.ndarray:
    """Return pictures RGB (N, 32, 32, 3), no two of whose rows, columns and channels are alike."""
    return np.random.default_rng(seed).integers(0, 256, (number, 32, 32, 3), np.uint8)


def records(images_NHWC: np.ndarray, labels: list[tuple[int, ...]]) -> bytes:
    """Write records byte by byte: the labels; red, green and blue, each row by row."""
    content = bytearray()
    for image_HWC, numbers in zip(images_NHWC, labels, strict=True):
        content += bytes(numbers)
        for channel in range(3):
            for row in range(32):
                content += image_HWC[row, :, channel].tobytes()
    return bytes(content)


def write_ten(folder: Path) -> dict[str, np.ndarray]:
    """Write three of CIFAR-10's files; return the pictures by id."""
    folder.mkdir()
    expected = {}
    for seed, (name, labels) in enumerate(
        {"data_batch_1": [3, 0, 3, 9], "data_batch_5": [7], "test_batch": [0]}.items()
    ):
        images_NHWC = pictures(len(labels), seed)
        (folder / f"{name}.bin").write_bytes(records(images_NHWC, [(label,) for label in labels]))
        expected |= {f"{TEN.names[label]}/{name}-{i:05d}": images_NHWC[i] for i, label in enumerate(labels)}
    (folder / "batches.meta.txt").write_text("\n".join(TEN.names) + "\n\n")
    (folder / "readme.html").write_text("<p>")
    return expected


def loaded(folder: object, **options: object) -> dict[str, np.ndarray]:
    return {row["image_id"]: load_picture(row) for row in listed(str(folder)).to_pylist()}


def test_cifar_10_is_listed_by_class_and_its_pictures_are_read(tmp_path: Path) -> None:
    expected = write_ten(tmp_path / "bin")
    found = loaded(tmp_path / "bin")
    assert list(found) == sorted(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    (row, *_) = listed(str(tmp_path / "bin"), limit=1).to_pylist()
    assert (row["image_id"], row["offset"], row["size"]) == ("airplane/data_batch_1-00001", 3073 + 1, 3072)
    assert list(loaded(tmp_path / "bin" / "test_batch.bin")) == ["airplane/test_batch-00000"]


def test_pixels_and_names_are_those_of_torchvision(tmp_path: Path) -> None:
    """torchvision reads the Python version: the same planes in a pickled array."""
    for edition, reader, folder, number in ((TEN, OwnTen, "ten", 6), (HUNDRED, OwnHundred, "hundred", 4)):
        images_NHWC = pictures(number)
        labels = [(i % 20, 99 - i) if edition is HUNDRED else (i,) for i in range(number)]
        (tmp_path / folder).mkdir()
        (tmp_path / folder / edition.files[-1]).write_bytes(records(images_NHWC, labels))
        (tmp_path / folder / edition.names_file).write_text("\n".join(edition.names))
        python = tmp_path / folder / reader.base_folder
        python.mkdir()
        rows = {"data": images_NHWC.transpose(0, 3, 1, 2).reshape(number, -1)}
        name = reader.test_list[0][0]
        (python / name).write_bytes(pickle.dumps(rows | {"labels": [label[-1] for label in labels]}))
        (python / reader.meta["filename"]).write_bytes(pickle.dumps({reader.meta["key"]: list(edition.names)}))
        theirs = reader(str(tmp_path / folder), train=False)
        found = loaded(tmp_path / folder)
        assert theirs.classes == list(edition.names)
        for i in range(number):
            picture, label = theirs[i]
            image_id = f"{theirs.classes[label]}/{edition.files[-1].removesuffix('.bin')}-{i:05d}"
            np.testing.assert_array_equal(found[image_id], np.asarray(picture))


def test_official_names_where_there_is_no_list_and_its_own_where_there_is(tmp_path: Path) -> None:
    write_ten(tmp_path / "bin")
    (tmp_path / "bin" / "batches.meta.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    assert next(iter(loaded(tmp_path / "bin"))) == "class 0/data_batch_1-00001"
    (tmp_path / "bin" / "batches.meta.txt").unlink()
    assert next(iter(loaded(tmp_path / "bin"))) == "airplane/data_batch_1-00001"
    assert (len(HUNDRED.names), len(set(HUNDRED.names))) == (100, 100)
    assert (list(TEN.names), list(HUNDRED.names)) == (sorted(TEN.names), sorted(HUNDRED.names))


def test_label_takes_the_classes_from_the_ids(tmp_path: Path) -> None:
    write_ten(tmp_path / "bin")
    (tmp_path / "names.txt").write_text("x\ny\n")
    (tmp_path / "bin" / "batches.meta.txt").write_text("\n".join(["x", *"abcdefgh", "y"]))
    out = tmp_path / "run"
    flags = ["--labels", "folder", "--class-names", tmp_path / "names.txt", "--unknown-labels", "skip"]
    done = Command("label", "--images", tmp_path / "bin", "--out", out, "--executor", "inline", *TWO, *flags)
    assert (done.code, done.result["ok"]) == (0, 6), done.err
    labels = {image["image_id"]: image["label"] for image in table_rows(out, "images")}
    assert labels == {
        "c/data_batch_1-00000": None,
        "c/data_batch_1-00002": None,
        "g/data_batch_5-00000": None,
        "x/data_batch_1-00001": 0,
        "x/test_batch-00000": 0,
        "y/data_batch_1-00003": 1,
    }
    assert Command("show", out, "y/data_batch_1-00003").code == 0


def refusal(address: object, error: type[CamrayError] = UsageError) -> str:
    with pytest.raises(error) as caught:
        listed(str(address))
    return str(caught.value)


def test_files_that_are_not_cifar_s_are_refused(tmp_path: Path) -> None:
    write_ten(tmp_path / "bin")
    batch, names = tmp_path / "bin" / "data_batch_1.bin", tmp_path / "bin" / "batches.meta.txt"
    content = batch.read_bytes()
    batch.write_bytes(content[:-1])
    assert "expected records of 3073 bytes each in" in refusal(tmp_path / "bin")
    batch.write_bytes(b"\x0a" + content[1:])
    assert "expected classes from 0 to 9 in" in refusal(tmp_path / "bin")
    assert "found 10 in record 0" in refusal(tmp_path / "bin")
    batch.write_bytes(b"")
    assert "it is empty" in refusal(tmp_path / "bin", StorageError)
    batch.write_bytes(content)
    for text in ("a\nb\n", "\n".join("abcdefghii"), "\n".join([*"abcdefghi", "../x"])):
        names.write_text(text)
        assert "expected 10 different class names without a / in" in refusal(tmp_path / "bin")
    names.unlink()
    (tmp_path / "bin" / "train.bin").write_bytes(records(pictures(1), [(0, 0)]))
    assert len(loaded(tmp_path / "bin")) == 6  # some train.bin is none of CIFAR-100's
    (tmp_path / "bin" / "fine_label_names.txt").write_text("\n".join(HUNDRED.names))
    assert "found both in" in refusal(tmp_path / "bin")


def test_the_python_version_is_refused_with_the_place_of_the_other(tmp_path: Path) -> None:
    for names in (("batches.meta", "data_batch_1"), ("meta", "train", "test")):
        folder = tmp_path / names[0]
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(pickle.dumps({}))
        with pytest.raises(
            UsageError, match=r"may run code, and is not read; take the binary version from https://www"
        ):
            source_address(str(folder))


def test_files_are_named_by_wildcards_too(tmp_path: Path) -> None:
    expected = write_ten(tmp_path / "bin")
    assert list(loaded(f"{tmp_path}/bin/data_batch_*.bin")) == sorted(name for name in expected if "data_" in name)
    (tmp_path / "bin" / "other.bin").touch()
    assert "expected CIFAR's files" in refusal(f"{tmp_path}/bin/*.bin")
    write_ten(tmp_path / "more")
    assert "two files are called data_batch_1.bin" in refusal(f"{tmp_path}/*/data_batch_1.bin")


def test_a_cut_picture_is_truncated(tmp_path: Path) -> None:
    write_ten(tmp_path / "bin")
    row = listed(str(tmp_path / "bin")).to_pylist()[-1]
    path = tmp_path / "bin" / "data_batch_1.bin"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Exception, match="2972 of the 3072 bytes of a CIFAR picture are left"):
        load_picture(row)


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


def test_a_file_on_a_store_is_read_as_here(tmp_path: Path, store: Store) -> None:
    expected = write_ten(tmp_path / "bin")
    address = store.put(tmp_path / "bin", "cifar")
    rows = listed(f"{address}/data_batch_1.bin", options=store.options).to_pylist()
    assert [row["image_id"] for row in rows] == sorted(name for name in expected if "data_batch_1" in name)
    rows = listed(f"{address}/*.bin", options=store.options).to_pylist()
    assert [row["image_id"] for row in rows] == sorted(expected)
    with pytest.raises(StorageError, match=r"or give CIFAR's files, --images '.*/cifar/\*\.bin'"):
        listed(address, options=store.options)
    for row in rows:
        np.testing.assert_array_equal(load_picture(row, store.options), expected[row["image_id"]])


def test_pictures_beside_the_files_are_not_left_out_unsaid(tmp_path: Path) -> None:
    expected = write_ten(tmp_path / "cifar")
    assert listed(str(tmp_path / "cifar"))["image_id"].to_pylist() == sorted(expected)
    (tmp_path / "cifar" / "pics").mkdir()
    (tmp_path / "cifar" / "pics" / "1.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"and other pictures, such as '.*/pics/1.png'"):
        listed(str(tmp_path / "cifar"))
