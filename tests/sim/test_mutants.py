"""The simulation finds what it is there to find: each invariant's code broken once, and the schedules that tell.

A mutant is the product with one function replaced, as a careless change might leave it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from sim import chief, member, run
from sim.invariants import SENTENCES
from vagus_agent.core import conduct, desired, ladder, reflex
from vagus_agent.net import steering
from vagus_controller.core import evidence, fleet, leadership, pauses
from vagus_protocol import signing
from vagus_protocol.codec import decode
from vagus_protocol.messages import Desired

Patch = Callable[[pytest.MonkeyPatch], None]

# A mutant must be found among so many seeds.
_SEEDS = 400


def _takes_any_word(patch: pytest.MonkeyPatch) -> None:
    """Fencing that only looks at what is offered."""
    judge = desired.judge

    def mutant(message: Desired, last: desired.Accepted, config: Any) -> Any:
        return judge(message, desired.Accepted(-1, -1, last.assignments, last.trials), config)

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


MUTANTS: dict[str, Patch] = {
    "no-older-word": _takes_any_word,
    "known-author": _reads_no_address,
    "one-voice": _never_counts_epochs_up,
    "converges": _tells_one_end,
    "company-known": _believes_what_the_broker_remembers,
    "no-dead-path": _sees_no_death,
    "paused-is-still": _knows_no_pause,
    "moves-bounded": _lets_go_without_looking,
    "own-prefixes-only": _takes_the_default_route,
    "trial-ends": _forgets_the_deadline,
    "clear-leaves-nothing": _leaves_what_is_not_an_override,
    "no-exception": _cannot_bear_a_repetition,
}


def test_every_invariant_has_its_mutant() -> None:
    assert MUTANTS.keys() == SENTENCES.keys()


@pytest.mark.parametrize("invariant", MUTANTS)
def test_the_mutant_is_found(invariant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[invariant](monkeypatch)
    for seed in range(_SEEDS):
        violation, _ = run.one(seed)
        if violation is not None and violation.name == invariant:
            return
    pytest.fail(f"{_SEEDS} schedules, and none of them broke {invariant}")
