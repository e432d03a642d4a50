"""The fleet page."""

from __future__ import annotations

import re

import msgspec
import pytest
from playwright.sync_api import Page, expect

from browser import samples
from browser.board import Board, Site
from browser.samples import BERLIN, HOSTILE, LISBON, OSAKA, VPS

BERLIN_OSAKA = f"{BERLIN}--{OSAKA}"


def open_pair(page: Page, name: str) -> None:
    page.locator(f'[data-pair="{name}"] > summary').click()


def test_the_page_shows_the_whole_fleet(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(samples.calm().summary)
    expect(page.locator("#observer")).to_contain_text("4 of 4 nodes report")
    expect(page.get_by_role("region", name="Quorum")).to_contain_text("Healthy")
    expect(page.get_by_role("region", name="Quorum")).to_contain_text("Survives the loss of 1 more member.")
    expect(page.locator("details.pair")).to_have_count(6)
    nodes = page.get_by_role("table", name="Nodes")
    for name in (BERLIN, LISBON, OSAKA, VPS):
        expect(nodes.get_by_role("rowheader", name=name)).to_be_visible()
    expect(page.locator("#ledger .history > li")).to_have_count(len(samples.ledger()))
    for landmark in ("banner", "main"):
        expect(page.get_by_role(landmark)).to_be_visible()  # type: ignore[arg-type]


def test_what_a_machine_lacks_is_a_dash_and_no_zero(page: Page) -> None:
    row = page.locator("tr", has=page.get_by_role("rowheader", name=VPS))
    expect(row.locator('[data-label="Temperature"]')).to_have_text("—")
    expect(row.locator('[data-label="Power"]')).to_have_text("—")
    lisbon = page.locator("tr", has=page.get_by_role("rowheader", name=LISBON))
    expect(lisbon.locator('[data-label="Pressure"]')).to_have_text("—")
    expect(lisbon.locator('[data-label="Power"]')).to_have_text("Fine")


def test_a_change_shows_without_reload(page: Page, site: Site) -> None:
    page.evaluate("window.sameDocument = true")
    site.tell("fleet", samples.bad_hour())
    expect(page.get_by_role("heading", level=1)).to_have_text(samples.bad_hour().summary)
    backup = page.locator(f'[data-pair="{BERLIN_OSAKA}"] .path[data-key="backup"]')
    expect(backup).to_have_attribute("data-carries", "yes")
    expect(backup).to_contain_text("traffic")
    expect(page.locator(f'[data-pair="{BERLIN_OSAKA}"] .path[data-key="overlay"]')).to_contain_text("Down")
    expect(page.locator("#nodes")).to_contain_text("they wait for the disk")
    expect(page).to_have_title(re.compile("^Needs attention"))
    site.tell("ledger", samples.entry(78, "failback", BERLIN_OSAKA, "proven for 60 s", "both ends applied"))
    expect(page.locator("#ledger .history > li").first).to_contain_text("failback")
    assert page.evaluate("window.sameDocument") is True


def test_an_opened_pair_tells_its_last_drill(page: Page) -> None:
    open_pair(page, BERLIN_OSAKA)
    expect(page.locator(f'details[data-pair="{BERLIN_OSAKA}"]')).to_contain_text("Last drill 3 d ago: ok, gap 40 ms.")


def test_a_metered_path_says_what_that_costs(page: Page, site: Site) -> None:
    fleet = samples.calm()
    [pair, *others] = sorted(fleet.pairs, key=lambda one: one.name != BERLIN_OSAKA)
    [overlay, backup] = pair.paths
    lte = msgspec.structs.replace(backup, metered=True, idle_interval_s=5.0)
    pairs = (msgspec.structs.replace(pair, paths=(overlay, lte)), *others)
    site.tell("fleet", msgspec.structs.replace(fleet, pairs=pairs))
    open_pair(page, BERLIN_OSAKA)
    words = "Metered: probed every 5.0 s while idle, so a cut is found up to that much later."
    expect(page.locator(f'details[data-pair="{BERLIN_OSAKA}"]').get_by_text(words)).to_have_count(1)


def test_both_ends_of_an_opened_pair_stay_open_over_updates(page: Page, site: Site) -> None:
    site.tell("fleet", samples.bad_hour())
    summary = page.locator(f'[data-pair="{BERLIN_OSAKA}"] > summary')
    summary.focus()
    page.keyboard.press("Enter")
    ends = page.get_by_role("table", name=f"{BERLIN_OSAKA} over overlay, both ends")
    expect(ends.get_by_role("rowheader", name=BERLIN)).to_be_visible()
    expect(ends.get_by_role("rowheader", name=OSAKA)).to_be_visible()
    expect(page.locator(f'details[data-pair="{BERLIN_OSAKA}"]')).to_contain_text(
        "Not proven, because no answer for 41 s"
    )
    site.tell("fleet", samples.calm())
    expect(page.locator(f'details[data-pair="{BERLIN_OSAKA}"]')).to_contain_text(
        "the overlay is up from both ends", ignore_case=True
    )
    expect(ends).to_be_visible()
    expect(summary).to_be_focused()


def test_switchover_asks_first_and_then_asks_the_operator(page: Page, board: Board) -> None:
    open_pair(page, BERLIN_OSAKA)
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
    assert board.asked == [("switchover", BERLIN_OSAKA, "backup", "new router", False)]


def test_a_refusal_is_told_in_words(page: Page, board: Board, complaints: list[str]) -> None:
    board.refusal = "the backup of this pair is not proven; mend it, or force the move"
    open_pair(page, BERLIN_OSAKA)
    page.get_by_role("button", name="Switch over to backup").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Switch over").click()
    expect(dialog.get_by_role("alert")).to_contain_text(board.refusal)
    expect(dialog).to_be_visible()
    assert all("Failed to load resource" in line for line in complaints)  # the browser logs every 4xx
    complaints.clear()


def test_failback(page: Page, site: Site, board: Board) -> None:
    site.tell("fleet", samples.bad_hour())
    open_pair(page, f"{OSAKA}--{VPS}")
    page.get_by_role("button", name="Fail back to overlay").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("overlay is not proven")
    dialog.get_by_role("button", name="Fail back").click()
    expect(dialog).to_be_hidden()
    assert board.asked == [("failback", f"{OSAKA}--{VPS}", "asked for on the page")]


def test_pause_and_resume(page: Page, site: Site, board: Board) -> None:
    page.get_by_text("Pause automatic moves").click()
    form = page.locator("#pause-form")
    form.get_by_label("What").select_option("node")
    form.get_by_label("Which").select_option(OSAKA)
    form.get_by_label("For how long").select_option("4 hours")
    form.get_by_label("Why").fill("a new disk")
    form.get_by_role("button", name="Pause").click()
    expect(form.get_by_label("Why")).to_have_value("")
    site.tell("fleet", samples.bad_hour())
    expect(page.locator("#pauses")).to_contain_text("Site lisbon is paused. Router swap. By ines; ends in 4")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert board.asked == [("pause", "node", OSAKA, "a new disk", 14_400.0), ("resume", 4)]


def test_hostile_names_and_reasons_are_text(page: Page, site: Site) -> None:
    site.tell("fleet", samples.hostile())
    site.tell("ledger", samples.entry(91, HOSTILE, HOSTILE, HOSTILE, HOSTILE, who=HOSTILE))
    expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x")
    expect(page.locator("#ledger li").first).to_contain_text("<script>")
    page.locator("details.pair > summary").click()
    expect(page.locator(".pair-body")).to_contain_text("<script>")
    page.get_by_role("button", name="Switch over to backup").click()
    expect(page.get_by_role("dialog")).to_contain_text("<img src=x")
    assert page.locator("body img:not(.mark), body script").count() == 0
    assert "owned" not in page.title() or "<img" in page.title()


@pytest.mark.parametrize("view", [samples.bad_hour, samples.hostile, samples.large])
def test_a_phone_needs_no_sideways_scroll(page: Page, site: Site, view: object) -> None:
    assert callable(view)
    picture = view()
    page.set_viewport_size({"width": 360, "height": 740})
    site.tell("fleet", picture)
    expect(page.get_by_role("heading", level=1)).to_contain_text(picture.summary[:20])
    page.locator("details.pair > summary").first.click()
    expect(page.locator(".pair-body")).to_be_visible()
    page.get_by_text("Pause automatic moves").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_hundred_nodes_show_what_needs_attention_and_a_filter(page: Page, site: Site) -> None:
    site.tell("fleet", samples.large())
    expect(page.locator("#links .count")).to_contain_text("4950 pairs · 294 need attention")
    pairs = page.locator("details.pair")
    assert 0 < pairs.count() <= 30
    expect(page.locator("#links")).to_contain_text("more pairs not shown")
    page.get_by_label("Find a node or site").fill("quito-03")
    expect(page.locator("#links .count")).to_contain_text("99 match")
    expect(page.locator("#nodes tbody tr:not(.site)")).to_have_count(1)
    page.get_by_label("Find a node or site").fill("")
    page.get_by_role("button", name=re.compile("^berlin and berlin: critical")).click()
    expect(page.locator("#links h3")).to_have_text("within berlin")
