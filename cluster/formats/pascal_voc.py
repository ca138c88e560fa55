"""Pascal VOC: an XML file a picture, pixels whose ends are inside, counted from 1."""

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import ParseError  # the exception alone

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cluster.formats.entries import VOC_CORNERS, Entry, batches_of, size_of
from cluster.formats.files import files_below, read_bounded, reading
from cluster.formats.format import Format

MAX_XML_BYTES = 4 * 2**20


def _entries(folder: str) -> Iterator[Entry]:
    """Read ``NAME.xml`` files as entries of the image NAME; what they say of file names is left out.

    Documents with a DTD, and so with entities, are refused.
    """
    with reading(folder, "a folder of Pascal VOC"):
        for name, path in files_below(folder, ".xml"):
            with reading(path, "Pascal VOC"):
                yield from _annotation(name[: -len(".xml")], read_bounded(path, MAX_XML_BYTES))


def _annotation(image: str, content: bytes) -> Iterator[Entry]:
    try:
        root = fromstring(content, forbid_dtd=True)
    except DefusedXmlException:
        raise ValueError("it has a DTD or entities, which are not read") from None
    except ParseError as error:
        raise ValueError(f"it is no whole XML: {error}") from None
    if root.tag != "annotation":
        raise ValueError(f"expected the element annotation, found {root.tag[:40]}")
    yield Entry(image=image, size=size_of(_number(root, "size/width", "0"), _number(root, "size/height", "0")))
    for thing in root.findall("object"):
        if thing.find("bndbox") is not None:
            box = tuple(_number(thing, f"bndbox/{corner}") for corner in VOC_CORNERS)
            yield Entry(image=image, box=box, word=(thing.findtext("name") or "").strip() or None)


def _number(element: Any, path: str, default: str | None = None) -> float:
    text = (element.findtext(path) or "").strip() or default
    if text is None:
        raise ValueError(f"an object has no {path}")
    return float(text)


VOC = Format(
    name="voc",
    frame="from-1",
    is_folder=True,
    suffix=".xml",
    read=lambda path, masks: batches_of(_entries(path)),
)
