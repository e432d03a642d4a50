"""The failover console."""

from __future__ import annotations

from msgspec.structs import replace
from playwright.sync_api import Page, expect

from browser import samples
from browser.board import Board, Site
from browser.samples import BERLIN, LISBON, OSAKA, VPS
from door import VIEWER, VIEWER_PASSWORD
from vagus_controller.views import PlanAsk


def test_what_waits_for_a_person_is_first_and_is_approved(page: Page, site: Site, board: Board) -> None:
    site.open(page, "/")
    site.tell("fleet", samples.recommended())
    link = page.get_by_role("navigation", name="Pages").get_by_role("link", name="Failover 1")
    link.click()
    expect(page).to_have_url(site.url + "/failover")
    waits = page.get_by_role("region", name="Waits for you")
    expect(waits).to_contain_text("Overlay is relayed; backup is proven and 7 times faster.")
    waits.get_by_role("button", name="Approve the move").click()
    dialog = page.get_by_role("dialog", name=f"Approve the move of {LISBON} and {VPS}")
    expect(dialog).to_contain_text("go back if it fails")
    dialog.get_by_role("button", name="Approve").click()
    expect(dialog).to_be_hidden()
    assert board.asked == [("approve", f"{LISBON}--{VPS}", "asked for on the page")]
    site.tell("fleet", samples.calm())
    expect(waits).to_be_hidden()


def test_assignments_show_what_is_not_at_home_and_on_demand_the_rest(page: Page, site: Site, board: Board) -> None:
    site.open(page, "/failover")
    expect(page.locator("#at-home")).to_have_text("All 6 pairs at home on their first path.")
    site.tell("fleet", samples.bad_hour())
    expect(page.locator("#at-home")).to_have_text("2 pairs at home, 4 not.")
    table = page.get_by_role("table", name="Assignments")
    expect(table.locator("tbody")).to_have_count(4)
    page.get_by_label("Also pairs at home").check()
    expect(table.locator("tbody")).to_have_count(6)
    row = table.locator("tbody", has_text=f"{OSAKA} ⇄ {VPS}")
    expect(row).to_contain_text("home after 60 s of proven overlay")
    row.get_by_role("button", name="Fail back to overlay").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("overlay is not proven")
    dialog.get_by_role("button", name="Fail back").click()
    expect(dialog).to_be_hidden()
    assert board.asked == [("failback", f"{OSAKA}--{VPS}", "asked for on the page")]


def test_many_pairs_move_after_a_rehearsal(page: Page, site: Site, board: Board) -> None:
    site.open(page, "/failover")
    form = page.get_by_role("region", name="Move many pairs")
    form.get_by_label("Of").select_option("site")
    form.get_by_label("Which").select_option("osaka")
    form.get_by_label("To").select_option("backup")
    form.get_by_label("Why").fill("a new router")
    form.get_by_role("button", name="Rehearse").click()
    for words in ("nothing was moved", "Canary", "a third pair is assigned to it already", "an end does not verify"):
        expect(form).to_contain_text(words, ignore_case=True)
    ask = PlanAsk(path="backup", scope="site", target="osaka", reason="a new router", dry_run=True)
    assert board.asked == [("plan", ask)]
    form.get_by_role("button", name="Move 2 pairs to backup").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Traffic of 2 pairs moves in 2 stages.")
    expect(dialog).to_contain_text("vagus holds these pairs there until a person fails them back.")
    dialog.get_by_role("button", name="Move 2 pairs to backup").click()
    expect(dialog).to_be_hidden()
    assert board.asked == [("plan", ask), ("plan", replace(ask, dry_run=False))]
    expect(form).not_to_contain_text("nothing was moved")


def test_a_plan_that_is_refused_says_why(page: Page, site: Site, board: Board, complaints: list[str]) -> None:
    board.refusal = "an incident is open; wait until it is over"
    site.open(page, "/failover")
    form = page.get_by_role("region", name="Move many pairs")
    form.get_by_role("button", name="Rehearse").click()
    expect(form.get_by_role("alert")).to_have_text(board.refusal)
    assert all("Failed to load resource" in line for line in complaints)  # the browser logs every 4xx
    complaints.clear()


