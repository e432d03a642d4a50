"""The agent's uplink against real mosquitto."""

import asyncio
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from contract.mosquitto import Mosquitto, Relay, Seen, Watcher, certificates
from vagus_agent import config
from vagus_agent.uplink import Session, Uplink
from vagus_protocol import brokers, topics
from vagus_protocol.codec import decode, encode
from vagus_protocol.messages import Event, EventKind, Presence

PRESENCE = topics.node("lab", "pi", "presence")
OBSERVED = topics.node("lab", "pi", "observed")
REPORT = topics.node("lab", "pi", "report")
EVENT = topics.node("lab", "pi", "event")
DESIRED = topics.node("lab", "pi", "desired")
WILL = Presence(v=1, node="pi", session="s1", online=False, reason="connection lost")
BIRTH = Presence(v=1, node="pi", session="s1", online=True)
GOODBYE = Presence(v=1, node="pi", session="s1", online=False, reason="stopped")


def event(seq: int) -> Event:
    return Event(v=1, node="pi", session="s1", seq=seq, kind=EventKind.LINK, text="t")


class Agent:
    """An Uplink on an event loop in a thread, so that a test can block on what it waits for."""

    def __init__(
        self,
        *brokers: config.Broker,
        protocol: Literal["5", "3.1.1"] = "5",
        backlog: int = 500,
        start: bool = True,
        on_desired: Callable[[bytes], None] | None = None,
        **settings: str,
    ) -> None:
        self._start = start
        self.sessions: queue.Queue[tuple[Session | None, str]] = queue.Queue()
        self.refusals: queue.Queue[str] = queue.Queue()
        self.desired: queue.Queue[bytes] = queue.Queue()
        self._on_desired = on_desired or self.desired.put
        self.controllers: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._settings = config.Mqtt(brokers=brokers, protocol=protocol, backlog=backlog, **settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.uplink: Uplink

    def __enter__(self) -> "Agent":
        self._thread.start()
        self.call(self._make)
        self.call(lambda: self.uplink.publish_retained("presence", encode(BIRTH)))
        if self._start:
            self.call(self.uplink.start)
        return self

    def publish(self, message: Event) -> None:
        self.call(lambda: self.uplink.publish_event(message))

    def _make(self) -> None:
        self.uplink = Uplink(
            self._settings,
            fleet="lab",
            node="pi",
            loop=self._loop,
            will=encode(WILL),
            on_desired=self._on_desired,
            on_controllers=lambda topic, payload, retained: self.controllers.put((topic, payload)),
            on_session=lambda session, reason: self.sessions.put((session, reason)),
            on_refused=self.refusals.put,
        )

    def call(self, function: Callable[[], object]) -> None:
        async def run() -> None:
            function()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(5)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.uplink.stop(encode(GOODBYE)), self._loop).result(5)

    def session(self, timeout: float = 8.0) -> Session:
        """The next session that stands."""
        deadline = time.monotonic() + timeout
        while True:
            session, _ = self.sessions.get(timeout=max(deadline - time.monotonic(), 0.001))
            if session is not None:
                return session

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


def at(port: int, **more: Any) -> config.Broker:
    return config.Broker(host="127.0.0.1", port=port, **more)


def presence(online: bool) -> Callable[[Seen], bool]:
    def wanted(seen: Seen) -> bool:
        if seen.topic != PRESENCE:
            return False
        message = decode(seen.payload, Presence)
        return isinstance(message, Presence) and message.online is online

    return wanted


def is_event(seen: Seen) -> bool:
    return seen.topic == EVENT


