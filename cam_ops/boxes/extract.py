"""Turn a raw class activation map into boxes of the original picture.

Boxes are float32 ``(x0, y0, x1, y1)``, half-open: a one-pixel blob at row 3, column 5 is ``(5, 3, 6, 4)``, area 1.
Letters: P maps, h, w the network's own grid, Y, X height and width of the enlarged map, N boxes or regions.
"""

from dataclasses import dataclass
from math import inf

import numpy as np

from cam_ops.arrays import F32, F64, I64
from cam_ops.boxes.kernels import highest, mass
from cam_ops.boxes.normalise import Enlarger, base_of
from cam_ops.boxes.peaks import pieces_above
from cam_ops.boxes.regions import Levels, Window, Workspace
from cam_ops.settings import BoxConfig, MapConfig, Size, height_and_width


@dataclass(frozen=True, slots=True, kw_only=True)
class MapBoxes:
    """The boxes of some maps, by map, then threshold as configured, best first; all arrays have length N."""

    map_N: I64  # place of the map
    boxes_N4: F32  # pixels of the original picture, clipped to it
    peak_N: F32  # value of the normalised map at the box's maximum
    energy_N: F32  # share of the raw map's positive mass that lies inside the box, 0 if it has none
    area_fraction_N: F32  # box area over picture area
    rank_N: I64  # 0 is the best of its map and threshold
    threshold_N: F32


def boxes_from_heatmaps(
    raw_Phw: F32,
    rectangle_P4: F32,
    size_P2: I64,
    size: Size,
    maps: MapConfig,
    config: BoxConfig,
    threshold_P: F64 | None = None,
) -> MapBoxes:
    """Box the objects of raw maps, in pixels of the original pictures, whose width and height is `size_P2`.

    `rectangle_P4` is the part of the original that the map's grid covers and `size` the network's input size, to which
    a map is enlarged first. What lies outside the picture (letterbox padding) belongs to no box. The boxes of a map and
    a threshold are ordered by peak, then area, then position (top, left). A constant map has none. Where `threshold_P`
    is given, each map has its own threshold, and those of `config` do not count.
    """
    enlarger, workspace = Enlarger(size, maps), Workspace(height_and_width(size))
    keys: list[tuple[int, int]] = []  # place of map and threshold, of each region
    regions: list[I64] = [np.zeros((0, 4), np.int64)]
    peaks: list[F64] = [np.zeros(0)]
    energies: list[float] = []
    for place, raw_hw in enumerate(raw_Phw):
        rectangle, picture = rectangle_P4[place].tolist(), size_P2[place].tolist()
        levels = _levels(enlarger, raw_hw, _window(workspace, rectangle, picture), workspace)
        thresholds = config.threshold if threshold_P is None else (float(threshold_P[place]),)
        area = _picture_area(rectangle, picture, levels.map_YX.size)
        total = mass(enlarger.enlarged_YX, *workspace.whole, workspace.row_X)
        for number, threshold in enumerate(thresholds):
            regions_N4, peak_N = _wanted_regions(levels, threshold, config, area, workspace)
            keys += [(place, number)] * len(peak_N)
            regions.append(regions_N4)
            peaks.append(peak_N)
            for x0, y0, x1, y1 in regions_N4.tolist():
                inside = mass(enlarger.enlarged_YX, y0, x0, y1, x1, workspace.row_X)
                energies.append(inside / total if total > 0 else 0.0)
    map_N, number_N = np.array(keys, np.int64).reshape(-1, 2).T
    peak_N = np.concatenate(peaks)
    boxes_N4 = _to_original(np.concatenate(regions), rectangle_P4[map_N], size_P2[map_N], size)
    area_N = (boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1])
    order_N = np.lexsort((boxes_N4[:, 0], boxes_N4[:, 1], -area_N, -peak_N, number_N, map_N))  # the last counts first
    list_N = map_N * (1 + number_N.max(initial=0)) + number_N
    return MapBoxes(
        map_N=map_N,
        boxes_N4=boxes_N4[order_N],
        peak_N=peak_N[order_N].astype(np.float32),
        energy_N=np.array(energies)[order_N].astype(np.float32),
        area_fraction_N=(area_N / size_P2[map_N].prod(1))[order_N].astype(np.float32),
        rank_N=np.arange(len(list_N)) - np.searchsorted(list_N, list_N),
        threshold_N=np.array(config.threshold, np.float32)[number_N]
        if threshold_P is None
        else threshold_P[map_N].astype(np.float32),
    )


