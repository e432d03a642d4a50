"""The page of events and decisions."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from browser import samples
from browser.board import Board, Site
from browser.samples import BERLIN, HOSTILE, LISBON, OSAKA, VPS


def test_events_and_decisions_come_as_they_happen(page: Page, site: Site) -> None:
    site.open(page, "/events")
    events, decisions = page.locator("#events li"), page.locator("#ledger .history > li")
    expect(events).to_have_count(len(samples.events()))
    expect(decisions).to_have_count(len(samples.ledger()))
    site.tell("event", samples.event(77, OSAKA, "the overlay heals", samples.Severity.INFO))
    expect(events.first).to_contain_text("the overlay heals")
    site.tell("ledger", samples.entry(78, "failback", f"{BERLIN}--{OSAKA}", "proven for 60 s", "started"))
    expect(decisions.first).to_contain_text("Started")
    site.tell("ledger", samples.entry(78, "failback", f"{BERLIN}--{OSAKA}", "proven for 60 s", "both ends applied"))
    expect(decisions.first).to_contain_text("Both ends applied")
    expect(decisions).to_have_count(len(samples.ledger()) + 1)


def test_older_ones_are_fetched(page: Page, site: Site, board: Board) -> None:
    board.event_entries = [
        samples.event(number, OSAKA, f"event {number}", samples.Severity.INFO) for number in range(120, 0, -1)
    ]
    site.open(page, "/events")
    events = page.locator("#events li")
    expect(events).to_have_count(50)
    page.get_by_role("button", name="Older events").click()
    expect(events).to_have_count(100)
    page.get_by_role("button", name="Older events").click()
    expect(events).to_have_count(120)
    expect(page.get_by_role("button", name="Older events")).to_be_hidden()
    expect(events.last).to_contain_text("event 1.")


def test_a_subject_narrows_them_and_stays_in_the_address(page: Page, site: Site) -> None:
    site.open(page, "/events")
    expect(page.locator("#events")).to_contain_text(VPS)
    page.get_by_label("Node or pair").fill(LISBON)
    page.get_by_label("Node or pair").press("Enter")
    expect(page.locator("#events")).not_to_contain_text(f"{BERLIN}--{OSAKA}")
    expect(page.locator("#events")).to_contain_text(LISBON)
    expect(page).to_have_url(f"{site.url}/events?subject={LISBON}")
    site.tell("event", samples.event(80, BERLIN, "not asked for", samples.Severity.INFO))
    site.tell("event", samples.event(81, f"{LISBON}--{VPS}/overlay", "asked for", samples.Severity.INFO))
    expect(page.locator("#events li").first).to_contain_text("asked for")
    expect(page.locator("#events")).not_to_contain_text("not asked for")
    page.reload()
    expect(page.get_by_label("Node or pair")).to_have_value(LISBON)


def test_one_kind_can_be_shown_alone(page: Page, site: Site) -> None:
    site.open(page, "/events")
    page.get_by_text("Decisions", exact=True).first.click()
    expect(page.get_by_role("region", name="Events")).to_be_hidden()
    expect(page.get_by_role("region", name="Decisions")).to_be_visible()


def test_hostile_lines_are_text(page: Page, site: Site) -> None:
    site.open(page, "/events")
    site.tell("event", samples.event(90, HOSTILE, HOSTILE, samples.Severity.WARNING, source=HOSTILE))
    site.tell("ledger", samples.entry(91, HOSTILE, HOSTILE, HOSTILE, HOSTILE, who=HOSTILE))
    expect(page.locator("#events li").first).to_contain_text("<script>")
    expect(page.locator("#ledger li").first).to_contain_text("<script>")
    assert page.locator("body img:not(.mark), body script").count() == 0
    assert page.title().startswith("Events")
