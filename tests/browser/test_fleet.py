"""The fleet page."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from msgspec.structs import replace
from playwright.sync_api import Locator, Page, expect

from browser import samples
from browser.board import Board, Site
from browser.incident_samples import brief, overlay_of_osaka
from browser.samples import BERLIN, HOSTILE, LISBON, OSAKA, VPS
from vagus_controller.views import FleetView, Severity

BERLIN_OSAKA = f"{BERLIN}--{OSAKA}"


@pytest.fixture
def page(page: Page, site: Site) -> Page:
    """At the fleet."""
    site.open(page, "/")
    return page


def cell(page: Page, pair: str, path: str) -> Locator:
    return page.locator(f'#links tr[data-key="{pair}"] td[data-path="{path}"]')


def test_the_page_shows_the_whole_fleet(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(samples.calm().summary)
    vitals = page.locator("#vitals")
    expect(vitals).to_contain_text("Hears 4 of 4 nodes")
    expect(vitals).to_contain_text("6 pairs connected")
    expect(vitals).to_contain_text("Survives the loss of 1 more member.")
    quorum = page.get_by_role("region", name="Quorum")
    for words in ("Healthy", "Survives the loss of 1 more member.", "3 of 3", "0 an hour"):
        expect(quorum).to_contain_text(words)
    expect(page.locator("#links tbody tr")).to_have_count(6)
    for path in ("overlay", "backup"):
        expect(page.get_by_role("columnheader", name=path)).to_be_visible()
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
    backup = cell(page, BERLIN_OSAKA, "backup")
    expect(backup).to_have_attribute("data-carries", "yes")
    expect(backup).to_contain_text("traffic")
    overlay = cell(page, BERLIN_OSAKA, "overlay")
    expect(overlay).to_contain_text("Down")
    expect(overlay).to_contain_text("standby not proven")
    expect(cell(page, f"{LISBON}--{VPS}", "overlay")).to_contain_text("DERP")
    expect(cell(page, f"{LISBON}--{VPS}", "backup")).to_contain_text("standby proven")
    expect(page.locator("#nodes")).to_contain_text("they wait for the disk")
    expect(page).to_have_title(re.compile("^Needs attention"))
    site.tell("ledger", samples.entry(78, "failback", BERLIN_OSAKA, "proven for 60 s", "both ends applied"))
    expect(page.locator("#ledger .history > li").first).to_contain_text("failback")
    expect(page.locator("#vitals")).to_contain_text(f"Failed back: {BERLIN}–{OSAKA}")
    assert page.evaluate("window.sameDocument") is True


def test_the_first_screen_of_a_phone_answers_what_it_is_and_what_to_do(page: Page, site: Site) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator("#headline")).to_contain_text("What to do: nothing.")
    site.tell("fleet", samples.bad_hour())
    advice = page.locator("#headline .advice").first
    expect(advice).to_contain_text(f"traffic goes by another path. Then mend the overlay of {OSAKA}")
    for words in ("Hears 4 of 4 nodes", "Dead path in 3 of 6 pairs", "Survives the loss of 1 more", "Failed over"):
        expect(page.locator("#vitals").get_by_text(words)).to_be_in_viewport()
    site.tell("fleet", samples.blind())
    expect(page.locator("#vitals")).to_contain_text("It is us: blind")
    expect(page.locator("#vitals")).to_contain_text("Last known: 6 pairs connected.")
    expect(advice).to_contain_text("this controller’s own uplink and its broker before anything else")


def test_what_to_do_is_told_the_most_urgent_first(page: Page, site: Site) -> None:
    site.tell("fleet", samples.one_from_loss())
    expect(page.locator("#headline .advice").first).to_contain_text(
        "Restart and power off no etcd member: one more failure loses quorum."
    )
    expect(page.get_by_role("region", name="Quorum")).to_contain_text("One failure from loss.")
    expect(page.get_by_role("region", name="Quorum")).to_contain_text(
        f"Slow disk? {LISBON}: mmcblk0 is busy 97 % of the time"
    )
    site.tell("fleet", samples.recommended())
    move = page.locator("#headline").get_by_role("link", name=re.compile("Approve or leave 1 move"))
    expect(move).to_have_attribute("href", "/failover")
    site.tell("fleet", samples.stuck())
    expect(page.locator("#headline .advice").first).to_contain_text("is on a dead path and cannot move")
    expect(page.locator("#vitals")).to_contain_text("1 pair cut off")


def test_whatever_is_not_well_there_is_something_to_do(page: Page, site: Site) -> None:
    advice = page.locator("#headline .advice").first
    site.tell("fleet", samples.backup_dead())
    expect(advice).to_contain_text(
        f"Mend a standby before it is needed: backup of {OSAKA} is not proven. No answer for 41 s"
    )
    site.tell("fleet", samples.silent_node())
    expect(advice).to_contain_text(f"See to {VPS}: silent, and no peer reaches it on any path.")
    expect(page.locator("#headline")).not_to_contain_text("traffic goes by another path")
    expect(page.locator("#headline")).not_to_contain_text("more thing")
    site.tell("fleet", samples.degraded())
    expect(advice).to_contain_text(f"Look at the overlay of {BERLIN}–{LISBON}: loses 12 % of packets towards {LISBON}.")
    unfit = brief(replace(overlay_of_osaka(), title=f"the standby of {BERLIN} and {OSAKA} failed its drill"))
    site.tell("fleet", replace(samples.calm(), severity=Severity.WARNING, incidents=(unfit,)))
    expect(advice).to_contain_text(f"See what incident {unfit.id} comes of: the standby of {BERLIN} and {OSAKA} failed")


def test_what_a_standby_did_not_decide_is_not_told_as_nothing_done(page: Page, site: Site, board: Board) -> None:
    board.ledger_entries = []
    site.tell("fleet", samples.standby())
    expect(page.locator("#vitals")).to_contain_text("Stands by")
    expect(page.locator("#vitals")).to_contain_text("Brain-1 leads under epoch 3.")
    expect(page.locator("#vitals")).not_to_contain_text("Did nothing yet")


def test_an_empty_fleet_says_what_will_come(page: Page, site: Site) -> None:
    site.tell("fleet", samples.empty())
    expect(page.get_by_role("heading", level=1)).to_have_text("No node has reported yet.")
    expect(page.locator("#headline")).to_contain_text("Set up an agent on a node")
    expect(page.locator("#links")).to_contain_text("a pair appears when two agents name each other as peers")
    expect(page.locator("#nodes")).to_contain_text("No node yet")
    expect(page.get_by_role("region", name="Quorum")).to_contain_text("No etcd")
    site.tell("fleet", samples.calm())
    expect(page.locator("#nodes tbody")).to_have_count(4)


def test_open_incidents_are_on_top(page: Page, site: Site) -> None:
    found = brief(overlay_of_osaka())
    expect(page.get_by_role("region", name="Open incidents")).to_be_hidden()
    site.tell("fleet", replace(samples.bad_hour(), incidents=(found,)))
    incidents = page.get_by_role("region", name="Open incidents")
    expect(incidents.get_by_role("link", name=found.title)).to_have_attribute("href", f"/incidents/{found.id}")
    expect(incidents).to_contain_text(found.did, ignore_case=True)
    # All that is bad in it now is its cause.
    expect(incidents).not_to_contain_text("consequence")
    site.tell("fleet", replace(samples.bad_hour(), incidents=(replace(found, troubles=found.causes + 7),)))
    expect(incidents).to_contain_text("7 consequences inside.")


def test_the_load_of_the_last_hour_is_a_line(page: Page) -> None:
    line = page.locator("#nodes tbody", has_text=BERLIN).locator("svg.spark path")
    expect(line).to_have_attribute("d", re.compile(r"^M[\d.]+ [\d.]+(L[\d.]+ [\d.]+){10,}$"))


def test_nodes_sort_by_their_columns(page: Page, site: Site) -> None:
    site.tell("fleet", samples.bad_hour())
    nodes = page.get_by_role("table", name="Nodes")
    names = nodes.locator("tbody .node-name")
    load = nodes.get_by_role("button", name="Load per core")
    load.focus()
    page.keyboard.press("Enter")
    expect(names).to_have_text([OSAKA, BERLIN, LISBON, VPS])
    expect(nodes.get_by_role("columnheader", name="Load per core")).to_have_attribute("aria-sort", "descending")
    page.keyboard.press("Enter")
    expect(names).to_have_text([VPS, LISBON, BERLIN, OSAKA])
    temperature = nodes.get_by_role("button", name="Temperature")
    temperature.click()
    expect(names.last).to_have_text(VPS)  # what has no temperature is last either way
    temperature.click()
    expect(names.last).to_have_text(VPS)
    for column in ("Pressure", "Power"):
        nodes.get_by_role("button", name=column).click()
        expect(names.first).to_have_text(OSAKA)


def test_a_row_that_moves_keeps_the_keyboard(page: Page, site: Site) -> None:
    calm = samples.wide(30)
    site.tell("fleet", calm)
    names = page.locator("#nodes tbody .node-name")
    link = page.get_by_role("link", name="node-0017", exact=True)
    link.focus()
    spike = samples.verdict("load", "node-0017", "spike", Severity.WARNING, "5 tasks per core")
    nodes = tuple(replace(each, load=spike) if each.name == "node-0017" else each for each in calm.nodes)
    site.tell("fleet", replace(calm, nodes=nodes))
    expect(names.first).to_have_text("node-0017")
    expect(link).to_be_focused()


def test_a_thousand_nodes_are_built_only_as_far_as_one_looks(page: Page, site: Site) -> None:
    site.tell("fleet", samples.wide())
    expect(page.get_by_role("heading", level=1)).to_contain_text("1000 nodes")
    rows = page.locator("#nodes tbody")
    expect(rows).to_have_count(40)
    expect(page.locator("#nodes")).to_contain_text("960 more")
    page.locator("#nodes .empty").scroll_into_view_if_needed()
    expect(rows).not_to_have_count(40)
    page.get_by_label("Find a node or site").fill("node-0777")
    expect(rows).to_have_count(1)


def test_resuming_a_pause_asks_first(page: Page, site: Site, board: Board) -> None:
    site.tell("fleet", samples.bad_hour())
    expect(page.locator("#pauses")).to_contain_text("Site lisbon is paused. Router swap. By ines; ends in 4")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert board.asked == [("resume", 4)]


def test_hostile_names_and_reasons_are_text(page: Page, site: Site) -> None:
    site.tell("fleet", samples.hostile())
    site.tell("ledger", samples.entry(91, HOSTILE, HOSTILE, HOSTILE, HOSTILE, who=HOSTILE))
    expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x")
    expect(page.locator("#ledger li").first).to_contain_text("<script>")
    expect(page.locator("#links")).to_contain_text("<script>")
    assert page.locator("body img:not(.mark), body script").count() == 0
    assert "owned" not in page.title() or "<img" in page.title()


@pytest.mark.parametrize("view", [samples.hostile, samples.large, samples.wide])
def test_odd_and_large_fleets_fit_a_phone(page: Page, site: Site, view: Callable[[], FleetView]) -> None:
    picture = view()
    page.set_viewport_size({"width": 360, "height": 740})
    site.tell("fleet", picture)
    expect(page.get_by_role("heading", level=1)).to_contain_text(picture.summary[:20])
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_hundred_nodes_of_no_site_are_read_by_node_at_once(page: Page, site: Site) -> None:
    site.tell("fleet", samples.one_site())
    expect(page.locator("#links .count")).to_contain_text("4950 pairs · 99 need attention")
    nodes = page.get_by_role("region", name="Nodes by nodes")
    expect(nodes.locator("a.cell")).to_have_count(4950)
    one = nodes.locator('a[href="/pairs/austin-00--austin-99"]')
    expect(one).to_have_attribute("aria-label", "austin-00 and austin-99: overlay down; backup up, traffic")
    expect(page.get_by_role("region", name="Sites by sites")).to_have_count(0)
    expect(page.locator("#links")).to_contain_text("69 more pairs not shown: filter by node or site.")
    # A figure that changes draws none of it anew.
    one.evaluate("link => { window.stays = link; }")
    slower = samples.one_site()
    [first, *others] = slower.pairs
    overlay = samples.path_view(*first.nodes, "overlay", 0.077)
    first = replace(first, paths=(overlay, first.paths[1]))
    site.tell("fleet", replace(slower, summary="Another sentence", pairs=(first, *others)))
    expect(page.get_by_role("heading", level=1)).to_have_text("Another sentence.")
    assert page.evaluate("window.stays.isConnected")
    page.get_by_label("Find a node or site").fill("austin-07")
    expect(nodes).to_have_count(0)
    expect(page.locator("#links .count")).to_contain_text("99 match")


def test_a_hundred_sites_of_one_node_are_read_by_site(page: Page, site: Site) -> None:
    site.tell("fleet", samples.as_many_sites())
    sites = page.get_by_role("region", name="Sites by sites")
    expect(sites.locator("button.cell")).to_have_count(4950)
    sites.locator('[data-a="home of austin-00"][data-b="home of austin-99"]').click()
    expect(page.get_by_role("region", name="Nodes by nodes").get_by_role("link")).to_have_count(1)
    expect(page.get_by_role("table", name="Pairs and their paths").locator("tbody tr")).to_have_count(1)


def test_a_hundred_nodes_are_read_by_site_and_then_by_node(page: Page, site: Site) -> None:
    site.tell("fleet", samples.large())
    expect(page.locator("#links .count")).to_contain_text("4950 pairs · 294 need attention")
    rows = page.get_by_role("table", name="Pairs and their paths").locator("tbody tr")
    expect(rows).to_have_count(30)
    expect(page.locator("#links")).to_contain_text("264 more pairs not shown")
    page.get_by_label("Find a node or site").fill("quito-03")
    expect(page.locator("#links .count")).to_contain_text("99 match")
    expect(page.locator("#nodes tbody")).to_have_count(1)
    page.get_by_label("Find a node or site").fill("")
    page.get_by_role("button", name=re.compile("^austin and berlin: critical, 17 of 289 pairs")).click()
    inner = page.get_by_role("region", name="Nodes by nodes")
    expect(inner.get_by_role("link")).to_have_count(289)
    one = inner.get_by_role("link", name="austin-00 and berlin-16: overlay down; backup up, traffic")
    expect(one).to_have_attribute("href", "/pairs/austin-00--berlin-16")
    page.get_by_role("button", name="Show all sites").click()
    expect(inner).to_have_count(0)
