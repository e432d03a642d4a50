"""The running controller: connects the brain to the event loop, the broker, the store, the web and systemd.

    MQTT ─► brain ─► MQTT, ledger, events, page

Everything runs in one event loop. A link event goes from the socket to the two published desireds in one call.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Final

import msgspec

from vagus_controller.accounts.access import Access
from vagus_controller.api.app import create_app, serve
from vagus_controller.api.auth import load_token
from vagus_controller.api.stream import ChangeFeed
from vagus_controller.archive import Archive
from vagus_controller.assistant import Assistant
from vagus_controller.broker import BrokerSession
from vagus_controller.casebook import Casebook
from vagus_controller.chronicle import Chronicle
from vagus_controller.config import Config
from vagus_controller.config_file import ConfigError, load
from vagus_controller.core import reload
from vagus_controller.core.brain import TICK_S, Brain
from vagus_controller.core.commands import Commands
from vagus_controller.core.picture import Canvas, agent_view
from vagus_controller.core.plans import OPEN
from vagus_controller.core.verdict import Verdict
from vagus_controller.schedule import Schedule
from vagus_controller.store import Store
from vagus_controller.views import (
    AgentView,
    ChannelView,
    CheckView,
    DrillAsk,
    DrillView,
    FleetView,
    IncidentView,
    LedgerEntry,
    NotificationTest,
    PauseView,
    PlanAsk,
    PlanView,
    Severity,
)
from vagus_protocol import topics
from vagus_runtime import logs, memory
from vagus_runtime.sdnotify import Notifier

log = logging.getLogger("vagus")

ASSISTANT_S: Final = 5.0


def run(file: Path, config: Config, fleet_key: bytes) -> int:
    """Run until SIGTERM or SIGINT; the exit code. `file`: what SIGHUP reads again; `config` came from it."""
    memory.one_heap()
    try:
        return asyncio.run(Controller(file, config, fleet_key).run())
    except OSError as error:
        log.error("%s", error if error.filename else error.strerror or error)
        return 1


class _Outbox(Chronicle):
    """brain.Outbox: what is worth remembering goes to the chronicle, the rest to the controller."""

    def __init__(self, store: Store, feed: ChangeFeed, controller: Controller) -> None:
        super().__init__(store, feed)
        self._controller = controller

    def verdicts(self, verdicts: Iterable[Verdict]) -> None:
        found = tuple(verdicts)
        super().verdicts(found)
        self._controller.casebook.incidents.verdicts(found)

    def decision(
        self, who: str, action: str, subject: str, reason: str, *, evidence: Sequence[str] = (), outcome: str = "done"
    ) -> LedgerEntry:
        entry = super().decision(who, action, subject, reason, evidence=evidence, outcome=outcome)
        self._controller.casebook.incidents.acted(entry, monotonic())
        return entry

    def outcome(self, entry: LedgerEntry, outcome: str) -> None:
        super().outcome(entry, outcome)
        self._controller.casebook.incidents.acted(msgspec.structs.replace(entry, outcome=outcome), monotonic())

    def publish(self, topic: str, payload: bytes) -> None:
        self._controller.broker.publish(topic, payload, qos=1, retain=True)

    def save(self) -> None:
        self._controller.save()

    def changed(self) -> None:
        self._controller.show()


class Controller:
    """Implements views.Operator."""

    def __init__(self, file: Path, config: Config, fleet_key: bytes) -> None:
        self.config = config
        self._file = file
        self._store = Store(config.store.url, config.store.keep_days, config.store.keep_rows)
        self._archive = Archive(config.store.url, config.history)
        self._feed = ChangeFeed()
        self._outbox = _Outbox(self._store, self._feed, self)
        session = secrets.token_hex(8)
        self._brain = Brain(config, fleet_key, session, self._outbox, monotonic(), version=version("vagus"))
        self._commands = Commands(self._brain)
        self.casebook = Casebook(config, self._brain, self._store, self._outbox)
        self._assistant = Assistant(config.fleet, config.home_assistant, self._retain)
        self._schedule = Schedule(config.drill.schedule) if config.drill.schedule else None
        self.broker = BrokerSession(
            config.mqtt,
            client_id=f"vagus-{config.fleet}-{config.name}-{session[:6]}",
            subscriptions=(*topics.controller_subscriptions(config.fleet), *self._assistant.subscriptions),
            will=self._brain.presence(online=False),
            on_message=self._on_message,
            on_session=self._on_session,
            on_refused=lambda text: self._outbox.complain(config.name, text, "session"),
        )
        self._notifier = Notifier(os.environ)
        # what was told of disks that do not work
        self._troubles: set[str] = set()
        self._stop = asyncio.Event()
        self._reread = asyncio.Event()

    def _on_message(self, topic: str, payload: bytes, _retained: bool) -> None:
        if not self._assistant.take(topic, payload):
            self._brain.on_message(topic, payload, monotonic())

    def _on_session(self, connected: bool, reason: str) -> None:
        self._assistant.new_session()
        self._brain.on_session(connected, reason, monotonic())

    def _retain(self, topic: str, payload: bytes) -> bool:
        return self.broker.publish(topic, payload, qos=1, retain=True)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reread.set)
        self._store.start()
        self._store.close_open(OPEN, "not known: the controller ended before it was over; what goes on is told anew")
        self._archive.start()
        self._restore()
        self.casebook.start()
        http = self.config.http
        self._access = Access(http, load_token(http.token_file), self._outbox.decision)
        self._access.start()
        app = create_app(self, self._store, self._feed, self._access, self._problems, self._archive, http)
        self.broker.start()
        tasks = [
            asyncio.ensure_future(serve(app, self.config.http)),
            asyncio.ensure_future(self._tick_loop()),
            asyncio.ensure_future(self._settle_loop()),
            asyncio.ensure_future(self._assistant_loop()),
            asyncio.ensure_future(self._reload_loop()),
        ]
        stopping = asyncio.ensure_future(self._stop.wait())
        self._notifier.ready()
        log.info("%s runs for fleet %s, http://%s:%d", self.config.name, self.config.fleet, http.host, http.port)
        try:
            await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            failed = next((task for task in tasks if task.done()), None)
            if failed is not None:
                error = failed.exception()
                if isinstance(error, OSError):
                    raise error
                log.critical("a part of the controller failed; it stops, for systemd to start it again", exc_info=error)
                return 1
            return 0
        finally:
            self._notifier.stopping()
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.gather(stopping, *tasks, return_exceptions=True)
            self._brain.goodbye(monotonic())
            await self.broker.stop()
            self.save()
            self._archive.stop()
            await self.casebook.stop()
            self._store.stop()

    def _restore(self) -> None:
        saved = self._store.load_state("controller")
        self.casebook.restore()
        damage = self._brain.restore(saved, monotonic()) if saved is not None else ""
        if damage:
            log.error("the saved state is damaged (%s): starting from what the broker retains", damage)

    def save(self) -> None:
        self._store.keep_state("controller", self._brain.saved(monotonic()))

    async def _settle_loop(self) -> None:
        """After each connect: wait until all retained messages are in, then let the brain speak."""
        while True:
            await self.broker.barrier()
            self._brain.settled(monotonic())
            await asyncio.sleep(TICK_S / 5)

    async def _assistant_loop(self) -> None:
        """Home Assistant hears of changes within seconds; of a hundred nodes at each tick would cost too much."""
        while True:
            await self.broker.barrier()
            if self._brain.leadership.leads and not self._assistant.idle:
                self._assistant.keep(self.fleet())
            await asyncio.sleep(ASSISTANT_S)

    async def _tick_loop(self) -> None:
        due = monotonic()
        while True:
            started = monotonic()
            self._brain.tick(started, time.time())
            self._archive.take(self._brain.fleet.nodes, started, time.time())
            self.casebook.tick(monotonic())
            if self._schedule is not None and self._schedule.due(time.time()):
                self._commands.scheduled_drill(started)
            self._tell_troubles()
            self._notifier.status(self._brain.summary(started))
            self._notifier.watchdog()
            due = max(due + TICK_S, monotonic())
            await asyncio.sleep(due - monotonic())

    async def _reload_loop(self) -> None:
        """The configuration is read again: all of it counts that can, or, with a mistake in it, nothing."""
        while True:
            await self._reread.wait()
            self._reread.clear()
            self._notifier.reloading(monotonic())
            try:
                read = await asyncio.to_thread(load, self._file, files=True)
            except ConfigError as error:
                for mistake in error.mistakes:
                    log.error("%s", mistake)
                text = f"the configuration was not taken, and the old one stays: {error.brief}"
                self._tell(text, Severity.WARNING)
            else:
                plan = reload.plan(self.config, read)
                self._take(plan.config)
                if plan.waiting:
                    self._tell(f"changed, and needs a restart: {', '.join(plan.waiting)}", Severity.WARNING)
                what = ", ".join(plan.changed) or "nothing that can change while the controller runs"
                self._tell(f"configuration read again; changed: {what}", Severity.INFO)
            self._notifier.ready()

    def _take(self, config: Config) -> None:
        """Run by `config` from now on. Also when it is the same: files that it names may be others."""
        if config.drill != self.config.drill:
            self._schedule = Schedule(config.drill.schedule) if config.drill.schedule else None
        self.config = config
        logs.set_level(config.log_level)
        self._brain.reconfigure(config)
        self.casebook.reconfigure(config.notify)

    def _tell(self, text: str, severity: Severity) -> None:
        self._outbox.event("controller", "configuration", self.config.name, text, severity)

    def show(self) -> None:
        """Tell whoever watches what is another."""
        self._feed.show(self.canvas)

    def _disk_problems(self) -> list[str]:
        return [problem for problem in (self._store.problem, self._archive.problem) if problem]

    def _tell_troubles(self) -> None:
        """An event too, when it begins: who reads the page reads no log."""
        before, self._troubles = self._troubles, set(self._disk_problems())
        for problem in sorted(self._troubles - before):
            self._outbox.complain(self.config.name, problem, "store")

    def _problems(self) -> list[str]:
        """What keeps this controller from doing its work, in words; empty when all is well."""
        problems = self._disk_problems()
        if not self.broker.connected:
            problems.append("no broker session")
        return problems + self._access.problems + self.casebook.problems()

    # --- views.Operator ------------------------------------------------------------------------------------------

    def fleet(self) -> FleetView:
        return self.canvas().whole()

    def canvas(self) -> Canvas:
        now = monotonic()
        incidents = self.casebook.incidents.briefs(now)
        return self._brain.canvas(now, at=time.time(), broker=self.broker.broker, incidents=incidents)

    def agent(self, node: str) -> AgentView:
        return agent_view(self._brain.fleet, node)

    def explain(self, pair: str) -> tuple[CheckView, ...]:
        return self._brain.explain(pair, monotonic())

    def switchover(self, pair: str, path: str, *, who: str, reason: str, force: bool = False) -> LedgerEntry:
        return self._commands.switchover(pair, path, monotonic(), who=who, reason=reason, force=force)

    def failback(self, pair: str, *, who: str, reason: str) -> LedgerEntry:
        return self._commands.failback(pair, monotonic(), who=who, reason=reason)

    def approve(self, pair: str, *, who: str, reason: str) -> LedgerEntry:
        return self._commands.approve(pair, monotonic(), who=who, reason=reason)

    def plan(self, ask: PlanAsk, *, who: str) -> PlanView:
        return self._commands.plan(ask, monotonic(), who=who)

    def plans(self) -> tuple[PlanView, ...]:
        return self._brain.plans.views(monotonic())

    def drill(self, ask: DrillAsk, *, who: str) -> DrillView:
        return self._commands.drill(ask, monotonic(), who=who)

    def drills(self) -> tuple[DrillView, ...]:
        return self._brain.drills.views(monotonic())

    def pause(self, scope: str, target: str, *, who: str, reason: str, for_s: float) -> PauseView:
        return self._commands.pause(scope, target, monotonic(), who=who, reason=reason, for_s=for_s)

    def resume(self, pause_id: int, *, who: str) -> None:
        self._commands.resume(pause_id, monotonic(), who=who)

    def incidents(self) -> tuple[IncidentView, ...]:
        return self.casebook.incidents.open(monotonic())

    def incident(self, incident_id: int) -> IncidentView:
        return self.casebook.incidents.find(incident_id, monotonic())

    def acknowledge(self, incident_id: int, *, who: str) -> IncidentView:
        return self.casebook.acknowledge(incident_id, who)

    def note(self, incident_id: int, text: str, *, who: str) -> IncidentView:
        return self.casebook.note(incident_id, text, who)

    def resolve(self, incident_id: int, note: str, *, who: str) -> IncidentView:
        return self.casebook.resolve(incident_id, note, who)

    def channels(self) -> tuple[ChannelView, ...]:
        return self.casebook.channels()

    async def test_channel(self, name: str, *, who: str) -> NotificationTest:
        return await self.casebook.test(name, who)
