"""What every page has: signing in, freshness, appearance, and nothing from elsewhere."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from browser import samples
from browser.axe import serious
from browser.board import Board, Site
from browser.samples import LISBON, OSAKA
from vagus_controller.api import stream

# One address of each page.
PAGES = ("/", "/nodes/pi-osaka", f"/pairs/{LISBON}--{OSAKA}", "/incidents", "/incidents/12", "/failover", "/events")


def test_a_lost_stream_is_said_and_heals_by_itself(page: Page, site: Site, complaints: list[str]) -> None:
    site.open(page, "/")
    expect(page.get_by_role("alert")).to_have_count(0)
    site.stop()
    lost = page.get_by_role("alert").filter(
        has_text=re.compile(r"This page lost the controller \d+ s ago: what you see")
    )
    expect(lost).to_be_visible()
    expect(page.locator("body")).to_have_class("stale")
    expect(page).to_have_title(re.compile(r"^\(old\)"))
    site.board.view = samples.bad_hour()
    site.start()
    expect(lost).to_have_count(0)
    expect(page.get_by_role("heading", level=1)).to_have_text(samples.bad_hour().summary)
    assert all("ERR_" in line for line in complaints)  # refused and broken connections, which the test made
    complaints.clear()


def test_a_controller_that_gives_no_stream_says_why(
    page: Page, context: BrowserContext, site: Site, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.open(page, "/")
    monkeypatch.setattr(stream, "MAX_SUBSCRIBERS", 1)
    second = context.new_page()
    second.goto(site.url + "/")
    refused = second.get_by_role("alert").filter(has_text="The controller gives this page no news.")
    expect(refused).to_contain_text("too many streams are open; close some pages or `vagusctl watch`.")
    expect(page.get_by_role("alert")).to_have_count(0)
    monkeypatch.undo()
    expect(refused).to_have_count(0)
    expect(second.get_by_role("heading", level=1)).to_have_text(samples.calm().summary)
    complaints.clear()


# As a tab in the background; Playwright's pages are all in front.
HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def few_streams(page: Page, site: Site) -> None:
    """So few that others have connections left; one that was given up ends at the controller a moment later."""
    for _ in range(200):
        if site.streams <= 4:
            return
        page.wait_for_timeout(50)
    pytest.fail(f"{site.streams} streams of one browser")


def test_many_tabs_of_one_browser_leave_each_other_connections(
    page: Page, context: BrowserContext, site: Site, board: Board
) -> None:
    """A browser makes six to a host, and each stream keeps one."""
    site.open(page, "/")
    tabs = [page]
    for _ in range(8):
        tabs[-1].evaluate(HIDE, True)
        tabs.append(context.new_page())
        site.open(tabs[-1], "/")
    few_streams(page, site)
    site.tell("fleet", samples.bad_hour())
    expect(tabs[-1].get_by_role("heading", level=1)).to_have_text(samples.bad_hour().summary)
    tabs[-1].evaluate(HIDE, True)
    page.evaluate(HIDE, False)
    expect(page.get_by_role("heading", level=1)).to_have_text(samples.bad_hour().summary)
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert board.asked == [("resume", 4)]
    few_streams(page, site)


def test_a_controller_without_its_broker_is_said(page: Page, site: Site) -> None:
    site.open(page, "/")
    site.tell("fleet", samples.blind())
    told = page.get_by_role("alert")
    expect(told).to_contain_text(re.compile(r"The controller lost the broker 4\d s ago and moves nothing\."))
    expect(told).to_contain_text("No broker session for 40 s")
    site.tell("fleet", samples.calm())
    expect(told).to_have_count(0)


@pytest.mark.parametrize("path", PAGES)
def test_a_controller_that_stands_by_says_so_on_every_page(page: Page, site: Site, path: str) -> None:
    site.open(page, path)
    banners = page.locator("#banners")
    expect(banners).to_be_empty()
    site.tell("fleet", samples.standby())
    expect(banners).to_contain_text("This controller stands by, and decides nothing: brain-1 leads under epoch 3.")
    site.tell("fleet", samples.calm())
    expect(banners).to_be_empty()


def test_every_page_is_one_click_away_and_says_how_the_fleet_is(page: Page, site: Site) -> None:
    site.open(page, "/")
    site.tell("fleet", samples.bad_hour())
    pages = page.get_by_role("navigation", name="Pages")
    pages.get_by_role("link", name="Events").click()
    expect(page).to_have_url(site.url + "/events")
    expect(pages.get_by_role("link", name="Events")).to_have_attribute("aria-current", "page")
    expect(page.locator("#identity")).to_contain_text("harbour")
    page.get_by_role("banner").get_by_role("link", name="Needs attention").click()
    expect(page).to_have_url(site.url + "/")


def test_the_keyboard_reaches_the_content_first(page: Page, site: Site) -> None:
    site.open(page, "/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


def test_an_appearance_that_is_chosen_stays(page: Page, site: Site) -> None:
    site.open(page, "/")
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    page.emulate_media(color_scheme="light")
    page.get_by_label("Account and appearance").click()
    page.get_by_text("Dark", exact=True).click()
    assert page.evaluate(brightness) < 60
    site.open(page, "/events")
    assert page.evaluate(brightness) < 60
    page.get_by_label("Account and appearance").click()
    page.get_by_text("System", exact=True).click()
    assert page.evaluate(brightness) > 200
    page.keyboard.press("Escape")
    expect(page.get_by_label("Account and appearance")).to_be_focused()
    expect(page.get_by_text("System", exact=True)).to_be_hidden()


def test_static_files_are_kept_for_ever_and_compressed(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    with page.expect_response("**/base.css") as found:
        page.goto(site.url + "/login")
    assert "immutable" in found.value.headers["cache-control"]
    assert found.value.headers["content-encoding"] == "gzip"
    assert found.value.headers["content-type"] == "text/css; charset=utf-8"
    old = context.request.get(f"{site.url}/static/an-older-version/base.css")
    assert old.ok
    assert old.headers["cache-control"] == "no-cache"
    assert context.request.get(f"{site.url}/static/x/../app.py").status in (303, 404)
    assert context.request.get(f"{site.url}/static/x/no-such.js").status == 404


def test_an_address_with_a_slip_leads_back(page: Page, site: Site, complaints: list[str]) -> None:
    for path in ("/nodse/pi-osaka", "/incidents/twelve", "/nodes/"):
        answer = page.goto(site.url + path)
        assert answer is not None
        assert answer.status == 404
        expect(page.get_by_role("heading", level=1)).to_have_text("There is no such page")
        assert serious(page) == []
    page.get_by_role("link", name="To the fleet").click()
    expect(page).to_have_url(site.url + "/")
    for path, words in (("/nodes/%ff", "There is no node"), ("/pairs/%ff--a", "There is no pair")):
        site.open(page, path)
        expect(page.locator("#missing")).to_contain_text(words)
    assert all("40" in line for line in complaints)  # what is not there was asked for
    complaints.clear()


def test_dark_mode_follows_the_system(page: Page, site: Site) -> None:
    site.open(page, "/")
    brightness = "(() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0])()"
    page.emulate_media(color_scheme="light")
    assert page.evaluate(brightness) > 200
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(brightness) < 60


def test_reduced_motion_stops_every_animation(page: Page, site: Site) -> None:
    site.open(page, "/")
    assert page.evaluate("document.getAnimations().length") > 0
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate("document.getAnimations().length") == 0


def test_numbers_and_durations_in_words(page: Page, site: Site) -> None:
    site.open(page, "/")
    said = page.evaluate(
        """async () => {
          const f = await import('/static/any/format.js');
          return [
            f.duration(null), f.duration(0), f.duration(0.0042), f.duration(0.0463), f.duration(0.9996),
            f.duration(9.97), f.duration(59.9), f.duration(61), f.duration(3600), f.duration(5400), f.duration(90061),
            f.ago(0.3), f.ago(4.7), f.ago(41.7), f.ago(undefined),
            f.share(0), f.share(null), f.share(0.012), f.share(0.0002), f.share(0.63), f.share(1),
            f.bytes(null), f.bytes(0), f.bytes(512), f.bytes(1536), f.bytes(3970000000), f.number(null), f.number(0),
            f.celsius(null), f.celsius(51.6), f.closed('so'), f.closed('so.'),
            f.worst(['ok', 'info', 'critical', 'warning']), f.known('toString'),
          ];
        }"""
    )
    assert said == [
        *("—", "0 s", "4.2 ms", "46 ms", "1.0 s", "9 s"),
        *("59 s", "1 min", "1 h", "1 h 30 min", "1 d 1 h", "now", "4 s ago", "41 s ago"),
        *("—", "0 %", "—", "1.2 %", "<0.1 %", "63 %", "100 %"),
        *("—", "0 B", "512 B", "1.5 KiB", "3.7 GiB", "—", "0"),
        *("—", "52 °C", "so.", "so.", "critical"),
        "unknown",
    ]


def test_nobody_sees_the_fleet_without_a_password(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    page.goto(site.url + "/")
    expect(page).to_have_url(site.url + "/login")
    page.get_by_label("User").fill("operator")
    page.get_by_label("Password").fill("not it")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("no such user with this password")
    site.sign_in(page)
    page.get_by_label("Account and appearance").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(site.url + "/login")
    page.goto(site.url + "/")
    expect(page).to_have_url(site.url + "/login")


def test_signing_in_works_over_plain_http_from_another_machine(context: BrowserContext, site: Site) -> None:
    """There browsers send no Sec-Fetch-Site, and the form's Origin alone must do."""
    page = context.new_page()
    site.url = f"http://vagus.test:{site.port}"
    site.sign_in(page)
    expect(page.get_by_role("heading", level=1)).to_have_text(samples.calm().summary)


