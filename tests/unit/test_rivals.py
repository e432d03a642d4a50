"""Two agents of one name throw each other out of the broker: that is told first, and once; a reboot is still one."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from unit import fleet_builders as build
from unit.incident_world import EVERY_S, TICK_S, IncidentWorld
from unit.test_notices import NOON, Desk, channel, whats
from vagus_protocol.brokers import Rotation

NAME = "austin-1"
CLONE = "clone-s1"
# Connecting to a broker, with TLS, over the sea.
CONNECT_S = 0.3
STEP_S = 0.05


class Agent:
    """One of a name: its session with the broker, as its uplink seeks and loses it. `brokers`: one or two, which know
    nothing of each other; the controller is at the first."""

    def __init__(self, session: str, boot_id: str, brokers: int, rng: Random, now: float) -> None:
        self.session, self.boot_id = session, boot_id
        self.rotation = Rotation(brokers)
        self.rng = rng
        self.alive = True
        self.seq = 0
        self.report_at = now + rng.random() * EVERY_S
        # the broker that it connects to, and when it is there
        self.coming: tuple[int, float] | None = None


class Brokers:
    """Each lets one client of a name in, and publishes the will of the one that it throws out. As mosquitto does."""

    def __init__(self, world: IncidentWorld, count: int, seed: int) -> None:
        self.world = world
        self.rng = Random(seed)
        self.held: list[Agent | None] = [None] * count
        self.agents: list[Agent] = []

    def start(self, session: str, boot_id: str, now: float) -> Agent:
        agent = Agent(session, boot_id, len(self.held), self.rng, now)
        self.agents.append(agent)
        return agent

    def kill(self, agent: Agent, now: float) -> None:
        agent.alive = False
        self.agents.remove(agent)
        for place, holder in enumerate(self.held):
            if holder is agent:
                self.held[place] = None
                self._publish(place, build.last_will(NAME, session=agent.session), now)

    def advance(self, now: float) -> None:
        for agent in list(self.agents):
            current = agent.rotation.current
            if current is not None:
                self._speak(agent, current, now)
                earlier = agent.rotation.earlier(now)
                if earlier is not None:
                    self._take(agent, earlier, now)
                    if self.held[current] is agent:
                        self.held[current] = None
            elif agent.coming is None:
                broker, wait_s = agent.rotation.next(now)
                if wait_s <= 0.0:
                    agent.coming = (broker, now + CONNECT_S)
            elif now >= agent.coming[1]:
                broker, agent.coming = agent.coming[0], None
                self._take(agent, broker, now)

    def _take(self, agent: Agent, broker: int, now: float) -> None:
        before, self.held[broker] = self.held[broker], agent
        if before is not None and before is not agent:
            self._publish(broker, build.last_will(NAME, session=before.session), now)
            before.rotation.lost(now, self.rng.random())
        agent.rotation.connected(now, broker, self.rng.random())
        birth = self.world.presence(NAME)
        self._publish(broker, replace(birth, session=agent.session, boot_id=agent.boot_id), now)

    def _speak(self, agent: Agent, broker: int, now: float) -> None:
        if now < agent.report_at:
            return
        agent.report_at = now + EVERY_S
        agent.seq += 1
        links = self.foreign() if agent.session == CLONE else self.world._links(NAME)
        said = build.report(NAME, agent.seq, session=agent.session, boot_id=agent.boot_id, links=links)
        self._publish(broker, said, now)

    def foreign(self):  # type: ignore[no-untyped-def]
        """What a clone sees from elsewhere: nobody answers it."""
        return build.links(*self.world.peers[NAME], state="down")

    def _publish(self, broker: int, message, now: float) -> None:  # type: ignore[no-untyped-def]
        if broker == 0:
            take = self.world.fleet.on_report if hasattr(message, "seq") else self.world.fleet.on_presence
            take(message, now)


class Place(IncidentWorld):
    """A world of which one node is what its agents, one or two, say at the broker."""

    def __init__(self, brokers: int = 1, seed: int = 1) -> None:
        self.brokers: Brokers | None = None
        super().__init__({"austin": (NAME,), "berlin": ("berlin-1",), "tokyo": ("tokyo-1",)})
        self.brokers = Brokers(self, brokers, seed)
        self.first = self.brokers.start(f"{NAME}-s1", f"{NAME}-b1", self.now)
        # It goes on where it was.
        self.first.seq = self.world.seq[NAME]
        self.mute.add(NAME)
        self.run(20.0)

    def _speak(self) -> None:
        if self.brokers is not None:
            for step in range(1, round(TICK_S / STEP_S) + 1):
                self.brokers.advance(self.now - TICK_S + step * STEP_S)
        super()._speak()

    def clone(self):  # type: ignore[no-untyped-def]
        assert self.brokers is not None
        return self.brokers.start(CLONE, "clone-b1", self.now)


def desk(brokers: int = 1, seed: int = 1) -> tuple[Desk, Place]:
    found = Desk(channel(severities=("critical", "warning")))
    place = found.world = Place(brokers, seed)
    found.ahead = NOON - place.now
    found.notices = found.life()
    return found, place


def states(place: Place, desk: Desk, seconds: float) -> list[str]:
    """What was said of the node, without repetition."""
    seen: list[str] = []
    for _ in range(round(seconds / TICK_S)):
        desk.run(TICK_S)
        state = place.liveness.verdicts[NAME].state
        if seen[-1:] != [state]:
            seen.append(state)
    return seen


@pytest.mark.parametrize("seed", range(8))
def test_two_agents_of_one_name_are_told_first_and_once_until_it_is_over(seed: int) -> None:
    told, place = desk(seed=seed)
    assert place.brokers is not None
    clone = place.clone()
    assert [state for state in states(place, told, 10.0) if state not in ("fresh", "late")] == ["duplicate"]
    assert states(place, told, 240.0) == ["duplicate"]
    [notice] = told.told
    assert notice.title == f"[harbour] critical: {NAME} is two agents of one name"
    assert "two machines" in notice.text
    place.brokers.kill(clone, place.now)
    assert states(place, told, 60.0)[-1] == "fresh"
    told.run(60.0)
    assert whats(told.told) == ["began", "over"]
    assert place.open == ()


@pytest.mark.parametrize("seed", range(4))
def test_the_one_that_was_there_first_may_be_the_one_that_goes(seed: int) -> None:
    told, place = desk(seed=seed)
    assert place.brokers is not None
    place.clone()
    told.run(60.0)
    place.brokers.kill(place.first, place.now)
    found = states(place, told, 90.0)
    assert found[0] == "duplicate"
    assert "rebooted" not in found
    assert found[-1] == "fresh"
    assert whats(told.told)[0] == "began"
    assert [notice.title for notice in told.told if "two agents" not in notice.title] == []


@pytest.mark.parametrize("seed", range(4))
def test_agents_that_find_a_broker_each_and_meet_once_a_minute_are_told_as_long_as_they_do(seed: int) -> None:
    """The first meeting cannot be told from a reboot; from the second on it is."""
    told, place = desk(brokers=2, seed=seed)
    place.clone()
    told.run(150.0)
    assert place.liveness.verdicts[NAME].state == "duplicate"
    assert states(place, told, 600.0) == ["duplicate"]
    assert place.titles == [f"{NAME} is two agents of one name"]
    assert len(told.told) <= 2


def test_agents_of_one_name_that_are_started_again_and_again_are_no_reboots() -> None:
    """As by systemd, of a program that ends: each life is a new session, and each boot has been heard before."""
    told, place = desk()
    assert place.brokers is not None
    first, clone = place.first, place.clone()
    told.run(10.0)
    found = []
    for life in range(2, 12):
        for agent, boot_id in ((first, f"{NAME}-b1"), (clone, "clone-b1")):
            place.brokers.kill(agent, place.now)
            again = place.brokers.start(f"{boot_id}-s{life}", boot_id, place.now)
            first, clone = (again, clone) if agent is first else (first, again)
            found += states(place, told, 3.0)
    assert set(found) == {"duplicate"}
    assert whats(told.told) == ["began"]


@pytest.mark.parametrize("away_s", [1.0, 3.0, 6.0])
def test_a_fast_reboot_is_told_soon_and_once(away_s: float) -> None:
    told, place = desk()
    assert place.brokers is not None
    place.brokers.agents.remove(place.first)
    told.run(away_s)
    # The broker sees by the new connection that the old one is dead.
    place.brokers.start(f"{NAME}-s2", f"{NAME}-b2", place.now)
    began = place.now
    while not told.told:
        told.run(TICK_S)
        assert place.now - began <= 15.0
    [notice] = told.told
    assert notice.title == f"[harbour] warning: {NAME} rebooted without a goodbye"
    told.run(120.0)
    assert whats(told.told) == ["began", "over"]


def test_a_report_that_was_on_its_way_makes_no_second_agent_of_a_reboot() -> None:
    told, place = desk()
    assert place.brokers is not None
    place.brokers.agents.remove(place.first)
    told.run(3.0)
    place.brokers.start(f"{NAME}-s2", f"{NAME}-b2", place.now)
    told.run(1.0)
    for late in (1, 2):
        place.fleet.on_report(build.report(NAME, place.first.seq + late), place.now)
        told.run(2.0)
    assert "duplicate" not in states(place, told, 30.0)
    assert [notice.title for notice in told.told] == [f"[harbour] warning: {NAME} rebooted without a goodbye"]
