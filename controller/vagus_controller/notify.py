"""Sends notices by Apprise: a thread for each channel, so that one that hangs delays no other, and nothing else at all.

What a channel does not take is tried again, more and more seldom. Of one incident only the newest notice waits: an
incident that ended while its channel was out is told once, as over. Before each attempt what is about to be sent is on
disk as being sent, so that a controller that is killed in the middle tells nothing twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal

from vagus_controller.config import Channel
from vagus_controller.core.notices import Notice
from vagus_controller.core.verdict import seconds
from vagus_controller.views import ChannelView, NotificationTest, Severity
from vagus_runtime.settings import ConfigError, read_secret

log = logging.getLogger("vagus.notify")

TIMEOUT_S: Final = 10.0
_RETRY_S: Final = 5.0
_RETRY_MOST_S: Final = 300.0
_MOST_WAITING: Final = 100
# A notice that waited for longer says so.
_LATE_S: Final = 60.0
_STOP_WAIT_S: Final = 2.0
_MOST_WORDS: Final = 200
# What is shorter is no secret, but a word.
_SECRET_LENGTH: Final = 6
_LOOKS: Final = {
    Severity.OK: "success",
    Severity.INFO: "info",
    Severity.UNKNOWN: "warning",
    Severity.WARNING: "warning",
    Severity.CRITICAL: "failure",
}


class Messenger:
    """`persist`: blocks until what `unsent` gives is on disk; `sent`: told of each notice that was taken. The channels'
    threads call both."""

    def __init__(
        self,
        channels: Iterable[Channel],
        persist: Callable[[], None],
        sent: Callable[[Notice], None],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._line: Callable[[Channel], _Line] = lambda channel: _Line(channel, persist, sent, timeout_s)
        self._lines = {channel.name: self._line(channel) for channel in channels}

    def reconfigure(self, channels: Iterable[Channel]) -> None:
        """Other channels from now on, of a messenger that was started. What waits for one that stays is sent by it, to
        where it leads now."""
        before, self._lines = self._lines, {}
        for channel in channels:
            line = before.pop(channel.name, None)
            if line is None:
                line = self._line(channel)
                line.thread.start()
            else:
                line.renew(channel)
            self._lines[channel.name] = line
        for gone in before.values():
            gone.stop()

    def start(self) -> None:
        for line in self._lines.values():
            line.thread.start()

    def stop(self) -> None:
        """Nothing new is begun. Waits for what is being sent, for seconds."""
        for line in self._lines.values():
            line.stop()
        until = monotonic() + _STOP_WAIT_S
        for line in self._lines.values():
            if line.thread.is_alive():
                line.thread.join(max(0.0, until - monotonic()))

    def send(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            if notice.channel in self._lines:
                self._lines[notice.channel].add(notice)

    def test(self, channel: str) -> Future[NotificationTest]:
        """Raises KeyError for an unknown channel."""
        return self._lines[channel].test()

    def unsent(self) -> list[Notice]:
        """What waits, without what is being sent now."""
        return [notice for line in self._lines.values() for notice in line.unsent()]

    def views(self, quiet: Callable[[str], str]) -> tuple[ChannelView, ...]:
        return tuple(line.view(quiet(name)) for name, line in self._lines.items())

    def problems(self) -> list[str]:
        return [line.problem() for line in self._lines.values() if line.failure]


class _Line:
    """One channel and its thread. Only the thread touches the service."""

    def __init__(
        self, channel: Channel, persist: Callable[[], None], sent: Callable[[Notice], None], timeout_s: float
    ) -> None:
        self.channel = channel
        self.thread = threading.Thread(target=self._work, name=f"vagus-notify-{channel.name}", daemon=True)
        self.failure = ""
        self._persist = persist
        self._told = sent
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        # incident → its newest notice, and since when it waits
        self._waiting: dict[int, tuple[Notice, float]] = {}
        self._sending: int | None = None
        self._tests: list[Future[NotificationTest]] = []
        self._stopping = False
        self._try_at = 0.0
        self._failures = 0
        # made of what this channel said, at this URL
        self._service: Any = None
        self._made_of: Channel | None = None
        self._url = ""
        self._name = ""
        self._sent = self._failed = self._dropped = 0
        self._sent_at: float | None = None
        self._failed_at: float | None = None

    # --- from any thread -----------------------------------------------------------------------------------------

    def add(self, notice: Notice) -> None:
        with self._lock:
            _, since = self._waiting.pop(notice.incident, (notice, monotonic()))
            if self._sending == notice.incident:
                since = monotonic()
            self._waiting[notice.incident] = (notice, since)
            while len(self._waiting) > _MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
                self._dropped += 1
            self._wake.notify()

    def test(self) -> Future[NotificationTest]:
        future: Future[NotificationTest] = Future()
        with self._lock:
            self._tests.append(future)
            self._wake.notify()
        return future

    def renew(self, channel: Channel) -> None:
        """As it says from now on; its URL is read again."""
        with self._lock:
            self.channel = channel
            self._try_at, self._failures = 0.0, 0
            self._wake.notify()

    def unsent(self) -> list[Notice]:
        with self._lock:
            return [notice for incident, (notice, _) in self._waiting.items() if incident != self._sending]

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            self._wake.notify()

    def problem(self) -> str:
        return f"notification channel {self.channel.name} fails: {self.failure}"

    def view(self, quiet: str) -> ChannelView:
        channel = self.channel
        with self._lock:
            return ChannelView(
                name=channel.name,
                service=self._name,
                severities=channel.severities,
                kinds=channel.kinds,
                sites=channel.sites,
                repeat_s=channel.repeat_s,
                quiet=quiet,
                state="fails" if self.failure else "works" if self._sent else "idle",
                waiting=len(self._waiting),
                sent=self._sent,
                failed=self._failed,
                dropped=self._dropped,
                last_sent_at=self._sent_at,
                last_failed_at=self._failed_at,
                failure=self.failure,
            )

    # --- the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        self._set_up(self.channel)
        while True:
            with self._lock:
                self._wake.wait_for(lambda: self._stopping or bool(self._tests) or self._is_due(), self._pause())
                if self._stopping:
                    return
                tests, self._tests = self._tests, []
                found = next(iter(self._waiting.values())) if not tests and self._is_due() else None
                self._sending = found[0].incident if found is not None else None
            for test in tests:
                test.set_result(self._try_test())
            if found is not None:
                self._try(*found)

    def _set_up(self, channel: Channel) -> str:
        """Why there is no service. The URL was checked at the start, but its file may be another since."""
        try:
            url = url_of(channel)
            service = service_of(url, self._timeout_s)
        except ConfigError as error:
            return str(error)
        except Exception as error:
            # A library that cannot be loaded must not end the thread.
            return f"Apprise cannot be used: {type(error).__name__}"
        self._service, self._made_of, self._url = service, channel, url
        self._name = str(service.service_name)
        return ""

    def _is_due(self) -> bool:
        return bool(self._waiting) and monotonic() >= self._try_at

    def _pause(self) -> float | None:
        return max(self._try_at - monotonic(), 0.0) if self._waiting else None

    def _try_test(self) -> NotificationTest:
        title = "vagus: a test"
        notice = Notice(
            channel=self.channel.name,
            incident=0,
            what="began",
            severity=Severity.INFO,
            title=title,
            text=f"If you can read this, {self.channel.name} works.",
        )
        began = monotonic()
        failure = self._send(notice)
        self._note(failure)
        detail = failure or f"taken after {seconds(monotonic() - began)}"
        return NotificationTest(channel=self.channel.name, delivered=not failure, detail=detail)

    def _try(self, notice: Notice, since: float) -> None:
        self._persist()
        waited = monotonic() - since
        late = f"\n(This could not be sent for {seconds(waited)}.)" if waited >= _LATE_S else ""
        failure = self._send(notice, late)
        with self._lock:
            self._sending = None
            if not failure and self._waiting.get(notice.incident, (None,))[0] is notice:
                del self._waiting[notice.incident]
        self._note(failure)
        if not failure:
            self._told(notice)
        self._persist()

    def _note(self, failure: str) -> None:
        with self._lock:
            before, self.failure = self.failure, failure
            if failure:
                self._failed += 1
                self._failed_at = time.time()
                self._try_at = monotonic() + min(_RETRY_S * 2**self._failures, _RETRY_MOST_S)
                self._failures = min(self._failures + 1, 10)
            else:
                self._sent += 1
                self._sent_at = time.time()
                self._try_at, self._failures = 0.0, 0
        if failure and not before:
            log.warning("%s", self.problem())
        elif before and not failure:
            log.info("notification channel %s works again", self.channel.name)

    def _send(self, notice: Notice, late: str = "") -> str:
        """Why it was not taken, in words without secrets; "" when it was."""
        channel = self.channel
        if self._made_of is not channel and (failure := self._set_up(channel)):
            return failure
        with _Words() as said:
            try:
                taken = self._service.notify(
                    title=notice.title, body=notice.text + late, notify_type=_LOOKS[notice.severity]
                )
            except Exception as error:
                # A plugin's own; what it says may hold a URL.
                said.lines.append(f"{type(error).__name__}: {error}")
                taken = False
        if taken:
            return ""
        return scrubbed(said.lines[-1] if said.lines else "it was not taken", self._url)


class _Words(logging.Handler):
    """What Apprise logs in this thread meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.lines.append(record.getMessage())

    def __enter__(self) -> _Words:
        logging.getLogger("apprise").addHandler(self)
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        logging.getLogger("apprise").removeHandler(self)
        return False


