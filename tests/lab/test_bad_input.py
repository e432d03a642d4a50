"""What comes in is garbage, forged, replayed, too much, or from a stranger: it is told, and changes nothing."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import msgspec

from lab.fleet_helpers import (
    REPORT_S,
    Since,
    Wire,
    desired_of,
    desired_topic,
    ends_go,
    fleet,
    holds,
    kernel_goes,
    node,
    pair_name,
    pairs,
    retained,
    sealed,
    table,
    until,
    until_settled,
    until_well,
)
from lab.harness import Host, Lab
from lab.harness.services import FLEET
from vagus_protocol import topics
from vagus_protocol.codec import MAX_PAYLOAD, Rejected, decode, encode
from vagus_protocol.messages import (
    Assignment,
    ControllerPresence,
    Event,
    Observed,
    ObservedState,
    Payload,
    Presence,
    Report,
)
from vagus_protocol.signing import node_key, seal

PAIR = ("pi1", "pi2")
KINDS: dict[topics.NodeLeaf, type[Payload]] = {
    "presence": Presence,
    "report": Report,
    "event": Event,
    "observed": Observed,
}
# Different complaints about one sender in a minute; beyond that the next minute is waited for.
MOST_COMPLAINTS = 10


class Unmoved:
    """Every daemon lives on as it was, with nothing that it did not expect, and no kernel's routes have changed."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._since = Since(lab)
        self._daemons = [lab.process(host.name, "agent") for host in lab.hosts.values()]
        self._daemons.append(lab.process("vps", "controller"))
        self._logs = {process.log: process.log.stat().st_size for process in self._daemons}
        self._tables = {name: table(lab, name) for name in lab.hosts}
        self._assigned = [one["assigned"] for one in fleet(lab)["pairs"]]

    def check(self) -> None:
        for process in self._daemons:
            assert process.alive, f"{process.name} ended with {process.returncode}:\n{process.tail()}"
        for log, size in self._logs.items():
            fresh = log.read_bytes()[size:].decode(errors="replace")
            for word in ("Traceback", "mqtt: a message was not taken", "mqtt: unexpected", " failed: "):
                lines = [line for line in fresh.splitlines() if word in line]
                assert not lines, f"{log.parent.name}/{log.name}: an exception escaped: {lines[:3]}"
        assert {name: table(self._lab, name) for name in self._lab.hosts} == self._tables
        assert [one["assigned"] for one in fleet(self._lab)["pairs"]] == self._assigned
        assert not self._since.moves()


# --- garbage -------------------------------------------------------------------------------------------------------


def samples(lab: Lab) -> dict[topics.NodeLeaf, bytes]:
    """A true payload of each of pi1's topics."""
    with Wire(lab, "controller", f"{topics.ROOT}/{FLEET}/nodes/pi1/+") as wire:

        def heard() -> dict[topics.NodeLeaf, bytes]:
            found: dict[topics.NodeLeaf, bytes] = {}
            for one in wire.heard:
                where = topics.parse(one.topic)
                assert isinstance(where, topics.NodeTopic)
                found[where.leaf] = one.payload
            return found

        until(lambda: {"presence", "report", "observed", "desired"} <= heard().keys(), "a true payload of each topic")
        found = heard()
    found["event"] = encode(Event(v=1, node="pi1", session="x", seq=1, kind="agent", text="hello"))  # type: ignore[arg-type]
    return found


def mutant(chance: random.Random, payload: bytes) -> bytes:
    """Something that is, or once was, like `payload`."""
    kind = chance.randrange(7)
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 400))
    if kind == 1:
        return payload[: chance.randrange(len(payload))]
    if kind == 2:
        torn = bytearray(payload)
        for _ in range(chance.randrange(1, 8)):
            torn[chance.randrange(len(torn))] = chance.randrange(256)
        return bytes(torn)
    if kind == 3:
        return b'{"v":1,"node":"pi1","x":' + b'[{"y":' * chance.randrange(1, 5000)
    if kind == 4:
        return b'{"v":1,"node":"pi1","session":"\\ud800","x":"' + b"\xf0\x28\x8c\x28" * 3 + b'"}'
    message = json.loads(payload)
    _spoil(chance, message)
    return json.dumps(message).encode()


