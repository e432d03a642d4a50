"""Keeps what this release says, and the protocol that it reads with, for the tests of every later one.

    scripts/record-wire 0.2          # at a release: writes tests/contract/wire/0.2, to be committed

reader/            its vagus_protocol, as it was
messages.json      what it writes: messages, sealed ones, probe packets, topics
conversation.json  a fleet of three under its controller: a--b is held on the backup, b--c on trial, node c paused
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from unit import fleet_builders as build
from unit.test_brain import NODES, Floor
from vagus_protocol import topics
from vagus_protocol.codec import encode
from vagus_protocol.messages import Presence

WIRE = Path(__file__).parent
PROTOCOL = WIRE.parents[2] / "protocol"
WRITTEN = ("samples", "sealed", "packets", "topics")


def ask(protocol: Path, requests: list[Any]) -> list[Any]:
    """What the release answers whose vagus_protocol is in the directory `protocol`."""
    done = subprocess.run(
        [sys.executable, "-B", str(WIRE / "side.py")],
        input=json.dumps(requests),
        env={"PYTHONPATH": str(protocol), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def written(protocol: Path) -> dict[str, Any]:
    return dict(zip(WRITTEN, ask(protocol, [[what] for what in WRITTEN]), strict=True))


class Recorded(Floor):
    """A floor that keeps the newest of each topic."""

    def __init__(self) -> None:
        self.broker: dict[str, bytes] = {}
        super().__init__()

    def say(self, node: str, leaf: Any, message: Any) -> None:
        if isinstance(message, Presence):
            message = build.presence(
                node, *(peer for peer in NODES if peer != node), version="0.1.0", addresses=(f"10.99.0.{ord(node)}",)
            )
        self.broker[topics.node("test", node, leaf)] = encode(message)
        super().say(node, leaf, message)


def conversation() -> list[tuple[str, str]]:
    floor = Recorded()
    floor.commands.switchover("a--b", "backup", floor.now, who="ann", reason="work on the router")
    floor.run(2)
    floor.event("a", "b")
    floor.commands.pause("node", "c", floor.now, who="ben", reason="a new disk", for_s=3600.0)
    floor.commands.switchover("b--c", "backup", floor.now, who="ann", reason="the other end of it")
    retained = floor.broker | floor.outbox.retained
    return [(topic, payload.decode()) for topic, payload in sorted(retained.items())]


def record(directory: Path) -> None:
    directory.mkdir()
    shutil.copytree(
        PROTOCOL / "vagus_protocol",
        directory / "reader/vagus_protocol",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name, found in (("messages", written(PROTOCOL)), ("conversation", conversation())):
        (directory / f"{name}.json").write_text(json.dumps(found, indent=0, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    record(WIRE / sys.argv[1])
