"""Which pairs move, which wait, and why.

Model. The stores of truth are what each end's agent says of its own links (`Fleet`), and the intent per pair kept here:
the path that both ends are told to use. A decision becomes an intent when its trial begins (`record`), and the trial
ends in `confirmed` or `rolled_back`; a pair on trial is left alone. Invariants, kept by construction:

- a pair moves only to a path that both ends have proven within `proven_within_s`;
- it moves off a path by itself only when one end calls that path down and the other end agrees, or quorum is lost and
  the path between two members is impaired;
- nothing moves by itself while the controller is in doubt about itself, while a pause covers either node, or beyond the
  limit of moves per window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from vagus_controller import config
from vagus_controller.core.detect.link import proven
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.verdict import Verdict
from vagus_protocol.messages import LinkState, Origin

Pair = tuple[str, str]
Kind = Literal["failover", "failback", "switchover", "adopt", "revert", "recommend", "hold"]

_ALIVE: Final = (LinkState.UP, LinkState.DEGRADED)
# Pairs that `restless` names at once, some 20 µs of evaluation each.
_MOST_AGAIN: Final = 1000
_IMPAIRED: Final = ("degraded", "relayed", "one-way", "down")
# A path that failed its trial is not tried again for so long, doubled by every further failure.
_RETRY_S: Final = 10.0
_MOST_RETRY_S: Final = 600.0


class Intent(Struct, frozen=True, kw_only=True):
    """The path that both ends of a pair are told to use. `since`: monotonic. `trial_from`: the path that is left, while
    the move is on trial, and the origin of that."""

    path: str
    origin: Origin = "default"
    reason: str = ""
    since: float = 0.0
    trial_from: str = ""
    trial_from_origin: Origin = "default"


class Decision(Struct, frozen=True, kw_only=True):
    """`hold` and `recommend` change nothing; the others make `path` the pair's intent. `was`: the path that is left."""

    kind: Kind
    pair: Pair
    path: str
    origin: Origin
    reason: str
    evidence: tuple[str, ...] = ()
    was: str = ""
    # decided here, not by a person
    automatic: bool = False
    # why it waits, in a few words; "" for what moves
    brief: str = ""
    # no canary goes first: the path that it leaves is dead, or an agent has moved already
    urgent: bool = False

    @property
    def moves(self) -> bool:
        return self.kind not in ("hold", "recommend")


class Situation(Struct, frozen=True, kw_only=True):
    """What the other detectors say, and the pauses: `paused(node)` is the pause's reason or "".

    `busy`: the plan under way that is not urgent, in words, or ""; `planned`: the pairs that wait in its later stages.
    """

    controller: Verdict
    quorum: Verdict
    quorum_lost_since: float | None
    members: frozenset[str]
    links: Mapping[tuple[Pair, str], Verdict]
    paused: Callable[[str], str]
    busy: str = ""
    planned: frozenset[Pair] = frozenset()


class FailedTrial(Struct, frozen=True, kw_only=True):
    """A path that failed its trial `count` times in a row, last at `at`; monotonic seconds."""

    count: int
    at: float
    reason: str

    @property
    def until(self) -> float:
        return self.at + min(_RETRY_S * 2.0 ** min(self.count - 1, 10), _MOST_RETRY_S)


