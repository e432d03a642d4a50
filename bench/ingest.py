"""Reports per second that one controller process takes in from a real mosquitto, beside subscribers that only count.

Three rows, taken in turn, each with a fresh mosquitto whose fleet has announced itself: a stock paho client that
counts; the controller's own MQTT session (`BrokerSession`) that counts; and the whole controller, as `vagus-controller
run` runs it: decoding, state, all detectors, failover, SQLite, HTTP. A flood of reports as fast as mosquitto takes
them, with link events among them, stands between two marker events; the row's time is from when it handled the first
marker to when it handled the second (the controller's stored events tell when). Afterwards the controller's API must
show the last report of every node, and none lost.

Then a fleet at its own pace, and at twice that: what the controller costs there, and how long a link event takes to
become the two orders that move a pair.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import paho.mqtt.client as mqtt
import psutil
import table
from mqtt_flood import connect, packet, text
from paho.mqtt.enums import CallbackAPIVersion

from contract.mosquitto import Mosquitto, free_port
from vagus_controller import config
from vagus_controller.broker import BrokerSession
from vagus_protocol import topics
from vagus_protocol.codec import encode
from vagus_protocol.messages import (
    Disk,
    DiskIo,
    Etcd,
    EtcdMember,
    Event,
    EventKind,
    Link,
    LinkState,
    PathOffer,
    PeerOffer,
    Presence,
    Pressure,
    Process,
    Relay,
    Report,
    System,
)

FLEET: Final = "bench"
MARKER: Final = "marker"
INTERVAL_S: Final = 2.0
# Sequence numbers of constant width, so that a report's length does not change.
FIRST_SEQ: Final = 1_000_000
_SEQ_SLOT: Final = b'"seq":%d' % FIRST_SEQ
_EVENT_SEQ_SLOT: Final = b'"event_seq":%d' % FIRST_SEQ
# Of all reports, those that come with a link's change of state: one way, and back in the next.
EVENT_SHARE: Final = 1 / 500
_CHUNK: Final = 50
_READY_S: Final = 60.0
_ROWS: Final = ("paho, counts", "session, counts", "controller")


# --- the fleet -----------------------------------------------------------------------------------------------------


class Node:
    """A made-up node with four peers over two paths, as its agent would describe it. The first three run etcd."""

    def __init__(self, number: int, of: int, rng: random.Random) -> None:
        self.name = f"node-{number:05}"
        self.session = secrets.token_hex(8)
        self.boot_id = secrets.token_hex(16)
        self.peers = sorted(f"node-{(number + step) % of:05}" for step in (-2, -1, 1, 2))
        self.member = number < 3
        self.seq = FIRST_SEQ - 1
        self.event_seq = FIRST_SEQ
        self._number = number
        self._rng = rng
        self._topic = text(topics.node(FLEET, self.name, "report"))
        self._well = self._template()
        self._ill: tuple[bytes, bytes, bytes] | None = None

    def birth(self) -> bytes:
        paths = ("overlay", "backup")
        presence = Presence(
            v=1,
            node=self.name,
            session=self.session,
            online=True,
            boot_id=self.boot_id,
            version="0.1.0",
            site=f"site-{self._number % 50}",
            addresses=(f"10.{self._number >> 8}.{self._number & 255}.1/32",),
            paths=tuple(PathOffer(name=path) for path in paths),
            peers=tuple(PeerOffer(name=peer, addresses=("10.9.9.9/32",), paths=paths) for peer in self.peers),
            etcd_member=self.member,
        )
        return packet(0x31, text(topics.node(FLEET, self.name, "presence")) + encode(presence))

    def report(self) -> bytes:
        """The next report, as a packet."""
        self.seq += 1
        head, middle, tail = self._ill or self._well
        return b"%b%d%b%d%b" % (head, self.seq, middle, self.event_seq, tail)

    def turn(self) -> bytes:
        """One overlay link degrades, or is well again: the event of it, as a packet. The next reports say the same."""
        peer = self.peers[0]
        state = LinkState.DEGRADED if self._ill is None else LinkState.UP
        self._ill = self._template(peer) if self._ill is None else None
        links = (self._link(peer, "overlay", state), self._link(peer, "backup"))
        return self.event(links, f"overlay to {peer} is {state.value}")

    def goes_down(self) -> bytes:
        """The overlay to the last peer goes down, at both ends: the event of it, as a packet."""
        peer = self.peers[-1]
        return self.event(
            (self._link(peer, "overlay", LinkState.DOWN, LinkState.DOWN), self._link(peer, "backup")),
            f"overlay to {peer} is down: 5 of 5 probes lost",
        )

    def event(self, links: tuple[Link, ...], words: str) -> bytes:
        self.event_seq += 1
        event = Event(
            v=1,
            node=self.name,
            session=self.session,
            seq=self.event_seq,
            kind=EventKind.LINK,
            text=words,
            peer=links[0].peer,
            path="overlay",
            links=links,
        )
        return packet(0x30, text(topics.node(FLEET, self.name, "event")) + encode(event))

    def _link(
        self, peer: str, path: str, state: LinkState = LinkState.UP, peer_state: LinkState = LinkState.UP
    ) -> Link:
        roll = self._rng.random
        down = state is LinkState.DOWN
        return Link(
            peer=peer,
            path=path,
            state=state,
            since_s=0.0 if down else round(roll() * 1e5, 3),
            reason="5 of 5 probes lost" if down else "",
            rtt_s=round(0.01 + roll() / 100, 6),
            jitter_s=round(roll() / 1000, 6),
            loss_10s=round(roll() / 100, 3),
            loss_60s=round(roll() / 100, 3),
            proven_s=round(roll() / 5, 3),
            peer_state=peer_state,
            relay=Relay.DIRECT if path == "overlay" else None,
            current=path == "overlay",
        )

    def _template(self, ill: str = "") -> tuple[bytes, bytes, bytes]:
        """A report's packet around its two sequence numbers; the overlay to `ill` is degraded."""
        roll = self._rng.random
        report = Report(
            v=1,
            node=self.name,
            session=self.session,
            seq=FIRST_SEQ,
            event_seq=FIRST_SEQ,
            boot_id=self.boot_id,
            interval_s=INTERVAL_S,
            lag_s=round(roll() / 100, 4),
            system=System(
                cores=4,
                load1=round(roll(), 2),
                load5=round(roll(), 2),
                load15=round(roll(), 2),
                uptime_s=86400.5,
                runnable=self._rng.randrange(1, 4),
                blocked=0,
                cpu_user=0.11,
                cpu_system=0.05,
                cpu_iowait=0.01,
                cpu_steal=0.0,
                cpu_idle=0.83,
                psi_cpu=Pressure(some=0.01),
                psi_io=Pressure(some=0.0, full=0.0),
                psi_memory=Pressure(some=0.0, full=0.0),
                memory_bytes=4 << 30,
                memory_available_bytes=3 << 30,
                disks=(Disk(mount="/", used=0.41, free_bytes=20 << 30),),
                disk_io=(DiskIo(device="mmcblk0", busy=0.02, read_bps=0.0, write_bps=20480.0, await_s=0.004),),
                net_errors=0,
                net_drops=0,
                tcp_retransmits=17,
                temperature_c=48.3,
                processes=(Process(name="tailscaled", count=1, cpu=0.02, rss_bytes=40 << 20),),
            ),
            links=tuple(
                self._link(peer, path, LinkState.DEGRADED if (peer, path) == (ill, "overlay") else LinkState.UP)
                for peer in self.peers
                for path in ("overlay", "backup")
            ),
            etcd=self._etcd() if self.member else None,
            epoch=1,
            generation=1,
            broker="127.0.0.1:1883",
        )
        whole = packet(0x30, self._topic + encode(report))
        digits = len(str(FIRST_SEQ))
        head, seq, rest = whole.partition(_SEQ_SLOT)
        middle, event_seq, tail = rest.partition(_EVENT_SEQ_SLOT)
        return head + seq[:-digits], middle + event_seq[:-digits], tail

    def _etcd(self) -> Etcd:
        members = tuple(EtcdMember(id=f"m{number}", name=f"node-{number:05}") for number in range(3))
        return Etcd(
            answering=True,
            age_s=0.5,
            version="3.4.23",
            member_id=f"m{self._number}",
            leader_id="m0",
            term=7,
            raft_index=123456,
            applied_index=123456,
            db_bytes=20 << 20,
            members=members,
            read_s=0.004,
        )


