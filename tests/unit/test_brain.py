"""The brain between messages, clock and commands: three nodes that answer as a test wants, in virtual time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest

from browser.incident_samples import brief, spike_of_last_week
from unit import fleet_builders as build
from vagus_controller.config import Failover
from vagus_controller.core.brain import TICK_S, Brain
from vagus_controller.core.commands import Commands
from vagus_controller.core.fleet import Notice
from vagus_controller.core.leadership import TAKEOVER_S
from vagus_controller.core.transaction import PATIENCE_S
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import IncidentBrief, LedgerEntry, PairView, PlanAsk, PlanView, Refused, Severity
from vagus_protocol import topics
from vagus_protocol.codec import encode
from vagus_protocol.messages import (
    Assignment,
    ControllerPresence,
    Desired,
    Event,
    EventKind,
    Observed,
    ObservedState,
    PathOffer,
    Verification,
)
from vagus_protocol.signing import node_key, open_sealed

KEY = b"k" * 32
NODES = ("a", "b", "c")
HOLD_S = 5.0


class Outbox:
    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.published: list[str] = []
        self.ledger: dict[int, LedgerEntry] = {}
        self.events: list[str] = []
        self.severities: dict[str, Severity] = {}
        self.saves = 0

    def publish(self, topic: str, payload: bytes) -> None:
        self.retained[topic] = payload
        self.published.append(topic)

    def event(self, source: str, kind: str, subject: str, text: str, severity: Severity = Severity.INFO) -> None:
        self.events.append(f"{kind} {subject}: {text}")
        self.severities[self.events[-1]] = severity

    def notices(self, notices: Iterable[Notice]) -> None: ...
    def complain(self, who: str, text: str) -> None: ...
    def verdicts(self, verdicts: Iterable[Verdict]) -> None: ...
    def changed(self) -> None: ...

    def decision(
        self, who: str, action: str, subject: str, reason: str, *, evidence: Sequence[str] = (), outcome: str = ""
    ) -> LedgerEntry:
        entry = LedgerEntry(
            id=len(self.ledger) + 1,
            at=0.0,
            who=who,
            action=action,
            subject=subject,
            reason=reason,
            evidence=tuple(evidence),
            outcome=outcome,
        )
        self.ledger[entry.id] = entry
        return entry

    def outcome(self, entry: LedgerEntry, outcome: str) -> None:
        self.ledger[entry.id] = LedgerEntry(
            **{name: getattr(entry, name) for name in entry.__struct_fields__ if name != "outcome"}, outcome=outcome
        )

    def save(self) -> None:
        self.saves += 1


class Floor:
    """A brain that leads, and the nodes a, b and c: `dead` paths of pairs, and how each node answers a trial."""

    def __init__(self, outbox: Outbox | None = None, name: str = "brain", **failover: Any) -> None:
        settings = {"failback_hold_s": HOLD_S} | failover
        self.config = build.config(name=name, failover=Failover(**settings))
        self.outbox = outbox or Outbox()
        self.now = 1000.0
        self.seq = 0
        self.dead: set[tuple[str, str]] = set()
        self.manner: dict[str, str] = dict.fromkeys(NODES, "verified")
        self.start()
        # Just connected, it is in doubt about itself.
        self.run(10)

    def start(self, saved: bytes = b"", session: str = "s1") -> None:
        self.brain = Brain(self.config, KEY, session, self.outbox, self.now)
        self.commands = Commands(self.brain)
        if saved:
            assert self.brain.restore(saved, self.now) == ""
        self.connect()

    def connect(self) -> None:
        self.brain.on_session(True, "", self.now)
        for node in NODES:
            self.say(node, "presence", build.presence(node, *(peer for peer in NODES if peer != node)))
        for topic, payload in list(self.outbox.retained.items()):
            self.brain.on_message(topic, payload, self.now)
        self.report()
        self.brain.settled(self.now)

    def say(self, node: str, leaf: Any, message: Any) -> None:
        self.brain.on_message(topics.node("test", node, leaf), encode(message), self.now)

    def links(self, node: str) -> tuple[Any, ...]:
        peers = [peer for peer in NODES if peer != node]
        return tuple(
            build.link(peer, path, "down" if ("--".join(sorted((node, peer))), path) in self.dead else "up")
            for peer in peers
            for path in build.PATHS
        )

    def report(self, *nodes: str) -> None:
        for node in nodes or NODES:
            self.seq += 1
            self.say(node, "report", build.report(node, self.seq, links=self.links(node), event_seq=self.seq))

    def event(self, node: str, peer: str) -> None:
        self.seq += 1
        told = tuple(link for link in self.links(node) if link.peer == peer)
        self.say(node, "event", build.event(node, peer, *told, seq=self.seq))

    def desired(self, node: str, outbox: Outbox | None = None) -> Desired:
        payload = (outbox or self.outbox).retained[topics.node("test", node, "desired")]
        found = open_sealed(payload, node_key(KEY, node), "test", node)
        assert isinstance(found, Desired)
        return found

    def word(self, node: str, peer: str) -> Assignment:
        return self.desired(node).assignments[peer]

    def answer(self, *nodes: str) -> None:
        """Each node takes its retained desired, as its manner is."""
        for node in nodes or NODES:
            desired, manner = self.desired(node), self.manner[node]
            if manner == "silent":
                continue
            verifications = {
                peer: Verification(
                    path=word.path,
                    epoch=desired.epoch,
                    generation=desired.generation,
                    state=manner,  # type: ignore[arg-type]
                    reason="no packet came back" if manner == "failed" else "",
                )
                for peer, word in desired.assignments.items()
                if word.trial and manner != "old"
            }
            self.say(
                node,
                "observed",
                Observed(
                    v=1,
                    node=node,
                    session=f"{node}-s1",
                    epoch=desired.epoch,
                    generation=desired.generation,
                    state=ObservedState.APPLIED,
                    paths={peer: word.path for peer, word in desired.assignments.items()},
                    verifications=verifications,
                ),
            )

    def run(self, seconds: float, *, answering: bool = True) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += TICK_S
            self.report()
            self.brain.tick(self.now)
            if answering:
                self.answer()

    def plan(self, who: str, **ask: Any) -> PlanView:
        return self.commands.plan(PlanAsk(**ask), self.now, who=who)

    def pair(self, name: str) -> PairView:
        return next(each for each in self.brain.fleet_view(self.now).pairs if each.name == name)

    def entries(self, action: str, subject: str = "") -> list[LedgerEntry]:
        found = self.outbox.ledger.values()
        return [each for each in found if each.action == action and subject in ("", each.subject)]

    def kill(self, path: str = "overlay", *pairs: str) -> None:
        self.dead |= {(pair, path) for pair in pairs or ("a--b", "a--c", "b--c")}

    def mend(self) -> None:
        self.dead.clear()


def test_a_dead_path_is_left_in_the_call_that_tells_of_it_and_confirmed_when_both_ends_verified() -> None:
    floor = Floor()
    floor.kill("overlay", "a--b")
    floor.event("a", "b")
    before = floor.outbox.published.copy()
    floor.event("b", "a")
    said = floor.outbox.published[len(before) :]
    assert said == [topics.node("test", node, "desired") for node in ("a", "b")]
    for node, peer in (("a", "b"), ("b", "a")):
        assert (floor.word(node, peer).path, floor.word(node, peer).trial) == ("backup", True)
        assert floor.word(node, peer).origin == "auto"
    assert not floor.word("a", "c").trial
    assert floor.pair("a--b").status == "moving"
    floor.now += 0.1
    floor.answer("a")
    assert floor.word("a", "b").trial
    floor.answer("b")
    floor.run(TICK_S)
    assert (floor.word("a", "b").path, floor.word("a", "b").trial) == ("backup", False)
    assert floor.pair("a--b").status == "settled"
    (entry,) = floor.entries("failover")
    assert entry.outcome == "done at both ends after 100 ms"
    assert "overlay is down" in entry.reason


def test_going_home_goes_canary_first() -> None:
    floor = Floor()
    floor.kill()
    floor.report()
    floor.run(2)
    assert {floor.pair(name).assigned for name in ("a--b", "a--c", "b--c")} == {"backup"}
    floor.mend()
    for _ in range(40):
        floor.run(TICK_S, answering=False)
        trials = [name for name in ("a--b", "a--c", "b--c") if floor.word(name[0], name[-1]).trial]
        if trials:
            break
    assert len(trials) == 1, "the first pair goes alone"
    floor.answer()
    assert [floor.word(*name.split("--")).trial for name in ("a--b", "a--c", "b--c") if name not in trials] == [
        True
    ] * 2
    floor.answer()
    floor.run(TICK_S)
    assert {floor.pair(name).assigned for name in ("a--b", "a--c", "b--c")} == {"overlay"}
    assert len(floor.entries("failback")) == 3


def test_a_canary_that_fails_keeps_the_others_where_they_are() -> None:
    floor = Floor()
    floor.kill()
    floor.report()
    floor.run(2)
    floor.mend()
    floor.manner = dict.fromkeys(NODES, "failed")
    floor.run(HOLD_S + 5)
    (entry,) = floor.entries("failback")
    assert "rolled back to backup" in entry.outcome
    assert "no packet came back" in entry.outcome
    for name in ("a--b", "a--c", "b--c"):
        assert floor.pair(name).assigned == "backup"
    for node, peer in (("a", "b"), ("b", "c")):
        assert (floor.word(node, peer).path, floor.word(node, peer).trial) == ("backup", False)
    floor.run(10)
    assert len(floor.entries("failback")) == 2, "another canary, after a while"
    floor.manner = dict.fromkeys(NODES, "verified")
    floor.run(30)
    assert {floor.pair(name).assigned for name in ("a--b", "a--c", "b--c")} == {"overlay"}


def test_what_dies_while_it_is_tried_is_left_in_the_call_that_tells_of_it() -> None:
    floor = Floor()
    floor.run(2)
    floor.commands.switchover("a--b", "backup", floor.now, who="eva", reason="work")
    assert (floor.word("a", "b").path, floor.word("a", "b").trial) == ("backup", True)
    floor.dead.add(("a--b", "backup"))
    floor.event("a", "b")
    assert floor.word("a", "b").path == "backup", "one end alone does not decide"
    floor.event("b", "a")
    assert (floor.word("a", "b").path, floor.word("a", "b").trial) == ("overlay", False)
    assert floor.word("b", "a").path == "overlay"


def test_what_dies_while_it_is_tried_is_not_left_for_what_is_dead_too() -> None:
    floor = Floor()
    floor.run(2)
    floor.dead.add(("a--b", "overlay"))
    floor.event("a", "b")
    floor.event("b", "a")
    assert (floor.word("a", "b").path, floor.word("a", "b").trial) == ("backup", True)
    floor.dead.add(("a--b", "backup"))
    floor.event("a", "b")
    floor.event("b", "a")
    assert floor.word("a", "b").path == "backup"


def test_a_trial_that_fails_goes_back_and_is_not_tried_again_at_once() -> None:
    floor = Floor()
    floor.manner["b"] = "failed"
    floor.commands.switchover("a--b", "backup", floor.now, who="ann", reason="work")
    assert floor.word("b", "a").trial
    floor.answer()
    assert (floor.word("a", "b").path, floor.word("a", "b").trial) == ("overlay", False)
    assert floor.pair("a--b").assigned == "overlay"
    (entry,) = floor.entries("switchover")
    assert "rolled back to overlay: b: no packet came back" in entry.outcome
    with pytest.raises(Refused, match="failed its trial"):
        floor.commands.switchover("a--b", "backup", floor.now + 1, who="ann", reason="work")


def test_what_is_confirmed_is_told_before_it_is_left_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent whose controller dies now goes back to where the pair was, and not to where it was before that."""
    floor = Floor()
    told = []
    publish = floor.outbox.publish

    def listen(topic: str, payload: bytes) -> None:
        publish(topic, payload)
        if topic == topics.node("test", "a", "desired"):
            told.append((floor.word("a", "b").path, floor.word("a", "b").trial))

    monkeypatch.setattr(floor.outbox, "publish", listen)
    floor.commands.switchover("a--b", "backup", floor.now, who="ann", reason="work")
    floor.answer()
    floor.commands.failback("a--b", floor.now, who="ann", reason="done")
    assert told == [("backup", True), ("backup", False), ("overlay", True)]


