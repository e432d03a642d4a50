"""SIGKILL of every part at every step of a move: whatever dies and when, the pair ends on the path that lives, both
ends agree, connections go on, and once all is mended the kernels hold what they held before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lab.fleet_helpers import (
    THREE,
    Heard,
    Wire,
    desired_of,
    ends_go,
    pair,
    pair_name,
    running,
    state,
    table,
    until,
    until_settled,
    until_well,
)
from lab.harness import Lab, TcpStream
from lab.harness.services import FLEET
from vagus_protocol import topics
from vagus_protocol.codec import decode
from vagus_protocol.messages import Observed

A, B = PAIR = ("pi1", "pi2")
# A daemon that systemd starts again is away for so long.
AWAY_S = 1.0

Step = Callable[[Lab, Heard], bool]


def _desired(lab: Lab, heard: Heard, *, trial: bool) -> bool:
    where = topics.parse(heard.topic)
    if not isinstance(where, topics.NodeTopic) or where.leaf != "desired" or where.node != A:
        return False
    word = desired_of(lab, A, heard.payload).assignments[B]
    return word.path == "backup" and word.trial == trial


def _verification(heard: Heard, node: str, *states: str) -> bool:
    where = topics.parse(heard.topic)
    if not isinstance(where, topics.NodeTopic) or where.leaf != "observed" or where.node != node:
        return False
    observed = decode(heard.payload, Observed)
    assert isinstance(observed, Observed), observed
    found = observed.verifications.get(B if node == A else A)
    return found is not None and found.path == "backup" and found.state in states


def _confirmed(lab: Lab, heard: Heard) -> bool:
    return _desired(lab, heard, trial=False)


def _trial_told(lab: Lab, heard: Heard) -> bool:
    return _desired(lab, heard, trial=True)


STEPS: dict[str, Step] = {
    "when the trial is told": _trial_told,
    "when a has applied it": lambda lab, heard: _verification(heard, A, "pending", "verified"),
    "when a has verified it": lambda lab, heard: _verification(heard, A, "verified"),
    "when b has verified it": lambda lab, heard: _verification(heard, B, "verified"),
    "when it is confirmed": _confirmed,
}
VICTIMS = ("agent of a", "agent of b", "controller", "broker")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    # It dies again and again here: no case may be held by what the one before did.
    quick = {"failback_hold_s": 0.5, "damping": {"half_life_s": 1.0, "suppress": 100_000.0, "longest_hold_s": 0.5}}
    with running(THREE, controller={"failover": quick}) as lab:
        yield lab


def _kill(lab: Lab, victim: str) -> None:
    if victim == "controller":
        lab.kill_controller()
    elif victim == "broker":
        lab.kill_broker()
    else:
        lab.process(A if victim == "agent of a" else B, "agent").kill()


def _start_again(lab: Lab, victim: str) -> None:
    if victim == "controller":
        lab.start_controller()
    elif victim == "broker":
        lab.start_broker()
    else:
        lab.start_agents(A if victim == "agent of a" else B)


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("step", STEPS)
def test_killed_in_mid_failover(lab: Lab, step: str, victim: str) -> None:
    until_well(lab)
    before = (table(lab, A), table(lab, B))
    with TcpStream(lab, *PAIR) as stream:
        fired = _when(lab, STEPS[step], lambda: _kill(lab, victim), lambda: lab.cut("overlay", *PAIR))
        assert fired, f"the step never came: {state(lab)}"
        time.sleep(AWAY_S)
        _start_again(lab, victim)
        until_settled(lab, "backup", [PAIR])
        moved = time.monotonic()
        until(lambda: stream.receipts()[-1].sent > moved, "the TCP stream goes on over the backup")
        lab.mend("overlay", *PAIR)
        until_settled(lab, "overlay", [PAIR])
        moved = time.monotonic()
        until(lambda: stream.receipts()[-1].sent > moved, "the TCP stream goes on at home")
        assert stream.alive, stream.ended()
        assert stream.connections() == 1
    assert ends_go(lab, "overlay", [PAIR])
    assert (table(lab, A), table(lab, B)) == before, "something was left over"
    assert pair(lab, *PAIR)["name"] == pair_name(*PAIR)


def _when(lab: Lab, step: Step, act: Callable[[], object], start: Callable[[], object]) -> bool:
    """Acts at the first message that `step` recognises after `start`; whether it came within 20 s."""
    fired = threading.Event()

    def look(heard: Heard) -> None:
        if not heard.retained and not fired.is_set() and step(lab, heard):
            fired.set()
            act()

    names = ("desired", "observed")
    with Wire(lab, "controller", *(f"{topics.ROOT}/{FLEET}/nodes/+/{leaf}" for leaf in names)) as wire:
        wire.on_heard = look
        start()
        return fired.wait(20)
