"""A page stays below 12 MB, whatever its images, names and boxes are."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from cam_ops.errors import StorageError
from cluster.report.bound import MAX_BYTES, bounded
from cluster.report.records import Card, Gallery, Report
from tests.support.reports import against, blobs, card, report, shown_map

RAW = blobs((1, 1, 4, 4, 1.0))
BOX = (10.0, 10.0, 40.0, 40.0)
LARGE = np.zeros((112, 112), np.float32)
WORST = "\U000e0001<\x00"  # characters, each of which is longest in one of HTML, JSON and an escape


def made(each: Card, other: Card | None = None, number: int = 120) -> Report:
    """Return a report of so many equal cards, in two galleries, each beside one of another run."""
    cards = [replace(each, image_id=f"{at} {each.image_id}") for at in range(number)]
    odd = tuple(range(1, number, 2))
    galleries = [
        Gallery(key="random", title="At random", says=".", total=9, cards=tuple(range(0, number, 2))),
        Gallery(
            key="changed", title="Changed", says=".", total=9, cards=odd, others=tuple(range(len(odd))) if other else ()
        ),
        Gallery(key="empty", title="Without a box", says=".", total=9, cards=(number - 1,)),
    ]
    return report(cards, galleries, against=against(*[other] * len(odd)) if other else None)


CASES: dict[str, tuple[Card, Card | None]] = {
    "long names": (card(WORST * 1300, shown_map(RAW, BOX, name=WORST * 1300), labels=(WORST * 1300,)), None),
    "many boxes": (card("a", shown_map(RAW, *[BOX] * 500)), None),
    "true boxes": (card("a", shown_map(RAW), truth=[BOX] * 600), None),
    "another run": (card("a", shown_map(RAW)), card("a", *[shown_map(LARGE)] * 5)),
}


class State(HTMLParser):
    """The data of a page's script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, Any] = {}
        self.feed(page)

    def handle_data(self, data: str) -> None:
        if data.startswith('{"setting"'):
            self.found = json.loads(data)


@pytest.mark.parametrize("case", CASES)
def test_a_page_has_as_many_of_its_first_images_as_fit_into_12_mb(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = made(*CASES[case])
    page, content = bounded(whole)
    assert MAX_BYTES // 2 < len(content) <= MAX_BYTES
    count = len(page.cards)
    assert page.cards == whole.cards[:count]
    said = f"{120 - count} of 120 images are left out, as the page would exceed 12 MB"
    assert said in capsys.readouterr().err
    assert said in content.decode()
    state = State(content.decode()).found
    for gallery in state["galleries"]:
        assert gallery["cards"]
        assert max(gallery["cards"]) < count
        if gallery["others"]:
            assert len(gallery["others"]) == len(gallery["cards"])
            assert max(gallery["others"]) < len(state["against"]["cards"]) <= count
    assert "empty" not in {gallery["key"] for gallery in state["galleries"]}


def test_a_page_that_fits_is_as_it_was() -> None:
    whole = made(card("a", shown_map(RAW)))
    assert bounded(whole)[0] is whole


def test_a_page_that_is_too_large_without_any_image_is_refused() -> None:
    whole = report([card("a", shown_map(RAW))])
    with pytest.raises(StorageError, match="without any picture"):
        bounded(replace(whole, head=replace(whole.head, command_line="x" * MAX_BYTES)))
