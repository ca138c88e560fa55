"""Make pictures of textured shapes with known boxes: `python -m tests.support.shapes OUT --split val --num-images 100`.

Leaves `OUT/val/CLASS/NUMBER.png`, `OUT/val_boxes.csv` (a truth of the format `table`) and `OUT/classes.txt`. A picture
has one to three shapes of one class, apart from each other and whole, on a textured ground with clutter of no class.
Outlines tell the class. So does texture, half: two classes share each, and a quarter of the shapes has any. Shapes are
of a dark and a bright colour, the ground between. Picture number i of a split and a seed is always the same, whatever
their number.

Letters: H, W rows and columns of a picture; N its shapes; P points of an outline. Pictures are RGB, uint8. Boxes are
half-open pixels (x0, y0, x1, y1). Outlines are (x, y), within the unit circle or nearly so.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Random = np.random.Generator

SIZE_PX = 128
SPLITS = ("train", "val")
RADII_PX = {1: (24, 54), 2: (18, 32), 3: (16, 27)}  # by the number of shapes
OVERSAMPLING = 4
OWN_TEXTURE = 0.75  # share of the shapes that have the texture of their class
TEXTURES = ("clouds", "blotches", "stripes", "checks", "dots")  # of class i number i modulo 5
CLASSES = ("arrow", "crescent", "cross", "disc", "heart", "hourglass", "ring", "square", "star", "triangle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture, and all that is known of it."""

    image_HWC: U8
    ground_HWC: U8  # the same without its shapes
    label: int
    masks_NHW: Bools
    boxes_N4: npt.NDArray[np.int64]


def draw(split: str, seed: int, number: int) -> Picture:
    """Draw picture ``number`` of a split. Its class is ``number`` modulo the number of classes."""
    random = np.random.default_rng([seed, SPLITS.index(split), number])
    label = number % len(CLASSES)
    ground_HWC = _ground(random)
    image_HWC = ground_HWC.copy()
    masks_NHW = _masks(random, CLASSES[label])
    for mask_HW in masks_NHW:
        image_HWC[mask_HW] = _surface(random, label)[mask_HW]
    boxes_N4 = np.array([_box(mask_HW) for mask_HW in masks_NHW])
    return Picture(
        image_HWC=image_HWC, ground_HWC=ground_HWC, label=label, masks_NHW=np.array(masks_NHW), boxes_N4=boxes_N4
    )


def write_split(out: Path, split: str, seed: int, num_images: int) -> None:
    """Write a split's pictures, its boxes, and the classes' names."""
    for name in CLASSES:
        (out / split / name).mkdir(parents=True, exist_ok=True)
    lines = ["image_id,x0,y0,x1,y1,class"]
    for number in range(num_images):
        picture = draw(split, seed, number)
        name = CLASSES[picture.label]
        image_id = f"{name}/{number:06d}.png"
        cv2.imwrite(str(out / split / image_id), np.ascontiguousarray(picture.image_HWC[..., ::-1]))
        lines += [f"{image_id},{x0},{y0},{x1},{y1},{name}" for x0, y0, x1, y1 in picture.boxes_N4.tolist()]
    (out / f"{split}_boxes.csv").write_text("\n".join(lines) + "\n")
    (out / "classes.txt").write_text("\n".join(CLASSES) + "\n")


def outlines_of(name: str) -> list[F64]:
    """Return the closed outlines (P, 2) of a class: what lies within an odd number of them is the shape."""
    return OUTLINES[name]()


def fill(outlines: list[F64]) -> Bools:
    """Return the pixels (H, W) of which outlines in pixels, (P, 2) each, cover at least half."""
    fine_HW = np.zeros((SIZE_PX * OVERSAMPLING, SIZE_PX * OVERSAMPLING), np.uint8)
    scaled = [np.round(points_P2 * OVERSAMPLING - 0.5).astype(np.int32) for points_P2 in outlines]
    cv2.fillPoly(fine_HW, scaled, 255)
    return np.asarray(cv2.resize(fine_HW, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA) >= 128)


