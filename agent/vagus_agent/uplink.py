"""MQTT by paho, on a thread of our own: one session at a time, with the first broker of the list that works.

The thread owns every socket and paho object; the event loop's side only fills bounded boxes (newest report, newest
retained payloads, backlog of events) under a lock and wakes it. What comes in goes to the loop by call_soon_threadsafe.

On every new session, in this order: presence, observed, subscriptions, then the backlog: a broker that lost everything
knows the node again. A session that is replaced is closed without DISCONNECT, so the broker that loses us publishes
the last will; where old and new are the same broker, taking the session over publishes it before our birth. Should
an "offline" of ours still come last, we see it (we subscribe to our own presence) and announce ourselves again.

Which broker, when to give up, when to go back: `vagus_protocol.brokers`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from vagus_agent import config
from vagus_agent.core.backlog import Backlog
from vagus_protocol import topics
from vagus_protocol.brokers import CONNECT_S, KEEPALIVE_S, Rotation, Said, Silence
from vagus_protocol.codec import encode
from vagus_protocol.messages import Event

log = logging.getLogger(__name__)

# A clean stop says goodbye and waits this long for the broker's word that it has it; `stop` itself returns within 2 s.
GOODBYE_S: Final = 1.0
STOP_S: Final = 2.0
# At most one announcement a second in answer to a foreign presence under our name.
REANNOUNCE_S: Final = 1.0
# The broker's word (MQTT 5) that nobody subscribes to our events: they wait, and are offered again this often, and at
# once when a controller shows up. With MQTT 3.1.1 there is no such word: what is told then is lost.
NO_SUBSCRIBERS: Final = 0x10
UNHEARD_RETRY_S: Final = 2.0
# Unacknowledged data on a dead path ends the connection in the kernel too, so that nothing of it lingers.
USER_TIMEOUT_MS: Final = 3000
RETAINED: Final[tuple[topics.NodeLeaf, ...]] = ("presence", "observed")
NOT_AUTHORIZED: Final = ("Bad user name or password", "Not authorized", "Banned")


@dataclass(frozen=True, slots=True)
class Session:
    """A standing session: the broker's place in the list, and the broker."""

    index: int
    broker: config.Broker

    @property
    def name(self) -> str:
        return f"{self.broker.host}:{self.broker.port}"


class Unreachable(Exception):
    """No session, in words that name the broker and what to check. `refused`: only a person can mend it."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class _Client(mqtt.Client):
    """One connection. Made, used and thrown away, so that no state of paho's leaks from one session to the next."""

    def __init__(self, protocol: str, client_id: str) -> None:
        five = protocol == "5"
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
            clean_session=None if five else True,
            reconnect_on_failure=False,
        )
        self.suppress_exceptions = True
        self.connect_timeout = CONNECT_S
        self.connack: ReasonCode | None = None
        self.silence = Silence(monotonic())
        self.on_connect = self._connected
        self.on_socket_open = self._tune

    def _connected(self, _client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, _props: Any) -> None:
        self.connack = reason

    def _tune(self, _client: mqtt.Client, _data: Any, sock: Any) -> None:
        # Without NODELAY an event waits behind the acknowledgement of the one before (40 ms and more).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)

    def _create_socket_connection(self) -> socket.socket:
        return socket.create_connection((_host(self._host), self._port), timeout=self.connect_timeout)  # type: ignore[arg-type]

    def _ssl_wrap_socket(self, tcp_sock: Any) -> ssl.SSLSocket:
        # paho's own leaves the socket open when the handshake fails.
        assert self._ssl_context is not None
        return self._ssl_context.wrap_socket(tcp_sock, server_hostname=_host(self._host))

    def _sock_recv(self, bufsize: int) -> bytes:
        data = super()._sock_recv(bufsize)
        self.silence.heard(monotonic())
        return data

    def pump(self, timeout: float, wake: int) -> None:
        """Wait for the socket or `wake`, then read and write what is there. `socket()` is None when it is over."""
        sock = self.socket()
        if sock is None:
            return
        pending = sock.pending() if isinstance(sock, ssl.SSLSocket) else 0
        readers: list[Any] = [sock, wake]
        writers: list[Any] = [sock] if self.want_write() else []
        readable, writable, _ = select.select(readers, writers, [], 0.0 if pending else max(timeout, 0.0))
        if wake in readable:
            os.eventfd_read(wake)
        if sock in readable or pending:
            self.loop_read()
        if writable and self.socket() is not None:
            self.loop_write()
        if self.socket() is not None:
            self.loop_misc()

    def close(self) -> None:
        """Without DISCONNECT: the broker publishes the last will."""
        self._sock_close()


