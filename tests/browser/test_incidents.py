"""Incidents: the list, one of them, and what a person says of it."""

from __future__ import annotations

from msgspec.structs import replace
from playwright.sync_api import Page, expect

from browser import incident_samples, samples
from browser.board import Site
from browser.incident_samples import brief, overlay_of_osaka, spike_of_last_week
from browser.samples import BERLIN, HOSTILE, OSAKA, VPS
from vagus_controller.views import NoteView


def test_open_ones_come_first_then_those_that_are_past(page: Page, site: Site) -> None:
    site.open(page, "/")
    open_now = overlay_of_osaka()
    site.tell("fleet", replace(samples.bad_hour(), incidents=(brief(open_now),)))
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Incidents 1").click()
    expect(page).to_have_url(site.url + "/incidents")
    now = page.get_by_role("region", name="Open")
    expect(now.get_by_role("listitem")).to_have_count(1)
    expect(now).to_contain_text("Overlay of pi-osaka is dead.")
    expect(now).to_contain_text("vagus moved 3 pairs to backup. 1 consequence inside.")
    past = page.get_by_role("region", name="Past")
    expect(past.get_by_role("listitem")).to_have_count(1)
    expect(past).to_contain_text("Load spike on pi-berlin.")
    expect(past).to_contain_text("over after 5 min")


def test_one_that_begins_or_ends_is_seen_without_a_reload(page: Page, site: Site) -> None:
    site.board.incident_views = []
    site.open(page, "/incidents")
    expect(page.locator("#open")).to_contain_text("No incident is open.")
    begun = overlay_of_osaka()
    site.board.incident_views = [begun]
    site.tell("incident", begun)
    expect(page.locator("#open")).to_contain_text("Overlay of pi-osaka is dead.")
    ended = replace(begun, state="over", ended_at=samples.AT)
    site.board.incident_views = [ended]
    site.tell("incident", ended)
    expect(page.locator("#open")).to_contain_text("No incident is open.")
    expect(page.locator("#past")).to_contain_text("Overlay of pi-osaka is dead.")


def test_they_are_filtered_and_paged(page: Page, site: Site) -> None:
    old = [replace(spike_of_last_week(number), title=f"load spike {number}") for number in range(70, 0, -1)]
    site.board.incident_views = [overlay_of_osaka(100), *old]
    site.open(page, "/incidents")
    entries = page.locator("#past li")
    expect(entries).to_have_count(29)
    page.get_by_role("button", name="Older incidents").click()
    expect(entries).to_have_count(59)
    page.get_by_role("button", name="Older incidents").click()
    expect(entries).to_have_count(70)
    expect(page.get_by_role("button", name="Older incidents")).to_be_hidden()
    page.get_by_label("Node or pair").fill(OSAKA)
    page.get_by_label("Node or pair").press("Enter")
    expect(page.locator("#past")).to_contain_text(f"No incident is past about {OSAKA}.")
    expect(page.locator("#open li")).to_have_count(1)
    expect(page).to_have_url(f"{site.url}/incidents?subject={OSAKA}")


def test_one_shows_its_cause_and_its_consequences_inside(page: Page, site: Site) -> None:
    site.open(page, "/incidents")
    page.get_by_role("link", name="Overlay of pi-osaka is dead.").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overlay of pi-osaka is dead")
    expect(page.locator("#standing")).to_contain_text("Critical: open for 4")
    expect(page.locator("#standing")).to_contain_text("What vagus did: moved 3 pairs to backup.")
    cause = page.get_by_role("region", name="Cause")
    expect(cause.get_by_role("link", name=f"{OSAKA}–{VPS} by overlay")).to_have_attribute(
        "href", f"/pairs/{OSAKA}--{VPS}"
    )
    expect(cause.get_by_text("One more failure loses it.")).to_be_hidden()
    cause.get_by_text("1 consequence of it").click()
    expect(cause.get_by_text("One more failure loses it.")).to_be_visible()
    # Opened, it stays open when news come.
    site.tell("incident", replace(overlay_of_osaka(), did="moved 3 pairs to backup and home again"))
    expect(page.locator("#standing")).to_contain_text("home again")
    expect(cause.get_by_text("One more failure loses it.")).to_be_visible()
    expect(page.get_by_role("region", name="What happened").get_by_role("listitem").first).to_contain_text("failover")


