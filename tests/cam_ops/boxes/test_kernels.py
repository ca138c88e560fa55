"""The loops over pixels, against OpenCV, NumPy and hand-worked values."""

import math
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cam_ops.boxes.kernels import cubic_taps, enlarge, highest, least_at, mass, regions_of
from tests.support.command import ROOT


def enlarged(raw_hw: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    out_YX = np.empty(size)
    down, across = cubic_taps(raw_hw.shape[0], size[0]), cubic_taps(raw_hw.shape[1], size[1])
    enlarge(raw_hw, *down, *across, np.empty((raw_hw.shape[0], size[1])), out_YX)
    return out_YX


def test_maps_are_enlarged_to_opencv_s_very_bits() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        grid, size = generator.integers(1, 60, 2), generator.integers(1, 300, 2)
        raw_hw = (generator.normal(size=grid) * 10 ** generator.uniform(-30, 30)).astype(np.float32)
        expected_YX = cv2.resize(raw_hw.astype(np.float64), tuple(size[::-1].tolist()), interpolation=cv2.INTER_CUBIC)
        assert np.array_equal(enlarged(raw_hw, tuple(size.tolist())), expected_YX.reshape(size)), (grid, size)


def test_a_window_is_measured_as_numpy_does() -> None:
    generator = np.random.default_rng(1)
    map_YX, work_X = generator.normal(size=(40, 33)), np.empty(33)
    for _ in range(100):
        y0, x0 = generator.integers(0, 30, 2).tolist()
        y1, x1 = int(generator.integers(y0 + 1, 41)), int(generator.integers(x0 + 1, 34))
        window_YX = map_YX[y0:y1, x0:x1]
        assert highest(map_YX, y0, x0, y1, x1, work_X) == window_YX.max()
        assert mass(map_YX, y0, x0, y1, x1, work_X) == pytest.approx(np.maximum(window_YX, 0).sum(), rel=1e-12)


def test_regions_keep_to_their_window() -> None:
    run_5R = np.empty((5, 30), np.int32)
    map_YX = np.array([[9, 9, 9, 9, 9], [9, 1, 0, 2, 9], [9, 0, 0, 3, 9], [9, 9, 9, 9, 9.0]])
    found_N5, found_N = regions_of(map_YX, 1.0, 3.0, 1, 1, 3, 4, run_5R)
    assert (found_N5.tolist(), found_N.tolist()) == ([[1, 1, 2, 2, 1], [3, 1, 4, 3, 2]], [1, 3])


def test_a_map_of_nan_ends_without_a_region() -> None:
    run_5R = np.empty((5, 30), np.int32)
    assert len(regions_of(np.full((4, 5), np.nan), 1.0, np.nan, 0, 0, 4, 5, run_5R)[1]) == 0


def test_the_least_number_at_a_level_is_the_least() -> None:
    generator = np.random.default_rng(2)
    for _ in range(2000):
        base, high = np.sort(generator.normal(size=2) * 10.0 ** generator.integers(-8, 8))
        base = generator.choice([base, 0.0, -high])
        if not high > base:
            continue
        unit, level = high - base, generator.uniform(1e-9, 1)
        least = least_at(level, base, unit, high)
        assert (least - base) / unit >= level
        assert not (math.nextafter(least, -math.inf) - base) / unit >= level


def test_without_a_place_for_its_code_a_process_compiles_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    package = tmp_path / "file" / "cam_ops"  # no folder can be made there, nor in this home
    source = (ROOT / "cam_ops" / "compiled.py").read_text()
    program = (
        f"exec(compile({source!r}, {str(package / 'compiled.py')!r}, 'exec'))\n"
        f"exec(compile('@compiled\\ndef twice(x):\\n    return 2 * x', {str(package / 'twice.py')!r}, 'exec'))\n"
        "print(twice(21), twice.stats.cache_path)"
    )
    env = {**os.environ, "HOME": str(tmp_path / "file"), "XDG_CACHE_HOME": str(tmp_path / "file" / "cache")}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["42", "None"]), done.stderr
