"""A decoder in a process of its own, which crashes, hangs, or runs out of memory, as it would here."""

import os
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cam_ops.errors import BadImage
from cluster.label.decoding import DecoderApart, decode_and_fit
from tests.cluster.label.test_loader import INPUT
from tests.support.command import ROOT

ROW = {"uri": "file:///picture.png", "offset": 0, "size": 1}


def png(side: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.slow
def test_a_picture_that_kills_or_holds_the_decoder_is_told_from_those_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = ROOT / "tests" / "support" / "crashing"
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")  # of its process
    decoder = DecoderApart(INPUT, timeout_s=2)
    try:
        for side in (20, 30):
            apart, here = decoder.decode_and_fit(ROW, png(side)), decode_and_fit(ROW, png(side), INPUT)
            np.testing.assert_array_equal(apart.pixels_YX3, here.pixels_YX3)
            np.testing.assert_array_equal(apart.rectangle, here.rectangle)
            assert (apart.width, apart.height) == (here.width, here.height) == (side, side)
        for content, status, reason in (
            (png(20) + b"CRASH", "crashed_decoder", "the decoder was ended by signal 11 (SIGSEGV)"),
            (png(20) + b"HANG", "crashed_decoder", "the decoder did not end within 2 s"),
            (png(20)[:100], "truncated", None),
            (b"", "empty", "the file has no bytes"),
        ):
            with pytest.raises(BadImage) as bad:
                decoder.decode_and_fit(ROW, content)
            assert bad.value.status == status
            assert reason is None or str(bad.value) == reason
        assert decoder.decode_and_fit(ROW, png(40)).width == 40
    finally:
        decoder.close()
