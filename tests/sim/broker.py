"""A broker and its clients' sessions, as MQTT over TCP: in order within a session; retained messages; last wills.

A session has two ends that learn of trouble at different times: the client by its own patience, the broker by its
keepalive. While the way between them is cut, what each end says waits, and comes through if the way is back in time.
Nothing of a session outlives it but what the broker retains: clients hold no persistent session.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from sim.engine import Engine, Process
from vagus_protocol.brokers import BACKOFF_CAP_S, BACKOFF_FIRST_S, KEEPALIVE_S, PING_AFTER_S, PING_WAIT_S

# The broker's patience with a silent client.
_PATIENCE_S = 1.5 * KEEPALIVE_S
_CONNECT_S = 1.2


class Port(Protocol):
    """What a client does with its session."""

    def session_began(self) -> None:
        """Connected; to be answered by publishing, and by `Client.subscribe`."""

    def session_lost(self, reason: str) -> None: ...

    def subscribed(self) -> None:
        """The broker has taken the subscriptions, and what it retains for us is on its way before this."""

    def received(self, topic: str, payload: bytes, retained: bool) -> None: ...

    def acknowledged(self, number: int, heard: bool) -> None:
        """The broker has QoS 1 message `number`; `heard`: somebody subscribes to its topic."""


class _Session:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.at_client = self.at_broker = True
        self.subscribed = False
        # when the newest message of each direction arrives: the next one is not earlier
        self.up_at = self.down_at = 0.0
        self.up_held: list[tuple[str, bytes, bool, int]] = []
        self.down_held: list[tuple[Callable[..., None], tuple[object, ...]]] = []


class Client:
    """A program's way to the broker: connects, and connects again."""

    def __init__(
        self,
        broker: Broker,
        process: Process,
        port: Port,
        client_id: str,
        wants: Callable[[str], bool],
        will: tuple[str, bytes],
        rng: random.Random,
    ) -> None:
        self.broker, self.process, self.port, self.id = broker, process, port, client_id
        self.wants, self.will = wants, will
        self._rng = rng
        self.session: _Session | None = None
        self._failures = 0

    @property
    def connected(self) -> bool:
        return self.session is not None

    def start(self) -> None:
        self.process.after(self._rng.uniform(0.0, 0.05), self._attempt)

    def _attempt(self) -> None:
        if self.broker.up and self.broker.reachable(self.process.name):
            self.process.after(self._rng.uniform(0.005, 0.05), self._connect)
        else:
            self._retry()

    def _connect(self) -> None:
        if not (self.broker.up and self.broker.reachable(self.process.name)):
            self._retry()
            return
        self._failures = 0
        self.session = self.broker.accept(self)
        self.port.session_began()

    def _retry(self) -> None:
        wait = min(BACKOFF_FIRST_S * 2**self._failures, BACKOFF_CAP_S)
        self._failures = min(self._failures + 1, 8)
        self.process.after(_CONNECT_S * self._rng.random() + wait * self._rng.uniform(0.5, 1.0), self._attempt)

    def subscribe(self) -> None:
        if self.session is not None:
            self.broker.send_up(self.session, "", b"", False, -1)

    def publish(self, topic: str, payload: bytes, retain: bool = False, number: int = 0) -> bool:
        """`number` > 0: QoS 1, to be acknowledged under it. False: there is no session."""
        if self.session is None:
            return False
        self.broker.send_up(self.session, topic, payload, retain, number)
        return True

    def lose(self, reason: str) -> None:
        """Our end of the session is over."""
        session, self.session = self.session, None
        if session is None:
            return
        session.at_client = False
        session.down_held.clear()
        self.port.session_lost(reason)
        self._retry()

    def leave(self) -> None:
        """Our program ended; a clean goodbye was published before, or the broker publishes the last will."""
        session, self.session = self.session, None
        if session is not None:
            session.at_client = False


