"""Moves under way: from the decision to the word of both ends that their kernels do it."""

from __future__ import annotations

from msgspec import Struct

from vagus_controller.core.failover import Pair
from vagus_controller.views import LedgerEntry
from vagus_protocol.messages import Observed, ObservedState

# A move that is not confirmed by then is told as unfinished (and still watched).
PATIENCE_S = 5.0


class Move(Struct):
    """`waits`: node → the (epoch, generation) that it must have applied; `ledger`: the entry it reports to."""

    pair: Pair
    path: str
    ledger: LedgerEntry
    started: float
    waits: dict[str, tuple[int, int]]
    complained: bool = False


class Moves:
    def __init__(self) -> None:
        self._moves: dict[Pair, Move] = {}

    def start(self, move: Move) -> None:
        self._moves[move.pair] = move

    def moving(self, pair: Pair) -> bool:
        return pair in self._moves

    def observed(self, observed: Observed, now: float) -> list[tuple[Move, str]]:
        """Moves that this word of a node ended, with their outcome."""
        done = []
        for move in list(self._moves.values()):
            needed = move.waits.get(observed.node)
            if needed is None:
                continue
            peer = move.pair[1] if observed.node == move.pair[0] else move.pair[0]
            applied = (observed.epoch, observed.generation) >= needed and observed.paths.get(peer) == move.path
            if applied:
                del move.waits[observed.node]
                if not move.waits:
                    del self._moves[move.pair]
                    done.append((move, f"done at both ends after {(now - move.started) * 1000:.0f} ms"))
        return done

    def tick(self, observed: dict[str, Observed], now: float) -> list[tuple[Move, str]]:
        """Moves that have taken too long, told once, with what each end says."""
        late = []
        for move in self._moves.values():
            if move.complained or now - move.started < PATIENCE_S:
                continue
            move.complained = True
            late.append((move, "; ".join(_excuse(node, observed.get(node)) for node in sorted(move.waits))))
        return late


def _excuse(node: str, observed: Observed | None) -> str:
    if observed is None:
        return f"{node} has never said what it does"
    if observed.state is not ObservedState.APPLIED:
        return f"{node}: {observed.state}: {observed.reason}"
    return f"{node} has not answered for {PATIENCE_S:.0f} s; it gets the decision when it is back"
