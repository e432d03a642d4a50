"""The page of a pair."""

from __future__ import annotations

import re

from msgspec.structs import replace
from playwright.sync_api import Page, expect

from browser import samples
from browser.board import Board, Site
from browser.samples import BERLIN, LISBON, OSAKA, VPS

BERLIN_OSAKA = f"{BERLIN}--{OSAKA}"


def test_both_ends_of_both_paths_stand_side_by_side(page: Page, site: Site) -> None:
    site.tell("fleet", samples.bad_hour())
    site.open(page, f"/pairs/{BERLIN_OSAKA}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{BERLIN} ⇄ {OSAKA}")
    for path in ("overlay", "backup"):
        ends = page.get_by_role("table", name=f"{BERLIN_OSAKA} over {path}, both ends")
        expect(ends.get_by_role("columnheader", name=f"seen from {BERLIN}")).to_be_visible()
        expect(ends.get_by_role("columnheader", name=f"seen from {OSAKA}")).to_be_visible()
    expect(page.get_by_role("region", name="overlay")).to_contain_text("Not proven, because no answer for 41 s")
    expect(page.get_by_role("region", name="overlay")).to_contain_text("it speaks of its control connection")
    expect(page.get_by_role("region", name="backup")).to_contain_text("carries traffic")
    expect(page.locator("#standing")).to_contain_text("On backup")


def test_a_metered_path_says_what_that_costs(page: Page, site: Site) -> None:
    fleet = samples.calm()
    [pair, *others] = sorted(fleet.pairs, key=lambda one: one.name != BERLIN_OSAKA)
    [overlay, backup] = pair.paths
    lte = replace(backup, metered=True, idle_interval_s=5.0)
    site.tell("fleet", replace(fleet, pairs=(replace(pair, paths=(overlay, lte)), *others)))
    site.open(page, f"/pairs/{BERLIN_OSAKA}")
    words = "Metered: probed every 5.0 s while idle, so a cut is found up to that much later."
    expect(page.get_by_role("region", name="backup").get_by_text(words)).to_be_visible()


def test_a_change_shows_without_reload_and_why_follows(page: Page, site: Site) -> None:
    site.open(page, f"/pairs/{BERLIN_OSAKA}")
    expect(page.locator("#standing")).to_contain_text("Last drill 3 d ago: ok, gap 40 ms.")
    expect(page.locator("#checks")).to_contain_text("Backup proven passes: from both ends.")
    expect(page.locator("#timeline")).to_contain_text("traffic is on the backup at both ends, 0.29 s after the cut")
    expect(page.locator("#timeline")).not_to_contain_text(VPS)
    site.tell("fleet", samples.bad_hour())
    expect(page.locator("#standing")).to_contain_text("On backup")
    entry = samples.entry(78, "failback", BERLIN_OSAKA, "proven for 60 s", "started")
    site.board.ledger_entries.insert(0, entry)
    site.tell("ledger", entry)
    expect(page.locator("#timeline li").first).to_contain_text("failback")


def test_both_ends_are_drawn_over_time_and_the_way_of_traffic_with_its_shares(page: Page, site: Site) -> None:
    site.open(page, f"/pairs/{BERLIN_OSAKA}?range=1h")
    charts = page.locator("#charts")
    for title in ("Round trip, by path and end", "Loss, by path and end", "Way of traffic, share of time"):
        expect(charts).to_contain_text(title)
    for words in (f"overlay, from {BERLIN}", f"backup, from {OSAKA}", "by its first path, directly"):
        expect(charts).to_contain_text(words)
    expect(charts.locator("canvas")).to_have_count(3)
    for node in (BERLIN, OSAKA):
        line = page.locator("#ways p", has_text=f"{node} sent")
        shares = [float(each) for each in re.findall(r"([\d.]+) %", line.inner_text())]
        assert abs(sum(shares) - 100) < 1.5
    page.get_by_text("7 d", exact=True).click()
    expect(page).to_have_url(re.compile("range=7d"))


def test_the_names_may_stand_in_either_order(page: Page, site: Site) -> None:
    site.open(page, f"/pairs/{OSAKA}--{BERLIN}")
    expect(page.locator("#standing")).to_contain_text("At home")


