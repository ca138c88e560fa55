"""The page as text: what is foreign is text in it, and its policy allows its own script and style alone."""

import base64
import hashlib
import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from cam_ops.foreign import visible
from cluster.report.page import render
from cluster.report.records import Command, Gallery, Reason, Report, Truth
from tests.support.reports import against, blobs, card, class_row, picture, report, shown_map

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(2)</script>",
    "</style></title><!--",
    "photo\u202egpj.exe",
    "two\nlines\r\x00\x1b[31m",
    "\udcff\u2028\u2029",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(3)' onclick='alert(4)",
    "${alert(5)}`",
)


class Parsed(HTMLParser):
    """The elements of a page, their attributes, and the text in each kind."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open = "html"
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open = tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open, []).append(data)

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def all_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def state(self) -> dict[str, Any]:
        texts = [text for text in self.texts["script"] if text.startswith("{")]
        assert len(texts) == 1
        return json.loads(texts[0], parse_constant=refuse)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def hostile_report(name: str) -> Report:
    """Return a report in which a name stands wherever one from outside may stand."""
    raw_hw = blobs((1, 1, 4, 4, 1.0))
    truth = Truth(class_id=0, boxes=((10.0, 10.0, 40.0, 40.0),), iou=0.5, failure=name)
    maps = (shown_map(raw_hw, (10.0, 10.0, 40.0, 40.0), name=name), shown_map(raw_hw, name=name + "2"))
    made = report(
        [
            card(name, *maps, labels=(name,), top=((name + "3", 0.5),), truth=()),
            card(name, maps[0], picture=None, missing=name),
        ],
        [Gallery(key="random", title=name, says=name, total=2, cards=(0, 1))],
        commands=(
            Command(name="verify", does=name, line=name),
            Command(name="rebox", does=name, line=name + " {threshold}"),
        ),
        left_out=1,
    )
    head = replace(
        made.head,
        root=name,
        command_line=name,
        sources=(name,),
        facts=((name, name),),
        labels=name,
        reasons=(Reason(status=name, error=name, images=1, example=name),),
    )
    cards = (replace(made.cards[0], truth=truth), *made.cards[1:])
    others = replace(made.galleries[0], others=(0, 0))
    return replace(
        made,
        head=head,
        cards=cards,
        galleries=(others,),
        classes=(class_row(name),),
        classes_total=1,
        against=against(card(name, *maps, picture=None), root=name),
    )


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_is_text_wherever_it_stands(name: str) -> None:
    page = render(hostile_report(name))
    hostile, harmless = Parsed(page), Parsed(render(hostile_report("harmless")))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    assert [list(attributes) for _, attributes in hostile.elements] == [list(each) for _, each in harmless.elements]
    shown = "".join(text for texts in hostile.texts.values() for text in texts)
    times = "".join(text for texts in harmless.texts.values() for text in texts).count("harmless")
    state = json.dumps(hostile.state, ensure_ascii=False)
    assert times > 25
    outside = sum("".join(texts).count(visible(name)) for tag, texts in hostile.texts.items() if tag != "script")
    assert outside == sum("".join(texts).count("harmless") for tag, texts in harmless.texts.items() if tag != "script")
    assert state.count(json.dumps(visible(name), ensure_ascii=False)[1:-1]) == json.dumps(harmless.state).count(
        "harmless"
    )
    assert visible("".join(page.splitlines())) == "".join(page.splitlines())
    assert visible(name) in shown
    page.encode()


def test_no_element_has_a_style_or_a_handler() -> None:
    parsed = Parsed(render(hostile_report("harmless")))
    names = {name for _, attributes in parsed.elements for name in attributes}
    assert "style" not in names
    assert not [name for name in names if name.startswith("on")]
    assert {attributes.get("href", "#")[:1] for attributes in parsed.all_of("a")} == {"#"}
    assert all(attributes["src"].startswith("data:image/webp;base64,") for attributes in parsed.all_of("img"))


def test_each_address_in_the_page_is_one_place() -> None:
    elements = Parsed(render(hostile_report("harmless"))).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert sorted(ids) == sorted(set(ids))
    asked = [
        attributes[name]
        for _, attributes in elements
        for name in ("for", "list", "aria-controls")
        if name in attributes
    ]
    links = [attributes["href"] for tag, attributes in elements if tag == "a"]
    assert {*asked, *(link[1:] for link in links if link)} <= set(ids)


def test_the_policy_names_the_one_style_and_the_one_script_and_allows_nothing_else() -> None:
    parsed = Parsed(render(report([card("a.jpg", shown_map(blobs((1, 1, 4, 4, 1.0))))])))
    [policy] = [
        each["content"] for each in parsed.all_of("meta") if each.get("http-equiv") == "Content-Security-Policy"
    ]
    kinds = [each.get("type") for each in parsed.all_of("script")]
    assert kinds == ["application/json", None]
    [script] = [text for text in parsed.texts["script"] if not text.startswith("{")]
    [style] = parsed.texts["style"]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src '{digest(style)}'; script-src '{digest(script)}'; "
        "form-action 'none'; base-uri 'none'"
    )


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_a_picture_of_two_galleries_is_embedded_once() -> None:
    pictures = [picture((200, 10, 10)), picture((10, 10, 200))]
    cards = [card(f"{i}.jpg", shown_map(blobs((1, 1, 4, 4, 1.0))), picture=pictures[i]) for i in range(2)]
    galleries = [Gallery(key=key, title=key, says=key, total=2, cards=(0, 1)) for key in ("random", "surest")]
    page = render(report(cards, galleries))
    assert [page.count(base64.b64encode(each).decode()) for each in pictures] == [1, 1]
    assert [(each["key"], each["cards"]) for each in Parsed(page).state["galleries"]] == [
        ("random", [0, 1]),
        ("surest", [0, 1]),
        ("all", [0, 1]),
    ]


def test_maps_are_float32_little_endian_and_what_is_no_number_is_null() -> None:
    raw_hw = np.array([[1.5, -2.25], [np.nan, np.inf]], np.float32)
    made = report([card("a.jpg", shown_map(raw_hw, (0.0, 0.0, 8.0, 8.0), score=float("nan")))])
    [shown] = Parsed(render(made)).state["cards"][0]["maps"]
    assert shown["score"] is None
    assert shown["grid"] == [2, 2]
    assert base64.b64decode(shown["raw"]) == b"\0\0\xc0\x3f\0\0\x10\xc0\0\0\xc0\x7f\0\0\x80\x7f"


def test_an_alt_text_says_id_class_and_boxes() -> None:
    boxes = [(0.0, 0.0, 8.0, 8.0), (0.0, 0.0, 4.0, 4.0)]
    page = Parsed(render(report([card("a/b.jpg", shown_map(blobs((1, 1, 4, 4, 1.0)), *boxes, name="red fox"))])))
    assert [each["alt"] for each in page.all_of("img")] == ["a/b.jpg, red fox, 2 boxes"]


def test_boxes_are_there_where_no_script_runs() -> None:
    truth = [(0.0, 10.0, 40.5, 80.0)]
    shown = shown_map(blobs((1, 1, 4, 4, 1.0)), (1.0, 2.0, 3.5, 4.0), (0.0, 0.0, 8.0, 8.0))
    rectangles = Parsed(render(report([card("a.jpg", shown, truth=truth)]))).all_of("rect")
    kept = [{name: each[name] for name in ("class", "x", "y", "width", "height")} for each in rectangles]
    assert [tuple(each.values()) for each in kept if each["class"] != "halo"] == [
        ("true", "0.0", "10.0", "40.5", "70.0"),
        ("box second", "0.0", "0.0", "8.0", "8.0"),
        ("box", "1.0", "2.0", "2.5", "2.0"),
    ]
    assert sum(each["class"] == "halo" for each in kept) == 3


def test_a_run_without_a_picture_is_a_page_that_says_so() -> None:
    parsed = Parsed(render(report([], [])))
    assert "There is no picture to show: no image of this run has a map." in parsed.texts["p"]
    assert not parsed.all_of("dialog")


def test_counts_have_separators_and_images_that_are_not_ok_their_reason() -> None:
    texts = Parsed(render(report([card("a.jpg")]))).texts
    assert texts["dd"][:3] == ["4,000", "3,990", "3,990"]
    assert {"missing", "no such file", "gone.jpg"} <= {*texts["b"], *texts["td"]}
