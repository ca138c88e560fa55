"""Folders on stores, listed part by part: the same pictures as on a disk, no matter how many folders there are."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.sources.source import Asked
from cluster.storage.listings import walk_objects
from cluster.storage.objects import put_object
from cluster.storage.options import parse_options
from tests.cluster.sources.folders.test_folder import ids_of, put
from tests.support.command import ROOT
from tests.support.keys import serving_keys
from tests.support.stores import Store

ENOUGH_FOLDERS = 8
RUN = ("run.json", "plan/part-00000.parquet", "show/ours.png")


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("most", [1000, 3])
def test_pictures_lie_at_any_depth_beside_runs_and_hidden_folders(
    store: Store, most: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.storage.listings.ENOUGH_FOLDERS", ENOUGH_FOLDERS)
    monkeypatch.setattr("cluster.storage.listings.ROWS_PER_PART", most)  # a run may lie in several parts
    monkeypatch.setattr("cluster.storage.pages.PAGE", most)
    pictures = [f"class-{i:03d}/{part}{i}.png" for i in range(ENOUGH_FOLDERS + 6) for part in ("", "deep/er/")]
    pictures += ["top.png", "plan/not-of-a-run.png", "half/run.json/odd.png"]
    runs = [f"{place}/{name}" for place in ("run", "class-012/old-run", "a/b/run") for name in RUN]
    hidden = [".git/objects/x.png", "class-001/.ipynb_checkpoints/x.png", "class-011/@eaDir/x/y.png"]
    put(tmp_path / "set", dict.fromkeys([*pictures, *runs, *hidden, "ours/run.json", "ours/x.png"], b"x"))
    for name in (f"wide{most}/other.png", f"wide{most}-more/other.png"):
        put_object(store.address(name), b"x", store.options)
    address = store.put(tmp_path / "set", f"wide{most}/set")
    store.proxy.heal()
    assert ids_of(address, Asked(options=store.options, skip=f"{address}/ours")) == sorted(pictures)
    said = capsys.readouterr().err
    assert "3 run directories of this program are not searched for pictures, such as" in said
    assert "3 hidden folders and those of systems and file managers are left out, such as" in said
    if store.scheme == "s3":
        assert not [request for request in store.proxy.requests if f"prefix=wide{most}%2Fset%2F.git" in request]
    assert ids_of(tmp_path / "set", Asked(skip=str(tmp_path / "set" / "ours"))) == sorted(pictures)


LIST = """
import sys
from cluster.process.memory import peak_mib
from cluster.storage.listings import walk_objects
from cluster.storage.options import parse_options
address, options = sys.argv[1], parse_options(sys.argv[2:])
number = 0
for part in walk_objects(address, options, lambda part: part.folders):
    if not number:
        before = peak_mib()  # the client is there, and a part
    number += len(part.files)
print(number, int(peak_mib() - before))
"""


@pytest.fixture(autouse=True)
def keys_of_amazon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OURS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.mark.slow
@pytest.mark.parametrize("store", ["s3", "gs"])
@pytest.mark.parametrize(("num_folders", "num_keys"), [(200, 1000), (1, 200_000)])
def test_memory_does_not_grow_with_the_number_of_keys(store: str, num_folders: int, num_keys: int) -> None:
    with serving_keys(num_folders, num_keys) as keys:
        words = [sys.executable, "-c", LIST, f"{store}://bucket/set", *keys.words]
        finished = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
        number, grown_mib = map(int, finished.stdout.split())
    assert number == num_folders * num_keys
    assert len(keys.requests) <= num_folders * num_keys / 1000 + 4
    assert grown_mib < 48  # all at once they would take from 70 to 150


def test_the_keys_of_a_role_sign_a_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_keys(1, 2000) as keys:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://{keys.address}")
        options = parse_options([*keys.words, "role_arn=arn:aws:iam::123456789012:role/reader", "external_id=us"])
        parts = walk_objects("s3://bucket/set/class-00000", options, lambda part: ())
        assert sum(len(part.files) for part in parts) == 2000
    asked, *_ = keys.requests
    assert "Action=AssumeRole" in asked
    assert "role%2Freader" in asked
    assert "ExternalId=us" in asked
    assert keys.signers == {"OURS", "LENT"}
