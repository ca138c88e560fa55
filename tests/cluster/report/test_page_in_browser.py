"""The page in Chromium: its slider, galleries, keyboard; nothing foreign runs, nothing is asked for."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from cam_ops.foreign import visible
from cluster.report.page import render
from cluster.report.records import Command, Corners, Gallery, Report, Truth
from tests.cluster.report.test_page import HOSTILE, hostile_report
from tests.support.browser import Opened, opened, settle
from tests.support.reports import SETTING, against, blobs, card, class_row, report, shown_map

Open = Callable[..., AbstractContextManager[Opened]]
COUNTS = ("boxes", "empty", "several", "whole")
TWO = blobs((1, 1, 3, 3, 1.0), (5, 5, 7, 8, 0.5))  # boxes of 10 pixels a cell
ONE = blobs((2, 0, 4, 4, 3.0))
NOTHING = blobs((0, 0, 2, 2, -1.0))


@pytest.fixture
def look(browser: Browser, tmp_path: Path) -> Open:
    """Open the page of a report; at the end it must have asked for nothing, and have failed nowhere."""

    @contextmanager
    def open_(made: Report, **options: int) -> Iterator[Opened]:
        path = tmp_path / "report.html"
        path.write_text(render(made), encoding="utf-8")
        with opened(browser, path, **options) as seen:
            seen.page.set_default_timeout(60_000)
            settle(seen.page)
            yield seen
            assert (seen.requests, seen.errors) == ([], [])

    return open_


def galleries(count: int) -> tuple[Gallery, ...]:
    """Return two: all cards in order, and in the other order."""
    forth = tuple(range(count))
    return (
        Gallery(key="random", title="At random", says="Drawn by chance.", total=3456, cards=forth),
        Gallery(key="least-sure", title="Least sure", says="The lowest scores.", total=count, cards=forth[::-1]),
    )


def three() -> Report:
    """Return a report of three pictures; the boxes of its tables are unlike those that its maps give."""
    cards = [
        card("two.jpg", shown_map(TWO, (1.0, 2.0, 3.0, 4.5), score=0.5), truth=[(10, 10, 30, 30)]),
        card("one.jpg", shown_map(ONE, (20, 0, 40, 40), name="red fox"), truth=[(20, 0, 40, 20), (60, 60, 80, 80)]),
        card("none.jpg", shown_map(NOTHING, name="wolf", score=0.7), labels=("wolf",), truth=[(0, 0, 80, 80)]),
    ]
    return report(cards, galleries(3))


def drawn(page: Page, number: int, kind: str = "box") -> list[Corners]:
    """Return the boxes that are drawn on a card, best first."""
    rectangles = page.locator(f"#card-{number} svg rect.{kind}").evaluate_all(
        "all => all.map(one => ['x', 'y', 'width', 'height'].map(name => Number(one.getAttribute(name))))"
    )
    return [(x, y, x + width, y + height) for x, y, width, height in reversed(rectangles)]


def expect_drawn(page: Page, number: int, *boxes: Corners, kind: str = "box") -> None:
    settle(page)
    assert drawn(page, number, kind) == list(boxes)


def move(page: Page, threshold: float) -> None:
    page.locator("#threshold").fill(str(threshold))
    settle(page)


def expect_counts(page: Page, *numbers: int) -> None:
    settle(page)
    for name, number in zip(COUNTS, numbers, strict=True):
        expect(page.locator(f"#count-{name}")).to_have_text(str(number))


def expect_shown(page: Page, *image_ids: str) -> None:
    expect(page.locator("#grid figure:visible .id")).to_have_text(list(image_ids))


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_is_seen_as_text_and_does_nothing(name: str, look: Open) -> None:
    dialogs: list[str] = []
    with look(hostile_report(name)) as seen:
        seen.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        seen.page.reload()
        settle(seen.page)
        assert seen.page.text_content("#card-0 .id") == visible(name)
        assert seen.page.text_content("#card-0 .map >> nth=1") == f"{visible(name)}2 0.90"
        assert seen.page.text_content("h1") == visible(name)
        assert seen.page.title() == f"{' '.join(visible(name).split())} · camray report"
        move(seen.page, 0.5)
        assert seen.page.text_content("#rebox") == f"{visible(name)} 0.5"
        seen.page.click("#card-0 .frame")
        assert seen.page.text_content("#viewer-title") == visible(name)
        assert seen.page.text_content("#viewer-facts dd >> nth=1") == visible(name)
        assert seen.page.locator("script").count() == 2
        assert seen.page.locator("#viewer img, #grid img").count() == 4
    assert not dialogs


def test_the_policy_stops_scripts_styles_pictures_and_requests_that_are_not_the_page_s(look: Open) -> None:
    put_in = """async () => {
        const stopped = [];
        document.addEventListener("securitypolicyviolation", (event) => stopped.push(event.effectiveDirective));
        const put = (name, attributes) => document.body.append(Object.assign(document.createElement(name), attributes));
        put("script", { textContent: "window.ran = true" });
        put("style", { textContent: "body { display: none }" });
        put("img", { src: "http://127.0.0.1:9/a.png" });
        put("iframe", { src: "http://127.0.0.1:9/" });
        put("base", { href: "http://127.0.0.1:9/" });
        await fetch("http://127.0.0.1:9/").catch(() => {});
        const form = Object.assign(document.createElement("form"), { action: "http://127.0.0.1:9/" });
        document.body.append(form);
        form.submit();
        while (new Set(stopped).size < 7) await new Promise((resolve) => setTimeout(resolve, 20));
        return [window.ran, getComputedStyle(document.body).display, [...new Set(stopped)].sort()];
    }"""
    with look(three()) as seen:
        ran, display, stopped = seen.page.evaluate(put_in)
        assert (ran, display) == (None, "block")
        assert stopped == [
            "base-uri",
            "connect-src",
            "form-action",
            "frame-src",
            "img-src",
            "script-src-elem",
            "style-src-elem",
        ]
        seen.errors.clear()  # the browser tells of each


def test_at_the_run_s_own_setting_the_boxes_are_those_of_its_table(look: Open) -> None:
    with look(three()) as seen:
        expect_counts(seen.page, 2, 1, 0, 0)
        seen.page.uncheck("#drawn")
        expect_drawn(seen.page, 0)  # none of those that stand in the page without its script
        seen.page.check("#drawn")
        expect_drawn(seen.page, 0, (1.0, 2.0, 3.0, 4.5))
        expect_drawn(seen.page, 1, (20, 0, 40, 40))
        expect_drawn(seen.page, 2)
        expect_drawn(seen.page, 1, (60, 60, 80, 80), (20, 0, 40, 20), kind="true")
        assert seen.page.is_disabled("#reset")


def test_boxes_and_counts_follow_the_slider(look: Open) -> None:
    with look(three()) as seen:
        move(seen.page, 0.3)
        expect_counts(seen.page, 3, 1, 1, 0)
        expect_drawn(seen.page, 0, (10, 10, 30, 30), (50, 50, 70, 80))
        expect(seen.page.locator("#count-right")).to_have_text("2 of 3")  # IoU 1, and 1/2 with the first of two
        move(seen.page, 0.6)
        expect_counts(seen.page, 2, 1, 0, 0)
        expect_drawn(seen.page, 0, (10, 10, 30, 30))
        for nothing in ("0", "1", "", "-0.5"):  # `rebox` refuses these
            seen.page.fill("#threshold-number", nothing)
            expect_counts(seen.page, 2, 1, 0, 0)
            assert "--threshold 0.6 " in (seen.page.text_content("#rebox") or "")
        expect(seen.page.locator("#count-right")).to_have_text("2 of 3")
        seen.page.click("#reset")
        expect_counts(seen.page, 2, 1, 0, 0)
        expect_drawn(seen.page, 0, (1.0, 2.0, 3.0, 4.5))


def test_the_normaliser_and_the_regions_count_and_the_command_follows(look: Open) -> None:
    with look(three()) as seen:
        assert seen.page.text_content("#rebox") == (
            "python -m jobs rebox run --threshold 0.2 --normalise max --components all --out new"
        )
        seen.page.select_option("#normalise", "minmax")  # -1 becomes 0, 0 becomes 1: all but a corner
        expect_counts(seen.page, 4, 0, 1, 1)
        expect_drawn(seen.page, 2, (0, 0, 80, 80))
        seen.page.select_option("#components", "largest")
        expect_counts(seen.page, 3, 0, 0, 1)
        seen.page.fill("#threshold-number", "0.45")
        assert seen.page.text_content("#rebox") == (
            "python -m jobs rebox run --threshold 0.45 --normalise minmax --components largest --out new"
        )


def test_a_run_calibrated_by_class_has_a_threshold_for_each_until_the_slider_is_moved(look: Open) -> None:
    made = replace(three(), setting=replace(SETTING, is_calibrated=True, is_per_class=True))
    with look(made) as seen:
        expect(seen.page.locator("#origin")).to_contain_text("a threshold for each class")
        expect_counts(seen.page, 2, 1, 0, 0)
        move(seen.page, 0.3)
        expect(seen.page.locator("#origin")).to_contain_text("for all classes")
        move(seen.page, 0.2)
        expect_counts(seen.page, 3, 1, 1, 0)  # not the table's, though the number is
        seen.page.click("#reset")
        expect_counts(seen.page, 2, 1, 0, 0)


def test_what_the_audit_found_is_said_of_the_boxes_that_it_looked_at_alone(look: Open) -> None:
    audited = Truth(class_id=0, boxes=(), iou=0.25, failure="too_large")
    made = report([replace(card("a.jpg", shown_map(ONE, (20, 0, 40, 40))), truth=audited)])
    with look(made) as seen:
        expect(seen.page.locator("#card-0 .found")).to_have_text("1 box IoU 0.25 too large")
        expect(seen.page.locator("#card-0 .failure")).to_be_visible()
        move(seen.page, 0.5)
        expect(seen.page.locator("#card-0 .failure")).to_be_hidden()
        expect(seen.page.locator("#card-0 .iou")).to_be_hidden()
        seen.page.click("#reset")
        expect(seen.page.locator("#card-0 .iou")).to_have_text("IoU 0.25")
        expect(seen.page.locator("#card-0 .iou")).to_be_visible()


def test_a_path_with_a_mark_in_it_stays_as_it_is(look: Open) -> None:
    line = "rebox 'a{threshold}b' --threshold {threshold} --normalise {normalise}"
    made = report([card("a.jpg", shown_map(ONE))], commands=(Command(name="rebox", does="", line=line),))
    assert "rebox &#39;a{threshold}b&#39; --threshold 0.2 --normalise max<" in render(made)
    with look(made) as seen:
        move(seen.page, 0.5)
        assert seen.page.text_content("#rebox") == "rebox 'a{threshold}b' --threshold 0.5 --normalise max"


def test_the_line_for_a_run_of_rebox_says_what_its_maps_run_would_do_otherwise(look: Open) -> None:
    line = "rebox run --components {components}{min_area} --recipe default"
    setting = replace(SETTING, components="peaks")
    made = report(
        [card("a.jpg", shown_map(ONE))], setting=setting, commands=(Command(name="rebox", does="", line=line),)
    )
    assert "--components peaks --min-area 0.01 --recipe default<" in render(made)
    with look(made) as seen:
        for components, words in {
            "all": "all --min-area 0",
            "largest": "largest",
            "peaks": "peaks --min-area 0.01",
        }.items():
            seen.page.select_option("#components", components)
            assert seen.page.text_content("#rebox") == f"rebox run --components {words} --recipe default"


def test_heat_and_boxes_can_be_taken_away_and_the_original_put_beside(look: Open) -> None:
    painted = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"
    with look(three()) as seen:
        canvas = seen.page.locator("#card-0 canvas")
        assert canvas.evaluate(painted)
        seen.page.uncheck("#heat")
        seen.page.uncheck("#drawn")
        settle(seen.page)
        expect(seen.page.locator("#card-0 svg rect")).to_have_count(0)
        assert not canvas.evaluate(painted)
        seen.page.check("#beside")
        expect(seen.page.locator("#card-0 .frame img")).to_have_count(2)
        addresses = seen.page.locator("#card-0 img").evaluate_all("all => all.map(one => one.src)")
        assert addresses[0] == addresses[1]


def test_a_gallery_is_chosen_sorted_and_filtered(look: Open) -> None:
    with look(three()) as seen:
        expect_shown(seen.page, "two.jpg", "one.jpg", "none.jpg")
        expect(seen.page.locator("#says")).to_have_text("3 of 3,456 shown. Drawn by chance.")
        seen.page.click("#gallery-least-sure")
        expect_shown(seen.page, "none.jpg", "one.jpg", "two.jpg")
        assert seen.page.get_attribute("#gallery-least-sure", "aria-pressed") == "true"
        seen.page.select_option("#sort", "score")
        expect_shown(seen.page, "one.jpg", "none.jpg", "two.jpg")
        seen.page.select_option("#sort", "iou")
        expect_shown(seen.page, "none.jpg", "two.jpg", "one.jpg")
        seen.page.fill("#filter", "FOX")  # whole names first
        expect_shown(seen.page, "two.jpg", "one.jpg")  # `one.jpg` is labelled so
        seen.page.fill("#filter", "wo")
        expect_shown(seen.page, "none.jpg")
        expect_counts(seen.page, 0, 1, 0, 0)
        seen.page.fill("#filter", "bear")
        expect_shown(seen.page)
        expect(seen.page.locator("#none")).to_be_visible()


def test_each_map_of_an_image_can_be_shown(look: Open) -> None:
    maps = shown_map(ONE, (20, 0, 40, 40)), shown_map(TWO, (0, 0, 8, 8), (8, 8, 16, 16), name="wolf", score=0.25)
    with look(report([card("a.jpg", *maps)])) as seen:
        expect_counts(seen.page, 1, 0, 0, 0)
        seen.page.click("#card-0 .map >> nth=1")
        expect_counts(seen.page, 2, 0, 1, 0)
        expect_drawn(seen.page, 0, (0, 0, 8, 8), (8, 8, 16, 16))
        assert seen.page.text_content("#card-0 .class") == "wolf 0.25"
        assert seen.page.text_content("#card-0 .num") == "2 boxes"
        seen.page.fill("#filter", "fox")
        expect_counts(seen.page, 1, 0, 0, 0)


def test_a_filter_finds_each_of_several_labels_and_shows_its_map_as_long_as_it_stands(look: Open) -> None:
    maps = shown_map(ONE, (20, 0, 40, 40)), shown_map(TWO, (0, 0, 8, 8), (8, 8, 16, 16), name="wolf", score=0.25)
    cards = card("a.jpg", *maps), card("b.jpg", shown_map(ONE, (20, 0, 40, 40)), labels=("fox", "wolf"))
    with look(report(cards)) as seen:
        shown = seen.page.locator("#card-0 .class")
        seen.page.fill("#filter", "wolf")
        expect_shown(seen.page, "a.jpg", "b.jpg")
        expect(shown).to_have_text("wolf 0.25")
        expect_counts(seen.page, 3, 0, 1, 0)
        seen.page.fill("#filter", "")
        expect(shown).to_have_text("fox 0.90")
        expect_counts(seen.page, 2, 0, 0, 0)
        seen.page.click("#card-0 .map >> nth=1")
        seen.page.fill("#filter", "fox")
        expect(shown).to_have_text("fox 0.90")
        seen.page.fill("#filter", "")
        expect(shown).to_have_text("wolf 0.25")  # as it was chosen
        seen.page.click("#card-1 .frame")
        expect(seen.page.locator("#viewer-facts dd >> nth=1")).to_have_text("fox, wolf")


def test_pictures_that_are_sorted_follow_the_setting_wherever_it_is_changed(look: Open) -> None:
    cards = card("one.jpg", shown_map(ONE)), card("two.jpg", shown_map(TWO, (0, 0, 8, 8)))
    with look(report(cards)) as seen:
        seen.page.select_option("#sort", "boxes")
        expect_shown(seen.page, "two.jpg", "one.jpg")
        seen.page.fill("#threshold-number", "0.6")  # a box of each
        seen.page.press("#threshold-number", "Tab")
        expect_shown(seen.page, "one.jpg", "two.jpg")
        seen.page.click("#reset")
        expect_shown(seen.page, "two.jpg", "one.jpg")
        seen.page.select_option("#components", "largest")
        expect_shown(seen.page, "one.jpg", "two.jpg")
        seen.page.click("#reset")
        seen.page.click("#card-0 .frame")
        seen.page.locator("#viewer-threshold").fill("0.6")
        seen.page.keyboard.press("Escape")
        expect_shown(seen.page, "one.jpg", "two.jpg")
        expect(seen.page.locator("#card-0 .frame")).to_be_focused()


def test_the_keyboard_reaches_and_leaves_the_enlarged_picture(look: Open) -> None:
    with look(three()) as seen:
        keyboard, title = seen.page.keyboard, seen.page.locator("#viewer-title")
        seen.page.focus("#card-0 .frame")
        keyboard.press("Enter")
        expect(title).to_have_text("two.jpg")
        keyboard.press("ArrowLeft")
        expect(title).to_have_text("two.jpg")
        keyboard.press("ArrowRight")
        expect(title).to_have_text("one.jpg")
        assert seen.page.locator("#viewer-stages rect.box").count() == 1
        seen.page.focus("#viewer-threshold")
        keyboard.press("ArrowRight")
        expect(title).to_have_text("one.jpg")
        assert seen.page.input_value("#threshold") == "0.21"
        expect(seen.page.locator("#viewer-boxes tbody td >> nth=0")).to_have_text("20.0")
        keyboard.press("Escape")
        expect(seen.page.locator("#viewer")).not_to_be_visible()
        expect(seen.page.locator("#card-1 .frame")).to_be_focused()


def test_a_line_that_cannot_be_put_on_the_clipboard_is_selected(look: Open) -> None:
    with look(three()) as seen:
        seen.page.evaluate("() => Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        seen.page.click(".copy >> nth=1")
        expect(seen.page.locator(".copy >> nth=1")).to_contain_text("Selected")
        assert seen.page.evaluate("getSelection().toString()") == seen.page.text_content("#rebox")


def test_a_picture_that_is_gone_leaves_its_map_and_boxes(look: Open) -> None:
    made = report([card("a.jpg", shown_map(ONE, (20, 0, 40, 40)), picture=None, missing="gone since the run")])
    with look(made) as seen:
        expect(seen.page.locator("#card-0 .gone")).to_have_text("no picture: gone since the run")
        expect_drawn(seen.page, 0, (20, 0, 40, 40))
        seen.page.click("#card-0 .frame")
        expect(seen.page.locator("#viewer-stages .gone")).to_be_visible()


def test_the_images_of_two_runs_stand_side_by_side(look: Open) -> None:
    ours = card("a.jpg", shown_map(ONE, (20, 0, 40, 25)))
    theirs = card("a.jpg", shown_map(TWO, (20, 0, 40, 20), name="red fox"), picture=None)
    changed = Gallery(key="changed", title="Changed", says="Right the other.", total=9, cards=(0,), others=(0,))
    made = report([ours], (galleries(1)[0], changed), against=against(theirs, root="run-b"))
    with look(made) as seen:
        expect_drawn(seen.page, 0, (20, 0, 40, 25))
        seen.page.click("#gallery-changed")
        expect(seen.page.locator("#says")).to_contain_text("The other is run-b, with its own boxes.")
        expect_drawn(seen.page, 0, (20, 0, 40, 20), (20, 0, 40, 25))
        expect(seen.page.locator("#card-0 .other")).to_have_text("other: red fox 0.90, 1 box, IoU 0.80 with this run's")
        move(seen.page, 0.5)
        expect(seen.page.locator("#card-0 .stage >> nth=0 >> rect.box")).to_have_attribute("height", "40")
        assert drawn(seen.page, 0)[:1] == [(20, 0, 40, 20)]
        seen.page.click("#card-0 .frame")
        expect(seen.page.locator("#viewer-stages .stage")).to_have_count(2)
        seen.page.keyboard.press("Escape")
        seen.page.click("#gallery-random")
        expect(seen.page.locator("#card-0 .stage")).to_have_count(1)


def test_the_classes_are_sorted_by_a_heading(look: Open) -> None:
    rows = (
        class_row("wolf", maps=9, mean_score=0.5),
        class_row("bear", maps=30),
        class_row("fox", maps=10, mean_score=0.25),
    )
    with look(report([], [], classes=rows, classes_total=3)) as seen:
        names = seen.page.locator("#classes tbody th bdi")
        seen.page.click("#classes thead button >> text=maps")
        expect(names).to_have_text(["bear", "fox", "wolf"])
        assert seen.page.get_attribute("#classes th:has-text('maps')", "aria-sort") == "descending"
        seen.page.click("#classes thead button >> text=class")
        expect(names).to_have_text(["bear", "fox", "wolf"])
        seen.page.click("#classes thead button >> text=score")
        expect(names).to_have_text(["wolf", "fox", "bear"])  # what is not known stays at the end
        seen.page.click("#classes thead button >> text=score")
        expect(names).to_have_text(["fox", "wolf", "bear"])
        expect(seen.page.locator("#classes [aria-sort]")).to_have_count(1)


def test_of_120_pictures_all_are_counted_and_those_that_are_seen_drawn(look: Open) -> None:
    cards = [card(f"{i:03}.jpg", shown_map(TWO if i % 2 else ONE)) for i in range(120)]
    with look(report(cards)) as seen:
        move(seen.page, 0.3)
        expect_counts(seen.page, 180, 0, 60, 0)
        expect_drawn(seen.page, 1, (10, 10, 30, 30), (50, 50, 70, 80))
        expect_drawn(seen.page, 119)
        seen.page.locator("#card-119").scroll_into_view_if_needed()
        settle(seen.page)
        expect(seen.page.locator("#card-119 rect.box")).to_have_count(2)
        assert seen.page.locator("#bar").bounding_box()["y"] == 0  # type: ignore[index]
        move(seen.page, 0.6)
        expect_counts(seen.page, 120, 0, 0, 0)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_is_no_wider_than_its_window(width: int, look: Open) -> None:
    name = "a" * 300
    with look(hostile_report(name), width=width) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        if width == 390:
            assert not seen.page.is_visible("#controls")
            seen.page.click("#more")
        assert seen.page.is_visible("#controls")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        seen.page.click("#card-0 .frame")
        assert seen.page.locator("#viewer").evaluate("dialog => dialog.scrollWidth - dialog.clientWidth") == 0
