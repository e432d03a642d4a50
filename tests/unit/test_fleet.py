"""What the fleet believes when messages come late, twice, out of order, from strangers and from twins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.fleet_builders import (
    PATHS,
    World,
    event,
    goodbye,
    last_will,
    link,
    links,
    observed,
    presence,
    report,
)
from vagus_controller.core.fleet import Fleet
from vagus_protocol.messages import LinkState, PathOffer, PeerOffer


def kinds(world: World) -> list[str]:
    return [notice.kind for notice in world.notices]


def test_reports_without_presence_are_taken() -> None:
    world = World()
    world.tell(report("tokyo-1", 7, links=(link("austin-1"),)))
    assert list(world.fleet.nodes) == ["tokyo-1"]
    assert world.fleet.pairs() == [("austin-1", "tokyo-1")]
    assert world.fleet.paths_of(("austin-1", "tokyo-1")) == ["overlay"]


def test_proven_age_grows_between_reports() -> None:
    world = World("a", "b")
    world.report("a", links=(link("b", proven_s=0.5),))
    world.pass_time(1.5)
    assert world.fleet.proven_age("a", "b", "overlay", world.now) == pytest.approx(2.0)
    assert world.fleet.proven_age("a", "b", "backup", world.now) is None
    assert world.fleet.proven_age("a", "nobody", "overlay", world.now) is None
    assert world.fleet.proven_age("nobody", "a", "overlay", world.now) is None


def test_a_link_event_overrides_the_report_until_the_next() -> None:
    world = World("a", "b", "c")
    world.report("a")
    world.pass_time(0.5)
    world.tell(event("a", "b", link("b", state="down"), link("b", "backup"), link("c", state="down")))
    seen = world.fleet.link("a", "b", "overlay")
    assert seen is not None
    assert (seen.link.state, seen.at) == (LinkState.DOWN, world.now)
    other = world.fleet.link("a", "c", "overlay")
    assert other is not None
    assert other.link.state is LinkState.UP, "an event speaks of its own peer only"
    world.pass_time(1.0)
    world.report("a")
    seen = world.fleet.link("a", "b", "overlay")
    assert seen is not None
    assert seen.link.state is LinkState.UP


def test_an_event_from_the_backlog_does_not_override_a_newer_report() -> None:
    world = World("a", "b")
    world.report("a", event_seq=1)
    world.pass_time(1.0)
    world.tell(event("a", "b", link("b", state="down"), seq=1, age_s=30.0))
    seen = world.fleet.link("a", "b", "overlay")
    assert seen is not None
    assert seen.link.state is LinkState.UP


def test_an_event_read_together_with_the_report_before_it_counts() -> None:
    world = World("a", "b")
    world.report("a")
    # It waited at its node for a moment, while the report waited for us.
    world.tell(event("a", "b", link("b", state="down"), age_s=0.2))
    seen = world.fleet.link("a", "b", "overlay")
    assert seen is not None
    assert seen.link.state is LinkState.DOWN


def test_a_report_that_was_overtaken_by_an_event_does_not_undo_it() -> None:
    world = World("a", "b")
    world.tell(event("a", "b", link("b", state="down"), seq=5))
    world.report("a", event_seq=4)
    seen = world.fleet.link("a", "b", "overlay")
    assert seen is not None
    assert seen.link.state is LinkState.DOWN


def test_an_event_that_comes_twice_or_after_its_successor_changes_nothing() -> None:
    world = World("a", "b")
    world.report("a")
    world.tell(event("a", "b", link("b", state="down"), seq=5))
    world.tell(event("a", "b", link("b", state="up"), seq=6))
    world.tell(event("a", "b", link("b", state="down"), seq=5))
    seen = world.fleet.link("a", "b", "overlay")
    assert seen is not None
    assert seen.link.state is LinkState.UP


def test_a_report_that_comes_late_never_overrides() -> None:
    world = World("a", "b")
    world.tell(report("a", 5, links=links("b")))
    world.tell(report("a", 4, links=links("b", state="down")))
    world.tell(report("a", 5, links=links("b", state="down")))
    assert world.fleet.nodes["a"].report == report("a", 5, links=links("b"))
    assert world.fleet.nodes["a"].lost_reports == 0


def test_a_sequence_that_starts_again_is_taken_once_the_node_counts_as_silent() -> None:
    world = World("a", "b")
    world.tell(report("a", 2**62))
    world.tell(report("a", 1))
    assert world.fleet.nodes["a"].seq == 2**62
    world.pass_time(11.0)
    world.tell(report("a", 2))
    assert world.fleet.nodes["a"].seq == 2


def test_lost_reports_are_counted_and_told_once_a_minute() -> None:
    world = World("a")
    for seq in (1, 2, 5, 9):
        world.pass_time(2.0)
        world.tell(report("a", seq))
    assert world.fleet.nodes["a"].lost_reports == 5
    assert kinds(world) == ["gap"]


def test_reports_missed_while_we_were_away_are_not_the_nodes_loss() -> None:
    world = World("a")
    world.tell(report("a", 1))
    world.fleet.on_session(False, world.pass_time(1.0), "timeout")
    world.fleet.on_session(True, world.pass_time(20.0), "back")
    world.pass_time(1.0)
    world.tell(report("a", 12))
    assert world.fleet.nodes["a"].lost_reports == 0
    assert kinds(world) == []


def test_restart_and_reboot_are_told_apart() -> None:
    world = World("a", "b")
    world.tell(report("a", 100))
    world.tell(presence("a", "b", session="a-s2"))
    world.tell(report("a", 0, session="a-s2"))
    assert kinds(world) == ["restart"]
    world.tell(report("a", 0, session="a-s3", boot_id="a-b2"))
    assert kinds(world) == ["restart", "reboot"]
    assert world.fleet.nodes["a"].lost_reports == 0


def test_a_restart_with_other_links_is_seen_also_without_a_birth() -> None:
    world = World()
    world.tell(report("a", 3, links=(link("b"),)))
    world.tell(report("a", 0, session="a-s2", links=(link("c"),)))
    assert world.fleet.pairs() == [("a", "c")]


def test_the_last_will_of_a_replaced_session_is_ignored() -> None:
    world = World("a")
    world.report("a")
    world.tell(presence("a", session="a-s2"))
    world.tell(last_will("a", session="a-s1"))
    state = world.fleet.nodes["a"]
    assert state.presence is not None
    assert state.presence.online
    assert not state.lost_connection


def test_the_last_will_of_a_replaced_session_is_ignored_also_when_the_node_is_silent() -> None:
    world = World("a")
    world.report("a")
    world.tell(presence("a", session="a-s2"))
    world.pass_time(30.0)
    world.tell(last_will("a", session="a-s1"))
    assert world.fleet.nodes["a"].session == "a-s2"


def test_an_offline_keeps_what_the_birth_offered() -> None:
    world = World("a", "b")
    world.tell(last_will("a"))
    assert world.fleet.pairs() == [("a", "b")]
    assert world.fleet.nodes["a"].site == "a"
    assert world.fleet.nodes["a"].lost_connection
    world.tell(goodbye("a"))
    assert world.fleet.nodes["a"].said_goodbye
    world.pass_time(1.0)
    world.report("a")
    assert not world.fleet.nodes["a"].said_goodbye


def test_two_machines_of_one_name_are_found_and_the_newer_session_stays() -> None:
    world = World("a")
    for seq in range(1, 8):
        world.pass_time(1.0)
        world.tell(report("a", seq))
        world.tell(report("a", 100 + seq, session="twin", boot_id="other"))
    assert kinds(world).count("duplicate") == 1
    assert world.fleet.nodes["a"].session == "twin"
    assert world.fleet.nodes["a"].seq == 107


def test_the_older_of_two_sessions_is_taken_again_when_the_newer_goes_silent() -> None:
    world = World("a")
    world.tell(report("a", 1))
    world.tell(report("a", 1, session="twin"))
    world.pass_time(4.0)
    world.tell(report("a", 3))
    assert world.fleet.nodes["a"].session == "twin"
    world.pass_time(8.0)
    world.tell(report("a", 7))
    assert world.fleet.nodes["a"].session == "a-s1"
    assert world.fleet.nodes["a"].seq == 7


def test_with_its_session_a_nodes_own_birth_is_believed_again() -> None:
    world = World("a")
    world.tell(presence("a", "b"))
    world.tell(report("a", 1))
    world.tell(presence("a", session="twin"))
    assert world.fleet.nodes["a"].offers("b") is None
    world.tell(presence("a", "b"))  # the agent sees a foreign birth under its name, and announces itself again
    assert world.fleet.nodes["a"].offers("b") is None
    world.pass_time(12.0)
    world.tell(report("a", 7))
    assert world.fleet.nodes["a"].offers("b") == PATHS


def test_a_machine_id_is_followed_also_through_a_birth_that_was_believed_late() -> None:
    world = World("a")
    world.tell(report("a", 1))
    world.tell(presence("a", session="twin", machine="beef"))
    world.tell(presence("a", machine="cafe"))
    world.pass_time(12.0)
    world.tell(report("a", 7))
    held = world.fleet.nodes["a"].presence
    assert held is not None
    assert held.machine == "cafe"
    world.tell(presence("a", session="a-s2", machine="f00d"))
    assert world.fleet.clones.get("a", ()) == ()
    assert world.fleet.nodes["a"].session == "a-s2"


def test_a_stranger_is_refused_once_a_minute_and_leaves_no_trace() -> None:
    world = World(nodes=("a", "b"))
    for _ in range(3):
        world.tell(report("mallory", 1, links=links("a")))
        world.tell(presence("mallory", "a"))
        world.tell(event("mallory", "a", link("a", state="down")))
        world.tell(observed("mallory"))
    assert kinds(world) == ["refused"]
    assert list(world.fleet.nodes) == ["a", "b"]
    assert world.fleet.pairs() == []
    world.pass_time(61.0)
    world.tell(report("mallory", 2))
    assert kinds(world) == ["refused", "refused"]


def test_a_peer_that_the_configuration_does_not_list_makes_no_pair() -> None:
    world = World(nodes=("a", "b"))
    world.tell(presence("a", "b", "mallory"))
    assert world.fleet.pairs() == [("a", "b")]


def test_a_flood_of_strangers_does_not_grow_without_bound() -> None:
    world = World(nodes=("a",))
    for number in range(10_000):
        world.tell(report(f"stranger-{number}", 1))
    assert len(world.notices) <= 4096
    assert len(world.fleet._noted) <= 4096


def test_configured_nodes_are_there_before_they_speak_and_all_is_sorted() -> None:
    world = World(nodes=("c", "a", "b"))
    assert list(world.fleet.nodes) == ["a", "b", "c"]
    assert world.fleet.nodes["a"].first_seen is None
    free = World()
    for name in ("c", "a", "b"):
        free.tell(presence(name, "a", "b", "c"))
    assert list(free.fleet.nodes) == ["a", "b", "c"]
    assert free.fleet.pairs() == [("a", "b"), ("a", "c"), ("b", "c")]


def test_paths_are_those_both_know_in_the_order_of_the_first_end() -> None:
    def offers(peer: str, *paths: str) -> dict[str, object]:
        return {
            "paths": tuple(PathOffer(name=path) for path in paths),
            "peers": (PeerOffer(name=peer, addresses=(), paths=paths),),
        }

    world = World()
    world.tell(presence("b", **offers("a", "lte", "backup", "overlay")))
    assert world.fleet.paths_of(("a", "b")) == ["lte", "backup", "overlay"], "a has not told yet"
    world.tell(presence("a", **offers("b", "overlay", "backup")))
    assert world.fleet.paths_of(("a", "b")) == ["overlay", "backup"]
    world.tell(presence("a", **offers("c", "overlay")))
    assert world.fleet.paths_of(("a", "b")) == [], "a does not name b any more"


def test_a_node_heard_long_after_connecting_is_told_as_new_and_a_retained_one_is_not() -> None:
    world = World("a")
    world.pass_time(60.0)
    world.tell(presence("b"))
    assert kinds(world) == ["joined"]


def test_an_observed_of_an_older_session_does_not_override() -> None:
    world = World("a")
    world.tell(observed("a", generation=3))
    world.tell(presence("a", session="a-s2"))
    world.tell(observed("a", generation=4, session="a-s2"))
    world.tell(observed("a", generation=3))
    kept = world.fleet.nodes["a"].observed
    assert kept is not None
    assert kept.generation == 4


MESSAGES = st.one_of(
    st.builds(
        report,
        st.sampled_from("ab"),
        st.integers(0, 6),
        session=st.sampled_from(("s1", "s2", "s3")),
        boot_id=st.sampled_from(("", "b1", "b2")),
        dropped_events=st.integers(0, 2),
        event_seq=st.integers(0, 4),
        interval_s=st.sampled_from((0.0, 2.0, 1e9)),
        links=st.sampled_from(((), links("a", "b"), (link("c"),), (link("a", "lte"), link("zz")))),
    ),
    st.builds(
        presence,
        st.sampled_from("ab"),
        st.sampled_from("abc"),
        online=st.booleans(),
        session=st.sampled_from(("s1", "s2", "s3")),
    ),
    st.builds(
        event,
        st.sampled_from("ab"),
        st.sampled_from(("", "b", "c")),
        st.just(link("b", state="down")),
        seq=st.integers(0, 4),
        age_s=st.sampled_from((0.0, 3.0, 1e6)),
        session=st.sampled_from(("s1", "s2")),
    ),
    st.builds(observed, st.sampled_from("ab"), session=st.sampled_from(("s1", "s2"))),
)


@given(st.lists(st.tuples(MESSAGES, st.sampled_from((0.0, 0.5, 2.0, 30.0))), max_size=60))
def test_no_sequence_of_messages_breaks_the_fleet(story: list[tuple[object, float]]) -> None:
    world = World()
    for message, pause in story:
        world.pass_time(pause)
        before = {name: (state.session, state.seq, state.report_at) for name, state in world.fleet.nodes.items()}
        world.tell(message)  # type: ignore[arg-type]
        check(world.fleet, world.now)
        for name, (session, seq, at) in before.items():
            state = world.fleet.nodes[name]
            if state.session == session and at is not None and world.now - at <= 1.0 and seq >= 0:
                assert state.seq >= seq, "within a session that is not silent the sequence never goes back"


def check(fleet: Fleet, now: float) -> None:
    assert list(fleet.nodes) == sorted(fleet.nodes)
    assert fleet.pairs() == sorted(set(fleet.pairs()))
    for a, b in fleet.pairs():
        assert a < b
        for path in (*fleet.paths_of((a, b)), *PATHS):
            age = fleet.proven_age(a, b, path, now)
            assert age is None or age >= 0.0
    for state in fleet.nodes.values():
        assert state.lost_reports >= 0
        assert state.report is None or state.report.session == state.session or state.seq < 0
