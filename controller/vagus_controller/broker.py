"""MQTT by paho inside the event loop: no second thread between a report and the decision on it.

Connecting (name, TCP, TLS, CONNECT, CONNACK) blocks, so it happens on a short-lived thread; a connected client is then
driven by the loop's reader and writer. Nothing is kept for a broker that is away: after `on_session(True, …)` the
caller publishes again whatever must be retained there.

Which broker, when to give up, when to go back: `vagus_protocol.brokers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import select
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from vagus_controller import config
from vagus_protocol.brokers import CONNECT_S, KEEPALIVE_S, Rotation, Said, Silence

log = logging.getLogger(__name__)

GOODBYE_S: Final = 1.0
# Unacknowledged data on a dead path ends the connection in the kernel too, so that nothing of it lingers.
USER_TIMEOUT_MS: Final = 3000
RECEIVE_BYTES: Final = 256 * 1024
# Messages handled before the loop gets a turn for everything else: about 5 ms of work.
BATCH: Final = 100
NOT_AUTHORIZED: Final = ("Bad user name or password", "Not authorized", "Banned")


class Unreachable(Exception):
    """No session, in words that name the broker and what to check. `refused`: only a person can mend it."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class _Client(mqtt.Client):
    """One connection, made, used and thrown away; with a receive buffer, where paho makes four system calls a message.

    paho calls `on_message` with a lock held that a failing publish inside it would take again: so messages bypass it.
    """

    def __init__(self, protocol: str, client_id: str, on_message: Callable[[str, bytes, bool], None]) -> None:
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
        self.subscribed = False
        self.refused_filters: list[int] = []
        # The session's: the rest of a batch is already in the loop's queue.
        self.resuming = False
        self.silence = Silence(monotonic())
        self.on_connect = self._connected
        self.on_subscribe = self._subscribed
        self.on_socket_open = self._tune
        self._deliver = on_message
        self._buffer = b""
        self._at = 0

    def _connected(self, _client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, _props: Any) -> None:
        self.connack = reason

    def _subscribed(self, _client: mqtt.Client, _data: Any, _mid: int, reasons: list[ReasonCode], _props: Any) -> None:
        self.subscribed = True
        self.refused_filters = [number for number, reason in enumerate(reasons) if reason.is_failure]

    def _tune(self, _client: mqtt.Client, _data: Any, sock: Any) -> None:
        # Without NODELAY a command waits behind the acknowledgement of the one before (40 ms and more).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)

    def _ssl_wrap_socket(self, tcp_sock: Any) -> ssl.SSLSocket:
        # paho's own leaves the socket open when the handshake fails.
        assert self._ssl_context is not None
        return self._ssl_context.wrap_socket(tcp_sock, server_hostname=self._host)

    def _sock_recv(self, bufsize: int) -> bytes:
        at = self._at
        if at == len(self._buffer):
            self._buffer, self._at = b"", 0
            self._buffer = super()._sock_recv(RECEIVE_BYTES)
            self.silence.heard(monotonic())
            at = 0
        self._at = at + bufsize
        data = self._buffer[at : at + bufsize]
        if len(data) < bufsize:
            self._at = len(self._buffer)
        return data

    def _handle_publish(self) -> MQTTErrorCode:
        """A message without properties is taken apart here: paho makes a table of all 27 kinds of them for each, which
        takes longer than everything else about it."""
        packet, flags = self._in_packet["packet"], self._in_packet["command"]
        qos = flags >> 1 & 3
        topic_ends = 2 + int.from_bytes(packet[:2])
        properties_at = topic_ends + (2 if qos else 0)
        plain = self._protocol == mqtt.MQTTv5 and packet[properties_at : properties_at + 1] == b"\0"
        if qos > 1 or not plain:
            return super()._handle_publish()
        topic = packet[2:topic_ends].decode(errors="replace")
        self._deliver(topic, bytes(packet[properties_at + 1 :]), flags & 1 == 1)
        if qos == 0:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return self._send_puback(int.from_bytes(packet[topic_ends:properties_at]))

    def _handle_on_message(self, message: mqtt.MQTTMessage) -> None:
        self._deliver(bytes(message._topic).decode(errors="replace"), bytes(message.payload), message.retain)

    def read_one(self) -> bool:
        """At most one packet; False when the connection is over. paho's loop_read takes as many at once as messages of
        ours wait for their acknowledgements."""
        if self._sock is None:
            return False
        result = self._packet_read()
        return result in (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_AGAIN) or self._loop_rc_handle(result) == 0

    @property
    def buffered(self) -> bool:
        """Whether bytes wait that the selector cannot see: ours, or those that TLS has already deciphered."""
        if self._at < len(self._buffer):
            return True
        sock = self.socket()
        return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0

    @property
    def unconfirmed(self) -> bool:
        return bool(self._out_messages)

    def close(self) -> None:
        """Without DISCONNECT: the broker publishes the last will."""
        self._sock_close()


