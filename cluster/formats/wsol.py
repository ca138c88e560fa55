"""wsolevaluation's metadata: lists of images, classes, sizes, boxes (ends inside, from 0) or masks."""

import os
from collections.abc import Iterator

from cluster.formats.entries import Entry, batches_of, number_of, size_of
from cluster.formats.files import lines_of, path_below, reading
from cluster.formats.format import Format

FILES = ("image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt")


def _entries(folder: str, masks: str) -> Iterator[Entry]:
    """Read wsolevaluation's metadata: images, their classes and sizes, and boxes or masks, of those files that exist.

    Lines of `localization.txt` are ``image,x0,y0,x1,y1``, or ``image,mask`` or ``image,mask,ignore`` below `masks`.
    """
    for name in FILES:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with reading(path, "wsolevaluation's metadata"):
                for number, line in lines_of(path):
                    where = f"line {number}"
                    try:
                        yield _wsol_entry(name, where, line, masks)
                    except ValueError as error:
                        raise ValueError(f"{where}: {error}") from None


def _wsol_entry(name: str, where: str, line: str, masks: str) -> Entry:
    if name == "image_ids.txt":
        return Entry(image=line)
    if name == "class_labels.txt":
        image, word = _cells(line, 2)
        return Entry(image=image, image_word=word)
    if name == "image_sizes.txt":
        image, width, height = _cells(line, 3)
        return Entry(image=image, size=size_of(width, height))
    cells = line.rsplit(",", 4)
    if len(cells) == 5 and not cells[-1].lower().endswith(".png") and not cells[-2].lower().endswith(".png"):
        corners = tuple(map(number_of, cells[1:]))
        if None in corners:
            return Entry(image=cells[0], unusable=f"{name} {where}: expected four numbers, found {line[:80]!r}")
        return Entry(image=cells[0], box=corners)
    image, mask, ignore = _cells(line if line.count(",") > 1 else f"{line},", 3)
    return Entry(image=image, mask=path_below(masks, mask), ignore=path_below(masks, ignore) if ignore else None)


def _cells(line: str, num_cells: int) -> list[str]:
    """Split a line at its last commas: an image's path may have some of its own."""
    cells = line.rsplit(",", num_cells - 1)
    if len(cells) < num_cells:
        raise ValueError(f"expected {num_cells} cells, found {line[:200]!r}")
    return [cell.strip() for cell in cells]


WSOL = Format(
    name="wsol",
    frame="inclusive",
    is_folder=True,
    recognise=lambda path: any(os.path.exists(os.path.join(path, name)) for name in FILES),
    read=lambda path, masks: batches_of(_entries(path, masks)),
)
