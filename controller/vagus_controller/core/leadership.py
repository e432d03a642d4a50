"""Who leads, and under which epoch.

Model. An epoch is a leadership term and the fencing token: agents take a desired only if its (epoch, generation) is
greater than the last they took. The stores of truth are the retained presences of controllers, the retained desired,
and what agents say they accepted. A controller leads under an epoch greater than all it has seen; one that sees another
leader under a greater epoch stands by until that one is gone. Two that collide on one epoch part by their session id.

What the broker retains under our own name in another session is ourselves before a restart, and nobody waits for that.
Who speaks under it now is a twin, by somebody's mistake: it counts as any other controller.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from vagus_protocol.messages import ControllerPresence

# An epoch grows by one a term. Above this, an unsigned word is a mistake or malice: outbidding it would use up the
# numbers, and agents could never be told anything again.
CREDIBLE_EPOCH = 2**62
# How long a leader must be gone before a standby takes over: a broker restart is shorter.
TAKEOVER_S = 5.0


class Change(Struct, frozen=True):
    """`leads` from now on, under `epoch`, and why."""

    leads: bool
    epoch: int
    reason: str


class Leadership:
    def __init__(self, name: str, session: str) -> None:
        self.name = name
        self.session = session
        self.leads = False
        self.epoch = 0
        self.reason = "starting"
        self._seen = 0
        self._others: dict[str, ControllerPresence] = {}
        # those heard by themselves in this broker session; of the others the broker only remembers something
        self._fresh: set[str] = set()
        self._vacant_since: float | None = None

    def saw_epoch(self, epoch: int) -> None:
        """An epoch stands in a signed desired or on our own disk."""
        self._seen = max(self._seen, epoch)

    def heard_epoch(self, epoch: int) -> None:
        """An epoch stands in an unsigned observed or presence."""
        if epoch <= CREDIBLE_EPOCH:
            self.saw_epoch(epoch)

    def new_session(self) -> None:
        """Our broker session is a new one: a broker that died too may remember a leader that is dead."""
        self._fresh.clear()

    def saw_presence(self, presence: ControllerPresence, *, fresh: bool = True) -> Change | None:
        """Another controller's (or another session's) presence. `fresh`: said now, not what the broker retained."""
        if presence.session == self.session:
            return None
        if fresh:
            self._fresh.add(presence.controller)
        self.heard_epoch(presence.epoch)
        self._others[presence.controller] = presence
        if not (self.leads and presence.online and presence.leader):
            return None
        if (presence.epoch, presence.session) > (self.epoch, self.session):
            return self._stand_by(
                f"{presence.controller} leads under epoch {presence.epoch}, this one had {self.epoch}"
            )
        if presence.epoch == self.epoch:
            # What it told under our epoch must not stand beside what we tell.
            return self._lead(f"{presence.controller} took the lead under epoch {self.epoch} too")
        return None

    def doubt_twin(self) -> None:
        """Whoever speaks under our name has been told that we live. If it leads, it will say so again."""
        twin = self._others.get(self.name)
        if twin is not None:
            self._others[self.name] = replace(twin, leader=False)

    def was_refused(self, refused_epoch: int, accepted_epoch: int) -> Change | None:
        """An agent refused our desired since it has accepted a newer epoch."""
        self.heard_epoch(accepted_epoch)
        if not self.leads or refused_epoch != self.epoch or not self.epoch < accepted_epoch <= self._seen:
            return None
        if self._leader() is not None:
            return self._stand_by(f"agents follow epoch {accepted_epoch}, this one had {self.epoch}")
        return self._lead(f"agents had accepted epoch {accepted_epoch}, and nobody leads under it")

    def shares_epoch(self, node: str) -> Change | None:
        """A node has accepted another controller's word, or that of an earlier life of ours, under our epoch."""
        return self._lead(f"{node} follows another word under epoch {self.epoch}") if self.leads else None

    def tick(self, now: float, connected: bool) -> Change | None:
        """Take the lead when nobody has it. Call it only once all retained messages are in."""
        if self.leads or not connected:
            self._vacant_since = None
            return None
        leader = self._leader()
        if leader is not None and leader.controller in self._fresh:
            self._vacant_since = None
            self.reason = f"{leader.controller} leads under epoch {leader.epoch}"
            return None
        if self._vacant_since is None:
            self._vacant_since = now
        others = [other for name, other in self._others.items() if name != self.name or self._has_twin()]
        # One after the other: of two that waited alike, both would lead.
        before = sum(other.online and other.session > self.session for other in others)
        if others and now - self._vacant_since < TAKEOVER_S * (1 + before):
            return None
        if leader is not None:
            return self._lead(f"{leader.controller} led under epoch {leader.epoch}, and does not answer")
        return self._lead("no other controller leads")

    def _leader(self) -> ControllerPresence | None:
        """Another controller that leads."""
        others = [
            p
            for p in self._others.values()
            if p.online and p.leader and (p.controller != self.name or self._has_twin())
        ]
        return max(others, key=lambda presence: presence.epoch, default=None)

    def _has_twin(self) -> bool:
        """Whether another process speaks under our name."""
        return self.name in self._fresh and self._others[self.name].online

    def _lead(self, reason: str) -> Change:
        self.leads, self.epoch, self.reason = True, self._seen + 1, reason
        self._seen = self.epoch
        return Change(True, self.epoch, reason)

    def _stand_by(self, reason: str) -> Change:
        self.leads, self.reason, self._vacant_since = False, reason, None
        return Change(False, self.epoch, reason)
