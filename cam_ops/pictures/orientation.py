"""EXIF orientation: how a picture's stored pixels are turned into the picture that is seen.

It is a number from 1 to 8 (CIPA DC-008, tag 274): 1 leaves the pixels as they are, 3 turns them by 180 degrees, 6 and 8
by 90; 2, 4, 5 and 7 mirror them as well. Letters: H, W height and width as stored, N boxes.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from cam_ops.arrays import F64, I32, I64
from cam_ops.pictures.formats import HEAD_BYTES, OPENCV, PictureFormat, format_of, is_read
from cam_ops.pictures.header import MAX_PIXELS, open_picture

TAG = 274
UNKNOWN_TURN, AS_STORED, QUARTER = 0, 1, 5  # from 5 on width and height change places
MARKS = {"JPEG": b"Exif\0\0", "PNG": b"eXIf", "WEBP": b"EXIF"}  # without which a file has none that OpenCV sees


def orientation_of(encoded: bytes) -> tuple[int, int, int]:
    """Return how a file's pixels are turned, 1 to 8, and its width and height as stored.

    It is what `decode` does: of the formats that OpenCV decodes EXIF's own number, without XMP's. A JPEG may be cut
    anywhere behind its header. Raises OSError where it is no picture, and what else Pillow raises.
    """
    form = format_of(encoded[:HEAD_BYTES])
    if form is None or not is_read(form):
        raise OSError("it is no picture")
    try:
        opened = open_picture(io.BytesIO(encoded), form)
    except Image.DecompressionBombError as error:
        raise OSError(str(error)) from None
    with opened as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise OSError(f"it has {width}x{height} pixels")
        number = _number(picture, form, encoded)
        if isinstance(picture, TiffImageFile) and number >= QUARTER:  # whose size Pillow turns by itself
            width, height = height, width
        return number, width, height


def _number(picture: Image.Image, form: PictureFormat, encoded: bytes) -> int:
    if form not in OPENCV:
        number = picture.getexif().get(TAG)
    elif isinstance(picture, TiffImageFile):
        number = picture.tag_v2.get(TAG)
    elif form.pillow not in MARKS or MARKS[form.pillow] not in encoded:
        return AS_STORED
    else:
        if form.pillow == "PNG":
            picture.load()  # the chunk may come behind the pixels
        exif = Image.Exif()
        exif.load(picture.info.get("exif", b""))
        number = exif.get(TAG)
    return number if isinstance(number, int) and AS_STORED <= number <= 8 else AS_STORED


def turned(values_HWC: npt.NDArray[np.generic], orientation: int) -> npt.NDArray[np.generic]:
    """Turn stored pixels, (H, W) or (H, W, C), into those that are seen."""
    if orientation >= QUARTER:
        values_HWC = values_HWC.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values_HWC = values_HWC[::-1]
    if orientation in (2, 3, 6, 7):
        values_HWC = values_HWC[:, ::-1]
    return np.ascontiguousarray(values_HWC)


def turned_boxes(boxes_N4: F64, orientation_N: I32, sizes_N2: I64) -> F64:
    """Turn half-open boxes in stored pixels into boxes in the picture that is seen; sizes are W, H as stored."""
    x0_N, y0_N, x1_N, y1_N = boxes_N4.T
    is_quarter_N = orientation_N >= QUARTER
    left_N, top_N, right_N, bottom_N = np.where(is_quarter_N, (y0_N, x0_N, y1_N, x1_N), (x0_N, y0_N, x1_N, y1_N))
    width_N, height_N = np.where(is_quarter_N, sizes_N2.T[::-1], sizes_N2.T)
    from_right_N, from_below_N = np.isin(orientation_N, (2, 3, 6, 7)), np.isin(orientation_N, (3, 4, 7, 8))
    return np.stack(
        [
            np.where(from_right_N, width_N - right_N, left_N),
            np.where(from_below_N, height_N - bottom_N, top_N),
            np.where(from_right_N, width_N - left_N, right_N),
            np.where(from_below_N, height_N - top_N, bottom_N),
        ],
        axis=1,
    )
