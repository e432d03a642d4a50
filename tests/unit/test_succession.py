"""What passes from one leader to the next: a plan goes on, a pause stands, a drill is over; a restart at every word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from unit import fleet_builders as build
from unit.test_brain import KEY, NODES, Floor, Outbox
from vagus_controller.core.brain import TICK_S
from vagus_controller.core.leadership import TAKEOVER_S
from vagus_controller.core.orders import REFRESH_S, Book, Standing
from vagus_controller.core.pauses import Pause
from vagus_controller.core.plans import OPEN
from vagus_controller.core.transaction import TAKE_UP_S
from vagus_controller.views import DrillAsk, LedgerEntry, PauseView, Refused, Severity
from vagus_protocol import topics
from vagus_protocol.messages import Orders, PlanOrder, StepOrder
from vagus_protocol.signing import open_orders, orders_key, seal_orders

PAIRS = ("a--b", "a--c", "b--c")
ORDERS = topics.orders("test", "brain")


class Died(Exception):
    """The process ended between two words."""


class Mortal(Outbox):
    """What survives a controller: the broker's `retained`, and the `disk`. It dies when it has `left` words to say."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None
        self.disk = b""
        self.floor: Ground | None = None
        self.complaints: list[str] = []

    def _word(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Died

    def publish(self, topic: str, payload: bytes) -> None:
        self._word()
        super().publish(topic, payload)
        if self.floor is not None:
            self.floor.watch()

    def save(self) -> None:
        self._word()
        if self.floor is not None:
            self.disk = self.floor.brain.saved(self.floor.now)

    def complain(self, who: str, text: str) -> None:
        self.complaints.append(text)


class Ground(Floor):
    """A floor whose controllers come and go, each with its name, its session, and the disk that it is given."""

    outbox: Mortal

    def __init__(self, **failover: Any) -> None:
        # pairs that both ends have verified on the backup
        self.verified: set[str] = set()
        self.lives = 0
        outbox = Mortal()
        super().__init__(outbox, **failover)
        outbox.floor = self
        outbox.save()
        self.answer()

    def watch(self) -> None:
        """After every word: nobody but the canary is told to go before the canary has arrived."""
        told = {name for name in PAIRS if self.told(name, "backup")}
        assert len(told) <= 1 or self.verified or self.dead, told

    def told(self, name: str, path: str) -> bool:
        a, b = name.split("--")
        topics_ = {node: topics.node("test", node, "desired") for node in (a, b)}
        if not all(topic in self.outbox.retained for topic in topics_.values()):
            return False
        return path in (self.word(a, b).path, self.word(b, a).path)

    def answer(self, *nodes: str) -> None:
        for name in PAIRS:
            a, b = name.split("--")
            words = [(self.word(*ends), self.manner[ends[0]]) for ends in ((a, b), (b, a))]
            if all(word.path == "backup" and manner == "verified" for word, manner in words):
                self.verified.add(name)
        super().answer(*nodes)

    def next_life(self, how: str) -> None:
        """The controller is dead; "disk": it starts again, "bare": without its disk, "standby": another takes over."""
        self.outbox.left = None
        self.lives += 1
        for entry in list(self.outbox.ledger.values()):
            if entry.outcome in OPEN:
                # As the store does when it is opened.
                self.outbox.outcome(entry, "left open")
        will = self.brain.presence(online=False)
        self.outbox.retained[will[0]] = will[1]
        self.now += 1.0
        if how == "standby":
            self.config = build.config(name=f"second{self.lives}", failover=self.config.failover)
        disk = self.outbox.disk if how == "disk" else b""
        self.start(disk, session=f"s{self.lives + 1}")
        self.run(TAKEOVER_S + 1.5)
        assert self.brain.leadership.leads

    def orders(self) -> Orders:
        told = open_orders(self.outbox.retained[topics.orders("test", self.config.name)], orders_key(KEY), "test")
        assert isinstance(told, Orders)
        return told

    def pause(self, scope: str = "fleet", target: str = "", for_s: float = 600.0) -> PauseView:
        return self.commands.pause(scope, target, self.now, who="eva", reason="work", for_s=for_s)

    def last_plan(self) -> LedgerEntry:
        return self.entries("plan")[-1]

    def settled(self, path: str, origin: str | None = None) -> bool:
        views = [self.pair(name) for name in PAIRS]
        words = [self.word(*ends) for name in PAIRS for ends in (name.split("--"), name.split("--")[::-1])]
        return all(view.assigned == path and origin in (None, view.origin) for view in views) and all(
            word.path == path and not word.trial for word in words
        )


def deaths(until: str = "") -> Iterator[Ground]:
    """A plan of the whole fleet whose controller dies at every word of it, until it does not die any more."""
    for words in range(100):
        floor = Ground()
        floor.manner[until] = "failed" if until else floor.manner["a"]
        floor.manner.pop("", None)
        floor.outbox.left = words
        try:
            floor.plan("ann", path="backup", scope="fleet", reason="new overlay keys")
            floor.run(5)
        except Died:
            yield floor
            continue
        assert words > 5, "it has died often enough"
        return
    raise AssertionError("it never ends")


# --- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["disk", "bare", "standby"])
def test_a_plan_whose_controller_dies_at_any_word_is_brought_to_its_end(how: str) -> None:
    taken_up = 0
    for floor in deaths():
        begun = any(floor.told(name, "backup") for name in PAIRS)
        named = floor.orders().plan is not None
        floor.next_life(how)
        floor.run(TAKE_UP_S)
        if not named and not begun:
            assert floor.settled("overlay"), "it was never asked of this one"
            continue
        if named:
            taken_up += 1
            assert "3 of 3 pairs moved" in floor.last_plan().outcome, floor.last_plan()
            assert floor.last_plan().who == "ann"
        assert floor.settled("backup", "operator"), [floor.pair(name) for name in PAIRS]
        assert floor.orders().plan is None
        floor.run(30)
        assert floor.settled("backup", "operator"), "what a person decided stays"
    assert taken_up > 3


@pytest.mark.parametrize("how", ["disk", "bare", "standby"])
def test_a_plan_that_fails_leaves_nothing_on_trial_wherever_its_controller_dies(how: str) -> None:
    for floor in deaths(until="b"):
        named = floor.orders().plan is not None
        floor.next_life(how)
        floor.run(TAKE_UP_S)
        assert floor.settled("overlay"), [floor.pair(name) for name in PAIRS]
        assert floor.orders().plan is None
        if named:
            assert "b: no packet came back" in floor.last_plan().outcome
            assert "0 of 3 pairs moved" in floor.last_plan().outcome


def test_a_plan_goes_on_after_two_deaths_with_who_and_why() -> None:
    floor = Ground()
    floor.plan("ann", path="backup", scope="fleet", reason="new overlay keys")
    floor.manner = dict.fromkeys(NODES, "silent")
    floor.next_life("standby")
    floor.next_life("standby")
    floor.manner = dict.fromkeys(NODES, "verified")
    floor.run(TAKE_UP_S)
    line = floor.last_plan()
    assert (line.who, line.subject) == ("ann", "fleet")
    assert "new overlay keys" in line.reason
    assert "goes on after its controller ended" in line.reason
    assert line.outcome == "done: 3 of 3 pairs moved"
    view = floor.brain.plans.views(floor.now)[0]
    assert (view.state, view.who) == ("done", "ann")
    assert floor.settled("backup", "operator")


def test_what_is_not_fit_any_more_ends_a_plan_that_goes_on_and_is_told() -> None:
    floor = Ground()
    floor.plan("ann", path="backup", scope="fleet", reason="work")
    floor.kill("backup", "b--c")
    floor.next_life("standby")
    floor.run(5)
    view = floor.brain.plans.views(floor.now)[0]
    assert view.state == "under way", "it waits a while: nodes may only be late"
    with pytest.raises(Refused, match="a plan is under way"):
        floor.plan("bob", path="backup", pairs=("a--c",), reason="more")
    floor.run(TAKE_UP_S)
    assert "b--c: backup is not proven" in floor.last_plan().outcome
    assert "1 of 3 pairs moved" in floor.last_plan().outcome
    assert floor.brain.plans.views(floor.now)[0].state == "stopped"
    assert floor.pair("a--b").assigned == "backup"
    assert floor.pair("a--c").assigned == "overlay"


def test_what_an_overlay_does_meanwhile_comes_first() -> None:
    """The overlay of a pair that waits dies while nobody leads: it fails over at once, and leaves the plan."""
    floor = Ground()
    floor.plan("ann", path="backup", scope="fleet", reason="work")
    floor.kill("overlay", "b--c")
    floor.next_life("standby")
    floor.run(TAKE_UP_S)
    assert {floor.pair(name).assigned for name in PAIRS} == {"backup"}
    assert floor.brain.plans.views(floor.now)[0].state in ("done", "stopped")
    assert floor.orders().plan is None


def test_an_automatic_plan_goes_on_under_its_guards() -> None:
    floor = Ground()
    floor.kill()
    floor.report()
    floor.run(2)
    floor.mend()
    for _ in range(60):
        floor.run(TICK_S, answering=False)
        if floor.orders().plan is not None:
            break
    plan = floor.orders().plan
    assert plan is not None
    assert plan.automatic
    floor.next_life("standby")
    floor.run(TAKE_UP_S)
    assert floor.settled("overlay", "default")
    assert "of 3 pairs moved" in floor.last_plan().outcome


def test_a_forced_plan_stays_forced() -> None:
    floor = Ground()
    floor.kill("backup", "b--c")
    floor.run(1)
    floor.plan("ann", path="backup", scope="fleet", reason="I know", force=True)
    floor.next_life("standby")
    floor.run(TAKE_UP_S)
    assert floor.last_plan().outcome == "done: 3 of 3 pairs moved"


def test_a_plan_too_large_to_be_told_is_told_to_have_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    floor = Ground()
    monkeypatch.setattr("vagus_controller.core.orders.MAX_ORDERS", 200)
    floor.plan("ann", path="backup", scope="fleet", reason="work")
    assert floor.orders().plan is not None
    floor.next_life("bare")
    line = floor.last_plan()
    assert "stopped, since its controller ended: it had too many pairs" in line.outcome
    assert "of 3 pairs moved" in line.outcome
    view = floor.brain.plans.views(floor.now)[0]
    assert (view.state, view.what) == ("stopped", "switchover of 3 pairs to backup")
    floor.run(TAKE_UP_S)
    assert floor.pair("a--c").assigned == floor.pair("b--c").assigned == "overlay"
    assert any("stopped, since its controller ended" in event for event in floor.outbox.events)


def test_a_path_that_is_gone_meanwhile_is_left_out_and_told() -> None:
    floor = Ground()
    floor.plan("ann", path="backup", scope="fleet", reason="work")
    order = floor.orders()
    assert order.plan is not None
    steps = tuple(msgspec.structs.replace(each, path="lte") for each in order.plan.steps)
    newer = msgspec.structs.replace(
        order, generation=order.generation + 1, plan=msgspec.structs.replace(order.plan, steps=steps)
    )
    floor.outbox.retained[ORDERS] = seal_orders(newer, orders_key(KEY))
    floor.next_life("bare")
    assert "a--b has no lte any more" in floor.last_plan().outcome
    floor.run(TAKE_UP_S)
    assert floor.pair("b--c").assigned == "overlay"


def test_a_pause_ends_a_plan_under_way_before_its_next_stage() -> None:
    floor = Ground()
    floor.plan("ann", path="backup", scope="fleet", reason="work")
    floor.pause("node", "c")
    floor.run(5)
    assert floor.pair("a--b").assigned == "backup", "what was on trial is brought to its end"
    assert floor.pair("a--c").assigned == floor.pair("b--c").assigned == "overlay"
    assert "eva paused node c: ask for the rest again" in floor.last_plan().outcome
    assert "1 of 3 pairs moved" in floor.last_plan().outcome
    floor.plan("ann", path="backup", scope="fleet", reason="I know of the pause")
    floor.run(5)
    assert floor.settled("backup"), "what a person asks for after it is done"


@pytest.mark.parametrize("how", ["disk", "bare", "standby"])
def test_nothing_of_a_plan_begins_under_a_pause_after_a_takeover(how: str) -> None:
    floor = Ground()
    floor.pause()
    floor.plan("ann", path="backup", scope="fleet", reason="work")
    floor.next_life(how)
    floor.run(TAKE_UP_S)
    assert floor.pair("a--b").assigned == "backup", "the trial was brought to its end"
    assert floor.pair("a--c").assigned == floor.pair("b--c").assigned == "overlay"
    assert "paused: the fleet by eva: work: ask for the rest again" in floor.last_plan().outcome


# --- pauses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["disk", "bare", "standby"])
@pytest.mark.parametrize(("scope", "target"), [("fleet", ""), ("site", "a"), ("node", "a")])
def test_a_pause_holds_over_a_takeover_and_ends_in_time(how: str, scope: str, target: str) -> None:
    floor = Ground()
    floor.pause(scope, target, for_s=60.0)
    begun = floor.now
    floor.kill("overlay", "a--b")
    floor.next_life(how)
    [pause] = floor.brain.fleet_view(floor.now).pauses
    assert (pause.scope, pause.target, pause.who, pause.reason) == (scope, target, "eva", "work")
    [line] = [entry for entry in floor.entries("pause") if "still stands" in entry.reason]
    assert line.who == "eva"
    while floor.now < begun + 59:
        floor.run(TICK_S)
        assert floor.pair("a--b").assigned == "overlay"
    assert "paused" in floor.pair("a--b").reason
    floor.run(5)
    assert floor.pair("a--b").assigned == "backup"
    assert floor.entries("resume")[-1].reason == "the pause is over"


def test_a_pause_that_a_person_ended_does_not_come_back() -> None:
    for how in ("disk", "bare", "standby"):
        floor = Ground()
        pause = floor.pause()
        floor.commands.resume(pause.id, floor.now, who="eva")
        floor.next_life(how)
        assert floor.brain.fleet_view(floor.now).pauses == ()


def test_a_standby_shows_the_pauses_of_who_leads_and_refuses_its_own() -> None:
    floor = Ground()
    leader, outbox = floor.brain, floor.outbox
    floor.pause(for_s=600.0)
    floor.config = build.config(name="second", failover=floor.config.failover)
    floor.outbox = Mortal()
    floor.outbox.retained = dict(outbox.retained)
    floor.start(session="t1")
    floor.brain.on_message(*leader.presence(online=True), floor.now)
    assert not floor.brain.leadership.leads
    [pause] = floor.brain.fleet_view(floor.now).pauses
    with pytest.raises(Refused, match=r"does not lead .*ask the one that does"):
        floor.pause()
    with pytest.raises(Refused, match="does not lead"):
        floor.commands.resume(pause.id, floor.now, who="eva")
    first = floor.brain.explain("a--b", floor.now)[0]
    assert (first.what, first.result) == ("leadership", "block")
    assert "it stands by" in first.text
    assert leader.explain("a--b", floor.now)[0].what != "leadership"


def test_the_picture_of_a_standby_says_who_leads() -> None:
    floor = Ground()
    leader, outbox = floor.brain, floor.outbox
    assert leader.fleet_view(floor.now).leads
    floor.config = build.config(name="second", failover=floor.config.failover)
    floor.outbox = Mortal()
    floor.outbox.retained = dict(outbox.retained)
    floor.start(session="t1")
    floor.brain.on_message(*leader.presence(online=True), floor.now)
    floor.run(1)
    shown = floor.brain.fleet_view(floor.now)
    assert (shown.leads, shown.standing) == (False, f"brain leads under epoch {leader.leadership.epoch}")


def test_a_pause_is_told_again_so_that_who_comes_later_knows_what_is_left_of_it() -> None:
    floor = Ground()
    floor.run(REFRESH_S * 2)
    quiet = floor.outbox.published.count(ORDERS)
    floor.run(REFRESH_S * 4)
    assert floor.outbox.published.count(ORDERS) == quiet, "nothing stands, and nothing is said again"
    floor.pause(for_s=600.0)
    floor.run(300.0)
    assert floor.outbox.published.count(ORDERS) - quiet == 1 + 300 / REFRESH_S
    [pause] = floor.orders().pauses
    assert 300.0 <= pause.left_s <= 300.0 + REFRESH_S


@pytest.mark.parametrize("where", ["brain", "mallory"])
def test_a_pause_that_no_controller_signed_stops_nothing(where: str) -> None:
    floor = Ground()
    forged = Book("test", where, "x", b"?" * 32)
    forged.begin_epoch(2**40)
    pause = Pause(1, "fleet", "", "because", "mallory", floor.now + 86400.0)
    payload = forged.renew(Standing((pause,)), floor.now)
    assert payload is not None
    floor.outbox.retained[topics.orders("test", where)] = payload
    floor.next_life("standby")
    assert floor.brain.fleet_view(floor.now).pauses == ()
    assert any("no controller of this fleet signed" in text for text in floor.outbox.complaints)
    assert floor.brain.leadership.epoch < 1000
    floor.kill("overlay", "a--b")
    floor.report()
    floor.run(2)
    assert floor.pair("a--b").assigned == "backup"


def test_orders_under_another_controllers_topic_are_none() -> None:
    floor = Ground()
    floor.pause()
    payload = floor.outbox.retained.pop(ORDERS)
    floor.outbox.retained[topics.orders("test", "other")] = payload
    floor.next_life("standby")
    assert floor.brain.fleet_view(floor.now).pauses == ()
    assert any("said by brain, not by other" in text for text in floor.outbox.complaints)


def test_an_old_pause_that_is_published_again_changes_nothing_and_is_undone() -> None:
    floor = Ground()
    pause = floor.pause()
    old = floor.outbox.retained[ORDERS]
    floor.commands.resume(pause.id, floor.now, who="eva")
    floor.brain.on_message(ORDERS, old, floor.now)
    floor.outbox.retained[ORDERS] = old
    assert floor.brain.fleet_view(floor.now).pauses == ()
    floor.run(TICK_S)
    assert floor.orders().pauses == ()
    for rubbish in (b"", b"{}", b"\xff" * 100):
        floor.outbox.retained[ORDERS] = rubbish
        floor.brain.on_message(ORDERS, rubbish, floor.now)
        floor.run(TICK_S)
        assert floor.orders().pauses == ()


def test_orders_older_than_what_nodes_were_told_count_for_nothing_and_that_is_told() -> None:
    """Another controller has led since, and its orders are not there: an older program, or an owner of the broker."""
    floor = Ground()
    floor.pause()
    floor.plan("ann", path="backup", scope="fleet", reason="work")
    old = floor.outbox.retained[ORDERS]
    floor.next_life("standby")
    second = topics.orders("test", floor.config.name)
    floor.run(TAKE_UP_S)
    del floor.outbox.retained[second]
    floor.outbox.retained[ORDERS] = old
    floor.next_life("standby")
    assert floor.brain.fleet_view(floor.now).pauses == ()
    told = [event for event in floor.outbox.events if "is not taken over: brain said so in epoch" in event]
    assert len(told) == 1
    assert floor.outbox.severities[told[0]] is Severity.WARNING
    assert "nodes were told under newer orders since" in floor.last_plan().outcome


@pytest.mark.parametrize("how", ["disk", "bare", "standby"])
def test_a_pause_that_is_over_is_not_taken_from_an_old_message_by_one_that_knows_nothing(how: str) -> None:
    floor = Ground()
    pause = floor.pause()
    old = floor.outbox.retained[ORDERS]
    floor.commands.resume(pause.id, floor.now, who="eva")
    floor.run(TICK_S)
    floor.outbox.retained[ORDERS] = old
    floor.next_life(how)
    assert floor.brain.fleet_view(floor.now).pauses == ()
    assert any("is not taken over" in event for event in floor.outbox.events) == (how != "disk")
    assert floor.orders().pauses == ()


@pytest.mark.parametrize("how", ["disk", "bare", "standby"])
@pytest.mark.parametrize("ending", ["done", "failed", "paused"])
def test_a_plan_that_is_over_is_not_begun_again_from_an_old_message(how: str, ending: str) -> None:
    floor = Ground()
    if ending == "failed":
        floor.manner["b"] = "failed"
    floor.plan("ann", path="backup", scope="fleet", reason="work", force=ending == "failed")
    old = floor.outbox.retained[ORDERS]
    if ending == "paused":
        pause = floor.pause()
        floor.run(3)
        floor.commands.resume(pause.id, floor.now, who="eva")
    floor.run(3)
    floor.manner["b"] = "verified"
    before = [floor.pair(name).assigned for name in PAIRS]
    floor.outbox.retained[ORDERS] = old
    floor.next_life(how)
    floor.run(TAKE_UP_S + 5)
    assert [floor.pair(name).assigned for name in PAIRS] == before
    if how != "disk":
        assert "nodes were told under newer orders since" in floor.last_plan().outcome
        assert floor.last_plan().who == "ann"


def test_a_leader_that_meets_another_learns_its_pauses_and_tells_which_of_its_own_are_lost() -> None:
    floor = Ground()
    floor.pause()
    rival = Book("test", "zz", "zz", KEY)
    rival.begin_epoch(floor.brain.leadership.epoch + 5)
    theirs = Pause(7, "node", "c", "theirs", "bob", floor.now + 100.0)
    payload = rival.renew(Standing((theirs,)), floor.now)
    assert payload is not None
    floor.brain.on_message(topics.orders("test", "zz"), payload, floor.now)
    assert [each.who for each in floor.brain.fleet_view(floor.now).pauses] == ["eva"], "while we lead, ours stand"
    leader = msgspec.json.encode(
        {"v": 1, "controller": "zz", "session": "zz", "online": True, "leader": True, "epoch": rival.term[0]}
    )
    floor.brain.on_message(topics.controller("test", "zz"), leader, floor.now)
    assert not floor.brain.leadership.leads
    assert [each.who for each in floor.brain.fleet_view(floor.now).pauses] == ["bob"]
    assert any("by eva holds no more: zz, which leads, has none such" in event for event in floor.outbox.events)


def test_a_pause_that_a_twin_of_the_same_name_does_not_have_is_told_to_be_lost() -> None:
    floor = Ground()
    floor.pause()
    twin = Book("test", floor.brain.config.name, "zz", KEY)
    twin.begin_epoch(floor.brain.leadership.epoch + 5)
    payload = twin.renew(Standing(), floor.now)
    assert payload is not None
    where = floor.brain.config.name
    floor.brain.on_message(topics.orders("test", where), payload, floor.now)
    leader = msgspec.json.encode(
        {"v": 1, "controller": where, "session": "zz", "online": True, "leader": True, "epoch": twin.term[0]}
    )
    floor.brain.on_message(topics.controller("test", where), leader, floor.now)
    assert floor.brain.fleet_view(floor.now).pauses == ()
    assert any(f"by eva holds no more: another {where}, which leads" in event for event in floor.outbox.events)


def test_a_pause_made_while_the_session_is_away_is_told_when_it_is_back() -> None:
    floor = Ground()
    floor.brain.on_session(False, "gone", floor.now)
    before = floor.outbox.retained[ORDERS]
    floor.pause()
    floor.outbox.retained[ORDERS] = before
    floor.connect()
    assert len(floor.orders().pauses) == 1


# --- what a person holds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["disk", "bare", "standby"])
def test_a_switchover_is_held_by_hand_over_a_takeover_on_trial_or_not(how: str) -> None:
    for confirmed in (True, False):
        floor = Ground()
        floor.commands.switchover("a--b", "backup", floor.now, who="ann", reason="work")
        if confirmed:
            floor.run(2)
        floor.next_life(how)
        floor.run(90)
        assert (floor.pair("a--b").assigned, floor.pair("a--b").status) == ("backup", "held")


# --- drills ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["disk", "bare", "standby"])
@pytest.mark.parametrize("after_s", [0.0, 2.0, 5.5, 7.0])
def test_a_drill_ends_with_its_controller_and_is_told_as_aborted(how: str, after_s: float) -> None:
    floor = Ground()
    floor.commands.drill(DrillAsk(scope="fleet", reason="to know"), floor.now, who="ops")
    floor.run(after_s)
    assert floor.orders().drill is not None
    floor.next_life(how)
    floor.run(1)
    assert floor.settled("overlay")
    drill = floor.pair("a--b").drill
    assert drill is not None
    assert not drill.ok
    assert "its controller ended in the middle of it" in drill.words
    lines = floor.entries("drill")
    assert (lines[-1].subject, lines[-1].who) == ("fleet", "ops")
    assert lines[-1].outcome == "stopped: its controller ended; 0 of 3 pairs drilled"
    assert [line.outcome for line in lines if line.subject == "a--b"][-1] == "aborted"
    shown = floor.brain.drills.views(floor.now)[0]
    assert (shown.state, shown.who, [pair.state for pair in shown.pairs]) == ("stopped", "ops", ["aborted"])
    floor.run(60)
    assert floor.settled("overlay"), "nothing of it is left"
    assert floor.orders().drill is None


def test_a_plan_of_15_000_pairs_can_be_told() -> None:
    steps = tuple(
        StepOrder(f"amsterdam-{n % 200:03}", f"singapore-{n // 200:03}", "backup", "operator") for n in range(15_000)
    )
    plan = PlanOrder(who="ann", what="w", count=len(steps), steps=steps)
    book = Book("test", "brain", "s", KEY)
    book.begin_epoch(1)
    payload = book.renew(Standing((), plan), 0.0)
    assert payload is not None
    told = book.open("brain", payload)
    assert isinstance(told, Orders)
    assert told.plan == plan
