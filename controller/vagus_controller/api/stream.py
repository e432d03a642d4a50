"""Server-sent events: every change to every open page and `vagusctl watch`, without ever waiting for one of them.

Messages: `fleet` (the whole picture) at first, then `change` (what is another, see views.FleetChange), `event`,
`ledger`, `incident` (one that is new or changed; those that were missed are in /incidents), and `ping` when there was
nothing to say for a while. Changes are encoded, and compressed, once for all, at most every 250 ms; a whole picture is
made of what was told, and only what nobody was told of yet is drawn for it, in steps, between which the controller does
its work. A client that lets too many changes pile up is given one again instead. Events and ledger entries are never
left out in silence: a client that lets too many pile up is cut off, and catches up from history by the id of the last
message that it had, `<last event>-<last ledger entry>`.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cached_property
from time import thread_time
from typing import Final

import msgspec
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from vagus_controller.api.album import Album
from vagus_controller.core.differences import Differences
from vagus_controller.views import (
    Canvas,
    Change,
    EventEntry,
    FleetChange,
    FleetView,
    History,
    IncidentView,
    LedgerEntry,
    Wanted,
)

LOOK_EVERY_S: Final = 0.25
# A large fleet is looked at less often, so that looking takes no more than this share of the loop.
_LOOK_SHARE: Final = 0.1
# But so often that no client takes the stream for dead.
_LOOK_AT_LEAST_EVERY_S: Final = 2.0
# Clients that come within this time of each other, after a restart, are given the same picture.
_PICTURE_S: Final = 2.0
# A page that another page leads to is opened when that one's stream has ended: what was told is kept up to date for so
# long after the last client has left.
LINGER_S: Final = 30.0
# Nodes and pairs, of those that nobody was told of yet, that are drawn in one go: some 15 ms.
_AT_A_TIME: Final = 250
# The page calls a stream dead after 6 s of silence.
PING_AFTER_S: Final = 3.0
# A message that the client's kernel does not take for so long: nobody reads there.
SEND_WITHIN_S: Final = 20.0
MAX_SUBSCRIBERS: Final = 100
MAX_QUEUED: Final = 1000
# Changes that wait for one client; after more of them it is given the whole picture.
MAX_CHANGES: Final = 20
# Entries that a returning client is given; one that was away for longer reads /events and /ledger.
MAX_RESUMED: Final = 500
_COMPRESSION: Final = 3
# Bytes that take some milliseconds to compress.
_PACK_ASIDE: Final = 500_000
_PING: Final = b"event: ping\ndata: {}\n\n"
# Of a gzip stream; what follows are blocks of deflate that do not refer to each other: each is made once for all.
_GZIP_HEAD: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

_encode = msgspec.json.Encoder().encode


class Full(Exception):
    """As many streams are open as are allowed."""


class Message:
    """A message for many clients, encoded, and compressed, when the first of them needs it."""

    def __init__(self, topic: bytes, data: FleetView | FleetChange) -> None:
        self._topic, self._data = topic, data

    @cached_property
    def plain(self) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (self._topic, _encode(self._data))

    @cached_property
    def packed(self) -> bytes:
        return pack(self.plain)

    async def pack_aside(self) -> None:
        """`packed`, made by two threads meanwhile when it is large."""
        plain = memoryview(self.plain)
        if len(plain) >= _PACK_ASIDE and "packed" not in self.__dict__:
            half = len(plain) // 2
            halves = await asyncio.gather(*(asyncio.to_thread(pack, part) for part in (plain[:half], plain[half:])))
            self.packed = b"".join(halves)


def pack(data: bytes | memoryview) -> bytes:
    """Whole blocks of deflate, that stand for themselves."""
    deflate = zlib.compressobj(_COMPRESSION, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH)


class Subscriber:
    """What one client has still to be told. `packs`: it takes gzip."""

    def __init__(self, packs: bool = False) -> None:
        self.packs = packs
        # Ids of the newest event and ledger entry that it has been given.
        self.marks = (0, 0)
        self.entries: deque[EventEntry | LedgerEntry | IncidentView] = deque()
        self.changes: list[Message] = []
        # It has no picture that changes could belong to.
        self.behind = True
        self.over = False
        self.news = asyncio.Event()

    def add(self, entry: EventEntry | LedgerEntry | IncidentView) -> None:
        if len(self.entries) >= MAX_QUEUED:
            self.entries.clear()
            self.over = True
        if not self.over:
            self.entries.append(entry)
        self.news.set()

    def change(self, message: Message) -> None:
        if self.behind:
            return
        if len(self.changes) < MAX_CHANGES:
            self.changes.append(message)
        else:
            self.changes.clear()
            self.behind = True
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
        told = self.written(b"".join(parts)) if parts else b""
        told += b"".join(message.packed if self.packs else message.plain for message in self.changes)
        self.changes.clear()
        return told

    def written(self, data: bytes) -> bytes:
        """`data` as this client takes it."""
        return pack(data) if self.packs else data


class ChangeFeed:
    """Where the daemon publishes. All of it runs in the event loop."""

    def __init__(self) -> None:
        self._subscribers: set[Subscriber] = set()
        self._differences, self._album = Differences(), Album()
        self._canvas: Callable[[], Canvas] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # runs while the last client has left and its picture is kept up
        self._lingering: asyncio.TimerHandle | None = None
        self._next_look_at = 0.0
        # the last whole picture, while it is new, when it was drawn, and the changes since
        self._picture: Message | None = None
        self._picture_at = 0.0
        self._since_picture: list[Message] = []

    @property
    def subscribers(self) -> int:
        return len(self._subscribers)

    def publish(self, change: Change) -> None:
        for subscriber in self._subscribers:
            subscriber.add(change.data)

    def show(self, canvas: Callable[[], Canvas]) -> None:
        """There may be something new to see; `canvas` draws it when it is due, if anybody looks or lately did."""
        if not self._watched or self._timer is not None:
            return
        self._canvas = canvas
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(self._next_look_at - loop.time(), 0.0), self._look)

    @property
    def _watched(self) -> bool:
        return bool(self._subscribers) or self._lingering is not None

    def _look(self) -> None:
        self._timer = None
        if not self._watched or self._canvas is None:
            return
        loop = asyncio.get_running_loop()
        started = thread_time()
        self._tell(self._differences.look(self._canvas(), loop.time()))
        pause = min((thread_time() - started) / _LOOK_SHARE, _LOOK_AT_LEAST_EVERY_S)
        self._next_look_at = loop.time() + max(pause, LOOK_EVERY_S)

    def _tell(self, change: FleetChange | None) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._picture_at > _PICTURE_S:
            # Nobody will be given it again, nor what came since.
            self._picture, self._since_picture = None, []
        if change is None:
            return
        message = Message(b"change", self._album.take(change, now))
        if self._picture is not None:
            self._since_picture.append(message)
        for subscriber in self._subscribers:
            subscriber.change(message)

    async def picture(self, subscriber: Subscriber, draw: Callable[[], Canvas]) -> bytes:
        """The whole picture for a client that has none; from here on it is told the changes."""
        picture = await self._whole(draw)
        if subscriber.packs:
            await picture.pack_aside()
            if picture is not self._picture:
                picture = await self._whole(draw)
        subscriber.behind = False
        subscriber.changes = list(self._since_picture)
        if self._since_picture:
            subscriber.news.set()
        return picture.packed if subscriber.packs else picture.plain

    async def _whole(self, draw: Callable[[], Canvas]) -> Message:
        """A picture that is new; what is told after it is in `_since_picture`."""
        now = asyncio.get_running_loop().time
        while self._picture is None or now() - self._picture_at > _PICTURE_S:
            canvas = draw()
            change = self._differences.rest(canvas, now(), _AT_A_TIME)
            self._tell(change)
            if change is None or not (change.nodes or change.pairs):
                whole = self._album.whole(canvas.head, canvas.names, canvas.pairs, now())
                self._picture, self._picture_at, self._since_picture = Message(b"fleet", whole), now(), []
                break
            await asyncio.sleep(0)
        assert self._picture is not None
        return self._picture

    def subscribe(self, subscriber: Subscriber) -> None:
        """Raises Full."""
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise Full
        self._subscribers.add(subscriber)
        self._stay()

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)
        if not self._subscribers:
            self._stay()
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self._forget)

    def _stay(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _forget(self) -> None:
        """Nobody looks: what was drawn last is nobody's picture."""
        self._lingering = None
        self._differences, self._album = Differences(), Album()
        self._picture, self._since_picture = None, []

    def close(self) -> None:
        """Ends every stream."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for subscriber in self._subscribers:
            subscriber.over = True
            subscriber.news.set()


def parse_marks(last_event_id: str) -> tuple[int, int] | None:
    """The ids in a Last-Event-ID; None when it is none of ours."""
    event, _, ledger = last_event_id.partition("-")
    if event.isdecimal() and ledger.isdecimal() and event.isascii() and ledger.isascii() and len(last_event_id) < 40:
        return int(event), int(ledger)
    return None


def missed(history: History, marks: tuple[int, int] | None) -> tuple[tuple[int, int], list[EventEntry | LedgerEntry]]:
    """Where history stands now, and what came after `marks`, oldest first. Reads the store: not in the event loop."""
    wanted = Wanted(1 if marks is None else MAX_RESUMED)
    events, ledger = history.events(wanted), history.ledger(wanted)
    newest = (events[0].id if events else 0, ledger[0].id if ledger else 0)
    if marks is None:
        return newest, []
    after: list[EventEntry | LedgerEntry] = [entry for entry in events if entry.id > marks[0]]
    after += [entry for entry in ledger if entry.id > marks[1]]
    return newest, sorted(after, key=lambda entry: (entry.at, entry.id))


class StreamResponse(ASGIResponse):
    """Writes a subscriber's messages until the client goes, may no longer listen (`still`), or does not read any more,
    or the feed closes.

    `catch_up` gives the subscriber what it missed; `draw` gives the fleet as it is now.
    """

    def __init__(
        self,
        feed: ChangeFeed,
        subscriber: Subscriber,
        catch_up: Callable[[], Awaitable[None]],
        draw: Callable[[], Canvas],
        still: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._still = still
        self._feed = feed
        self._subscriber = subscriber
        self._catch_up = catch_up
        self._draw = draw

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscriber = self._subscriber
        gone = asyncio.ensure_future(_wait_for_disconnect(receive, subscriber))
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"x-accel-buffering", b"no"),
            (b"vary", b"accept-encoding"),
        ]
        if subscriber.packs:
            headers.append((b"content-encoding", b"gzip"))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._catch_up()
            told = subscriber.written(b"retry: 1000\n\n") + subscriber.take()
            # An id that the client can return with, also when it has missed nothing.
            told += subscriber.written(b"id: %d-%d\n" % subscriber.marks)
            told += await self._feed.picture(subscriber, self._draw)
            await self._tell(send, _GZIP_HEAD + told if subscriber.packs else told)
            while not (subscriber.over or gone.done()) and self._still():
                try:
                    async with asyncio.timeout(PING_AFTER_S):
                        await subscriber.news.wait()
                except TimeoutError:
                    await self._tell(send, subscriber.written(_PING))
                else:
                    told = subscriber.take()
                    if subscriber.behind:
                        told += await self._feed.picture(subscriber, self._draw)
                    await self._tell(send, told)
            async with asyncio.timeout(SEND_WITHIN_S):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            # Nothing is owed to a client that does not read; uvicorn closes what is not complete.
            return
        finally:
            gone.cancel()
            self._feed.unsubscribe(subscriber)

    async def _tell(self, send: Send, data: bytes) -> None:
        if data:
            async with asyncio.timeout(SEND_WITHIN_S):
                await send({"type": "http.response.body", "body": data, "more_body": True})


async def _wait_for_disconnect(receive: Receive, subscriber: Subscriber) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    subscriber.over = True
    subscriber.news.set()
