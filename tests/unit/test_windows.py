"""Maintenance windows and the other guards that let nothing move by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from unit.pair_world import BLIND, DEGRADED, DOWN, PAIR, SUSPECT, UP, World
from vagus_controller.config import Quality, Window
from vagus_controller.core.windows import Windows, parse
from vagus_protocol.messages import LinkState, Observed, ObservedState

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SUNDAY = datetime(2026, 11, 22, tzinfo=UTC)


def over(at: str, moment: datetime) -> str:
    return Windows((Window(at=at, reason="works"),)).over("a", "tokyo", moment.timestamp())


@pytest.mark.parametrize(
    ("at", "inside", "outside"),
    [
        ("sun 02:00-04:00", ["sun 02:00", "sun 03:59"], ["sun 01:59", "sun 04:00", "sat 03:00", "mon 03:00"]),
        ("mon-fri 22:00-06:00", ["mon 22:00", "sat 05:59", "fri 23:00"], ["mon 05:59", "sat 06:00", "sun 23:00"]),
        ("sun 23:00-01:00", ["sun 23:30", "mon 00:30"], ["sun 00:30", "mon 23:30", "mon 01:00"]),
        ("sat,sun 00:00-24:00", ["sat 00:00", "sun 23:59"], ["fri 23:59", "mon 00:00"]),
        ("* 03:00-03:30", ["wed 03:29", "sun 03:00"], ["wed 03:30"]),
        ("fri-mon 12:00-13:00", ["fri 12:00", "sun 12:00", "mon 12:00"], ["tue 12:00", "thu 12:00"]),
        (" Sun  02:00-04:00 ", ["sun 02:00"], ["mon 02:00"]),
    ],
)
def test_a_window_covers_its_times(at: str, inside: list[str], outside: list[str]) -> None:
    for moments, covered in ((inside, True), (outside, False)):
        for moment in moments:
            day, clock = moment.split()
            hours, minutes = map(int, clock.split(":"))
            when = SUNDAY + timedelta(days=(DAYS.index(day) + 1) % 7, hours=hours, minutes=minutes)
            assert bool(over(at, when)) == covered, (at, moment)


@given(
    st.sets(st.sampled_from(DAYS), min_size=1),
    st.integers(0, 1439),
    st.integers(0, 1440),
    st.integers(0, 60 * 24 * 365),
)
def test_a_window_is_open_from_its_beginning_for_its_length(days: set[str], first: int, last: int, minute: int) -> None:
    if first == last:
        return
    at = f"{','.join(days)} {first // 60:02}:{first % 60:02}-{last // 60:02}:{last % 60:02}"
    moment = SUNDAY + timedelta(minutes=minute)
    length = last - first if last > first else last - first + 1440
    begun = [moment - timedelta(minutes=back) for back in range(length)]
    expected = any(DAYS[begin.weekday()] in days and begin.hour * 60 + begin.minute == first for begin in begun)
    assert bool(over(at, moment)) == expected


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("", "days and hours such as"),
        ("sunday 02:00-04:00", "'sunday' names no days"),
        ("mon-xyz 02:00-04:00", "names no days"),
        ("sun 2:00-4:00", "days and hours such as"),
        ("sun 02:00-25:00", "00:00 to 24:00"),
        ("sun 02:60-04:00", "00:00 to 24:00"),
        ("sun 24:00-04:00", "00:00 to 24:00"),
        ("sun 02:00-02:00", "same minute"),
        ("0 2 * * 0", "days and hours such as"),
    ],
)
def test_what_is_no_window_is_told(at: str, told: str) -> None:
    mistake = parse(at)
    assert isinstance(mistake, str)
    assert told in mistake


def test_a_window_covers_its_node_or_site_and_says_which_and_why() -> None:
    windows = Windows(
        (
            Window(at="* 00:00-24:00", scope="site", target="tokyo", reason="new router"),
            Window(at="* 00:00-24:00", scope="node", target="b", reason="new disk"),
        )
    )
    wall = SUNDAY.timestamp()
    assert windows.over("a", "tokyo", wall) == "maintenance of site tokyo, * 00:00-24:00 UTC: new router"
    assert windows.over("b", "austin", wall) == "maintenance of node b, * 00:00-24:00 UTC: new disk"
    assert windows.over("c", "austin", wall) == ""


def test_a_clock_that_was_never_set_opens_no_window() -> None:
    always = Windows((Window(at="* 00:00-24:00", reason="works"),))
    assert always.over("a", "", SUNDAY.timestamp())
    assert always.over("a", "", None) == ""
    assert always.over("a", "", 0.0) == ""
    assert always.over("a", "", 1000.0) == ""


def test_nothing_moves_in_a_window_and_it_moves_when_it_is_over() -> None:
    world = World(windows=(Window(at="sun 02:00-04:00", scope="site", target="site-b", reason="new router"),))
    world.both(DOWN)
    world.wall = (SUNDAY + timedelta(hours=3)).timestamp()
    (hold,) = world.wishes()
    assert hold.kind == "hold"
    assert "maintenance of site site-b, sun 02:00-04:00 UTC: new router" in hold.reason
    world.wall += 3600
    assert world.kinds() == ["failover"]


@pytest.mark.parametrize("node", PAIR)
def test_a_node_that_opted_out_is_left_alone_and_the_reason_says_so(node: str) -> None:
    world = World()
    world.present(node, automatic=False)
    world.both(DOWN)
    (hold,) = world.wishes()
    assert hold.kind == "hold"
    assert f"{node}'s own configuration forbids automatic moves" in hold.reason
    assert world.failover.forbidden(world.fleet, world.situation, PAIR, world.now)


@pytest.mark.parametrize("alone", PAIR)
@pytest.mark.parametrize("node", PAIR)
def test_what_an_agent_did_alone_is_taken_over_and_brought_home_also_of_a_node_that_opted_out(
    node: str, alone: str
) -> None:
    world = World(failback_hold_s=60.0)
    world.present(node, automatic=False)
    world.both(DOWN)
    assert [wish.kind for wish in world.wishes()] == ["hold"]
    peer = "b" if alone == "a" else "a"
    by_itself = Observed(
        v=1,
        node=alone,
        session="s",
        epoch=1,
        generation=1,
        state=ObservedState.APPLIED,
        paths={peer: "backup"},
        reflex={peer: "backup"},
    )
    world.fleet.on_observed(by_itself, world.now)
    assert [(each.kind, each.path) for each in world.decide()] == [("adopt", "backup")]
    world.fleet.on_observed(replace(by_itself, generation=2, reflex={}), world.now)
    told: list[str] = []
    for _ in range(40):
        world.now += 2.0
        world.both()
        told += [each.kind for each in world.decide()]
    assert told == ["failback"]
    # From here on the node is left alone again.
    world.both(DOWN)
    (hold,) = world.wishes()
    assert f"{node}'s own configuration forbids automatic moves" in hold.reason


STATES = st.sampled_from([UP, DOWN, DEGRADED, SUSPECT, LinkState.UNKNOWN])


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), STATES, STATES, st.sampled_from([None, UP, DOWN]), st.integers(0, 60)),
        max_size=30,
    ),
    st.sampled_from(["paused", "blind", "in a window", "opted out"]),
    st.booleans(),
    st.booleans(),
)
def test_nothing_moves_while_it_is_forbidden(
    story: list[tuple[str, LinkState, LinkState, LinkState | None, int]], why: str, quorum_lost: bool, reflex: bool
) -> None:
    quality = Quality(mode="auto", members="auto", for_s=5.0)
    world = World(
        failback_hold_s=0.0, quality=quality, windows=(Window(at="sun 00:00-24:00", reason="works"),), max_moves=100_000
    )
    if why == "paused":
        world.paused = "works"
    elif why == "blind":
        world.controller = BLIND
    elif why == "in a window":
        world.wall = SUNDAY.timestamp() + 3600
    else:
        world.present("b", automatic=False)
    if quorum_lost:
        world.quorum_lost_since = world.now
    if reflex:
        alone = Observed(
            v=1,
            node="a",
            session="s",
            epoch=1,
            generation=1,
            state=ObservedState.APPLIED,
            paths={"b": "backup"},
            reflex={"b": "backup"},
        )
        world.fleet.on_observed(alone, world.now)
    for node, overlay, backup, heard, wait in story:
        world.now += wait
        world.say(node, overlay, backup, peer_overlay=heard)
        moves = {decision.kind for decision in world.wishes() if decision.moves}
        assert moves <= ({"adopt", "revert"} if why == "opted out" and reflex else set())
