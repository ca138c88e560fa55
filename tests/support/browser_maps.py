"""Maps and settings of every kind, and what Python and a page make of them."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cam_ops.boxes.extract import boxes_from_heatmaps
from cam_ops.boxes.normalise import enlarge_and_normalise
from cam_ops.settings import BoxConfig, MapConfig
from tests.support.browser import Opened
from tests.support.command import ROOT

PAGE = ROOT / "cluster" / "report" / "page"
INPUTS = [(224, 224), (224, 224), (96, 160), (320, 320), (33, 57), (8, 16)]
GRIDS = [(7, 7), (14, 14), (28, 28), (5, 9), (2, 3), (1, 1), (4, 1), (40, 30)]
NORMALISERS = ["max", "minmax", "ivr:0", "ivr:35.5", "ivr:50", "ivr:99.9"]
THRESHOLDS = [0, 1e-9, 0.2, 0.2, 0.5, 0.77, 1]

SCRIPT = """([cases, isChecked]) => {
  const maps = new Map();
  const decoded = ({raw, ...map}) => ({...map, raw: new Float32Array(Uint8Array.from(atob(raw),
    letter => letter.charCodeAt(0)).buffer)});
  const checksum = values => {
    const words = new Uint32Array(values.map(value => value + 0).buffer);
    let sum = 0;
    for (let i = 0; i < words.length; i++) sum = (sum + Math.imul(words[i], 2 * i + 1)) | 0;
    return sum >>> 0;
  };
  return JSON.parse(cases).map(({map, setting, number}) => {
    if (!maps.has(number)) maps.set(number, decoded(map));
    const boxes = CamrayBoxes.boxes(maps.get(number), setting);
    if (!isChecked) return {boxes};
    const {enlarged, scaled} = CamrayBoxes.enlarge(maps.get(number), setting);
    return {boxes, checksums: [checksum(enlarged), checksum(scaled)]};
  });
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A map under a setting."""

    number: int  # of the map
    raw_hw: np.ndarray
    input: tuple[int, int]
    rectangle: tuple[float, ...]
    size: tuple[int, int]
    maps: MapConfig
    config: BoxConfig
    threshold: float

    def described(self) -> dict[str, Any]:
        """Return what the page is given."""
        setting = {"input": self.input, "recipe": self.maps.recipe, "normalise": self.maps.normalise}
        raw = base64.b64encode(self.raw_hw.tobytes()).decode()
        shape = {"raw": raw, "grid": self.raw_hw.shape, "rectangle": self.rectangle, "size": self.size}
        rest = {"components": self.config.components, "least_area": self.config.least_area}
        return {"number": self.number, "map": shape, "setting": {**setting, **rest, "threshold": self.threshold}}

    def boxes(self) -> dict[str, list[Any]]:
        """Return Python's boxes."""
        found = boxes_from_heatmaps(
            self.raw_hw[None],
            np.array([self.rectangle], np.float32),
            np.array([self.size]),
            self.input,
            self.maps,
            self.config,
            np.array([self.threshold]),
        )
        columns = {"box": "boxes_N4", "peak": "peak_N", "energy": "energy_N", "area_fraction": "area_fraction_N"}
        return {name: getattr(found, column).tolist() for name, column in (*columns.items(), ("rank", "rank_N"))}

    def checksums(self) -> list[int]:
        """Return numbers that differ where a bit of the enlarged maps does, but for the sign of 0."""
        enlarged = enlarge_and_normalise(self.raw_hw, self.input, self.maps)
        return [_checksum(map_YX) for map_YX in enlarged]


def _checksum(map_YX: np.ndarray) -> int:
    words = (map_YX + 0.0).ravel().view(np.uint32)
    return int((words * (2 * np.arange(len(words), dtype=np.uint32) + 1)).sum(dtype=np.uint32))


def cases_of(
    raws: list[np.ndarray],
    generator: np.random.Generator,
    *,
    settings: int,
    recipes: list[str],
    whole: bool = False,
) -> list[Case]:
    """Return each map with a geometry of its own, or that of a `whole` picture of its size, under some settings."""
    cases = []
    for number, raw_hw in enumerate(raws):
        size = tuple(generator.integers(20, 700, 2).tolist())
        into, rectangle = INPUTS[generator.integers(len(INPUTS))], _rectangle(size, generator)
        if whole:
            size, rectangle = into[::-1], (0, 0, *into[::-1])
        for _ in range(settings):
            maps = MapConfig(recipe=str(generator.choice(recipes)), normalise=str(generator.choice(NORMALISERS)))
            components = str(generator.choice(["largest", "all", "peaks", "peaks"]))
            min_area = None if components == "largest" else float(generator.choice([0, 0.01, 0.1]))
            cases.append(
                Case(
                    number=number,
                    raw_hw=raw_hw,
                    input=into,
                    rectangle=rectangle,
                    size=size,
                    maps=maps,
                    config=BoxConfig(components=components, min_area=min_area),
                    threshold=float(generator.choice(THRESHOLDS)),
                )
            )
    return cases


def _rectangle(size: tuple[int, int], generator: np.random.Generator) -> tuple[float, ...]:
    """Return the whole picture, a letterbox around it, or a part of it, in float32."""
    width, height = size
    more = float(generator.uniform(0.05, 0.45))
    found = {
        "warp": (0, 0, width, height),
        "letterbox": (0, -more * height, width, (1 + more) * height),
        "pillarbox": (-more * width, 0, (1 + more) * width, height),
        "crop": (more * width, more * height / 2, (1 - more) * width, (1 - more / 2) * height),
        "both": (more * width, -more * height, (1 - more) * width, (1 + more) * height),
    }[generator.choice(["warp", "warp", "letterbox", "pillarbox", "crop", "both"])]
    return tuple(np.array(found, np.float32).tolist())


def raw_maps(number: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield made-up maps: blobs, steps, mirrored ones with ties, negative and constant ones, and some with a NaN."""
    for place in range(number):
        grid = GRIDS[generator.integers(len(GRIDS)) if place % 3 == 0 else generator.integers(4)]
        blobs_hw = cv2.GaussianBlur(generator.normal(size=grid), (0, 0), generator.uniform(0.3, 2))
        kind = place % 10
        if kind in (4, 5):
            blobs_hw = np.rint(2 * blobs_hw / np.abs(blobs_hw).max())
        if kind in (5, 6):
            blobs_hw = np.maximum(blobs_hw, blobs_hw[:, ::-1])
        if kind == 7:
            blobs_hw = blobs_hw[:, :: generator.choice([-1, 1])] - 9
        if kind == 8:
            blobs_hw = np.maximum(blobs_hw, 0) * (blobs_hw > np.percentile(blobs_hw, 80))
        if kind == 9:
            blobs_hw[0, 0] = generator.choice([np.nan, np.inf, 0, 9])
            blobs_hw[:] = blobs_hw if generator.random() < 0.5 else generator.choice([-1, 0, 3])
        yield np.ascontiguousarray(blobs_hw, np.float32) * np.float32(10 ** generator.uniform(-3, 3))


def page_with_scripts(folder: Path) -> Path:
    """Write a page of nothing but the scripts."""
    scripts = "".join(f"<script>{(PAGE / name).read_text()}</script>" for name in ("maps.js", "boxes.js"))
    path = folder / "page.html"
    path.write_text(f'<!doctype html><meta charset="utf-8"><title>boxes</title>{scripts}')
    return path


def answers_of(page: Opened, cases: list[Case], *, checksums: bool = False) -> list[dict[str, Any]]:
    """Return what the page makes of the cases."""
    given = json.dumps([case.described() for case in cases])
    answers: list[dict[str, Any]] = page.page.evaluate(SCRIPT, [given, checksums])
    assert (page.requests, page.errors) == ([], [])
    return answers
