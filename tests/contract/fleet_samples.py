"""The API under test: an Operator in memory over the pictures of `browser.samples`, a real store, the real server."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from browser import incident_samples, samples
from door import answers, door
from vagus_controller.api.app import create_app, serve
from vagus_controller.api.stream import ChangeFeed
from vagus_controller.archive import Archive
from vagus_controller.config import History
from vagus_controller.core.differences import Whole
from vagus_controller.store import Store
from vagus_controller.views import (
    AgentView,
    Canvas,
    Change,
    ChannelView,
    CheckView,
    DrillAsk,
    DrillView,
    EventEntry,
    FleetView,
    IncidentView,
    LedgerEntry,
    NotificationTest,
    Operator,
    PauseView,
    PlanAsk,
    PlanView,
    Refused,
    Severity,
)

TOKEN = "a-token-for-the-contract-tests"


class MemoryOperator:
    """views.Operator. `asked` holds what a person asked for; `refusal` makes every command refused."""

    def __init__(self, view: FleetView | None = None) -> None:
        self.view = view or samples.calm()
        self.asked: list[tuple[Any, ...]] = []
        self.refusal = ""
        self.open = {12: incident_samples.overlay_of_osaka()}

    def fleet(self) -> FleetView:
        return self.view

    def canvas(self) -> Canvas:
        return Whole(self.fleet())

    def agent(self, node: str) -> AgentView:
        return samples.agent(self.view, node)

    def explain(self, pair: str) -> tuple[CheckView, ...]:
        return samples.checks(pair)

    def _command(self, *what: Any) -> None:
        if self.refusal:
            raise Refused(self.refusal)
        self.asked.append(what)

    def switchover(self, pair: str, path: str, *, who: str, reason: str, force: bool = False) -> LedgerEntry:
        self._command("switchover", pair, path, who, reason, force)
        return samples.entry(len(self.asked), "switchover", pair, reason, "started", who=who)

    def failback(self, pair: str, *, who: str, reason: str) -> LedgerEntry:
        self._command("failback", pair, who, reason)
        return samples.entry(len(self.asked), "failback", pair, reason, "started", who=who)

    def approve(self, pair: str, *, who: str, reason: str) -> LedgerEntry:
        self._command("approve", pair, who, reason)
        return samples.entry(len(self.asked), "failover", pair, reason, "on trial at both ends", who=who)

    def plan(self, ask: PlanAsk, *, who: str) -> PlanView:
        self._command("plan", ask, who)
        made = samples.plan(ask.path, self.view.pairs[0].name, self.view.pairs[1].name)
        return msgspec.structs.replace(made, state="dry run", id=0) if ask.dry_run else made

    def plans(self) -> tuple[PlanView, ...]:
        return (samples.plan("backup", self.view.pairs[0].name, self.view.pairs[1].name),)

    def drill(self, ask: DrillAsk, *, who: str) -> DrillView:
        self._command("drill", ask, who)
        return samples.drill(ask.target or self.view.pairs[0].name)

    def drills(self) -> tuple[DrillView, ...]:
        return (samples.drill(self.view.pairs[0].name),)

    def pause(self, scope: str, target: str, *, who: str, reason: str, for_s: float) -> PauseView:
        self._command("pause", scope, target, who, reason, for_s)
        pause = PauseView(
            id=len(self.asked) + 10,
            scope=scope,  # type: ignore[arg-type]
            target=target,
            reason=reason,
            who=who,
            expires_s=for_s,
        )
        self.view = msgspec.structs.replace(self.view, pauses=(*self.view.pauses, pause))
        return pause

    def resume(self, pause_id: int, *, who: str) -> None:
        left = tuple(pause for pause in self.view.pauses if pause.id != pause_id)
        if left == self.view.pauses:
            raise KeyError(str(pause_id))
        self._command("resume", pause_id, who)
        self.view = msgspec.structs.replace(self.view, pauses=left)

    def incidents(self) -> tuple[IncidentView, ...]:
        return tuple(self.open.values())

    def incident(self, incident_id: int) -> IncidentView:
        return self.open[incident_id]

    def acknowledge(self, incident_id: int, *, who: str) -> IncidentView:
        self._command("acknowledge", self.open[incident_id].id, who)
        return self._changed(incident_id, acknowledged_by=who)

    def note(self, incident_id: int, text: str, *, who: str) -> IncidentView:
        self._command("note", self.open[incident_id].id, text, who)
        return self.open[incident_id]

    def resolve(self, incident_id: int, note: str, *, who: str) -> IncidentView:
        self._command("resolve", self.open[incident_id].id, note, who)
        return self._changed(incident_id, state="resolved", resolved_by=who, resolution=note)

    def channels(self) -> tuple[ChannelView, ...]:
        return incident_samples.channels()

    async def test_channel(self, name: str, *, who: str) -> NotificationTest:
        if name not in ("ops", "team"):
            raise KeyError(name)
        self._command("test", name, who)
        return NotificationTest(
            channel=name, delivered=name == "ops", detail="taken after 0.2 s" if name == "ops" else "refused"
        )

    def _changed(self, incident_id: int, **changes: Any) -> IncidentView:
        self.open[incident_id] = msgspec.structs.replace(self.open[incident_id], **changes)
        return self.open[incident_id]


class Running:
    """The server on a free port, in a thread of its own. As a context manager it stops at the end."""

    def __init__(self, database: Path, operator: Operator | None = None, **http: Any) -> None:
        """`operator`: another one than that in memory."""
        self.operator = MemoryOperator()
        self.store = Store(f"sqlite:///{database}", 90.0, 10_000)
        self.changes = ChangeFeed()
        self.problems: list[str] = []
        self.archive = Archive(f"sqlite:///{database}", History())
        self.audited: list[tuple[Any, ...]] = []
        self.later_s = 0.0
        self.access, http = door(database.parent, TOKEN, self._audit, lambda: time.time() + self.later_s, **http)
        self._app = create_app(
            operator or self.operator, self.store, self.changes, self.access, lambda: self.problems, self.archive, http
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._sequence = 0
        self._http = msgspec.structs.replace(http, host="127.0.0.1", port=self.port)

    def _audit(self, *line: Any, outcome: str = "done") -> None:
        self.audited.append((*line, outcome))

    def __enter__(self) -> Self:
        self.store.start()
        self.archive.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.archive.stop()
        self.store.stop()

    def start(self) -> None:
        """Also after a stop, on the same port."""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(15), "the server did not start within 15 s"
        self.until(lambda: answers(self.port), "the server answers")

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._serving.cancel)
            self._thread.join(15)
        assert not self._thread.is_alive(), "the server did not stop within 15 s"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._serving = asyncio.ensure_future(serve(self._app, self._http))
        self._ready.set()
        await asyncio.gather(self._serving, return_exceptions=True)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 20
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline, f"not within 20 s: {what}"
            pause.wait(0.01)

    def event(self, subject: str, text: str) -> EventEntry:
        return self.store.record_event(
            at=time.time(), source="pi-1", kind="link", subject=subject, text=text, severity=Severity.INFO
        )

    def decision(self, subject: str) -> LedgerEntry:
        return self.store.record_ledger(
            at=time.time(),
            who="vagus",
            action="failover",
            subject=subject,
            reason="the overlay is down",
            evidence=("6 probes in a row without an answer",),
            outcome="done",
        )

    def publish(
        self,
        topic: Literal["fleet", "event", "ledger", "incident"],
        data: FleetView | EventEntry | LedgerEntry | IncidentView,
    ) -> None:
        """As the daemon does, in its event loop. A fleet also becomes what the API answers."""
        if isinstance(data, FleetView):
            self.operator.view = data
            self._loop.call_soon_threadsafe(self.changes.show, lambda: Whole(data))
        elif topic != "fleet":
            self._sequence += 1
            self._loop.call_soon_threadsafe(self.changes.publish, Change(self._sequence, topic, data))
