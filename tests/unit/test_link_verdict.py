"""One path between two nodes, judged from both ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.fleet_builders import World, event, goodbye, link, presence
from vagus_controller.core.detect.link import Links, proven
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import Severity
from vagus_protocol.messages import Link, LinkState, PathOffer, Relay

A, B = "austin-1", "tokyo-1"
PAIR = (A, B)


class Watch(World):
    def __init__(self) -> None:
        super().__init__(A, B)
        self.links = Links(self.config)
        self.events = 0

    def both(self, at_a: Link | None, at_b: Link | None) -> None:
        """Both ends report, each its view of the other."""
        for name, told in ((A, at_a), (B, at_b)):
            if told is not None:
                self.report(name, links=(told,))

    def event(self, node: str, *told: Link) -> None:
        self.events += 1
        self.tell(event(node, B if node == A else A, *told, seq=self.events))

    def verdict(self, path: str = "overlay") -> Verdict:
        return self.links.evaluate(self.fleet, self.now, PAIR)[PAIR, path]

    def proven(self, path: str = "overlay") -> tuple[bool, str]:
        return proven(self.fleet, PAIR, path, self.now, 5.0)


def view(peer: str, state: str, **changes: Any) -> Link:
    return link(peer, "overlay", state, **changes)


@pytest.mark.parametrize(
    ("at_a", "at_b", "state"),
    [
        ("up", "up", "up"),
        ("up", "degraded", "degraded"),
        ("degraded", "degraded", "degraded"),
        ("down", "down", "down"),
        ("down", "unknown", "down"),
        ("down", None, "down"),
        ("up", "unknown", "unproven"),
        ("unknown", "unknown", "unproven"),
        ("unknown", None, "unproven"),
        ("up", None, "up"),
        ("suspect", "up", "up"),
        ("suspect", "suspect", "up"),
        (None, None, "unknown"),
    ],
)
def test_table_of_both_ends(at_a: str | None, at_b: str | None, state: str) -> None:
    for first, second in ((at_a, at_b), (at_b, at_a)):
        world = Watch()
        world.both(view(B, first, since_s=60.0) if first else None, view(A, second, since_s=60.0) if second else None)
        verdict = world.verdict()
        assert verdict.state == state
        assert verdict.subject == "austin-1--tokyo-1/overlay"
        assert verdict.reason


def test_down_words_name_both_ends() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "up"))
    assert world.verdict().severity is Severity.OK
    world.pass_time(0.5)
    world.event(B, view(A, "down", reason="5 of 5 burst probes lost", since_s=0.1))
    world.event(A, view(B, "down", reason="5 of 5 burst probes lost", since_s=0.05))
    world.pass_time(0.2)
    verdict = world.verdict()
    assert verdict.state == "down"
    assert verdict.reason == "tokyo-1 sees it down for 0.3 s: 5 of 5 burst probes lost; austin-1 agrees"
    assert len(verdict.evidence) == 2


def test_the_first_word_waits_for_the_second() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "up"))
    up = world.verdict()
    world.pass_time(0.5)
    world.event(B, view(A, "down"))
    waiting = world.verdict()
    assert (waiting.state, waiting.since) == ("up", up.since)
    assert "waiting for austin-1" in waiting.reason
    world.pass_time(0.05)
    world.event(A, view(B, "down"))
    assert world.verdict().state == "down"


def test_the_other_ends_word_by_way_of_the_probes_is_enough() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "up"))
    world.verdict()
    world.pass_time(0.5)
    world.event(B, view(A, "down", peer_state=LinkState.DOWN))
    verdict = world.verdict()
    assert verdict.state == "down"
    assert "austin-1 agrees, as tokyo-1 hears" in verdict.reason


def test_no_word_from_the_other_end_in_time_is_down() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "up"))
    world.verdict()
    world.pass_time(0.5)
    world.event(B, view(A, "down"))
    assert world.verdict().state == "up"
    world.pass_time(1.1)
    assert world.verdict().state == "down"
    assert "no word from austin-1" in world.verdict().reason


def test_an_end_that_only_suspects_does_not_make_it_one_way() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "up"))
    world.verdict()
    world.event(B, view(A, "down"))
    world.verdict()
    world.pass_time(2.0)
    world.event(A, view(B, "suspect"))
    assert world.verdict().state == "down"


def test_an_end_that_goes_on_saying_up_makes_it_one_way() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "up"))
    world.verdict()
    world.event(B, view(A, "down"))
    world.verdict()
    world.pass_time(2.0)
    world.both(view(B, "up"), view(A, "down", since_s=2.0))
    verdict = world.verdict()
    assert verdict.state == "one-way"
    assert "tokyo-1's probes or their replies get lost" in verdict.reason
    world.pass_time(2.0)
    world.both(view(B, "up"), view(A, "down", since_s=4.0))
    assert world.verdict().since == verdict.since


def test_healing_goes_from_down_to_up_without_one_way() -> None:
    world = Watch()
    world.both(view(B, "down", since_s=60.0), view(A, "down", since_s=60.0))
    assert world.verdict().state == "down"
    world.event(A, view(B, "up"))
    assert world.verdict().state == "down"
    world.pass_time(0.3)
    world.event(B, view(A, "up"))
    assert world.verdict().state == "up"


def test_suspect_is_no_change() -> None:
    world = Watch()
    world.both(view(B, "degraded"), view(A, "up"))
    before = world.verdict()
    world.event(A, view(B, "suspect"))
    assert (world.verdict().state, world.verdict().since) == ("degraded", before.since)
    world.both(view(B, "down", since_s=9.0), view(A, "down", since_s=9.0))
    assert world.verdict().state == "down"


@pytest.mark.parametrize(
    ("relay", "words"),
    [
        (Relay.DERP, "a DERP relay"),
        (Relay.PEER_RELAY, "a peer relay"),
        (Relay.RIDING_BACKUP, "riding the backup"),
    ],
)
def test_relayed_by_either_end(relay: Relay, words: str) -> None:
    world = Watch()
    world.both(view(B, "up", relay=Relay.DIRECT), view(A, "degraded", relay=relay, reason="8% lost"))
    verdict = world.verdict()
    assert verdict.state == ("riding-backup" if relay is Relay.RIDING_BACKUP else "relayed")
    assert words in verdict.reason
    assert "degraded: 8% lost" in verdict.reason


def test_idle_says_nothing_about_the_path() -> None:
    world = Watch()
    world.both(view(B, "up", relay=Relay.IDLE), view(A, "up", relay=Relay.DIRECT))
    assert world.verdict().state == "up"


def test_a_relay_does_not_hide_that_it_is_down() -> None:
    world = Watch()
    world.both(view(B, "down", relay=Relay.DERP, since_s=5.0), view(A, "down", relay=Relay.DERP, since_s=5.0))
    assert world.verdict().state == "down"


def test_a_silent_ends_old_word_is_not_believed() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "up"))
    world.pass_time(8.0)
    world.both(view(B, "down", since_s=5.0), None)
    world.verdict()
    world.pass_time(3.0)
    world.both(view(B, "down", since_s=8.0), None)
    verdict = world.verdict()
    assert verdict.state == "down"
    assert "tokyo-1 is silent" in verdict.reason
    world.pass_time(60.0)
    assert world.verdict().state == "unknown"


def test_all_pairs_at_once_and_what_is_gone_is_forgotten() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "up"))
    every = world.links.evaluate(world.fleet, world.now)
    assert list(every) == [(PAIR, "overlay"), (PAIR, "backup")]
    assert every[PAIR, "backup"].state == "unknown"
    again = world.links.evaluate(world.fleet, world.pass_time(0.5))
    assert all(again[key] is every[key] for key in every), "what did not change is not built again"
    for name, session in ((A, "2"), (B, "2")):
        world.tell(presence(name, session=session))
    assert world.links.evaluate(world.fleet, world.now) == {}
    assert world.links._memory == {}


# --- the standby -----------------------------------------------------------------------------------------------------


def test_proven_from_both_ends() -> None:
    world = Watch()
    world.both(view(B, "up", proven_s=0.2), view(A, "degraded", proven_s=0.2))
    assert world.proven() == (True, "")
    world.pass_time(4.7)
    assert world.proven() == (True, "")
    world.pass_time(0.2)
    good, why = world.proven()
    assert not good
    assert "austin-1 had its last reply over overlay 5.1 s ago" in why
    assert "tokyo-1" in why


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (view(A, "down", reason="burst lost"), "tokyo-1 sees overlay down (burst lost)"),
        (view(A, "suspect", proven_s=0.2), "tokyo-1 sees overlay suspect"),
        (view(A, "unknown"), "tokyo-1 never had a reply from austin-1 over overlay"),
        (view(A, "up", proven_s=None), "tokyo-1 never had a reply from austin-1 over overlay"),
        (view(A, "up", proven_s=7.0), "tokyo-1 had its last reply over overlay 7.0 s ago, wanted within 5.0 s"),
        (None, "tokyo-1 has not told of austin-1 over overlay"),
    ],
)
def test_why_not_names_the_end_and_what_is_missing(told: Link | None, why: str) -> None:
    world = Watch()
    world.both(view(B, "up"), told)
    assert world.proven() == (False, why)


def test_a_node_that_said_goodbye_or_was_never_heard_proves_nothing() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "up"))
    world.tell(goodbye(B))
    assert world.proven() == (False, "tokyo-1 is offline")
    stranger = proven(world.fleet, (A, "zurich-1"), "overlay", world.now, 5.0)
    assert not stranger[0]
    assert "zurich-1 was never heard" in stranger[1]


def test_a_metered_path_is_proven_by_an_older_reply() -> None:
    world = Watch()
    slow = (PathOffer(name="overlay", metered=True, idle_interval_s=5.0),)
    for name in (A, B):
        world.tell(presence(name, *world.peers(name), paths=slow))
    world.both(view(B, "up", proven_s=9.0), view(A, "up", proven_s=9.0))
    assert world.proven()[0]
    world.pass_time(4.0)
    assert not world.proven()[0]


# --- what an end knows to be in the way ------------------------------------------------------------------------------


DROP = "Tailscale's firewall drops 100.64.0.2; set node attribute disable-linux-cgnat-drop-rule"


def test_a_standby_that_never_had_a_reply_is_not_proven_because_of_what_an_end_knows() -> None:
    world = Watch()
    world.both(view(B, "unknown", obstacle=DROP), view(A, "unknown"))
    good, why = world.proven()
    assert not good
    assert why.startswith(f"austin-1: {DROP} (")
    assert "tokyo-1 never had a reply" in why
    verdict = world.verdict()
    assert (verdict.state, verdict.severity) == ("unproven", Severity.WARNING)
    assert verdict.reason.endswith(f"never had a reply over it, because austin-1: {DROP}")


def test_a_path_that_died_of_it_says_so_too_and_both_ends_may_know_something() -> None:
    world = Watch()
    strict = "strict rp_filter drops 10.118.0.1; sysctl -w net.ipv4.conf.wg0.rp_filter=2"
    world.both(view(B, "down", since_s=9.0, obstacle=DROP), view(A, "down", since_s=9.0, obstacle=strict))
    assert world.verdict().state == "down"
    assert world.verdict().reason.endswith(f", because austin-1: {DROP}; tokyo-1: {strict}")
    assert world.proven()[1].startswith(f"austin-1: {DROP}; tokyo-1: {strict} (")


def test_packets_decide_and_an_obstacle_that_they_do_not_meet_is_a_warning_before_the_day() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "up"))
    well = world.verdict()
    assert (well.severity, world.links.hindered()) == (Severity.OK, [])
    six = "fd76::2/128 of tokyo-1 is in no WireGuard peer's AllowedIPs on wg0; wg set wg0 peer KEY allowed-ips …"
    world.both(view(B, "up", obstacle=six), view(A, "up"))
    assert world.proven() == (True, "")
    verdict = world.verdict()
    assert (verdict.state, verdict.severity, verdict.since) == ("up", Severity.WARNING, well.since)
    assert verdict.reason == f"both ends see it up, but austin-1: {six}"
    assert world.links.hindered() == [PAIR]
    world.both(view(B, "up"), view(A, "up"))
    assert (world.verdict().severity, world.verdict().reason) == (Severity.OK, well.reason)
    assert world.links.hindered() == []


def test_an_obstacle_that_appears_or_goes_is_news_in_the_next_tick() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "up"))
    world.links.evaluate(world.fleet, world.now)
    for told in (DROP, ""):
        world.pass_time(2.0)
        world.both(view(B, "up", obstacle=told), view(A, "up"))
        world.links.evaluate(world.fleet, world.now)
        assert (DROP in world.links.verdicts[PAIR, "overlay"].reason) == bool(told)


def test_a_silent_ends_old_obstacle_is_not_told() -> None:
    world = Watch()
    world.both(view(B, "up", obstacle=DROP), view(A, "up"))
    world.verdict()
    world.pass_time(60.0)
    world.both(None, view(A, "up"))
    assert DROP not in world.proven()[1]
    assert DROP not in world.verdict().reason


def test_unproven_pairs_are_known_until_they_are_proven_or_gone() -> None:
    world = Watch()
    world.both(view(B, "up"), view(A, "unknown"))
    world.verdict()
    assert world.links.hindered() == [PAIR]
    for name in (A, B):
        world.tell(presence(name, session="2"))
    world.links.evaluate(world.fleet, world.now)
    assert world.links.hindered() == []


STATES = st.sampled_from(list(LinkState))


@given(
    st.lists(
        st.tuples(
            st.sampled_from((A, B)),
            STATES,
            st.booleans(),
            st.sampled_from((0.0, 0.05, 0.7, 2.0, 12.0)),
            st.sampled_from((None, *Relay)),
            st.sampled_from((None, *LinkState)),
        ),
        max_size=40,
    )
)
def test_no_story_of_two_ends_contradicts_the_rules(story: list[Any]) -> None:
    world = Watch()
    before: Verdict | None = None
    for node, state, as_event, pause, relay, peer_state in story:
        world.pass_time(pause)
        told = view(B if node == A else A, state.value, relay=relay, peer_state=peer_state)
        if as_event:
            world.event(node, told)
        else:
            world.report(node, links=(told,))
        verdict = world.verdict()
        ends = [world.fleet.believed(*end, "overlay", world.now) for end in (PAIR, PAIR[::-1])]
        states = [end.link.state if end is not None else None for end in ends]
        if states == [LinkState.DOWN] * 2:
            assert verdict.state == "down"
        if verdict.state in ("down", "one-way") and verdict is not before:
            assert LinkState.DOWN in states or LinkState.SUSPECT in states
        if states == [LinkState.UP] * 2:
            assert verdict.state in ("up", "relayed", "riding-backup")
        if world.proven()[0]:
            assert all(each in (LinkState.UP, LinkState.DEGRADED) for each in states)
        assert world.proven()[0] == (world.proven()[1] == "")
        if before is not None and before.state == verdict.state:
            assert verdict.since == before.since
        before = verdict