def test_a_node_that_comes_while_the_leader_is_away_is_told() -> None:
    """After a restart the leader knows of it only a last will, which offers nothing; then it comes, unheard."""
    floor = Floor()
    birth = encode(build.presence("c", "a", "b"))
    floor.outbox.retained.clear()
    floor.brain = Brain(floor.config, KEY, "s2", floor.outbox, floor.now)
    floor.brain.on_session(True, "", floor.now)
    for node in ("a", "b"):
        floor.say(node, "presence", build.presence(node, *(peer for peer in NODES if peer != node)))
    floor.brain.settled(floor.now)
    floor.brain.tick(floor.now)
    assert floor.brain.leadership.leads
    assert topics.node("test", "c", "desired") not in floor.outbox.retained
    floor.brain.on_session(False, "cut off", floor.now)
    floor.brain.on_session(True, "", floor.now)
    floor.brain.on_message(topics.node("test", "c", "presence"), birth, floor.now)
    floor.brain.settled(floor.now)
    assert floor.desired("c").epoch == floor.brain.leadership.epoch


def test_who_stood_still_hears_the_fleet_before_it_decides() -> None:
    """Stopped and woken: what waits for it was true then."""
    floor = Floor()
    floor.kill("overlay", "a--b")
    floor.now += 17.0
    floor.event("a", "b")
    floor.event("b", "a")
    floor.brain.tick(floor.now)
    assert floor.word("a", "b").path == "overlay"
    assert any("stood still for 17 s" in line for line in floor.outbox.events)
    assert "after standing still" in floor.brain.fleet_view(floor.now).observer.reason
    floor.run(3)
    assert floor.word("a", "b").path == "backup", "it is still so"