def test_a_person_acknowledges_writes_a_note_and_resolves(page: Page, site: Site) -> None:
    site.open(page, "/incidents/12")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_role("dialog")).to_contain_text("Everybody sees that you are on it")
    page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
    expect(page.locator("#standing")).to_contain_text("operator is on it")
    expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)

    page.get_by_label("Write a note").fill("the provider mends it at noon")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("region", name="Notes")).to_contain_text("the provider mends it at noon")
    expect(page.get_by_label("Write a note")).to_have_value("")

    page.get_by_role("button", name="Resolve").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Resolve").click()
    expect(dialog).to_be_visible()  # it needs a reason
    dialog.get_by_label("Why").fill("known work on the line")
    dialog.get_by_role("button", name="Resolve").click()
    expect(page.locator("#standing")).to_contain_text("Resolved: Known work on the line.")
    expect(page.get_by_role("button", name="Resolve")).to_have_count(0)
    assert site.board.asked == [
        ("acknowledge", 12),
        ("note", 12, "the provider mends it at noon"),
        ("resolve", 12, "known work on the line"),
    ]


def test_a_refusal_is_shown_in_the_dialog(page: Page, site: Site, complaints: list[str]) -> None:
    site.board.refusal = "this controller stands by; ask brain-2, which leads"
    site.open(page, "/incidents/12")
    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("ask brain-2")
    complaints.clear()


def test_a_viewer_reads_and_cannot_act(page: Page, site: Site) -> None:
    page.route("**/api/v1/me", lambda route: route.fulfill(json={"name": "vera", "role": "viewer"}))
    site.open(page, "/incidents/12")
    expect(page.locator("body")).to_have_attribute("data-role", "viewer")
    expect(page.locator("#standing")).to_contain_text("Critical")
    for name in ("Acknowledge", "Resolve", "Add"):
        expect(page.get_by_role("button", name=name)).to_be_hidden()
    expect(page.get_by_role("button", name="Copy the link")).to_be_visible()


def test_one_that_is_not_there_is_said(page: Page, site: Site, complaints: list[str]) -> None:
    site.board.incident_views = []
    site.open(page, "/incidents/4711")
    expect(page.get_by_role("alert")).to_contain_text("No incident 4711")
    complaints.clear()


def test_hostile_incidents_are_text(page: Page, site: Site) -> None:
    bad = overlay_of_osaka()
    troubles = tuple(replace(each, subject=HOSTILE, reason=HOSTILE, state="constructor") for each in bad.troubles)
    steps = tuple(replace(each, subject=HOSTILE, text=HOSTILE) for each in bad.timeline)
    notes = (NoteView(at=samples.AT, who=HOSTILE, text=HOSTILE),)
    site.board.incident_views = [
        replace(bad, title=HOSTILE, did=HOSTILE, troubles=troubles, timeline=steps, notes=notes, subject=HOSTILE)
    ]
    for path in ("/incidents", "/incidents/12"):
        site.open(page, path)
        expect(page.locator("#content")).to_contain_text("<script>")
        assert page.locator("body img:not(.mark), body script").count() == 0


def test_incidents_of_a_node_are_drawn_into_its_charts(page: Page, site: Site) -> None:
    site.open(page, f"/nodes/{OSAKA}")
    expect(page.locator("#incidents")).to_contain_text("Overlay of pi-osaka is dead.")
    plot = page.get_by_role("region", name="Load per core", exact=True).locator(".u-over")
    box = plot.bounding_box()
    assert box is not None
    plot.hover(position={"x": box["width"] - 2, "y": box["height"] / 2})
    expect(page.get_by_role("region", name="Load per core", exact=True).locator(".chart-told")).to_contain_text(
        "overlay of pi-osaka is dead"
    )
    site.board.incident_views = [incident_samples.spike_of_last_week()]
    site.open(page, f"/nodes/{BERLIN}?range=24h")
    expect(page.locator("#incidents")).to_contain_text("No incident was about this node in the time shown.")
    page.get_by_text("30 d", exact=True).click()
    expect(page.locator("#incidents")).to_contain_text("Load spike on pi-berlin.")