def seq_of(seen: Seen) -> int:
    message = decode(seen.payload, Event)
    assert isinstance(message, Event), message
    return message.seq


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_birth_reports_events_and_desired_pass(protocol: Literal["5", "3.1.1"]) -> None:
    with Mosquitto() as broker, Watcher(broker.port) as watcher, Agent(at(broker.port), protocol=protocol) as agent:
        assert agent.session().index == 0
        birth = watcher.wait_for(presence(True), "birth")
        assert decode(birth.payload, Presence) == BIRTH
        agent.call(lambda: agent.uplink.publish_report(b"a report"))
        assert watcher.wait_for(lambda seen: seen.topic == REPORT, "report") == Seen(REPORT, b"a report", False, 0)
        agent.publish(event(1))
        assert seq_of(watcher.wait_for(is_event, "event")) == 1
        watcher.publish(DESIRED, b"\xff not json", retain=True)
        assert agent.desired.get(timeout=5) == b"\xff not json"
        watcher.publish(topics.controller("lab", "brain"), b"{}")
        assert agent.controllers.get(timeout=5) == (topics.controller("lab", "brain"), b"{}")


def test_the_last_will_says_offline_and_a_clean_stop_says_goodbye() -> None:
    with Mosquitto() as broker, Watcher(broker.port) as watcher:
        with Agent(at(broker.port)) as agent:
            agent.session()
            watcher.wait_for(presence(True), "birth")
            _take_over(broker.port)
            will = watcher.wait_for(presence(False), "last will")
            assert decode(will.payload, Presence) == WILL
            watcher.wait_for(presence(True), "birth after the break")
        goodbye = watcher.wait_for(presence(False), "goodbye")
        assert decode(goodbye.payload, Presence) == GOODBYE
        assert not [seen for seen in watcher.drain() if seen.topic == PRESENCE]


def _take_over(port: int) -> None:
    """End the agent's session from the broker's side: another client comes under its id, and goes."""
    thief = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="vagus-lab-pi")
    thief.connect("127.0.0.1", port)
    deadline = time.monotonic() + 5
    while not thief.is_connected() and time.monotonic() < deadline:
        thief.loop(0.05)
    thief.disconnect()


def test_a_broker_that_lost_everything_is_told_again() -> None:
    with Mosquitto() as broker, Agent(at(broker.port)) as agent:
        agent.session()
        agent.call(lambda: agent.uplink.publish_retained("observed", b"observed 1"))
        broker.kill()
        agent.call(lambda: agent.uplink.publish_retained("observed", b"observed 2"))
        broker.start()
        agent.session()
        with Watcher(broker.port) as watcher:
            seen = [watcher.wait_for(lambda seen: seen.topic != REPORT, "announcement") for _ in range(2)]
        assert {one.topic: one.payload for one in seen} == {PRESENCE: encode(BIRTH), OBSERVED: b"observed 2"}


def test_events_wait_in_order_with_their_age_and_the_oldest_are_dropped_and_counted() -> None:
    with (
        Mosquitto() as broker,
        Watcher(broker.port) as watcher,
        Agent(at(broker.port), backlog=3, start=False) as agent,
    ):
        for seq in range(5):
            agent.publish(event(seq))
        agent.call(lambda: agent.uplink.publish_report(b"dropped: there is no session"))
        assert agent.uplink.dropped_events == 2
        time.sleep(0.2)
        agent.call(agent.uplink.start)
        agent.session()
        agent.publish(event(5))
        watcher.wait_for(presence(True), "birth, before the backlog")
        events = [watcher.wait_for(lambda seen: seen.topic != PRESENCE, "event") for _ in range(4)]
        decoded = [decode(seen.payload, Event) for seen in events]
        assert [message.seq for message in decoded if isinstance(message, Event)] == [2, 3, 4, 5]
        ages = [message.age_s for message in decoded if isinstance(message, Event)]
        assert all(0.2 <= age < 5 for age in ages[:3])
        assert ages[3] < 0.2


