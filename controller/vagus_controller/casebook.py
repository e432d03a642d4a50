"""The incidents of the running controller: kept, told to whoever watches, and what persons do about them."""

from __future__ import annotations

import logging
import time
from time import monotonic
from typing import Final

from vagus_controller.chronicle import Chronicle
from vagus_controller.core.brain import Brain
from vagus_controller.core.incidents import Incidents
from vagus_controller.store import Store
from vagus_controller.views import IncidentView

log = logging.getLogger("vagus")

_KEY: Final = "incidents"
# What is no news (more of the same) is written down and told this often: a large incident is 60 kB.
_EVERY_S: Final = 2.0


class Casebook:
    def __init__(self, brain: Brain, store: Store, chronicle: Chronicle) -> None:
        self.incidents = Incidents(brain.fleet, brain.failover, brain.members, store.new_incident_id)
        self._store = store
        self._chronicle = chronicle
        self._changed: dict[int, IncidentView] = {}
        # id → what of it was news when it was last told
        self._told: dict[int, tuple[object, ...]] = {}
        self._due = 0.0

    def restore(self) -> None:
        saved = self._store.load_state(_KEY)
        damage = self.incidents.restore(saved, monotonic()) if saved is not None else ""
        if damage:
            log.error("the saved incidents are damaged (%s): those that last are opened anew", damage)
        self._told = {each.id: _news(each) for each in self.incidents.open(monotonic())}

    def tick(self, now: float) -> None:
        for view in self.incidents.tick(now, time.time()):
            # The newest last.
            self._changed.pop(view.id, None)
            self._changed[view.id] = view
        if self._changed and (
            now >= self._due or any(_news(each) != self._told.get(each.id) for each in self._changed.values())
        ):
            self._due = now + _EVERY_S
            self.save(now)

    def save(self, now: float) -> None:
        self._store.keep_state(_KEY, self.incidents.saved(now))
        for view in self._changed.values():
            self._told.pop(view.id, None)
            if view.state == "open":
                self._told[view.id] = _news(view)
            self._chronicle.incident(view)
        self._changed.clear()

    # --- by a person ---------------------------------------------------------------------------------------------

    def acknowledge(self, incident_id: int, who: str) -> IncidentView:
        now = monotonic()
        done = self.incidents.acknowledge(incident_id, who, now, time.time())
        return self._written("acknowledge", done, "", who, now)

    def note(self, incident_id: int, text: str, who: str) -> IncidentView:
        now = monotonic()
        return self._written("note", self.incidents.note(incident_id, text, who, now, time.time()), text, who, now)

    def resolve(self, incident_id: int, note: str, who: str) -> IncidentView:
        now = monotonic()
        return self._written(
            "resolve", self.incidents.resolve(incident_id, note, who, now, time.time()), note, who, now
        )

    def _written(self, action: str, done: IncidentView, words: str, who: str, now: float) -> IncidentView:
        reason = f"incident {done.id} ({done.title})" + (f": {words}" if words else "")
        self._chronicle.decision(who, action, done.subject or "fleet", reason)
        self._changed[done.id] = done
        self.save(now)
        return done


def _news(view: IncidentView) -> tuple[object, ...]:
    return (view.state, view.severity, view.title, view.did, view.acknowledged_by, len(view.notes))
