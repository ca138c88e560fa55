"""The browser of the report's tests."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import browser as started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, gone after the module's last test: as long as it runs, asyncio has no other loop."""
    with started() as browser:
        yield browser