class Publisher:
    """One raw MQTT session that speaks for the whole fleet."""

    def __init__(self, port: int, nodes: Sequence[Node], rng: random.Random) -> None:
        self.port = port
        self._sock = connect("127.0.0.1", port, "", "")
        self._sock.settimeout(60)
        self._nodes = nodes
        self._rng = rng
        self._at = 0
        self._lock = threading.Lock()
        self.sent = 0

    def send(self, data: bytes) -> None:
        with self._lock:
            self._sock.sendall(data)

    def announce(self) -> None:
        self.send(b"".join(node.birth() for node in self._nodes))

    def marker(self, name: str) -> None:
        node = self._nodes[0]
        event = Event(v=1, node=node.name, session=node.session, seq=0, kind=EventKind.AGENT, text=name)
        self.send(packet(0x30, text(topics.node(FLEET, event.node, "event")) + encode(event)))

    def flood(self, reports: int, rate: float = 0.0, *, events: bool = True) -> None:
        """`reports`, node by node and from the first again; `rate` a second, 0 for as fast as the broker takes them."""
        began, sent = time.monotonic(), 0
        while sent < reports:
            if rate:
                time.sleep(max(began + sent / rate - time.monotonic(), 0))
            chunk = []
            for _ in range(min(_CHUNK, reports - sent)):
                node = self._nodes[self._at]
                self._at = (self._at + 1) % len(self._nodes)
                chunk.append(node.report())
                if events and self._rng.random() < EVENT_SHARE:
                    chunk.append(node.turn())
            self.send(b"".join(chunk))
            sent += min(_CHUNK, reports - sent)
        self.sent += sent

    @contextlib.contextmanager
    def pace(self) -> Iterator[None]:
        """Meanwhile, and at least once, every node reports as often as it says."""
        over = threading.Event()

        def run() -> None:
            while True:
                self.flood(len(self._nodes), len(self._nodes) / INTERVAL_S, events=False)
                if over.is_set():
                    return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def close(self) -> None:
        self._sock.close()


