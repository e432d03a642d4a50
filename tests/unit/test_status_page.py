"""The public status page: what it says, and that nothing leaks which was not chosen."""

from __future__ import annotations

import asyncio
import re

import pytest
from msgspec.structs import replace

from browser import incident_samples, node_samples, samples
from browser.samples import BERLIN, HOSTILE, LISBON, OSAKA, VPS, Severity
from browser.waves import Waves
from vagus_controller.api import status_page
from vagus_controller.api.status_page import Standing, StatusPage, members, render, standing, uptime
from vagus_controller.config import PublicStatus, StatusGroup
from vagus_controller.views import FleetView, VerdictView

PI = StatusGroup(name="Home", nodes=(OSAKA,), sites=("berlin",))
RENTED = StatusGroup(name="Rented", nodes=(VPS,))
CHOSEN = PublicStatus(title="Harbour lights", group=(PI, RENTED), uptime_days=90)


def with_states(**states: str) -> FleetView:
    """The calm fleet, with the liveness of some nodes ("_" for "-") in other states."""
    fleet = samples.calm()

    def seen(name: str) -> VerdictView:
        return samples.verdict("liveness", name, states[name.replace("-", "_")], Severity.WARNING, "so")

    nodes = tuple(
        replace(node, liveness=seen(node.name)) if node.name.replace("-", "_") in states else node
        for node in fleet.nodes
    )
    return replace(fleet, nodes=nodes)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({}, Standing.WELL),
        ({"pi_osaka": "late"}, Standing.WELL),
        ({"pi_osaka": "cut off"}, Standing.WELL),
        ({"pi_osaka": "offline"}, Standing.UNKNOWN),
        ({"pi_osaka": "unknown"}, Standing.UNKNOWN),
        ({"pi_osaka": "node down"}, Standing.PARTLY_OUT),
        ({"pi_osaka": "node down", "pi_berlin": "unknown"}, Standing.PARTLY_OUT),
        ({"pi_osaka": "node down", "pi_berlin": "node down"}, Standing.OUT),
        ({"vps_fra": "node down"}, Standing.WELL),
    ],
)
def test_how_a_group_is(states: dict[str, str], expected: Standing) -> None:
    fleet = with_states(**states)
    assert {node.name for node in members(fleet, PI)} == {BERLIN, OSAKA}
    assert standing(fleet, members(fleet, PI)) is expected


def test_traffic_on_a_dead_path_is_a_disruption_and_moved_traffic_is_none() -> None:
    moved = samples.bad_hour()
    assert standing(moved, members(moved, PI)) is Standing.WELL
    stuck = tuple(
        replace(pair, observed=("overlay", "backup")) if pair.name == f"{LISBON}--{OSAKA}" else pair
        for pair in moved.pairs
    )
    dark = replace(moved, pairs=stuck)
    assert standing(dark, members(dark, PI)) is Standing.DISRUPTED
    assert standing(dark, members(dark, RENTED)) is Standing.WELL


def test_a_controller_in_doubt_claims_nothing() -> None:
    blind = samples.blind()
    assert standing(blind, members(blind, PI)) is Standing.UNKNOWN
    assert "Everything works" not in render(CHOSEN, blind, {}, 0.0)
    assert standing(samples.calm(), ()) is Standing.UNKNOWN


def test_uptime_counts_hours_from_the_first_on_and_leaves_out_those_of_which_nothing_is_known() -> None:
    assert uptime([], set()) is None
    assert uptime([set()], {1, 2}) is None
    assert uptime([{1, 2, 3, 4}], {1, 2, 3, 4}) == 1.0
    assert uptime([{1, 2, 4}], {1, 2, 3, 4}) == 0.75
    assert uptime([{1, 2, 4}], {1, 2, 4}) == 1.0  # nobody was heard in hour 3
    assert uptime([{3, 4}], {1, 2, 3, 4}) == 1.0  # new since hour 3
    assert uptime([{1, 2, 3, 4}, {1, 2}, set()], {1, 2, 3, 4}) == 0.75


def test_it_says_what_was_chosen() -> None:
    text = render(CHOSEN, with_states(pi_osaka="node down"), {"Home": 0.99999, "Rented": None}, 1_700_000_000.0)
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))
    assert "Harbour lights" in words
    assert "Some parts are out" in words
    assert "Home 99.99 % up, 90 days Partly out" in words
    assert "Rented Uptime not known yet Working" in words
    assert "As of 14 November 2023, 22:13 UTC" in words


