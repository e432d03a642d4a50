"""The simulation finds what it is there to find: the code behind each invariant broken, and the schedules that tell.

A mutant is the product with one function replaced, as a careless change might leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from msgspec import structs

from sim import chief, member, run, schedule, settings
from sim.invariants import SENTENCES
from vagus_agent.core import conduct, desired, ladder, reflex
from vagus_agent.net import steering
from vagus_controller.core import (
    causes,
    damping,
    drills,
    evidence,
    failover,
    fleet,
    guards,
    heritage,
    homes,
    incident,
    incidents,
    leadership,
    notices,
    pauses,
    transaction,
    windows,
)
from vagus_protocol import signing
from vagus_protocol.codec import decode
from vagus_protocol.messages import Desired

Patch = Callable[[pytest.MonkeyPatch], None]

# A mutant must be found among so many seeds; where drills are concerned, among those of more that have one, and others
# beside the pair that is drilled.
_SEEDS = 1500


def _takes_any_word(patch: pytest.MonkeyPatch) -> None:
    """Fencing that only looks at what is offered."""
    judge = desired.judge

    def mutant(message: Desired, last: desired.Accepted, config: Any) -> Any:
        return judge(message, desired.Accepted(-1, -1, last.assignments, last.trials), config)

    patch.setattr(desired, "judge", mutant)


def _follows_what_it_refuses(patch: pytest.MonkeyPatch) -> None:
    """An older word is no new term, and its paths are taken all the same."""
    judge = desired.judge

    def mutant(message: Desired, last: desired.Accepted, config: Any) -> Any:
        verdict = judge(message, last, config)
        if isinstance(verdict, desired.Refusal) and (message.epoch, message.generation) < last.term:
            paths = {peer: word.path for peer, word in message.assignments.items()}
            return desired.Accepted(last.epoch, last.generation, paths, {}, last.author)
        return verdict

    patch.setattr(desired, "judge", mutant)


def _reads_no_address(patch: pytest.MonkeyPatch) -> None:
    """A desired for somebody else, or by nobody, is as good as ours."""

    def mutant(payload: bytes, key: bytes, fleet_name: str, node: str) -> Any:
        return decode(bytes(signing._envelope.decode(payload).body), Desired)

    patch.setattr(member, "open_sealed", mutant)


def _never_counts_epochs_up(patch: pytest.MonkeyPatch) -> None:
    """And an agent that does not ask who speaks."""
    judge = desired.judge

    def trusting(message: Desired, last: desired.Accepted, config: Any) -> Any:
        known = replace(last, author="")
        verdict = judge(message, known, config)
        return last if verdict is known else verdict

    patch.setattr(desired, "judge", trusting)
    lead = leadership.Leadership._lead

    def mutant(self: leadership.Leadership, reason: str) -> Any:
        self._seen = max(self._seen - 1, 0)
        return lead(self, reason)

    patch.setattr(leadership.Leadership, "_lead", mutant)


def _tells_one_end(patch: pytest.MonkeyPatch) -> None:
    publish = chief._Outbox.publish

    def mutant(self: Any, topic: str, payload: bytes) -> None:
        if not topic.endswith("/b/desired"):
            publish(self, topic, payload)

    patch.setattr(chief._Outbox, "publish", mutant)


def _sees_no_death(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(evidence, "down", lambda *_: ())


def _knows_no_pause(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pauses.Pauses, "on", lambda *_: "")


def _knows_no_maintenance(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(windows.Windows, "over", lambda *_: "")


def _overrules_a_node(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(guards, "_opt_out", lambda *_: guards.Guard("opt-out"))


def _asks_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(failover, "recommended", lambda *_: "")


def _drills_in_maintenance(patch: pytest.MonkeyPatch) -> None:
    """A drill that is due is begun as if a person asked for it."""
    unfit = drills.Drills._unfit
    patch.setattr(drills.Drills, "_unfit", lambda self, pair, _automatic, now: unfit(self, pair, False, now))


def _blames_the_path_for_quorum(patch: pytest.MonkeyPatch) -> None:
    """Without quorum members are sent off their path, well as it is."""
    patch.setattr(failover, "_rank", lambda _situation, _pair, path: int(path == settings.PATHS[0]))


def _waits_for_death(patch: pytest.MonkeyPatch) -> None:
    """Members whose path is only impaired stay on it, with quorum or without."""
    patch.setattr(failover.Failover, "_impaired", lambda *_: ())
    patch.setattr(failover.Failover, "_relief", lambda *_: None)


def _goes_home_to_trouble(patch: pytest.MonkeyPatch) -> None:
    """As soon as the first path answers, and whatever came of it before: with a quorum that comes and goes."""
    patch.setattr(
        failover.Failover, "_homesick", lambda self, fleet_, pair, home, _, now: self.unfit(fleet_, pair, home, now)
    )
    patch.setattr(damping.Damping, "hold_s", lambda self, _: 0.0)
    patch.setattr(damping.Damping, "reusable_in", lambda *_: 0.0)


def _drills_whatever_happens(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(drills.Drills, "_incident", lambda *_: "")


def _looks_up_only_before(patch: pytest.MonkeyPatch) -> None:
    """What happens to others while a pair is drilled is none of its business."""
    incident = drills.Drills._incident
    patch.setattr(
        drills.Drills, "_incident", lambda self, now, drilled=None: "" if drilled is not None else incident(self, now)
    )


def _is_not_interrupted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(drills.Drills, "interrupt", lambda *_: None)
    patch.setattr(drills.Drills, "watch", lambda *_: None)


def _confirms_a_drill(patch: pytest.MonkeyPatch) -> None:
    """The way out went well, as any move does."""
    patch.setattr(transaction.Executor, "_succeed", lambda self, run, trial, words, _: self._confirm(run, trial, words))


def _inherits_a_drill_as_a_move(patch: pytest.MonkeyPatch) -> None:
    heard = heritage.Heritage.heard

    def mutant(self: Any, message: Desired) -> None:
        words = message.assignments.items()
        moves = {peer: structs.replace(word, trial=False) if word.drill else word for peer, word in words}
        heard(self, structs.replace(message, assignments=moves))

    patch.setattr(heritage.Heritage, "heard", mutant)


def _lets_go_without_looking(patch: pytest.MonkeyPatch) -> None:
    """A reflex that ends whether or not the path that it goes back to answers."""
    decide = reflex.decide

    def mutant(mode: Any, orphaned: bool, peer: str, links: Any, assigned: str, held: str | None) -> Any:
        if held is not None:
            return reflex.Step(peer, None, "back to what was assigned")
        return decide(mode, orphaned, peer, links, assigned, held)

    patch.setattr(reflex, "decide", mutant)


def _takes_the_default_route(patch: pytest.MonkeyPatch) -> None:
    real = ladder.destinations
    patch.setattr(ladder, "destinations", lambda peer: (*real(peer), ip_network("0.0.0.0/0")))


def _forgets_the_deadline(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Any, peer: str, trial: Any) -> None:
        trial.deadline += 3600.0

    patch.setattr(conduct.Conduct, "_time_is_over", mutant)


def _leaves_what_is_not_an_override(patch: pytest.MonkeyPatch) -> None:
    clear = steering.clear

    async def mutant(kernel: Any, config: Any, overrides_only: bool) -> list[str]:
        return await clear(kernel, config, True)

    patch.setattr(steering, "clear", mutant)


def _cannot_bear_a_repetition(patch: pytest.MonkeyPatch) -> None:
    on_observed = fleet.Fleet.on_observed

    def mutant(self: Any, observed: Any, now: float) -> Any:
        state = self.nodes.get(observed.node)
        if state is not None and state.observed == observed:
            raise ValueError("the same again")
        return on_observed(self, observed, now)

    patch.setattr(fleet.Fleet, "on_observed", mutant)


def _believes_what_the_broker_remembers(patch: pytest.MonkeyPatch) -> None:
    on_controller = conduct.Conduct.on_controller

    def mutant(self: Any, controller: str, presence: Any, now: float, *, retained: bool = False) -> None:
        on_controller(self, controller, presence, now)

    patch.setattr(conduct.Conduct, "on_controller", mutant)


def _never_sees_that_all_is_well(patch: pytest.MonkeyPatch) -> None:
    judge = causes.judge
    patch.setattr(incidents, "judge", lambda verdict: {"good": "unsure"}.get(found := judge(verdict), found))


def _leaves_a_consequence_where_it_was(patch: pytest.MonkeyPatch) -> None:
    """What a wider cause takes in is in its old incident too."""
    move = homes.Homes._move

    def mutant(self: homes.Homes, trouble: causes.Trouble, home: incident.Incident, at: float) -> None:
        source = self.of(trouble.key)
        move(self, trouble, home, at)
        if source is not None:
            source.troubles[trouble.key] = trouble

    patch.setattr(homes.Homes, "_move", mutant)


def _forgets_what_it_told(patch: pytest.MonkeyPatch) -> None:
    """In its next life."""
    restore = notices.Notices.restore
    patch.setattr(notices.Notices, "restore", lambda self, _, known, now: restore(self, notices.Saved(), known, now))


def _blames_the_other_path(patch: pytest.MonkeyPatch) -> None:
    own_cause = causes.own_cause

    def mutant(key: causes.Key) -> causes.Cause:
        cause = own_cause(key)
        other = {settings.PATHS[0]: settings.PATHS[1], settings.PATHS[1]: settings.PATHS[0]}
        return cause._replace(path=other.get(cause.path, ""))

    patch.setattr(homes, "own_cause", mutant)


MUTANTS: tuple[tuple[str, Patch], ...] = (
    ("no-older-word", _takes_any_word),
    ("known-author", _reads_no_address),
    ("one-voice", _never_counts_epochs_up),
    ("ends-agree", _follows_what_it_refuses),
    ("converges", _tells_one_end),
    ("company-known", _believes_what_the_broker_remembers),
    ("no-dead-path", _sees_no_death),
    ("held-is-still", _knows_no_pause),
    ("held-is-still", _knows_no_maintenance),
    ("held-is-still", _drills_in_maintenance),
    ("held-is-still", _overrules_a_node),
    ("held-is-still", _asks_nobody),
    ("only-with-cause", _blames_the_path_for_quorum),
    ("quorum-regained", _waits_for_death),
    ("moves-bounded", _lets_go_without_looking),
    ("moves-bounded", _goes_home_to_trouble),
    ("drill-in-peace", _drills_whatever_happens),
    ("drill-in-peace", _looks_up_only_before),
    ("drill-in-peace", _is_not_interrupted),
    ("drill-leaves-nothing", _confirms_a_drill),
    ("drill-leaves-nothing", _inherits_a_drill_as_a_move),
    ("own-prefixes-only", _takes_the_default_route),
    ("trial-ends", _forgets_the_deadline),
    ("clear-leaves-nothing", _leaves_what_is_not_an_override),
    ("incident-ends", _never_sees_that_all_is_well),
    ("one-incident", _leaves_a_consequence_where_it_was),
    ("told-once", _forgets_what_it_told),
    ("alarm-with-cause", _blames_the_other_path),
    ("no-exception", _cannot_bear_a_repetition),
)


def test_every_invariant_has_its_mutant() -> None:
    assert {invariant for invariant, _ in MUTANTS} == SENTENCES.keys()


@pytest.mark.parametrize(("invariant", "mutant"), MUTANTS, ids=lambda each: getattr(each, "__name__", each))
def test_the_mutant_is_found(
    invariant: str, mutant: Patch, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    mutant(monkeypatch)
    seeds: Sequence[int] = range(_SEEDS)
    if invariant.startswith("drill"):
        drawn = [schedule.draw(seed) for seed in range(4 * _SEEDS)]
        seeds = [
            plan.seed for plan in drawn if len(plan.nodes) > 2 and any("drill" in str(fault) for fault in plan.faults)
        ]
    # The processes are forked from here, mutant and all.
    for tally in run.many(seeds, request.config.getoption("--jobs", 2), chunk=5):
        if any(failure.invariant == invariant for failure in tally.failures):
            return
    pytest.fail(f"{len(seeds)} schedules, and none of them broke {invariant}")
