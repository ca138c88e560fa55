"""Pictures of every kind to pixels, or to a status."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cam_ops.errors import BadImage
from cam_ops.pictures.decode import decode, decode_for, whole
from cam_ops.pictures.fit import fit
from cam_ops.pictures.formats import has_heif
from cam_ops.pictures.header import jpeg_size
from cam_ops.settings import Interpolation, Preprocessing, Size


def encoded(image_HWC: np.ndarray, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image_HWC).save(stream, form, **options)
    return stream.getvalue()


def picture(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def config(resize: str, **changes: object) -> Preprocessing:
    values = {
        "image_size": 8,
        "mean": (0.5, 0.25, 0.0),
        "std": (1.0, 1.0, 1.0),
        "interpolation": "bilinear",
        "resize": resize,
        "crop_fraction": 0.5,
        "decode": "full",
    }
    return Preprocessing(**{**values, **changes})


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_applies_it(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture(20, 30), form, exif=exif)
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    np.testing.assert_array_equal(decode(content), expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_file_that_ends_too_early_is_truncated(form: str, kept: float) -> None:
    content = encoded(picture(120, 160), form)
    with pytest.raises(BadImage) as caught:
        decode(content[: int(len(content) * kept)])
    assert caught.value.status == "truncated"


def in_every_form() -> dict[str, bytes]:
    """Return a small picture in each format, plain and in the variants that end differently."""
    image_HWC = picture(18, 24)
    palette = io.BytesIO()
    Image.fromarray(image_HWC).quantize(8).save(palette, "PNG")
    return {
        **{form: encoded(image_HWC, form) for form in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")},
        "progressive": encoded(image_HWC, "JPEG", progressive=True),
        "lossless": encoded(image_HWC, "WEBP", lossless=True),
        **{name: encoded(image_HWC, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")},
        **{f"{suffix} of OpenCV": cv2.imencode(suffix, image_HWC)[1].tobytes() for suffix in (".png", ".tiff")},
        "palette": palette.getvalue(),
        "directory first": directory_first(image_HWC),
        **{form: encoded(image_HWC, form) for form in ("PPM", "AVIF", "JPEG2000")},
        "codestream": encoded(image_HWC, "JPEG2000", no_jp2=True),
    }


def directory_first(image_HWC: np.ndarray) -> bytes:
    """Return a deflated TIFF whose directory comes before its strips of four lines each."""
    height, width, _ = image_HWC.shape
    strips = [zlib.compress(image_HWC[y : y + 4].tobytes()) for y in range(0, height, 4)]
    entries, count = 9, len(strips)
    bits = 8 + 2 + 12 * entries + 4
    starts, lengths = bits + 6, bits + 6 + 4 * count
    first = lengths + 4 * count
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits), (259, 3, 1, 8), (262, 3, 1, 2)]
    tags += [(273, 4, count, starts), (277, 3, 1, 3), (278, 4, 1, 4), (279, 4, count, lengths)]
    at = [first + sum(map(len, strips[:i])) for i in range(count)]
    return b"".join(
        [
            b"II*\0" + struct.pack("<IH", 8, entries),
            *(struct.pack("<HHII", *tag) for tag in tags),
            struct.pack(f"<I3H{count}I{count}I", 0, 8, 8, 8, *at, *map(len, strips)),
            *strips,
        ]
    )


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("form", in_every_form())
def test_a_file_cut_at_any_byte_is_truncated(form: str) -> None:
    content = in_every_form()[form]
    assert decode(content).shape == (18, 24, 3)
    statuses = set()
    for kept in range(1, len(content)):
        with pytest.raises(BadImage) as caught:
            decode(content[:kept])
        statuses.add(caught.value.status)
    assert statuses == {"truncated"}


def test_a_few_bytes_cannot_ask_for_gigabytes_or_hours() -> None:
    png, flat = encoded(picture(4, 4), "PNG"), encoded(picture(64, 64), "JPEG", progressive=True)
    last_scan = flat[flat.rindex(b"\xff\xda") : -2]
    long_chunk = png[:33] + (2**31 - 1).to_bytes(4) + b"IDAT" + bytes(300) + png[33:]
    bombs = {long_chunk: "truncated", flat[:-2] + 500 * last_scan + flat[-2:]: "too_large"}
    for content, status in bombs.items():
        with pytest.raises(BadImage) as caught:
            decode(content)
        assert caught.value.status == status
    assert decode(flat[:-2] + 400 * last_scan + flat[-2:]).shape == (64, 64, 3)
    strip = io.BytesIO()
    Image.new("1", (2**20 + 1, 1)).save(strip, "PNG")
    with pytest.raises(BadImage, match="1048577x1 pixels"):
        decode(strip.getvalue())
    gif = encoded(picture(4, 4), "GIF")
    large_gif = gif[:6] + struct.pack("<HH", 9460, 9460) + gif[10:]
    headers = (b"P6 9460 9460 255\n" + bytes(99), large_gif, b"P1 1 1 " + b" " * 2**25 + b"1")
    for header in headers:
        with pytest.raises(BadImage) as caught:
            decode(header)
        assert caught.value.status == "too_large"


@pytest.mark.parametrize(
    ("form", "mode", "tolerance"),
    [
        *(("PNG", mode, 0) for mode in ("1", "L", "LA", "P", "RGBA")),
        *(("TIFF", mode, 0) for mode in ("1", "L", "P", "CMYK")),
        *(("BMP", mode, 0) for mode in ("1", "L", "P", "RGBA")),
        *(("WEBP", "RGBA", 0), ("JPEG", "L", 0), ("JPEG", "CMYK", 1), ("TIFF", "YCbCr", 1)),
    ],
)
def test_other_colours_become_the_rgb_of_pillow(form: str, mode: str, tolerance: int) -> None:
    stream = io.BytesIO()
    source = Image.fromarray(picture(24, 32)).convert(mode)
    if mode.endswith("A"):
        source.putalpha(Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (24, 1))))
    source.save(stream, form)
    with Image.open(stream) as opened:
        expected = np.asarray(opened.convert("RGB")).astype(int)
    assert np.abs(decode(stream.getvalue()) - expected).max() <= tolerance


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_become_their_upper_eight(suffix: str) -> None:
    deep_HWC = np.random.default_rng(0).integers(0, 2**16, (24, 32, 3), np.uint16)
    content = cv2.imencode(suffix, deep_HWC[..., ::-1])[1].tobytes()
    assert np.abs(decode(content) - deep_HWC / 257).max() < 1


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        *(("PPM", mode, {}) for mode in ("RGB", "L", "1")),
        *(("GIF", mode, {}) for mode in ("L", "1")),
        *(("JPEG2000", mode, {}) for mode in ("RGB", "L")),
        ("JPEG2000", "RGB", {"no_jp2": True, "tile_size": (16, 16)}),
    ],
)
def test_formats_that_lose_nothing_give_the_pixels_back(form: str, mode: str, options: dict[str, object]) -> None:
    source = Image.fromarray(picture(24, 32)).convert(mode)
    stream = io.BytesIO()
    source.save(stream, form, **options)
    np.testing.assert_array_equal(decode(stream.getvalue()), np.asarray(source.convert("RGB")))


def test_ppm_in_digits_and_of_few_or_many_levels() -> None:
    grey = {
        b"P2\n# made by hand\n4 1\n15\n0 1 7 15\n": [0, 17, 119, 255],
        b"P5 4 1 15\n\0\x01\x07\x0f": [0, 17, 119, 255],
        b"P5 3 1 65535\n\0\0\x80\0\xff\xff": [0, 128, 255],
        b"P1 4 1 1 0 0 1\n": [0, 255, 255, 0],  # 1 is ink
    }
    for content, levels in grey.items():
        np.testing.assert_array_equal(decode(content), np.repeat(np.array(levels, np.uint8)[None, :, None], 3, 2))
    np.testing.assert_array_equal(decode(b"P3 1 2 255 9 8 7 6 5 4\n"), [[[9, 8, 7]], [[6, 5, 4]]])


@pytest.mark.parametrize("form", ["GIF", "AVIF", "MPO"])
def test_of_several_pictures_in_a_file_the_first_is_taken(form: str) -> None:
    first, second = (Image.new("RGB", (24, 16), colour) for colour in ((200, 10, 30), (10, 200, 30)))
    stream = io.BytesIO()
    first.save(stream, form, save_all=True, append_images=[second], quality=95)
    assert np.abs(decode(stream.getvalue()).astype(int) - (200, 10, 30)).max() <= 4


def test_avif_has_the_pixels_of_another_decoder_and_is_turned() -> None:
    image_HWC = picture(24, 32)
    content = encoded(image_HWC, "AVIF", quality=90)
    np.testing.assert_array_equal(decode(content), cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode(encoded(image_HWC, "AVIF", quality=90, exif=exif))
    np.testing.assert_array_equal(turned, np.rot90(decode(content), -1))  # a quarter to the right


def test_heic_is_read_where_its_package_is() -> None:
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    if not has_heif():
        with pytest.raises(BadImage, match=r"those of HEIC: pip install pillow-heif to have them read"):
            decode(content)
        pytest.skip("needs pillow-heif")
    import pillow_heif

    image_HWC = picture(192, 256)
    pillow_heif.register_heif_opener()
    for change in ({}, {"exif": bytes.fromhex("4d4d002a00000008000101120003000000010006000000000000")}):
        good = encoded(image_HWC, "HEIF", quality=-1, **change)
        turned_HWC = np.rot90(image_HWC, -1) if change else image_HWC
        assert np.abs(decode(good).astype(int) - turned_HWC).mean() < 2
        for kept in (30, len(good) // 2, len(good) - 1):
            with pytest.raises(BadImage) as caught:
                decode(good[:kept])
            assert caught.value.status == "truncated"
    with pytest.raises(BadImage):
        decode(content)


def odd_tiff(bands: int, bits: int, kind: int) -> bytes:
    """Return a sound TIFF of 2x1 pixels, `kind` being 1 for whole numbers, 2 for signed ones, 3 for floats."""
    pixels = bytes(2 * bands * bits // 8)
    shorts = [(256, [2]), (257, [1]), (258, [bits] * bands), (259, [1]), (262, [2 if bands > 2 else 1]), (273, [0])]
    shorts += [(277, [bands]), (278, [1]), (279, [len(pixels)])]
    shorts += [(338, [0] * (bands - 3))] if bands > 3 else []
    shorts += [(339, [kind] * bands)]
    at = 8 + 2 + 12 * len(shorts) + 4
    entries, values = b"", b""
    for tag, numbers in shorts:
        value = struct.pack(f"<{len(numbers)}H", *numbers)
        entries += struct.pack("<HHI", tag, 3, len(numbers))
        entries += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", at + len(values))
        values += value if len(value) > 4 else b""
    strip = struct.pack("<HHI", 273, 3, 1)
    entries = entries.replace(strip + bytes(4), strip + struct.pack("<I", at + len(values)))
    return b"II*\0" + struct.pack("<IH", 8, len(shorts)) + entries + bytes(4) + values + pixels


@pytest.mark.parametrize(
    ("bands", "bits", "kind", "says"),
    [
        (1, 32, 3, "a TIFF of 1 band(s) of 32-bit floats; read are 1, 3 or 4 bands of 8 or 16 bits without sign"),
        (3, 32, 3, "a TIFF of 3 band(s) of 32-bit floats"),
        (5, 8, 1, "a TIFF of 5 band(s) of 8-bit whole numbers"),
        (5, 16, 1, "a TIFF of 5 band(s) of 16-bit whole numbers"),
        (13, 8, 1, "a TIFF of 13 band(s) of 8-bit whole numbers"),
        (2, 8, 1, "a TIFF of 2 band(s) of 8-bit whole numbers"),
        (1, 16, 2, "a TIFF of 1 band(s) of 16-bit signed whole numbers"),  # whose -1 would be the brightest
        (1, 32, 1, "a TIFF of 1 band(s) of 32-bit whole numbers"),
    ],
)
def test_a_sound_tiff_without_colours_says_what_it_is(bands: int, bits: int, kind: int, says: str) -> None:
    with pytest.raises(BadImage) as caught:
        decode(odd_tiff(bands, bits, kind))
    assert caught.value.status == "undecodable"
    assert str(caught.value).startswith(says)
    for good in (odd_tiff(1, 8, 1), odd_tiff(3, 8, 1), odd_tiff(3, 16, 1), odd_tiff(4, 8, 1)):
        np.testing.assert_array_equal(decode(good), np.zeros((1, 2, 3)))


def test_what_is_none_of_the_formats_is_named() -> None:
    samples = {"JPEG XL": b"\xff\x0a" + bytes(100), "macOS's AppleDouble": b"\0\x05\x16\x07" + bytes(100)}
    samples["DDS"] = encoded(picture(4, 4), "DDS")
    for kind, content in samples.items():
        with pytest.raises(BadImage, match=f"no JPEG, PNG.* file; its first bytes are those of {kind}: ") as caught:
            decode(content)
        assert caught.value.status == "undecodable"


def test_bad_bytes_have_their_status() -> None:
    bomb = encoded(np.zeros((1, 1, 3), np.uint8), "BMP")
    bomb = bomb[:18] + (100_000).to_bytes(4, "little") + (100_000).to_bytes(4, "little") + bomb[26:]
    for content, status in ((b"", "empty"), (b"not a picture", "undecodable"), (bomb, "too_large")):
        with pytest.raises(BadImage) as caught:
            decode(content)
        assert caught.value.status == status


def test_the_size_of_an_ordinary_jpeg_is_pillow_s_whatever_becomes_of_its_header() -> None:
    generator = np.random.default_rng(0)
    ordinary = [
        encoded(picture(20, 30), "JPEG", comment=b"seen", icc_profile=b"\0" * 99),
        encoded(picture(30, 20)[..., 0], "JPEG", dpi=(72, 72)),
    ]
    assert [jpeg_size(content) for content in ordinary] == [(30, 20), (20, 30)]
    assert jpeg_size(encoded(picture(20, 30), "JPEG", progressive=True)) is None
    num_read, refused = 0, []
    for _ in range(3000):
        content = bytearray(ordinary[generator.integers(2)])
        for place in generator.integers(2, min(700, len(content)), generator.integers(1, 4)):
            content[place] = generator.choice([0, 255, generator.integers(256)])
        if (size := jpeg_size(bytes(content))) is None:
            continue
        try:
            with Image.open(io.BytesIO(content)) as opened:
                assert (opened.size, "progressive" in opened.info) == (size, False)
        except OSError:  # UnidentifiedImageError is one
            refused.append(bytes(content))
        num_read += 1
    assert num_read > 1000
    assert len(refused) > 3
    for content in refused:
        with pytest.raises(BadImage):
            decode(content)


def test_grey_and_sixteen_bit_and_alpha_become_rgb() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode(encoded(grey, "PNG")), expected)
    np.testing.assert_array_equal(decode(encoded(np.dstack([expected, 255 - grey]), "PNG")), expected)
    np.testing.assert_array_equal(decode(encoded(grey.astype(np.uint16) * 257, "PNG")), expected)


def test_warp_covers_the_whole_picture_and_resamples_as_pillow() -> None:
    image_HWC = picture(375, 500)
    square_SS3, rectangle = fit(whole(image_HWC), config("warp", image_size=224))
    pillow = np.asarray(Image.fromarray(image_HWC).resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(square_SS3.astype(int) - pillow).max() <= 1
    np.testing.assert_array_equal(rectangle, [0, 0, 500, 375])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_what_is_resampled_lies_as_a_batch_does_and_is_what_planes_of_colours_give(
    interpolation: Interpolation,
) -> None:
    rng = np.random.default_rng(0)
    for height, width, *size in rng.integers(1, 500, (40, 4)).tolist():
        image_HWC = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        input_YX3, _ = fit(whole(image_HWC), config("warp", image_size=tuple(size), interpolation=interpolation))
        planes_13HW = torch.from_numpy(image_HWC.transpose(2, 0, 1).copy())[None]
        planes_13YX = torch.nn.functional.interpolate(planes_13HW, size=size, mode=interpolation, antialias=True)
        np.testing.assert_array_equal(input_YX3, planes_13YX[0].permute(1, 2, 0).numpy())
        assert input_YX3.flags.c_contiguous, "placing it in a batch would take as long as resampling it"


def test_letterbox_pads_with_the_mean_and_its_rectangle_reaches_beyond_the_picture() -> None:
    square_SS3, rectangle = fit(whole(np.full((20, 40, 3), 255, np.uint8)), config("letterbox"))
    np.testing.assert_array_equal(rectangle, [0, -10, 40, 30])
    np.testing.assert_array_equal(square_SS3[2:6], 255)
    np.testing.assert_array_equal(square_SS3[[0, 1, 6, 7]], np.broadcast_to([128, 64, 0], (4, 8, 3)))


def test_center_crop_covers_a_centred_square() -> None:
    image_HWC = np.zeros((40, 60, 3), np.uint8)
    image_HWC[10:30, 20:40] = 200
    square_SS3, rectangle = fit(whole(image_HWC), config("center-crop"))
    np.testing.assert_array_equal(rectangle, [20, 10, 40, 30])
    np.testing.assert_array_equal(square_SS3, 200)


@pytest.mark.parametrize(
    ("resize", "width", "height", "rectangle"),
    [
        ("warp", 32, 12, [0, 0, 32, 12]),  # half the width, 2/3 of the height
        ("letterbox", 32, 12, [0, -2, 32, 14]),  # at half the size, one row of padding above and below
        ("letterbox", 16, 16, [-8, 0, 24, 16]),  # four columns left and right
        ("center-crop", 32, 12, [4, 0, 28, 12]),  # 24 of 32 columns
        ("center-crop", 24, 24, [0, 6, 24, 18]),  # 12 of 24 rows
    ],
)
def test_a_rectangular_input_covers_what_its_rectangle_says(
    resize: str, width: int, height: int, rectangle: list[float]
) -> None:
    image_HWC = np.zeros((height, width, 3), np.uint8)
    image_HWC[6:12, 8:16] = 255
    if resize == "letterbox":
        image_HWC[10:] = 0  # the mark is 8 x 4
    input_YX3, found = fit(whole(image_HWC), config(resize, image_size=(8, 16), crop_fraction=1.0))
    assert input_YX3.shape == (8, 16, 3)
    np.testing.assert_array_equal(found, rectangle)
    mass = input_YX3[..., 2].astype(float)  # blue: the padding's is 0
    per_x, per_y = (rectangle[2] - rectangle[0]) / 16, (rectangle[3] - rectangle[1]) / 8
    ys, xs = np.mgrid[:8, :16] + 0.5
    in_rows = (max(6, rectangle[1]), min(10 if resize == "letterbox" else 12, rectangle[3]))
    centre_x, centre_y = (mass * xs).sum() / mass.sum(), (mass * ys).sum() / mass.sum()
    assert rectangle[0] + centre_x * per_x == pytest.approx(12, abs=0.5 * per_x)
    assert rectangle[1] + centre_y * per_y == pytest.approx(sum(in_rows) / 2, abs=0.5 * per_y)


def reduced(resize: str, side: Size, **changes: object) -> Preprocessing:
    return config(resize, image_size=side, decode="reduced", crop_fraction=0.875, **changes)


@pytest.mark.parametrize("resize", ["warp", "letterbox", "center-crop"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(1001, 1000), (1000, 999), (1000, 1000), (997, 1013), (640, 481)])
def test_sizes_and_rectangles_are_those_of_the_full_picture(
    resize: str, orientation: int, width: int, height: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    ramps_HWC = np.zeros((height, width, 3), np.uint8)
    ramps_HWC[..., 0] = np.linspace(0, 255, width)
    ramps_HWC[..., 1] = np.linspace(0, 255, height)[:, None]
    content = encoded(ramps_HWC, "JPEG", quality=95, subsampling=0, exif=exif)
    for side in (50, 100, 224, 499):
        settings = reduced(resize, side)
        small, full = decode_for(content, settings), whole(decode(content))
        assert (small.width, small.height) == (full.width, full.height)
        (square_SS3, rectangle), (expected_SS3, expected) = fit(small, settings), fit(full, settings)
        np.testing.assert_array_equal(rectangle, expected)
        one_pixel, rounding = 255 / side, 3
        assert np.abs(square_SS3.astype(int) - expected_SS3).max() <= one_pixel + rounding


@pytest.mark.parametrize(
    ("resize", "side", "scale"),
    [
        *(("warp", 64, 8), ("warp", 65, 4), ("warp", 128, 4), ("warp", 129, 2), ("warp", 256, 2), ("warp", 257, 1)),
        *(("letterbox", 96, 8), ("letterbox", 97, 4), ("letterbox", 384, 2), ("letterbox", 385, 1)),
        *(("center-crop", 56, 8), ("center-crop", 57, 4), ("center-crop", 224, 2), ("center-crop", 225, 1)),
    ],
)
def test_the_scale_is_the_smallest_with_all_pixels_of_the_input(resize: str, side: int, scale: int) -> None:
    content = encoded(picture(512, 768), "JPEG")  # the shorter side is 512, the longer 768, the crop 448
    assert decode_for(content, reduced(resize, side)).pixels_HWC.shape == (512 // scale, 768 // scale, 3)


@pytest.mark.parametrize(
    ("resize", "size", "scale"),
    [
        ("warp", (64, 64), 8),
        ("warp", (32, 64), 8),  # 512 / 64, should it yet be turned
        ("warp", (32, 65), 4),
        ("warp", (65, 32), 4),
        ("letterbox", (96, 64), 8),  # 768 / 64; turned, 768 / 96 and 512 / 64
        ("letterbox", (97, 65), 4),
        ("center-crop", (28, 56), 8),  # of 512 x 768 a crop of 672 x 336; turned, of 448 x 224
        ("center-crop", (28, 57), 4),
    ],
)
def test_the_scale_for_a_rectangle_has_all_its_pixels_whichever_way_the_picture_is_turned(
    resize: str, size: tuple[int, int], scale: int
) -> None:
    content = encoded(picture(512, 768), "JPEG")
    assert decode_for(content, reduced(resize, size)).pixels_HWC.shape == (512 // scale, 768 // scale, 3)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("form", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_reduced_pixels_are_those_of_pillow(scale: int, form: str, progressive: bool) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture(1203, 1601)).convert(form).save(stream, "JPEG", progressive=progressive)
    small = decode_for(stream.getvalue(), reduced("warp", 1203 // scale))
    with Image.open(stream) as opened:
        opened.draft(form, (1601 // scale, 1203 // scale))
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(small.pixels_HWC, expected)


def test_reduced_pixels_are_means_of_blocks() -> None:
    content = encoded(picture(1200, 1600), "JPEG", quality=95)
    for scale in (2, 4, 8):
        small_HWC = decode_for(content, reduced("warp", 1200 // scale)).pixels_HWC
        means_HWC = decode(content).reshape(1200 // scale, scale, 1600 // scale, scale, 3).mean((1, 3))
        assert np.abs(small_HWC - means_HWC).max() < 3


def test_small_pictures_and_other_formats_are_decoded_in_full() -> None:
    small = encoded(picture(447, 900), "JPEG")
    for content in (small, *(encoded(picture(1000, 1200), form) for form in ("PNG", "WEBP", "BMP", "TIFF"))):
        np.testing.assert_array_equal(decode_for(content, reduced("warp", 224)).pixels_HWC, decode(content))
    large = encoded(picture(1000, 1200), "JPEG")
    np.testing.assert_array_equal(decode_for(large, config("warp")).pixels_HWC, decode(large))


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("side", [50, 100, 224])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_file_that_ends_too_early_is_truncated_at_every_scale(
    kept: float, side: int, progressive: bool
) -> None:
    noise_HWC = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    content = encoded(noise_HWC, "JPEG", progressive=progressive)
    with pytest.raises(BadImage) as caught:
        decode_for(content[: int(len(content) * kept)], reduced("warp", side))
    assert caught.value.status == "truncated"