def url_of(channel: Channel) -> str:
    """Raises ConfigError when its file cannot be read."""
    if channel.url:
        return channel.url
    return read_secret(Path(channel.url_file)).decode("utf-8", errors="replace").strip()


def service_of(url: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Apprise's object for the URL. Raises ConfigError, in words that hold nothing of the URL but its scheme."""
    # Half a second and 20 MB, which a controller without channels does not pay.
    from apprise import Apprise, NotificationManager

    # It may log whole URLs.
    logging.getLogger("apprise").propagate = False
    scheme, found, _ = url.partition("://")
    known = NotificationManager()  # type: ignore[no-untyped-call]
    example = "an Apprise URL such as tgram://BOT_TOKEN/CHAT_ID or mailto://USER:PASSWORD@example.org"
    if not found:
        raise ConfigError([f"is no URL: it must be {example}"])
    if scheme.lower() not in known.schemas():  # type: ignore[no-untyped-call]
        raise ConfigError([f"{scheme[:20]!r} is no service that Apprise knows: it must be {example}"])
    service = Apprise.instantiate(url, suppress_exceptions=True)
    if service is None:
        shapes = [shape.replace("{schema}", scheme) for shape in known[scheme.lower()].templates[:3]]
        raise ConfigError([f"is no complete URL of {scheme}: it must be like {' or '.join(shapes)}"])
    service.socket_connect_timeout = service.socket_read_timeout = timeout_s
    return service


def scrubbed(words: str, url: str) -> str:
    """Without any part of the URL that may be a secret."""
    for part in sorted({part for part in _parts(url) if len(part) >= _SECRET_LENGTH}, key=len, reverse=True):
        words = words.replace(part, "…")
    line = " ".join(words.split())
    return line if len(line) <= _MOST_WORDS else line[: _MOST_WORDS - 1] + "…"


def _parts(url: str) -> list[str]:
    from urllib.parse import unquote

    rest = url.partition("://")[2]
    pieces = [rest]
    for separator in "/@:?&=#":
        pieces = [piece for each in pieces for piece in each.split(separator)]
    return [url, rest, *pieces, *(unquote(piece) for piece in pieces)]
