"""Version skew: agent N with controller N-1, and the reverse. What earlier releases wrote is read today with the
meaning that it had, and what is written today they read with the meaning that it has.

Each directory of tests/contract/wire is a release: what it wrote, byte for byte, and the protocol that it reads with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.wire.record import PROTOCOL, WIRE, ask, written
from unit.agent_world import World as AgentWorld
from unit.test_brain import KEY, Floor, Outbox
from vagus_protocol import topics
from vagus_protocol.messages import Desired
from vagus_protocol.signing import node_key, open_sealed

RELEASES = sorted(path for path in WIRE.iterdir() if (path / "reader").is_dir())


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_there_is_an_earlier_release() -> None:
    assert RELEASES


# --- the bytes -------------------------------------------------------------------------------------------------------


def requests(said: dict[str, Any]) -> list[list[str]]:
    """All that a release wrote, to be read."""
    return [
        *(["read", kind, payload] for kind, payload in said["samples"]),
        *(["open", kind, payload] for kind, payload in said["sealed"]),
        *(["unpack", packet] for packet in said["packets"]),
        *(["parse", topic] for topic in said["topics"]),
    ]


def differences(known: Any, other: Any, where: str = "") -> Iterator[str]:
    """Where `other` has not what `known` has; it may have more fields."""
    if isinstance(known, dict) and isinstance(other, dict):
        if "rejected" in other and "rejected" not in known:
            yield f"{where or 'all of it'}: rejected: {other['rejected']}"
            return
        for name, value in known.items():
            if name in other:
                yield from differences(value, other[name], f"{where}.{name}")
            else:
                yield f"{where}.{name}: is not there any more"
    elif isinstance(known, list) and isinstance(other, list) and len(known) == len(other):
        for index, (one, two) in enumerate(zip(known, other, strict=True)):
            yield from differences(one, two, f"{where}[{index}]")
    elif known != other or type(known) is not type(other):
        yield f"{where}: {str(known)[:40]!r} is read as {str(other)[:40]!r}"


def disagreements(old: Path, new: Path, said: dict[str, Any]) -> list[str]:
    """Where the protocol in `new` reads what was said otherwise than the one in `old`, or not at all. Of what both
    read, the older release knows the meaning of fewer fields: those are what must agree."""
    asked = requests(said)
    found = []
    for request, known, other in zip(asked, ask(old, asked), ask(new, asked), strict=True):
        unread = known is None or (isinstance(known, dict) and "rejected" in known)
        why = [f"the older one does not read it: {known}"] if unread else differences(known, other)
        found += [f"{' '.join(request)[:200]}: {each}" for each in why]
    return found


def earlier(release: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((release / "messages.json").read_text())
    return said


def test_what_an_earlier_release_wrote_is_read_with_its_meaning(release: Path) -> None:
    assert disagreements(release / "reader", PROTOCOL, earlier(release)) == []


def test_what_is_written_today_an_earlier_release_reads_with_its_meaning(release: Path) -> None:
    assert disagreements(release / "reader", PROTOCOL, written(PROTOCOL)) == []


def test_what_was_recorded_is_all_that_the_earlier_release_can_say(release: Path) -> None:
    """Nothing of it is refused by its own reader, and no kind of message or field is missing."""
    said = earlier(release)
    assert not [answer for answer in ask(release / "reader", requests(said)) if answer is None or "rejected" in answer]
    assert said == written(release / "reader")


# --- changes that must be seen ---------------------------------------------------------------------------------------


def changed(directory: Path, was: str, becomes: str, file: str = "messages.py") -> Path:
    """Today's protocol with one change."""
    shutil.copytree(PROTOCOL / "vagus_protocol", directory / "vagus_protocol")
    source = directory / "vagus_protocol" / file
    text = source.read_text()
    assert was in text, f"{file} has no {was!r} any more: change this test"
    source.write_text(text.replace(was, becomes))
    return directory


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("    event_seq: Count = 0\n", "    event_seq: Count = 0\n    fans: Count = 7\n"),
        ("    drift: tuple[Text, ...] = ()\n", "    drift: tuple[Text, ...] = ()\n    wishes: dict[Name, Text] = {}\n"),
    ],
    ids=["a field", "a map"],
)
def test_what_may_be_absent_can_be_added(tmp_path: Path, release: Path, was: str, becomes: str) -> None:
    new = changed(tmp_path, was, becomes)
    assert disagreements(release / "reader", new, earlier(release)) == []
    assert disagreements(release / "reader", new, written(new)) == []


