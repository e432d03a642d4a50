"""A whole running fleet on a lab, and what the tests ask of it: the controller's word, the kernels', the broker's."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
import urllib.error
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from lab.harness import HostSpec, Lab
from lab.harness.hosts import INTERFACE, PathName
from lab.harness.services import FLEET, MQTT_PORT, Settings, merge
from vagus_protocol import topics
from vagus_protocol.messages import Assignment, Desired
from vagus_protocol.signing import node_key, open_sealed, seal

T = TypeVar("T")

VPS = HostSpec("vps", "frankfurt", {"broker", "controller"})
THREE = (VPS, HostSpec("pi1", "tokyo"), HostSpec("pi2", "austin"))
FOUR = (*THREE, HostSpec("pi3", "berlin"))
FOUR_WITH_ETCD = (VPS, *(HostSpec(spec.name, spec.site, {"etcd"}) for spec in FOUR[1:]))

# Shorter than the defaults, so that silence and orphanhood are found while a test waits; everything else is as shipped.
REPORT_S = 1.0
ORPHANED_AFTER_S = 2.0
FAILBACK_HOLD_S = 2.0
AGENT: Settings = {
    "report": {"interval_s": REPORT_S},
    "orphaned_after_s": ORPHANED_AFTER_S,
    "tailscale": {"interval_s": 0.5},
}
# Tests share a lab: what one of them did to a pair must not hold it in the next. And what a busy machine does to round
# trips must neither move nor recommend anything in a test that is about something else; nor may its load, which every
# host takes for its own, be an incident.
CONTROLLER: Settings = {
    "failover": {
        "failback_hold_s": FAILBACK_HOLD_S,
        "damping": {"half_life_s": 1.0, "longest_hold_s": FAILBACK_HOLD_S},
        "quality": {"mode": "off", "members": "off"},
    },
    "load": {"enter_per_core": 1000.0},
}
# How long anything may take on a machine that is busy with something else.
PATIENCE_S = 40.0


def until(ready: Callable[[], T], what: str | Callable[[], str], timeout_s: float = PATIENCE_S) -> T:
    """Asks until the answer is true, and returns it; a controller that is away for the moment is no answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if answer := ready():
                return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {timeout_s:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.05)


def begin(lab: Lab, what: str, body: object) -> None:
    """Asks for one of the controller's `what` (/api/v1/…), again while it is refused: a standby of a busy machine is
    unproven now and then. When the controller dies before it answers, the caller sees what had begun."""
    refusals: list[str] = []

    def begun() -> bool:
        try:
            lab.api(f"/api/v1/{what}", method="POST", body=body)
        except urllib.error.HTTPError as error:
            with error:
                refusals.append(str(json.loads(error.read())["detail"]))
            return False
        except (OSError, http.client.HTTPException):
            return True
        return True

    until(begun, lambda: f"{what} begin: {refusals[-1:]}")


def holds(condition: Callable[[], object], seconds: float, what: str) -> None:
    """The condition stays true for so long: what must not happen does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), what
        time.sleep(0.2)


@contextlib.contextmanager
def running(
    specs: Sequence[HostSpec],
    *,
    agent: Settings | None = None,
    controller: Settings | None = None,
    etcd: bool = False,
    cgnat: bool = False,
) -> Iterator[Lab]:
    """A lab with broker, agents and controller, all well. `cgnat`: on 100.x addresses, Tailscale's drop lifted."""
    settings = merge(AGENT, agent or {}), merge(CONTROLLER, controller or {})
    with Lab(specs, cgnat=cgnat, agent=settings[0], controller=settings[1]) as lab:
        if cgnat:
            lab.cgnat_drop(False)
        lab.start_broker()
        lab.start_agents()
        lab.start_controller()
        if etcd:
            lab.wait_routed()
            lab.start_etcd()
        try:
            until_well(lab)
        except AssertionError:
            print(lab.logs())
            raise
        yield lab


# --- the controller's word -----------------------------------------------------------------------------------------


def fleet(lab: Lab) -> Any:
    return lab.api("/api/v1/fleet")


def node(lab: Lab, name: str) -> Any:
    return next(one for one in fleet(lab)["nodes"] if one["name"] == name)


def pair_name(a: str, b: str) -> str:
    return "--".join(sorted((a, b)))


def pair(lab: Lab, a: str, b: str) -> Any:
    return next(one for one in fleet(lab)["pairs"] if one["name"] == pair_name(a, b))


def verdict(lab: Lab, a: str, b: str, path: PathName) -> Any:
    """The link verdict of one path of a pair."""
    return next(one["verdict"] for one in pair(lab, a, b)["paths"] if one["path"] == path)


def problem(lab: Lab, path: str, body: object) -> tuple[int, str]:
    """(status, detail) of a request that must not succeed."""
    try:
        answer = lab.api(path, method="POST", body=body)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, str(json.loads(error.read())["detail"])
    raise AssertionError(f"{path} took {body}: {answer}")


