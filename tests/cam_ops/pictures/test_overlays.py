"""What is drawn over a picture, pixel by pixel."""

import matplotlib
import numpy as np
import pytest

from cam_ops.pictures.overlays import ALPHA, COLOURS, WHITE, draw_box, overlay
from cam_ops.pictures.text import shortened_to, text_size

VIRIDIS = matplotlib.colormaps["viridis"]


def test_heat_hides_the_more_of_the_picture_the_higher_it_is() -> None:
    """Colours against matplotlib's."""
    values_W = np.linspace(0, 1, 256)
    picture_HWC = np.random.default_rng(0).integers(0, 256, (4, 256, 3), np.uint8)
    drawn_HWC = overlay(picture_HWC, np.tile(values_W, (4, 1)), np.array([0, 0, 256, 4], np.float32))
    alpha_W1 = ALPHA * (1 - (1 - values_W) ** 2)[:, None]
    expected_HWC = alpha_W1 * 255 * VIRIDIS(values_W)[:, :3] + (1 - alpha_W1) * picture_HWC
    assert np.abs(drawn_HWC - expected_HWC).max() < 2
    np.testing.assert_array_equal(drawn_HWC[:, 0], picture_HWC[:, 0])


def test_what_a_map_does_not_cover_stays_as_it_was() -> None:
    picture_HWC = np.full((20, 40, 3), 200, np.uint8)
    drawn_HWC = overlay(picture_HWC, np.ones((7, 7)), np.array([10, 5, 30, 15], np.float32))
    changed_HW = (drawn_HWC != picture_HWC).any(2)
    expected_HW = np.zeros((20, 40), bool)
    expected_HW[5:15, 10:30] = True
    np.testing.assert_array_equal(changed_HW, expected_HW)


@pytest.mark.parametrize("ground", [0, 255])
def test_a_box_shows_on_black_and_on_white(ground: int) -> None:
    """Its line has the colour, and an edge beside it; the line stands on its outermost pixels."""
    picture_HWC = np.full((60, 80, 3), ground, np.uint8)
    for colour in (WHITE, *COLOURS):
        drawn_HWC = draw_box(picture_HWC, np.array([20, 10, 60, 50], np.float32), "", colour, 1)
        assert [drawn_HWC[30, x].tolist() for x in (18, 19, 20, 21, 22)] == [
            *([ground] * 3, [0, 0, 0], [*colour], [0, 0, 0], [ground] * 3),
        ]
        assert [drawn_HWC[y, 40].tolist() for y in (10, 49)] == [[*colour]] * 2


@pytest.mark.parametrize("box", [(100, 100, 300, 250), (100, 0, 300, 250), (330, 200, 400, 300)])
def test_a_caption_stands_outside_its_box_where_there_is_room(box: tuple[int, ...]) -> None:
    picture_HWC = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    drawn_HWC = draw_box(picture_HWC, np.array(box, np.float32), "tabby 0.93", COLOURS[0], 2)
    bare_HWC = draw_box(picture_HWC, np.array(box, np.float32), "", COLOURS[0], 2)
    y, x = np.nonzero((drawn_HWC != bare_HWC).any(2))
    assert len(y) > 200
    x0, y0, x1, y1 = box
    assert not ((x >= x0) & (x < x1) & (y >= y0) & (y < y1)).any()


def test_boxes_far_outside_and_words_that_no_font_has_are_drawn_as_far_as_that_goes() -> None:
    picture_HWC = np.zeros((30, 40, 3), np.uint8)
    for box in ((-1e9, -1e9, 1e9, 1e9), (100, 100, 200, 200), (5, 5, 5, 5)):
        assert draw_box(picture_HWC, np.array(box, np.float32), "räd 🦊\n\0" * 50, COLOURS[1]).shape == (30, 40, 3)


def test_a_caption_of_two_million_letters_is_drawn_as_far_as_the_picture_goes() -> None:
    picture_HWC, box_4 = np.zeros((30, 40, 3), np.uint8), np.array([5, 15, 35, 29], np.float32)
    drawn_HWC = draw_box(picture_HWC, box_4, "m" * 2_000_000, COLOURS[1])
    np.testing.assert_array_equal(drawn_HWC, draw_box(picture_HWC, box_4, "m" * 30, COLOURS[1]))


def test_a_line_is_cut_to_its_room_at_either_end() -> None:
    text = "n02123045/" + "a" * 100 + "_tabby.JPEG"
    for width in (30, 100, 320):
        for keeps_end in (False, True):
            line = shortened_to(text, 14, width, keeps_end=keeps_end)
            assert text_size(line, 14)[0] <= width
            kept = line.strip("…")
            assert text.endswith(kept) if keeps_end else text.startswith(kept)
            longer = f"…{text[-len(kept) - 1 :]}" if keeps_end else f"{text[: len(kept) + 1]}…"
            assert text_size(longer, 14)[0] > width
    assert shortened_to("tabby.jpg", 14, 320) == "tabby.jpg"
    assert shortened_to("a\nb\0\u202e", 14, 320) == "a\\nb\\x00\\u202e"
