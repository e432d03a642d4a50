"""A controller's incidents and notices: the real ones, kept and told as its casebook does it, but by no thread."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

import msgspec

from sim.engine import Process
from vagus_controller.config import Config
from vagus_controller.core.brain import Brain
from vagus_controller.core.incidents import Incidents
from vagus_controller.core.notices import Notice, Notices, Saved
from vagus_controller.views import IncidentView


class Reader(Protocol):
    """Whoever is told."""

    def incident(self, view: IncidentView) -> None:
        """One that is new, or changed."""

    def notice(self, notice: Notice) -> None: ...


class Disk(msgspec.Struct):
    incidents: msgspec.Raw = msgspec.Raw(b"[]")
    notices: Saved = msgspec.field(default_factory=Saved)
    unsent: list[Notice] = []
    # an incident's: not always the newest, since the store keeps its lines later
    number: int = 0


class Casebook:
    """One life's; `keep(disk)` is its disk."""

    def __init__(
        self,
        process: Process,
        config: Config,
        brain: Brain,
        disk: bytes,
        keep: Callable[[bytes], None],
        reader: Reader,
        rng: random.Random,
    ) -> None:
        self.incidents = Incidents(
            brain.fleet, brain.failover, brain.members, self._take_number, brain.drills.unfit, brain.quorum.missing
        )
        self._process, self._brain, self._keep, self._reader, self._rng = process, brain, keep, reader, rng
        self._notices = Notices(config.notify, brain.failover.windows, lambda _: "", config.fleet, "")
        self._unsent: list[Notice] = []
        self._number = self._number_on_disk = 0
        if disk:
            now = process.now
            kept = msgspec.json.decode(disk, type=Disk)
            damage = self.incidents.restore(bytes(kept.incidents), now)
            assert not damage, damage
            self._notices.restore(kept.notices, self.incidents.every(now), now)
            self._number = self._number_on_disk = kept.number
            self._unsent = kept.unsent
            self._send(kept.unsent)

    def tick(self, now: float, wall: float) -> None:
        changed = self.incidents.tick(now, wall)
        for view in changed:
            self._reader.incident(view)
        notices = self._notices.tick(changed, now, wall, leads=self._brain.leadership.leads)
        self._unsent += notices
        if changed or notices:
            self._save(now)
        self._send(notices)

    def pass_time(self, now: float, wall: float, seconds: float) -> None:
        """Nothing happens for so long: every verdict stays as it is."""
        for step in range(1, round(seconds / 5.0) + 1):
            if not any(incident.quiet_since is not None for incident in self.incidents._homes.live.values()):
                break
            self.tick(now + 5.0 * step, wall + 5.0 * step)
        while self._unsent:
            self._sent(self._unsent[0])

    def _send(self, notices: list[Notice]) -> None:
        """Once it is on disk, and the network has its time; a death between the two lets the next life do it."""
        for notice in notices:
            self._process.after(self._rng.uniform(0.01, 0.5), self._sent, notice)

    def _sent(self, notice: Notice) -> None:
        if any(each is notice for each in self._unsent):
            self._unsent = [each for each in self._unsent if each is not notice]
            self._reader.notice(notice)
            self._save(self._process.now)

    def _save(self, now: float) -> None:
        saved = Disk(
            incidents=msgspec.Raw(self.incidents.saved(now)),
            notices=self._notices.saved(now),
            unsent=self._unsent,
            number=self._number_on_disk,
        )
        self._number_on_disk = self._number
        self._keep(msgspec.json.encode(saved))

    def _take_number(self, above: int) -> int:
        self._number = max(self._number, above) + 1
        return self._number