class Since:
    """What the controller wrote down from here on."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._ids = {what: self._newest(what) for what in ("ledger", "events")}

    def _newest(self, what: str) -> int:
        found = self._lab.api(f"/api/v1/{what}?limit=1")
        return int(found[0]["id"]) if found else 0

    def _entries(self, what: str) -> list[Any]:
        found = self._lab.api(f"/api/v1/{what}?limit=1000")
        return [one for one in reversed(found) if one["id"] > self._ids[what]]

    def ledger(self, action: str = "", subject: str = "") -> list[Any]:
        """Oldest first."""
        found = self._entries("ledger")
        return [one for one in found if action in ("", one["action"]) and subject in ("", one["subject"])]

    def moves(self, *which: tuple[str, str]) -> set[tuple[str, str]]:
        """(action, pair) of everything that moved traffic, of all pairs or of `which`."""
        names = {pair_name(*one) for one in which}
        moving = ("failover", "failback", "switchover", "adopt", "revert")
        found = [one for one in self.ledger() if one["action"] in moving]
        return {(one["action"], one["subject"]) for one in found if not names or one["subject"] in names}

    def unfounded(self) -> set[str]:
        """Pairs that failed over although neither end called the overlay down. (On a starved machine a tunnel may stand
        still for longer than an overlay may: a pair that nobody cut moves too, and rightly so.)"""
        failed_over = {subject for action, subject in self.moves() if action == "failover"}
        return {name for name in failed_over if not self.events("link", "is down", f"{name}/overlay")}

    def events(self, kind: str = "", text: str = "", subject: str = "") -> list[Any]:
        """Oldest first."""
        found = self._entries("events")
        return [
            one
            for one in found
            if kind in ("", one["kind"]) and text in one["text"] and subject in ("", one["subject"])
        ]


# --- the kernels' word ---------------------------------------------------------------------------------------------


def route(lab: Lab, host: str, peer: str) -> tuple[str, str]:
    """The devices of the host's routes to the peer's service addresses, IPv4 and IPv6; "" without a route."""
    devices = []
    for address in (lab[peer].service, lab[peer].service6):
        done = lab[host].run(["ip", "-j", "route", "get", address], check=False)
        devices.append(json.loads(done.stdout)[0].get("dev", "") if done.returncode == 0 else "")
    return devices[0], devices[1]


def kernel_goes(lab: Lab, host: str, peer: str, path: PathName) -> bool:
    return route(lab, host, peer) == (INTERFACE[path],) * 2


def table(lab: Lab, host: str, peer: str = "") -> list[str]:
    """The host's rules and the agent's routes, as `ip` prints them: all, or the routes to one peer."""
    commands = ("ip rule", "ip -6 rule", "ip route show table 5180", "ip -6 route show table 5180")
    lines = sorted(line.strip() for line in lab[host].run(["sh", "-c", "; ".join(commands)]).stdout.splitlines())
    if not peer:
        return lines
    return [line for line in lines if {lab[peer].service, lab[peer].service6} & set(line.split())]


def agents(lab: Lab) -> list[str]:
    return [host.name for host in lab.hosts.values() if host.agent]


def pairs(lab: Lab) -> list[tuple[str, str]]:
    names = agents(lab)
    return [(a, b) for a in names for b in names if a < b]


def ends_go(lab: Lab, path: PathName, which: Iterable[tuple[str, str]]) -> bool:
    """Whether both ends' kernels of every pair use `path`, for IPv4 and IPv6."""
    return all(kernel_goes(lab, a, b, path) and kernel_goes(lab, b, a, path) for a, b in which)


def settled_on(lab: Lab, path: PathName, which: Iterable[tuple[str, str]] | None = None) -> bool:
    """Whether the pairs (default: all) are settled on `path`, by the controller's word and by their kernels'."""
    wanted = list(which if which is not None else pairs(lab))
    told = {one["name"]: one for one in fleet(lab)["pairs"]}
    for a, b in wanted:
        one = told.get(pair_name(a, b))
        if one is None or one["observed"] != [path, path] or one["status"] not in ("settled", "held"):
            return False
    return ends_go(lab, path, wanted)


def until_settled(lab: Lab, path: PathName, which: Iterable[tuple[str, str]] | None = None) -> None:
    wanted = None if which is None else list(which)
    until(lambda: settled_on(lab, path, wanted), lambda: f"{wanted or 'all pairs'} settled on {path}: {state(lab)}")


def until_well(lab: Lab) -> None:
    """Every node reports, every path of every pair is proven, and traffic is on the overlay."""

    def well() -> bool:
        told = fleet(lab)
        ready = [one["name"] for one in told["nodes"] if one["liveness"]["state"] == "fresh"]
        # Not "up": a minute of loss leaves a link degraded, and busy cores lose probes.
        proven = [path["proven"] for one in told["pairs"] for path in one["paths"]]
        return (
            told["observer"]["state"] == "connected"
            and set(ready) >= set(agents(lab))
            and len(proven) == 2 * len(pairs(lab))
            and all(proven)
            and settled_on(lab, "overlay")
        )

    until(well, lambda: f"all well: {state(lab)}")


