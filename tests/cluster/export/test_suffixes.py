"""The pictures of an export: all readers see them as their boxes are drawn; what is gone is said."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.cluster.export.conftest import TWO
from tests.support.command import Command

XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""


def labelled(tmp_path: Path, **pictures: bytes | None) -> Path:
    """Label JPEG files of one half white, NAME.jfif where they bear XMP; return the run."""
    halves_HWC = np.zeros((48, 64, 3), np.uint8)
    halves_HWC[:, :32] = 255
    for name, xmp in pictures.items():
        more = {} if xmp is None else {"xmp": xmp}
        Image.fromarray(halves_HWC).save(tmp_path / f"{name}.jfif", "JPEG", quality=95, **more)
    uris = [str(tmp_path / f"{name}.jfif") for name in pictures]
    table = pa.table({"uri": uris, "image_id": [f"{name}.jfif" for name in pictures]})
    pq.write_table(table, tmp_path / "manifest.parquet")
    words = ["--images", tmp_path / "manifest.parquet", "--out", tmp_path / "run", *TWO, "--precision", "fp32"]
    assert Command("label", *words, "--executor", "inline").code == 0
    return tmp_path / "run"


def export(run: Path, *more: object) -> Command:
    return Command("export", run, "--to", "coco", "--out", run.parent / "out", *more)


def test_a_suffix_that_readers_of_folders_do_not_look_for_is_replaced(tmp_path: Path) -> None:
    run = labelled(tmp_path, plain=None)
    assert export(run, "--pictures", "link").code == 0
    assert [path.name for path in (tmp_path / "out" / "images").iterdir()] == ["plain.jpg"]


def test_an_export_whose_pictures_are_all_gone_fails_and_replaces_nothing(tmp_path: Path) -> None:
    run = labelled(tmp_path, plain=None, other=None)
    assert export(run, "--pictures", "copy").code == 0
    (tmp_path / "plain.jfif").unlink()
    assert export(run, "--pictures", "copy", "--overwrite").result["exported"] == 1
    (tmp_path / "other.jfif").unlink()
    failed = export(run, "--pictures", "copy", "--overwrite")
    assert (failed.code, "none of 2 pictures is where and as the run found it" in failed.err) == (5, True)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 1
    assert export(run, "--overwrite").code == 0
