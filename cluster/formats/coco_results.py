"""COCO's results: a list of boxes ``[x, y, width, height]``, ends outside, for `COCO.loadRes`. Only written.

Ids are those of `coco`, or of the truth that `--like` names.
"""

from collections.abc import Iterator

from cam_ops.errors import UsageError
from cluster.formats.coco import box_fields, packed
from cluster.formats.entries import UNKNOWN
from cluster.formats.exported import ExportFormat, Like, Part, Picture, Whole, document_name, joined
from cluster.process.console import shown

DOCUMENT = "results.json"
BOXES = "boxes"


def _write(pictures: Iterator[Picture], part: Part) -> None:
    like = part.settings.like
    for picture in pictures:
        image_id = _id_of(picture, like) if like else picture.number
        for box in picture.boxes:
            category_id = like.categories[box.class_id] if like else box.class_id + 1
            fields = {"image_id": image_id, "category_id": category_id, **box_fields(box)}
            part.note(BOXES, picture.split, packed(fields))


def _id_of(picture: Picture, like: Like) -> int:
    """Return a picture's id in `--like`. Raises UsageError where it has another size there: its boxes lie elsewhere."""
    seen, said = (picture.width, picture.height), like.sizes[picture.image_id]
    if said not in (UNKNOWN, seen):
        raise UsageError(
            f"--like says that {shown(picture.image_id)} has {said[0]}x{said[1]} pixels, as it is seen it has "
            f"{seen[0]}x{seen[1]}; give a file of these very pictures, turned as EXIF says"
        )
    return like.images[picture.image_id]


def _finish(whole: Whole) -> None:
    for split in whole.splits:
        with whole.open(document_name(DOCUMENT, split)) as file:
            file.write(b"[\n")
            file.writelines(joined(whole.notes(BOXES, split)))
            file.write(b"\n]\n")


COCO_RESULTS_EXPORT = ExportFormat(
    name="coco-results",
    entries=(DOCUMENT, DOCUMENT.partition(".")[0]),
    write=_write,
    finish=_finish,
    lists_classes=False,
)