def test_a_frozen_broker_is_left_within_5_s_and_its_unconfirmed_events_go_to_the_next() -> None:
    with (
        Mosquitto() as first,
        Mosquitto() as second,
        Watcher(second.port) as watcher,
        Agent(at(first.port), at(second.port)) as agent,
    ):
        assert agent.session().index == 0
        time.sleep(0.3)
        first.freeze()
        frozen = time.monotonic()
        agent.publish(event(1))
        assert agent.session(timeout=8.0).index == 1
        took = time.monotonic() - frozen
        seen = watcher.wait_for(is_event, "event")
        message = decode(seen.payload, Event)
        assert isinstance(message, Event)
        assert message.seq == 1
        # Its age is that of the event, not of the second sending.
        assert took - 0.5 <= message.age_s <= took + 1.0


def test_a_black_hole_first_in_the_list_costs_little() -> None:
    """A listener whose queue is full: the kernel drops further SYNs, as a dead path does."""
    with socket.socket() as hole, Mosquitto() as second:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        port = hole.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        started = time.monotonic()
        with Agent(at(port), at(second.port)) as agent:
            assert agent.session().index == 1
            assert 1.0 < time.monotonic() - started < 5.0
        for filler in fillers:
            filler.close()


def test_a_hint_moves_the_session_at_once_and_no_last_will_overwrites_the_new_birth() -> None:
    """Both addresses are one broker, so the new session takes the old one over."""
    with Mosquitto(listeners=2) as broker, Watcher(broker.port) as watcher:
        backup, overlay = (at(port, peer="hub", path=path) for port, path in zip(broker.ports, ("b", "o"), strict=True))
        with Agent(backup, overlay) as agent:
            assert agent.session().index == 0
            hinted = time.monotonic()
            agent.call(lambda: agent.uplink.path_down("hub", "o"))
            agent.call(lambda: agent.uplink.path_down("hub", "b"))
            assert agent.session().index == 1
            assert time.monotonic() - hinted < 1.0
            presences = [seen for seen in watcher.drain(0.7) if seen.topic == PRESENCE]
            assert presence(True)(presences[-1])
        watcher.wait_for(presence(False), "goodbye")