def test_nothing_inline_and_nothing_from_elsewhere_is_allowed(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    answer = page.goto(site.url + "/login")
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_no_serious_fault(page: Page, site: Site, path: str, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    site.tell("fleet", samples.bad_hour())
    site.open(page, path)
    expect(page.locator("#content")).to_contain_text(OSAKA)
    assert serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_in_a_large_fleet(page: Page, site: Site, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    site.tell("fleet", samples.large(40))
    for path in ("/failover", "/nodes/austin-00", "/pairs/austin-00--berlin-06", "/"):
        site.open(page, path)
        expect(page.locator("#content")).to_contain_text("austin-00")
        assert serious(page) == []
    page.get_by_role("button", name=re.compile("^austin and berlin: ")).click()
    expect(page.get_by_role("region", name="Nodes by nodes")).to_be_visible()
    assert serious(page) == []


@pytest.mark.parametrize("path", PAGES)
def test_4k_shows_the_same_page_larger(page: Page, site: Site, path: str) -> None:
    site.tell("fleet", samples.bad_hour())
    site.open(page, path)
    expect(page.locator("#content")).to_contain_text(OSAKA)
    text = "() => parseFloat(getComputedStyle(document.body).fontSize)"
    signs = "() => [...document.querySelectorAll('main svg.icon')].map((sign) => sign.getBoundingClientRect().width)"
    before = page.evaluate(text), max(page.evaluate(signs))
    page.set_viewport_size({"width": 3840, "height": 2160})
    assert page.evaluate(text) >= 1.5 * before[0]
    assert max(page.evaluate(signs)) >= 1.5 * before[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= 3840
    used = page.locator("#content").bounding_box()
    assert used is not None
    assert used["width"] > 0.6 * 3840


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_needs_no_sideways_scroll(page: Page, site: Site, path: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    site.tell("fleet", samples.bad_hour())
    site.open(page, path)
    expect(page.locator("#content")).to_contain_text(OSAKA)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
