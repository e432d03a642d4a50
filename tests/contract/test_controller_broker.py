"""The controller's broker session against real mosquitto."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from contract.mosquitto import Mosquitto, Relay, Watcher, certificates
from vagus_controller import config
from vagus_controller.broker import BATCH, BrokerSession
from vagus_protocol import brokers, topics
from vagus_protocol.codec import MAX_ORDERS

OWN = topics.controller("lab", "brain")
WILL = b'{"v":1,"controller":"brain","session":"s","online":false}'
REPORT = topics.node("lab", "pi", "report")


class Inbox:
    """What a BrokerSession told, in order."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self.sessions: list[tuple[bool, str]] = []
        self.refusals: list[str] = []
        self.came = asyncio.Event()

    def message(self, topic: str, payload: bytes, retained: bool) -> None:
        self.messages.append((topic, payload, retained))
        self.came.set()

    def refused(self, text: str) -> None:
        self.refusals.append(text)

    def session(self, connected: bool, reason: str) -> None:
        self.sessions.append((connected, reason))
        self.came.set()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(8.0):
                while not condition():
                    self.came.clear()
                    await self.came.wait()
        except TimeoutError:
            raise AssertionError(f"no {what} within 8 s: {self.sessions}, {self.messages[-10:]}") from None

    def connected(self) -> int:
        return sum(connected for connected, _ in self.sessions)


def at(port: int, tls: bool = False) -> config.Broker:
    return config.Broker(host="127.0.0.1", port=port, tls=tls)


@asynccontextmanager
async def controller(
    *places: config.Broker,
    protocol: Literal["5", "3.1.1"] = "5",
    inbox: Inbox | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[BrokerSession, Inbox]]:
    inbox = inbox or Inbox()
    session = BrokerSession(
        config.Mqtt(brokers=places, protocol=protocol, **settings),
        client_id="vagus-controller-brain",
        subscriptions=topics.controller_subscriptions("lab"),
        will=(OWN, WILL),
        on_message=inbox.message,
        on_session=inbox.session,
        on_refused=inbox.refused,
    )
    session.start()
    try:
        yield session, inbox
    finally:
        await session.stop()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_after_the_barrier_every_retained_message_has_come(protocol: Literal["5", "3.1.1"]) -> None:
    async def run() -> None:
        async with controller(at(broker.port), protocol=protocol) as (session, inbox):
            await asyncio.wait_for(session.barrier(), 10)
            retained = [topic for topic, _, was_retained in inbox.messages if was_retained]
            assert len(retained) == 300
            assert len(set(retained)) == 300
            assert inbox.sessions[0][0]
            assert session.broker == f"127.0.0.1:{broker.port}"

    with Mosquitto() as broker:
        with Watcher(broker.port, "nothing") as fill:
            for number in range(100):
                for leaf in ("presence", "desired", "observed"):
                    topic = f"vagus/1/lab/nodes/n{number}/{leaf}"
                    fill.publish(topic, b"x" * 500, retain=True)
        asyncio.run(run())


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_orders_of_the_largest_size_are_retained_and_there_before_the_next_leader_is_settled(
    protocol: Literal["5", "3.1.1"],
) -> None:
    orders = b"x" * MAX_ORDERS
    topic = topics.orders("lab", "brain")

    async def run() -> None:
        async with controller(at(broker.port), protocol=protocol) as (session, inbox):
            await asyncio.wait_for(session.barrier(), 10)
            assert session.publish(topic, orders, qos=1, retain=True)
            assert session.publish(REPORT, b"after it", qos=1)
            await inbox.until(lambda: (REPORT, b"after it", False) in inbox.messages, "what came after it")
            assert (topic, orders, False) in inbox.messages, "its own words come back to it"
        async with controller(at(broker.port), protocol=protocol) as (session, inbox):
            await asyncio.wait_for(session.barrier(), 10)
            assert (topic, orders, True) in inbox.messages

    with Mosquitto() as broker:
        asyncio.run(run())


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_message_is_the_same_with_and_without_properties_and_at_any_quality_of_service(
    protocol: Literal["5", "3.1.1"],
) -> None:
    with_properties = Properties(PacketTypes.PUBLISH)
    with_properties.MessageExpiryInterval = 3600
    with_properties.UserProperty = ("a", "b" * 200)
    nodes = ("pi", "π", "n" * 150)
    sent = [
        (topics.node("lab", "pi", "report").replace("/pi/", f"/{node}/"), payload, qos, properties)
        for node in nodes
        for payload in (b"", b"\0", b"\0" * 300, bytes(range(256)) * 20)
        for qos in (0, 1, 2)
        for properties in (None, with_properties)
    ]

    async def run() -> None:
        async with controller(at(broker.port), protocol=protocol) as (session, inbox):
            await asyncio.wait_for(session.barrier(), 5)
            inbox.messages.clear()
            for topic, payload, qos, properties in sent:
                publisher.publish(topic, payload, qos=qos, properties=properties)
            await inbox.until(lambda: len(inbox.messages) >= len(sent), "all of them")
            # A message of QoS 2 is passed on when its sender has confirmed it: later than those after it.
            assert sorted(inbox.messages) == sorted((topic, payload, False) for topic, payload, _, _ in sent)
            assert inbox.connected() == 1

    with Mosquitto() as broker:
        publisher = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        publisher.connect("127.0.0.1", broker.port)
        publisher.loop_start()
        try:
            asyncio.run(run())
        finally:
            publisher.disconnect()
            publisher.loop_stop()


