"""Image classifiers of Hugging Face's `transformers`, from a local snapshot: `hf:FOLDER`.

The folder holds config.json, weights as safetensors, and preprocessor_config.json, which says how its input is made.
No code of the folder is run, and nothing is unpickled.
"""

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cam_ops.class_lists import check_both_ways
from cam_ops.classes import ScoreKind
from cam_ops.documents import json_of
from cam_ops.errors import MachineError, UsageError
from cam_ops.network.names import CONFIG, HUB, check_snapshot
from cam_ops.network.takes import UNREADABLE, size_of
from cam_ops.outside import RAISE, bounded_memory, raised, size_of_file
from cam_ops.settings import Interpolation, PerChannel, Size

PREPROCESSOR = "preprocessor_config.json"
MAX_BYTES = 2**24
MOST_TAKEN = 6  # times the size of the weights, of memory: float16 becomes float32, twice
ALWAYS_TAKEN = 2**30  # bytes beside that
INPUT_TAKEN = 2**31  # bytes, to see what becomes of pictures
RESAMPLING: dict[object, Interpolation] = {2: "bilinear", 3: "bicubic"}  # as Pillow numbers them
VALUES, SIDE = (0, 128, 255), 640  # of pictures to see what becomes of
FLAT = 1e-3
ROUNDING = 1e-5
NUM_STEPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """How a picture becomes the network's input."""

    mean: PerChannel
    std: PerChannel
    is_bgr: bool  # the network takes blue first; mean and std are for RGB all the same
    size: Size | None  # None where pictures keep theirs
    interpolation: Interpolation
    crop_fraction: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A network of the hub, and what its files say."""

    network: nn.Module
    name: str  # `hf:` and the folder's own name
    path: str  # for the model's digest
    categories: list[str] | None
    scores: ScoreKind | None  # as its config says, None where it does not
    input: Input | None  # None where the folder does not say
    size: Size | None


def load_snapshot(model: str) -> Snapshot:
    """Load `hf:FOLDER`.

    Raises UsageError where the folder holds no image classifier that transformers knows by itself, or weights do not
    fit; MachineError where it is not there, or transformers is not installed.
    """
    folder = check_snapshot(model)
    config = _json(folder / CONFIG, model)
    assert config is not None
    transformers = _transformers(model)
    network = _network(transformers, folder, model)
    said = _json(folder / PREPROCESSOR, model)
    made = None if said is None else _input(transformers, folder, model)
    is_bgr = made is not None and made.is_bgr
    if is_bgr:
        network.register_forward_pre_hook(_to_bgr)
    return Snapshot(
        network=network,
        name=f"{HUB}{folder.resolve().name}",
        path=f"transformers:{type(network).__name__}{':bgr' if is_bgr else ''}",
        categories=_categories(network, model),
        scores="sigmoid" if config.get("problem_type") == "multi_label_classification" else None,
        input=made,
        size=(made and made.size) or _stated_size(config),
    )


def _transformers(model: str) -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is looked up
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        raise MachineError(
            f"--model {model} needs the package transformers, which is not installed; pip install 'camray[hf]'"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


@contextmanager
def _refusing(sentence: str) -> Iterator[None]:
    """Raise UsageError with the sentence and the reason for whatever the library raises for files of others."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # noqa: BLE001  in its own way
        reason = str(error).strip().partition("\n")[0][:300]
        raise UsageError(f"{sentence} ({type(error).__name__}: {reason})") from None


def _json(path: Path, model: str) -> dict[str, Any] | None:
    """Return a JSON object, None where there is no such file."""
    try:
        if size_of_file(path) > (most := raised(MAX_BYTES)):
            raise ValueError(f"it has more than {most} bytes; shorten it, {RAISE}")
        document = json_of(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"--model {model}: cannot read {path}: {error}") from None
    if not isinstance(document, dict):
        raise UsageError(f"--model {model}: expected an object of JSON in {path}, found {type(document).__name__}")
    return document


def _network(transformers: Any, folder: Path, model: str) -> nn.Module:
    """Return the classifier with its weights; raises UsageError where there is none, or a weight is missing."""
    files = list(folder.glob("*.safetensors"))
    if not files:
        raise UsageError(
            f"--model {model}: expected its weights as *.safetensors in {folder}, there are none; other files would "
            "have to be unpickled: load them where you trust them, and save with save_pretrained(FOLDER)"
        )
    refusing = _refusing(f"--model {model}: transformers finds no image classifier in {folder} that it knows by itself")
    with refusing, bounded_memory(raised(MOST_TAKEN * sum(map(size_of_file, files)) + ALWAYS_TAKEN)):
        network, loading = transformers.AutoModelForImageClassification.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype="float32",
        )
    for kind in ("missing_keys", "mismatched_keys"):
        if names := sorted(map(str, loading.get(kind) or ())):
            raise UsageError(
                f"--model {model}: the weights in {folder} lack {len(names)} of the network's, such as "
                f"{names[0][:200]}, which would be random; is it a classifier, and not what one is made of?"
            )
    return network  # type: ignore[no-any-return]


