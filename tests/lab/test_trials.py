"""Trials as the agents live them, with the test as the controller: proven by real packets, confirmed, or taken back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab.fleet_helpers import AGENT, FLEET, THREE, Wire, desired_topic, ends_go, holds, kernel_goes, retained, until
from lab.harness import Lab, TcpStream, UdpStream
from lab.harness.hosts import INTERFACE, PathName
from lab.harness.services import merge
from vagus_protocol import topics
from vagus_protocol.codec import decode
from vagus_protocol.messages import Assignment, Desired, Observed, Verification
from vagus_protocol.signing import node_key, seal

PAIR = ("pi1", "pi2")
# Longer than any verification takes, on a busy machine too.
WITHIN_S = 6.0
BLIP_S = 1.5
PORT = 8000
# In pi2: the service is not reached over the backup.
BACKUP_DROPS = f"""
add table ip web
add chain ip web in {{ type filter hook input priority 0; }}
add rule ip web in iifname {INTERFACE["backup"]} tcp dport {PORT} drop
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    # Nobody leads these agents: their reflex must not do what the test wants to see of the trials.
    with Lab(THREE, agent=merge(AGENT, {"reflex": "off"})) as lab:
        lab.start_broker()
        lab.start_agents()
        yield lab


class Leader:
    """The controller's side of the pair."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        # Above whatever an earlier test said.
        self.term = (int(time.monotonic() * 1000), 0)

    def say(self, path: PathName, *, trial: bool, within_s: float = WITHIN_S) -> tuple[int, int]:
        """Tell both ends; returns the (epoch, generation)."""
        self.term = (self.term[0], self.term[1] + 1)
        with Wire(self._lab) as wire:
            for name, peer in (PAIR, PAIR[::-1]):
                body = Desired(
                    v=1,
                    fleet=FLEET,
                    node=name,
                    controller="test",
                    epoch=self.term[0],
                    generation=self.term[1],
                    assignments={peer: Assignment(path=path, reason="a test", trial=trial)},
                    confirm_within_s=within_s,
                )
                payload = seal(body, node_key(self._lab.fleet_key, name))
                wire.publish(desired_topic(name), payload, retain=True)
        return self.term

    def observed(self, name: str) -> Observed:
        """What the node says of itself, once it has said anything."""
        payload = until(lambda: retained(self._lab, "observed").get(name), f"a word of {name}")
        found = decode(payload, Observed)
        assert isinstance(found, Observed)
        return found

    def verifications(self) -> list[Verification | None]:
        """Of both ends."""
        heard = {name: decode(payload, Observed) for name, payload in retained(self._lab, "observed").items()}
        words = []
        for name, peer in (PAIR, PAIR[::-1]):
            observed = heard.get(name)
            words.append(observed.verifications.get(peer) if isinstance(observed, Observed) else None)
        return words

    def until(self, *states: str) -> list[Verification]:
        """Until both ends say one of `states` of the last trial."""

        def there() -> list[Verification]:
            words = [word for word in self.verifications() if word is not None]
            good = [word for word in words if (word.epoch, word.generation) == self.term and word.state in states]
            return good if len(good) == 2 else []

        return until(there, lambda: f"both ends {states}: {self.verifications()}")


@pytest.fixture
def leader(shared: Lab) -> Iterator[Leader]:
    leader = Leader(shared)
    shared.mend("overlay")
    shared.mend("backup")
    leader.say("overlay", trial=False)
    until(lambda: ends_go(shared, "overlay", [PAIR]), "the pair at home")
    until(lambda: all(leader.observed(name).generation == leader.term[1] for name in PAIR), "both ends listen")
    # Both paths answer.
    leader.say("backup", trial=True)
    leader.until("verified")
    leader.say("overlay", trial=True)
    leader.until("verified")
    leader.say("overlay", trial=False)
    until(lambda: leader.verifications() == [None, None], "confirmed")
    leaks = shared.leaks()
    yield leader
    shared.mend("overlay")
    shared.mend("backup")
    assert shared.leaks() == leaks, "packets to service addresses left a host in the clear"


def test_a_trial_is_proven_by_both_ends_and_stays_once_confirmed(shared: Lab, leader: Leader) -> None:
    with TcpStream(shared, *PAIR) as tcp, UdpStream(shared, *PAIR) as udp:
        at = time.monotonic()
        leader.say("backup", trial=True)
        for word in leader.until("verified"):
            assert word.path == "backup"
            assert "by the kernel's own route came back on backup" in word.reason
        leader.say("backup", trial=False)
        holds(lambda: ends_go(shared, "backup", [PAIR]), WITHIN_S + 1, "a confirmed path was left")
        until(lambda: tcp.receipts()[-1].sent > time.monotonic() - 1, "the TCP stream goes on")
        assert tcp.connections() == 1
        assert udp.gap(at).seconds < BLIP_S


def test_without_confirmation_both_ends_go_back_a_killed_agent_too(shared: Lab, leader: Leader) -> None:
    with UdpStream(shared, *PAIR) as udp:
        at = time.monotonic()
        leader.say("backup", trial=True)
        leader.until("verified")
        shared.process("pi1", "agent").kill()
        assert kernel_goes(shared, "pi1", "pi2", "backup")
        shared.start_agents("pi1")
        for word in leader.until("reverted"):
            assert f"not confirmed within {WITHIN_S:g} s" in word.reason
        assert ends_go(shared, "overlay", [PAIR])
        assert udp.gap(at).seconds < BLIP_S
    # The broker tells what is retained again to whoever comes back: that is no new trial.
    shared.process("pi2", "agent").stop()
    shared.start_agents("pi2")
    leader.until("reverted")
    holds(lambda: ends_go(shared, "overlay", [PAIR]), 2.0, "a trial that is over began again")


def test_a_path_that_carries_nothing_fails_its_trial(shared: Lab, leader: Leader) -> None:
    shared.cut("backup", *PAIR)
    leader.say("backup", trial=True)
    for word in leader.until("failed"):
        assert "none of 5 packets by the kernel's own route came back on backup" in word.reason
    leader.say("overlay", trial=False)
    until(lambda: ends_go(shared, "overlay", [PAIR]), "rolled back")


def test_nobody_goes_back_onto_a_dead_path(shared: Lab, leader: Leader) -> None:
    shared.cut("overlay", *PAIR)
    leader.say("backup", trial=True)
    leader.until("verified")
    until(lambda: all("it stays" in word.reason for word in leader.verifications() if word), "its time is over")
    assert ends_go(shared, "backup", [PAIR])
    assert [leader.observed(name).reflex for name in PAIR] == [{"pi2": "backup"}, {"pi1": "backup"}]
    leader.say("backup", trial=False)
    until(lambda: all(leader.observed(name).reflex == {} for name in PAIR), "taken over")
    assert ends_go(shared, "backup", [PAIR])


def test_a_service_that_does_not_answer_over_the_new_path_is_named(shared: Lab, leader: Leader) -> None:
    web = shared["pi2"]
    server = web.spawn(["python3", "-m", "http.server", "--bind", web.service, str(PORT)], name="web")
    check = {"name": "web", "http": f"http://{web.service}:{PORT}/", "peer": "pi2", "interval_s": 2.0}
    try:
        until(lambda: web.listens(PORT), "the service listens")
        shared.process("pi1", "agent").stop()
        shared.start_agents("pi1", settings={"checks": [check]})
        leader.say("overlay", trial=False)
        until(lambda: leader.observed("pi1").generation == leader.term[1], "the agent is back and listens")
        leader.say("backup", trial=True)
        assert [word.failed_checks for word in leader.until("verified")] == [(), ()]
        leader.say("overlay", trial=False)
        until(lambda: ends_go(shared, "overlay", [PAIR]), "rolled back")
        web.run(["nft", "-f", "-"], input=BACKUP_DROPS)
        leader.say("backup", trial=True)
        assert [word.failed_checks for word in leader.until("verified")] == [("web",), ()]
        leader.say("overlay", trial=False)
        until(lambda: ends_go(shared, "overlay", [PAIR]), "rolled back")
    finally:
        web.run(["nft", "delete", "table", "ip", "web"], check=False)
        server.kill()
        shared.process("pi1", "agent").stop()
        shared.start_agents("pi1")


def test_events_tell_what_a_trial_came_to(shared: Lab, leader: Leader) -> None:
    with Wire(shared, "controller", f"{topics.ROOT}/{FLEET}/nodes/pi1/event") as wire:
        leader.say("backup", trial=True, within_s=1.0)
        until(
            lambda: [one for one in wire.heard if b"goes back from backup to overlay: not confirmed" in one.payload],
            lambda: f"the way back is told: {wire.heard}",
        )