@pytest.mark.parametrize(
    ("was", "becomes", "file"),
    [
        ("    interval_s: Seconds\n", "    interval_s: Seconds\n    fans: Count\n", "messages.py"),
        ("proven_s: Seconds | None = None", "age_s: Seconds | None = None", "messages.py"),
        ('    IDLE = "idle"\n', '    IDLE = "idle"\n    SLOW = "slow"\n', "messages.py"),
        ('"orphaned", "always", "off"', '"orphaned", "always", "off", "ask"', "messages.py"),
        ("online: bool\n    leader: bool = False", "online: str\n    leader: bool = False", "messages.py"),
        ("    metered: bool = False", "    metered: bool = True", "messages.py"),
        ("    confirm_within_s: Seconds = 10.0", "    confirm_within_s: Seconds = 20.0", "messages.py"),
        ("max_length=1024", "max_length=512", "messages.py"),
        ("max_length=1024", "max_length=4096", "messages.py"),
        ("    v: Literal[1]\n\n\n#", "    v: Literal[2]\n\n\n#", "messages.py"),
        ('b"vagus/1/desired\\0"', 'b"vagus/2/desired\\0"', "signing.py"),
        ('b"vagus/1/orders-key"', 'b"vagus/2/orders-key"', "signing.py"),
        ('"!4sBQQQIQIHHB"', '"!4sBQQQIQIIHB"', "probe.py"),
        ('ROOT = "vagus/1"', 'ROOT = "vagus/2"', "topics.py"),
    ],
)
def test_what_an_earlier_release_cannot_read_is_found(
    tmp_path: Path, release: Path, was: str, becomes: str, file: str
) -> None:
    new = changed(tmp_path, was, becomes, file)
    assert disagreements(release / "reader", new, earlier(release)) or disagreements(
        release / "reader", new, written(new)
    )


# --- what they mean to each other ------------------------------------------------------------------------------------


def conversation(release: Path) -> dict[str, bytes]:
    """Topic → what was said there last."""
    return {topic: payload.encode() for topic, payload in json.loads((release / "conversation.json").read_text())}


class Heir(Floor):
    """Today's controller, without a database, at the broker of an earlier fleet; its agents answer as they did."""

    def __init__(self, said: dict[str, bytes]) -> None:
        self.said = said
        super().__init__(Outbox(), name="heir")

    def connect(self) -> None:
        self.seq = 1000
        self.brain.on_session(True, "", self.now)
        for topic, payload in self.said.items():
            self.brain.on_message(topic, payload, self.now)
        gone = self.said["vagus/1/test/controllers/brain"].replace(b'"online":true,"leader":true', b'"online":false')
        self.brain.on_message("vagus/1/test/controllers/brain", gone, self.now)
        self.brain.settled(self.now)


def test_a_controller_of_today_goes_on_with_an_earlier_fleet(release: Path) -> None:
    floor = Heir(conversation(release))
    view = floor.brain.fleet_view(floor.now)
    assert [(node.name, node.version, node.liveness.state) for node in view.nodes] == [
        (name, "0.1.0", "fresh") for name in ("a", "b", "c")
    ]
    assert [node.addresses for node in view.nodes] == [(f"10.99.0.{ord(name)}",) for name in "abc"]
    held = floor.pair("a--b")
    assert (held.assigned, held.observed, held.origin, held.status) == (
        "backup",
        ("backup", "backup"),
        "operator",
        "held",
    )
    assert all(path.proven for path in held.paths)
    assert floor.pair("b--c").assigned == "backup", "the trial that was under way is tried anew, and confirmed"
    assert [(pause.scope, pause.target, pause.who, pause.reason) for pause in view.pauses] == [
        ("node", "c", "ben", "a new disk")
    ]
    assert view.epoch > 1, "its decisions count for agents that knew the leader before"
    word = floor.desired("a")
    assert word.epoch == view.epoch


def test_an_agent_of_today_does_what_an_earlier_controller_says(release: Path) -> None:
    said = conversation(release)
    payload = said[topics.node("test", "a", "desired")]
    desired = open_sealed(payload, node_key(KEY, "a"), "test", "a")
    assert isinstance(desired, Desired)
    world = AgentWorld()
    assert world.paths["b"] == "overlay"
    world.conduct.on_desired(desired, world.now)
    world.follow()
    assert world.paths == {"b": "backup", "c": "overlay"}
    assert (world.observed.epoch, world.observed.generation) == (desired.epoch, desired.generation)
    trial = open_sealed(said[topics.node("test", "b", "desired")], node_key(KEY, "b"), "test", "b")
    assert isinstance(trial, Desired)
    assert (trial.assignments["c"].trial, trial.assignments["a"].trial) == (True, False)


def test_an_earlier_agent_reads_what_a_controller_of_today_tells(release: Path) -> None:
    """A trial, then its confirmation, by the old reader, signature and all."""
    floor = Floor()
    floor.kill("overlay", "a--b")
    floor.event("a", "b")
    floor.event("b", "a")
    topic, key = topics.node("test", "a", "desired"), node_key(KEY, "a")
    told = [floor.outbox.retained[topic]]
    floor.run(2)
    told.append(floor.outbox.retained[topic])
    bodies = [json.dumps(json.loads(payload)["body"], separators=(",", ":"), ensure_ascii=False) for payload in told]
    trial, confirmed = ask(release / "reader", [["read", "Desired", body] for body in bodies])
    assert (trial["assignments"]["b"]["path"], trial["assignments"]["b"]["trial"]) == ("backup", True)
    assert (confirmed["assignments"]["b"]["path"], confirmed["assignments"]["b"]["trial"]) == ("backup", False)
    for read, payload in zip((trial, confirmed), told, strict=True):
        today = open_sealed(payload, key, "test", "a")
        assert isinstance(today, Desired)
        assert (read["epoch"], read["generation"]) == (today.epoch, today.generation)
