"""Server-sent events: every change to every open page and `vagusctl watch`, without ever waiting for one of them.

Messages: `fleet` (the whole picture), `event`, `ledger`, `incident` (one that is new or changed; those that were missed
are in /incidents), and `ping` when there was nothing to say for a while. The picture is encoded once for all, at most
every 250 ms, and a client that is slow gets the newest one only. Events and ledger entries are never left out in
silence: a client that lets too many pile up is cut off, and catches up from history by the id of the last message that
it had, `<last event>-<last ledger entry>`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

import msgspec
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from vagus_controller.views import Change, EventEntry, FleetView, History, IncidentView, LedgerEntry

FLEET_EVERY_S: Final = 0.25
# The picture of a large fleet is sent less often, so that encoding it takes no more than this share of the loop.
_ENCODE_SHARE: Final = 0.05
# And so that one client takes no more than this: 1,000 nodes with 4 peers each are 4.5 MB of JSON.
_BYTES_PER_S: Final = 2_000_000
# But so often that no client takes the stream for dead.
_FLEET_AT_LEAST_EVERY_S: Final = 5.0
# The page calls a stream dead after 6 s of silence.
PING_AFTER_S: Final = 3.0
# A message that the client's kernel does not take for so long: nobody reads there.
SEND_WITHIN_S: Final = 20.0
MAX_SUBSCRIBERS: Final = 100
MAX_QUEUED: Final = 1000
# Entries that a returning client is given; one that was away for longer reads /events and /ledger.
MAX_RESUMED: Final = 500
_PING: Final = b"event: ping\ndata: {}\n\n"

_encode = msgspec.json.Encoder().encode


class Full(Exception):
    """As many streams are open as are allowed."""


class Subscriber:
    """What one client has still to be told."""

    def __init__(self) -> None:
        # Ids of the newest event and ledger entry that it has been given.
        self.marks = (0, 0)
        self.entries: deque[EventEntry | LedgerEntry | IncidentView] = deque()
        self.fleet: bytes | None = None
        self.over = False
        self.news = asyncio.Event()

    def add(self, entry: EventEntry | LedgerEntry | IncidentView) -> None:
        if len(self.entries) >= MAX_QUEUED:
            self.entries.clear()
            self.over = True
        if not self.over:
            self.entries.append(entry)
        self.news.set()

    def catch_up(
        self, seen: tuple[int, int] | None, newest: tuple[int, int], entries: list[EventEntry | LedgerEntry]
    ) -> None:
        """`entries` of history came after `seen` and up to `newest`; what was added meanwhile may be among them."""
        later = [
            entry
            for entry in self.entries
            if isinstance(entry, IncidentView) or entry.id > newest[0 if isinstance(entry, EventEntry) else 1]
        ]
        self.entries = deque([*entries, *later])
        self.marks = seen if entries and seen is not None else newest

    def take(self) -> bytes:
        """Everything that waits, as the bytes of messages."""
        self.news.clear()
        parts = []
        while self.entries:
            entry = self.entries.popleft()
            if isinstance(entry, IncidentView):
                parts.append(b"event: incident\ndata: %b\n\n" % _encode(entry))
                continue
            event, ledger = self.marks
            is_event = isinstance(entry, EventEntry)
            self.marks = (max(event, entry.id), ledger) if is_event else (event, max(ledger, entry.id))
            topic = b"event" if is_event else b"ledger"
            parts.append(b"id: %d-%d\nevent: %b\ndata: %b\n\n" % (*self.marks, topic, _encode(entry)))
        if self.fleet is not None:
            parts.append(self.fleet)
            self.fleet = None
        return b"".join(parts)


class ChangeFeed:
    """Where the daemon publishes. All of it runs in the event loop."""

    def __init__(self) -> None:
        self._subscribers: set[Subscriber] = set()
        self._view: FleetView | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._next_fleet_at = 0.0

    @property
    def subscribers(self) -> int:
        return len(self._subscribers)

    @property
    def wants_fleet(self) -> bool:
        """Whether a picture published now would soon be sent; drawing a large fleet's costs as much as encoding it."""
        soon = self._next_fleet_at - FLEET_EVERY_S
        return bool(self._subscribers) and asyncio.get_running_loop().time() >= soon

    def publish(self, change: Change) -> None:
        if isinstance(change.data, FleetView):
            self._view = change.data
            if self._subscribers and self._flush is None:
                loop = asyncio.get_running_loop()
                delay = self._next_fleet_at - loop.time()
                if delay <= 0:
                    self._send_fleet()
                else:
                    self._flush = loop.call_later(delay, self._send_fleet)
        else:
            for subscriber in self._subscribers:
                subscriber.add(change.data)

    def _send_fleet(self) -> None:
        self._flush = None
        if self._view is None:
            return
        started = perf_counter()
        message = fleet_message(self._view)
        self._view = None
        took = perf_counter() - started
        pause = min(max(took / _ENCODE_SHARE, len(message) / _BYTES_PER_S), _FLEET_AT_LEAST_EVERY_S)
        self._next_fleet_at = asyncio.get_running_loop().time() + max(pause, FLEET_EVERY_S)
        for subscriber in self._subscribers:
            subscriber.fleet = message
            subscriber.news.set()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Raises Full."""
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise Full
        self._subscribers.add(subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)

    def close(self) -> None:
        """Ends every stream."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        for subscriber in self._subscribers:
            subscriber.over = True
            subscriber.news.set()


