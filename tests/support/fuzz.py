"""Decode mutated pictures: `python -m tests.support.fuzz --count 200000`, or `make fuzz`.

Mutation number i of a seed is always the same file, so that `--first i --count 1` repeats it. `--last FILE` holds the
number of the mutation that is being decoded, should one kill the process.
"""

import argparse
import io
import json
import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cam_ops.errors import BadImage
from cam_ops.pictures.decode import decode, decode_for
from cam_ops.pictures.fit import fit
from cam_ops.pictures.formats import has_heif
from cam_ops.pictures.header import read_header
from cam_ops.settings import Preprocessing
from cluster.process.memory import peak_mib
from tests.support.command import ROOT

PHOTOS = Path(os.environ.get("CAMRAY_DATA", ROOT.parent / "shared" / "data")) / "photos"
NUM_PHOTOS = 12
STATUSES = {"empty", "truncated", "undecodable", "too_large"}
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
INPUT = Preprocessing(
    image_size=32,
    mean=(0.5, 0.5, 0.5),
    std=(1, 1, 1),
    interpolation="bilinear",
    resize="center-crop",
    crop_fraction=0.875,
    decode="reduced",
)


def generated() -> list[bytes]:
    """Return small pictures in every format that is read, and in most of their variants."""
    generator = np.random.default_rng(0)
    picture = Image.fromarray(
        cv2.resize(generator.integers(0, 255, (6, 8, 3), np.uint8), (96, 72), interpolation=cv2.INTER_CUBIC)
    )
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    variants = [
        *(("JPEG", picture, options) for options in ({}, {"progressive": True}, {"exif": exif}, {"quality": 100})),
        *(("JPEG", picture.convert(mode), {}) for mode in ("L", "CMYK")),
        *(("PNG", picture.convert(mode), {}) for mode in ("RGB", "RGBA", "L", "LA", "1", "P", "I;16")),
        ("PNG", picture, {"save_all": True, "append_images": [picture.rotate(90)]}),
        *(("WEBP", picture, options) for options in ({}, {"lossless": True}, {"exif": exif})),
        ("WEBP", picture, {"save_all": True, "append_images": [picture.rotate(90)]}),
        *(("BMP", picture.convert(mode), {}) for mode in ("RGB", "RGBA", "L", "1", "P")),
        *(("TIFF", picture, {"compression": name}) for name in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg")),
        *(("TIFF", picture, {"compression": "packbits", "tiffinfo": {278: rows}}) for rows in (8, 72)),
        *(("TIFF", picture.convert(mode), {}) for mode in ("L", "I;16", "CMYK", "1", "P", "RGBA", "F", "LAB")),
        *(("GIF", picture.convert(mode), {}) for mode in ("RGB", "L", "1")),
        ("GIF", picture, {"save_all": True, "append_images": [picture.rotate(90)]}),
        *(("PPM", picture.convert(mode), {}) for mode in ("RGB", "L", "1", "I;16")),
        *(("AVIF", picture.convert(mode), {"exif": exif}) for mode in ("RGB", "RGBA", "L")),
        ("AVIF", picture, {"save_all": True, "append_images": [picture.rotate(90)]}),
        *(("JPEG2000", picture.convert(mode), {}) for mode in ("RGB", "RGBA", "L", "I;16")),
        ("JPEG2000", picture, {"no_jp2": True, "tile_size": (32, 32)}),
        ("MPO", picture, {"save_all": True, "append_images": [picture.rotate(90)]}),
        *_heic(picture),
    ]
    texts = [b"P%d\n4 3\n%s%s" % (kind, b"15\n" * (kind > 1), b"0 1 1 0 " * 9) for kind in (1, 2, 3)]
    return [*(encoded(picture, form, **options) for form, picture, options in variants), *texts]


def _heic(picture: Image.Image) -> list[tuple[str, Image.Image, dict[str, object]]]:
    if not has_heif():
        return []
    import pillow_heif

    pillow_heif.register_heif_opener()
    return [("HEIF", picture, {}), ("HEIF", picture.convert("RGBA"), {"quality": -1})]


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def photographs() -> list[bytes]:
    """Return the smallest real photographs, and two small versions of each; none where there is no such data."""
    paths = sorted(PHOTOS.glob("*/*.JPEG"), key=lambda path: (path.stat().st_size, path.name))[:NUM_PHOTOS]
    contents = [path.read_bytes() for path in paths]
    small = []
    for i, content in enumerate(contents):
        with Image.open(io.BytesIO(content)) as picture:
            picture = picture.convert("RGB").resize((160, 120))
            small += [encoded(picture, "JPEG", progressive=bool(i % 2), quality=60 + 3 * i) for _ in range(2)]
    return contents + small


def mutated(content: bytes, others: list[bytes], generator: np.random.Generator) -> bytes:
    """Return the file with one to four changes, half of them within its first 600 bytes, where headers are."""
    changed = bytearray(content)
    for _ in range(generator.integers(1, 5)):
        end = len(changed) if generator.random() < 0.5 else min(600, len(changed))
        at = int(generator.integers(0, end)) if end else 0
        length = int(2 ** generator.uniform(0, 10))
        kind = generator.integers(0, 8)
        if kind == 0 and changed:
            changed[at] ^= 1 << generator.integers(0, 8)
        elif kind == 1 and changed:
            changed[at] = generator.integers(0, 256)
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = changed[at : at + length]
        elif kind == 5:
            changed[at : at + length] = generator.bytes(length)
        elif kind == 6:
            value, width = EXTREMES[generator.integers(len(EXTREMES))], [1, 2, 4, 4][generator.integers(4)]
            order = "big" if generator.random() < 0.5 else "little"
            changed[at : at + width] = (value % 256**width).to_bytes(width, order)
        else:
            other = others[generator.integers(len(others))]
            start = int(generator.integers(0, len(other)))
            changed[at : at + length] = other[start : start + length]
    return bytes(changed)


def outcome_of(content: bytes) -> str:
    """Return the status that the file gets; assert whatever else must hold of what is decoded, or not."""
    full, reduced = _decoded(content, "full"), _decoded(content, "reduced")
    if isinstance(full, str) or isinstance(reduced, str):
        both = full if isinstance(full, str) else "ok", reduced if isinstance(reduced, str) else "ok"
        assert both[0] == both[1] or "ok" in both, both
        return both[0] if both[0] == both[1] else f"{both[0]} in full, {both[1]} reduced"
    assert full == reduced
    return "ok"


def _decoded(content: bytes, scale: str) -> str | tuple[int, int]:
    """Return width and height, or the status."""
    try:
        if scale == "full":
            pixels_HWC = decode(content)
            assert pixels_HWC.dtype == np.uint8
            assert pixels_HWC.ndim == 3
            assert pixels_HWC.shape[2] == 3
            size = pixels_HWC.shape[1], pixels_HWC.shape[0]
            header = read_header(content)
            assert sorted(size) == sorted((header.width, header.height))
            return size
        picture = decode_for(content, INPUT)
        pixels_YX3, rectangle = fit(picture, INPUT)
        assert pixels_YX3.shape == (32, 32, 3)
        assert 0 <= rectangle[0] < rectangle[2] <= picture.width
        assert 0 <= rectangle[1] < rectangle[3] <= picture.height
        return picture.width, picture.height
    except BadImage as bad:
        if bad.status not in STATUSES or not 0 < len(str(bad)) < 500:
            raise AssertionError(f"{bad.status}: {bad}") from None
        return bad.status


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--last", type=Path)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore", module="PIL")
    photos, small = photographs(), generated()
    outcomes: Counter[str] = Counter()
    failures, start_s, most_mib = [], time.monotonic(), int(peak_mib())
    before_mib = most_mib
    for i in range(asked.first, asked.first + asked.count):
        if asked.last:
            asked.last.write_text(str(i))
        generator = np.random.default_rng([asked.seed, i])
        files = photos if photos and generator.random() < 0.5 else small
        content = mutated(files[generator.integers(len(files))], small, generator)
        try:
            outcomes[outcome_of(content)] += 1
        except Exception as error:  # noqa: BLE001  what is looked for
            failures.append(f"mutation {i}: {type(error).__name__}: {str(error)[:300]}")
        if peak_mib() > most_mib + 100:
            print(f"mutation {i} took the peak from {most_mib} to {peak_mib():.0f} MiB", file=sys.stderr)
            most_mib = int(peak_mib())
    document = {
        "mutations": asked.count,
        "outcomes": dict(outcomes.most_common()),
        "failures": failures,
        "seconds": round(time.monotonic() - start_s, 1),
        "mib_before": before_mib,
        "mib_peak": int(peak_mib()),
    }
    print(json.dumps(document, indent=1))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
