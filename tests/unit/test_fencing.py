"""Fencing at the controller: twins of one name, replayed desireds, agents that forgot, in virtual time."""

from __future__ import annotations

from typing import Any

from unit.test_brain import KEY, NODES, Floor, Outbox
from vagus_controller.core.brain import TICK_S, Brain
from vagus_controller.core.leadership import TAKEOVER_S, Leadership
from vagus_protocol import topics
from vagus_protocol.codec import encode
from vagus_protocol.messages import ControllerPresence, Observed, ObservedState


def presence(session: str, epoch: int, *, leader: bool = True, online: bool = True) -> ControllerPresence:
    return ControllerPresence(v=1, controller="c", session=session, online=online, leader=leader, epoch=epoch)


def observed(floor: Floor, node: str, *, session: str = "s", **fields: Any) -> Observed:
    desired = floor.desired(node)
    term = {"epoch": desired.epoch, "generation": desired.generation}
    paths = {peer: word.path for peer, word in desired.assignments.items()}
    said: dict[str, Any] = term | {"paths": paths} | fields
    return Observed(v=1, node=node, session=session, state=ObservedState.APPLIED, **said)


# --- twins: two controllers of one name ----------------------------------------------------------------------------


def test_what_is_retained_of_an_earlier_life_is_not_waited_for() -> None:
    again = Leadership("c", "s2")
    again.saw_presence(presence("s1", 5), fresh=False)
    change = again.tick(0.0, True)
    assert change is not None
    assert change.epoch == 6
    restarted = Leadership("c", "s2")
    restarted.saw_presence(presence("s1", 5), fresh=False)
    restarted.saw_presence(presence("s1", 5, online=False))
    assert restarted.tick(0.0, True) is not None, "its last will came late"


def test_of_twins_the_one_that_stands_by_stays_so_until_the_other_is_gone() -> None:
    one, two = Leadership("c", "s1"), Leadership("c", "s2")
    one.tick(0.0, True)
    two.saw_presence(presence("s1", one.epoch), fresh=False)
    two.tick(1.0, True)
    change = one.saw_presence(presence("s2", two.epoch))
    assert change is not None
    assert not change.leads
    two.saw_presence(presence("s1", one.epoch, leader=False))
    for second in range(100):
        assert one.tick(float(second), True) is None
        assert two.tick(float(second), True) is None
    assert (one.leads, two.leads) == (False, True)
    one.saw_presence(presence("s2", two.epoch, online=False))
    first = next(second for second in range(200, 300) if one.tick(float(second), True) is not None)
    assert first - 200 <= TAKEOVER_S
    assert one.epoch > two.epoch


class Complaints(Outbox):
    def __init__(self) -> None:
        super().__init__()
        self.complaints: list[str] = []

    def complain(self, who: str, text: str) -> None:
        self.complaints.append(f"{who}: {text}")


def test_a_leader_keeps_its_word_where_a_twin_speaks_and_complains() -> None:
    outbox = Complaints()
    floor = Floor(outbox)
    topic = topics.controller("test", floor.config.name)
    twin = Brain(floor.config, KEY, "s0", Outbox(), floor.now)
    mine = outbox.retained[topic]
    outbox.retained[topic] = twin.presence(online=True)[1]
    floor.brain.on_message(topic, outbox.retained[topic], floor.now)
    assert outbox.retained[topic] == mine, "agents would take the fleet for orphaned"
    [complaint] = outbox.complaints
    assert "calls itself" in complaint
    assert "s0" in complaint
    assert floor.brain.leadership.leads


