"""`vagusctl watch`: the stream, as a live screen on a terminal or a line at a time, for as long as one looks."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from queue import Empty, Queue
from typing import Final

import typer
from msgspec.structs import replace
from rich.console import Console
from rich.live import Live

from vagus_controller.ctl import incident_tables, tables
from vagus_controller.ctl.client import NOT_ALLOWED, Client, CtlError, Message, decode
from vagus_controller.ctl.picture import Entry, Picture, heard, with_entries
from vagus_controller.ctl.screen import draw
from vagus_controller.ctl.signs import PLAIN, SIGNS
from vagus_controller.views import EventEntry, FleetChange, FleetView, IncidentView, LedgerEntry

_RECONNECT_S: Final = (1.0, 2.0, 5.0, 10.0)
_KINDS: Final[dict[str, type[FleetView | FleetChange | Entry]]] = {
    "fleet": FleetView,
    "change": FleetChange,
    "event": EventEntry,
    "ledger": LedgerEntry,
}
_ENTRIES: Final = 100
# News is drawn so soon, ages that grow so often, and a new size of the terminal at the next look.
_DRAW_EVERY_S: Final = 0.5
_AGES_EVERY_S: Final = 1.0
_LOOK_EVERY_S: Final = 0.1


def messages(client: Client, last_id: str, *, known: bool) -> Iterator[Message | CtlError]:
    """The stream, over every reconnection; why it broke, each time. Raises CtlError where it never began: then a wrong
    address is likelier than a controller that restarts. `known`: it answered before."""
    failures = 0
    while True:
        try:
            for message in client.stream(last_id):
                failures, last_id, known = 0, message.id or last_id, True
                yield message
            broken = CtlError("the stream ended")
        except CtlError as error:
            if error.code == NOT_ALLOWED or not known:
                raise
            broken = error
        yield broken
        time.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])
        failures += 1


# --- a line at a time -----------------------------------------------------------------------------------------------


def lines(client: Client, console: Console, *, json: bool) -> None:
    summary, told = "", False
    for message in messages(client, "", known=False):
        if isinstance(message, CtlError):
            if not told:
                typer.echo(f"vagusctl: {tables.text(str(message)).plain}; trying again", err=True)
            told = True
            continue
        told = False
        if json:
            typer.echo(f'{{"topic":"{message.topic}","data":{message.data}}}')
        elif message.topic in ("fleet", "change"):
            whole = message.topic == "fleet"
            fleet = decode(message.data, FleetView) if whole else decode(message.data, FleetChange).head
            if fleet.summary != summary:
                console.print(tables.fleet_line(fleet))
            summary = fleet.summary
        elif message.topic == "event":
            console.print(tables.event_line(decode(message.data, EventEntry)))
        elif message.topic == "incident":
            console.print(incident_tables.incident_line(decode(message.data, IncidentView)))
        elif message.topic == "ledger":
            console.print(tables.ledger_line(decode(message.data, LedgerEntry)))


# --- a live screen --------------------------------------------------------------------------------------------------


def screen(client: Client, console: Console) -> None:
    """Until Ctrl-C, or what only a person can mend: then the terminal is as it was before."""
    events = decode(client.ask("GET", "/events", limit=_ENTRIES), list[EventEntry])
    ledger = decode(client.ask("GET", "/ledger", limit=_ENTRIES), list[LedgerEntry])
    # What comes between these answers and the stream is in the stream.
    last_id = f"{events[0].id if events else 0}-{ledger[0].id if ledger else 0}"
    queue: Queue[Message | BaseException] = Queue(1000)
    threading.Thread(target=_read, args=(client, last_id, queue), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    signs = SIGNS if "utf" in console.encoding.lower() and os.environ.get("TERM") != "linux" else PLAIN
    picture = with_entries(Picture(heard_at=time.monotonic()), [*events, *ledger])
    drawn, drawn_at, size = None, 0.0, console.size
    with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while True:
            picture = _listened(queue, picture)
            now = time.monotonic()
            news = picture is not drawn and now - drawn_at >= _DRAW_EVERY_S
            if not (news or now - drawn_at >= _AGES_EVERY_S or console.size != size or drawn is None):
                continue
            drawn, drawn_at, size = picture, now, console.size
            live.update(draw(picture, size.width, size.height, now, time.time(), signs), refresh=True)


def _read(client: Client, last_id: str, queue: Queue[Message | BaseException]) -> None:
    """In a thread of its own, so that the screen says how old its picture is while nothing comes."""
    try:
        for message in messages(client, last_id, known=True):
            queue.put(message)
    except BaseException as error:
        queue.put(error)


def _listened(queue: Queue[Message | BaseException], picture: Picture) -> Picture:
    """With all that has come, after a short wait for more."""
    wait: float | None = _LOOK_EVERY_S
    while True:
        try:
            message = queue.get(timeout=wait) if wait else queue.get_nowait()
        except Empty:
            return picture
        wait = None
        if isinstance(message, Message):
            kind = _KINDS.get(message.topic)
            told = decode(message.data, kind) if kind is not None else None
            picture = heard(picture, told, time.monotonic())
        elif isinstance(message, CtlError) and message.code != NOT_ALLOWED:
            picture = replace(picture, trouble=str(message))
        else:
            raise message
