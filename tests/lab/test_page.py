"""The page in Chromium, of a real fleet: what happens there is seen here, and what is clicked here happens there."""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize, expect

from browser.axe import serious
from browser.chromium import chromium
from lab.fleet_helpers import (
    PATIENCE_S,
    Since,
    ends_go,
    holds,
    pair,
    pair_name,
    pairs,
    running,
    state,
    until,
    until_settled,
)
from lab.harness import HostSpec, Lab, TcpStream, UdpStream
from lab.harness.hosts import INTERFACE, PathName
from lab.harness.services import HTTP_PORT

FLEET = (
    HostSpec("vps", "frankfurt", {"broker", "controller", "etcd"}),
    HostSpec("pi1", "tokyo", {"etcd"}),
    HostSpec("pi2", "austin", {"etcd"}),
)
PAIR = ("pi1", "pi2")
NAME = pair_name(*PAIR)
VIEWER, VIEWER_PASSWORD = "vera", "a-password-for-who-looks-on"
DESK, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=360, height=740)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
# What is promised of an idle machine, and how much longer one may take that is busy with something else.
SEEN_WITHIN_S, BUSY = 1.0, 10.0
PATIENCE_MS = PATIENCE_S * 1000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with running(FLEET, etcd=True) as lab:
        viewer = {"name": VIEWER, "role": "viewer", "password": VIEWER_PASSWORD}
        lab.api("/api/v1/users", method="POST", body=viewer)
        yield lab


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def url(lab: Lab) -> Iterator[str]:
    """Of the page, by a way that a test may cut."""
    url = lab.publish(lab.the("controller"), HTTP_PORT)
    yield url
    lab.unpublish(url)


