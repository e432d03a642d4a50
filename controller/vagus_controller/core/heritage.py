"""What the leader before us told: its retained desireds, which only a controller of this fleet can have signed.

They say more than agents do: who wanted a path, and whether it is on trial. A pair that an agent has moved by itself
since is not inherited: what the agent says of it is newer. Nor is a desired that is older than what its node has
accepted: it was published again, by mistake or by malice, or the broker has lost the newest.
"""

from __future__ import annotations

from msgspec.structs import replace

from vagus_controller.core.assignments import Term
from vagus_controller.core.failover import Failover, Intent, Pair
from vagus_controller.core.fleet import Fleet
from vagus_protocol.messages import Assignment, Desired, Origin


class Heritage:
    def __init__(self) -> None:
        self._told: dict[str, Desired] = {}

    def heard(self, desired: Desired) -> None:
        """A desired with a good signature."""
        known = self._told.get(desired.node)
        if known is None or _term(desired) > _term(known):
            self._told[desired.node] = desired

    @property
    def orders(self) -> Term:
        """The (epoch, generation) of the newest standing orders under which a node was told."""
        return max(((desired.epoch, desired.orders) for desired in self._told.values()), default=(0, 0))

    def forget(self) -> None:
        """We lead: what counts is what we tell."""
        self._told.clear()

    def inherit(self, fleet: Fleet, failover: Failover, now: float) -> set[Pair]:
        """Make what nodes were told the intents; the pairs that were told."""
        newest: dict[Pair, tuple[Term, Assignment]] = {}
        for node, desired in self._told.items():
            if _outdated(fleet, desired):
                continue
            for peer, word in desired.assignments.items():
                pair = (node, peer) if node < peer else (peer, node)
                known = newest.get(pair)
                if known is None or _term(desired) > known[0]:
                    newest[pair] = (_term(desired), word)
        inherited = set()
        for pair, (_, word) in newest.items():
            paths = fleet.paths_of(pair)
            if word.path not in paths or _moved_alone(fleet, pair):
                continue
            inherited.add(pair)
            intent = _intent(word, failover.intents.get(pair), paths, now)
            if intent is None:
                failover.intents.pop(pair, None)
            else:
                failover.intents[pair] = intent
        return inherited


def _intent(word: Assignment, known: Intent | None, paths: list[str], now: float) -> Intent | None:
    """The pair's intent by a word that an end was told; None: its first path, as if nothing was ever decided."""
    home = word.path == paths[0]
    # An older controller does not tell the origin.
    origin: Origin = "auto" if word.origin == "default" and not home else word.origin
    same = known is not None and known.path == word.path
    if not word.trial:
        if known is not None and same:
            kept = known.origin if word.origin == "default" and not home else word.origin
            return replace(known, origin=kept, trial_from="", trial_from_origin="default", drill=False)
        return (
            None
            if home and origin == "default"
            else Intent(path=word.path, origin=origin, reason=word.reason, since=now)
        )
    if known is not None and same and known.trial_from:
        return known
    # What is drilled was on its first path, and its way back is a trial of that.
    left = Intent(path=paths[0] if word.drill else next((path for path in paths if path != word.path), word.path))
    if known is not None and not same and not word.drill:
        left = known
    elif left.path != paths[0]:
        left = replace(left, origin="auto")
    return Intent(
        path=word.path,
        origin=origin,
        reason=word.reason,
        since=now,
        trial_from=left.path,
        trial_from_origin=left.origin,
        drill=word.drill,
    )


def _moved_alone(fleet: Fleet, pair: Pair) -> bool:
    for node, peer in (pair, pair[::-1]):
        state = fleet.nodes.get(node)
        if state is not None and state.observed is not None and peer in state.observed.reflex:
            return True
    return False


def _outdated(fleet: Fleet, desired: Desired) -> bool:
    state = fleet.nodes.get(desired.node)
    if state is None or state.observed is None:
        return False
    return _term(desired) < (state.observed.epoch, state.observed.generation)


def _term(desired: Desired) -> Term:
    return desired.epoch, desired.generation