def test_its_doubt_about_itself_ends_in_its_time_and_not_with_the_next_tick() -> None:
    floor = Floor()
    floor.brain.on_session(False, "cut off", floor.now)
    floor.connect()
    floor.kill("overlay", "a--b")
    floor.now += 1.9
    floor.brain.tick(floor.now)
    assert floor.brain.fleet_view(floor.now).observer.state == "settling"
    floor.now += 0.2
    floor.event("a", "b")
    floor.event("b", "a")
    assert floor.word("a", "b").path == "backup"


def test_who_stands_by_has_no_pair_that_waits() -> None:
    """Nobody evaluates it there any more, so that it would wait, and be an incident, for ever."""
    floor = Floor()
    floor.kill("overlay", "a--b")
    floor.kill("backup", "a--b")
    floor.report()
    floor.run(3)
    assert floor.brain.failover.stuck() == [("a", "b")]
    rival = ControllerPresence(v=1, controller="zz", session="zz", online=True, leader=True, epoch=99)
    floor.brain.on_message(topics.controller("test", "zz"), encode(rival), floor.now)
    floor.run(1)
    assert not floor.brain.leadership.leads
    assert floor.brain.failover.stuck() == []
    assert floor.brain.failover.waiting(("a", "b")) is None


def test_who_stood_still_hears_what_became_of_a_trial_before_it_ends_it() -> None:
    floor = Floor()
    floor.commands.switchover("a--b", "backup", floor.now, who="ann", reason="work")
    floor.now += 7.0
    floor.brain.tick(floor.now)
    assert floor.word("a", "b").path == "backup", "their answers wait to be read"
    floor.answer()
    floor.run(1)
    word = floor.word("a", "b")
    assert (word.path, word.trial) == ("backup", False)