def fleet_message(view: FleetView) -> bytes:
    return b"event: fleet\ndata: " + _encode(view) + b"\n\n"


def first_messages(subscriber: Subscriber, view: FleetView) -> bytes:
    """What a new client is told: what it missed, and the fleet, with an id that it can return with."""
    missed = subscriber.take()
    return b"retry: 1000\n\n" + missed + b"id: %d-%d\n" % subscriber.marks + fleet_message(view)


def parse_marks(last_event_id: str) -> tuple[int, int] | None:
    """The ids in a Last-Event-ID; None when it is none of ours."""
    event, _, ledger = last_event_id.partition("-")
    if event.isdecimal() and ledger.isdecimal() and event.isascii() and ledger.isascii() and len(last_event_id) < 40:
        return int(event), int(ledger)
    return None


def missed(history: History, marks: tuple[int, int] | None) -> tuple[tuple[int, int], list[EventEntry | LedgerEntry]]:
    """Where history stands now, and what came after `marks`, oldest first. Reads the store: not in the event loop."""
    limit = 1 if marks is None else MAX_RESUMED
    events, ledger = history.events(limit=limit), history.ledger(limit=limit)
    newest = (events[0].id if events else 0, ledger[0].id if ledger else 0)
    if marks is None:
        return newest, []
    after: list[EventEntry | LedgerEntry] = [entry for entry in events if entry.id > marks[0]]
    after += [entry for entry in ledger if entry.id > marks[1]]
    return newest, sorted(after, key=lambda entry: (entry.at, entry.id))


class StreamResponse(ASGIResponse):
    """Writes a subscriber's messages until the client goes, may no longer listen (`still`), or does not read any more,
    or the feed closes."""

    def __init__(
        self,
        feed: ChangeFeed,
        subscriber: Subscriber,
        first: Callable[[], Awaitable[bytes]],
        still: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._still = still
        self._feed = feed
        self._subscriber = subscriber
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_wait_for_disconnect(receive, self._subscriber))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")],
                }
            )
            await self._tell(send, await self._first())
            while not (self._subscriber.over or gone.done()) and self._still():
                try:
                    async with asyncio.timeout(PING_AFTER_S):
                        await self._subscriber.news.wait()
                except TimeoutError:
                    await self._tell(send, _PING)
                else:
                    await self._tell(send, self._subscriber.take())
            async with asyncio.timeout(SEND_WITHIN_S):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            # Nothing is owed to a client that does not read; uvicorn closes what is not complete.
            return
        finally:
            gone.cancel()
            self._feed.unsubscribe(self._subscriber)

    async def _tell(self, send: Send, data: bytes) -> None:
        if data:
            async with asyncio.timeout(SEND_WITHIN_S):
                await send({"type": "http.response.body", "body": data, "more_body": True})


async def _wait_for_disconnect(receive: Receive, subscriber: Subscriber) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    subscriber.over = True
    subscriber.news.set()
