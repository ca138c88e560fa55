"""Maps of a run at the pixels of its pictures, by OpenCV's and torch's own functions: what exports must equal."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow.dataset as ds
import torch


def map_rows(run: Path) -> list[dict[str, object]]:
    """Return the rows of a run's heatmaps, with arrays."""
    table = ds.dataset(run / "heatmaps").to_table()
    maps = table["heatmap"].combine_chunks().to_numpy_ndarray()
    return [{**row, "raw": raw} for row, raw in zip(table.drop(["heatmap"]).to_pylist(), maps, strict=True)]


def values_at(
    raw_hw: np.ndarray, rectangle: list[float], side: int, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a map's normalised values at the pixels of a picture, and which of them it covers, both (H, W)."""
    enlarged_YX = np.maximum(cv2.resize(raw_hw.astype(float), (side, side), interpolation=cv2.INTER_CUBIC), 0)
    scaled_YX = torch.from_numpy(enlarged_YX / (enlarged_YX.max() or 1))
    x0, y0, x1, y1 = rectangle
    x_W = (2 * (torch.arange(width, dtype=torch.float64) + 0.5 - x0) / (x1 - x0) - 1).expand(height, width)
    y_H1 = (2 * (torch.arange(height, dtype=torch.float64) + 0.5 - y0) / (y1 - y0) - 1)[:, None].expand(height, width)
    places_1HW2 = torch.stack([x_W, y_H1], dim=-1)[None]
    sampled = torch.nn.functional.grid_sample(scaled_YX[None, None], places_1HW2, "bilinear", "border", False)
    return sampled[0, 0].numpy(), (places_1HW2.abs() < 1).all(-1)[0].numpy()