class Uplink:
    """The agent's way to the controllers. All methods are called from the event loop's thread and return at once.

    on_desired(payload): what was published on our `desired`, unchecked.
    on_controllers(topic, payload, retained): presence of controllers, unchecked; retained: what the broker remembers.
    on_session(session, reason): a session stands, or None and why there is none now.
    on_refused(text): a broker does not let us in, at each attempt; only a person can mend it.
    """

    def __init__(
        self,
        settings: config.Mqtt,
        *,
        fleet: str,
        node: str,
        loop: asyncio.AbstractEventLoop,
        will: bytes,
        on_desired: Callable[[bytes], None],
        on_controllers: Callable[[str, bytes, bool], None],
        on_session: Callable[[Session | None, str], None],
        on_refused: Callable[[str], object],
    ) -> None:
        self._settings = settings
        self._client_id = f"vagus-{fleet}-{node}"
        self._topics = {leaf: topics.node(fleet, node, leaf) for leaf in topics.NODE_LEAVES}
        self._subscriptions = [*topics.agent_subscriptions(fleet, node), (self._topics["presence"], 1)]
        self._loop = loop
        self._will = will
        self._on_desired = on_desired
        self._on_controllers = on_controllers
        self._on_session = on_session
        self._on_refused = on_refused

        # Shared with the loop's thread, under the lock. Reentrant: paho may call `_published` from inside a publish.
        self._lock = threading.RLock()
        self._backlog = Backlog(settings.backlog)
        self._retained: dict[topics.NodeLeaf, bytes] = {}
        self._unsent: set[topics.NodeLeaf] = set()
        self._reports: deque[bytes] = deque(maxlen=4)
        self._down_paths: list[tuple[str, str]] = []
        self._goodbye: bytes | None = None
        self._stopping = False

        # The thread's own.
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rotation = Rotation(len(settings.brokers))
        self._said = Said()
        self._announce_at: float | None = None
        self._announced = 0.0
        # nobody listens to events; when to offer them again
        self._unheard_until: float | None = None
        self._looker: threading.Thread | None = None
        self._found: tuple[int, _Client | None] | None = None
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    # --- the loop's side -------------------------------------------------------------------------------------------

    @property
    def dropped_events(self) -> int:
        """Events that were dropped because no broker took them in time."""
        return self._backlog.dropped

    @property
    def waiting_events(self) -> int:
        return len(self._backlog)

    def start(self) -> None:
        self._thread.start()

    async def stop(self, goodbye: bytes) -> None:
        """Leave: `goodbye` (a Presence, offline) is retained instead of the last will. Returns within 2 s."""
        with self._lock:
            self._goodbye = goodbye
            self._stopping = True
        self._rouse()
        try:
            async with asyncio.timeout(STOP_S):
                await self._stopped.wait()
        except TimeoutError:
            log.warning("mqtt: no clean goodbye within %g s; the broker will publish the last will", STOP_S)

    def publish_report(self, payload: bytes) -> None:
        """QoS 0; lost without a session: the next one is newer."""
        with self._lock:
            if self._rotation.current is not None:
                self._reports.append(payload)
        self._rouse()

    def publish_event(self, event: Event) -> None:
        """QoS 1, in order; waits in the backlog for a session and then carries its age."""
        with self._lock:
            self._backlog.add(monotonic(), event)
        self._rouse()

    def publish_retained(self, leaf: topics.NodeLeaf, payload: bytes) -> None:
        """Presence or observed: the newest counts, and is told again on every new session."""
        with self._lock:
            self._retained[leaf] = payload
            self._unsent.add(leaf)
        self._rouse()

    def path_down(self, peer: str, path: str) -> None:
        """The prober says that this path is dead: a session that uses it moves on at once, if there is where to."""
        with self._lock:
            self._down_paths.append((peer, path))
        self._rouse()

    def _rouse(self) -> None:
        os.eventfd_write(self._wake, 1)

    # --- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    self._next_session()
                except Exception as error:
                    # Nothing may end this thread: an agent without it looks alive and is mute.
                    self._say("unexpected", logging.ERROR, f"mqtt: unexpected {type(error).__name__}: {error}")
                    self._drop_session(f"unexpected {type(error).__name__}")
                    self._pause(1.0)
        finally:
            self._tell(self._stopped.set)

    def _next_session(self) -> None:
        index, wait_s = self._rotation.next(monotonic())
        if wait_s > 0:
            self._pause(wait_s)
            return
        client = self._attempt(index)
        while client is not None:
            try:
                index, successor = self._serve(index, client)
            finally:
                client.close()
            client = successor

    def _pause(self, seconds: float) -> None:
        """Sleep; a wake-up (a stop, mostly) ends it early, which costs the caller nothing but another look."""
        readable, _, _ = select.select([self._wake], [], [], seconds)
        if readable:
            os.eventfd_read(self._wake)

    def _attempt(self, index: int) -> _Client | None:
        try:
            return self._open(index)
        except Exception as error:
            if not isinstance(error, Unreachable):
                error = Unreachable(f"broker {self._settings.brokers[index].host}: {type(error).__name__}: {error}")
            self._rotation.failed(monotonic(), index, random.random(), refused=error.refused)
            if error.refused:
                self._tell(self._on_refused, f"mqtt: {error}")
                return None
            _, wait_s = self._rotation.next(monotonic())
            self._say(f"broker {index}", logging.WARNING, f"mqtt: {error}", f"; next attempt in {max(wait_s, 0):.1f} s")
            return None

    def _open(self, index: int) -> _Client:
        """A client whose CONNECT was accepted; raises Unreachable. Blocks for CONNECT_S, with TLS up to twice that."""
        broker, settings = self._settings.brokers[index], self._settings
        place = f"broker {broker.host}:{broker.port}"
        client = _Client(settings.protocol, self._client_id)
        client.will_set(self._topics["presence"], self._will, qos=1, retain=True)
        client.on_message = self._message
        client.on_publish = self._published
        client.on_subscribe = self._subscribed
        if settings.username:
            client.username_pw_set(settings.username, _password(settings.password_file) or None)
        if broker.tls:
            client.tls_set_context(_tls(settings))
        wake = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            deadline = monotonic() + CONNECT_S * (2 if broker.tls else 1)
            client.connect(broker.host, broker.port, keepalive=KEEPALIVE_S)
            while client.connack is None and client.socket() is not None and monotonic() < deadline:
                client.pump(deadline - monotonic(), wake)
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            raise Unreachable(f"{place}: TLS failed: {why}; check mqtt.ca_file and the host name") from None
        except OSError as error:
            raise Unreachable(f"{place}: {error.strerror or error or type(error).__name__}") from None
        finally:
            os.close(wake)
        if client.connack is None:
            gone = client.socket() is None
            client.close()
            if gone:
                other = "3.1.1" if settings.protocol == "5" else "5"
                raise Unreachable(f'{place} hung up on CONNECT; does it need mqtt.protocol = "{other}", or TLS?')
            raise Unreachable(f"{place} does not answer CONNECT: frozen, or without MQTT {settings.protocol}")
        if client.connack.is_failure:
            client.close()
            word = client.connack.getName()
            if word not in NOT_AUTHORIZED:
                raise Unreachable(f"{place} refuses the session: {word}")
            file = f" ({settings.password_file})" if settings.password_file else ""
            raise Unreachable(
                f"{place} refuses user {settings.username!r} ({word}); "
                f"check mqtt.username and mqtt.password_file{file}",
                refused=True,
            )
        return client

    def _serve(self, index: int, client: _Client) -> tuple[int, _Client | None]:
        """Run one session to its end; the next session's (broker, client) when it is handed over to one."""
        session = Session(index, self._settings.brokers[index])
        with self._lock:
            self._rotation.connected(monotonic(), index, random.random())
            self._unsent = set(self._retained)
            self._reports.clear()
            self._down_paths.clear()
        self._announce_at = self._unheard_until = None
        # Presence and observed go first, so the subscriptions' retained echo is already ours.
        self._flush(client)
        client.subscribe(self._subscriptions)
        log.info("mqtt: session with broker %s", session.name)
        self._tell(self._on_session, session, f"session with broker {session.name}")

        reason, hinted = "", False
        while not reason:
            self._flush(client)
            if client.socket() is None:
                reason = "connection lost"
                break
            if self._stopping:
                self._leave(client)
                return index, None
            client.pump(self._timeout(client), self._wake)
            if self._on_dead_path(session.broker):
                reason, hinted = f"path {session.broker.path} to {session.broker.peer} is down", True
                break
            match client.silence.check(monotonic()):
                case "ping":
                    client._send_pingreq()
                case "silent":
                    reason = "silent"
            if handover := self._look_for_earlier():
                self._session_over()
                return handover
        if self._looker is not None:
            # The look may have taken our own session over (the same broker by another address): then it is the next.
            self._looker.join(2 * CONNECT_S)
            if handover := self._look_for_earlier():
                self._session_over()
                return handover
        self._drop_session(f"broker {session.name}: {reason}", hinted=hinted)
        return index, None

    def _timeout(self, client: _Client) -> float:
        due = (client.silence.deadline(), self._announce_at, self._unheard_until)
        return min(at for at in due if at is not None) - monotonic()

    def _session_over(self) -> None:
        with self._lock:
            self._backlog.requeue()

    def _drop_session(self, reason: str, *, hinted: bool = False) -> None:
        if self._rotation.current is None:
            return
        self._session_over()
        with self._lock:
            self._rotation.lost(monotonic(), random.random(), hinted=hinted)
        self._say("session", logging.WARNING, f"mqtt: {reason}; looking for a broker")
        self._tell(self._on_session, None, reason)

    def _flush(self, client: _Client) -> None:
        """Send what waits in the boxes."""
        now = monotonic()
        with self._lock:
            if self._announce_at is not None and now >= self._announce_at:
                self._announce_at, self._announced = None, now
                self._unsent.add("presence")
            for leaf in RETAINED:
                if leaf in self._unsent and leaf in self._retained:
                    client.publish(self._topics[leaf], self._retained[leaf], qos=1, retain=True)
            self._unsent.clear()
            while self._reports:
                client.publish(self._topics["report"], self._reports.popleft(), qos=0)
            if self._unheard_until is not None and now >= self._unheard_until:
                self._unheard_until = None
            while (
                self._unheard_until is None
                and client.socket() is not None
                and (event := self._backlog.peek(now)) is not None
            ):
                self._backlog.sent(client.publish(self._topics["event"], encode(event), qos=1).mid)

    def _on_dead_path(self, broker: config.Broker) -> bool:
        with self._lock:
            down, self._down_paths = self._down_paths, []
        return len(self._settings.brokers) > 1 and bool(broker.peer) and (broker.peer, broker.path) in down

    def _leave(self, client: _Client) -> None:
        """Goodbye, in place of the last will; bounded by GOODBYE_S."""
        if self._goodbye is None:
            return
        deadline = monotonic() + GOODBYE_S
        goodbye = client.publish(self._topics["presence"], self._goodbye, qos=1, retain=True)
        while not goodbye.is_published() and client.socket() is not None and monotonic() < deadline:
            client.pump(deadline - monotonic(), self._wake)
        client.disconnect()
        if self._looker is not None:
            self._looker.join(CONNECT_S / 2)
            if self._found is not None and self._found[1] is not None:
                self._found[1].disconnect()

    # --- back to an earlier broker ---------------------------------------------------------------------------------

    def _look_for_earlier(self) -> tuple[int, _Client] | None:
        """The session with an earlier broker, when a look has found one; starts a look when one is due."""
        if self._found is not None:
            (index, client), self._found, self._looker = self._found, None, None
            if client is not None and client.socket() is not None:
                return index, client
            self._rotation.stayed(monotonic(), random.random())
        elif self._looker is None and (target := self._rotation.earlier(monotonic())) is not None:
            self._looker = threading.Thread(target=self._look, args=(target,), name="uplink-look", daemon=True)
            self._looker.start()
        return None

    def _look(self, index: int) -> None:
        client: _Client | None = None
        try:
            client = self._open(index)
        except Exception as error:
            log.debug("mqtt: not back yet: %s", error)
        self._found = (index, client)
        self._rouse()

    # --- paho's callbacks, on the thread ---------------------------------------------------------------------------

    def _message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        topic, payload = message.topic, bytes(message.payload)
        if topic == self._topics["desired"]:
            self._tell(self._on_desired, payload)
        elif topic == self._topics["presence"]:
            if payload != self._retained.get("presence"):
                self._announce_at = max(monotonic(), self._announced + REANNOUNCE_S)
        else:
            self._unheard_until = None
            self._tell(self._on_controllers, topic, payload, message.retain)

    def _published(self, _client: mqtt.Client, _data: Any, mid: int, reason: ReasonCode, _props: Any) -> None:
        if reason.is_failure:
            self._say(
                "publish",
                logging.WARNING,
                f"mqtt: the broker does not let user {self._settings.username!r} publish ({reason}); check its ACL",
            )
        with self._lock:
            if reason.value == NO_SUBSCRIBERS and self._backlog.flying(mid):
                self._backlog.requeue()
                self._unheard_until = monotonic() + UNHEARD_RETRY_S
            else:
                self._backlog.acked(mid)

    def _subscribed(self, _client: mqtt.Client, _data: Any, _mid: int, reasons: list[ReasonCode], _props: Any) -> None:
        for (topic, _), reason in zip(self._subscriptions, reasons, strict=False):
            if reason.is_failure:
                self._say(topic, logging.WARNING, f"mqtt: subscription to {topic} refused ({reason}); check the ACL")

    # --- both ways out ---------------------------------------------------------------------------------------------

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(self._call, callback, args)
        except RuntimeError:
            # The loop is closed: nobody is left to talk to.
            self._stopping = True

    def _call(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        try:
            callback(*args)
        except Exception as error:
            name = getattr(callback, "__qualname__", repr(callback))
            self._say(name, logging.ERROR, f"mqtt: {name} failed: {type(error).__name__}: {error}")

    def _say(self, key: str, level: int, text: str, detail: str = "") -> None:
        """A log line, once a minute while it stays the same; `detail` may differ."""
        if self._said.due(monotonic(), key, text):
            log.log(level, "%s%s", text, detail)


def _host(name: str) -> str | bytes:
    """As bytes where that is possible: text would load the codec of international names, 0.3 MB."""
    return name.encode() if name.isascii() else name


def _password(file: str) -> str:
    """The first line of `file`, read at every attempt: it may be replaced while we run."""
    if not file:
        return ""
    try:
        return Path(file).read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unreachable(f"cannot read mqtt.password_file {file}: {error}", refused=True) from None


def _tls(settings: config.Mqtt) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise Unreachable(
            f"cannot use mqtt.ca_file {settings.ca_file!r}, cert_file {settings.cert_file!r} or key_file "
            f"{settings.key_file!r}: {error}",
            refused=True,
        ) from None
    return context