def failback(lab: Lab, a: str, b: str) -> None:
    """By hand, once the overlay is proven."""
    name = pair_name(a, b)
    until(lambda: next(one["proven"] for one in pair(lab, a, b)["paths"] if one["path"] == "overlay"), "overlay proven")
    lab.api("/api/v1/failback", method="POST", body={"pair": name})
    until_settled(lab, "overlay", [(a, b)])


def heal(lab: Lab) -> None:
    """Mends both networks and waits until all is as `running` gave it."""
    lab.mend("overlay")
    lab.mend("backup")
    for one in fleet(lab)["pairs"]:
        if one["status"] == "held":
            failback(lab, *one["nodes"])
    until_well(lab)


@contextlib.contextmanager
def healed(lab: Lab) -> Iterator[Lab]:
    """All well before and after what a test does, and nothing has left a host in the clear."""
    until_well(lab)
    leaks = lab.leaks()
    yield lab
    heal(lab)
    assert lab.leaks() == leaks, "packets to service addresses left a host in the clear"


def state(lab: Lab) -> str:
    """For a failure's report."""
    try:
        told = fleet(lab)
    except OSError as error:
        return f"the controller does not answer: {error}"
    lines = [f"{told['summary']} (observer {told['observer']['state']})"]
    for one in told["pairs"]:
        a, b = one["nodes"]
        paths = {path["path"]: (path["verdict"]["state"], path["verdict"]["reason"]) for path in one["paths"]}
        kernels = route(lab, a, b), route(lab, b, a)
        lines.append(f"{one['name']}: {one['status']} {one['assigned']} {one['observed']} {one['reason']!r} {kernels}")
        lines.append(f"    {paths}")
    return "\n".join(lines)


def restart_agents(lab: Lab, *names: str, settings: Settings | None = None) -> None:
    """SIGTERM and start again, with other settings perhaps."""
    for name in names or agents(lab):
        lab.process(name, "agent").stop()
    lab.start_agents(*(names or agents(lab)), settings=settings)


# --- the broker's word ---------------------------------------------------------------------------------------------


class Heard(NamedTuple):
    topic: str
    payload: bytes
    retained: bool


class Wire:
    """A client of the lab's broker from outside, with one user's password: what anybody with it could do."""

    def __init__(self, lab: Lab, user: str = "controller", *subscribe: str) -> None:
        broker = lab.the("broker")
        if "broker" not in lab.urls:
            lab.urls["broker"] = lab.publish(broker, MQTT_PORT)
        self._port = int(lab.urls["broker"].rpartition(":")[2])
        self._lab = lab
        self._subscribe = subscribe
        self._ready = threading.Event()
        self.heard: list[Heard] = []
        self.on_heard: Callable[[Heard], None] = lambda _: None
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(0)
        self._client.username_pw_set(user, lab.passwords[user])
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._message

    def __enter__(self) -> Wire:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._ready.wait(10), "the broker does not answer"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: Client, *_: object) -> None:
        if self._subscribe:
            client.subscribe([(one, 1) for one in self._subscribe])
        else:
            self._ready.set()

    def _message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        heard = Heard(message.topic, bytes(message.payload), message.retain)
        self.heard.append(heard)
        self.on_heard(heard)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """QoS 1; returns once the broker has it."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)


def retained(lab: Lab, leaf: topics.NodeLeaf) -> dict[str, bytes]:
    """node → what the broker retains of it."""
    wanted = f"{topics.ROOT}/{FLEET}/nodes/+/{leaf}"
    with Wire(lab, "controller", wanted) as wire:
        time.sleep(0.5)
        found = {}
        for one in wire.heard:
            where = topics.parse(one.topic)
            if one.retained and isinstance(where, topics.NodeTopic):
                found[where.node] = one.payload
        return found


def desired_of(lab: Lab, name: str, payload: bytes) -> Desired:
    found = open_sealed(payload, node_key(lab.fleet_key, name), FLEET, name)
    assert isinstance(found, Desired), found
    return found


def sealed(
    lab: Lab, name: str, term: tuple[int, int], assignments: Mapping[str, str], *, key: bytes | None = None
) -> bytes:
    """A desired as a controller called "mallory" would send it; `key`: the fleet key that it has, by default the real
    one."""
    body = Desired(
        v=1,
        fleet=FLEET,
        node=name,
        controller="mallory",
        epoch=term[0],
        generation=term[1],
        assignments={peer: Assignment(path=path, reason="mischief") for peer, path in assignments.items()},
    )
    return seal(body, node_key(key or lab.fleet_key, name))


def desired_topic(name: str) -> str:
    return topics.node(FLEET, name, "desired")
