"""`doctor` by command, on real faults of this machine. What it says of nodes: tests/whole/test_cluster.py."""

import json
import os
from pathlib import Path
from zipfile import ZipFile

import pytest
from PIL import Image
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from cluster.doctor.driver import _upload
from cluster.doctor.places import PROBES, look_at_out, marked
from cluster.executors.ray_nodes import upload_of
from cluster.runs.directory import RunDir
from tests.support.command import Command
from tests.support.stores import Store

pytestmark = pytest.mark.slow

NETWORK = ("--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32)


def doctor(*words: object) -> tuple[Command, dict[str, dict[str, str]]]:
    """Run it on this machine alone; return the command and its findings, by check."""
    done = Command("doctor", *words, "--executor", "inline", "--json")
    return done, {finding["check"]: finding for finding in json.loads(done.out)["findings"]}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos" / "deep"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    return tmp_path / "photos"


def test_a_sound_machine_is_ok_and_nothing_is_left(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "deep" / "run"
    words = "--images", photos, "--out", out, "--model", "tests.support.networks:two_channels", *NETWORK
    done, found = doctor(*words)
    assert done.code == 0
    assert {"python", "packages", "processor", "gpu", "images", "out", "network"} <= found.keys()
    assert not [finding for finding in found.values() if finding["verdict"] == "fail"]
    assert found["images"]["says"] == f"{photos} can be reached, {photos}/deep/a.png read"
    assert "2 classes, head affine, --method auto is cam" in found["network"]["says"]
    assert not (tmp_path / "new").exists()


def test_lines_for_people_have_a_verdict_a_check_and_the_cure(tmp_path: Path) -> None:
    done = Command("doctor", "--images", tmp_path / "none", "--executor", "inline")
    assert done.code == 6
    lines = [line for line in done.out.splitlines() if not line.startswith("CAMRAY_RESULT")]
    assert all(line.split()[0] in ("ok", "warn", "fail") for line in lines)
    (line,) = (line for line in lines if line.startswith("fail"))
    assert line.startswith(f"fail  images: cannot list the image folder {tmp_path}/none")
    assert line.endswith("No such file or directory; check --images, and that every node sees it")
    assert done.result["error"].startswith("images: ")


def test_an_out_below_a_file_fails_and_a_run_in_place_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done, found = doctor("--out", tmp_path / "file" / "run")
    assert (done.code, found["out"]["verdict"]) == (6, "fail")
    assert (found["out"]["says"] + found["out"]["cure"]).count("check --out and its permissions") == 1
    assert (tmp_path / "file").read_text() == "mine"
    run = tmp_path / "run"
    (run / "images").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    done, found = doctor("--out", run)
    assert found["out"]["verdict"] == "ok"
    assert sorted(path.name for path in run.iterdir()) == ["images", "run.json"]


def test_an_out_that_is_an_empty_text_is_refused_and_not_left_unchecked() -> None:
    refused = Command("doctor", "--out", "", "--executor", "inline")
    assert (refused.code, "the run directory, got an empty text" in refused.err) == (2, True)


@pytest.mark.parametrize("words", [("--weights", "a.pt"), ("--mean", 0, 0, 0), ("--image-size", 32), ("--output", "x")])
def test_what_is_of_a_network_is_refused_without_one_and_not_left_unchecked(words: tuple[object, ...]) -> None:
    refused = Command("doctor", *words, "--executor", "inline")
    assert (refused.code, f"{words[0]} is of a network; give --model, too" in refused.err) == (2, True)


def test_a_folder_without_a_picture_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(b"")
    done, found = doctor("--images", tmp_path)
    assert (done.code, found["images"]["verdict"]) == (0, "warn")
    assert "no picture was found" in found["images"]["says"]


def test_a_picture_that_is_listed_and_cannot_be_read_fails(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    done, found = doctor("--images", tmp_path)
    assert (done.code, found["images"]["verdict"]) == (6, "fail")
    assert "a.png is unreadable" in found["images"]["says"]


def test_a_folder_that_another_machine_sees_otherwise_fails(tmp_path: Path) -> None:
    here, there = RunDir(str(tmp_path / "here")), RunDir(str(tmp_path / "there"))
    with marked(here) as mark:
        assert [finding.verdict for finding in look_at_out(here, mark)] == ["ok"]
        (tmp_path / "there").mkdir()
        (finding,) = look_at_out(there, mark)
    assert finding.verdict == "fail"
    assert "is not the folder that the driver sees" in finding.says
    assert not (tmp_path / "here").exists()


def test_probes_of_a_machine_that_was_cut_off_go_with_the_mark_and_those_of_another_doctor_stay(tmp_path: Path) -> None:
    run_dir = RunDir(str(tmp_path))
    (tmp_path / ".scratch").mkdir()  # of a run at work: it writes there next
    with marked(run_dir) as other, marked(run_dir) as mark:
        run_dir.publish(f"{mark}-cutoff", b"a node was ended before it removed this")
        run_dir.publish(f"{PROBES}/killed", b"a doctor was killed")
        os.utime(tmp_path / PROBES / "killed", (0, 0))
    assert not (tmp_path / PROBES).exists()
    with marked(run_dir) as other:
        with marked(run_dir) as mark:
            run_dir.publish(f"{mark}-cutoff", b"")
        assert [path.name for path in (tmp_path / PROBES).iterdir()] == [Path(other).name]
    assert [path.name for path in tmp_path.iterdir()] == [".scratch"]


def test_a_network_that_ends_its_process_fails_and_what_was_found_stands(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import os\n\ndef make():\n    os._exit(3)\n")
    done, found = doctor("--model", f"{tmp_path}/net.py:make", *NETWORK)
    assert (done.code, found["network"]["verdict"], found["python"]["verdict"]) == (6, "fail", "ok")
    assert "exit code 3" in found["network"]["says"]


def test_a_folder_that_ray_cannot_pack_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"caf\xe9/\n")  # which Ray reads as UTF-8
    monkeypatch.chdir(tmp_path)
    finding = _upload()
    assert finding.verdict == "fail"
    assert "Ray cannot pack this folder: 'utf-8' codec can't decode" in finding.says


def test_a_missing_compiler_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    done, found = doctor()
    assert (done.code, found["compiler"]["verdict"]) == (0, "warn")
    assert "g++" in found["compiler"]["cure"]


def test_cuda_where_there_is_none_fails() -> None:
    done, found = doctor("--device", "cuda")
    if found["gpu"]["says"].startswith("GPU"):
        pytest.skip("there is a GPU")
    assert (done.code, found["gpu"]["verdict"]) == (6, "fail")


@pytest.mark.parametrize("model", ["resnet19", "tests.support.networks:nothing_of_that_name"])
def test_a_network_that_cannot_be_used_fails_with_the_reason_of_label(model: str, photos: Path, tmp_path: Path) -> None:
    done, found = doctor("--model", model, *NETWORK)
    assert (done.code, found["network"]["verdict"]) == (6, "fail")
    label = Command("label", "--images", photos, "--out", tmp_path / "run", "--model", model, *NETWORK)
    assert found["network"]["says"] == label.result["error"]


def test_methods_are_those_that_label_takes(photos: Path, tmp_path: Path) -> None:
    words = "--model", "mobilenet_v3_small", "--weights", "random", "--image-size", 64
    _, found = doctor(*words)
    says = found["network"]["says"]
    assert "head pooled" in says
    methods = says.partition("--method can be ")[2].split(", ")
    assert "gradcam" in methods
    assert "cam" not in methods
    for method, code in (("gradcam", 0), ("cam", 2)):
        flags = "--images", photos, "--out", tmp_path / method, "--method", method, "--executor", "inline"
        assert Command("label", *words, *flags).code == code


def test_wrong_keys_of_a_store_fail_and_right_ones_leave_nothing(s3: Store, photos: Path) -> None:
    there = s3.put(photos, "doctor/photos")
    words = "--images", there, "--out", s3.address("doctor/run")
    done, found = doctor(*words, "--storage-options", *s3.words)
    assert done.code == 0, done.out
    assert found["images"]["says"] == f"{there} can be reached, {there}/deep/a.png read"
    assert not [path for path in (s3.folder / "doctor").rglob("*") if "doctor" in path.name and path.is_file()]
    wrong = [word.replace("secret_key=", "secret_key=x") for word in s3.words]
    done, found = doctor(*words, "--storage-options", *wrong)
    assert done.code == 6
    assert {found["images"]["verdict"], found["out"]["verdict"]} == {"fail"}


def test_what_ray_would_upload_is_what_it_packs(tmp_path: Path) -> None:
    folder, package = tmp_path / "code", tmp_path / "package.zip"
    sizes = {"code.py": 100, "photos/a.jpg": 5000, "photos/b.jpg": 700, "run/x.bin": 90_000, ".git/pack": 80_000}
    for name, size in sizes.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(bytes(size))
    (folder / ".gitignore").write_text("run/\n")
    create_package(str(folder), package, True, excludes=get_runtime_env_default_excludes())
    with ZipFile(package) as packed:
        expected = [info.file_size for info in packed.infolist() if not info.is_dir()]
    upload = upload_of(str(folder))
    assert (upload.num_bytes, upload.num_files) == (sum(expected), len(expected))
    assert 5800 <= upload.num_bytes < 6000
    assert upload.largest[0] == ("photos", 5700)


@pytest.mark.ray
def test_a_cluster_that_is_not_there_fails() -> None:
    done = Command("doctor", "--ray-address", "127.0.0.1:1", "--json")
    ray = [finding for finding in json.loads(done.out)["findings"] if finding["check"] == "ray"]
    assert (done.code, [finding["verdict"] for finding in ray]) == (6, ["fail"])
    assert "127.0.0.1:1" in ray[0]["says"]