def _spoil(chance: random.Random, message: Any) -> None:
    """Puts nonsense somewhere into nested JSON."""
    nonsense: list[Any] = [None, -1, 2**63, 1e308, True, "", "x" * 2000, [], {}, [[[]]], {"v": {}}, "2", "\ud800", 0.5]
    keys = list(message) if isinstance(message, dict) else list(range(len(message)))
    if not keys:
        return
    key = chance.choice(keys)
    if isinstance(message[key], dict | list) and message[key] and chance.random() < 0.7:
        _spoil(chance, message[key])
    else:
        message[key] = chance.choice(nonsense)


def test_garbage_on_every_topic_that_a_node_may_write_is_refused_and_told_in_few_words(lab: Lab) -> None:
    chance = random.Random(1)
    truth = samples(lab)
    unmoved, since = Unmoved(lab), Since(lab)
    with Wire(lab, "pi1") as wire:
        for leaf, kind in KINDS.items():
            garbage = [mutant(chance, truth[leaf]) for _ in range(150)]
            garbage = [one for one in garbage if one and isinstance(decode(one, kind), Rejected)]
            assert len(garbage) > 80
            garbage += [b"x" * (MAX_PAYLOAD + 1), truth[leaf] + b" " * 2 * MAX_PAYLOAD, b"[" * 60_000]
            garbage.append(truth[leaf].replace(b'"pi1"', b'"pi2"', 1))
            for one in garbage:
                # Not retained: the broker would keep it for the next controller in place of the agent's own word.
                wire.publish(topics.node(FLEET, "pi1", leaf), one)
    until(lambda: since.events("refused", subject="pi1"), "it is told")
    unmoved.check()
    told = since.events("refused", subject="pi1")
    assert len(told) <= MOST_COMPLAINTS, [one["text"] for one in told]
    assert all("was not taken" in one["text"] for one in told)
    until_well(lab)


def test_garbage_to_the_agents_is_refused_and_told_in_few_words(lab: Lab) -> None:
    chance = random.Random(2)
    truth = retained(lab, "desired")["pi2"]
    presence = encode(ControllerPresence(v=1, controller="x", session="s", online=True))
    unmoved, since = Unmoved(lab), Since(lab)
    told_before = node(lab, "pi2")
    with Wire(lab) as wire:
        for _ in range(200):
            wire.publish(desired_topic("pi2"), mutant(chance, truth) or b"x")
            wire.publish(topics.controller(FLEET, "stranger"), mutant(chance, presence) or b"x")
        for big in (b"x" * (MAX_PAYLOAD + 1), b"[" * 60_000, b'{"v":1,"sig":"","body":' + b"[" * 60_000):
            wire.publish(desired_topic("pi2"), big)
    until(lambda: since.events("refused", "desired refused", "pi2"), "the agent tells")
    time.sleep(1)
    unmoved.check()
    told = [one["text"] for one in since.events("refused") if one["source"] == "pi2"]
    for about in ("desired refused", "controllers/stranger"):
        assert 0 < len([text for text in told if about in text]) <= MOST_COMPLAINTS, told
    assert node(lab, "pi2")["generation"] == told_before["generation"]
    until_well(lab)


def test_true_messages_with_nonsense_in_them_end_no_daemon_and_are_outlived(lab: Lab) -> None:
    """A node's own word is believed, so a node that talks nonsense looks strange: but only itself, and not for ever."""
    chance = random.Random(3)
    truth = samples(lab)
    unmoved = Unmoved(lab)
    with Wire(lab, "pi1") as wire:
        for _ in range(60):
            for leaf in KINDS:
                message = json.loads(truth[leaf])
                _spoil(chance, message)
                # A message of this moment, not an echo: as if the agent had gone mad.
                wire.publish(topics.node(FLEET, "pi1", leaf), json.dumps(message).encode())
    for process in (lab.process("vps", "controller"), *(lab.process(name, "agent") for name in lab.hosts)):
        assert process.alive, process.tail()
    # A session that was made up is believed until it has been silent for five reports.
    time.sleep(6 * REPORT_S)
    until_well(lab)
    unmoved.check()


