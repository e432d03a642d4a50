"""The page of a node: how it is, its figures over time, and what its agent is set to do."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec.structs import replace
from playwright.sync_api import Locator, Page, Route, expect

from browser import node_samples, samples
from browser.board import Board, Site
from browser.samples import BERLIN, LISBON, OSAKA, VPS, Severity
from vagus_controller.views import PauseView

CHARTS = (
    "Load per core",
    "Pressure (PSI)",
    "CPU by state",
    "Memory",
    "Disks",
    "Temperature",
    "etcd: a linearizable read",
    "Programs, in cores",
    "Round trip, by link",
    "Loss, by link",
)

# How many of a chart's pixels between two shares of its plot's width have the colour of its first series.
INKED = """(element, [from, until]) => {
  const colour = getComputedStyle(element.querySelector('.swatch')).color.match(/\\d+/g).map(Number);
  const canvas = element.querySelector('canvas');
  const over = element.querySelector('.u-over').getBoundingClientRect();
  const left = over.left - canvas.getBoundingClientRect().left;
  const ratio = canvas.width / canvas.clientWidth;
  const [x, width] = [(left + from * over.width) * ratio, (until - from) * over.width * ratio];
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(x, 0, width, canvas.height);
  let found = 0;
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] > 200 && colour.every((part, index) => Math.abs(data[at + index] - part) < 40)) found += 1;
  }
  return found;
}"""


@pytest.fixture
def osaka(page: Page, site: Site) -> Page:
    site.tell("fleet", node_samples.talkative())
    site.open(page, f"/nodes/{OSAKA}")
    expect(chart(page, "Load per core").locator("canvas")).to_be_visible()
    return page


def chart(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


def asked(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def test_it_says_how_the_node_is_and_what_to_do(osaka: Page, site: Site) -> None:
    standing = osaka.locator("#standing")
    expect(standing).to_contain_text(
        "Needs attention: its agent reports, load spike, traffic to 3 of 3 peers is off its"
    )
    expect(standing).to_contain_text("What to do: Nothing at once: traffic goes by another path.")
    expect(standing).to_contain_text("mmcblk0 is busy 97 %")
    expect(osaka.locator("#who")).to_contain_text("10.70.0.1, fd70::1")
    expect(osaka.locator("#who")).to_contain_text("3f1c9a52")
    site.tell("fleet", samples.calm())
    expect(standing).to_contain_text("All well: its agent reports, traffic to all 3 peers is on its first path.")
    expect(standing).to_contain_text("What to do: nothing.")


def test_each_figure_has_a_chart_and_its_numbers_are_those_of_the_api(osaka: Page, site: Site) -> None:
    for title in CHARTS:
        expect(chart(osaka, title).locator("canvas")).to_be_visible()
    with osaka.expect_response(lambda answer: "/history?" in answer.url) as found:
        osaka.get_by_text("7 d", exact=True).click()
    told = found.value.json()
    figures = next(each for each in told["columns"] if each["metric"] == "load")
    highest = max(value for value in figures["high"] if value is not None)
    row = chart(osaka, "Load per core").get_by_role("row", name="load, 1 min")
    expect(row.get_by_role("cell").last).to_have_text(f"{highest:.2f}")


@pytest.mark.parametrize(("range_s", "words"), [(3600, "1 h"), (86_400, "24 h"), (604_800, "7 d"), (2_592_000, "30 d")])
def test_the_time_shown_is_chosen_and_stays_in_the_address(osaka: Page, range_s: int, words: str) -> None:
    other = "1 h" if words == "24 h" else "24 h"
    osaka.get_by_text(other, exact=True).click()
    with osaka.expect_request(lambda request: "/history?" in request.url) as found:
        osaka.get_by_text(words, exact=True).click()
    wanted = asked(found.value.url)
    now = osaka.evaluate("Date.now() / 1000")
    assert now - float(wanted["since"]) == pytest.approx(range_s, abs=30)
    assert 100 < range_s / int(wanted["step"]) <= 720
    osaka.reload()
    expect(osaka.get_by_role("radio", name=words)).to_be_checked()


def test_a_time_in_which_nothing_is_known_is_a_gap_and_no_line_at_zero(osaka: Page) -> None:
    """The samples have nothing in the second sixth of the time."""
    load = chart(osaka, "Load per core")
    assert load.evaluate(INKED, [0.02, 0.15]) > 50
    assert load.evaluate(INKED, [0.19, 0.31]) == 0
    assert load.evaluate(INKED, [0.36, 0.9]) > 50


def test_what_a_machine_has_not_is_said_to_be_absent(page: Page, site: Site) -> None:
    site.open(page, f"/nodes/{VPS}")
    expect(chart(page, "Temperature")).to_contain_text("This machine tells no temperature.")
    expect(chart(page, "Temperature").locator("canvas")).to_have_count(0)
    expect(page.locator("#machine")).to_contain_text("not told: no sensor")
    site.open(page, f"/nodes/{LISBON}")
    expect(chart(page, "Pressure (PSI)")).to_contain_text("psi=1")
    expect(page.locator("#machine")).to_contain_text("not told: this kernel measures no pressure")


def test_throttling_is_marked_beside_the_temperature(osaka: Page) -> None:
    expect(chart(osaka, "Temperature")).to_contain_text(re.compile(r"throttled\s*\d+ % of this time"))
    expect(chart(osaka, "Temperature")).to_contain_text(re.compile(r"too little voltage\s*\d+ % of this time"))


def test_the_keyboard_tells_each_moment_in_all_charts(osaka: Page) -> None:
    load = chart(osaka, "Load per core")
    load.get_by_role("group").focus()
    osaka.keyboard.press("Home")
    expect(load.get_by_role("status")).to_contain_text(re.compile(r"\d\d:\d\d:\d\d: load, 1 min \d\.\d\d"))
    first = load.locator("thead th").first.inner_text()
    expect(chart(osaka, "Memory").locator("thead th").first).to_have_text(first)
    osaka.keyboard.press("ArrowRight")
    expect(load.locator("thead th").first).not_to_have_text(first)
    osaka.keyboard.press("Escape")
    expect(load.locator("thead th").first).to_have_text("last")


def test_failovers_are_drawn_in_and_told_under_the_cursor(osaka: Page, site: Site) -> None:
    expect(osaka.locator("#past")).to_contain_text("failover")
    plot = chart(osaka, "Load per core").locator(".u-over")
    box = plot.bounding_box()
    assert box is not None
    plot.hover(position={"x": box["width"] - 2, "y": box["height"] / 2})
    expect(chart(osaka, "Load per core").locator(".chart-told")).to_contain_text("failover: ")
    made = samples.entry(60, "failback", f"{OSAKA}--{VPS}", "the overlay held", "both ends are home")
    site.board.ledger_entries.insert(0, made)
    site.tell("ledger", made)
    expect(osaka.locator("#past")).to_contain_text("both ends are home", ignore_case=True)


def test_a_part_of_the_time_can_be_looked_at_closely(osaka: Page) -> None:
    plot = chart(osaka, "Load per core").locator(".u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    osaka.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 30)
    osaka.mouse.down()
    osaka.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 30, steps=4)
    with osaka.expect_request(lambda request: "/history?" in request.url) as found:
        osaka.mouse.up()
    wanted = asked(found.value.url)
    assert float(wanted["until"]) - float(wanted["since"]) == pytest.approx(0.2 * 86_400, rel=0.1)
    assert asked(osaka.url)["since"] == str(int(float(wanted["since"])))
    osaka.get_by_role("button", name="Back to 24 h").click()
    expect(osaka.get_by_role("radio", name="24 h")).to_be_checked()


def test_a_series_can_be_left_out(osaka: Page) -> None:
    name = chart(osaka, "Memory").get_by_role("button", name="memory in use")
    expect(name).to_have_attribute("aria-pressed", "true")
    before = chart(osaka, "Memory").evaluate(INKED, [0.36, 0.9])
    name.click()
    expect(name).to_have_attribute("aria-pressed", "false")
    assert chart(osaka, "Memory").evaluate(INKED, [0.36, 0.9]) < before / 4


def test_charts_follow_the_appearance(osaka: Page) -> None:
    osaka.emulate_media(color_scheme="light")
    expect(chart(osaka, "Load per core").locator("canvas")).to_be_visible()
    osaka.emulate_media(color_scheme="dark")
    # In the new colour of the swatch: the line was drawn anew.
    osaka.wait_for_function(
        f"element => ({INKED})(element, [0.36, 0.9]) > 50", arg=chart(osaka, "Load per core").element_handle()
    )


def test_what_comes_later_is_appended(page: Page, site: Site) -> None:
    """`joined`: old slots, then new ones, with nulls where one of them has no such column."""
    site.open(page, "/")
    found = page.evaluate(
        """async () => {
          const { joined } = await import('/static/any/overtime.js');
          const column = (mean) => ({ metric: 'x', low: mean, mean, high: mean });
          const plain = ({ at, columns }) => [at, [...columns].map(([name, one]) => [name, one.mean])];
          const history = (at, columns) => ({
            at, step: 10, columns: new Map(Object.entries(columns).map(([name, mean]) => [name, column(mean)])),
          });
          const old = history([10, 20, 30], { a: [1, 2, 3], b: [7, 8, 9] });
          const fresh = history([30, 40], { a: [4, 5], c: [0, 6] });
          const later = history([60], { a: [9] });
          const nothing = history([], {});
          return [
            plain(joined(old, fresh, 0)), plain(joined(old, fresh, 20)), plain(joined(old, later, 0)),
            joined(old, nothing, 0) === old, joined(null, fresh, 0) === fresh,
            joined(old, { ...fresh, step: 60 }, 0).step,
          ];
        }"""
    )
    assert found == [
        [[10, 20, 30, 40], [["a", [1, 2, 4, 5]], ["b", [7, 8, None, None]], ["c", [None, None, 0, 6]]]],
        [[20, 30, 40], [["a", [2, 4, 5]], ["b", [8, None, None]], ["c", [None, 0, 6]]]],
        [[10, 20, 30, 40, 50, 60], [["a", [1, 2, 3, None, None, 9]], ["b", [7, 8, 9, None, None, None]]]],
        *(True, True, 60),
    ]


def test_history_that_fails_is_said_and_asked_for_again(page: Page, site: Site, complaints: list[str]) -> None:
    broken = True

    def answer(route: Route) -> None:
        if broken:
            route.fulfill(status=500, json={"status": 500, "title": "x", "detail": "a bug in the controller"})
        else:
            route.continue_()

    page.route("**/history?**", answer)
    site.open(page, f"/nodes/{OSAKA}")
    expect(page.locator("#charts-trouble")).to_have_text("a bug in the controller. Asked again in 15 s.")
    expect(page.locator("#standing")).to_contain_text("All well")
    broken = False
    page.get_by_text("1 h", exact=True).click()
    expect(page.locator("#charts-trouble")).to_be_hidden()
    expect(chart(page, "Load per core").locator("canvas")).to_be_visible()
    assert all("500" in line for line in complaints)
    complaints.clear()


def test_a_time_before_the_node_was_known_is_said_to_be_empty(page: Page, site: Site) -> None:
    def nothing(route: Route) -> None:
        route.fulfill(json={"node": OSAKA, "step_s": 60, "at": [], "columns": [], "links": []})

    page.route("**/history?**", nothing)
    site.open(page, f"/nodes/{OSAKA}")
    expect(page.locator("#charts-words")).to_contain_text("Nothing was recorded in this time")


def test_what_the_agent_is_set_to_do_and_what_it_does(osaka: Page) -> None:
    agent = osaka.get_by_role("region", name="What the agent is set to do")
    for words in (
        "Reflex orphaned. Acts alone while it hears no leading controller",
        "vagus may move its traffic by itself.",
        "It runs a member of etcd.",
        "Applied: epoch 3, generation 12.",
        "No drift",
        "a probe each 250 ms when idle",
        f"{BERLIN} 10.70.0.2, fd70::2 by overlay, backup",
    ):
        expect(agent).to_contain_text(words)
    links = osaka.get_by_role("region", name="Links, and the path")
    row = links.get_by_role("row", name=re.compile(f"^{VPS}"))
    expect(row).to_contain_text("backup")
    expect(row).to_contain_text("6 probes in a row without an answer.")
    expect(row).to_contain_text("Verified on backup")
    expect(row.get_by_role("link", name="The pair")).to_have_attribute("href", f"/pairs/{OSAKA}--{VPS}")
    expect(osaka.locator("#services")).to_contain_text("Longhorn at pi-berlin: connection refused at 10.70.0.1:9500.")
    for words in ("voter", "3.5.16", "112 ms", "2 entries", "Running", "expires in 11 d"):
        expect(osaka.locator("#overlay")).to_contain_text(words)


def test_drift_and_a_route_that_is_none_of_ours_are_said(page: Page, site: Site) -> None:
    calm = samples.calm()
    drifted = tuple(
        replace(each, drift=("10.70.0.3 goes by eth0, not by tailscale0",)) if each.name == OSAKA else each
        for each in calm.nodes
    )
    pairs = tuple(
        replace(pair, observed=("overlay", "")) if pair.name == f"{BERLIN}--{OSAKA}" else pair for pair in calm.pairs
    )
    site.tell("fleet", replace(calm, nodes=drifted, pairs=pairs))
    site.open(page, f"/nodes/{OSAKA}")
    expect(page.locator("#agent")).to_contain_text("Drift: 10.70.0.3 goes by eth0, not by tailscale0.")
    expect(page.locator("#links")).to_contain_text("none of our routes")


def test_of_many_peers_the_worst_are_drawn_until_one_is_chosen(page: Page, site: Site) -> None:
    site.tell("fleet", samples.large(20))
    name = site.board.view.nodes[3].name
    worst = {site.board.view.nodes[number].name for number in (17, 18, 19)}
    with page.expect_request("**/history?*") as request:
        site.open(page, f"/nodes/{name}")
    # Of so many, no more than what is drawn is fetched.
    peers = parse_qs(urlsplit(request.value.url).query)["peer"]
    assert len(peers) == 4
    assert worst < set(peers)
    rows = chart(page, "Round trip, by link").locator("tbody tr")
    expect(rows).to_have_count(8)
    peer = site.board.view.nodes[7].name
    page.get_by_label("Links to").select_option(peer)
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text(f"{peer} by overlay")


def test_dead_paths_make_a_node_that_is_well_itself_a_matter_of_attention(page: Page, site: Site) -> None:
    site.tell("fleet", samples.bad_hour())
    site.open(page, f"/nodes/{VPS}")
    expect(page.locator("#standing")).to_contain_text("Needs attention: its agent reports, traffic to 1 of 3 peers is")


def test_a_pause_of_the_node_asks_for_how_long_and_why_and_stands_there_until_it_is_ended(
    page: Page, site: Site, board: Board
) -> None:
    calm = samples.calm()
    site.open(page, f"/nodes/{OSAKA}")
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog", name=f"Pause node {OSAKA}")
    expect(dialog).to_contain_text(f"vagus moves nothing of node {OSAKA} by itself, not even off a dead path.")
    expect(dialog.get_by_label("For")).to_have_value("3600")
    dialog.get_by_role("button", name="Pause").click()
    assert board.asked == []  # not without a reason
    dialog.get_by_label("For").select_option("4 hours")
    dialog.get_by_label("Why").fill("a new disk")
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog).to_be_hidden()
    assert board.asked == [("pause", "node", OSAKA, "a new disk", 14_400.0)]
    expect(page.get_by_text(f"Node {OSAKA} is paused for 4 hours.")).to_be_visible()

    mine = PauseView(id=9, scope="node", target=OSAKA, reason="a new disk", who="ines", expires_s=14_400)
    sites = replace(mine, id=10, scope="site", target="osaka", reason="router swap")
    others = [replace(mine, id=11, target=LISBON), replace(mine, id=12, scope="site", target="lisbon")]
    site.tell("fleet", replace(calm, pauses=(mine, sites, *others)))
    pauses = page.locator("#pauses li")
    expect(pauses).to_have_count(2)
    expect(pauses.first).to_contain_text(re.compile(f"Node {OSAKA} is paused. A new disk. By ines; ends in (4|3) h"))
    expect(pauses.last).to_contain_text("Site osaka is paused. Router swap.")
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    pauses.first.get_by_role("button", name="Resume").click()
    page.get_by_role("dialog", name="Resume").get_by_role("button", name="Resume").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert board.asked[1:] == [("resume", 9)]
    site.tell("fleet", calm)
    expect(pauses).to_have_count(0)
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_a_node_with_many_peers_shows_those_that_need_attention_first(page: Page, site: Site) -> None:
    site.tell("fleet", samples.large(40, dead=2))
    names = [node.name for node in site.board.view.nodes]
    site.open(page, f"/nodes/{names[0]}")
    links = page.get_by_role("region", name="Links, and the path")
    rows = links.locator("tbody tr:visible")
    expect(rows).to_have_count(20)
    for peer in names[-2:]:
        expect(links.get_by_role("row", name=re.compile(f"^{peer}"))).to_be_visible()
    links.get_by_text("19 more").click()
    expect(rows).to_have_count(39)
    site.tell("fleet", samples.large(40, dead=2))
    expect(rows).to_have_count(39)


def test_a_node_that_is_not_there_is_said(page: Page, site: Site) -> None:
    site.open(page, "/nodes/pi-nowhere")
    expect(page.locator("#missing")).to_contain_text("There is no node pi-nowhere.")
    expect(page.locator("#known")).to_be_hidden()


def test_a_silent_node_is_told_as_such(page: Page, site: Site) -> None:
    calm = samples.calm()
    silent: Any = samples.verdict("liveness", OSAKA, "silent", Severity.WARNING, "no report for 40 s", since_s=40)
    nodes = tuple(
        replace(each, liveness=silent, report=None, report_age_s=None) if each.name == OSAKA else each
        for each in calm.nodes
    )
    site.tell("fleet", replace(calm, nodes=nodes))
    site.open(page, f"/nodes/{OSAKA}")
    expect(page.locator("#standing")).to_contain_text("Needs attention: silent")
    expect(page.locator("#machine")).to_contain_text("has told nothing of the machine yet")
    expect(page.locator("#who")).to_contain_text("none yet")


def test_a_hostile_node_is_text(page: Page, site: Site) -> None:
    site.tell("fleet", samples.hostile())
    site.open(page, "/nodes/constructor")
    expect(page.locator("#links")).to_contain_text("<script>")
    expect(page.locator("#agent")).to_contain_text("<script>")
    expect(page).to_have_title(re.compile("^constructor"))
    assert page.locator("body img:not(.mark), body script").count() == 0