def secrets(fleet: FleetView) -> set[str]:
    """Every name, address and version of a fleet."""
    found = {fleet.fleet, fleet.controller, fleet.broker, fleet.version, fleet.summary}
    for node in fleet.nodes:
        found |= {node.name, node.site, node.broker, *node.addresses}
        if node.report is not None:
            found |= {service.reason for service in node.report.services}
            found |= {process.name for process in node.report.system.processes} if node.report.system else set()
    for pair in fleet.pairs:
        found |= {pair.name, pair.reason, *(path.path for path in pair.paths)}
        found |= {path.verdict.reason for path in pair.paths}
    for brief in fleet.incidents:
        found |= {brief.title, brief.did}
    for pause in fleet.pauses:
        found |= {pause.reason, pause.who}
    return {word for word in found if word}


@pytest.mark.parametrize(
    "where",
    ["10.70.0.1:2379", "10.70.0.1", "[fd70::1]:2379", "fd70::1", "fd70::1:2379", "192.168.40.0/24", "(10.0.0.1),"],
)
def test_titles_of_incidents_tell_no_address(where: str) -> None:
    title = f"etcd needs attention: the certificate of pi-osaka at {where} expires in 3 days: renew"
    brief = replace(incident_samples.brief(incident_samples.overlay_of_osaka()), title=title)
    text = render(replace(CHOSEN, incidents=True), replace(samples.calm(), incidents=(brief,)), {}, 1_700_000_000.0)
    assert "Etcd needs attention: the certificate of pi-osaka at … expires in 3 days: renew" in text


@pytest.mark.parametrize("groups", [(), (PI, RENTED), (StatusGroup(name="All", sites=("osaka", "lisbon")),)])
def test_nothing_leaks_that_was_not_chosen(groups: tuple[StatusGroup, ...]) -> None:
    brief = incident_samples.brief(incident_samples.overlay_of_osaka())
    fleet = replace(node_samples.talkative(), incidents=(brief,))
    status = PublicStatus(title="Lights", group=groups, uptime_days=30)
    text = render(status, fleet, {group.name: 0.5 for group in groups}, 1_700_000_000.0)
    # What the page consists of anyhow, without a fleet.
    plain = render(replace(status, group=()), samples.blind(), {}, 1_700_000_000.0)
    leaked = {word for word in secrets(fleet) if word in text and word not in plain}
    assert leaked == set()
    assert not re.search(r"\d+\.\d+\.\d+\.\d+|[0-9a-f]*::[0-9a-f]+", text)


def test_titles_of_incidents_are_there_only_when_chosen() -> None:
    brief = incident_samples.brief(incident_samples.overlay_of_osaka())
    fleet = replace(samples.bad_hour(), incidents=(brief,))
    assert brief.title[1:] not in render(CHOSEN, fleet, {}, 0.0)
    assert brief.title[1:] in render(replace(CHOSEN, incidents=True), fleet, {}, 0.0)
    assert brief.did not in render(replace(CHOSEN, incidents=True), fleet, {}, 0.0)
    assert "None." in render(replace(CHOSEN, incidents=True), samples.calm(), {}, 0.0)


def test_hostile_words_are_text() -> None:
    brief = replace(incident_samples.brief(incident_samples.overlay_of_osaka()), title=HOSTILE)
    status = PublicStatus(title=HOSTILE, group=(StatusGroup(name=HOSTILE, nodes=(OSAKA,)),), incidents=True)
    text = render(status, replace(samples.bad_hour(), incidents=(brief,)), {}, 0.0)
    assert "<img" not in text
    assert text.count("&lt;img") == 4


class Counted:
    """An operator who counts how often he is asked."""

    def __init__(self) -> None:
        self.view = samples.calm()
        self.asked = 0

    def fleet(self) -> FleetView:
        self.asked += 1
        return self.view


def test_it_is_made_at_most_every_few_seconds_whatever_the_traffic() -> None:
    operator = Counted()
    made = StatusPage(PublicStatus(title="x"), operator, Waves(operator.fleet))  # type: ignore[arg-type]
    texts = {made.text(100.0 + at / 1000, 0.0) for at in range(1000)}
    assert (len(texts), operator.asked) == (1, 1)
    operator.view = samples.blind()
    assert made.text(100.0 + status_page.FRESH_S - 0.1, 0.0) in texts
    assert made.text(100.0 + status_page.FRESH_S, 0.0) not in texts
    assert operator.asked == 2


def test_uptime_is_counted_beside_and_then_shown() -> None:
    async def story() -> None:
        operator = Counted()
        made = StatusPage(CHOSEN, operator, Waves(lambda: operator.view))  # type: ignore[arg-type]
        assert "Uptime not known yet" in made.text(100.0, 1_700_000_000.0)
        counting = made._counting
        assert counting is not None
        await counting
        # The samples have nothing of anybody in a sixth of the time: hours that do not count.
        assert "100 % up" in made.text(200.0, 1_700_000_100.0)
        assert made._counting is None  # not again so soon
        made.text(100.0 + status_page.UPTIME_FRESH_S, 1_700_000_700.0)
        assert made._counting is not None
        await made._counting

    asyncio.run(story())
