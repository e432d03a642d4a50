"""Failover policy and leadership, in virtual time, on a fleet that says what the test wants."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.pair_world import BLIND, DEGRADED, DOWN, PAIR, SUSPECT, UP, World
from vagus_controller.core.failover import Decision, Intent
from vagus_controller.core.leadership import TAKEOVER_S, Leadership
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import Severity
from vagus_protocol.messages import ControllerPresence, LinkState, Observed, ObservedState


def test_overlay_down_at_both_ends_and_backup_proven_moves() -> None:
    world = World()
    world.both(DOWN)
    (decision,) = world.decide()
    assert (decision.kind, decision.path, decision.origin) == ("failover", "backup", "auto")
    assert "down at both ends" in decision.reason
    assert any("said so" in line for line in decision.evidence)
    assert world.path == "backup"
    assert world.decide() == []


def test_one_end_alone_is_not_enough() -> None:
    world = World()
    world.say("a", DOWN, peer_overlay=UP)
    world.say("b", UP)
    assert world.decide() == []
    assert world.path == "overlay"


def test_one_end_that_hears_the_other_agree_is_enough() -> None:
    world = World()
    world.say("b", UP)
    world.say("a", DOWN, peer_overlay=DOWN)
    assert world.kinds() == ["failover"]


def test_an_end_that_cannot_reach_us_is_spoken_for_by_its_peer() -> None:
    world = World()
    world.both()
    world.now += 60
    world.say("a", DOWN, peer_overlay=DOWN)
    assert world.kinds() == ["failover"]


@pytest.mark.parametrize("backup", [DOWN, SUSPECT, LinkState.UNKNOWN])
def test_an_unproven_backup_holds_and_says_why(backup: LinkState) -> None:
    world = World()
    world.both(DOWN, backup)
    (decision,) = world.decide()
    assert decision.kind == "hold"
    assert "backup is not proven" in decision.reason
    assert world.path == "overlay"
    world.now += 0.5
    assert world.decide() == []  # told once
    assert world.failover.waiting(PAIR) is not None
    world.both(DOWN, UP)
    assert world.kinds() == ["failover"]


def test_an_old_proof_is_none() -> None:
    world = World()
    world.say("a", DOWN, proven_s=30)
    world.say("b", DOWN)
    assert world.kinds() == ["hold"]


@pytest.mark.parametrize(("field", "value", "word"), [("controller", BLIND, "doubt"), ("paused", "works", "paused")])
def test_doubt_and_pause_hold(field: str, value: object, word: str) -> None:
    world = World()
    setattr(world, field, value)
    world.both(DOWN)
    (decision,) = world.decide()
    assert decision.kind == "hold"
    assert word in decision.reason
    assert world.path == "overlay"


def test_recommend_only_says() -> None:
    world = World(mode="recommend")
    world.both(DOWN)
    assert world.kinds() == ["recommend"]
    assert world.path == "overlay"


def test_the_limit_of_moves_holds() -> None:
    world = World(max_moves=1, failback_hold_s=10.0)
    world.both(DOWN)
    assert world.kinds() == ["failover"]
    world.both(UP, DOWN)
    (decision,) = world.decide()
    assert decision.kind == "hold"
    assert "limit" in decision.reason


def test_failback_after_an_unbroken_hold() -> None:
    world = World(failback_hold_s=10.0)
    world.both(DOWN)
    world.decide()
    world.both(UP)
    assert world.decide() == []
    world.now += 8
    world.both(DOWN)
    assert world.decide() == []
    for _ in range(5):
        world.now += 2
        world.both(UP)
        assert world.decide() == []
    world.now += 2
    world.both(UP)
    world.now += 0.1
    (decision,) = world.decide()
    assert (decision.kind, decision.path, decision.origin) == ("failback", "overlay", "default")


def test_a_person_s_switchover_stays_until_its_path_dies() -> None:
    world = World(failback_hold_s=5.0)
    world.both()
    world.failover.record(
        Decision(kind="switchover", pair=PAIR, path="backup", origin="operator", reason="works"), world.now
    )
    for _ in range(20):
        world.now += 2
        world.both()
        assert world.decide() == []
    world.both(UP, DOWN)
    assert [(d.kind, d.path) for d in world.decide()] == [("failback", "overlay")]


def test_a_reflex_is_adopted_or_sent_back() -> None:
    for adopt, kind, path in ((True, "adopt", "backup"), (False, "revert", "overlay")):
        world = World(adopt_reflex=adopt)
        world.both()
        world.fleet.on_observed(
            Observed(
                v=1,
                node="a",
                session="s",
                epoch=1,
                generation=1,
                state=ObservedState.APPLIED,
                paths={"b": "backup"},
                reflex={"b": "backup"},
            ),
            world.now,
        )
        (decision,) = world.decide()
        assert (decision.kind, decision.path) == (kind, path)


def test_quorum_lost_moves_impaired_members_after_a_while() -> None:
    world = World(quorum_lost_for_s=3.0)
    world.both(DEGRADED)
    world.links[PAIR, "overlay"] = Verdict("link", "a--b/overlay", "degraded", Severity.WARNING, "loss 20 %", (), 0.0)
    assert world.decide() == []
    world.quorum_lost_since = world.now - 1
    assert world.decide() == []
    world.now += 3
    world.both(DEGRADED)
    (decision,) = world.decide()
    assert decision.kind == "failover"
    assert "no quorum" in decision.reason


def _judged(world: World, path: str, state: str) -> None:
    verdict = Verdict("link", f"a--b/{path}", state, Severity.WARNING, "as a test says", (), 0.0)
    world.links[PAIR, path] = verdict


@pytest.mark.parametrize("backup", ["degraded", "one-way"])
def test_quorum_lost_moves_nobody_to_a_path_that_is_no_better(backup: str) -> None:
    world = World(quorum_lost_for_s=0.0)
    world.quorum_lost_since = world.now - 10
    _judged(world, "overlay", "degraded")
    _judged(world, "backup", backup)
    world.both(DEGRADED)
    (hold,) = world.wishes()
    assert hold.kind == "hold"
    assert "no other path is better" in hold.reason
    _judged(world, "backup", "relayed")
    assert world.kinds() == ["failover"]
    world.now += 1
    world.both(DEGRADED)
    world.decide()
    assert world.path == "backup"


@pytest.mark.parametrize(("overlay", "urgent"), [("degraded", False), ("one-way", True)])
def test_a_path_that_goes_one_way_only_is_left_in_haste_when_quorum_is_lost(overlay: str, urgent: bool) -> None:
    world = World(quorum_lost_for_s=0.0)
    world.quorum_lost_since = world.now - 10
    _judged(world, "overlay", overlay)
    world.both(DEGRADED)
    (decision,) = world.wishes()
    assert (decision.kind, decision.urgent) == ("failover", urgent)


STATES = st.sampled_from([UP, DOWN, DEGRADED, SUSPECT, LinkState.UNKNOWN])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), STATES, STATES, st.sampled_from([None, UP, DOWN]), st.floats(0, 20)),
        max_size=30,
    ),
    st.sampled_from(["", "paused by a test"]),
)
def test_never_to_an_unproven_path_and_never_while_paused(
    words: list[tuple[str, LinkState, LinkState, LinkState | None, float]], paused: str
) -> None:
    world = World(failback_hold_s=10.0)
    world.paused = paused
    last: dict[str, tuple[LinkState, LinkState]] = {}
    for node, overlay, backup, heard, wait in words:
        world.now += wait
        world.say(node, overlay, backup, peer_overlay=heard)
        last[node] = (overlay, backup)
        for decision in world.decide():
            if decision.moves:
                assert not paused
                index = 0 if decision.path == "overlay" else 1
                assert last[node][index] in (UP, DEGRADED)


# --- leadership --------------------------------------------------------------------------------------------------


def presence(controller: str, session: str, epoch: int, *, online: bool = True) -> ControllerPresence:
    return ControllerPresence(v=1, controller=controller, session=session, online=online, leader=online, epoch=epoch)


def test_the_first_controller_leads_at_once_under_a_new_epoch() -> None:
    leadership = Leadership("c", "s1")
    leadership.saw_epoch(7)
    change = leadership.tick(0.0, True)
    assert change is not None
    assert (change.leads, change.epoch) == (True, 8)
    assert leadership.tick(1.0, True) is None


def test_a_second_controller_stands_by_and_takes_over_when_the_first_is_gone() -> None:
    leadership = Leadership("d", "s2")
    assert leadership.saw_presence(presence("c", "s1", 8)) is None
    for second in range(100):
        assert leadership.tick(float(second), True) is None
    leadership.saw_presence(presence("c", "s1", 8, online=False))
    assert leadership.tick(100.0, True) is None
    change = leadership.tick(100.0 + TAKEOVER_S, True)
    assert change is not None
    assert change.epoch == 9


def test_an_old_leader_that_wakes_stands_by() -> None:
    leadership = Leadership("c", "s1")
    leadership.tick(0.0, True)
    change = leadership.saw_presence(presence("d", "s2", 2))
    assert change is not None
    assert not change.leads
    assert leadership.tick(50.0, True) is None


def test_twins_on_one_epoch_part() -> None:
    one, two = Leadership("c", "s1"), Leadership("c", "s2")
    one.tick(0.0, True)
    two.tick(0.0, True)
    assert one.saw_presence(presence("c", "s2", two.epoch)) is not None
    change = two.saw_presence(presence("c", "s1", one.epoch))
    assert change is not None
    assert change.epoch > one.epoch, "what the other told under the same epoch must not stand"
    assert (one.leads, two.leads) == (False, True)


def test_a_leader_that_only_the_broker_remembers_is_waited_for_and_then_followed() -> None:
    leadership = Leadership("d", "s2")
    leadership.saw_presence(presence("c", "s1", 8), fresh=False)
    assert leadership.tick(0.0, True) is None
    leadership.saw_presence(presence("c", "s1", 8))
    assert leadership.tick(100.0, True) is None, "it answered"
    leadership.new_session()
    assert leadership.tick(200.0, True) is None
    change = leadership.tick(200.0 + 2 * TAKEOVER_S, True)
    assert change is not None
    assert change.epoch > 8
    assert "does not answer" in change.reason


def test_of_two_that_wait_one_leads_first() -> None:
    one, two = Leadership("c", "s1"), Leadership("d", "s2")
    one.saw_presence(ControllerPresence(v=1, controller="d", session="s2", online=True))
    two.saw_presence(ControllerPresence(v=1, controller="c", session="s1", online=True))
    for second in range(int(TAKEOVER_S)):
        assert one.tick(float(second), True) is two.tick(float(second), True) is None
    assert two.tick(TAKEOVER_S, True) is not None
    assert one.tick(TAKEOVER_S, True) is None
    assert one.tick(2 * TAKEOVER_S, True) is not None, "the other may be hanging"


def test_a_leader_that_lost_its_disk_catches_up_with_the_agents() -> None:
    leadership = Leadership("c", "s1")
    leadership.tick(0.0, True)
    change = leadership.was_refused(1, 41)
    assert change is not None
    assert (change.leads, change.epoch) == (True, 42)
    assert leadership.was_refused(1, 41) is None  # about an epoch that is over


def test_intents_default_to_the_first_path() -> None:
    world = World()
    world.both()
    assert world.failover.intent(world.fleet, PAIR) == Intent(path="overlay")


def _uses(world: World, node: str, path: str, *, alone: bool = False) -> None:
    peer = "b" if node == "a" else "a"
    observed = Observed(
        v=1,
        node=node,
        session="s",
        epoch=1,
        generation=1,
        state=ObservedState.APPLIED,
        paths={peer: path},
        reflex={peer: path} if alone else {},
    )
    world.fleet.on_observed(observed, world.now)


def test_what_stands_is_followed_and_told_once_by_the_one_that_takes_the_lead() -> None:
    world = World()
    _uses(world, "a", "backup", alone=True)
    _uses(world, "b", "backup")
    for _ in range(3):
        world.failover.follow(world.fleet, world.now)
    (found,) = world.failover.take_found()
    assert (found.kind, found.pair, found.path, found.origin) == ("adopt", PAIR, "backup", "reflex")
    assert "by itself: taken over" in found.reason
    assert world.failover.take_found() == []
    assert world.path == "backup"


def test_what_went_home_again_is_no_news() -> None:
    world = World()
    for path in ("backup", "overlay"):
        _uses(world, "a", path)
        _uses(world, "b", path)
        world.failover.follow(world.fleet, world.now)
    assert world.failover.take_found() == []
    assert world.path == "overlay"


def test_a_reflex_is_not_followed_where_policy_is_to_send_it_home() -> None:
    world = World(adopt_reflex=False)
    _uses(world, "a", "backup", alone=True)
    world.failover.follow(world.fleet, world.now)
    assert world.failover.take_found() == []
    assert world.path == "overlay"


def test_an_absurd_claim_of_an_epoch_is_not_outbid_but_a_signed_one_is() -> None:
    leadership = Leadership("c", "s")
    leadership.heard_epoch(2**63 - 1)
    change = leadership.tick(0.0, True)
    assert change is not None
    assert change.epoch == 1
    assert leadership.was_refused(1, 2**63 - 1) is None
    leadership.heard_epoch(7)
    change = leadership.was_refused(1, 7)
    assert change is not None
    assert change.epoch == 8


# --- trials ------------------------------------------------------------------------------------------------------


def test_a_move_on_trial_is_left_alone_until_it_is_confirmed_or_rolled_back() -> None:
    world = World()
    world.both(DOWN)
    (decision,) = world.wishes()
    assert (decision.was, decision.urgent, decision.automatic) == ("overlay", True, True)
    assert world.path == "overlay"  # nothing is recorded yet
    world.failover.record(decision, world.now)
    intent = world.failover.intents[PAIR]
    assert (intent.path, intent.trial_from) == ("backup", "overlay")
    world.both(DOWN, DOWN)
    assert world.wishes() == []
    world.failover.confirmed(PAIR, world.now)
    assert world.failover.intents[PAIR].trial_from == ""
    world.both(UP, DOWN)
    assert world.kinds() == ["failback"]


def test_a_failed_trial_restores_path_and_origin_and_waits_twice_as_long_each_time() -> None:
    world = World()
    world.both(DOWN)
    # On a dead path it waits no longer than a minute.
    for expected in (10, 20, 40, 60, 60, 60, 60, 60):
        (decision,) = world.wishes()
        world.failover.record(decision, world.now)
        world.failover.rolled_back(PAIR, "b never had an echo", world.now)
        intent = world.failover.intents[PAIR]
        assert (intent.path, intent.origin, intent.trial_from) == ("overlay", "default", "")
        assert "b never had an echo" in intent.reason
        world.now += expected - 1
        world.both(DOWN)
        (hold,) = world.wishes()
        assert hold.kind == "hold"
        assert f"failed its trial {expected - 1} s ago: b never had an echo; tried again in 1 s" in hold.reason
        assert "failed its trial" in world.failover.limitation(world.fleet, PAIR, "backup", world.now)
        world.now += 1
        world.both(DOWN)
    # Else it may be ten.
    world.now += 530
    world.both()
    assert "tried again in 10 s" in world.failover.unfit(world.fleet, PAIR, "backup", world.now)
    world.now += 10
    world.both()
    assert not world.failover.unfit(world.fleet, PAIR, "backup", world.now)


def test_a_trial_that_succeeds_clears_the_memory_of_those_that_failed() -> None:
    world = World(failback_hold_s=0.0)
    world.both(DOWN)
    for _ in range(3):
        world.failover.record(world.wishes()[0], world.now)
        world.failover.rolled_back(PAIR, "no echo", world.now)
        world.now += 40
        world.both(DOWN)
    assert world.kinds() == ["failover"]
    world.both(UP, DOWN)
    assert world.kinds() == ["failback"]
    world.both(DOWN)
    world.failover.record(world.wishes()[0], world.now)
    world.failover.rolled_back(PAIR, "no echo", world.now)
    world.now += 11
    world.both(DOWN)
    assert world.kinds() == ["failover"]


def test_a_person_s_choice_comes_back_as_such_when_leaving_it_failed() -> None:
    world = World()
    world.both()
    switch = Decision(kind="switchover", pair=PAIR, path="backup", origin="operator", reason="works", was="overlay")
    world.failover.record(switch, world.now)
    world.failover.confirmed(PAIR, world.now)
    world.both(UP, DOWN)
    world.failover.record(world.wishes()[0], world.now)
    world.failover.rolled_back(PAIR, "no echo", world.now)
    assert (world.path, world.failover.intents[PAIR].origin) == ("backup", "operator")


def test_while_a_plan_is_under_way_only_what_is_urgent_moves() -> None:
    world = World(failback_hold_s=0.0)
    world.both(DOWN)
    world.decide()
    world.both()
    world.busy = "plan 7, 12 pairs go home"
    (hold,) = world.wishes()
    assert hold.kind == "hold"
    assert "waits for the plan under way: plan 7" in hold.reason
    world.both(UP, DOWN)
    (decision,) = world.wishes()
    assert (decision.kind, decision.urgent) == ("failback", True)


def test_a_pair_that_waits_in_the_plan_under_way_is_no_hold() -> None:
    world = World(failback_hold_s=0.0)
    world.both(DOWN)
    world.decide()
    world.both()
    world.busy, world.planned = "plan 7", frozenset({PAIR})
    assert world.wishes() == []
    assert world.failover.waiting(PAIR) is None
    world.both(UP, DOWN)
    assert [decision.urgent for decision in world.wishes()] == [True]
