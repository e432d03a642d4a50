"""The controller's side of the page, in memory: an Operator and History whose fleet a test sets, and its web server."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace
from playwright.sync_api import BrowserContext, Page

from browser import incident_samples, samples
from browser.waves import Waves
from door import PASSWORD, answers, door
from vagus_controller.api.app import create_app, serve
from vagus_controller.api.stream import ChangeFeed
from vagus_controller.core.differences import Whole
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
    NoteView,
    PauseView,
    PlanAsk,
    PlanView,
    Refused,
    Wanted,
)

TOKEN = "a-token-for-the-browser-tests"


class Board:
    """views.Operator. `asked`: what a person asked for; `refusal`: why every request is refused."""

    def __init__(self) -> None:
        self.view = samples.calm()
        self.event_entries = samples.events()
        self.ledger_entries = samples.ledger()
        self.plan_views: tuple[PlanView, ...] = ()
        self.drill_views: tuple[DrillView, ...] = ()
        # newest first
        self.incident_views = [incident_samples.overlay_of_osaka(), incident_samples.spike_of_last_week()]
        self.asked: list[tuple[Any, ...]] = []
        self.refusal = ""

    def fleet(self) -> FleetView:
        return self.view

    def canvas(self) -> Canvas:
        return Whole(self.view)

    def _ask(self, *what: Any) -> LedgerEntry:
        if self.refusal:
            raise Refused(self.refusal)
        self.asked.append(what)
        return samples.entry(50 + len(self.asked), str(what[0]), str(what[1]), "asked for", "started", who="a person")

    def switchover(self, pair: str, path: str, *, who: str, reason: str, force: bool = False) -> LedgerEntry:
        return self._ask("switchover", pair, path, reason, force)

    def failback(self, pair: str, *, who: str, reason: str) -> LedgerEntry:
        return self._ask("failback", pair, reason)

    def approve(self, pair: str, *, who: str, reason: str) -> LedgerEntry:
        return self._ask("approve", pair, reason)

    def agent(self, node: str) -> AgentView:
        return samples.agent(self.view, node)

    def explain(self, pair: str) -> tuple[CheckView, ...]:
        return samples.checks(pair)

    def channels(self) -> tuple[ChannelView, ...]:
        return incident_samples.channels()

    def plan(self, ask: PlanAsk, *, who: str) -> PlanView:
        self._ask("plan", ask)
        fleet = {pair.name for pair in self.view.pairs}
        canary, *others = sorted(ask.pairs or fleet)
        plan = samples.plan(ask.path, canary, (others or [canary])[0])
        return plan if ask.dry_run else replace(plan, id=8, state="under way")

    def plans(self) -> tuple[PlanView, ...]:
        return self.plan_views

    def drill(self, ask: DrillAsk, *, who: str) -> DrillView:
        self._ask("drill", ask.scope, ask.target, ask.reason)
        return samples.drill(ask.target)

    def drills(self) -> tuple[DrillView, ...]:
        return self.drill_views

    def pause(self, scope: str, target: str, *, who: str, reason: str, for_s: float) -> PauseView:
        self._ask("pause", scope, target, reason, for_s)
        kind: dict[str, Literal["fleet", "site", "node"]] = {"fleet": "fleet", "site": "site", "node": "node"}
        return PauseView(id=9, scope=kind[scope], target=target, reason=reason, who=who, expires_s=for_s)

    def resume(self, pause_id: int, *, who: str) -> None:
        self._ask("resume", pause_id)

    def incidents(self) -> tuple[IncidentView, ...]:
        return tuple(each for each in self.incident_views if each.state == "open")

    def incident(self, incident_id: int) -> IncidentView:
        found = {each.id: each for each in self.incident_views}
        return found[incident_id]

    def _change(self, incident_id: int, **changes: Any) -> IncidentView:
        found = replace(self.incident(incident_id), **changes)
        self.incident_views = [found if each.id == incident_id else each for each in self.incident_views]
        return found

    def acknowledge(self, incident_id: int, *, who: str) -> IncidentView:
        self._ask("acknowledge", incident_id)
        return self._change(incident_id, acknowledged_by=who, acknowledged_at=samples.AT)

    def note(self, incident_id: int, text: str, *, who: str) -> IncidentView:
        self._ask("note", incident_id, text)
        notes = (*self.incident(incident_id).notes, NoteView(at=samples.AT, who=who, text=text))
        return self._change(incident_id, notes=notes)

    def resolve(self, incident_id: int, note: str, *, who: str) -> IncidentView:
        self._ask("resolve", incident_id, note)
        return self._change(incident_id, state="resolved", resolved_by=who, resolution=note, ended_at=samples.AT)


class Past:
    """views.History of a board."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def events(self, wanted: Wanted) -> list[EventEntry]:
        return list(filter(wanted.takes, self._board.event_entries))[: wanted.limit]

    def ledger(self, wanted: Wanted) -> list[LedgerEntry]:
        return list(filter(wanted.takes, self._board.ledger_entries))[: wanted.limit]

    def incidents(self, wanted: Wanted) -> list[IncidentView]:
        return list(filter(wanted.takes, self._board.incident_views))[: wanted.limit]

    def incident(self, incident_id: int) -> IncidentView | None:
        return next((each for each in self._board.incident_views if each.id == incident_id), None)