def _levels(enlarger: Enlarger, raw_hw: F32, window: Window, workspace: Workspace) -> Levels:
    """Enlarge a map, and say what its values stand for; the enlarged map is 0 outside the window then."""
    map_YX, base, unit = enlarger.enlarge_only(raw_hw), 0.0, 1.0
    high = whole_high = float(highest(map_YX, *workspace.whole, workspace.row_X))
    if enlarger.config.recipe == "default":
        base = float(base_of(map_YX, enlarger.config.normalise))
        unit = whole_high - base if whole_high > base else 1.0
    if window != workspace.whole:
        high = float(highest(map_YX, *window, workspace.row_X)) if any(window) else base
        _clear_around(enlarger.enlarged_YX, window)
    return Levels(map_YX, window, base, unit, high)


def _wanted_regions(
    levels: Levels, threshold: float, config: BoxConfig, area: float, workspace: Workspace
) -> tuple[I64, F64]:
    """Return the bounds and peaks of the regions to box, of a picture of `area`."""
    if config.components == "peaks":
        scaled_YX = np.maximum((levels.map_YX - levels.base) / levels.unit, 0)
        _clear_around(scaled_YX, levels.window)
        regions_N4, sizes_N, peak_N = pieces_above(scaled_YX, threshold)
    else:
        regions_N4, sizes_N, peak_N = levels.above(threshold, workspace)
    if config.components == "largest" and len(sizes_N) > 1:
        largest = [int(sizes_N.argmax())]
        return regions_N4[largest], peak_N[largest]
    kept_N = sizes_N / area >= config.least_area
    return regions_N4[kept_N], peak_N[kept_N]


def _picture_area(rectangle: list[float], size: list[int], map_area: int) -> float:
    """Return the area of the whole picture in map pixels: other than the map's where it is padded or cut."""
    x0, y0, x1, y1 = rectangle
    width, height = size
    covered = (x1 - x0) * (y1 - y0)
    return map_area * (width * height) / covered if covered else inf


def _window(workspace: Workspace, rectangle: list[float], size: list[int]) -> Window:
    """Return the pixels of an enlarged map with their centre inside a picture of (width, height), perhaps none."""
    x0, y0, x1, y1 = rectangle
    width, height = size
    if 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height:
        return workspace.whole
    _, _, rows, columns = workspace.whole
    y_Y, x_X = y0 + (np.arange(rows) + 0.5) / rows * (y1 - y0), x0 + (np.arange(columns) + 0.5) / columns * (x1 - x0)
    inside_Y, inside_X = np.flatnonzero((y_Y > 0) & (y_Y < height)), np.flatnonzero((x_X > 0) & (x_X < width))
    if not (len(inside_Y) and len(inside_X)):
        return 0, 0, 0, 0
    return int(inside_Y[0]), int(inside_X[0]), int(inside_Y[-1]) + 1, int(inside_X[-1]) + 1


def _clear_around(map_YX: F64, window: Window) -> None:
    y0, x0, y1, x1 = window
    map_YX[:y0], map_YX[y1:], map_YX[:, :x0], map_YX[:, x1:] = 0, 0, 0, 0


def _to_original(regions_N4: I64, rectangle_N4: F32, size_N2: I64, size: Size) -> F32:
    corner_N4 = np.tile(rectangle_N4[:, :2].astype(np.float64), 2)
    height, width = height_and_width(size)
    scale_N4 = (np.tile(rectangle_N4[:, 2:].astype(np.float64), 2) - corner_N4) / np.array([width, height] * 2)
    clipped: F32 = np.clip(regions_N4 * scale_N4 + corner_N4, 0, np.tile(size_N2, 2)).astype(np.float32)
    return clipped