_STORM = """
import random, socket, sys, time
from vagus_protocol.probe import Kind, Packet, name_hash, pack
chance = random.Random(4)
target, source = sys.argv[1], sys.argv[2]
sock = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((source, 0))
forged = Packet(Kind.PROBE, name_hash("pi2"), name_hash("pi1"), 1, 2, 3, 0, 0, 200, ())
for number in range(1500):
    data = pack(forged, chance.randbytes(32))
    if number % 3 == 0:
        data = chance.randbytes(chance.randrange(1, 1200))
    elif number % 3 == 1:
        data = data[: chance.randrange(len(data))]
    sock.sendto(data, (target, 5180))
    time.sleep(0.0005)
"""


def test_garbage_on_the_probe_port_is_counted_and_told_once(lab: Lab) -> None:
    unmoved, since = Unmoved(lab), Since(lab)
    for target, source in ((lab["pi1"].service, lab["pi2"].service), (lab["pi1"].service6, lab["pi2"].service6)):
        lab["pi2"].run([sys.executable, "-c", _STORM, target, source])
    until(lambda: since.events("refused", "on the probe port", "pi1"), "it is told")
    unmoved.check()
    assert len(since.events("refused", "on the probe port")) == 1
    # A machine that is busy with other tests may stand still for long enough to be suspected, for a moment.
    assert not since.events("link", "is down"), "a link was called down"


# --- who may command -----------------------------------------------------------------------------------------------


def refused(lab: Lab, payload: bytes, words: str) -> None:
    """Publishes a desired for pi1 as the real controller's user: it is refused with `words`, and changes nothing."""
    unmoved, since = Unmoved(lab), Since(lab)
    before = node(lab, "pi1")
    with Wire(lab) as wire:
        wire.publish(desired_topic("pi1"), payload, retain=True)
    until(
        lambda: [one for one in since.events("refused", words) if one["source"] == "pi1"],
        lambda: f"{words!r} is told: {since.events('refused')}",
    )
    holds(lambda: kernel_goes(lab, "pi1", "pi2", "overlay"), 1.0, "it was obeyed")
    unmoved.check()
    after = node(lab, "pi1")
    # A leader that sees another use its epoch takes a greater one.
    assert after["epoch"] > before["epoch"] or after["generation"] == before["generation"]


def term_of(lab: Lab) -> tuple[int, int]:
    found = desired_of(lab, "pi1", retained(lab, "desired")["pi1"])
    return found.epoch, found.generation


def test_a_replayed_desired_is_refused_and_the_controller_puts_its_own_back(lab: Lab) -> None:
    name = pair_name(*PAIR)
    old = retained(lab, "desired")["pi1"]
    lab.api("/api/v1/switchover", method="POST", body={"pair": name, "path": "backup", "reason": "for an old one"})
    until_settled(lab, "backup", [PAIR])
    away = retained(lab, "desired")["pi1"]
    until(lambda: _failback(lab), "the overlay is proven")
    until_settled(lab, "overlay", [PAIR])
    current = retained(lab, "desired")["pi1"]
    assert len({old, away, current}) == 3
    refused(lab, away, "a replay")
    until(lambda: retained(lab, "desired")["pi1"] == current, "the newest desired is retained again")
    until(lambda: observed(lab)["state"] == "applied", "the refusal is over")


def _failback(lab: Lab) -> bool:
    try:
        lab.api("/api/v1/failback", method="POST", body={"pair": pair_name(*PAIR)})
    except HTTPError as error:
        error.close()
        return False
    return True


def observed(lab: Lab) -> Any:
    return json.loads(retained(lab, "observed")["pi1"])


def of_the_leader(lab: Lab, ahead: int, assignments: dict[str, str]) -> bytes:
    """A desired for pi1 as if the leading controller itself had gone mad, so many generations ahead."""
    true = desired_of(lab, "pi1", retained(lab, "desired")["pi1"])
    words = {peer: Assignment(path=path, reason="madness") for peer, path in assignments.items()}
    mad = msgspec.structs.replace(true, generation=true.generation + ahead, assignments=words)
    return seal(mad, node_key(lab.fleet_key, "pi1"))


