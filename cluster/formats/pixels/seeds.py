"""Seeds for weakly supervised segmentation: a PNG a picture, NAME.png, of numbers of classes. Only written.

A pixel has a class's number + 1 where the class's map is at least --high, of several the one with the highest value; 0,
background, where all maps are below --low; and 255, which is to be left out, between the two and beyond what
the network saw. A map is enlarged and normalised as for the run's boxes, and bilinear at the centres of the picture's
pixels, as it is seen, or of the cells of the stored map; 255 is then what lies beyond the picture.
"""

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

from cam_ops.arrays import F32, U8
from cam_ops.boxes.normalise import Enlarger
from cam_ops.errors import UsageError
from cam_ops.pictures.resample import at_pixels, inside, strips
from cluster.formats.exported import ExportFormat, Map, Part, Picture, Settings, Whole
from cluster.formats.table import csv_line

SEEDS, CLASSES = "seeds", "classes.csv"
BACKGROUND, LEFT_OUT = 0, 255
MAX_NUMBER = LEFT_OUT - 1


def _check(settings: Settings) -> None:
    """Refuse more classes than a pixel can name."""
    highest = 1 + max(settings.classes.numbers.values(), default=-1)
    if highest > MAX_NUMBER:
        raise UsageError(
            f"--to seeds numbers at most {MAX_NUMBER} classes, the export has {highest}; give --category-ids used, "
            "which numbers those that have a box, and --only-classes NAME ... where these are too many"
        )


def _write(pictures: Iterator[Picture], part: Part) -> None:
    enlarger = Enlarger(part.settings.input_size, part.settings.maps)
    for picture in pictures:
        name = "/".join(filter(None, (SEEDS, picture.split, f"{picture.stem}.png")))
        part.put(name, _encoded(_seeds(picture, part.settings, enlarger)))


def _seeds(picture: Picture, settings: Settings, enlarger: Enlarger) -> U8:
    """Return the numbers of a picture's pixels, or of its grid's cells."""
    width, height, covered_4, known_4 = _frame(picture.maps[0], picture, at_grid=settings.at_grid)
    seeds_HW = np.empty((height, width), np.uint8)
    for rows in strips(width, height):
        best_RW = np.full((len(rows), width), -1.0)
        number_RW = np.full(best_RW.shape, BACKGROUND, np.uint8)
        for found in picture.boxed_maps:
            value_RW = at_pixels(enlarger.enlarge(found.raw_hw)[1], covered_4, rows, width)
            number_RW[value_RW > best_RW] = settings.classes.numbers[found.class_id] + 1
            np.maximum(best_RW, value_RW, out=best_RW)
        number_RW[best_RW < settings.high] = LEFT_OUT
        number_RW[best_RW < settings.low] = BACKGROUND
        number_RW[~inside(known_4, rows, width)] = LEFT_OUT
        seeds_HW[rows.start : rows.stop] = number_RW
    return seeds_HW


def _frame(found: Map, picture: Picture, *, at_grid: bool) -> tuple[int, int, F32, F32]:
    """Return the width and height of a label map, and in its pixels what maps cover, and of what something is known."""
    if not at_grid:
        return picture.width, picture.height, found.rectangle_4, found.rectangle_4
    height, width = found.raw_hw.shape
    x0, y0, x1, y1 = found.rectangle_4.tolist()
    per_x, per_y = width / (x1 - x0), height / (y1 - y0)
    known = -x0 * per_x, -y0 * per_y, (picture.width - x0) * per_x, (picture.height - y0) * per_y
    return width, height, np.array([0, 0, width, height], np.float32), np.array(known, np.float32)


def _palette() -> bytes:
    """Return Pascal VOC's colours, RGB by number: the number's bits, three at a time, are the channels' highest."""
    number_N = np.arange(256)
    colour_N3 = np.zeros((256, 3), np.int64)
    for place in range(8):
        for channel in range(3):
            colour_N3[:, channel] |= (number_N >> (3 * place + channel) & 1) << (7 - place)
    return colour_N3.astype(np.uint8).tobytes()


PALETTE = _palette()


def _encoded(seeds_HW: U8) -> bytes:
    image, content = Image.fromarray(seeds_HW), BytesIO()
    image.putpalette(PALETTE)
    image.save(content, "PNG")
    return content.getvalue()


def _finish(whole: Whole) -> None:
    classes = whole.settings.classes
    rows = ((number + 1, class_id, classes.names[class_id]) for class_id, number in classes.numbers.items())
    whole.put(CLASSES, b"".join(csv_line(row) + b"\n" for row in [("number", "class_id", "class"), *rows]))


SEEDS_EXPORT = ExportFormat(
    name="seeds",
    entries=(SEEDS, CLASSES),
    write=_write,
    finish=_finish,
    maps=True,
    has_files=True,
    check=_check,
)