def test_an_old_agent_is_not_sent_back_onto_a_dead_path() -> None:
    floor = Floor()
    floor.manner = dict.fromkeys(NODES, "old")
    floor.kill("overlay", "a--b")
    floor.report()
    floor.run(PATIENCE_S + 2)
    assert floor.pair("a--b").assigned == "backup"
    (entry,) = floor.entries("failover")
    assert "its agent does not verify" in entry.outcome
    floor.mend()
    floor.run(HOLD_S + PATIENCE_S + 2)
    (back,) = floor.entries("failback")
    assert "rolled back to backup" in back.outcome
    assert "its agent does not verify" in back.outcome


def test_a_restarted_brain_resumes_a_trial_under_its_new_epoch() -> None:
    floor = Floor()
    floor.kill("overlay", "a--b")
    floor.report()
    floor.run(TICK_S, answering=False)
    before = floor.desired("a")
    assert before.assignments["b"].trial
    saved = floor.brain.saved(floor.now)
    floor.now += 2
    floor.start(saved, session="s2")
    after = floor.desired("a")
    assert after.epoch > before.epoch
    assert (after.assignments["b"].path, after.assignments["b"].trial) == ("backup", True)
    floor.answer()
    floor.run(TICK_S)
    assert not floor.word("a", "b").trial
    assert "done at both ends" in floor.entries("failover")[-1].outcome
    assert "goes on" in floor.entries("failover")[-1].reason


