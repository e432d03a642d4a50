"""A real Chromium on the real application, over a fleet that lives in memory and that the test changes as it likes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from browser.board import Board, Site
from browser.chromium import chromium

# A busy machine draws a large fleet slowly; what must not happen is asked for with a time of its own.
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of a module, not of the session: while Playwright runs, no test of another file could run an event loop."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def site(board: Board, tmp_path: Path) -> Iterator[Site]:
    site = Site(board, tmp_path)
    site.start()
    yield site
    site.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


@pytest.fixture
def complaints(site: Site) -> Iterator[list[str]]:
    """What the browser complained of; a test that provokes some clears them."""
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
def stranger(context: BrowserContext, site: Site, complaints: list[str]) -> Iterator[Page]:
    """A page of nobody yet; it fails the test on any console error and any request to another host."""
    page = context.new_page()
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(site.url) else complaints.append(request.url))
    yield page
    # Before its site: a page that lost its controller has much to do.
    page.close()


@pytest.fixture
def page(stranger: Page, site: Site) -> Page:
    """The same, signed in; it shows nothing yet."""
    site.let_in(stranger.context)
    return stranger