# --- who takes it in -----------------------------------------------------------------------------------------------


class Counter:
    """A subscriber in its own process, that counts, and tells when a marker came."""

    def __init__(self, port: int, kind: str) -> None:
        argv = [sys.executable, __file__, "--count", kind, "--port", str(port)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        # marker → (when, reports before it)
        self._marks: dict[str, tuple[float, int]] = {}
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self.marked("ready")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            mark = json.loads(line)
            with self._news:
                self._marks[mark["marker"]] = (mark["at"], mark["reports"])
                self._news.notify_all()

    def marked(self, name: str) -> float:
        """When it came, in wall-clock seconds."""
        with self._news:
            if not self._news.wait_for(lambda: name in self._marks, timeout=_READY_S):
                raise SystemExit(f"the counting subscriber did not see {name!r} within {_READY_S:.0f} s")
            return self._marks[name][0]

    def check(self, publisher: Publisher) -> None:
        count = max(count for _, count in self._marks.values())
        if count != publisher.sent:
            raise SystemExit(f"{count} of {publisher.sent} reports arrived")

    def stop(self) -> None:
        _end(self.process)


def count(port: int, kind: str) -> None:
    """The counting process: a line of JSON when it is connected, and at each marker."""
    reports = 0
    event_leaf, report_leaf = "/event", "/report"

    def take(topic: str, payload: bytes) -> None:
        nonlocal reports
        if topic.endswith(report_leaf):
            reports += 1
        elif topic.endswith(event_leaf) and MARKER.encode() in payload:
            say(json.loads(payload)["text"])

    def say(marker: str) -> None:
        print(json.dumps({"marker": marker, "at": time.time(), "reports": reports}), flush=True)

    if kind == "paho":
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.on_message = lambda _client, _data, message: take(message.topic, message.payload)
        client.on_connect = lambda *_: client.subscribe(list(topics.controller_subscriptions(FLEET)))
        client.on_subscribe = lambda *_: say("ready")
        client.connect("127.0.0.1", port)
        client.loop_forever()
    else:
        asyncio.run(_count_by_session(port, take, say))


async def _count_by_session(port: int, take: Callable[[str, bytes], None], say: Callable[[str], None]) -> None:
    session = BrokerSession(
        config.Mqtt(brokers=(config.Broker(host="127.0.0.1", port=port),)),
        client_id="counter",
        subscriptions=topics.controller_subscriptions(FLEET),
        will=(topics.controller(FLEET, "counter"), b"{}"),
        on_message=lambda topic, payload, _retained: take(topic, payload),
        on_session=lambda *_: None,
        on_refused=lambda text: print(text, file=sys.stderr),
    )
    session.start()
    await session.barrier()
    say("ready")
    await asyncio.Event().wait()


class Brain:
    """A controller as it is installed, in its own process; asked by its API only."""

    def __init__(self, port: int, folder: Path) -> None:
        self._http = free_port()
        self._folder = folder
        _private(folder / "fleet.key", secrets.token_hex(32))
        self._token = secrets.token_hex(16)
        _private(folder / "token", self._token)
        (folder / "controller.toml").write_text(
            f'fleet = "{FLEET}"\nname = "brain"\nfleet_key_file = "{folder}/fleet.key"\nlog_level = "warning"\n'
            f'[http]\nport = {self._http}\ntoken_file = "{folder}/token"\n'
            f'[store]\nurl = "sqlite:///{folder}/vagus.db"\n'
            f'[[mqtt.brokers]]\nhost = "127.0.0.1"\nport = {port}\n'
        )
        argv = [sys.executable, "-m", "vagus_controller", "run", "--config", str(folder / "controller.toml")]
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(argv, stderr=log)
        try:
            self.happened("brain", "leads under epoch")
        except BaseException:
            self.stop()
            raise

    def marked(self, name: str) -> float:
        return self.happened("node-00000", name)

    def happened(self, subject: str, words: str) -> float:
        """When the newest event about `subject` that begins with `words` was recorded, in wall-clock seconds."""
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SystemExit(f"the controller ended:\n{self._log.read_text()}")
            with contextlib.suppress(OSError):
                for event in json.loads(self._get(f"/api/v1/events?limit=100&subject={subject}")):
                    if event["text"].startswith(words):
                        return float(event["at"])
            # Seldom, since the asking costs the controller too; the event says by itself when it was.
            time.sleep(1)
        raise SystemExit(
            f"the controller told no event {words!r} about {subject} within {_READY_S:.0f} s; the end of its log:\n"
            + self._log.read_text()[-2000:]
        )

    def sees_all_well(self, nodes: int) -> None:
        """Wait until it has judged every link, and trusts itself: not when it has only just connected."""
        wanted = {'vagus_controller_state{state="connected"} 1.0'}
        wanted |= {f'vagus_links{{path="{path}",state="up"}} {2.0 * nodes}' for path in ("overlay", "backup")}
        deadline = time.monotonic() + _READY_S
        while not wanted.issubset(found := self._get("/metrics").decode().splitlines()):
            if time.monotonic() > deadline:
                links = [line for line in found if line.startswith(("vagus_links{", "vagus_controller_state"))]
                raise SystemExit(f"after {_READY_S:.0f} s the controller sees {links}, not {sorted(wanted)}")
            time.sleep(2)

    def check(self, publisher: Publisher) -> None:
        """Every node's newest report must be the last that it sent, and none be missed."""
        nodes = {node["name"]: node for node in json.loads(self._get("/api/v1/nodes"))}
        for node in publisher._nodes:
            seen = nodes[node.name]
            if seen["report"]["seq"] != node.seq or seen["reports_lost"]:
                raise SystemExit(
                    f"{node.name}: report {seen['report']['seq']} of {node.seq}, {seen['reports_lost']} lost"
                )

    def stop(self) -> None:
        _end(self.process)

    def _get(self, path: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self._http}{path}")
        request.add_header("Authorization", f"Bearer {self._token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            body: bytes = answer.read()
            return body


class Orders:
    """What is published for the nodes to do, and when it arrived."""

    def __init__(self, port: int) -> None:
        self._came: dict[str, float] = {}
        self._news = threading.Condition()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        ready = threading.Event()
        self._client.on_message = self._on_message
        self._client.on_connect = lambda *_: self._client.subscribe(topics.node(FLEET, "+", "desired"), qos=1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        if not ready.wait(_READY_S):
            raise SystemExit("the broker does not answer the subscription to desired")

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        where = topics.parse(message.topic)
        assert isinstance(where, topics.NodeTopic)
        with self._news:
            self._came[where.node] = time.monotonic()
            self._news.notify_all()

    def __len__(self) -> int:
        return len(self._came)

    def both(self, nodes: tuple[str, str], since: float) -> float:
        """When the later of the two orders that were sent after `since` came."""

        def have() -> bool:
            return all(self._came.get(node, 0.0) > since for node in nodes)

        with self._news:
            if not self._news.wait_for(have, timeout=10):
                raise SystemExit(f"no orders for {' and '.join(nodes)} within 10 s of the link event")
            return max(self._came[node] for node in nodes)

    def wait_for_all(self, nodes: int) -> None:
        with self._news:
            if not self._news.wait_for(lambda: len(self) >= nodes, timeout=_READY_S):
                raise SystemExit(f"orders for {len(self)} of {nodes} nodes after {_READY_S:.0f} s")

    def stop(self) -> None:
        """May be called again."""
        self._client.disconnect()
        self._client.loop_stop()


# --- measuring -----------------------------------------------------------------------------------------------------


def take(row: str, size: int, reports: int, seed: int) -> dict[str, float]:
    """One round of one row: reports a second, and CPU microseconds a report."""
    rng = random.Random(seed)
    nodes = [Node(number, size, rng) for number in range(size)]
    with _setting(row, nodes, rng) as (who, publisher):
        publisher.marker(f"{MARKER} begin")
        process = psutil.Process(who.process.pid)
        cpu, at = _cpu_s(process), publisher.sent
        publisher.flood(reports)
        publisher.marker(f"{MARKER} end")
        end = who.marked(f"{MARKER} end")
        used = _cpu_s(process) - cpu
        seconds = end - who.marked(f"{MARKER} begin")
        who.check(publisher)
        sent = publisher.sent - at
        return {"per_s": sent / seconds, "cpu_us": used / sent * 1e6}


def paced(size: int, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """The whole controller at `rate` reports a second: CPU share, and milliseconds from link event to both orders."""
    rng = random.Random(seed)
    nodes = [Node(number, size, rng) for number in range(size)]
    with _setting("controller", nodes, rng) as (who, publisher):
        assert isinstance(who, Brain)
        orders = Orders(publisher.port)
        try:
            flood = threading.Thread(target=publisher.flood, args=(int(rate * seconds), rate), daemon=True)
            process = psutil.Process(who.process.pid)
            flood.start()
            time.sleep(1)
            cpu, began = _cpu_s(process), time.monotonic()
            gaps = []
            while time.monotonic() - began < seconds - 2:
                time.sleep(0.1 + rng.random() / 5)
                node = nodes[7 * len(gaps) + 10]
                event = node.goes_down()
                sent = time.monotonic()
                publisher.send(event)
                gaps.append((orders.both((node.name, node.peers[-1]), sent) - sent) * 1000)
            share = (_cpu_s(process) - cpu) / (time.monotonic() - began)
            flood.join()
        finally:
            orders.stop()
        publisher.marker(f"{MARKER} end")
        who.marked(f"{MARKER} end")
        who.check(publisher)
    ordered = sorted(gaps)
    return {"cpu_share": share, "moves": len(gaps), "ms": table.spread(gaps), "p95_ms": ordered[int(len(gaps) * 0.95)]}


@contextlib.contextmanager
def _setting(row: str, nodes: Sequence[Node], rng: random.Random) -> Iterator[tuple[Counter | Brain, Publisher]]:
    """A broker whose fleet has announced itself, and the row's subscriber that has had a first report of every node."""
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(options=("max_queued_messages 0",)))
        publisher = Publisher(broker.port, nodes, rng)
        stack.callback(publisher.close)
        publisher.announce()
        who: Counter | Brain
        if row == "controller":
            orders = Orders(broker.port)
            stack.callback(orders.stop)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vagus-ingest-"))
            who = Brain(broker.port, Path(folder))
            stack.callback(who.stop)
            with publisher.pace():
                orders.wait_for_all(len(nodes))
                who.sees_all_well(len(nodes))
            orders.stop()
        else:
            who = Counter(broker.port, row.partition(",")[0])
            stack.callback(who.stop)
            publisher.flood(len(nodes), events=False)
        publisher.marker(f"{MARKER} warm")
        who.marked(f"{MARKER} warm")
        yield who, publisher


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _private(file: Path, words: str) -> None:
    file.touch(mode=0o600)
    file.write_text(words + "\n")


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of every row (default 3)")
    parser.add_argument("--reports", type=int, default=60_000, help="in a round (default 60,000)")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 10_000], help="sizes of the fleet")
    parser.add_argument("--rows", nargs="+", choices=_ROWS, default=list(_ROWS))
    parser.add_argument("--no-pace", action="store_true", help="leave out the second table")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--count", choices=("paho", "session"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        count(options.port, options.count)
        return
    seed = random.randrange(2**32)
    figures: dict[str, Any] = {"reports": options.reports, "seed": seed, "flood": {}, "paced": {}}
    for size in options.nodes:
        samples: dict[str, list[dict[str, float]]] = {row: [] for row in options.rows}
        for number in range(options.rounds):
            for row in options.rows:
                samples[row].append(take(row, size, options.reports, seed + number))
                _say(f"{size} nodes, {row}, round {number + 1}: {samples[row][-1]['per_s']:,.0f} reports/s")
        figures["flood"][size] = {
            row: {key: table.spread([sample[key] for sample in taken]) for key in taken[0]}
            for row, taken in samples.items()
        }
    if not options.no_pace:
        for size, rate in ((1000, 10_000.0), (10_000, 10_000.0)):
            figures["paced"][f"{size} at {rate:.0f}"] = paced(size, rate, 10.0, seed)
            _say(f"{size} nodes at {rate:,.0f} reports/s: done")
    length = sum(len(Node(number, 10, random.Random(seed)).report()) for number in range(10)) / 10
    figures["report_bytes"] = length
    show(figures)
    table.write(options.json, figures)


def show(figures: dict[str, Any]) -> None:
    rows = []
    for size, row in figures["flood"].items():
        base = row.get("session, counts")
        for name, taken in row.items():
            rate, cpu = taken["per_s"], taken["cpu_us"]
            share = f"{rate['median'] / base['per_s']['median']:.0%}" if base else ""
            rows.append(
                [
                    name,
                    f"{size:,}",
                    f"{rate['median']:,.0f}",
                    f"{rate['min']:,.0f} to {rate['max']:,.0f}",
                    share,
                    f"{cpu['median']:.1f}",
                ]
            )
    table.show(
        f"As fast as it goes: reports of {figures['report_bytes']:.0f} bytes, {figures['reports']:,} a round",
        ["", "nodes", "reports/s", "range", "of session", "CPU µs a report"],
        rows,
    )
    if figures["paced"]:
        table.show(
            "The controller at a steady pace, and a pair that must move",
            ["", "CPU of one core", "moves", "event to both orders, median", "95 %", "worst"],
            [
                [
                    f"{name} reports/s",
                    f"{found['cpu_share']:.0%}",
                    found["moves"],
                    f"{found['ms']['median']:.1f} ms",
                    f"{found['p95_ms']:.1f} ms",
                    f"{found['ms']['max']:.1f} ms",
                ]
                for name, found in figures["paced"].items()
            ],
        )


def _say(words: str) -> None:
    print(f"  {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
