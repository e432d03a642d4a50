"""What nodes are told, what is taken over from the leader before, and why a pair waits."""

from __future__ import annotations

import pytest

from unit import fleet_builders as build
from unit.pair_world import DOWN, PAIR, UP, World
from vagus_controller.core.assignments import Assignments
from vagus_controller.core.failover import Decision, Intent
from vagus_controller.core.heritage import Heritage
from vagus_protocol.messages import Assignment, Desired, Origin, PeerOffer
from vagus_protocol.signing import node_key, open_sealed

KEY = b"f" * 32


def told(payload: bytes) -> Desired:
    desired = open_sealed(payload, node_key(KEY, "a"), "t", "a")
    assert isinstance(desired, Desired)
    return desired


def test_a_node_is_told_again_only_when_something_changed() -> None:
    world = World()
    board = Assignments("t", "c", KEY)
    first = board.renew("a", world.fleet, world.failover, 3)
    assert first is not None
    word, news = first
    assert news
    desired = told(word.payload)
    assert (desired.epoch, desired.generation) == word.term == (3, 1)
    assert desired.assignments == {"b": Assignment(path="overlay")}
    assert board.renew("a", world.fleet, world.failover, 3) == (word, False)
    assert board.renew("nobody", world.fleet, world.failover, 3) is None


def test_a_peer_that_is_offered_by_no_path_is_assigned_none() -> None:
    world = World()
    offers = (
        PeerOffer(name="b", addresses=(), paths=()),
        PeerOffer(name="c", addresses=(), paths=("backup",)),
    )
    world.fleet.on_presence(build.presence("a", session="s", boot_id="1", peers=offers), world.now)
    renewed = Assignments("t", "c", KEY).renew("a", world.fleet, world.failover, 3)
    assert renewed is not None
    assert told(renewed[0].payload).assignments == {"c": Assignment(path="backup")}


def test_a_move_is_told_as_a_trial_then_as_confirmed_with_its_origin() -> None:
    world = World()
    board = Assignments("t", "c", KEY)
    board.renew("a", world.fleet, world.failover, 3)
    move = Decision(kind="switchover", pair=PAIR, path="backup", origin="operator", reason="r", was="overlay")
    world.failover.record(move, world.now)
    on_trial = board.renew("a", world.fleet, world.failover, 3)
    assert on_trial is not None
    trial = Assignment(path="backup", reason="r", origin="operator", trial=True)
    assert told(on_trial[0].payload).assignments == {"b": trial}
    world.failover.confirmed(PAIR, world.now)
    confirmed = board.renew("a", world.fleet, world.failover, 3)
    assert confirmed is not None
    assert confirmed[1]
    assert told(confirmed[0].payload).assignments == {"b": Assignment(path="backup", reason="r", origin="operator")}
    assert confirmed[0].term > on_trial[0].term


def heard(*words: tuple[str, int, Assignment]) -> Heritage:
    """Of (node, generation, what it was told of its only peer)."""
    heritage = Heritage()
    for node, generation, word in words:
        peer = "b" if node == "a" else "a"
        heritage.heard(
            Desired(v=1, fleet="t", node=node, controller="c", epoch=5, generation=generation, assignments={peer: word})
        )
    return heritage


@pytest.mark.parametrize("origin", ["operator", "reflex", "auto"])
def test_origins_are_taken_over(origin: Origin) -> None:
    world = World()
    word = Assignment(path="backup", origin=origin, reason="r")
    assert heard(("a", 1, word), ("b", 2, word)).inherit(world.fleet, world.failover, world.now) == {PAIR}
    assert world.failover.intents[PAIR] == Intent(path="backup", origin=origin, reason="r", since=world.now)


def test_an_older_leader_that_told_no_origin_moved_by_itself() -> None:
    world = World()
    heard(("a", 1, Assignment(path="backup"))).inherit(world.fleet, world.failover, world.now)
    assert world.failover.intents[PAIR].origin == "auto"


def test_the_newest_word_of_both_ends_counts_and_a_trial_is_taken_over_as_one() -> None:
    world = World()
    trial = Assignment(path="backup", origin="auto", trial=True)
    heritage = heard(("a", 7, trial), ("b", 3, Assignment(path="overlay")))
    heritage.inherit(world.fleet, world.failover, world.now)
    intent = world.failover.intents[PAIR]
    assert (intent.path, intent.trial_from, intent.trial_from_origin) == ("backup", "overlay", "default")
    heritage = heard(("a", 8, Assignment(path="backup", origin="auto")))
    heritage.inherit(world.fleet, world.failover, world.now)
    assert world.failover.intents[PAIR].trial_from == ""


def test_what_was_sent_home_is_at_home() -> None:
    world = World()
    world.failover.intents[PAIR] = Intent(path="backup", origin="auto")
    heard(("a", 1, Assignment(path="overlay"))).inherit(world.fleet, world.failover, world.now)
    assert world.failover.intent(world.fleet, PAIR) == Intent(path="overlay")


def test_what_an_agent_did_alone_since_is_not_overruled() -> None:
    world = World()
    world.fleet.on_observed(build.observed("a", session="s", paths={"b": "backup"}, reflex={"b": "backup"}), world.now)
    heritage = heard(("a", 1, Assignment(path="overlay")))
    assert heritage.inherit(world.fleet, world.failover, world.now) == set()


def test_a_path_that_nobody_offers_any_more_is_not_taken_over() -> None:
    world = World()
    assert heard(("a", 1, Assignment(path="gone"))).inherit(world.fleet, world.failover, world.now) == set()


def test_a_waiting_pair_says_briefly_why() -> None:
    world = World()
    world.both(DOWN, DOWN)
    world.decide()
    waiting = world.failover.waiting(PAIR)
    assert waiting is not None
    assert waiting.brief == "overlay is dead and no other path is proven"
    world.both(UP, UP)
    world.decide()
    assert world.failover.waiting(PAIR) is None