def test_a_brain_without_its_disk_takes_over_assignments_trials_and_origins_from_the_retained_desireds() -> None:
    floor = Floor()
    floor.commands.switchover("a--c", "backup", floor.now, who="ann", reason="work")
    floor.answer()
    floor.run(1)
    floor.kill("overlay", "b--c")
    floor.report()
    floor.run(TICK_S, answering=False)
    assert floor.word("b", "c").trial
    other = Floor.__new__(Floor)
    other.__dict__ = {**floor.__dict__, "config": build.config(name="second", failover=floor.config.failover)}
    other.start(session="t1")
    assert not other.brain.leadership.leads
    other.now += TAKEOVER_S + 1
    floor.brain.goodbye(floor.now)
    for topic, payload in floor.outbox.retained.items():
        other.brain.on_message(topic, payload, other.now)
    other.report()
    other.brain.tick(other.now)
    other.now += TAKEOVER_S + 1
    other.report()
    other.brain.tick(other.now)
    assert other.brain.leadership.leads
    assert other.desired("a").controller == "second"
    assert (other.word("a", "c").path, other.word("a", "c").origin) == ("backup", "operator")
    assert (other.word("c", "b").path, other.word("c", "b").trial) == ("backup", True)
    assert other.word("a", "b") == Assignment(path="overlay")
    other.answer()
    other.run(1)
    assert (other.word("c", "b").path, other.word("c", "b").trial) == ("backup", False)
    other.mend()
    other.run(HOLD_S + 3)
    assert other.pair("b--c").assigned == "overlay"
    assert other.pair("a--c").assigned == "backup", "what a person decided stays"


def test_what_agents_did_alone_is_taken_over_on_trial() -> None:
    floor = Floor()
    before = floor.desired("a").epoch
    floor.outbox.retained = {
        topic: payload for topic, payload in floor.outbox.retained.items() if "desired" not in topic
    }
    floor.kill("overlay", "a--b")
    alone = Observed(
        v=1,
        node="a",
        session="a-s1",
        epoch=before,
        generation=9,
        state=ObservedState.APPLIED,
        paths={"b": "backup", "c": "overlay"},
        reflex={"b": "backup"},
    )
    floor.outbox.retained[topics.node("test", "a", "observed")] = encode(alone)
    floor.start(session="s2")
    floor.run(TICK_S, answering=False)
    assert (floor.word("a", "b").path, floor.word("a", "b").trial) == ("backup", True)
    assert floor.word("a", "b").origin == "reflex"
    floor.answer()
    floor.run(TICK_S)
    assert (floor.word("b", "a").path, floor.word("b", "a").trial) == ("backup", False)
    (entry,) = floor.entries("adopt")
    assert "by itself: taken over" in entry.reason
    assert entry.outcome.startswith("done at both ends")


def test_while_the_session_is_away_no_trial_is_judged() -> None:
    floor = Floor()
    floor.commands.switchover("a--b", "backup", floor.now, who="ann", reason="work")
    floor.brain.on_session(False, "gone", floor.now)
    for _ in range(40):
        floor.now += TICK_S
        floor.brain.tick(floor.now)
    assert floor.pair("a--b").assigned == "backup"
    floor.connect()
    floor.run(1)
    assert floor.pair("a--b").assigned == "backup"
    assert floor.entries("switchover")[0].outcome.startswith("done at both ends")