def test_a_pair_that_is_none_is_said_in_words(page: Page, site: Site, complaints: list[str]) -> None:
    site.open(page, f"/pairs/{BERLIN}--nobody")
    expect(page.locator("#missing")).to_contain_text(f"There is no pair {BERLIN}--nobody.")
    expect(page.locator("#known")).to_be_hidden()
    page.get_by_role("link", name="Back to the fleet").click()
    expect(page).to_have_url(site.url + "/")
    assert all("404" in line for line in complaints)  # why there is none was asked as well
    complaints.clear()


def test_switchover_asks_first_and_then_asks_the_operator(page: Page, site: Site, board: Board) -> None:
    site.open(page, f"/pairs/{BERLIN_OSAKA}")
    page.get_by_role("button", name="Switch over to backup").click()
    dialog = page.get_by_role("dialog", name=f"Switch over {BERLIN} and {OSAKA} to backup")
    expect(dialog).to_contain_text("leaves overlay and takes backup")
    expect(dialog).to_contain_text("until a person fails it back")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert board.asked == []
    page.get_by_role("button", name="Switch over to backup").click()
    dialog.get_by_label("Why").fill("new router")
    dialog.get_by_role("button", name="Switch over").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("status").filter(has_text="has begun")).to_be_visible()
    assert board.asked == [("switchover", BERLIN_OSAKA, "backup", "new router", False)]


def test_a_refusal_is_told_in_words(page: Page, site: Site, board: Board, complaints: list[str]) -> None:
    board.refusal = "the backup of this pair is not proven; mend it, or force the move"
    site.open(page, f"/pairs/{BERLIN_OSAKA}")
    page.get_by_role("button", name="Switch over to backup").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Switch over").click()
    expect(dialog.get_by_role("alert")).to_contain_text(board.refusal)
    expect(dialog).to_be_visible()
    assert all("Failed to load resource" in line for line in complaints)  # the browser logs every 4xx
    complaints.clear()


def test_what_is_forced_needs_a_reason(page: Page, site: Site, board: Board) -> None:
    fleet = samples.calm()
    [pair, *others] = sorted(fleet.pairs, key=lambda one: one.name != BERLIN_OSAKA)
    [overlay, backup] = pair.paths
    unproven = replace(backup, proven=False, unproven="no answer for 41 s")
    site.tell("fleet", replace(fleet, pairs=(replace(pair, paths=(overlay, unproven)), *others)))
    site.open(page, f"/pairs/{BERLIN_OSAKA}")
    page.get_by_role("button", name="Switch over to backup").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Switch over although backup is not proven").check()
    dialog.get_by_role("button", name="Switch over").click()
    assert dialog.get_by_label("Why").evaluate("input => input.validity.valueMissing")
    expect(dialog).to_be_visible()
    assert board.asked == []
    dialog.get_by_label("Why").fill("the probe port is blocked")
    dialog.get_by_role("button", name="Switch over").click()
    expect(dialog).to_be_hidden()
    assert board.asked == [("switchover", BERLIN_OSAKA, "backup", "the probe port is blocked", True)]


def test_failback_of_a_path_that_is_not_proven_warns(page: Page, site: Site, board: Board) -> None:
    site.tell("fleet", samples.bad_hour())
    site.open(page, f"/pairs/{OSAKA}--{VPS}")
    page.get_by_role("button", name="Fail back to overlay").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("overlay is not proven")
    dialog.get_by_role("button", name="Fail back").click()
    expect(dialog).to_be_hidden()
    assert board.asked == [("failback", f"{OSAKA}--{VPS}", "asked for on the page")]


def test_a_recommendation_is_approved(page: Page, site: Site, board: Board) -> None:
    site.tell("fleet", samples.recommended())
    site.open(page, f"/pairs/{LISBON}--{VPS}")
    page.get_by_role("button", name="Approve the move").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Overlay is relayed; backup is proven and 7 times faster.")
    dialog.get_by_role("button", name="Approve").click()
    expect(dialog).to_be_hidden()
    assert board.asked == [("approve", f"{LISBON}--{VPS}", "asked for on the page")]


def test_a_drill_says_what_it_does(page: Page, site: Site, board: Board) -> None:
    site.open(page, f"/pairs/{BERLIN_OSAKA}")
    page.get_by_role("button", name="Drill").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("out to its standby for about 5 s")
    dialog.get_by_label("Why").fill("before the holidays")
    dialog.get_by_role("button", name="Begin the drill").click()
    expect(dialog).to_be_hidden()
    assert board.asked == [("drill", "pair", BERLIN_OSAKA, "before the holidays")]
