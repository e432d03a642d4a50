"""The public status page, as the world sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from browser import samples
from browser.axe import serious
from browser.board import Board, Site
from browser.samples import OSAKA, VPS
from vagus_controller.config import PublicStatus, StatusGroup

CHOSEN = PublicStatus(
    title="Harbour lights",
    group=(StatusGroup(name="Home", sites=("osaka", "berlin")), StatusGroup(name="Rented", nodes=(VPS,))),
    uptime_days=90,
)


@pytest.fixture
def public(board: Board, tmp_path: Path) -> Iterator[Site]:
    site = Site(board, tmp_path)
    site.http = {"public_status": CHOSEN}
    site.start()
    yield site
    site.stop()


def test_it_is_off_by_default(context: BrowserContext, site: Site) -> None:
    answer = context.request.get(site.url + "/status", max_redirects=0)
    assert answer.status in (303, 404)


def test_everybody_reads_it_without_signing_in_and_without_javascript(browser: Browser, public: Site) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(public.url + "/status")
    expect(page.get_by_role("heading", level=1)).to_have_text("Everything works")
    expect(page.get_by_role("listitem").filter(has_text="Home")).to_contain_text("Working")
    # Nothing else has opened with it.
    for path in ("/", "/api/v1/fleet", "/metrics"):
        assert context.request.get(public.url + path, max_redirects=0).status in (303, 401)
    context.close()


def test_no_name_and_no_address_is_in_it(context: BrowserContext, public: Site) -> None:
    public.tell("fleet", samples.bad_hour())
    answer = context.request.get(public.url + "/status")
    text = answer.text()
    for node in samples.bad_hour().nodes:
        for word in (node.name, *node.addresses, node.broker, node.site):
            assert word not in text
    assert "10." not in text
    assert samples.bad_hour().fleet not in text
    assert answer.headers["cache-control"] == "public, max-age=5"
    assert "set-cookie" not in answer.headers
    assert "unsafe" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_sound_for_everybody(context: BrowserContext, public: Site, scheme: Literal["light", "dark"]) -> None:
    page: Page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(public.url + "/status")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert OSAKA not in page.content()
    assert serious(page) == []
    assert complaints == []
