"""A page in headless Chromium, cut off from every network."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

expect.set_options(timeout=30_000)  # a busy machine draws late
SETTLED = """async () => {
    const grid = document.getElementById("grid");
    const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    for (let quiet = 0; quiet < 3; quiet++) {
        await frame();
        if (grid?.ariaBusy === "true") quiet = -1;
    }
}"""
NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A page, and what it did that it should not have done."""

    page: Page
    requests: list[str] = field(default_factory=list)  # of anything but the file itself; none was answered
    errors: list[str] = field(default_factory=list)  # of the console, and exceptions


def settle(page: Page) -> None:
    """Wait until a report has drawn what is seen.

    What comes into view is told after a frame, and drawn in the next one: it has settled after three frames in which
    it had nothing to do.
    """
    page.evaluate(SETTLED)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start the browser, one at a time; skips the test where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"needs a browser, none of {', '.join(NAMES)} is here (apt install chromium)")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as started,
    ):
        yield started


@contextmanager
def opened(
    browser: Browser, path: Path, *, width: int = 1280, height: int = 800, dark: bool = False
) -> Iterator[Opened]:
    """Open a file."""
    address = path.resolve().as_uri()
    scheme = "dark" if dark else "light"
    with browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
        seen = Opened(page=context.new_page())

        def answer(route: Route) -> None:
            if route.request.url.partition("#")[0] == address:
                route.continue_()
            else:
                seen.requests.append(route.request.url)
                route.abort()

        context.route("**/*", answer)
        seen.page.on("websocket", lambda socket: seen.requests.append(socket.url))
        seen.page.on("console", lambda line: seen.errors.append(line.text) if line.type == "error" else None)
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.goto(address)
        yield seen