def test_back_home_while_the_session_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second address of a broker to the first: the session is handed over, nothing is lost between."""
    monkeypatch.setattr(brokers, "RETURN_S", 1.0)
    with Mosquitto(listeners=2) as broker, Watcher(broker.ports[1]) as watcher:
        with Mosquitto() as closed:
            first = closed.port
        with Agent(at(first), at(broker.ports[1])) as agent:
            assert agent.session().index == 1
            relay = Relay(first, broker.ports[0])
            with relay:
                assert agent.session().index == 0
                agent.publish(event(1))
                assert seq_of(watcher.wait_for(is_event, "event by the first address")) == 1
                presences = [seen for seen in watcher.drain(0.7) if seen.topic == PRESENCE]
                assert not presences or presence(True)(presences[-1])
                with Watcher(broker.ports[1], PRESENCE) as late:
                    assert presence(True)(late.wait_for(lambda seen: True, "retained presence"))


def test_an_offline_presence_of_ours_that_comes_last_is_answered() -> None:
    with Mosquitto() as broker, Watcher(broker.port) as watcher, Agent(at(broker.port)) as agent:
        agent.session()
        watcher.wait_for(presence(True), "birth")
        watcher.publish(PRESENCE, encode(WILL), retain=True)
        watcher.wait_for(presence(False), "stale will")
        watcher.wait_for(presence(True), "answer")
        assert not watcher.drain(1.3)


def test_a_wrong_password_is_told_once_with_what_to_check(tmp_path: Path) -> None:
    password_file = tmp_path / "password"
    password_file.write_text("wrong\n")
    with (
        Mosquitto(users={"pi": "right", "watcher": "w"}) as guarded,
        Mosquitto() as open_broker,
        Agent(
            at(guarded.port), at(open_broker.port), username="pi", password_file=str(password_file), start=True
        ) as agent,
    ):
        assert agent.session().index == 1
        told = agent.refusals.get_nowait()
        assert agent.refusals.empty()
        for word in (f"127.0.0.1:{guarded.port}", "'pi'", str(password_file), "Not authorized"):
            assert word in told


def test_refused_everywhere_it_lives_on_and_comes_in_when_the_password_is_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(brokers, "REFUSED_FIRST_S", 0.4)
    password_file = tmp_path / "password"
    with (
        Mosquitto(users={"pi": "right"}) as broker,
        Agent(at(broker.port), username="pi", password_file=str(password_file)) as agent,
    ):
        agent.publish(event(1))
        time.sleep(0.3)
        assert agent.sessions.empty()
        password_file.write_text("right\n")
        assert agent.session().index == 0


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_tls_with_our_own_ca(protocol: Literal["5", "3.1.1"], tmp_path: Path) -> None:
    made = certificates(tmp_path)
    with (
        Mosquitto(tls=made) as broker,
        Watcher(broker.port, ca=str(made.ca)),
        Agent(at(broker.port, tls=True), protocol=protocol, ca_file=str(made.ca)) as agent,
    ):
        agent.session()
        for seq in range(50):
            agent.publish(event(seq))
        deadline = time.monotonic() + 5
        while agent.uplink.waiting_events and time.monotonic() < deadline:
            time.sleep(0.01)
        assert agent.uplink.waiting_events == 0


def test_events_that_nobody_listens_to_wait_for_a_controller() -> None:
    with Mosquitto() as broker, Agent(at(broker.port)) as agent:
        agent.session()
        for seq in range(20):
            agent.publish(event(seq))
        time.sleep(0.5)
        with Watcher(broker.port) as watcher:
            watcher.publish(topics.controller("lab", "brain"), b"{}")
            assert [seq_of(watcher.wait_for(is_event, f"event {seq}")) for seq in range(20)] == list(range(20))


def test_a_certificate_of_a_stranger_is_refused_in_words(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    ours, theirs = certificates(tmp_path / "ours"), certificates(tmp_path / "theirs")
    with (
        Mosquitto(tls=theirs) as broker,
        Mosquitto() as second,
        Agent(at(broker.port, tls=True), at(second.port), ca_file=str(ours.ca)) as agent,
    ):
        assert agent.session().index == 1
    assert any("TLS failed" in record.getMessage() and "ca_file" in record.getMessage() for record in caplog.records)


def test_what_fails_in_a_callback_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(payload: bytes) -> None:
        raise ValueError(f"cannot take {len(payload)} bytes")

    with Mosquitto() as broker, Watcher(broker.port) as watcher, Agent(at(broker.port), on_desired=fail) as agent:
        agent.session()
        for size in (0, 1, 70_000):
            watcher.publish(DESIRED, b"x" * size)
        watcher.publish(topics.controller("lab", "brain"), b"still here")
        assert agent.controllers.get(timeout=5)[1] == b"still here"
        agent.publish(event(1))
        assert seq_of(watcher.wait_for(is_event, "event")) == 1
    assert any("cannot take 1 bytes" in record.getMessage() for record in caplog.records)


def test_a_forbidden_publish_is_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p")
    acl = f"user pi\ntopic readwrite {PRESENCE}\n"
    with (
        Mosquitto(users={"pi": "p"}, acl=acl) as broker,
        Agent(at(broker.port), username="pi", password_file=str(tmp_path / "password")) as agent,
    ):
        agent.session()
        agent.publish(event(1))
        deadline = time.monotonic() + 5
        while agent.uplink.waiting_events and time.monotonic() < deadline:
            time.sleep(0.01)
    assert any("does not let user 'pi' publish" in record.getMessage() for record in caplog.records)


def test_stop_without_any_broker_is_quick() -> None:
    with Mosquitto() as closed:
        port = closed.port
    with Agent(at(port)) as agent:
        time.sleep(0.2)
        started = time.monotonic()
        agent.stop()
        assert time.monotonic() - started < 2.5