def test_an_old_word_of_ours_that_is_published_again_is_set_right_and_keeps_no_lead_vacant() -> None:
    outbox = Complaints()
    floor = Floor(outbox)
    own, other = topics.controller("test", floor.config.name), topics.controller("test", "other")

    def hear(topic: str, **said: Any) -> None:
        message = ControllerPresence(v=1, controller=topic.rsplit("/", 1)[1], **said)
        outbox.retained[topic] = encode(message)
        floor.brain.on_message(topic, outbox.retained[topic], floor.now)

    hear(other, session="s9", online=True, leader=True, epoch=50)
    assert not floor.brain.leadership.leads
    hear(own, session="s0", online=True, leader=True, epoch=49)
    hear(other, session="s9", online=False)
    floor.run(TICK_S)
    assert outbox.retained[own] == floor.brain.presence(online=True)[1], "agents would take the dead for their leader"
    floor.run(TAKEOVER_S + 2 * TICK_S)
    assert floor.brain.leadership.leads


def test_a_twin_that_leads_is_not_shouted_down() -> None:
    """It answers each time, and is asked no more often than every ten seconds."""
    floor = Floor()
    topic = topics.controller("test", floor.config.name)
    twin = ControllerPresence(v=1, controller=floor.config.name, session="s9", online=True, leader=True, epoch=50)
    floor.brain.on_message(topic, encode(twin), floor.now)
    at_first = floor.outbox.published.count(topic)
    for _ in range(100):
        before = len(floor.outbox.published)
        floor.run(TICK_S)
        if topic in floor.outbox.published[before:]:
            floor.brain.on_message(topic, encode(twin), floor.now)
        assert not floor.brain.leadership.leads
    assert 2 <= floor.outbox.published.count(topic) - at_first <= 6, "in 50 seconds"


# --- old desireds --------------------------------------------------------------------------------------------------


def test_a_controller_without_its_disk_does_not_inherit_replayed_desireds() -> None:
    floor = Floor()
    desireds = [topics.node("test", node, "desired") for node in NODES]
    floor.commands.switchover("a--b", "backup", floor.now, who="ann", reason="work")
    floor.answer()
    floor.run(1)
    old = {topic: floor.outbox.retained[topic] for topic in desireds}
    floor.commands.failback("a--b", floor.now, who="ann", reason="done")
    floor.answer()
    floor.run(1)
    assert floor.word("a", "b").path == "overlay"
    for node in NODES:
        floor.outbox.retained[topics.node("test", node, "observed")] = encode(observed(floor, node))
    floor.outbox.retained |= old
    floor.start(session="s2")
    floor.run(TICK_S)
    assert floor.desired("a").controller == floor.config.name
    assert (floor.word("a", "b").path, floor.word("b", "a").path) == ("overlay", "overlay")
    assert floor.pair("a--b").assigned == "overlay"


# --- agents that forgot --------------------------------------------------------------------------------------------


def test_an_agent_that_forgot_what_it_had_accepted_is_told_by_name() -> None:
    floor = Floor()
    term = floor.desired("a").epoch, floor.desired("a").generation
    floor.say("a", "observed", observed(floor, "a", session="one"))
    floor.say("a", "observed", observed(floor, "a", session="two"))
    assert not [event for event in floor.outbox.events if event.startswith("fencing")]
    floor.say("a", "observed", observed(floor, "a", session="three", epoch=0, generation=0))
    floor.say("a", "observed", observed(floor, "a", session="three"))
    floor.say("a", "observed", observed(floor, "a", session="four", epoch=term[0] - 1, generation=7))
    lost, older = [event for event in floor.outbox.events if event.startswith("fencing")]
    assert lost.startswith("fencing a: its state on disk is lost")
    assert older.startswith("fencing a: its state on disk is older")


def test_what_an_agent_did_alone_before_it_heard_us_is_not_taken_over() -> None:
    floor = Floor()
    floor.run(1)
    desired = floor.desired("a")
    alone: dict[str, Any] = {"paths": {"b": "backup", "c": "overlay"}, "reflex": {"b": "backup"}}
    old = observed(floor, "a", epoch=desired.epoch - 1, generation=99, **alone)
    floor.say("a", "observed", old)
    floor.report()
    floor.brain.tick(floor.now)
    assert not floor.entries("adopt")
    assert floor.word("a", "b").path == "overlay"
    floor.say("a", "observed", observed(floor, "a", **alone))
    assert floor.entries("adopt"), "it heard us, and stays"
    assert floor.word("a", "b").path == "backup"