def test_a_plan_of_many_pairs_goes_in_stages_and_its_rehearsal_says_so() -> None:
    floor = Floor()
    dry = floor.plan("ann", path="backup", scope="fleet", reason="work", dry_run=True)
    assert dry.state == "dry run"
    assert [[step.pair for step in stage.steps] for stage in dry.stages] == [["a--b"], ["a--c", "b--c"]]
    assert not floor.entries("plan")
    assert not any(floor.word("a", peer).trial for peer in ("b", "c"))
    made = floor.plan("ann", path="backup", scope="fleet", reason="work")
    assert [[step.pair for step in stage.steps] for stage in made.stages] == [["a--b"], ["a--c", "b--c"]]
    assert [step.state for stage in made.stages for step in stage.steps] == ["on trial", "waits", "waits"]
    with pytest.raises(Refused, match="under way"):
        floor.plan("bob", path="backup", pairs=("b--c", "a--c"), reason="")
    floor.run(2)
    (view,) = floor.brain.plans.views(floor.now)
    assert view.state == "done"
    assert {floor.pair(name).origin for name in ("a--b", "a--c", "b--c")} == {"operator"}
    (entry,) = floor.entries("plan")
    assert entry.outcome == "done: 3 of 3 pairs moved"
    assert [each.outcome[:17] for each in floor.entries("switchover")] == ["done at both ends"] * 3
    home = floor.plan("ann", path="", scope="node", target="a", reason="over")
    assert {step.pair for stage in home.stages for step in stage.steps} == {"a--b", "a--c"}
    floor.run(2)
    assert floor.pair("a--b").assigned == floor.pair("a--c").assigned == "overlay"
    assert floor.pair("b--c").assigned == "backup"


def test_who_has_nothing_to_lose_waits_for_no_canary() -> None:
    floor = Floor(mode="recommend")
    floor.kill("overlay", "a--c")
    floor.report()
    floor.run(1)
    ask = {"path": "backup", "scope": "fleet", "reason": "the overlay dies piece by piece"}
    stages = floor.plan("ann", **ask, dry_run=True).stages
    assert [[step.pair for step in stage.steps] for stage in stages] == [["a--c"], ["a--b"], ["b--c"]]
    floor.plan("ann", **ask)
    floor.run(3)
    assert floor.entries("plan")[0].outcome == "done: 3 of 3 pairs moved"
    floor = Floor(mode="recommend")
    floor.kill()
    floor.report()
    floor.run(1)
    assert len(floor.plan("ann", **ask, dry_run=True).stages) == 1


def test_a_plan_whose_canary_fails_moves_nobody_else() -> None:
    floor = Floor()
    floor.manner["b"] = "failed"
    floor.plan("ann", path="backup", scope="fleet", reason="work")
    floor.run(2)
    (entry,) = floor.entries("plan")
    assert entry.outcome.startswith("stopped in stage 1: a--b: b: no packet came back")
    assert "0 of 3 pairs moved" in entry.outcome
    assert {floor.pair(name).assigned for name in ("a--b", "a--c", "b--c")} == {"overlay"}


def test_an_urgent_move_does_not_wait_for_a_plan() -> None:
    floor = Floor()
    floor.manner = dict.fromkeys(NODES, "silent")
    floor.plan("ann", path="backup", scope="fleet", reason="work")
    floor.kill("overlay", "b--c")
    floor.event("b", "c")
    floor.event("c", "b")
    assert floor.word("b", "c").trial
    assert floor.word("b", "c").origin == "auto"
    (view,) = [each for each in floor.brain.plans.views(floor.now) if each.who == "ann"]
    assert {step.pair: step.state for stage in view.stages for step in stage.steps}["b--c"] == "taken out"


def test_plans_that_make_no_sense_are_refused_with_what_to_do_instead() -> None:
    floor = Floor()
    with pytest.raises(Refused, match="there are: overlay, backup"):
        floor.plan("ann", path="satellite", pairs=("a--b",))
    with pytest.raises(Refused, match="there are: overlay, backup"):
        floor.plan("ann", path="satellite", scope="fleet")
    with pytest.raises(KeyError):
        floor.plan("ann", path="backup", pairs=("a--z",))
    with pytest.raises(KeyError):
        floor.plan("ann", path="backup", scope="node", target="z")
    with pytest.raises(Refused, match="name the pairs"):
        floor.plan(
            "ann",
            path="backup",
        )
    with pytest.raises(Refused, match="already"):
        floor.plan("ann", path="overlay", scope="fleet")
    assert not floor.outbox.ledger