class Site:
    """The real application on a port of its own, in a thread; it can be stopped and started again on that port."""

    def __init__(self, board: Board, directory: Path) -> None:
        self._directory = directory
        # More of `[http]`.
        self.http: dict[str, Any] = {}
        self.board = board
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._ids = count(1)
        self._told_at = time.monotonic()

    def start(self) -> None:
        """It is there when its port answers."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 15
        while not answers(self.port):
            assert self._thread.is_alive(), "the application ended as it started"
            assert time.monotonic() < deadline, "the application did not start within 15 s"
            time.sleep(0.01)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._feed = ChangeFeed()
        access, http = door(self._directory, TOKEN, host="127.0.0.1", port=self.port, **self.http)
        app = create_app(self.board, Past(self.board), self._feed, access, list, Waves(self.board.fleet), http)
        tasks = [
            asyncio.create_task(serve(app, http)),
            asyncio.create_task(self._tick()),
            asyncio.create_task(self._stopped.wait()),
        ]
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        for task in done:
            task.result()

    async def _tick(self) -> None:
        """As the daemon does: the picture again and again, changed or not."""
        while True:
            self._show()
            await asyncio.sleep(0.5)

    @property
    def streams(self) -> int:
        """Those that are open."""
        return self._feed.subscribers

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(15)
        assert not self._thread.is_alive(), "the application did not stop within 15 s"

    def _show(self) -> None:
        view, at = self.board.view, self._told_at
        self._feed.show(lambda: Whole(samples.aged(view, time.monotonic() - at)))

    def tell(
        self,
        topic: Literal["fleet", "event", "ledger", "incident"],
        data: FleetView | EventEntry | LedgerEntry | IncidentView,
    ) -> None:
        """Publish a change, as the daemon does; a fleet also becomes what the API answers."""
        if isinstance(data, FleetView):
            self.board.view, self._told_at = data, time.monotonic()
            self._loop.call_soon_threadsafe(self._show)
        elif topic != "fleet":
            self._loop.call_soon_threadsafe(self._feed.publish, Change(next(self._ids), topic, data))

    def let_in(self, context: BrowserContext) -> None:
        """Signs in as the form does, without drawing it; the browser has the cookies then."""
        form = {"user": "operator", "password": PASSWORD}
        answer = context.request.post(self.url + "/login", form=form, max_redirects=0)
        assert answer.status == 303, answer.text()

    def sign_in(self, page: Page, user: str = "operator", password: str = PASSWORD) -> None:
        page.goto(self.url + "/login")
        page.get_by_label("User").fill(user)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("#content:not([hidden])")

    def open(self, page: Page, path: str) -> None:
        """Of a page that is signed in."""
        page.goto(self.url + path)
        page.wait_for_selector("#content:not([hidden])")
