"""The same arithmetic on Ray Data, to be measured beside `cluster.executors.ray_actors`: read, decode, actors, Parquet.

Decoding is a stage of its own: with both in one operator the read tasks wait for a CPU that never comes, on two cores.
Letters: B batch, K classes, C channels, S side of the input.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import ray
import ray.data
import torch
import torch._inductor.config
from torch import Tensor, nn

from cam_ops.arrays import F32, U8
from cam_ops.errors import MachineError

SIDE = 224
BATCH_SIZE = 16
NUM_BLOCKS = 16
NUM_STARTUP_IMAGES = 64  # a first run of so many is taken for the time of starting
THRESHOLD = 0.2
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def run_on_ray_data(
    trunk: nn.Module, weight_KC: Tensor, bias_K: Tensor, files: list[str], precision: Literal["fp32", "bf16"]
) -> dict[str, float]:
    """Label `files` in a Ray of its own, which ends with this call; `trunk` makes the features of an image batch.

    Returns seconds and images per second in all, and steady: with a first, short run subtracted as start-up.
    """
    num_actors = len(os.sched_getaffinity(0))
    try:
        ray.init(address="local", num_cpus=2 * num_actors, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise MachineError(f"cannot start Ray on this machine: {str(error).splitlines()[0]}") from None
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        arguments = (ray.put(trunk), weight_KC, bias_K, precision)
        starting = _seconds(files[:NUM_STARTUP_IMAGES], arguments, num_actors)
        seconds = _seconds(files, arguments, num_actors)
    finally:
        ray.shutdown()
    steady = (len(files) - NUM_STARTUP_IMAGES) / (seconds - starting) if len(files) > NUM_STARTUP_IMAGES else 0.0
    return {
        "seconds": round(seconds, 3),
        "images_per_s": round(len(files) / seconds, 2),
        "startup_s": round(starting, 3),
        "steady_images_per_s": round(steady, 2),
    }


def _seconds(files: list[str], arguments: tuple[Any, ...], num_actors: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        (
            ray.data.read_binary_files(files, include_paths=True, override_num_blocks=NUM_BLOCKS)
            .map_batches(_decode, batch_size=BATCH_SIZE, num_cpus=0.5)
            .map_batches(
                _Labeller,
                fn_constructor_args=arguments,
                batch_size=BATCH_SIZE,
                num_cpus=1,
                compute=ray.data.ActorPoolStrategy(size=num_actors),
            )
            .write_parquet(str(Path(folder) / "boxes"))
        )
        return time.perf_counter() - start


def _decode(rows: Any) -> dict[str, Any]:
    """Decode and resize a batch to RGB, (B, S, S, 3)."""
    cv2.setNumThreads(1)
    return {"path": rows["path"], "image": np.stack([_resized(content) for content in rows["bytes"]])}


def _resized(content: bytes) -> U8:
    image_HWC = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)
    return np.asarray(cv2.resize(image_HWC, (SIDE, SIDE)), np.uint8)


class _Labeller:
    """The actor: a compiled network for its whole life."""

    def __init__(self, trunk: Any, weight_KC: Tensor, bias_K: Tensor, precision: str) -> None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        torch._inductor.config.freezing = True
        self.dtype, self.weight_KC, self.bias_K = DTYPES[precision], weight_KC, bias_K
        network = ray.get(trunk).to(self.dtype).to(memory_format=torch.channels_last)
        self.trunk: Any = torch.compile(network)
        self._features(torch.zeros(BATCH_SIZE, 3, SIDE, SIDE))  # compiles

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        num_images = len(rows["image"])
        images_BCSS = torch.from_numpy(np.ascontiguousarray(rows["image"])).permute(0, 3, 1, 2)
        padding_BCSS = images_BCSS.new_zeros(BATCH_SIZE - num_images, 3, SIDE, SIDE)
        images_BCSS = torch.cat([images_BCSS, padding_BCSS])
        features_BCHW = self._features((images_BCSS.float() - 118) / 58)
        class_B = (features_BCHW.mean((2, 3)) @ self.weight_KC.T + self.bias_K).argmax(1)
        cams_BHW = torch.einsum("bchw,bc->bhw", features_BCHW, self.weight_KC[class_B])[:num_images].numpy()
        return {
            "path": rows["path"],
            "map": [cam_HW.tobytes() for cam_HW in cams_BHW],
            "box": np.array([_largest_box(cam_HW) for cam_HW in cams_BHW]),
        }

    def _features(self, images_BCSS: Tensor) -> Tensor:
        with torch.no_grad():
            batch_BCSS = images_BCSS.to(self.dtype).contiguous(memory_format=torch.channels_last)
            features_BCHW: Tensor = self.trunk(batch_BCSS)["features"].float()
        return features_BCHW


def _largest_box(cam_HW: F32) -> tuple[int, int, int, int]:
    enlarged_SS = cv2.resize(cam_HW, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    low, high = enlarged_SS.min(), enlarged_SS.max()
    mask_SS = (enlarged_SS - low >= THRESHOLD * (high - low)).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask_SS)
    x, y, width, height = (int(value) for value in stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax(), :4])
    return x, y, x + width, y + height
