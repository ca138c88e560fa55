"""What `pip install` installs works where nothing of the checkout is: a real wheel in a fresh virtual environment."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.support.command import ROOT
from tests.support.first_run import KEPT


@pytest.mark.slow
def test_an_installed_wheel_has_every_package_and_runs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("jobs", "cluster", "cam_ops"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("camray-*.whl")

    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # whose own .pth files do not count

    shutil.rmtree(source)
    page = ROOT / "cluster" / "report" / "page"
    installed = site / "cluster" / "report" / "page"
    assert {path.name for path in page.iterdir()} >= {"boxes.js", "maps.js"}
    assert {path.name: path.read_bytes() for path in installed.iterdir()} == {
        path.name: path.read_bytes() for path in page.iterdir()
    }
    run = Path(shutil.copytree(KEPT / "run", tmp_path / "run"))
    camray = tmp_path / "venv" / "bin" / "camray"
    helped = subprocess.run([camray, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert helped.returncode == 0
    assert "label" in helped.stdout
    found = "import cluster.label.driver, cam_ops.network.load; print(cluster.__file__, cam_ops.__file__)"
    where = subprocess.run([python, "-c", found], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert all(Path(path).is_relative_to(site) for path in where.split())
    boxed = [camray, "rebox", run, "--out", tmp_path / "new", "--threshold", "0.3", "--executor", "inline"]
    done = subprocess.run(boxed, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"images": 20' in done.stdout
