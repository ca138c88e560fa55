"""Soft masks: a PNG a picture and class, ``masks/CLASS_ID/NAME.png``, 8-bit gray. Only written.

255 is the map's highest value. A map is enlarged and normalised as for the run's boxes, and bilinear at the centres of
the picture's pixels, as it is seen; beyond what the network saw it is 0. ``masks.csv`` lists the files.
"""

import json
from collections.abc import Iterator

import cv2
import numpy as np

from cam_ops.arrays import U8
from cam_ops.boxes.normalise import Enlarger
from cam_ops.pictures.resample import at_pixels, inside, strips
from cluster.formats.coco import packed
from cluster.formats.exported import SCORE_DIGITS, ExportFormat, Map, Part, Picture, Whole
from cluster.formats.table import csv_line

MASKS, INDEX = "masks", "masks.csv"
COLUMNS = ("file", "image_id", "class_id", "class", "score")


def _write(pictures: Iterator[Picture], part: Part) -> None:
    enlarger = Enlarger(part.settings.input_size, part.settings.maps)
    names = part.settings.classes.names
    for picture in pictures:
        for found in picture.boxed_maps:
            file = "/".join(filter(None, (MASKS, picture.split, str(found.class_id), f"{picture.stem}.png")))
            part.put(file, cv2.imencode(".png", _mask(found, picture, enlarger))[1].tobytes())
            score = round(found.score, SCORE_DIGITS)
            cells = file, picture.image_id, found.class_id, names[found.class_id], score
            part.note(INDEX, picture.split, packed(cells))


def _mask(found: Map, picture: Picture, enlarger: Enlarger) -> U8:
    """Return a map at the picture's pixels, (H, W), 0..255."""
    _, scaled_YX = enlarger.enlarge(found.raw_hw)
    mask_HW = np.empty((picture.height, picture.width), np.uint8)
    for rows in strips(picture.width, picture.height):
        value_RW = at_pixels(scaled_YX, found.rectangle_4, rows, picture.width)
        value_RW *= inside(found.rectangle_4, rows, picture.width)
        mask_HW[rows.start : rows.stop] = 255 * value_RW + 0.5
    return mask_HW


def _finish(whole: Whole) -> None:
    with whole.open(INDEX) as file:
        file.write(csv_line(COLUMNS) + b"\n")
        for split in whole.splits:
            file.writelines(csv_line(json.loads(line)) + b"\n" for line in whole.notes(INDEX, split))


MASKS_EXPORT = ExportFormat(
    name="masks",
    entries=(MASKS, INDEX),
    write=_write,
    finish=_finish,
    maps=True,
    has_files=True,
)
