"""Turn a raw class activation map into boxes of the original picture.

Boxes are float32 ``(x0, y0, x1, y1)``, half-open: a one-pixel blob at row 3, column 5 is ``(5, 3, 6, 4)``, area 1.
Letters: P maps, h, w the network's own grid, Y, X height and width of the enlarged map, N boxes or regions.
"""

from dataclasses import dataclass

import numpy as np

from cam_ops.arrays import F32, F64, I64, Bools
from cam_ops.boxes.normalise import Enlarger
from cam_ops.boxes.peaks import pieces_above
from cam_ops.boxes.regions import regions_above
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
    is_positive_part = maps.recipe == "default" and maps.normalise == "max"  # that is what is normalised, by its peak
    enlarger, mask_YX = Enlarger(size, maps), np.empty(height_and_width(size), np.bool_)
    keys: list[tuple[int, int]] = []  # place of map and threshold, of each region
    regions: list[I64] = [np.zeros((0, 4), np.int64)]
    peaks: list[F64] = [np.zeros(0)]
    energies: list[F64] = [np.zeros(0)]
    for place, raw_hw in enumerate(raw_Phw):
        enlarged_YX, scaled_YX = enlarger.enlarge(raw_hw)
        _clear_padding((enlarged_YX, scaled_YX), rectangle_P4[place], size_P2[place])
        thresholds = config.threshold if threshold_P is None else (float(threshold_P[place]),)
        area = _picture_area(rectangle_P4[place], size_P2[place], mask_YX.size)
        above = [_wanted_regions(scaled_YX, threshold, config, area, mask_YX) for threshold in thresholds]
        positive_YX = scaled_YX if is_positive_part else np.maximum(enlarged_YX, 0, out=enlarged_YX)
        energies.append(_energy_shares(positive_YX, [region for regions_N4, _ in above for region in regions_N4]))
        for number, (regions_N4, peak_N) in enumerate(above):
            keys += [(place, number)] * len(peak_N)
            regions.append(regions_N4)
            peaks.append(peak_N)
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
        energy_N=np.concatenate(energies)[order_N].astype(np.float32),
        area_fraction_N=(area_N / size_P2[map_N].prod(1))[order_N].astype(np.float32),
        rank_N=np.arange(len(list_N)) - np.searchsorted(list_N, list_N),
        threshold_N=np.array(config.threshold, np.float32)[number_N]
        if threshold_P is None
        else threshold_P[map_N].astype(np.float32),
    )


def _wanted_regions(map_YX: F64, threshold: float, config: BoxConfig, area: float, mask_YX: Bools) -> tuple[I64, F64]:
    """Return the bounds and peaks of the regions to box, of a picture of `area`; `mask_YX` is memory to work in."""
    find = pieces_above if config.components == "peaks" else regions_above
    regions_N4, sizes_N, peak_N = find(map_YX, threshold, mask_YX)
    if config.components == "largest" and len(sizes_N) > 1:
        largest = [int(sizes_N.argmax())]
        return regions_N4[largest], peak_N[largest]
    kept_N = sizes_N / area >= config.least_area
    return regions_N4[kept_N], peak_N[kept_N]


def _picture_area(rectangle: F32, size: I64, map_area: int) -> float:
    """Return the area of the whole picture in map pixels: other than the map's where it is padded or cut."""
    x0, y0, x1, y1 = rectangle.tolist()
    width, height = size.tolist()
    return float(map_area * (width * height) / ((x1 - x0) * (y1 - y0)))


def _clear_padding(maps: tuple[F64, ...], rectangle: F32, size: I64) -> None:
    """Set to 0 the pixels of enlarged maps, each (Y, X), with their centre outside a picture of (width, height)."""
    x0, y0, x1, y1 = rectangle.tolist()
    width, height = size.tolist()
    if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
        return
    centres_Y, centres_X = ((np.arange(pixels) + 0.5) / pixels for pixels in maps[0].shape)
    x_X, y_Y = x0 + centres_X * (x1 - x0), y0 + centres_Y * (y1 - y0)
    for map_YX in maps:
        map_YX[(y_Y <= 0) | (y_Y >= height)] = 0
        map_YX[:, (x_X <= 0) | (x_X >= width)] = 0


def _to_original(regions_N4: I64, rectangle_N4: F32, size_N2: I64, size: Size) -> F32:
    corner_N4 = np.tile(rectangle_N4[:, :2].astype(np.float64), 2)
    height, width = height_and_width(size)
    scale_N4 = (np.tile(rectangle_N4[:, 2:].astype(np.float64), 2) - corner_N4) / np.array([width, height] * 2)
    clipped: F32 = np.clip(regions_N4 * scale_N4 + corner_N4, 0, np.tile(size_N2, 2)).astype(np.float32)
    return clipped


def _energy_shares(positive_YX: F64, regions: list[I64]) -> F64:
    """Return each region's share of the mass."""
    total = positive_YX.sum()
    if not total > 0:
        return np.zeros(len(regions))
    return np.array([positive_YX[y0:y1, x0:x1].sum() / total for x0, y0, x1, y1 in regions])