def test_an_unproven_path_is_refused_shown_by_the_rehearsal_and_forced_with_a_reason() -> None:
    floor = Floor()
    floor.kill("backup", "a--c")
    floor.run(1)
    with pytest.raises(Refused, match="1 of 3 pairs should not move: a--c: backup is not proven"):
        floor.plan("ann", path="backup", scope="fleet", reason="work")
    dry = floor.plan("ann", path="backup", scope="fleet", reason="work", dry_run=True)
    assert "would be refused" in dry.stops[0]
    assert {step.pair: step.state for stage in dry.stages for step in stage.steps}["a--c"] == "refused"
    for reason in ("", " "):
        with pytest.raises(Refused, match="needs a reason"):
            floor.plan("ann", path="backup", scope="fleet", reason=reason, force=True)
        # Whether it is proven may change between the look and the word.
        for pair in ("a--c", "a--b"):
            with pytest.raises(Refused, match="needs a reason"):
                floor.commands.switchover(pair, "backup", floor.now, who="ann", reason=reason, force=True)
    entry = floor.commands.switchover("a--c", "backup", floor.now, who="ann", reason="I know", force=True)
    assert entry.who == "ann"
    assert "I know (forced although backup is not proven" in entry.reason


def test_a_recommendation_waits_for_a_person_and_is_carried_out_when_approved() -> None:
    floor = Floor(mode="recommend")
    with pytest.raises(Refused, match="nothing is recommended"):
        floor.commands.approve("a--b", floor.now, who="ann", reason="")
    floor.kill("overlay", "a--b")
    floor.report()
    floor.run(1)
    assert floor.pair("a--b").status == "recommended"
    assert floor.word("a", "b").path == "overlay"
    entry = floor.commands.approve("a--b", floor.now, who="ann", reason="yes")
    assert (entry.action, entry.who) == ("failover", "ann")
    assert "approved (yes)" in entry.reason
    floor.run(1)
    assert floor.pair("a--b").assigned == "backup"
    assert floor.pair("a--b").origin == "auto"


def test_an_epoch_that_was_anothers_is_left() -> None:
    """The broker forgot everything, and so did we: what agents follow tells that our epoch had been given before."""
    floor = Floor()
    epoch = floor.desired("a").epoch
    told = floor.desired("a").generation
    seen = Observed(v=1, node="a", session="a-s1", epoch=epoch, generation=told, state=ObservedState.APPLIED)
    floor.say("a", "observed", seen)
    assert floor.brain.leadership.epoch == epoch
    floor.say("a", "observed", msgspec.structs.replace(seen, generation=told + 50))
    assert floor.brain.leadership.epoch == floor.desired("a").epoch == epoch + 1
    refused = msgspec.structs.replace(
        seen,
        epoch=epoch + 1,
        generation=1,
        state=ObservedState.REFUSED,
        refused_epoch=epoch + 1,
        refused_generation=floor.desired("a").generation,
    )
    floor.say("a", "observed", refused)
    assert floor.desired("a").epoch == epoch + 2


def test_the_sentence_of_the_fleet_is_not_that_all_is_well_while_an_incident_lasts() -> None:
    floor = Floor()
    lasts = msgspec.structs.replace(
        brief(spike_of_last_week()), title="overlay between a and b is degraded", troubles=1
    )
    quiet = msgspec.structs.replace(lasts, troubles=0)

    def head(*incidents: IncidentBrief) -> tuple[str, Severity]:
        shown = floor.brain.canvas(floor.now, incidents=incidents).head
        return shown.summary, shown.severity

    assert head(quiet)[0].startswith("All is well")
    assert head(lasts, quiet) == (lasts.title, lasts.severity)
    assert head(lasts, lasts)[0] == f"{lasts.title} and 1 more incident"
    # What is told with its own words is not told twice, nor worse than it is.
    floor.kill("overlay", "a--b")
    floor.run(5)
    dead = msgspec.structs.replace(lasts, title="overlay between a and b is dead", severity=Severity.CRITICAL)
    assert head(dead) == ("a–b has a dead path, traffic goes by another", Severity.WARNING)


def test_a_node_at_load_that_says_goodbye_is_at_load_no_more() -> None:
    floor = Floor()
    for _ in range(10):
        floor.now += 2.0
        floor.report("b", "c")
        floor.seq += 1
        floor.say("a", "report", build.report("a", floor.seq, links=floor.links("a"), system=build.system(runnable=25)))
        floor.brain.tick(floor.now)
    assert "load spike on a" in floor.brain.fleet_view(floor.now).summary
    floor.say("a", "presence", build.goodbye("a"))
    floor.brain.tick(floor.now)
    assert "load" not in floor.brain.fleet_view(floor.now).summary


