"""wsolevaluation's score maps: ``scoremaps/IMAGE.npy``, float64 of 224 x 224, the whole picture, in 0..1. Only written.

They are what the evaluator makes of a network's maps, and what `audit` judges: bicubic over the whole picture, then
min-max. Each is of the image's label, of several the one that scores highest. Where there is no map of a label it is
of the class that scores highest; an image that has a label is then in no list, as it is in none of `audit`'s figures.

The lists in ``metadata/`` are wsolevaluation's, with the classes' numbers and the size of the picture as it is seen.
There is no ``localization.txt``: true boxes come from elsewhere.
"""

from collections.abc import Iterator
from io import BytesIO

import numpy as np

from cam_ops.metrics.wsol import enlarged_map, score_map
from cluster.formats.exported import ExportFormat, Map, Part, Picture, Whole

SCORE_MAPS, METADATA = "scoremaps", "metadata"
IMAGE_IDS, CLASS_LABELS, IMAGE_SIZES = LISTS = "image_ids.txt", "class_labels.txt", "image_sizes.txt"


def _write(pictures: Iterator[Picture], part: Part) -> None:
    for picture in pictures:
        name = picture.name.replace(",", "_")  # which the evaluator takes for the end of it
        chosen = _chosen(picture)
        score_SS = score_map(enlarged_map(chosen.raw_hw, chosen.rectangle_4, picture.width, picture.height))
        content = BytesIO()
        np.save(content, score_SS, allow_pickle=False)
        part.put(f"{SCORE_MAPS}/{name}.npy", content.getvalue())
        is_of_label = chosen.class_id in picture.labels
        if is_of_label:
            part.note(CLASS_LABELS, picture.split, f"{name},{chosen.class_id}".encode())
        if is_of_label or not picture.labels:
            part.note(IMAGE_IDS, picture.split, name.encode())
            part.note(IMAGE_SIZES, picture.split, f"{name},{picture.width},{picture.height}".encode())


def _chosen(picture: Picture) -> Map:
    return max(picture.maps, key=lambda each: (each.class_id in picture.labels, each.score, -each.class_id))


def _finish(whole: Whole) -> None:
    for split in whole.splits:
        for name in LISTS:
            with whole.open("/".join(filter(None, (METADATA, split, name)))) as file:
                file.writelines(line + b"\n" for line in whole.notes(name, split))


WSOL_EXPORT = ExportFormat(
    name="wsol",
    entries=(SCORE_MAPS, METADATA),
    write=_write,
    finish=_finish,
    maps=True,
    has_files=True,
)