def test_a_publish_is_in_the_kernel_when_it_returns() -> None:
    """The loop is blocked right after: only what was written at once can reach the watcher."""

    async def run() -> None:
        async with controller(at(broker.port)) as (session, _):
            await asyncio.wait_for(session.barrier(), 5)
            assert session.publish(topics.node("lab", "pi", "desired"), b"go", qos=1, retain=True)
            seen = watcher.wait_for(lambda seen: seen.topic.endswith("/desired"), "desired", timeout=2)
            assert seen.payload == b"go"

    with Mosquitto() as broker, Watcher(broker.port) as watcher:
        asyncio.run(run())


def test_last_will_and_goodbye() -> None:
    async def run() -> None:
        with Mosquitto() as second:
            # Leaving for another broker without a word is what a crash looks like to the first one.
            async with controller(at(broker.port), at(second.port)) as (session, inbox):
                await asyncio.wait_for(session.barrier(), 5)
                client = session._client
                assert client is not None
                client.close()
                await inbox.until(lambda: inbox.connected() == 2, "second session")
                await asyncio.to_thread(
                    watcher.wait_for, lambda seen: seen.payload == WILL and not seen.retained, "will"
                )
        async with controller(at(broker.port)) as (session, _):
            await asyncio.wait_for(session.barrier(), 5)
            session.publish(OWN, b"goodbye", qos=1, retain=True)
        await asyncio.to_thread(watcher.wait_for, lambda seen: seen.payload == b"goodbye", "goodbye")
        assert not watcher.drain(0.5)

    with Mosquitto() as broker, Watcher(broker.port, OWN) as watcher:
        asyncio.run(run())


def test_after_a_broker_restart_it_is_back_and_the_barrier_holds_again() -> None:
    async def run() -> None:
        async with controller(at(broker.port)) as (session, inbox):
            await asyncio.wait_for(session.barrier(), 5)
            session.publish(OWN, b"presence", qos=1, retain=True)
            broker.kill()
            await inbox.until(lambda: not inbox.sessions[-1][0], "loss")
            assert not session.connected
            assert not session.publish(OWN, b"presence", qos=1, retain=True)
            broker.start()
            await asyncio.wait_for(session.barrier(), 8)
            assert inbox.connected() == 2
            # It said again what it last said of itself.
            assert inbox.messages[-1] == (OWN, b"presence", False)

    with Mosquitto() as broker:
        asyncio.run(run())


def test_a_frozen_broker_is_left_for_the_next_within_5_s() -> None:
    async def run() -> None:
        async with controller(at(first.port), at(second.port)) as (session, inbox):
            await asyncio.wait_for(session.barrier(), 5)
            first.freeze()
            frozen = time.monotonic()
            await inbox.until(lambda: inbox.connected() == 2, "second session")
            assert time.monotonic() - frozen < 5.0
            assert session.broker == f"127.0.0.1:{second.port}"
            await asyncio.wait_for(session.barrier(), 5)
            watcher.publish(REPORT, b"r")
            await inbox.until(lambda: (REPORT, b"r", False) in inbox.messages, "report")

    with Mosquitto() as first, Mosquitto() as second, Watcher(second.port, "nothing") as watcher:
        asyncio.run(run())