def test_who_comes_new_hears_that_the_leader_lives() -> None:
    floor = Floor()
    topic, _ = floor.brain.presence(online=True)
    said = floor.outbox.published.count(topic)
    floor.run(5)
    assert floor.outbox.published.count(topic) == said
    floor.say("a", "presence", build.presence("a", "b", "c", session="a-s2"))
    floor.say("b", "presence", build.presence("b", "a", "c", session="b-s2"))
    floor.run(TICK_S)
    assert floor.outbox.published.count(topic) == said + 1
    standby = Brain(build.config(name="other"), KEY, "s9", Outbox(), floor.now)
    floor.brain.on_message(*standby.presence(online=True), floor.now)
    floor.run(TICK_S)
    assert floor.outbox.published.count(topic) == said + 2


def test_a_leader_that_is_back_at_the_broker_greets_who_was_there_before_it() -> None:
    """A node may have announced itself before the leader could hear it, and subscribed after the leader did."""
    floor = Floor()
    topic, _ = floor.brain.presence(online=True)
    floor.run(5)
    floor.brain.on_session(False, "gone", floor.now)
    floor.brain.on_session(True, "", floor.now)
    floor.brain.settled(floor.now)
    said = floor.outbox.published.count(topic)
    floor.run(TICK_S)
    assert floor.outbox.published.count(topic) == said + 1
    floor.run(10)
    greeted = floor.outbox.published.count(topic)
    floor.run(10)
    assert floor.outbox.published.count(topic) == greeted, "it does not go on for ever"


def test_who_loses_the_lead_ends_no_trial() -> None:
    floor = Floor()
    floor.commands.switchover("a--b", "backup", floor.now, who="ann", reason="work")
    epoch = floor.desired("a").epoch
    stronger = build.config(name="zz")
    rival = Brain(stronger, KEY, "zz", Outbox(), floor.now)
    rival.leadership.saw_epoch(epoch + 5)
    rival.on_session(True, "", floor.now)
    rival.settled(floor.now)
    topic, payload = rival.presence(online=True)
    floor.brain.on_message(topic, payload, floor.now)
    assert not floor.brain.leadership.leads
    published = len(floor.outbox.published)
    floor.run(PATIENCE_S + 1, answering=False)
    assert not [each for each in floor.outbox.published[published:] if each.endswith("desired")]
    assert "whoever leads next" in floor.entries("switchover")[0].outcome
    with pytest.raises(Refused, match="does not lead"):
        floor.commands.switchover("a--c", "backup", floor.now, who="ann", reason="")


def test_a_pair_says_how_often_the_slower_end_of_a_path_probes_and_whether_it_is_metered() -> None:
    floor = Floor()
    lte = PathOffer(name="backup", metered=True, idle_interval_s=5.0)
    overlay = PathOffer(name="overlay", idle_interval_s=0.25)
    floor.say("a", "presence", build.presence("a", "b", "c", paths=(overlay, lte)))
    paths = {path.path: (path.metered, path.idle_interval_s) for path in floor.pair("a--b").paths}
    assert paths == {"overlay": (False, 0.25), "backup": (True, 5.0)}
    assert [path.metered for path in floor.pair("b--c").paths] == [False, False]


def test_what_an_agent_warns_of_is_a_warning_here() -> None:
    floor = Floor()
    kinds = (EventKind.STEERING, EventKind.SERVICE, EventKind.DRIFT)
    for warning, expected in ((True, Severity.WARNING), (False, Severity.INFO)):
        for kind in kinds:
            floor.seq += 1
            told = Event(v=1, node="a", session="a-s1", seq=floor.seq, kind=kind, text="words", warning=warning)
            floor.say("a", "event", told)
        assert [floor.outbox.severities[f"{kind} a: words"] for kind in kinds] == [expected] * 3


def test_a_brain_that_is_late_with_its_own_work_waits_longer_for_others() -> None:
    def silent_for(step_s: float) -> float:
        """How long, until it is called down, by a brain whose ticks come so far apart."""
        floor = Floor()
        floor.kill("overlay", "a--c", "b--c")
        floor.kill("backup", "a--c", "b--c")
        began = floor.now
        while next(each for each in floor.brain.fleet_view(floor.now).nodes if each.name == "c").liveness.state != (
            "node down"
        ):
            assert floor.now - began < 60.0
            floor.now += step_s
            floor.report("a", "b")
            floor.brain.tick(floor.now)
        return floor.now - began

    assert silent_for(4 * TICK_S) > 1.5 * silent_for(TICK_S)