class Broker:
    def __init__(self, engine: Engine, rng: random.Random, trace: Callable[[str, str], None]) -> None:
        self._engine, self._rng, self._trace = engine, rng, trace
        self.up = True
        self.retained: dict[str, bytes] = {}
        # what an older image of its disk holds
        self.image: dict[str, bytes] = {}
        # every desired and controller presence that was ever retained: for replays
        self.history: list[tuple[str, bytes]] = []
        self.cut: set[str] = set()
        self.delay: dict[str, float] = {}
        self.duplicate = 0.0
        # sees every message that the broker takes: (client's name, topic, payload)
        self.witness: Callable[[str, str, bytes], None] = lambda who, topic, payload: None
        self._sessions: dict[str, _Session] = {}

    # --- faults ----------------------------------------------------------------------------------------------------

    def reachable(self, name: str) -> bool:
        return name not in self.cut

    def set_cut(self, name: str, cut: bool) -> None:
        if cut == (name in self.cut):
            return
        if cut:
            self.cut.add(name)
            for session in list(self._sessions.values()):
                if session.client.process.name == name:
                    self._doubt(session)
        else:
            self.cut.discard(name)
            for session in list(self._sessions.values()):
                if session.client.process.name == name:
                    self._release(session)

    def stop(self) -> None:
        """Crash: no last wills; clients see their connections break."""
        self.up = False
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            session.at_broker = False
            if session.client.session is session:
                wait = self._rng.uniform(0.01, 0.1) if self.reachable(session.client.process.name) else 3.0
                session.client.process.after(wait, self._broken, session, "the broker closed the connection")

    def start(self, retained: str) -> None:
        """With what it retained "kept", "lost", or from an "older" image."""
        if retained == "lost":
            self.retained = {}
        elif retained == "older":
            self.retained = dict(self.image)
        self.up = True

    def take_image(self) -> None:
        self.image = dict(self.retained)

    def inject(self, topic: str, payload: bytes) -> None:
        """Somebody with rights on the broker publishes this, retained."""
        if self.up:
            self._publish("somebody", topic, payload, True)

    def crashed(self, client: Client, silent: bool) -> None:
        """The client's program ended; `silent`: its machine too, so nobody closes the connection."""
        session = self._sessions.get(client.id)
        client.leave()
        if session is not None and session.client is client:
            self._engine.after(_PATIENCE_S if silent else 0.02, self._expire, session)

    def frozen(self, client: Client) -> None:
        session = self._sessions.get(client.id)
        if session is not None and session.client is client:
            self._engine.after(_PATIENCE_S, self._expire_if_frozen, session)

    def goodbye(self, client: Client, topic: str, payload: bytes) -> None:
        """A clean end: the goodbye is published, the last will is not."""
        session = self._sessions.get(client.id)
        client.leave()
        if session is not None and session.client is client and self.reachable(client.process.name) and self.up:
            del self._sessions[client.id]
            session.at_broker = False
            self._publish(client.process.name, topic, payload, True)
        elif session is not None:
            self._engine.after(_PATIENCE_S, self._expire, session)

    # --- sessions --------------------------------------------------------------------------------------------------

    def accept(self, client: Client) -> _Session:
        old = self._sessions.get(client.id)
        if old is not None:
            self._expire(old)
        session = self._sessions[client.id] = _Session(client)
        return session

    def _doubt(self, session: _Session) -> None:
        """The way to the client is cut: each end finds out in its own time."""
        client = session.client
        wait = PING_AFTER_S * self._rng.random() + PING_WAIT_S
        client.process.after(wait, self._client_gives_up, session)
        self._engine.after(_PATIENCE_S, self._broker_gives_up, session)

    def _client_gives_up(self, session: _Session) -> None:
        if session.client.session is session and not self.reachable(session.client.process.name):
            session.client.lose("the broker is silent")

    def _broker_gives_up(self, session: _Session) -> None:
        if not self.reachable(session.client.process.name):
            self._expire(session)

    def _expire_if_frozen(self, session: _Session) -> None:
        if session.client.process.frozen:
            self._expire(session)

    def _expire(self, session: _Session) -> None:
        """The broker ends a session without a goodbye."""
        if not session.at_broker or not self.up:
            return
        session.at_broker = False
        if self._sessions.get(session.client.id) is session:
            del self._sessions[session.client.id]
        self._trace("broker", f"{session.client.process.name}'s session is over: its last will is published")
        self._publish(session.client.process.name, *session.client.will, True)
        if session.at_client and session.client.session is session:
            session.client.process.after(self._delay(session), self._broken, session, "the broker closed it")

    def _broken(self, session: _Session, reason: str) -> None:
        if session.client.session is session:
            session.client.lose(reason)

    def _release(self, session: _Session) -> None:
        """The way is back: what was held comes through."""
        held, session.up_held = session.up_held, []
        for message in held:
            self._up(session, *message)
        down, session.down_held = session.down_held, []
        for call, args in down:
            self._down(session, call, args)

    # --- messages --------------------------------------------------------------------------------------------------

    def _delay(self, session: _Session) -> float:
        name = session.client.process.name
        return self._rng.uniform(0.001, 0.01) + self.delay.get(name, 0.0) * self._rng.uniform(0.5, 1.0)

    def send_up(self, session: _Session, topic: str, payload: bytes, retain: bool, number: int) -> None:
        session.up_at = max(session.up_at, self._engine.now + self._delay(session))
        self._engine.at(session.up_at, self._up, session, topic, payload, retain, number)

    def _up(self, session: _Session, topic: str, payload: bytes, retain: bool, number: int) -> None:
        if not session.at_broker:
            return
        if session.up_held or not self.reachable(session.client.process.name):
            session.up_held.append((topic, payload, retain, number))
            return
        if number == -1:
            self._subscribe(session)
            return
        heard = self._publish(session.client.process.name, topic, payload, retain)
        if number > 0:
            self._send_down(session, session.client.port.acknowledged, number, heard)

    def _subscribe(self, session: _Session) -> None:
        session.subscribed = True
        wanted = [topic for topic in self.retained if session.client.wants(topic)]
        self._rng.shuffle(wanted)
        for topic in wanted:
            self._send_down(session, session.client.port.received, topic, self.retained[topic], True)
        self._send_down(session, session.client.port.subscribed)

    def _publish(self, who: str, topic: str, payload: bytes, retain: bool) -> bool:
        self.witness(who, topic, payload)
        if retain:
            self.retained[topic] = payload
        heard = False
        for session in list(self._sessions.values()):
            if session.subscribed and session.client.wants(topic):
                heard = True
                self._send_down(session, session.client.port.received, topic, payload, False)
                if self.duplicate and self._rng.random() < self.duplicate:
                    self._send_down(session, session.client.port.received, topic, payload, False)
        return heard

    def _send_down(self, session: _Session, call: Callable[..., None], *args: object) -> None:
        session.down_at = max(session.down_at, self._engine.now + self._delay(session))
        self._engine.at(session.down_at, self._down, session, call, args)

    def _down(self, session: _Session, call: Callable[..., None], args: tuple[object, ...]) -> None:
        if not session.at_client:
            return
        if session.down_held or not self.reachable(session.client.process.name):
            session.down_held.append((call, args))
            return
        session.client.process.at_once(self._take, session, call, args)

    def _take(self, session: _Session, call: Callable[..., None], args: tuple[object, ...]) -> None:
        if session.client.session is session:
            call(*args)
