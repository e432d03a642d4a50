"""Moves under way, pauses, what nodes are told, and why a pair waits."""

from __future__ import annotations

from unit.pair_world import DOWN, PAIR, UP, World
from vagus_controller.core.assignments import Assignments
from vagus_controller.core.failover import Decision
from vagus_controller.core.moves import PATIENCE_S, Move, Moves
from vagus_controller.views import LedgerEntry
from vagus_protocol.messages import Desired, Observed, ObservedState
from vagus_protocol.signing import node_key, open_sealed

KEY = b"f" * 32


def entry() -> LedgerEntry:
    return LedgerEntry(id=1, at=0.0, who="t", action="failover", subject="a--b", reason="", evidence=(), outcome="")


def observed(node: str, path: str, generation: int = 1, state: ObservedState = ObservedState.APPLIED) -> Observed:
    peer = "b" if node == "a" else "a"
    return Observed(v=1, node=node, session="s", epoch=1, generation=generation, state=state, paths={peer: path})


def test_a_move_is_done_when_both_kernels_do_it() -> None:
    moves = Moves()
    moves.start(Move(PAIR, "backup", entry(), 10.0, {"a": (1, 1), "b": (1, 2)}))
    assert moves.observed(observed("a", "backup"), 10.02) == []
    assert moves.observed(observed("b", "backup", 1), 10.03) == []  # an older generation is no answer
    assert moves.observed(observed("b", "overlay", 2), 10.03) == []  # the kernel does otherwise
    ((move, outcome),) = moves.observed(observed("b", "backup", 2), 10.05)
    assert (move.pair, outcome) == (PAIR, "done at both ends after 50 ms")
    assert not moves.moving(PAIR)


def test_a_move_that_does_not_end_is_told_once_and_still_ends() -> None:
    moves = Moves()
    moves.start(Move(PAIR, "backup", entry(), 10.0, {"a": (1, 1), "b": (1, 1)}))
    assert moves.tick({}, 10.0 + PATIENCE_S - 0.1) == []
    ((_, excuse),) = moves.tick({"a": observed("a", "", state=ObservedState.FAILED)}, 10.0 + PATIENCE_S)
    assert "a: failed" in excuse
    assert "b has never said" in excuse
    assert moves.tick({}, 20.0) == []
    moves.observed(observed("a", "backup"), 21.0)
    assert len(moves.observed(observed("b", "backup"), 21.0)) == 1


def test_a_node_is_told_again_only_when_something_changed() -> None:
    world = World()
    board = Assignments("t", "c", KEY)
    first = board.renew("a", world.fleet, world.failover, 3, force=False)
    assert first is not None
    told, news = first
    assert news
    desired = open_sealed(told.payload, node_key(KEY, "a"), "t", "a")
    assert isinstance(desired, Desired)
    assert (desired.epoch, desired.generation) == told.term == (3, 1)
    assert {peer: word.path for peer, word in desired.assignments.items()} == {"b": "overlay"}
    assert board.renew("a", world.fleet, world.failover, 3, force=False) == (told, False)
    move = Decision(kind="failover", pair=PAIR, path="backup", origin="auto", reason="r")
    world.failover.record(move, world.now)
    again = board.renew("a", world.fleet, world.failover, 3, force=False)
    assert again is not None
    assert again[0].term > told.term
    assert again[0].paths == {"b": "backup"}
    forced = board.renew("a", world.fleet, world.failover, 3, force=True)
    assert forced is not None
    assert forced[0].term > again[0].term
    assert board.renew("nobody", world.fleet, world.failover, 3, force=True) is None


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