def test_forged_and_impossible_desireds_are_refused(lab: Lab) -> None:
    epoch, generation = term_of(lab)
    later = (epoch, generation + 1000)
    refused(lab, sealed(lab, "pi1", later, {"pi2": "backup"}, key=b"m" * 32), "signature does not match")
    # The same complaint is not told twice in a minute: a desired signed for another node is here for what it changes.
    with Wire(lab) as wire:
        wire.publish(desired_topic("pi1"), sealed(lab, "pi2", later, {"pi1": "backup"}))
    nobody, pigeon = {"nobody": "backup"}, {"pi2": "carrier-pigeon"}
    refused(lab, of_the_leader(lab, 1000, nobody), "peer 'nobody' is not in this node's configuration")
    refused(lab, of_the_leader(lab, 1000, pigeon), "path 'carrier-pigeon' to pi2 is not offered")
    with Wire(lab) as wire:
        wire.publish(desired_topic("pi1"), b"", retain=True)
    until(lambda: "pi1" in retained(lab, "desired"), "what somebody deleted is retained again")
    true = desired_of(lab, "pi1", retained(lab, "desired")["pi1"])
    assert {peer: word.path for peer, word in true.assignments.items()} == {"pi2": "overlay", "vps": "overlay"}


def test_a_node_that_claims_an_absurd_epoch_does_not_unsettle_the_fleet(lab: Lab) -> None:
    before = fleet(lab)["epoch"]
    claim = Observed(
        v=1,
        node="pi2",
        session="x",
        epoch=2**63 - 1,
        generation=1,
        state=ObservedState.REFUSED,
        reason="because",
        refused_epoch=before,
        refused_generation=1,
    )
    with Wire(lab, "pi2") as wire:
        wire.publish(topics.node(FLEET, "pi2", "observed"), encode(claim))
    time.sleep(1)
    lab.cut("overlay", "vps", "pi1")
    until_settled(lab, "backup", [("pi1", "vps")])
    lab.kill_controller()
    lab.start_controller()
    until_settled(lab, "backup", [("pi1", "vps")])
    assert fleet(lab)["epoch"] < before + 10


# --- strangers, full disks, refused passwords ----------------------------------------------------------------------


def test_a_node_that_the_fleet_does_not_know_is_refused_and_told(lab: Lab) -> None:
    lab.kill_controller()
    lab.start_controller(settings={"nodes": ["vps", "pi1"]})
    try:
        until(lambda: all(one["liveness"]["state"] == "fresh" for one in fleet(lab)["nodes"]), "both are heard")
        told = until(lambda: [one for one in _events(lab) if "`nodes`" in one["text"]], "the stranger is told")
        assert {one["subject"] for one in told} == {"pi2"}
        assert len(told) == 1
        assert [one["name"] for one in fleet(lab)["nodes"]] == ["pi1", "vps"]
        assert [one["name"] for one in fleet(lab)["pairs"]] == ["pi1--vps"]
        assert ends_go(lab, "overlay", pairs(lab))
    finally:
        lab.kill_controller()
        lab.start_controller()


def _events(lab: Lab) -> list[Any]:
    """Of this life of the controller: the store remembers the ones before."""
    started = time.time() - fleet(lab)["uptime_s"] - 0.5
    return [one for one in lab.api("/api/v1/events?limit=1000") if one["at"] >= started]


def _fill(host: Host, directory: str) -> None:
    host.run(["sh", "-c", f"cat /dev/zero > {directory}/ballast; true"])


