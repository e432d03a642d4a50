"""Drills: failover and failback rehearsed, measured and taken back, in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from unit.test_brain import NODES, Floor
from vagus_controller.core.brain import TICK_S
from vagus_controller.core.fleet import Pair
from vagus_controller.core.transaction import HOLD_S, LONGEST_DRILL_S
from vagus_controller.schedule import Schedule
from vagus_controller.views import DrillAsk, DrillView, Refused
from vagus_protocol.messages import Observed

AB: Pair = ("a", "b")
SUNDAY = datetime(2026, 11, 22, 3, 59, 30, tzinfo=UTC).timestamp()


class Ground(Floor):
    """A floor whose agents measure a gap: `gap_s` is what every end tells with its verification."""

    def __init__(self, **failover: Any) -> None:
        self.gap_s: float | None = 0.04
        super().__init__(**failover)

    def say(self, node: str, leaf: Any, message: Any) -> None:
        if isinstance(message, Observed):
            told = {
                peer: msgspec.structs.replace(word, gap_s=self.gap_s) if self.word(node, peer).drill else word
                for peer, word in message.verifications.items()
            }
            message = msgspec.structs.replace(message, verifications=told)
        super().say(node, leaf, message)

    def drill(self, scope: Any = "pair", target: str = "a--b") -> DrillView:
        return self.commands.drill(DrillAsk(scope=scope, target=target, reason="to know"), self.now, who="ops")

    def path(self, pair: Pair = AB) -> str:
        return self.word(*pair).path

    def last(self, pair: str = "a--b") -> Any:
        return next(one for one in self.brain.fleet_view(self.now).pairs if one.name == pair).drill

    def newest(self) -> DrillView:
        return self.brain.drills.views(self.now)[0]

    def until_on_the_way_back(self) -> None:
        for _ in range(20):
            if self.path() == "overlay":
                break
            self.run(0.5, answering=False)
        assert self.path() == "overlay"

    def until_over(self, most_s: float = 60.0) -> DrillView:
        end = self.now + most_s
        while self.newest().state == "under way":
            assert self.now < end, self.newest()
            self.run(0.5)
        return self.newest()


@pytest.fixture
def floor() -> Ground:
    ground = Ground()
    ground.answer()
    ground.run(1)
    return ground


def test_a_drill_goes_out_stays_and_comes_back_and_everything_is_as_it_was(floor: Ground) -> None:
    floor.drill()
    for end, peer in (AB, AB[::-1]):
        word = floor.word(end, peer)
        assert (word.path, word.trial, word.drill) == ("backup", True, True)
    floor.answer()
    floor.run(HOLD_S - 1)
    assert floor.path() == "backup"
    floor.until_on_the_way_back()
    word = floor.word("a", "b")
    assert (word.path, word.trial, word.drill) == ("overlay", True, True), "the way back is verified too"
    floor.answer()
    found = floor.until_over()
    [pair] = found.pairs
    assert (found.state, pair.state, pair.gap_s, pair.gap_back_s) == ("done", "ok", 0.04, 0.04), found
    floor.run(0.5)
    word = floor.word("a", "b")
    assert (word.path, word.trial, word.drill, word.origin) == ("overlay", False, False, "default")
    assert (floor.last().ok, floor.last().gap_s) == (True, 0.04)
    lines = [entry for entry in floor.outbox.ledger.values() if entry.action == "drill"]
    assert [(line.who, line.subject) for line in lines] == [("ops", "a--b")]
    assert lines[0].outcome.startswith("ok: backup: done at both ends")
    assert "a gap of 40 ms" in lines[0].outcome
    assert floor.last("a--c") is None
    floor.run(60)
    assert floor.path() == "overlay"


def test_nothing_but_the_way_back_is_ever_confirmed(floor: Ground) -> None:
    floor.drill()
    confirmed = set()
    for _ in range(40):
        floor.answer()
        floor.run(0.5)
        word = floor.word("a", "b")
        if not word.trial:
            confirmed.add(word.path)
    assert confirmed == {"overlay"}


def test_who_does_not_measure_is_drilled_all_the_same_and_the_gap_is_not_known(floor: Ground) -> None:
    floor.gap_s = None
    floor.drill()
    for _ in range(40):
        floor.answer()
        floor.run(0.5)
    [pair] = floor.newest().pairs
    assert (pair.state, pair.gap_s) == ("ok", None)
    assert "the gap was not measured" in floor.last().words


def test_a_fleet_goes_pair_by_pair(floor: Ground) -> None:
    floor.drill("fleet", "")
    seen = set()
    for _ in range(160):
        floor.answer()
        floor.run(0.5)
        out = [pair for pair in (("a", "b"), ("a", "c"), ("b", "c")) if floor.path(pair) == "backup"]
        assert len(out) <= 1, "one at a time"
        seen.update(out)
    assert seen == {("a", "b"), ("a", "c"), ("b", "c")}
    assert [pair.state for pair in floor.newest().pairs] == ["ok"] * 3
    whole = next(entry for entry in floor.outbox.ledger.values() if entry.subject == "fleet")
    assert whole.outcome == "done: 3 of 3 pairs drilled"


def test_a_failed_verification_reverts_and_ends_the_whole(floor: Ground) -> None:
    floor.manner["b"] = "failed"
    floor.drill("fleet", "")
    floor.answer()
    found = floor.until_over()
    assert [pair.state for pair in found.pairs] == ["aborted", "not begun", "not begun"]
    assert floor.path() == "overlay"
    assert not floor.word("a", "b").trial
    assert not floor.last().ok
    assert list(floor.brain.drills.unfit()) == [("a", "b")], "it would fail to fail over"
    floor.manner["b"] = "verified"
    floor.run(30)
    floor.drill()
    floor.answer()
    assert [pair.state for pair in floor.until_over().pairs] == ["ok"]
    assert floor.brain.drills.unfit() == {}


def test_a_backup_that_dies_in_mid_drill_reverts_with_the_word_of_it(floor: Ground) -> None:
    floor.drill()
    floor.answer()
    floor.run(2)
    floor.dead.add(("a--b", "backup"))
    floor.event("a", "b")
    assert floor.path() == "overlay", "in the same call"
    assert not floor.word("a", "b").trial
    [pair] = floor.newest().pairs
    assert pair.state == "aborted"
    assert "backup is down at a" in pair.reason
    assert floor.brain.drills.unfit() == {}, "the link itself tells"


def test_nobody_is_sent_back_onto_an_overlay_that_died_in_the_drill(floor: Ground) -> None:
    floor.drill()
    floor.answer()
    floor.run(2)
    floor.dead.add(("a--b", "overlay"))
    floor.event("a", "b")
    floor.event("b", "a")
    floor.run(1)
    word = floor.word("a", "b")
    assert (word.path, word.trial) == ("backup", False)
    [pair] = floor.newest().pairs
    assert pair.state == "aborted"
    assert "it stays on backup" in pair.reason
    floor.run(20)
    assert floor.path() == "backup"


def test_an_overlay_that_dies_on_the_way_back_is_failed_over_at_once(floor: Ground) -> None:
    floor.drill()
    floor.answer()
    floor.until_on_the_way_back()
    floor.dead.add(("a--b", "overlay"))
    floor.event("a", "b")
    floor.event("b", "a")
    assert floor.path() == "backup"
    assert floor.newest().pairs[0].state == "aborted"


@pytest.mark.parametrize("what", ["pause", "switchover", "plan"])
def test_a_person_comes_first(floor: Ground, what: str) -> None:
    floor.drill()
    floor.answer()
    floor.run(1)
    if what == "pause":
        floor.commands.pause("node", "c", floor.now, who="eva", reason="work", for_s=60)
        assert (floor.path(), floor.word("a", "b").trial) == ("overlay", False)
    elif what == "switchover":
        floor.commands.switchover("a--b", "backup", floor.now, who="eva", reason="because")
        assert (floor.path(), floor.word("a", "b").drill) == ("backup", False)
    else:
        floor.commands.switchover("a--c", "backup", floor.now, who="eva", reason="because")
        assert (floor.path(), floor.word("a", "b").trial) == ("overlay", False)
    assert floor.newest().state == "stopped"
    assert "eva" in floor.newest().outcome


def test_ends_that_fall_silent_in_a_drill_are_told_to_go_back_before_they_would_themselves(floor: Ground) -> None:
    floor.drill()
    began = floor.now
    floor.run(4.4)
    floor.answer()
    while floor.path() == "backup":
        floor.run(0.5)
    assert floor.now - began <= LONGEST_DRILL_S + 0.6


def test_refused_with_what_to_do_instead(floor: Ground) -> None:
    pause = floor.commands.pause("node", "c", floor.now, who="eva", reason="new disk", for_s=60)
    with pytest.raises(Refused, match=f"node c is paused by eva.*vagusctl resume {pause.id}"):
        floor.drill()
    floor.commands.resume(pause.id, floor.now, who="eva")
    floor.commands.switchover("a--c", "backup", floor.now, who="eva", reason="because")
    with pytest.raises(Refused, match="under way"):
        floor.drill()
    floor.answer()
    floor.run(1)
    with pytest.raises(Refused, match=r"off the first path: a--c.*vagusctl status"):
        floor.drill()
    floor.commands.failback("a--c", floor.now, who="eva", reason="because")
    floor.answer()
    floor.run(1)
    floor.dead.add(("a--b", "backup"))
    floor.run(3)
    with pytest.raises(Refused, match="only a proven standby is drilled"):
        floor.drill()
    with pytest.raises(KeyError):
        floor.drill("pair", "a--nobody")
    floor.drill("pair", "b--c")
    with pytest.raises(Refused, match=r"drill 1 is under way.*vagusctl drills"):
        floor.drill("pair", "a--c")


def test_pairs_that_are_not_fit_are_skipped_and_told(floor: Ground) -> None:
    floor.dead.add(("a--b", "backup"))
    floor.run(3)
    floor.drill("fleet", "")
    for _ in range(100):
        floor.answer()
        floor.run(0.5)
    assert [pair.state for pair in floor.newest().pairs] == ["skipped", "ok", "ok"]


def test_a_controller_that_dies_in_it_sends_it_back_in_its_next_life(floor: Ground) -> None:
    floor.drill()
    floor.answer()
    floor.run(2)
    saved = floor.brain.saved(floor.now)
    floor.start(saved, session="s2")
    floor.run(6)
    word = floor.word("a", "b")
    assert (word.path, word.trial) == ("overlay", False)


def test_one_that_takes_over_sends_it_back_too(floor: Ground) -> None:
    floor.drill()
    floor.answer()
    floor.run(2)
    floor.start(session="s2")
    floor.run(6)
    word = floor.word("a", "b")
    assert (word.path, word.trial) == ("overlay", False)


def test_a_controller_that_stops_takes_it_back_first(floor: Ground) -> None:
    floor.drill()
    floor.answer()
    floor.run(2)
    floor.brain.goodbye(floor.now)
    word = floor.word("a", "b")
    assert (word.path, word.trial) == ("overlay", False)


def test_the_last_drill_survives_a_restart(floor: Ground) -> None:
    floor.drill()
    for _ in range(40):
        floor.answer()
        floor.run(0.5)
    before = floor.last()
    floor.start(floor.brain.saved(floor.now), session="s2")
    floor.run(6)
    assert floor.last() == before


def test_a_schedule_is_due_once_each_time_in_utc() -> None:
    schedule = Schedule("0 4 * * 0")
    assert not schedule.due(SUNDAY)
    assert not schedule.due(SUNDAY + 29)
    assert schedule.due(SUNDAY + 30)
    assert not schedule.due(SUNDAY + 31)
    assert schedule.due(SUNDAY + 30 + 7 * 86400)


def test_a_clock_that_jumps_begins_no_drill() -> None:
    schedule = Schedule("0 4 * * 0")
    assert not schedule.due(SUNDAY)
    assert not schedule.due(SUNDAY + 30 * 86400), "it is not made up for"
    assert not schedule.due(SUNDAY - 30 * 86400)
    assert schedule.due(SUNDAY - 28 * 86400 + 30)


def test_when_neither_path_of_its_pair_answers_it_ends_at_once(floor: Ground) -> None:
    """An end has died, and there is nothing to wait for."""
    floor.drill()
    floor.answer()
    floor.run(1)
    floor.kill("overlay", "a--b")
    floor.kill("backup", "a--b")
    floor.event("a", "b")
    assert (floor.newest().state, floor.path()) == ("stopped", "overlay")


def test_none_begins_while_another_node_is_down(floor: Ground) -> None:
    floor.kill("overlay", "a--c", "b--c")
    floor.kill("backup", "a--c", "b--c")
    for _ in range(60):
        floor.now += TICK_S
        floor.report("a", "b")
        floor.brain.tick(floor.now)
        floor.answer("a", "b")
    for scope, target in (("pair", "a--b"), ("fleet", "")):
        with pytest.raises(Refused, match=r"c: node down \(.*an incident is no drill; mend that first"):
            floor.drill(scope, target)
    floor.mend()
    floor.run(30)
    assert floor.drill().state == "under way"


@pytest.mark.parametrize("wrong", ["", "every sunday", "61 * * * *", "* * * *", "* * * * * *", "0 4 30 2 *"])
def test_no_cron_expression(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"Bad|5 fields"):
        Schedule(wrong)


def test_a_clock_that_was_never_set_begins_no_drill() -> None:
    schedule = Schedule("* * * * *")
    assert not any(schedule.due(float(second)) for second in range(300))


def test_what_is_due_is_drilled(floor: Ground) -> None:
    floor.commands.scheduled_drill(floor.now)
    assert (floor.newest().who, floor.newest().what) == ("schedule", "fleet")
    assert len(floor.newest().pairs) == len(NODES)
    assert floor.path() == "backup"


def test_what_is_due_and_must_not_be_is_skipped_with_a_line(floor: Ground) -> None:
    floor.commands.pause("fleet", "", floor.now, who="eva", reason="party", for_s=600)
    floor.commands.scheduled_drill(floor.now)
    assert floor.brain.drills.views(floor.now) == ()
    [line] = [entry for entry in floor.outbox.ledger.values() if entry.who == "schedule"]
    assert "the drill that is due is skipped: no drill now: the fleet is paused by eva" in line.reason