def test_stages_are_seen_as_they_go(page: Page, site: Site, board: Board) -> None:
    plan = samples.plan("backup", f"{BERLIN}--{LISBON}", f"{BERLIN}--{VPS}")
    board.plan_views = (plan,)
    site.open(page, "/failover")
    progress = page.locator("#progress")
    expect(progress).to_contain_text("Canary 0 of 1 confirmed")
    expect(progress).to_contain_text(f"{BERLIN} ⇄ {LISBON} overlay → backup: on trial")
    canary, rest = plan.stages
    done = replace(canary, steps=(replace(canary.steps[0], state="confirmed"),))
    tried = replace(rest, steps=(replace(rest.steps[0], state="rolled back", reason="no answer over backup"),))
    board.plan_views = (replace(plan, stages=(done, rest)),)
    expect(progress).to_contain_text("Canary 1 of 1 confirmed")
    board.plan_views = (replace(plan, stages=(done, tried), state="stopped", outcome="a trial failed"),)
    expect(progress).to_contain_text("A trial failed.")
    expect(progress).to_contain_text("rolled back No answer over backup.")


def test_drills_are_told_with_their_gaps(page: Page, site: Site, board: Board) -> None:
    board.drill_views = (samples.drill(f"{BERLIN}--{OSAKA}"),)
    site.open(page, "/failover")
    page.locator("#progress summary").click()
    expect(page.locator("#progress")).to_contain_text("ok; out gap 40 ms, back no gap")
    form = page.get_by_role("region", name="Drill", exact=True)
    form.get_by_label("Of").select_option("site")
    form.get_by_label("Which").select_option("lisbon")
    form.get_by_role("button", name="Drill").click()
    dialog = page.get_by_role("dialog", name="Drill site lisbon")
    expect(dialog).to_contain_text("The first bad sign ends the drill")
    dialog.get_by_role("button", name="Begin the drill").click()
    expect(dialog).to_be_hidden()
    assert board.asked == [("drill", "site", "lisbon", "asked for on the page")]


def test_pause_and_resume(page: Page, site: Site, board: Board) -> None:
    site.open(page, "/failover")
    form = page.get_by_role("region", name="Pauses")
    form.get_by_label("Pause").select_option("node")
    form.get_by_label("Which").select_option(OSAKA)
    form.get_by_label("For").select_option("14400")
    form.get_by_label("Why").fill("a new disk")
    form.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog", name=f"Pause node {OSAKA}")
    expect(dialog).to_contain_text("vagus moves nothing of node pi-osaka by itself, not even off a dead path.")
    dialog.get_by_role("button", name="Pause for 4 hours").click()
    expect(dialog).to_be_hidden()
    site.tell("fleet", samples.bad_hour())
    expect(page.locator("#pauses")).to_contain_text("Site lisbon is paused. Router swap. By ines; ends in 4")
    page.get_by_role("button", name="Resume").click()
    resume = page.get_by_role("dialog", name="Resume")
    resume.get_by_role("button", name="Resume").click()
    expect(resume).to_be_hidden()
    assert board.asked == [("pause", "node", OSAKA, "a new disk", 14_400.0), ("resume", 4)]


def test_a_viewer_sees_everything_and_is_offered_no_command(page: Page, site: Site) -> None:
    site.open(page, "/")
    page.get_by_label("Account and appearance").click()
    expect(page.locator("#me")).to_have_text("operator, operator")
    page.get_by_role("button", name="Sign out").click()
    site.sign_in(page, VIEWER, VIEWER_PASSWORD)
    site.tell("fleet", samples.bad_hour())
    site.open(page, "/failover")
    expect(page.locator("body")).to_have_attribute("data-role", "viewer")
    expect(page.get_by_role("table", name="Assignments")).to_contain_text(f"{OSAKA} ⇄ {VPS}")
    for name in ("Fail back to overlay", "Rehearse", "Drill", "Pause", "Resume"):
        expect(page.locator("main").get_by_role("button", name=name)).to_have_count(0)
    site.open(page, f"/pairs/{BERLIN}--{OSAKA}")
    expect(page.locator("body")).to_have_attribute("data-role", "viewer")
    expect(page.locator("#standing")).to_contain_text("On backup")
    expect(page.locator("#actions").get_by_role("button")).to_have_count(0)
