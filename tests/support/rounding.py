"""Measure what rounding costs: bf16 and fp16, eager and compiled, against the same network in float32.

    python -m tests.support.rounding PHOTOS MODEL ... [--precision fp16]

Prints the largest difference of logits and of features, each relative to the largest value of its kind, on a batch of
noise and on one of photographs (a folder of folders). The demo's network has its weights. Names get random ones and,
as a trained network has them, batch norms of many scales: statistics of the photographs, random weights and biases.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from cam_ops.explain.forward import Compiled, Forward, compile_to, distance, load_compiled, results_of
from cam_ops.explain.mapper import Mapper
from cam_ops.network.load import load_classifier
from cam_ops.network.names import is_factory
from cam_ops.pictures.decode import decode_for
from cam_ops.pictures.fit import fit
from cam_ops.settings import ExplainConfig, ModelConfig, Preprocessing, RefineConfig
from cluster.machine.precision import DTYPES

BATCH = 16


def photographs(folder: Path, preprocessing: Preprocessing) -> Tensor:
    """Return as many photographs as a batch has, of as many folders, as the network takes them."""
    files = sorted(folder.glob("*/*"))
    files = files[:: len(files) // BATCH][:BATCH]
    fitted = [fit(decode_for(file.read_bytes(), preprocessing), preprocessing)[0] for file in files]
    return torch.from_numpy(np.ascontiguousarray(np.stack(fitted))).permute(0, 3, 1, 2)


def normalise(network: nn.Module, images_BCHW: Tensor) -> None:
    """Give batch norms the statistics of these images, weights of 0.5 to 1.5 and biases of -0.5 to 0.5."""
    torch.manual_seed(0)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        norm.train()
    network(images_BCHW)
    network.eval()


def measure(model: str, precision: str, photos: Path) -> None:
    """Print a line for each input and output."""
    config = ModelConfig(model=model, weights="random")
    if is_factory(model):
        config = ModelConfig(model=model, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    classifier = load_classifier(config)
    shape = classifier.preprocessing
    photos_BCSS = photographs(photos, shape)
    mean_311, std_311 = (torch.tensor(triple)[:, None, None] for triple in (shape.mean, shape.std))
    if not is_factory(model):
        normalise(classifier.network, (photos_BCSS / 255 - mean_311) / std_311)
    refine = RefineConfig(refine="affinity")
    mapper = Mapper(classifier.network, ExplainConfig(), shape.image_size, shape.mean, shape.std, refine)
    cpu, dtype = torch.device("cpu"), DTYPES[precision]

    def compare(forward: Forward, noise_BCSS: Tensor) -> Compiled:
        with TemporaryDirectory() as folder:
            paths = [Path(folder, f"{number}.so") for number in range(forward.num_libraries)]
            compile_to(paths, forward, noise_BCSS, cpu, dtype)
            compiled = load_compiled(paths, forward.explainer, cpu)
        rounded = forward.on(cpu, dtype)
        for what, pixels_BCSS in {"noise": noise_BCSS, "photos": photos_BCSS}.items():
            class_P = forward(pixels_BCSS)[0].argmax(1)
            exact, eager, found = (
                results_of(engine, engine.explainer, pixels_BCSS, class_P) for engine in (forward, rounded, compiled)
            )
            for place, kind in enumerate(("logits", "features", "refined maps")):
                own, compiled_own, apart = (
                    distance([a[place]], [b[place]]) for a, b in ((eager, exact), (found, exact), (found, eager))
                )
                print(
                    f"{model} {precision} {what} {kind}: eager {own:.1e}, compiled {compiled_own:.1e} "
                    f"({compiled_own / own:.2f}x), apart {apart:.1e}",
                    flush=True,
                )
        return compiled

    with torch.no_grad():
        mapper.compile(compare, BATCH)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--precision", default="bf16", choices=sorted(DTYPES))
    asked = parser.parse_args()
    for name in asked.models:
        measure(name, asked.precision, asked.photos)