def _masks(random: Random, name: str) -> list[Bools]:
    """Return the masks of one to three shapes that are whole and do not touch; of fewer where there is no room."""
    wanted = int(random.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    masks: list[Bools] = []
    taken_HW = np.zeros((SIZE_PX, SIZE_PX), bool)
    for _ in range(40):
        outlines = _placed(random, outlines_of(name), random.uniform(*RADII_PX[wanted]))
        points_P2 = np.concatenate(outlines)
        if points_P2.min() < 1 or points_P2.max() > SIZE_PX - 1:
            continue
        mask_HW = fill(outlines)
        x0, y0, x1, y1 = _box(mask_HW)
        if taken_HW[y0:y1, x0:x1].any():
            continue
        taken_HW[max(y0 - 3, 0) : y1 + 3, max(x0 - 3, 0) : x1 + 3] = True
        masks.append(mask_HW)
        if len(masks) == wanted:
            break
    return masks or [fill([points_P2 * 20 + SIZE_PX / 2 for points_P2 in outlines_of(name)])]


def _placed(random: Random, outlines: list[F64], radius_px: float) -> list[F64]:
    """Squeeze, turn, enlarge and move outlines at random; they may lie partly outside of the picture."""
    angle = random.uniform(0, 2 * np.pi)
    turn_22 = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    squeeze_2 = np.array([1.0, random.uniform(0.75, 1.0)])
    turned = [(points_P2 * squeeze_2) @ turn_22.T * radius_px for points_P2 in outlines]
    low_2, high_2 = np.concatenate(turned).min(0), np.concatenate(turned).max(0)
    at_2 = random.uniform(0, 1, 2) * (SIZE_PX - 2 - (high_2 - low_2)) + 1 - low_2
    return [points_P2 + at_2 for points_P2 in turned]


def _box(mask_HW: Bools) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _ground(random: Random) -> U8:
    """Return a texture (H, W, 3) with two to six pieces of clutter: blots, strokes and crumbs."""
    first_3 = random.uniform(70, 185, 3)
    ground_HWC = _texture(random, "clouds", first_3, first_3 + random.normal(0, 25, 3))
    for _ in range(int(random.integers(2, 7))):
        kind = random.integers(3)
        if kind == 0:
            points_P2 = _blot(random) * random.uniform(4, 14) + random.uniform(0, SIZE_PX, 2)
            mask_HW = fill([points_P2])
        else:
            canvas_HW = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
            start_2, step_2 = random.uniform(0, SIZE_PX, 2), random.uniform(-1, 1, 2)
            num_points, length_px, thickness = (2, 60, int(random.integers(1, 5))) if kind == 1 else (7, 12, 3)
            points_P2 = start_2 + np.linspace(0, 1, num_points)[:, None] * step_2 * length_px
            if kind == 1:
                cv2.polylines(canvas_HW, [np.round(points_P2).astype(np.int32)], False, 255, thickness)
            for x, y in np.round(points_P2 + random.normal(0, 6, points_P2.shape)) if kind == 2 else ():
                cv2.circle(canvas_HW, (int(x), int(y)), int(random.integers(1, thickness)), 255, -1)
            mask_HW = canvas_HW > 0
        ground_HWC[mask_HW] = random.uniform(20, 235, 3).astype(np.uint8)
    return ground_HWC


def _blot(random: Random) -> F64:
    """Return an irregular outline (P, 2) of no class."""
    angles_P = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii_P = np.full(40, 0.7)
    for frequency in (2, 3, 5):
        radii_P += random.uniform(0.1, 0.25) * np.cos(frequency * angles_P + random.uniform(0, 2 * np.pi))
    outline_P2: F64 = _circle(1.0, 40) * radii_P[:, None]
    return outline_P2


def _surface(random: Random, label: int) -> U8:
    """Return a texture (H, W, 3) for a shape, of a dark and a bright colour."""
    kind = TEXTURES[(label if random.uniform() < OWN_TEXTURE else int(random.integers(len(CLASSES)))) % len(TEXTURES)]
    return _texture(random, kind, random.uniform(0, 90, 3), random.uniform(165, 255, 3))


def _texture(random: Random, kind: str, first_3: F64, second_3: F64) -> U8:
    """Return a texture (H, W, 3) between two colours, with grain."""
    if kind in ("clouds", "blotches"):
        num_knots = int(random.integers(3, 7) if kind == "clouds" else random.integers(16, 28))
        coarse_HW = random.uniform(0, 1, (num_knots, num_knots)).astype(np.float32)
        mix_HW = np.asarray(cv2.resize(coarse_HW, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC), np.float32)
        if kind == "blotches":
            mix_HW = (mix_HW > 0.5).astype(np.float32)
    else:
        angle, phase = random.uniform(0, np.pi, 2)
        x, y = np.array([np.cos(angle), np.sin(angle)], np.float32) * 2 * np.pi / random.uniform(6, 12)
        along_HW = np.sin(COLUMNS_HW * x + ROWS_HW * y + np.float32(phase))
        across_HW = np.sin(ROWS_HW * x - COLUMNS_HW * y)
        inside = {"stripes": along_HW > 0, "checks": along_HW * across_HW > 0, "dots": along_HW + across_HW > 0.8}
        mix_HW = inside[kind].astype(np.float32)
    grain_HW = random.standard_normal((SIZE_PX, SIZE_PX), np.float32) * np.float32(random.uniform(2, 10))
    towards_3 = (second_3 - first_3).astype(np.float32)
    colours_HWC = first_3.astype(np.float32) + mix_HW[..., None] * towards_3 + grain_HW[..., None]
    texture_HWC: U8 = np.clip(colours_HWC, 0, 255).astype(np.uint8)
    return texture_HWC


ROWS_HW, COLUMNS_HW = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float32)


