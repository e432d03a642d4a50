"""Plans, stages and trials in virtual time: whatever the ends say, each trial ends once, in time, in the right way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vagus_controller.core.failover import Decision, Pair
from vagus_controller.core.transaction import (
    LAST_WORD_S,
    PATIENCE_S,
    Action,
    Confirm,
    Executor,
    Finished,
    Plan,
    Refuse,
    RollBack,
    Try,
)
from vagus_protocol.messages import Observed, ObservedState, Verification

AB, AC, BC = ("a", "b"), ("a", "c"), ("b", "c")
State = Literal["pending", "verified", "failed", "reverted"]


def step(pair: Pair = AB, path: str = "backup", was: str = "overlay") -> Decision:
    return Decision(kind="failover", pair=pair, path=path, origin="auto", reason="r", was=was)


@dataclass
class Floor:
    """An executor, the world that it asks about, and what it wants done; each trial is told under a new generation."""

    now: float = 100.0
    dead_paths: set[tuple[Pair, str]] = field(default_factory=set)
    silent_nodes: set[str] = field(default_factory=set)
    unfit: dict[Pair, str] = field(default_factory=dict)
    generation: int = 0
    terms: dict[tuple[Pair, str], int] = field(default_factory=dict)
    paths: dict[Pair, str] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.executor = Executor(self)

    def preflight(self, plan: Plan, step: Decision, now: float) -> str:
        return self.unfit.get(step.pair, "")

    def dead(self, plan: Plan, step: Decision, now: float) -> bool:
        return (step.pair, step.was) in self.dead_paths

    def silent(self, node: str, now: float) -> bool:
        return node in self.silent_nodes

    def start(self, *stages: tuple[Decision, ...], urgent: bool = False, force: bool = False) -> list[Action]:
        plan = Plan(id=self.executor.new_id(), who="t", reason="r", stages=stages, urgent=urgent, force=force)
        return self.take(self.executor.start(plan, self.now))

    def take(self, actions: list[Action]) -> list[Action]:
        self.actions += actions
        for action in actions:
            if isinstance(action, Try):
                for each in action.steps:
                    self.generation += 1
                    self.paths[each.pair] = each.path
                    for node in each.pair:
                        self.terms[each.pair, node] = self.generation
                    self.executor.told(each.pair, dict.fromkeys(each.pair, (1, self.generation)))
        return actions

    def say(
        self, node: str, pair: Pair, state: State, *, reason: str = "", checks: tuple[str, ...] = (), behind: int = 0
    ) -> list[Action]:
        peer = pair[1] if node == pair[0] else pair[0]
        generation = self.terms[pair, node] - behind
        path = self.paths[pair]
        word = Verification(path=path, epoch=1, generation=generation, state=state, reason=reason, failed_checks=checks)
        return self.hear(observed(node, generation, paths={peer: path}, verifications={peer: word}))

    def hear(self, word: Observed) -> list[Action]:
        return self.take(self.executor.observed(word, self.now))

    def wait(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.take(self.executor.tick(self.now))

    def ends(self, pair: Pair) -> list[Action]:
        return [each for each in self.actions if isinstance(each, Confirm | RollBack) and each.step.pair == pair]


def observed(node: str, generation: int, state: ObservedState = ObservedState.APPLIED, **changes: object) -> Observed:
    return Observed(v=1, node=node, session="s", epoch=1, generation=generation, state=state, **changes)  # type: ignore[arg-type]


def test_a_trial_that_both_ends_verify_is_confirmed_at_once() -> None:
    floor = Floor()
    (begun,) = floor.start((step(),), urgent=True)
    assert isinstance(begun, Try)
    floor.now += 0.02
    assert floor.say("a", AB, "pending") == []
    assert floor.say("a", AB, "verified") == []
    floor.now += 0.03
    confirmed, finished = floor.say("b", AB, "verified")
    assert isinstance(confirmed, Confirm)
    assert confirmed.outcome == "done at both ends after 50 ms"
    assert isinstance(finished, Finished)
    assert finished.stopped == ""
    assert floor.executor.on_trial(AB) is None
    assert floor.wait(60) == []


@pytest.mark.parametrize("state", ["failed", "reverted"])
def test_where_the_old_path_lives_the_first_end_that_fails_ends_it(state: State) -> None:
    floor = Floor()
    floor.start((step(),))
    floor.say("b", AB, "verified")
    back, finished = floor.say("a", AB, state, reason="no echo within 1 s")
    assert isinstance(back, RollBack)
    assert back.failed
    assert "a: " in back.reason
    assert "no echo within 1 s" in back.reason
    assert isinstance(finished, Finished)
    assert "no echo" in finished.stopped


def test_a_service_check_that_fails_rolls_back_but_never_onto_a_dead_path() -> None:
    alive = Floor()
    alive.start((step(),))
    back = alive.say("a", AB, "verified", checks=("web",))[0]
    assert isinstance(back, RollBack)
    assert "web" in back.reason
    dead = Floor(dead_paths={(AB, "overlay")})
    dead.start((step(),), urgent=True)
    assert dead.say("a", AB, "verified", checks=("web",)) == []
    confirmed = dead.say("b", AB, "verified")[0]
    assert isinstance(confirmed, Confirm)
    assert "web" in confirmed.outcome
    assert "overlay is dead" in confirmed.outcome


def test_patience_tells_what_is_missing() -> None:
    floor = Floor()
    floor.start((step(),))
    floor.say("a", AB, "verified")
    assert floor.wait(PATIENCE_S - 0.1) == []
    back = floor.wait(0.2)[0]
    assert isinstance(back, RollBack)
    assert "b has not answered for 5 s" in back.reason
    assert "a " not in back.reason


def test_off_a_dead_path_one_end_that_verified_is_enough_and_the_other_is_named() -> None:
    floor = Floor(dead_paths={(AB, "overlay")})
    floor.start((step(),), urgent=True)
    floor.say("b", AB, "verified")
    confirmed = floor.wait(PATIENCE_S)[0]
    assert isinstance(confirmed, Confirm)
    assert "a has not answered" in confirmed.outcome


def test_off_a_dead_path_ends_that_are_late_with_their_first_word_are_given_longer() -> None:
    floor = Floor(dead_paths={(AB, "overlay")})
    floor.start((step(),), urgent=True)
    assert floor.wait(PATIENCE_S + 1) == []
    floor.say("a", AB, "pending")
    assert isinstance(floor.say("a", AB, "verified")[0], Confirm)
    other = Floor(dead_paths={(AB, "overlay")})
    other.start((step(),), urgent=True)
    other.wait(PATIENCE_S)
    assert isinstance(other.wait(LAST_WORD_S - PATIENCE_S)[0], RollBack)


def test_both_ends_failed_goes_back_although_the_old_path_is_dead() -> None:
    """The reason makes the path unfit for a while; either is dead, and the next try may be another path."""
    floor = Floor(dead_paths={(AB, "overlay")})
    floor.start((step(),), urgent=True)
    assert floor.say("a", AB, "failed") == []
    assert isinstance(floor.say("b", AB, "failed")[0], RollBack)


def test_an_old_path_that_lives_again_is_gone_back_to() -> None:
    floor = Floor(dead_paths={(AB, "overlay")})
    floor.start((step(),), urgent=True)
    floor.say("a", AB, "verified")
    floor.dead_paths.clear()
    assert isinstance(floor.wait(PATIENCE_S)[0], RollBack)


@pytest.mark.parametrize("dead", [True, False])
def test_agents_that_know_no_trials(dead: bool) -> None:
    floor = Floor(dead_paths={(AB, "overlay")} if dead else set())
    floor.start((step(),), urgent=dead)
    for node, peer in (AB, AB[::-1]):
        assert floor.hear(observed(node, floor.terms[AB, node], paths={peer: "backup"})) == []
    end = floor.wait(PATIENCE_S)[0]
    assert isinstance(end, Confirm if dead else RollBack)
    words = end.outcome if isinstance(end, Confirm) else end.reason  # type: ignore[union-attr]
    assert "a: it has applied it" in words
    assert "does not verify" in words


def test_an_end_that_refuses_has_failed() -> None:
    floor = Floor()
    floor.start((step(),))
    term = floor.terms[AB, "a"]
    refusal = observed("a", 0, ObservedState.REFUSED, reason="no such path", refused_epoch=1, refused_generation=term)
    back = floor.hear(refusal)[0]
    assert isinstance(back, RollBack)
    assert "no such path" in back.reason


def test_words_of_an_earlier_trial_count_for_nothing() -> None:
    floor = Floor()
    floor.start((step(),))
    floor.say("a", AB, "failed")
    floor.start((step(),))
    assert floor.say("a", AB, "failed", behind=1) == []
    floor.hear(observed("a", floor.terms[AB, "a"] - 1, ObservedState.FAILED, reason="an old word"))
    assert floor.executor.on_trial(AB) is not None


def test_an_end_that_is_silent_at_the_start_is_not_waited_for() -> None:
    floor = Floor(silent_nodes={"b"})
    floor.start((step(),), urgent=True)
    confirmed = floor.say("a", AB, "verified")[0]
    assert isinstance(confirmed, Confirm)
    assert "done at a" in confirmed.outcome
    assert "b is silent" in confirmed.outcome


def test_a_silent_end_that_speaks_after_all_is_heard() -> None:
    floor = Floor(silent_nodes={"b"})
    floor.start((step(),))
    assert isinstance(floor.say("b", AB, "failed")[0], RollBack)


def test_the_canary_goes_first_and_the_rest_after_it() -> None:
    floor = Floor()
    (first,) = floor.start((step(AB),), (step(AC), step(BC)))
    assert isinstance(first, Try)
    assert [each.pair for each in first.steps] == [AB]
    assert floor.executor.planned == {AC, BC}
    assert "3 pairs" in floor.executor.busy
    floor.say("a", AB, "verified")
    confirmed, rest = floor.say("b", AB, "verified")
    assert isinstance(confirmed, Confirm)
    assert isinstance(rest, Try)
    assert [each.pair for each in rest.steps] == [AC, BC]
    assert floor.executor.planned == frozenset()
    for pair in (AC, BC):
        for node in pair:
            floor.say(node, pair, "verified")
    assert len(floor.ends(AC)) == len(floor.ends(BC)) == 1
    assert floor.executor.busy == ""


def test_a_canary_that_fails_stops_the_plan() -> None:
    floor = Floor()
    floor.start((step(AB),), (step(AC), step(BC)))
    back, finished = floor.say("a", AB, "failed", reason="no packet came back")
    assert isinstance(back, RollBack)
    assert isinstance(finished, Finished)
    assert "stage 1" in finished.stopped
    assert "no packet came back" in finished.stopped
    assert floor.wait(60) == []
    assert [each for each in floor.actions if isinstance(each, Try)] == floor.actions[:1]
    assert floor.executor.last[0].states[AC] == ("not begun", "")


def test_a_stage_goes_back_as_a_whole_but_nobody_onto_a_dead_path() -> None:
    floor = Floor()
    floor.start((step(AB), step(AC), step(BC)))
    for pair in (AB, AC):
        for node in pair:
            floor.say(node, pair, "verified")
    floor.dead_paths.add((AC, "overlay"))
    floor.say("b", BC, "failed")
    kinds = {pair: (type(floor.ends(pair)[0]), getattr(floor.ends(pair)[0], "failed", None)) for pair in (AB, AC, BC)}
    assert kinds == {AB: (RollBack, False), AC: (Confirm, None), BC: (RollBack, True)}


def test_what_became_unfit_stops_the_plan_before_its_stage() -> None:
    floor = Floor()
    floor.start((step(AB),), (step(AC),))
    floor.unfit[AC] = "backup is not proven"
    floor.say("a", AB, "verified")
    confirmed, refused, finished = floor.say("b", AB, "verified")
    assert isinstance(confirmed, Confirm)
    assert isinstance(refused, Refuse)
    assert refused.reason == "backup is not proven"
    assert isinstance(finished, Finished)
    assert "before stage 2" in finished.stopped


def test_what_is_urgent_or_forced_is_not_checked_again() -> None:
    for urgent, force in ((True, False), (False, True)):
        floor = Floor(unfit={AB: "whatever"})
        assert isinstance(floor.start((step(),), urgent=urgent, force=force)[0], Try)
    assert isinstance(Floor(unfit={AB: "whatever"}).start((step(),))[0], Refuse)


def test_an_urgent_move_takes_its_pair_out_of_the_plan_and_waits_for_nothing() -> None:
    floor = Floor()
    floor.start((step(AB),), (step(AC),))
    (begun,) = floor.start((step(AC),), urgent=True)
    assert isinstance(begun, Try)
    floor.say("a", AB, "verified")
    _, finished = floor.say("b", AB, "verified")
    assert isinstance(finished, Finished)
    assert floor.executor.on_trial(AC) is not None


def test_a_pair_is_in_one_trial_at_most() -> None:
    floor = Floor()
    floor.start((step(AB),))
    with pytest.raises(ValueError, match="on trial already"):
        floor.start((step(AB),), urgent=True)


def test_after_a_lost_session_what_is_on_trial_has_its_whole_time_again() -> None:
    floor = Floor()
    floor.start((step(AB),))
    floor.now += PATIENCE_S * 3
    floor.executor.be_patient(floor.now)
    assert floor.wait(PATIENCE_S - 0.1) == []
    assert isinstance(floor.wait(0.2)[0], RollBack)


def test_who_does_not_lead_any_more_ends_nothing() -> None:
    floor = Floor()
    floor.start((step(AB),), (step(AC),))
    (finished,) = floor.executor.abandon("another one leads")
    assert isinstance(finished, Finished)
    assert floor.say("a", AB, "verified") == []
    assert floor.wait(60) == []
    assert isinstance(floor.start((step(AB),))[0], Try)


def test_a_blackout_does_not_wash_away_what_a_person_planned() -> None:
    floor = Floor()
    floor.start((step(AB),))
    floor.say("a", AB, "failed")
    for _ in range(100):
        floor.start((step(AC),), urgent=True)
        floor.say("a", AC, "verified")
        floor.say("c", AC, "verified")
    assert floor.executor.last[-1].plan.steps[0].pair == AB
    assert len(floor.executor.last) < 50


WORDS = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from([AB, AC, BC]),
    st.sampled_from(["pending", "verified", "failed", "reverted", "checks", "old", "late", "applied", "refused"]),
)
EVENTS = st.lists(
    st.one_of(
        WORDS,
        st.tuples(st.just("wait"), st.floats(0.01, 4.0)),
        st.tuples(st.sampled_from(["die", "live"]), st.sampled_from([AB, AC, BC])),
    ),
    max_size=40,
)


@given(EVENTS, st.booleans(), st.sets(st.sampled_from("abc"), max_size=2))
@settings(max_examples=400, deadline=None)
def test_whatever_the_ends_say_each_trial_ends_once_in_time_and_in_the_right_way(
    events: list[tuple[object, ...]], urgent: bool, silent: set[str]
) -> None:
    pairs = (AB, AC, BC)
    floor = Floor(silent_nodes=silent, dead_paths={(pair, "overlay") for pair in pairs} if urgent else set())
    began: dict[Pair, float] = {}
    # what each end said last of its trial
    words: dict[tuple[Pair, str], str] = {}

    def note() -> None:
        """What was asked for is checked as it is asked for."""
        fresh, note.seen = floor.actions[note.seen :], len(floor.actions)  # type: ignore[attr-defined]
        for action in fresh:
            if isinstance(action, Try):
                for each in action.steps:
                    assert each.pair not in began, "one trial a pair"
                    began[each.pair] = floor.now
                    if each.pair != AB and not urgent:
                        assert isinstance(floor.ends(AB)[0], Confirm), "the canary goes first"
            elif isinstance(action, Confirm | RollBack):
                assert len(floor.ends(action.step.pair)) == 1, "never both, never twice"
                if isinstance(action, Confirm):
                    pair = action.step.pair
                    said = {node: word for (each, node), word in words.items() if each == pair}
                    if (pair, "overlay") in floor.dead_paths:
                        assert {"verified", "checks", "applied"} & set(said.values()), "on nobody's word"
                    else:
                        waited = set(pair) - silent or set(pair)
                        assert all(said.get(node) == "verified" for node in waited), said
                        assert "failed" not in said.values()

    note.seen = 0  # type: ignore[attr-defined]
    if urgent:
        for pair in pairs:
            assert isinstance(floor.start((step(pair),), urgent=True)[0], Try), "urgent never waits"
    else:
        floor.start((step(AB),), (step(AC), step(BC)))
    note()
    for event in events:
        if event[0] == "wait":
            floor.wait(float(event[1]))  # type: ignore[arg-type]
        elif event[0] in ("die", "live"):
            change = floor.dead_paths.add if event[0] == "die" else floor.dead_paths.discard
            change((event[1], "overlay"))  # type: ignore[arg-type]
        else:
            node, pair, what = event
            if node not in pair or pair not in began:  # type: ignore[operator]
                continue
            _speak(floor, str(node), pair, str(what), words)  # type: ignore[arg-type]
        note()
        for pair, at in began.items():
            if floor.executor.on_trial(pair) is not None:
                assert floor.now - at < LAST_WORD_S + 4.0, "in bounded time, counted in ticks"
    for _ in range(60):
        floor.wait(0.5)
        note()
    assert all(floor.ends(pair) for pair in began)
    assert not floor.executor.running


def _speak(floor: Floor, node: str, pair: Pair, what: str, words: dict[tuple[Pair, str], str]) -> None:
    peer = pair[1] if node == pair[0] else pair[0]
    term = floor.terms[pair, node]
    if what == "old":
        floor.say(node, pair, "verified", behind=term)
        return
    if what == "late":
        floor.hear(observed(node, term))
        return
    words[pair, node] = "failed" if what in ("reverted", "refused") else what
    if what == "applied":
        floor.hear(observed(node, term, paths={peer: "backup"}))
    elif what == "refused":
        floor.hear(observed(node, 0, ObservedState.REFUSED, reason="no", refused_epoch=1, refused_generation=term))
    elif what == "checks":
        floor.say(node, pair, "verified", checks=("web",))
    else:
        floor.say(node, pair, what)  # type: ignore[arg-type]