def test_connecting_to_a_frozen_broker_never_blocks_the_loop() -> None:
    async def run() -> None:
        worst = 0.0
        async with controller(at(broker.port, tls=True)):
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                worst = max(worst, time.monotonic() - before - 0.01)
        assert worst < 0.5

    with Mosquitto() as broker:
        broker.freeze()
        asyncio.run(run())


def test_back_home_to_the_first_address_of_the_same_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "RETURN_S", 1.0)

    async def run() -> None:
        with Mosquitto() as closed:
            first = closed.port
        async with controller(at(first), at(broker.ports[1])) as (session, inbox):
            await asyncio.wait_for(session.barrier(), 8)
            session.publish(OWN, b"presence", qos=1, retain=True)
            with Relay(first, broker.ports[0]):
                await inbox.until(lambda: session.broker == f"127.0.0.1:{first}", "return")
                await asyncio.wait_for(session.barrier(), 8)
                # The will of the session that was taken over came before, and is corrected.
                with Watcher(broker.port, OWN) as late:
                    assert late.wait_for(lambda seen: True, "presence").payload == b"presence"
                assert all(connected for connected, _ in inbox.sessions)

    with Mosquitto(listeners=2) as broker:
        asyncio.run(run())


def test_what_on_message_raises_is_told_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Inbox):
        def message(self, topic: str, payload: bytes, retained: bool) -> None:
            super().message(topic, payload, retained)
            if payload == b"bad":
                raise KeyError("no such node")

    async def run() -> None:
        async with controller(at(broker.port), inbox=Failing()) as (session, inbox):
            await asyncio.wait_for(session.barrier(), 5)
            for payload in (b"bad",) * 50 + (b"good",):
                watcher.publish(REPORT, payload)
            await inbox.until(lambda: (REPORT, b"good", False) in inbox.messages, "the good one")
            assert inbox.connected() == 1

    with Mosquitto() as broker, Watcher(broker.port, "nothing") as watcher:
        asyncio.run(run())
    lines = [record.getMessage() for record in caplog.records if "no such node" in record.getMessage()]
    assert len(lines) == 1


def test_a_burst_is_taken_whole_and_the_loop_keeps_its_turns() -> None:
    class Slow(Inbox):
        def message(self, topic: str, payload: bytes, retained: bool) -> None:
            super().message(topic, payload, retained)
            time.sleep(0.0005)

    async def run() -> None:
        async with controller(at(broker.port), inbox=Slow()) as (session, inbox):
            await asyncio.wait_for(session.barrier(), 5)
            before = handled = len(inbox.messages)
            most = 0
            for number in range(2000):
                watcher.send(REPORT, b"%d" % number + b"x" * 800)
            while len(inbox.messages) < before + 2000:
                await asyncio.sleep(0)
                most, handled = max(most, len(inbox.messages) - handled), len(inbox.messages)
            assert [int(payload.rstrip(b"x")) for _, payload, _ in inbox.messages[before:]] == list(range(2000))
            # In one turn of the loop: what was left in the buffer, and what the socket has after that.
            assert most <= 2 * BATCH

    with Mosquitto() as broker, Watcher(broker.port, "nothing") as watcher:
        asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_tls_with_our_own_ca_and_payloads_larger_than_a_record(protocol: Literal["5", "3.1.1"], tmp_path: Path) -> None:
    made = certificates(tmp_path)

    async def run() -> None:
        async with controller(at(broker.port, tls=True), protocol=protocol, ca_file=str(made.ca)) as (session, inbox):
            await asyncio.wait_for(session.barrier(), 8)
            for size in (1, 16_384, 60_000):
                session.publish(OWN, b"x" * size, qos=1)
                expected = (OWN, b"x" * size, False)
                await inbox.until(lambda expected=expected: expected in inbox.messages, f"{size} bytes")  # type: ignore[misc]

    with Mosquitto(tls=made) as broker:
        asyncio.run(run())


def test_a_wrong_password_is_told_once_with_what_to_check(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong")

    async def run() -> None:
        places = (at(guarded.port), at(second.port))
        async with controller(*places, username="brain", password_file=str(tmp_path / "password")) as (session, inbox):
            await inbox.until(lambda: inbox.connected() == 1, "session with the second broker")
            assert session.broker == f"127.0.0.1:{second.port}"
            [told] = inbox.refusals
            for word in (f"127.0.0.1:{guarded.port}", "'brain'", str(tmp_path / "password"), "Not authorized"):
                assert word in told

    with Mosquitto(users={"brain": "right"}) as guarded, Mosquitto() as second:
        asyncio.run(run())
