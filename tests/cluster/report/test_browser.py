"""What tests of pages rely on: a page that asks for something, or fails, is caught."""

from pathlib import Path

from playwright.sync_api import Browser

from tests.support.browser import opened


def test_a_page_s_requests_and_errors_are_seen(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        '<!doctype html><img src="http://127.0.0.1:9/a.png"><script>console.error("bad"); nothing()</script>'
    )
    with opened(browser, path) as seen:
        assert seen.requests == ["http://127.0.0.1:9/a.png"]
        assert [error for error in seen.errors if "ERR_FAILED" not in error] == ["bad", "nothing is not defined"]