def test_a_full_disk_under_the_store_is_told_and_stops_no_failover(lab: Lab) -> None:
    host = lab["vps"]
    directory = host.directory / "tiny"
    directory.mkdir()
    host.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(directory)])
    lab.kill_controller()
    lab.start_controller(settings={"store": {"url": f"sqlite:///{directory}/vagus.db"}})
    try:
        until_well(lab)
        _fill(host, str(directory))
        # A clean log from here on.
        log = lab.process("vps", "controller").log
        size = log.stat().st_size
        lab.cut("overlay")
        until_settled(lab, "backup")
        problems = until(lambda: _problems(lab), "healthz tells")
        assert any("full" in one or "space" in one for one in problems), problems
        fresh = log.read_text()[size:]
        assert "Traceback" not in fresh
        about = [line for line in fresh.splitlines() if "disk is full" in line or "No space" in line]
        assert 0 < len(about) < 10, about
        until(lambda: _kept_in_memory(lab), "it is an event")
        (lab["vps"]).run(["rm", f"{directory}/ballast"])
        lab.mend("overlay")
        until_settled(lab, "overlay")
        until(lambda: not _problems(lab), "the trouble is over")
        assert len(_kept_in_memory(lab)) < 5, "told too often"
        until(lambda: lab.api("/api/v1/ledger?limit=10")[0]["action"] == "failback", "the ledger goes on")
    finally:
        lab.kill_controller()
        lab.start_controller()


def _kept_in_memory(lab: Lab) -> list[Any]:
    return [one for one in _events(lab) if one["kind"] == "store" and "kept in memory only" in one["text"]]


def _problems(lab: Lab) -> list[str]:
    try:
        with urlopen(f"{lab.urls['controller']}/healthz", timeout=5) as answer:
            assert json.loads(answer.read())["problems"] == []
            return []
    except HTTPError as error:
        with error:
            return list(json.loads(error.read())["problems"])


def test_a_full_disk_under_an_agents_state_is_told_and_stops_no_failover(lab: Lab) -> None:
    host = lab["pi1"]
    directory = host.directory / "agent-state"
    lab.process("pi1", "agent").stop()
    host.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(directory)])
    _fill(host, str(directory))
    since = Since(lab)
    try:
        lab.start_agents("pi1")
        until_well(lab)
        lab.cut("overlay", *PAIR)
        until_settled(lab, "backup", [PAIR])
        [told] = until(lambda: since.events("agent", "cannot be written"), "it is told")
        assert "No space left on device" in told["text"]
        assert told["severity"] == "warning"
    finally:
        lab.process("pi1", "agent").stop()
        host.run(["umount", str(directory)])
        lab.mend("overlay")
        lab.start_agents("pi1")


def _later(log: Callable[[], str], words: str) -> None:
    until(lambda: words in log(), lambda: f"{words!r} in the log:\n{log()[-2000:]}")


def test_a_broker_that_refuses_the_password_is_named_and_retried(lab: Lab) -> None:
    agent_password, password = lab["pi1"].directory / "password", lab["vps"].directory / "controller" / "password"
    lab.process("pi1", "agent").kill()
    lab.kill_controller()
    good = {file: file.read_text() for file in (agent_password, password)}
    controller, name = lab["vps"], "controller"
    # `start_agents` and `start_controller` would write the right passwords again.
    for file in good:
        file.write_text("wrong\n")
    agent = lab["pi1"].spawn(lab["pi1"].processes["agent"].argv, name="agent")
    brain = controller.spawn(controller.processes[name].argv, name=name)
    sizes = {process.log: process.log.stat().st_size for process in (agent, brain)}

    def fresh(process: Any) -> str:
        return str(process.log.read_text()[sizes[process.log] :])

    for process, user, file in ((agent, "pi1", agent_password), (brain, "controller", password)):
        _later(lambda process=process: fresh(process), f"refuses user '{user}'")  # type: ignore[misc]
        assert str(file) in fresh(process)
        assert process.alive
    assert kernel_goes(lab, "pi1", "pi2", "overlay")
    for file, text in good.items():
        file.write_text(text)
    until_well(lab)
    for source, user in (("pi1", "pi1"), ("controller", "controller")):
        until(
            lambda source=source, user=user: [  # type: ignore[misc]
                one for one in _events(lab) if one["source"] == source and f"refuses user '{user}'" in one["text"]
            ],
            f"the refusal of {user} is an event",
        )
    for process in (agent, brain):
        assert process.alive
        assert "Traceback" not in fresh(process)
        assert fresh(process).count("refuses user") <= 6, "the refusal is told too often"