@pytest.fixture
def context(browser: Browser, url: str) -> Iterator[BrowserContext]:
    """A browser of nobody yet. No page of it may have a bug, or ask anybody else for anything."""
    context = browser.new_context(viewport=DESK, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("request", lambda one: None if one.url.startswith("http://127.0.0.1:") else wrong.append(one.url))
    yield context
    context.close()
    assert wrong == []


@pytest.fixture
def page(context: BrowserContext, lab: Lab, url: str) -> Page:
    """Of the operator."""
    page = context.new_page()
    page.goto(url + "/login")
    sign_in(page, "operator", lab.password)
    arrived(page)
    return page


def sign_in(page: Page, user: str, password: str) -> None:
    page.get_by_label("User").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def arrived(page: Page) -> None:
    page.wait_for_selector("#content:not([hidden])")


def visit(page: Page, address: str) -> None:
    page.goto(address)
    arrived(page)


def confirm(dialog: Locator, words: str) -> None:
    """Again while it is refused: a standby of a busy machine is unproven now and then."""

    def done() -> bool:
        if dialog.is_visible():
            dialog.get_by_role("button", name=words, exact=True).click()
            dialog.page.wait_for_function(
                "() => !document.querySelector('dialog[open]') || !document.querySelector('dialog .trouble').hidden"
            )
        return not dialog.is_visible()

    until(done, lambda: f"{words}: {dialog.inner_text()}")


def cell(page: Page, path: PathName) -> Locator:
    """On the fleet page: that path of `PAIR`."""
    return page.locator(f'#links-pairs tr[data-key="{NAME}"] td[data-path="{path}"]')


def alert(page: Page) -> Locator:
    """That what is seen is old."""
    return page.locator("#banners").get_by_role("alert")


# --- what happens there is seen here -------------------------------------------------------------------------------

# When each pair's overlay was first seen to be down, by the clock that the controller has too.
WATCH = """() => {
  window.seen = {};
  const look = () => {
    for (const cell of document.querySelectorAll('#links-pairs td[data-path="overlay"]')) {
      const down = cell.querySelector('.path-state')?.textContent === 'Down';
      if (down) window.seen[cell.closest('tr').dataset.key] ??= Date.now() / 1000;
    }
  };
  const every = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(look).observe(document.getElementById('links-pairs'), every);
}"""


def test_a_dead_overlay_is_seen_within_a_second_of_its_verdict(
    lab: Lab, page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    since = Since(lab)
    names = {pair_name(*one) for one in pairs(lab)}
    expect(cell(page, "overlay")).to_have_attribute("data-carries", "yes")
    page.evaluate(WATCH)
    cut = lab.cut("overlay")
    cut_at = time.time() - (time.monotonic() - cut)
    seen = until(lambda: found if set(found := page.evaluate("seen")) == names else None, lambda: f"seen: {state(lab)}")
    verdicts = {name: since.events("link", "down:", f"{name}/overlay")[0]["at"] for name in names}
    late = max(seen[name] - verdicts[name] for name in names)
    later = max(seen.values()) - cut_at
    with capsys.disabled():
        print(f"\na dead overlay is seen {late:.2f} s after its verdict, {later:.2f} s after the cut")
    assert late < SEEN_WITHIN_S * BUSY
    expect(cell(page, "backup")).to_have_attribute("data-carries", "yes")
    expect(page.locator("#incidents")).to_contain_text("Overlay is dead everywhere")
    expect(page.locator("#ledger")).to_contain_text("failover")


def test_a_page_that_is_cut_off_says_so_and_knows_everything_when_it_is_back(lab: Lab, page: Page, url: str) -> None:
    visit(page, url + "/events")
    fleet = page.context.new_page()
    visit(fleet, url + "/")
    both = (page, fleet)
    for each in both:
        each.evaluate("window.stays = true")
    since = Since(lab)
    lab.unpublish(url)
    lab.cut("overlay", *PAIR)
    until_settled(lab, "backup", [PAIR])
    lost = re.compile(r"This page lost the controller \d+ s ago: what you see is old\.")
    for each in both:
        expect(alert(each)).to_contain_text(lost)
        expect(each).to_have_title(re.compile(r"^\(old\) "))
    expect(cell(fleet, "overlay")).to_have_attribute("data-carries", "yes")
    assert lab.publish(lab.the("controller"), HTTP_PORT, port=int(url.rpartition(":")[2])) == url
    for each in both:
        expect(alert(each)).to_have_count(0)
    expect(cell(fleet, "backup")).to_have_attribute("data-carries", "yes")

    def shown(what: str) -> list[str]:
        keys = f"[...document.querySelectorAll('#{what} > ol > li')].map(line => line.dataset.key)"
        found: list[str] = page.evaluate(keys)
        assert len(found) == len(set(found)), f"a line twice: {found}"
        return found

    # The newest fill the first page.
    def missing() -> set[str]:
        events = {str(one["id"]) for one in since.events()[-40:]} - set(shown("events"))
        return events | {str(one["id"]) for one in since.ledger()[-40:]} - set(shown("ledger"))

    assert ("failover", NAME) in since.moves()
    until(lambda: not missing(), lambda: f"not shown: {missing()}")
    assert all(each.evaluate("window.stays") for each in both), "it was loaded anew"


def test_a_controller_without_its_broker_is_said_with_how_long(lab: Lab, page: Page) -> None:
    told = alert(page)
    lost = re.compile(r"The controller lost the broker (\d+) s ago and moves nothing\.")

    def age() -> int:
        found = lost.search(told.inner_text())
        return int(found[1]) if found else 0

    lab.cut_controller()
    try:
        expect(told).to_contain_text(lost)
        expect(page.locator("#vitals")).to_contain_text("It is us: blind")
        first = age()
        until(lambda: age() > first, "its age grows")
    finally:
        lab.cut_controller(False)
    expect(told).to_have_count(0)
    expect(page.locator("#vitals")).to_contain_text("Hears 3 of 3 nodes")


# --- what is clicked here happens there ----------------------------------------------------------------------------


def packets(lab: Lab, path: PathName) -> int:
    file = f"/sys/class/net/{INTERFACE[path]}/statistics/tx_packets"
    return int(lab[PAIR[0]].run(["cat", file]).stdout)


def goes_on(lab: Lab, path: PathName, tcp: TcpStream, udp: UdpStream) -> None:
    """Both streams, by that path."""
    moved, before = time.monotonic(), packets(lab, path)
    until(lambda: tcp.receipts()[-1].sent > moved, "TCP goes on")
    until(lambda: udp.arrivals()[-1].sent > moved, "UDP goes on")
    until(lambda: packets(lab, path) > before + 200, f"{path} carries them")


def test_switchover_and_failback_by_clicks_move_traffic_and_every_connection_lives(
    lab: Lab, page: Page, url: str
) -> None:
    since = Since(lab)
    visit(page, f"{url}/pairs/{NAME}")
    ways: list[tuple[PathName, PathName, str, str, str]] = [
        ("overlay", "backup", "Switch over to backup", "Switch over", "until a person fails it back to overlay"),
        ("backup", "overlay", "Fail back to overlay", "Fail back", "vagus moves this pair by its own rules again"),
    ]
    with TcpStream(lab, *PAIR) as tcp, UdpStream(lab, *PAIR) as udp:
        for left, taken, words, does, means in ways:
            page.get_by_role("button", name=words).click()
            dialog = page.get_by_role("dialog", name=f"{does} pi1 and pi2 to {taken}")
            expect(dialog).to_contain_text(f"Traffic between pi1 and pi2 leaves {left} and takes {taken}")
            expect(dialog).to_contain_text(means)
            assert ends_go(lab, left, [PAIR]), "it moved before anybody said yes"
            dialog.get_by_label("Why").fill(f"trying {taken}")
            confirm(dialog, does)
            until_settled(lab, taken, [PAIR])
            goes_on(lab, taken, tcp, udp)
            expect(page.locator("#standing")).to_contain_text(f"Now pi1 sends by {taken}, pi2 sends by {taken}.")
        assert tcp.alive, tcp.ended()
        assert tcp.connections() == 1
    asked = [(one["action"], one["reason"]) for one in since.ledger(subject=NAME) if one["who"] == "operator"]
    assert asked == [("switchover", "trying backup"), ("failback", "trying overlay")]


def test_a_pause_by_clicks_holds_a_failover_until_it_is_ended_by_clicks(lab: Lab, page: Page, url: str) -> None:
    since = Since(lab)
    mine = [one for one in pairs(lab) if "pi1" in one]
    visit(page, f"{url}/nodes/pi1")
    page.get_by_role("button", name="Pause").click()
    dialog = page.get_by_role("dialog", name="Pause node pi1")
    expect(dialog).to_contain_text("vagus moves nothing of node pi1 by itself, not even off a dead path.")
    dialog.get_by_label("For").select_option("15 minutes")
    dialog.get_by_label("Why").fill("new cabling")
    confirm(dialog, "Pause")
    pauses = page.locator("#pauses li")
    expect(pauses).to_contain_text("Node pi1 is paused. New cabling. By operator; ends in 1")
    lab.cut("overlay", "pi1")
    until(lambda: all(pair(lab, *one)["status"] == "waiting" for one in mine), lambda: f"they wait: {state(lab)}")
    holds(lambda: ends_go(lab, "overlay", mine), 2.0, "a paused pair moved")
    expect(page.locator("#standing")).to_contain_text("Critical")
    expect(page.locator("#past")).to_contain_text("new cabling")
    pauses.get_by_role("button", name="Resume").click()
    confirm(page.get_by_role("dialog", name="Resume"), "Resume")
    until_settled(lab, "backup", mine)
    expect(pauses).to_have_count(0)
    expect(page.locator("#standing")).to_contain_text("traffic to 2 of 2 peers is off its first path")
    asked = [(one["action"], one["subject"]) for one in since.ledger() if one["who"] == "operator"]
    assert asked == [("pause", "node pi1"), ("resume", "node pi1")]


# --- who may come in, and do what ----------------------------------------------------------------------------------


def test_only_the_right_password_opens_the_page_that_was_asked_for(lab: Lab, context: BrowserContext, url: str) -> None:
    page = context.new_page()
    page.goto(f"{url}/pairs/{NAME}")
    expect(page).to_have_url(f"{url}/login?next=%2Fpairs%2F{NAME}")
    sign_in(page, "operator", lab.password + "x")
    expect(page.get_by_role("alert")).to_have_text("There is no such user with this password.")
    assert context.request.get(f"{url}/api/v1/fleet").status == 401
    sign_in(page, "operator", lab.password)
    expect(page).to_have_url(f"{url}/pairs/{NAME}")
    expect(page.locator("#standing")).to_contain_text("Now pi1 sends by overlay, pi2 sends by overlay.")


# As the page's own scripts ask (api.js).
ASK = """async ([path, body]) => {
  const headers = { 'Content-Type': 'application/json', 'X-Vagus-Request': 'page' };
  const answer = await fetch(`/api/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  return [answer.status, (await answer.json()).detail];
}"""
SWITCHOVER = {"pair": NAME, "path": "backup", "reason": "mischief"}
PAUSE = {"scope": "fleet", "target": "", "reason": "mischief", "for_s": 60}


def test_a_viewer_sees_all_and_may_do_nothing(lab: Lab, context: BrowserContext, url: str) -> None:
    since = Since(lab)
    page = context.new_page()
    page.goto(url + "/login")
    sign_in(page, VIEWER, VIEWER_PASSWORD)
    for path, settled in (("/", "#links-pairs"), (f"/pairs/{NAME}", "#paths"), ("/nodes/pi1", "#links")):
        visit(page, url + path)
        expect(page.locator("body")).to_have_attribute("data-role", "viewer")
        expect(page.locator(settled)).to_contain_text("overlay")
        expect(page.locator("main").get_by_role("button", name=re.compile("Switch|Fail|Drill|Pause"))).to_have_count(0)
    visit(page, url + "/failover")
    expect(page.locator("body")).to_have_attribute("data-role", "viewer")
    expect(page.locator("#at-home")).to_have_text("All 3 pairs at home on their first path.")
    expect(page.locator("main").get_by_role("button")).to_have_count(0)
    for path, body in (("switchover", SWITCHOVER), ("pauses", PAUSE)):
        assert page.evaluate(ASK, [path, body]) == [403, f"{VIEWER} is a viewer: this needs an operator"]
    assert not since.moves(PAIR)
    assert lab.api("/api/v1/pauses") == []


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Another site's page; to browsers it is the same site, since ports do not count, and our cookies go along."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


# A form can send any text: here all of a JSON body but an equals sign, which stands in the reason.
FORGE = """([action, body]) => {
  const form = Object.assign(document.createElement('form'), { action, method: 'post', enctype: 'text/plain' });
  const [name, value] = body.split('=');
  form.append(Object.assign(document.createElement('input'), { name, value }));
  document.body.append(form);
  form.submit();
}"""
# As our page's scripts ask: a browser asks us first whether it may, for another origin.
FETCH = """([address, body]) => {
  const headers = { 'Content-Type': 'application/json', 'X-Vagus-Request': 'page' };
  const how = { method: 'POST', credentials: 'include', headers, body };
  return fetch(address, how).then(answer => answer.status, error => error.name);
}"""


def test_another_sites_page_can_do_nothing_with_the_cookie_that_goes_along(
    lab: Lab, page: Page, url: str, elsewhere: str
) -> None:
    since = Since(lab)
    order = json.dumps(SWITCHOVER | {"reason": "a=b"})
    for path, body in (("/api/v1/switchover", order), ("/logout", "a=b")):
        forger = page.context.new_page()
        forger.goto(elsewhere)
        with forger.expect_response(url + path) as forged:
            forger.evaluate(FORGE, [url + path, body])
        assert "vagus_session=" in forged.value.request.all_headers()["cookie"], "no cookie went along: no test"
        assert forged.value.status == 403
    forger = page.context.new_page()
    forger.goto(elsewhere)
    assert forger.evaluate(FETCH, [url + "/api/v1/switchover", order]) == "TypeError"
    assert not since.moves(PAIR)
    assert ends_go(lab, "overlay", [PAIR])
    visit(page, url + "/events")  # nobody was signed out


def test_a_session_that_is_over_is_said_and_who_signs_in_again_is_back_where_he_was(
    lab: Lab, page: Page, url: str
) -> None:
    visit(page, f"{url}/pairs/{NAME}")
    host = lab.the("controller")
    lab.process(host.name, "controller").stop()
    file = host.directory / "controller" / "sessions.json"
    notes = json.loads(file.read_text())
    for session in notes["sessions"].values():
        session["used_at"] -= 2 * 86_400  # one that nobody uses ends after one day
    file.write_text(json.dumps(notes))
    lab.start_controller()
    expect(page).to_have_url(f"{url}/login?next=%2Fpairs%2F{NAME}&over=1")
    expect(page.get_by_role("status")).to_have_text(
        "Your session is over. Sign in again, and you are back where you were."
    )
    sign_in(page, "operator", lab.password)
    expect(page).to_have_url(f"{url}/pairs/{NAME}")
    expect(page.locator("#standing")).to_contain_text("Now pi1 sends by overlay, pi2 sends by overlay.")


# --- for everybody -------------------------------------------------------------------------------------------------


def test_axe_finds_nothing_serious_on_any_page_light_or_dark_desk_or_phone(lab: Lab, page: Page, url: str) -> None:
    lab.cut("overlay", *PAIR)
    until_settled(lab, "backup", [PAIR])
    [*_, incident] = until(lambda: lab.api("/api/v1/incidents"), "an incident")
    pages = {
        "/": "#incidents li",
        "/nodes/pi1": "#charts canvas",
        f"/pairs/{NAME}": "#charts canvas",
        "/incidents": "#open li",
        f"/incidents/{incident['id']}": "#cause li",
        "/failover": "#ledger li",
        "/events": "#events li",
        "/account": "#user-list tbody tr",
    }
    wrong: dict[str, list[str]] = {}

    def look(path: str) -> None:
        for size in (DESK, PHONE):
            page.set_viewport_size(size)
            if page.evaluate("document.documentElement.scrollWidth") > size["width"]:
                wrong[f"{path} {size['width']}"] = ["it scrolls sideways"]
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                if found := serious(page):
                    wrong[f"{path} {size['width']} {scheme}"] = found

    for path, settled in pages.items():
        visit(page, url + path)
        page.locator(settled).first.wait_for()
        look(path)
    page.context.clear_cookies()
    page.goto(url + "/login")
    look("/login")
    assert wrong == {}