def _categories(network: Any, model: str) -> list[str] | None:
    """Return the classes' names in order, None where they are but numbers."""
    names = getattr(network.config, "id2label", None) or {}
    if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
        return None
    with _refusing(f"--model {model}: {CONFIG} contradicts itself"):
        check_both_ways(names, getattr(network.config, "label2id", None))
    ordered = [str(names[key]) for key in sorted(names, key=int)]
    return None if ordered == [f"LABEL_{number}" for number in range(len(ordered))] else ordered


def _input(transformers: Any, folder: Path, model: str) -> Input:
    """Return how the input is made: what the library's own preprocessing makes of black, gray and white pictures."""
    refusing = _refusing(f"--model {model}: transformers cannot make an input as {PREPROCESSOR} says")
    with refusing, bounded_memory(raised(INPUT_TAKEN)):
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        pictures = [torch.full((3, SIDE, SIDE), value, dtype=torch.uint8) for value in VALUES]
        pictures.append(torch.tensor(VALUES, dtype=torch.uint8)[:, None, None].expand(3, SIDE, SIDE))
        *made, ramp_CHW = processor([*pictures, _ramp()], return_tensors="pt")["pixel_values"].double()
        made_NCHW = torch.stack(made)
        black_C, gray_C, white_C, colour_C = made_NCHW.mean((2, 3))
    slope_C = (white_C - black_C) / 255
    is_linear = torch.allclose(gray_C, black_C + VALUES[1] * slope_C, rtol=1e-3, atol=1e-3)
    if len(slope_C) != 3 or not is_linear or not (slope_C > 0).all() or made_NCHW.std((2, 3)).max() > FLAT:
        raise UsageError(
            f"--model {model}: what {PREPROCESSOR} makes of a picture is no RGB, less a mean and divided by a "
            "deviation; give the network by a factory, with mean and std"
        )
    is_bgr = bool(colour_C[0] > gray_C[0])
    if is_bgr:
        black_C, slope_C = black_C.flip(0), slope_C.flip(0)
    mean = _as_said(-black_C / slope_C / 255, getattr(processor, "image_mean", None))
    std = _as_said(1 / slope_C / 255, getattr(processor, "image_std", None))
    resample = getattr(processor, "resample", None)
    height, width = made_NCHW.shape[2:]
    size: Size | None = None
    if (height, width) != (SIDE, SIDE) or getattr(processor, "do_resize", True):
        try:
            size = size_of((height, width))
        except UNREADABLE:
            raise UsageError(
                f"--model {model}: {PREPROCESSOR} makes pictures of {width}x{height}; give --image-size"
            ) from None
    notes = [] if resample in RESAMPLING else [f"input: {PREPROCESSOR} resamples by {resample}, bilinear is taken"]
    notes += [f"input: BGR, as {PREPROCESSOR} says"] if is_bgr else []
    return Input(
        mean=mean,
        std=std,
        is_bgr=is_bgr,
        size=size,
        interpolation=RESAMPLING.get(resample, "bilinear"),
        crop_fraction=_crop_fraction(ramp_CHW[0] / slope_C[0]),
        notes=tuple(notes),
    )


def _to_bgr(network: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    (images_BCHW,) = given
    return (images_BCHW.flip(1),)


def _as_said(measured_C: Tensor, said: Any) -> tuple[float, float, float]:
    """Return what was measured as the processor writes it, where it is that but for float32's rounding."""
    named = list(said) if isinstance(said, (list, tuple)) else [said] * 3
    named += [None] * (3 - len(named))
    red, green, blue = (
        float(word) if isinstance(word, (int, float)) and abs(word - value) < ROUNDING else round(value, 6) + 0.0
        for value, word in zip(measured_C.tolist(), named, strict=False)
    )
    return red, green, blue


def _ramp() -> Tensor:
    """Return a picture that becomes lighter from left to right, steps so small that only rows together show them."""
    levels_X = torch.arange(SIDE) * (VALUES[-1] / SIDE)
    return (levels_X + torch.arange(SIDE)[:, None] % NUM_STEPS / NUM_STEPS).floor().to(torch.uint8).expand(3, -1, -1)


def _crop_fraction(ramp_YX: Tensor) -> float:
    """Return which part of the ramp's side is in the input that was made of it, in whole pixels of what was cropped."""
    side = ramp_YX.shape[1]
    inner_X = ramp_YX.mean(0)[side // 8 : side - side // 8]  # borders are resampled otherwise
    part = float((inner_X[-1] - inner_X[0]) / (len(inner_X) - 1)) * side / VALUES[-1]
    return min(1.0, side / max(1, round(side / part))) if part > 0 else 1.0


def _stated_size(config: dict[str, Any]) -> Size | None:
    with suppress(*UNREADABLE):
        return size_of(config.get("image_size"))
    return None