class Failover:
    def __init__(self, settings: config.Failover) -> None:
        self.settings = settings
        self.intents: dict[Pair, Intent] = {}
        # pair → since when the way home has been good without a break
        self._home_since: dict[Pair, float] = {}
        self._moves: deque[float] = deque()
        self._failed: dict[tuple[Pair, str], FailedTrial] = {}
        # pair → the hold or recommendation last told, so that the ledger gets it once
        self._told: dict[Pair, Decision] = {}
        # what `follow` found off its first path
        self._found: dict[Pair, Decision] = {}
        # what `restless` has yet to name in this turn
        self._turn: list[Pair] = []

    def intent(self, fleet: Fleet, pair: Pair) -> Intent:
        """The pair's intent; its first path when nothing was ever decided."""
        known = self.intents.get(pair)
        if known is not None:
            return known
        paths = fleet.paths_of(pair)
        return Intent(path=paths[0] if paths else "")

    def waiting(self, pair: Pair) -> Decision | None:
        """The hold or recommendation of a pair that wants to move and does not."""
        return self._told.get(pair)

    def stuck(self) -> list[Pair]:
        """Every pair that wants to move and does not; sorted."""
        return sorted(self._told)

    def restless(self) -> list[Pair]:
        """Pairs that may want to move by time alone: off their first path, or waiting; in turn where they are many."""
        turn = self._turn or list(dict.fromkeys((*self.intents, *self._told)))
        self._turn = turn[_MOST_AGAIN:]
        return turn[:_MOST_AGAIN]

    # --- by itself -----------------------------------------------------------------------------------------------

    def evaluate(self, fleet: Fleet, situation: Situation, now: float, pairs: Iterable[Pair]) -> list[Decision]:
        """Decisions for `pairs`; a hold or recommendation comes once. A move is recorded by whoever begins it."""
        self._forget_old_moves(now)
        decisions = []
        granted = len(situation.planned)
        for pair in pairs:
            known = self.intents.get(pair)
            wish = None if known is not None and known.trial_from else self._wish(fleet, situation, pair, now)
            if wish is None or (pair in situation.planned and not wish.urgent):
                self._told.pop(pair, None)
                continue
            decision = self._guarded(wish, situation, granted)
            if decision.moves:
                granted += pair not in situation.planned
                decisions.append(decision)
                continue
            before = self._told.get(pair)
            self._told[pair] = decision
            if before is None or (before.kind, _cause(before.reason)) != (decision.kind, _cause(decision.reason)):
                decisions.append(decision)
        return decisions

    def record(self, decision: Decision, now: float) -> None:
        """Make a decision's path the pair's intent, on trial; when no path is left for it (`was` ""), at once."""
        known = self.intents.get(decision.pair)
        self._settle(
            decision,
            now,
            trial_from=known.path if known is not None else decision.was,
            trial_from_origin=known.origin if known is not None else "default",
        )
        if decision.automatic:
            self._moves.append(now)

    def confirmed(self, pair: Pair, now: float) -> None:
        """The trial of the pair's path is over and well."""
        intent = self.intents.get(pair)
        if intent is not None and intent.trial_from:
            self.intents[pair] = replace(intent, trial_from="", trial_from_origin="default")
            self._failed.pop((pair, intent.path), None)

    def rolled_back(self, pair: Pair, reason: str, now: float) -> None:
        """The trial of the pair's path failed: the path that was left is the intent again, as it was."""
        intent = self.intents.get(pair)
        if intent is None or not intent.trial_from:
            return
        failed = self._failed.get((pair, intent.path))
        count = failed.count + 1 if failed is not None else 1
        self._failed[pair, intent.path] = FailedTrial(count=count, at=now, reason=reason)
        self.intents[pair] = Intent(
            path=intent.trial_from,
            origin=intent.trial_from_origin,
            reason=f"the move to {intent.path} was taken back: {reason}",
            since=now,
        )

    def _settle(
        self, decision: Decision, now: float, trial_from: str = "", trial_from_origin: Origin = "default"
    ) -> None:
        self._told.pop(decision.pair, None)
        self._home_since.pop(decision.pair, None)
        self.intents[decision.pair] = Intent(
            path=decision.path,
            origin=decision.origin,
            reason=decision.reason,
            since=now,
            trial_from=trial_from,
            trial_from_origin=trial_from_origin,
        )

    def _forget_old_moves(self, now: float) -> None:
        while self._moves and now - self._moves[0] > self.settings.moves_window_s:
            self._moves.popleft()

    # --- while another leads, and before we do -------------------------------------------------------------------

    def follow(self, fleet: Fleet, now: float) -> None:
        """Make what the ends' kernels do the intents."""
        for pair in fleet.pairs():
            paths = fleet.paths_of(pair)
            used: dict[str, str] = {}
            alone = False
            for node, peer in (pair, pair[::-1]):
                state = fleet.nodes.get(node)
                if state is not None and state.observed is not None:
                    path = used[node] = state.observed.paths.get(peer, "")
                    alone = alone or (path in paths[1:] and state.observed.reflex.get(peer) == path)
            if alone and not self.settings.adopt_reflex:
                continue
            away = [(node, path) for node, path in used.items() if path in paths[1:]]
            known = self.intents.get(pair)
            if away and (known is None or known.path != away[0][1]):
                node, path = away[0]
                reason = f"{node} uses {path} {'by itself' if alone else 'already'}: taken over as it stands"
                origin: Origin = "reflex" if alone else "auto"
                found = Decision(kind="adopt", pair=pair, path=path, origin=origin, reason=reason)
                self._settle(found, now)
                self._found[pair] = found
            elif known is not None and len(used) == 2 and not away and known.origin != "operator":
                del self.intents[pair]
                self._found.pop(pair, None)

    def take_found(self) -> list[Decision]:
        """What `follow` took over since it was asked last: to be told by the one that now leads."""
        found, self._found = list(self._found.values()), {}
        return found

    # --- inside --------------------------------------------------------------------------------------------------

    def _wish(self, fleet: Fleet, situation: Situation, pair: Pair, now: float) -> Decision | None:
        """What should happen to the pair if nothing stood in the way; a hold where no path is fit to go to."""
        paths = fleet.paths_of(pair)
        if len(paths) < 2:
            return None
        intent = self.intent(fleet, pair)
        down = self._down(fleet, pair, intent.path, now)
        trouble = down or self._trouble(situation, pair, intent.path, now)
        if trouble:
            wish: Decision | None = self._escape(fleet, pair, paths, intent, trouble, now)
        else:
            wish = self._reflex(fleet, pair, paths, intent, now) or self._homeward(fleet, pair, paths[0], intent, now)
        if wish is None:
            return None
        urgent = bool(down) or wish.kind in ("adopt", "revert")
        return replace(wish, was=intent.path, automatic=True, urgent=urgent)

    def _escape(
        self, fleet: Fleet, pair: Pair, paths: list[str], intent: Intent, trouble: tuple[str, ...], now: float
    ) -> Decision:
        unfit = []
        for path in paths:
            if path == intent.path:
                continue
            fit, why_not = self._fit(fleet, pair, path, now)
            if fit:
                home = path == paths[0]
                reason = f"{intent.path} {trouble[0]}; {path} is proven from both ends"
                return Decision(
                    kind="failback" if home else "failover",
                    pair=pair,
                    path=path,
                    origin="default" if home else "auto",
                    reason=reason,
                    evidence=trouble[1:],
                )
            unfit.append(f"{path} is not proven: {why_not}")
        reason = f"{intent.path} {trouble[0]}, but " + "; ".join(unfit)
        return Decision(
            kind="hold",
            pair=pair,
            path=intent.path,
            origin=intent.origin,
            reason=reason,
            brief=f"{intent.path} is dead and no other path is proven",
        )

    def _trouble(self, situation: Situation, pair: Pair, path: str, now: float) -> tuple[str, ...]:
        """Why traffic should leave `path` though it is not dead, with evidence; empty when it should not."""
        since = situation.quorum_lost_since
        if since is None or now - since < self.settings.quorum_lost_for_s or not situation.members.issuperset(pair):
            return ()
        verdict = situation.links.get((pair, path))
        if verdict is None or verdict.state not in _IMPAIRED:
            return ()
        return (
            f"is {verdict.state} and etcd has no quorum for {now - since:.1f} s",
            verdict.reason,
            situation.quorum.reason,
        )

    def _down(self, fleet: Fleet, pair: Pair, path: str, now: float) -> tuple[str, ...]:
        """("is down …", evidence …) when one end calls the path down and the other agrees, by its own word or as the
        first end hears it over another path; or when the other end cannot reach us and does not disagree."""
        for node, other in (pair, pair[::-1]):
            here, there = fleet.believed(node, other, path, now), fleet.believed(other, node, path, now)
            if here is None or here.link.state is not LinkState.DOWN:
                continue
            said = f"{node}: {here.link.reason}"
            if there is not None and there.link.state is LinkState.DOWN:
                return "is down at both ends", said, f"{other}: {there.link.reason}"
            if here.link.peer_state is LinkState.DOWN:
                return "is down at both ends", said, f"{node} hears the same from {other}"
            lasted = here.link.since_s + now - here.at
            if there is None and lasted >= self.settings.confirm_within_s and here.link.peer_state not in _ALIVE:
                return f"is down as {node} sees it", said, f"{other} is silent"
        return ()

    def _fit(self, fleet: Fleet, pair: Pair, path: str, now: float) -> tuple[bool, str]:
        """Whether both ends have proven `path`: by their own words, or where one of them cannot reach us, as the other
        hears it from that one over this very path; and it has not just failed a trial."""
        failed = self._failed.get((pair, path))
        if failed is not None and now < failed.until:
            wait = f"tried again in {failed.until - now:.0f} s"
            return False, f"it failed its trial {now - failed.at:.0f} s ago: {failed.reason}; {wait}"
        within = self.settings.proven_within_s
        fit, why_not = proven(fleet, pair, path, now, within)
        if fit:
            return True, ""
        for node, other in (pair, pair[::-1]):
            here = fleet.believed(node, other, path, now)
            if here is None or fleet.believed(other, node, path, now) is not None:
                continue
            age = fleet.proven_age(node, other, path, now)
            if here.link.state in _ALIVE and here.link.peer_state in _ALIVE and age is not None and age < within:
                return True, ""
        return False, why_not

    def _reflex(self, fleet: Fleet, pair: Pair, paths: list[str], intent: Intent, now: float) -> Decision | None:
        """Adopt what an agent did alone, or send it home."""
        for node, peer in (pair, pair[::-1]):
            state = fleet.nodes.get(node)
            path = state.observed.reflex.get(peer) if state is not None and state.observed is not None else None
            if path is None or path not in paths or path == intent.path:
                continue
            fit, why_not = self._fit(fleet, pair, path, now)
            home_fit, _ = self._fit(fleet, pair, intent.path, now)
            if fit and (self.settings.adopt_reflex or not home_fit):
                reason = f"{node} moved {peer} to {path} by itself: taken over"
                return Decision(kind="adopt", pair=pair, path=path, origin="reflex", reason=reason)
            if home_fit:
                why = "policy is to revert" if fit else f"{path} is not proven ({why_not})"
                reason = f"{node} moved {peer} to {path} by itself: sent back to {intent.path}, {why}"
                return Decision(kind="revert", pair=pair, path=intent.path, origin=intent.origin, reason=reason)
            reason = f"{node} moved {peer} to {path} by itself, and neither path is proven: {why_not}"
            return Decision(
                kind="hold",
                pair=pair,
                path=intent.path,
                origin=intent.origin,
                reason=reason,
                brief="an agent moved it alone and neither path is proven",
            )
        return None

    def _homeward(self, fleet: Fleet, pair: Pair, home: str, intent: Intent, now: float) -> Decision | None:
        """Failback after a hold of a proven first path; a person's switchover stays until a person ends it."""
        if intent.path == home or intent.origin == "operator":
            self._home_since.pop(pair, None)
            return None
        fit, _ = self._fit(fleet, pair, home, now)
        if not fit or not self._healthy(fleet, pair, home, intent.path):
            self._home_since.pop(pair, None)
            return None
        since = self._home_since.setdefault(pair, now)
        if now - since < self.settings.failback_hold_s:
            return None
        reason = f"{home} has been proven from both ends for {now - since:.0f} s"
        return Decision(kind="failback", pair=pair, path=home, origin="default", reason=reason)

    def _healthy(self, fleet: Fleet, pair: Pair, home: str, current: str) -> bool:
        """Whether going home is no step down: up at both ends, or degraded no more than where traffic is now."""
        for node, peer in (pair, pair[::-1]):
            there, here = fleet.link(node, peer, home), fleet.link(node, peer, current)
            if there is None:
                return False
            if there.link.state is LinkState.UP:
                continue
            if here is None or here.link.state is not LinkState.DEGRADED:
                return False
        return True

    def _guarded(self, wish: Decision, situation: Situation, granted: int) -> Decision:
        """The wish itself, or a hold or recommendation in its place. `granted`: moves that are not recorded yet."""
        if wish.kind == "hold":
            return wish
        moves = len(self._moves) + granted
        block = brief = ""
        if situation.controller.state != "connected":
            block = f"the controller is in doubt about itself ({situation.controller.reason})"
            brief = "the controller is in doubt about itself"
        elif paused := (situation.paused(wish.pair[0]) or situation.paused(wish.pair[1])):
            block = brief = f"paused: {paused}"
        elif moves >= self.settings.max_moves:
            block = f"{moves} automatic moves in {self.settings.moves_window_s:.0f} s, the limit: look first"
            brief = "the limit of automatic moves is reached"
        if block:
            reason = f"would do {wish.kind} to {wish.path} ({wish.reason}), but {block}"
            return replace(wish, kind="hold", reason=reason, brief=brief)
        if self.settings.mode == "recommend" and wish.kind in ("failover", "failback"):
            reason = f"recommends {wish.kind} to {wish.path}: {wish.reason}"
            return replace(wish, kind="recommend", reason=reason, brief="a person must approve")
        if situation.busy and not wish.urgent:
            brief = f"waits for the plan under way: {situation.busy}"
            reason = f"would do {wish.kind} to {wish.path} ({wish.reason}), but {brief}"
            return replace(wish, kind="hold", reason=reason, brief=brief)
        return wish

    # --- by a person ---------------------------------------------------------------------------------------------

    def limitation(self, fleet: Fleet, pair: Pair, path: str, now: float) -> str:
        """Why a person's move of the pair to `path` should not be made, as a sentence; "" when it may."""
        fit, why_not = self._fit(fleet, pair, path, now)
        return "" if fit else f"{path} is not proven between {pair[0]} and {pair[1]}: {why_not}"


def _cause(reason: str) -> str:
    """A hold's reason without its numbers: it is told again when its cause changes, not each time a figure does."""
    return "".join(" " if letter.isdigit() or letter == "." else letter for letter in reason)
