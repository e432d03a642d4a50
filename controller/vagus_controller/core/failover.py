"""Which pairs move, which wait, and why.

Model. The stores of truth are what each end's agent says of its own links (`Fleet`), and the intent per pair kept here:
the path that both ends are told to use. A decision becomes an intent when its trial begins (`record`), and the trial
ends in `confirmed` or `rolled_back`; a pair on trial is left alone. Invariants, kept by construction:

- a pair moves only to a path that both ends have proven within `proven_within_s`, and that has not just failed a trial;
- it moves off a path by itself only when one end calls that path down and the other end agrees; or quorum is lost, the
  path between two members is impaired, and the other is not as bad; or the path has been in trouble, and another better
  by a margin, for as long as the settings say;
- it goes home by itself only after a hold of a good way home; and so it does to a path that comes before its own;
- nothing moves by itself while a guard blocks it (`guards.py`); only what leaves a dead path passes those for calm.

`_observe` takes in what time and reports changed; what follows it (`wish`, the guards, `explain.py`) only looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from vagus_controller import config
from vagus_controller.core import evidence
from vagus_controller.core.damping import Damped, Damping
from vagus_controller.core.decision import Decision, Intent, Kind, Situation
from vagus_controller.core.fleet import Fleet, Pair
from vagus_controller.core.guards import Context, Guard, busy, guards, recommended, standing
from vagus_controller.core.quality import Quality
from vagus_controller.core.trials import Trials
from vagus_controller.core.windows import Windows
from vagus_protocol.messages import Origin

__all__ = ["Decision", "Failover", "Intent", "Kind", "Memory", "Pair", "Situation"]

# Pairs that `restless` names at once, some 20 µs of evaluation each; and of those that are well, which are looked at in
# turn to learn what is usual.
_MOST_AGAIN: Final = 1000
_MOST_SAMPLED: Final = 100
# From bad to worse.
_IMPAIRED: Final = (
    *("riding-backup", "relayed", "reordering", "slow", "overloaded", "degraded", "one-way-loss", "black-hole"),
    *("one-way", "direct-but-dead", "down"),
)
_DEAD_RANK: Final = _IMPAIRED.index("one-way") + 1


class Memory(Struct, frozen=True, kw_only=True):
    """What a restart must not forget beside the intents, as durations: (a, b, damping), the ages of automatic moves."""

    damped: list[tuple[str, str, Damped]] = []
    moves_s: list[float] = []


class Failover:
    def __init__(self, settings: config.Failover) -> None:
        self.settings = settings
        self.intents: dict[Pair, Intent] = {}
        # pair → each path that comes before its own → since when that has been good without a break
        self._good_since: dict[Pair, dict[str, float]] = {}
        self._moves: deque[float] = deque()
        self.trials = Trials()
        self.damping = Damping(settings.damping, settings.failback_hold_s)
        self.quality = Quality(settings.quality)
        self.windows = Windows(settings.windows)
        # pair → when it last moved, or wanted to, on degraded evidence alone
        self._degraded: dict[Pair, float] = {}
        # pair → the hold or recommendation last told, so that the ledger gets it once
        self._told: dict[Pair, Decision] = {}
        # what `follow` found off its first path
        self._found: dict[Pair, Decision] = {}
        # what `restless` has yet to name in this turn, and of those that are well
        self._turn: list[Pair] = []
        self._sample: list[Pair] = []
        self._topology = 0

    def reconfigure(self, settings: config.Failover) -> None:
        """Other settings from now on; what was decided and counted stays."""
        self.settings = settings
        self.damping.reconfigure(settings.damping, settings.failback_hold_s)
        self.windows.reconfigure(settings.windows)

    def intent(self, fleet: Fleet, pair: Pair) -> Intent:
        """The pair's intent; its first path when nothing was ever decided."""
        known = self.intents.get(pair)
        if known is not None:
            return known
        paths = fleet.paths_of(pair)
        return Intent(path=paths[0] if paths else "")

    def trying(self, pair: Pair, path: str) -> bool:
        """Whether the pair is on trial for that path."""
        known = self.intents.get(pair)
        return known is not None and known.trial_from != "" and known.path == path

    def waiting(self, pair: Pair) -> Decision | None:
        """The hold or recommendation of a pair that wants to move and does not."""
        return self._told.get(pair)

    def stuck(self) -> list[Pair]:
        """Every pair that must move and cannot; sorted."""
        return sorted(pair for pair, told in self._told.items() if told.urgent)

    def restless(self, fleet: Fleet) -> list[Pair]:
        """Pairs that may want to move by time alone: off their first path, waiting, or with a path that is not as
        usual; and some of the others. In turn where they are many."""
        turn = self._turn or list(dict.fromkeys((*self.intents, *self._told, *sorted(self.quality.uneasy))))
        self._turn = turn[_MOST_AGAIN:]
        quality = self.settings.quality
        if quality.mode == quality.members == "off":
            return turn[:_MOST_AGAIN]
        sample = self._sample or fleet.pairs()
        self._sample = sample[_MOST_SAMPLED:]
        return list(dict.fromkeys((*turn[:_MOST_AGAIN], *sample[:_MOST_SAMPLED])))

    # --- what survives -------------------------------------------------------------------------------------------

    def snapshot(self, now: float) -> Memory:
        self._forget_old(now)
        damped = self.damping.snapshot(now)
        return Memory(
            damped=[(a, b, each) for (a, b), each in damped.items()],
            moves_s=[now - at for at in self._moves],
        )

    def restore(self, memory: Memory, now: float) -> None:
        self.damping.restore({(a, b): each for a, b, each in memory.damped}, now)
        self._moves = deque(sorted(now - max(age, 0.0) for age in memory.moves_s))

    # --- by itself -----------------------------------------------------------------------------------------------

    def evaluate(self, fleet: Fleet, situation: Situation, now: float, pairs: Iterable[Pair]) -> list[Decision]:
        """Decisions for `pairs`; a hold or recommendation comes once. A move is recorded by whoever begins it."""
        self._forget_old(now)
        if self._topology != fleet.topology:
            self._topology = fleet.topology
            self.quality.keep(fleet)
        wishes = []
        for pair in pairs:
            wish = None if self._on_trial(pair) else self._look(fleet, situation, pair, now)
            if wish is None or (pair in situation.planned and not wish.urgent):
                self._told.pop(pair, None)
                continue
            if wish.degraded:
                self._degraded[pair] = now
            wishes.append(wish)
        decisions = []
        granted = 0
        for wish in wishes:
            decision = self._guarded(wish, self.context(fleet, situation, now, granted))
            if decision.moves:
                granted += wish.pair not in situation.planned
                decisions.append(decision)
                continue
            before = self._told.get(wish.pair)
            self._told[wish.pair] = decision
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
            self.damping.moved(decision.pair, now, home=decision.kind == "failback")
        else:
            self.quality.begin_anew(decision.pair, [decision.was, decision.path])

    def confirmed(self, pair: Pair, now: float) -> None:
        """The trial of the pair's path is over and well."""
        intent = self.intents.get(pair)
        if intent is not None and intent.trial_from:
            self.intents[pair] = replace(intent, trial_from="", trial_from_origin="default", drill=False)
            self.trials.succeeded(pair, intent.path)

    def rolled_back(self, pair: Pair, reason: str, now: float, *, failed: bool = True) -> None:
        """The trial of the pair's path is taken back: the path that was left is the intent again, as it was.

        `failed`: by its own failure; not when another pair of its stage failed.
        """
        intent = self.intents.get(pair)
        if intent is None or not intent.trial_from:
            return
        if failed:
            self.trials.failed(pair, intent.path, reason, now)
        if intent.origin == "default":
            self.damping.came_back(pair)
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
        self._good_since.pop(decision.pair, None)
        self.intents[decision.pair] = Intent(
            path=decision.path,
            origin=decision.origin,
            reason=decision.reason,
            since=now,
            trial_from=trial_from,
            trial_from_origin=trial_from_origin,
            drill=decision.kind == "drill",
        )

    def _forget_old(self, now: float) -> None:
        oldest = now - self.settings.moves_window_s
        while self._moves and self._moves[0] < oldest:
            self._moves.popleft()
        if self._degraded:
            self._degraded = {pair: at for pair, at in self._degraded.items() if at >= oldest}

    # --- while another leads, and before we do -------------------------------------------------------------------

    def stand_by(self) -> None:
        """Another one decides: nothing waits here any more."""
        self._told.clear()

    def follow(self, fleet: Fleet, now: float, told: Collection[Pair] = ()) -> None:
        """Make what the ends' kernels do the intents; not of those pairs whose intents were `told`."""
        for pair in fleet.pairs():
            if pair in told:
                self._found.pop(pair, None)
                continue
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

    def _on_trial(self, pair: Pair) -> bool:
        known = self.intents.get(pair)
        return known is not None and known.trial_from != ""

    def _look(self, fleet: Fleet, situation: Situation, pair: Pair, now: float) -> Decision | None:
        self._observe(fleet, situation, pair, now)
        return self.wish(fleet, situation, pair, now)

    def _observe(self, fleet: Fleet, situation: Situation, pair: Pair, now: float) -> None:
        """Take in how the pair's paths do, and since when those that come before its own have been good."""
        paths = fleet.paths_of(pair)
        if len(paths) < 2:
            return
        intent = self.intent(fleet, pair)
        self.quality.observe(fleet, pair, paths, intent.path, situation.members.issuperset(pair), now)
        good = self._good_since.pop(pair, {})
        before = _before(paths, intent)
        for path in before:
            if not self._homesick(fleet, pair, path, intent.path, now):
                good.setdefault(path, now)
            elif good.pop(path, None) is not None and path == paths[0] and self.down(fleet, pair, path, now):
                self.damping.died(pair, now)
        if before and good:
            self._good_since[pair] = good

    def wish(self, fleet: Fleet, situation: Situation, pair: Pair, now: float) -> Decision | None:
        """What should happen to the pair if nothing stood in the way; a hold where no path is fit to go to."""
        paths = fleet.paths_of(pair)
        if len(paths) < 2:
            return None
        intent = self.intent(fleet, pair)
        down = self.down(fleet, pair, intent.path, now)
        alone = self._reflex(fleet, situation, pair, paths, intent, now)
        wish: Decision | None
        dead = bool(down)
        if alone is not None and alone.kind == "adopt":
            why = f"; {intent.path} {down[0]}" if down else ""
            wish = replace(alone, reason=alone.reason + why, evidence=down[1:])
        elif down:
            wish = self._escape(fleet, pair, paths, intent, down, now, dead=True)
        elif impaired := self._impaired(situation, pair, intent.path, now):
            better = [path for path in paths if _rank(situation, pair, path) < _rank(situation, pair, intent.path)]
            # What goes one way only carries nothing.
            dead = _rank(situation, pair, intent.path) >= _DEAD_RANK
            wish = replace(self._escape(fleet, pair, better, intent, impaired, now, dead=dead), quorumless=True)
        else:
            wish = (
                alone
                or self._relief(fleet, pair, paths, intent, now)
                or self._homeward(fleet, pair, paths, intent, now)
            )
        if wish is None:
            return None
        urgent = dead or wish.kind in ("adopt", "revert", "hold")
        return replace(wish, was=intent.path, automatic=True, urgent=urgent)

    def _escape(
        self,
        fleet: Fleet,
        pair: Pair,
        paths: list[str],
        intent: Intent,
        trouble: tuple[str, ...],
        now: float,
        *,
        dead: bool,
    ) -> Decision:
        """To the first of `paths` that is fit; a hold when none is."""
        why_not = []
        for path in paths:
            if path == intent.path:
                continue
            unfit = self.unfit(fleet, pair, path, now)
            if not unfit:
                reason = f"{intent.path} {trouble[0]}; {path} is proven from both ends"
                return self._to(fleet, pair, path, reason, trouble[1:])
            why_not.append(f"{path} is not proven, because {unfit}")
        reason = f"{intent.path} {trouble[0]}, but " + ("; ".join(why_not) or "no other path is better")
        return Decision(
            kind="hold",
            pair=pair,
            path=intent.path,
            origin=intent.origin,
            reason=reason,
            brief=f"{intent.path} is {'dead' if dead else 'impaired'} and no other path is proven",
        )

    def _to(self, fleet: Fleet, pair: Pair, path: str, reason: str, evidence: tuple[str, ...] = ()) -> Decision:
        """An automatic move off a path that should be left."""
        home = path == fleet.paths_of(pair)[0]
        return Decision(
            kind="failback" if home else "failover",
            pair=pair,
            path=path,
            origin="default" if home else "auto",
            reason=reason,
            evidence=evidence,
        )

    def down(self, fleet: Fleet, pair: Pair, path: str, now: float) -> tuple[str, ...]:
        """Why the path counts as dead, and evidence; empty when it does not."""
        return evidence.down(fleet, pair, path, now, self.settings.confirm_within_s)

    def _impaired(self, situation: Situation, pair: Pair, path: str, now: float) -> tuple[str, ...]:
        """Why two members should leave `path` though it is not dead, with evidence: it is impaired and quorum lost."""
        since = situation.quorum_lost_since
        if since is None or now - since < self.settings.quorum_lost_for_s or not situation.members.issuperset(pair):
            return ()
        verdict = situation.links.get((pair, path))
        if verdict is None or not _rank(situation, pair, path):
            return ()
        return (
            f"is {verdict.state} and etcd has no quorum for {now - since:.1f} s",
            verdict.reason,
            situation.quorum.reason,
        )

    def unfit(self, fleet: Fleet, pair: Pair, path: str, now: float) -> str:
        """Why the pair must not be moved to `path`; "" when it may."""
        failed = self.trials.obstacle(pair, path, now)
        if failed and self.down(fleet, pair, self.intent(fleet, pair).path, now):
            failed = self.trials.obstacle(pair, path, now, dead=True)
        return failed or evidence.unproven(fleet, pair, path, now, self.settings.proven_within_s)

    def _reflex(
        self, fleet: Fleet, situation: Situation, pair: Pair, paths: list[str], intent: Intent, now: float
    ) -> Decision | None:
        """Adopt what an agent did alone, or send it home."""
        for node, peer in (pair, pair[::-1]):
            state = fleet.nodes.get(node)
            path = state.observed.reflex.get(peer) if state is not None and state.observed is not None else None
            if path is None or path not in paths or path == intent.path or not situation.heard(node):
                continue
            unfit = self.unfit(fleet, pair, path, now)
            home_unfit = self.unfit(fleet, pair, intent.path, now)
            if not unfit and (self.settings.adopt_reflex or home_unfit):
                reason = f"{node} moved {peer} to {path} by itself: taken over"
                return Decision(kind="adopt", pair=pair, path=path, origin="reflex", reason=reason)
            if not home_unfit:
                why = f"{path} is not proven ({unfit})" if unfit else "policy is to revert"
                reason = f"{node} moved {peer} to {path} by itself: sent back to {intent.path}, {why}"
                return Decision(kind="revert", pair=pair, path=intent.path, origin=intent.origin, reason=reason)
            reason = f"{node} moved {peer} to {path} by itself, and neither path is proven: {unfit}"
            return Decision(
                kind="hold",
                pair=pair,
                path=intent.path,
                origin=intent.origin,
                reason=reason,
                brief="an agent moved it alone and neither path is proven",
            )
        return None

    def _relief(self, fleet: Fleet, pair: Pair, paths: list[str], intent: Intent, now: float) -> Decision | None:
        """Off a path in trouble to the one that is better by the margin; a person's switchover is left alone."""
        troubles = self.quality.troubles(pair, intent.path)
        if not troubles or intent.origin == "operator":
            return None
        here = self.quality.reading(pair, intent.path)
        better = {
            path: there.reach_s
            for path in paths
            if path != intent.path
            and not self.quality.why_not(pair, path, intent.path)
            and not self.unfit(fleet, pair, path, now)
            and (there := self.quality.reading(pair, path)) is not None
        }
        if not better or here is None:
            return None
        best = min(better, key=lambda path: better[path])
        there = self.quality.reading(pair, best)
        assert there is not None
        reason = f"{intent.path} {' and '.join(troubles)}; {best} is proven and has been better by the margin"
        wish = self._to(fleet, pair, best, reason, (f"{intent.path}: {here.words()}", f"{best}: {there.words()}"))
        return replace(wish, degraded=True)

    def _homesick(self, fleet: Fleet, pair: Pair, home: str, current: str, now: float) -> str:
        """Why the way home is no good now; "" when it is."""
        unfit = self.unfit(fleet, pair, home, now) or evidence.unhealthy(fleet, pair, home, current)
        if unfit:
            return unfit
        unease = self.quality.unease(pair, home)
        if unease and self.quality.is_better(pair, current, home):
            return f"it {' and '.join(unease)}, and {current} is better"
        return ""

    def _homeward(self, fleet: Fleet, pair: Pair, paths: list[str], intent: Intent, now: float) -> Decision | None:
        """Failback after a hold of a good first path, or of the next best that comes before the pair's own; a person's
        switchover stays until a person ends it."""
        for path in _before(paths, intent):
            since = self._good_since.get(pair, {}).get(path)
            if since is not None and now - since >= self.damping.hold_s(pair):
                nearer = "" if path == paths[0] else f", and comes before {intent.path}"
                return self._to(
                    fleet, pair, path, f"{path} has been proven from both ends for {now - since:.0f} s{nearer}"
                )
        return None

    def homeward_words(self, fleet: Fleet, pair: Pair, now: float) -> str:
        """How far the pair is on its way to the first path, or to the next best; "" when it is there."""
        intent, paths = self.intent(fleet, pair), fleet.paths_of(pair)
        if intent.path == paths[0]:
            return ""
        if intent.origin == "operator":
            return f"a person put it on {intent.path}, and a person ends that"
        words = []
        for path in _before(paths, intent):
            why_not = self._homesick(fleet, pair, path, intent.path, now)
            if not why_not:
                words.append(self._wait_words(pair, path, now))
                break
            words.append(f"{path} is not good enough to go {'home' if path == paths[0] else 'back'} to: {why_not}")
        return "; ".join(words)

    def _wait_words(self, pair: Pair, path: str, now: float) -> str:
        since = self._good_since.get(pair, {}).get(path, now)
        hold_s = self.damping.hold_s(pair)
        usual = self.settings.failback_hold_s
        longer = f", more than {usual:.0f} s since it did not last at home" if hold_s > usual else ""
        return f"{path} has been good for {now - since:.0f} s of {hold_s:.0f} s{longer}"

    def context(self, fleet: Fleet, situation: Situation, now: float, granted: int = 0) -> Context:
        """`granted`: moves of this moment, not recorded yet."""
        return Context(
            settings=self.settings,
            fleet=fleet,
            situation=situation,
            damping=self.damping,
            windows=self.windows,
            moves=len(self._moves) + len(situation.planned) + granted,
            degraded=len(self._degraded),
            alone=lambda pair: self._alone(fleet, pair),
            now=now,
        )

    def _alone(self, fleet: Fleet, pair: Pair) -> bool:
        """Whether the pair is where an agent put it alone, taken over or not yet."""
        intent = self.intents.get(pair)
        if intent is not None and "reflex" in (intent.origin, intent.trial_from_origin):
            return True
        for node, peer in (pair, pair[::-1]):
            state = fleet.nodes.get(node)
            if state is not None and state.observed is not None and peer in state.observed.reflex:
                return True
        return False

    def forbidden(self, fleet: Fleet, situation: Situation, pair: Pair, now: float) -> str:
        """Why nothing may move the pair by itself now, whatever for; "" when it may."""
        return next((guard.block for guard in standing(self.context(fleet, situation, now), pair) if guard.block), "")

    def _guarded(self, wish: Decision, context: Context) -> Decision:
        """The wish itself, or a hold or recommendation in its place."""
        if wish.kind == "hold":
            return wish
        approval = recommended(context, wish.pair, wish)
        for guard in guards(context, wish.pair, wish):
            if guard.block and not (approval and guard.name == "degraded share"):
                return _held(wish, guard)
        if approval:
            reason = f"recommends {wish.kind} to {wish.path}: {wish.reason}"
            return replace(wish, kind="recommend", reason=reason, brief="a person must approve")
        plan = busy(context, wish)
        return _held(wish, plan) if plan.block else wish

    # --- by a person ---------------------------------------------------------------------------------------------

    def limitation(self, fleet: Fleet, pair: Pair, path: str, now: float) -> str:
        """Why a person's move of the pair to `path` should not be made, as a sentence; "" when it may."""
        unfit = self.unfit(fleet, pair, path, now)
        return f"{path} is not proven between {pair[0]} and {pair[1]}, because {unfit}" if unfit else ""


def _before(paths: list[str], intent: Intent) -> list[str]:
    """The paths that the pair would rather be on, best first; none while a person has put it where it is."""
    if intent.origin == "operator":
        return []
    return paths[: paths.index(intent.path)] if intent.path in paths else paths[:1]


def _cause(reason: str) -> str:
    """A hold's reason without its numbers: it is told again when its cause changes, not each time a figure does."""
    return "".join(" " if letter.isdigit() or letter == "." else letter for letter in reason)


def _held(wish: Decision, guard: Guard) -> Decision:
    reason = f"would do {wish.kind} to {wish.path} ({wish.reason}), but {guard.block}"
    return replace(wish, kind="hold", reason=reason, brief=guard.brief)


def _rank(situation: Situation, pair: Pair, path: str) -> int:
    """How bad the verdict on the path is; 0: not impaired."""
    verdict = situation.links.get((pair, path))
    return _IMPAIRED.index(verdict.state) + 1 if verdict is not None and verdict.state in _IMPAIRED else 0