def _circle(radius: float, num_points: int = 64) -> F64:
    angles_P = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    return radius * np.stack([np.cos(angles_P), np.sin(angles_P)], 1)


def _points(*pairs: tuple[float, float]) -> list[F64]:
    return [np.array(pairs)]


def _star() -> list[F64]:
    corners_P2 = _circle(1.0, 10)
    corners_P2[1::2] *= 0.42
    return [corners_P2]


def _crescent() -> list[F64]:
    """Return the unit disc less a disc of radius 0.8 around (0.5, 0), which cuts it at x = 0.61."""
    cut = np.arccos(0.61)
    outer_P = np.linspace(cut, 2 * np.pi - cut, 48)
    x, y = np.cos(cut), np.sin(cut)
    inner = np.arctan2(y, x - 0.5)
    inner_P = np.linspace(2 * np.pi - inner, inner, 48)[1:-1]
    outer_P2 = np.stack([np.cos(outer_P), np.sin(outer_P)], 1)
    inner_P2 = np.stack([0.5 + 0.8 * np.cos(inner_P), 0.8 * np.sin(inner_P)], 1)
    return [np.concatenate([outer_P2, inner_P2])]


def _heart() -> list[F64]:
    t_P = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    y_P = 13 * np.cos(t_P) - 5 * np.cos(2 * t_P) - 2 * np.cos(3 * t_P) - np.cos(4 * t_P)
    return [np.stack([16 * np.sin(t_P) ** 3, y_P + 2.5], 1) / 17]


def _cross() -> list[F64]:
    a, b = 0.3, 0.95
    quarter = [(b, a), (a, a), (a, b)]  # from the right arm's end to the top arm's
    turned = [(x, y) for x, y in quarter], [(-y, x) for x, y in quarter]
    half = [*turned[0], *turned[1]]
    return _points(*half, *[(-x, -y) for x, y in half])


OUTLINES: dict[str, Callable[[], list[F64]]] = {
    "arrow": lambda: _points((-1, 0.2), (0.1, 0.2), (0.1, 0.6), (1, 0), (0.1, -0.6), (0.1, -0.2), (-1, -0.2)),
    "crescent": _crescent,
    "cross": _cross,
    "disc": lambda: [_circle(0.9)],
    "heart": _heart,
    "hourglass": lambda: _points((-0.65, 0.8), (0.65, 0.8), (0.12, 0), (0.65, -0.8), (-0.65, -0.8), (-0.12, 0)),
    "ring": lambda: [_circle(0.95), _circle(0.5)],
    "square": lambda: _points((-0.75, -0.75), (0.75, -0.75), (0.75, 0.75), (-0.75, 0.75)),
    "star": _star,
    "triangle": lambda: [_circle(1.0, 3)],
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--num-images", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    asked: Any = parser.parse_args(arguments)
    write_split(asked.out, asked.split, asked.seed, asked.num_images)


if __name__ == "__main__":
    main()
