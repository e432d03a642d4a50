"""What a person may ask of the brain. Commands raise `Refused` with what to do instead, `KeyError(name)` for unknown
names."""

from __future__ import annotations

from vagus_controller.core.brain import Brain, pair_named
from vagus_controller.core.failover import Decision, Pair
from vagus_controller.views import LedgerEntry, PauseView, Refused


class Commands:
    def __init__(self, brain: Brain) -> None:
        self._brain = brain

    def switchover(
        self, pair: str, path: str, now: float, *, who: str, reason: str, force: bool = False
    ) -> LedgerEntry:
        """Move a pair to `path` and hold it there."""
        brain, known = self._brain, self._known(pair)
        self._must_lead()
        paths = brain.fleet.paths_of(known)
        if path not in paths:
            raise Refused(f"{path!r} is not a path between {known[0]} and {known[1]}; there are: {', '.join(paths)}")
        if brain.failover.intent(brain.fleet, known).path == path:
            raise Refused(f"{pair} is assigned to {path} already")
        limitation = brain.failover.limitation(brain.fleet, known, path, now)
        if limitation and not force:
            raise Refused(f"{limitation}. To move it all the same, force it and give a reason")
        if limitation and not reason:
            raise Refused("a forced switchover needs a reason: it is kept in the ledger")
        words = (reason or "asked for") + (f" (forced although {limitation})" if limitation else "")
        decision = Decision(kind="switchover", pair=known, path=path, origin="operator", reason=words)
        return self._by_hand(decision, now, who)

    def failback(self, pair: str, now: float, *, who: str, reason: str) -> LedgerEntry:
        """Move a pair to its first path."""
        brain, known = self._brain, self._known(pair)
        self._must_lead()
        home = brain.fleet.paths_of(known)[0]
        if brain.failover.intent(brain.fleet, known).path == home:
            raise Refused(f"{pair} is on its first path, {home}, already")
        limitation = brain.failover.limitation(brain.fleet, known, home, now)
        if limitation:
            raise Refused(
                f"{limitation}. It goes home by itself once {home} is proven, or force a switchover to {home}"
            )
        words = reason or "asked for"
        return self._by_hand(Decision(kind="failback", pair=known, path=home, origin="default", reason=words), now, who)

    def pause(self, scope: str, target: str, now: float, *, who: str, reason: str, for_s: float) -> PauseView:
        """Stop automatic moves of the fleet, a site or a node for a while."""
        brain = self._brain
        pause = brain.pauses.add(brain.fleet, scope, target, reason, who, for_s, now)
        brain.outbox.save()
        self._tell(who, "pause", pause.covers, f"{reason or 'no reason given'}, for {for_s:.0f} s")
        return pause.view(now)

    def resume(self, pause_id: int, *, who: str) -> None:
        """End a pause."""
        pause = self._brain.pauses.end(pause_id)
        self._brain.outbox.save()
        self._tell(who, "resume", pause.covers, f"ends the pause of {pause.who} ({pause.reason})")

    def _by_hand(self, decision: Decision, now: float, who: str) -> LedgerEntry:
        self._brain.failover.record(decision, now)
        self._brain.failover.confirmed(decision.pair, now)
        return self._brain.carry_out([decision], now, who)[0]

    def _tell(self, who: str, action: str, subject: str, reason: str) -> None:
        self._brain.outbox.decision(who, action, subject, reason)
        self._brain.outbox.changed()

    def _must_lead(self) -> None:
        if not self._brain.leadership.leads:
            raise Refused(f"this controller does not lead ({self._brain.leadership.reason}): ask the one that does")

    def _known(self, name: str) -> Pair:
        pair = pair_named(name)
        if pair is None or not self._brain.fleet.has(pair):
            raise KeyError(name)
        return pair