class BrokerSession:
    """The controller's way to the fleet. Everything is called, and calls back, in the event loop.

    subscriptions: (filter, QoS). will: (topic, payload), retained, QoS 1; the topic must be among the subscriptions at
    QoS 1, since `barrier` waits for its echo. on_message(topic, payload, retained): its exceptions are logged and end
    nothing. on_session(connected, reason). on_refused(text): a broker does not let us in, at each attempt; only a
    person can mend it.
    """

    def __init__(
        self,
        settings: config.Mqtt,
        *,
        client_id: str,
        subscriptions: tuple[tuple[str, int], ...],
        will: tuple[str, bytes],
        on_message: Callable[[str, bytes, bool], None],
        on_session: Callable[[bool, str], None],
        on_refused: Callable[[str], object],
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        self._subscriptions = subscriptions
        self._will = will
        self._own_presence = will[1]
        self._on_message = on_message
        self._on_session = on_session
        self._on_refused = on_refused
        self._rotation = Rotation(len(settings.brokers))
        self._said = Said()
        self._client: _Client | None = None
        self._settled = asyncio.Event()
        self._over = asyncio.Event()
        self._reason = ""
        self._marked = False
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[_Client | None] | None = None

    @property
    def connected(self) -> bool:
        return self._client is not None

    @property
    def broker(self) -> str:
        """host:port of the current session, "" without one."""
        if self._client is None or self._rotation.current is None:
            return ""
        broker = self._settings.brokers[self._rotation.current]
        return f"{broker.host}:{broker.port}"

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="broker session")

    async def stop(self) -> None:
        """Leave cleanly, without the last will: publish a goodbye before. Bounded by GOODBYE_S."""
        for task in (self._task, self._looking):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        client, self._client = self._client, None
        if client is None:
            return
        deadline = monotonic() + GOODBYE_S
        while client.unconfirmed and client.socket() is not None and monotonic() < deadline:  # noqa: ASYNC110 paho has no event
            await asyncio.sleep(0.005)
        client.disconnect()
        client.close()

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """In the kernel's hands when this returns, unless its buffer is full. False: there is no session."""
        if topic == self._will[0] and retain:
            self._own_presence = payload
        client = self._client
        if client is None or client.socket() is None:
            return False
        client.publish(topic, payload, qos=qos, retain=retain)
        return self._check(client)

    async def barrier(self) -> None:
        """Returns once the broker of the current session has delivered everything that it retained for us.

        How: after SUBACK the session publishes its own presence as it last was; the retained messages were queued
        before it, at the same QoS, so they come before its echo. Without a session it waits for one.
        """
        await self._settled.wait()

    # --- sessions --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            index, wait_s = self._rotation.next(monotonic())
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            client = await self._attempt(index)
            while client is not None:
                self._rotation.connected(monotonic(), index, random.random())
                index, client = await self._serve(index, client)

    async def _attempt(self, index: int) -> _Client | None:
        try:
            return await _on_a_thread(lambda: self._open(index))
        except Exception as error:
            if not isinstance(error, Unreachable):
                error = Unreachable(f"broker {self._settings.brokers[index].host}: {type(error).__name__}: {error}")
            self._rotation.failed(monotonic(), index, random.random(), refused=error.refused)
            if error.refused:
                self._on_refused(f"mqtt: {error}")
                return None
            _, wait_s = self._rotation.next(monotonic())
            self._say(f"broker {index}", logging.WARNING, f"mqtt: {error}", f"; next attempt in {max(wait_s, 0):.1f} s")
            return None

    async def _look(self, index: int) -> _Client | None:
        """A client of an earlier broker, None when there is none to be had."""
        try:
            return await _on_a_thread(lambda: self._open(index))
        except Exception as error:
            log.debug("mqtt: not back yet: %s", error)
            return None

    def _open(self, index: int) -> _Client:
        """A client whose CONNECT was accepted; raises Unreachable. Blocks for CONNECT_S, with TLS up to twice that."""
        broker, settings = self._settings.brokers[index], self._settings
        place = f"broker {broker.host}:{broker.port}"
        client = _Client(settings.protocol, self._client_id, self._message)
        client.will_set(*self._will, qos=1, retain=True)
        if settings.username:
            client.username_pw_set(settings.username, _password(settings.password_file) or None)
        if broker.tls:
            client.tls_set_context(_tls(settings))
        try:
            deadline = monotonic() + CONNECT_S * (2 if broker.tls else 1)
            client.connect(broker.host, broker.port, keepalive=KEEPALIVE_S)
            while client.connack is None and (sock := client.socket()) is not None and monotonic() < deadline:
                waiting: list[Any] = [sock]
                poller = select.poll()
                poller.register(waiting[0], select.POLLIN)
                if client.buffered or poller.poll(max(deadline - monotonic(), 0.0) * 1000):
                    client.loop_read()
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            raise Unreachable(f"{place}: TLS failed: {why}; check mqtt.ca_file and the host name") from None
        except OSError as error:
            raise Unreachable(f"{place}: {error.strerror or error or type(error).__name__}") from None
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

    async def _serve(self, index: int, client: _Client) -> tuple[int, _Client | None]:
        """Run one session to its end; the next session's (broker, client) when it is handed over to one."""
        broker = self._settings.brokers[index]
        place = f"broker {broker.host}:{broker.port}"
        look, target = None, 0
        self._attach(client)
        log.info("mqtt: session with %s", place)
        self._call(self._on_session, True, f"session with {place}")
        while True:
            over = await self._tick(client)
            if look is None and not over and (earlier := self._rotation.earlier(monotonic())) is not None:
                target, look = earlier, asyncio.create_task(self._look(earlier))
                self._looking = look
            if look is not None and (over or look.done()):
                # A session that ends during the look was taken over by it: the same broker by another address.
                successor, look = await look, None
                if successor is not None:
                    self._detach(client)
                    return target, successor
                self._rotation.stayed(monotonic(), random.random())
            if over:
                break
        self._detach(client)
        self._rotation.lost(monotonic(), random.random())
        self._say("session", logging.WARNING, f"mqtt: {place}: {self._reason}; looking for a broker")
        self._call(self._on_session, False, f"{place}: {self._reason}")
        return index, None

    async def _tick(self, client: _Client) -> bool:
        """Wait for the end of the session, or a while; then see to pings. True: the session is over."""
        wait_s = min(max(client.silence.deadline() - monotonic(), 0.001), 0.5)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._over.wait()
        if self._over.is_set():
            return True
        client.loop_misc()
        match client.silence.check(monotonic()):
            case "ping":
                client._send_pingreq()
            case "silent":
                self._end("silent")
        return not self._check(client) or self._over.is_set()

    def _attach(self, client: _Client) -> None:
        sock = client.socket()
        self._over.clear()
        self._settled.clear()
        self._reason, self._marked = "", False
        if sock is None:
            self._end("connection lost")
            return
        loop, fd = asyncio.get_running_loop(), sock.fileno()

        def closing(*_: Any) -> None:
            # Before the descriptor is closed: the next socket may get its number.
            loop.remove_reader(fd)
            loop.remove_writer(fd)

        client.on_socket_close = closing
        self._client = client
        loop.add_reader(fd, self._readable, client)
        client.subscribe(list(self._subscriptions))
        if client.buffered:
            self._drain(client)

    def _detach(self, client: _Client) -> None:
        client.close()
        self._client = None
        self._settled.clear()

    def _readable(self, client: _Client) -> None:
        if not client.resuming:
            self._drain(client)

    def _resume(self, client: _Client) -> None:
        client.resuming = False
        self._drain(client)

    def _drain(self, client: _Client) -> None:
        """Handle a batch; when more is buffered, the rest comes in the loop's next turn."""
        for _ in range(BATCH):
            if not client.read_one() or not client.buffered:
                break
        if client.subscribed and not self._marked:
            self._mark(client)
        if self._check(client) and client.buffered:
            client.resuming = True
            asyncio.get_running_loop().call_soon(self._resume, client)

    def _writable(self, client: _Client) -> None:
        client.loop_write()
        if self._check(client) and not client.want_write() and (sock := client.socket()) is not None:
            asyncio.get_running_loop().remove_writer(sock.fileno())

    def _check(self, client: _Client) -> bool:
        """After anything that may have written: whether the connection stands; sees to what the kernel did not take."""
        sock = client.socket()
        if sock is None:
            if client is self._client:
                self._end("connection lost")
            return False
        if client.want_write():
            asyncio.get_running_loop().add_writer(sock.fileno(), self._writable, client)
        return True

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._over.set()

    def _mark(self, client: _Client) -> None:
        self._marked = True
        for number in client.refused_filters:
            name = self._subscriptions[number][0]
            self._say(name, logging.WARNING, f"mqtt: subscription to {name} refused; check the broker's ACL")
        self.publish(self._will[0], self._own_presence, retain=self._own_presence is not self._will[1])

    def _message(self, topic: str, payload: bytes, retained: bool) -> None:
        try:
            self._on_message(topic, payload, retained)
            if topic == self._will[0] and not retained:
                self._settled.set()
        except Exception as error:
            self._say("message", logging.ERROR, f"mqtt: a message was not taken: {type(error).__name__}: {error}")

    def _call(self, callback: Callable[[bool, str], None], connected: bool, reason: str) -> None:
        try:
            callback(connected, reason)
        except Exception as error:
            self._say("session callback", logging.ERROR, f"mqtt: on_session failed: {type(error).__name__}: {error}")

    def _say(self, key: str, level: int, text: str, detail: str = "") -> None:
        """A log line, once a minute while it stays the same; `detail` may differ."""
        if self._said.due(monotonic(), key, text):
            log.log(level, "%s%s", text, detail)


async def _on_a_thread(work: Callable[[], _Client]) -> _Client:
    """`work()` on its own daemon thread: one that hangs in name resolution holds up neither the loop nor an exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Client] = loop.create_future()

    def deliver(client: _Client | None, error: Exception | None) -> None:
        if future.done():
            if client is not None:
                client.close()
        elif client is not None:
            future.set_result(client)
        elif error is not None:
            future.set_exception(error)

    def run() -> None:
        client, failure = None, None
        try:
            client = work()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, client, failure)

    threading.Thread(target=run, name="mqtt-connect", daemon=True).start()
    return await future


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
