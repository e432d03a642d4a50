"""The incidents of the running controller: kept, told to whoever watches, and what persons do about them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from time import monotonic
from typing import Final

import msgspec

from vagus_controller.chronicle import Chronicle
from vagus_controller.config import Config, Notify
from vagus_controller.core.brain import Brain
from vagus_controller.core.incidents import Incidents
from vagus_controller.core.notices import Notice, Notices, Saved
from vagus_controller.notify import Messenger
from vagus_controller.store import Store
from vagus_controller.views import ChannelView, IncidentView, NotificationTest

log = logging.getLogger("vagus")

_KEY: Final = "incidents"
# What is no news (more of the same) is written down and told this often: a large incident is 60 kB.
_EVERY_S: Final = 2.0
# A channel does not wait longer for the disk before it sends.
_PERSIST_S: Final = 5.0
_TEST_S: Final = 30.0


class _Saved(msgspec.Struct):
    incidents: msgspec.Raw
    notices: Saved
    unsent: list[Notice]


class Casebook:
    def __init__(self, config: Config, brain: Brain, store: Store, chronicle: Chronicle) -> None:
        self.incidents = Incidents(
            brain.fleet, brain.failover, brain.members, store.new_incident_id, brain.drills.unfit, brain.quorum.missing
        )
        self._brain = brain
        self._store = store
        self._chronicle = chronicle
        self._notices = Notices(config.notify, brain.failover.windows, self._site_of, config.fleet, config.http.url)
        self._messenger = Messenger(config.notify.channel, self._persist, self._sent)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: dict[int, IncidentView] = {}
        # id → what of it was news when it was last told
        self._told: dict[int, tuple[object, ...]] = {}
        self._due = 0.0

    def restore(self) -> None:
        """What an earlier life knew, told and had still to tell."""
        kept = self._store.load_state(_KEY)
        if kept is None:
            return
        now = monotonic()
        try:
            saved = msgspec.json.decode(kept, type=_Saved)
            damage = self.incidents.restore(bytes(saved.incidents), now)
        except msgspec.MsgspecError as error:
            damage = str(error)
        if damage:
            log.error("the saved incidents are damaged (%s): those that last are opened anew", damage)
            return
        self._notices.restore(saved.notices, self.incidents.every(now), now)
        self._messenger.send(saved.unsent)
        self._told = {each.id: _news(each) for each in self.incidents.open(now)}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._messenger.start()

    def reconfigure(self, settings: Notify) -> None:
        """Other channels from now on."""
        self._notices.reconfigure(settings)
        self._messenger.reconfigure(settings.channel)

    async def stop(self) -> None:
        await asyncio.to_thread(self._messenger.stop)
        self.save(monotonic())

    def tick(self, now: float) -> None:
        at = time.time()
        changed = self.incidents.tick(now, at)
        for view in changed:
            # The newest last.
            self._changed.pop(view.id, None)
            self._changed[view.id] = view
        notices = self._notices.tick(changed, now, at, leads=self._brain.leadership.leads)
        self._messenger.send(notices)
        news = notices or any(_news(each) != self._told.get(each.id) for each in self._changed.values())
        if news or (self._changed and now >= self._due):
            self._due = now + _EVERY_S
            self.save(now)

    def save(self, now: float) -> None:
        saved = _Saved(
            incidents=msgspec.Raw(self.incidents.saved(now)),
            notices=self._notices.saved(now),
            unsent=self._messenger.unsent(),
        )
        self._store.keep_state(_KEY, msgspec.json.encode(saved))
        for view in self._changed.values():
            self._told.pop(view.id, None)
            if view.state == "open":
                self._told[view.id] = _news(view)
            self._chronicle.incident(view)
        self._changed.clear()

    def _site_of(self, node: str) -> str:
        state = self._brain.fleet.nodes.get(node)
        return "" if state is None else state.site

    # --- notifications -------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        return self._messenger.problems()

    def channels(self) -> tuple[ChannelView, ...]:
        wall = time.time()
        return self._messenger.views(lambda name: self._notices.silence(name, wall))

    async def test(self, channel: str, who: str) -> NotificationTest:
        """Raises KeyError for an unknown channel."""
        future = asyncio.wrap_future(self._messenger.test(channel))
        try:
            async with asyncio.timeout(_TEST_S):
                found = await future
        except TimeoutError:
            found = NotificationTest(channel=channel, delivered=False, detail=f"no word of it for {_TEST_S:.0f} s")
        outcome = "delivered" if found.delivered else f"failed: {found.detail}"
        self._chronicle.decision(who, "test", channel, "a test notification", outcome=outcome)
        return found

    def _persist(self) -> None:
        """Messenger's; in one of its threads."""
        done = threading.Event()

        def keep() -> None:
            self.save(monotonic())
            done.set()

        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(keep)
        except RuntimeError:
            # The controller has stopped.
            return
        if done.wait(_PERSIST_S):
            self._store.wait_for_state(_KEY, _PERSIST_S)

    def _sent(self, notice: Notice) -> None:
        """Messenger's; in one of its threads."""
        assert self._loop is not None
        text = f"{notice.channel} was told: {notice.title}"
        try:
            self._loop.call_soon_threadsafe(self.incidents.remark, notice.incident, text, time.time())
        except RuntimeError:
            return

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
