"""Folders on stores, listed part by part: the same pictures as on a disk, no matter how many folders there are."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.sources.source import Asked
from cluster.storage.objects import put_object
from tests.cluster.sources.folders.test_folder import ids_of, put
from tests.support.command import ROOT
from tests.support.keys import serving_keys
from tests.support.stores import Store

ENOUGH_FOLDERS = 8
RUN = ("run.json", "plan/part-00000.parquet", "show/ours.png")


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


def test_pictures_lie_at_any_depth_beside_runs_and_hidden_folders(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.storage.objects.ENOUGH_FOLDERS", ENOUGH_FOLDERS)
    pictures = [f"class-{i:03d}/{part}{i}.png" for i in range(ENOUGH_FOLDERS + 6) for part in ("", "deep/er/")]
    pictures += ["top.png", "plan/not-of-a-run.png", "half/run.json/odd.png"]
    runs = [f"{place}/{name}" for place in ("run", "class-012/old-run", "a/b/run") for name in RUN]
    hidden = [".git/objects/x.png", "class-001/.ipynb_checkpoints/x.png", "class-011/@eaDir/x/y.png"]
    put(tmp_path / "set", dict.fromkeys([*pictures, *runs, *hidden, "ours/run.json", "ours/x.png"], b"x"))
    for name in ("wide/other.png", "wide-more/other.png"):
        put_object(store.address(name), b"x", store.options)
    address = store.put(tmp_path / "set", "wide/set")
    store.proxy.heal()
    assert ids_of(address, Asked(options=store.options, skip=f"{address}/ours")) == sorted(pictures)
    said = capsys.readouterr().err
    assert "3 run directories of this program are not searched for pictures, such as" in said
    assert "3 hidden folders and those of systems and file managers are left out, such as" in said
    if store.scheme == "s3":
        assert not [request for request in store.proxy.requests if "prefix=wide%2Fset%2F.git" in request]
    assert ids_of(tmp_path / "set", Asked(skip=str(tmp_path / "set" / "ours"))) == sorted(pictures)


LIST = """
import sys
from cluster.process.memory import peak_mib
from cluster.storage.objects import walk_objects
from cluster.storage.options import parse_options
options = parse_options(sys.argv[1:])
list(walk_objects("s3://bucket/set/class-00000/", options, lambda part: part.folders))  # the client is there
before, number = peak_mib(), 0
for part in walk_objects("s3://bucket/set", options, lambda part: part.folders):
    number += sum(map(len, part.files))
print(number, int(peak_mib() - before))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_keys() -> None:
    grown_mib = {}
    for num_folders in (20, 200):
        with serving_keys(num_folders, 1000) as keys:
            words = [sys.executable, "-c", LIST, *keys.words]
            finished = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
            number, grown_mib[num_folders] = map(int, finished.stdout.split())
            assert number == num_folders * 1000
            assert len(keys.requests) <= num_folders + 3  # a page each
    assert grown_mib[200] - grown_mib[20] < 32  # all at once they would take 120 more
