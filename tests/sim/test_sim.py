"""The simulation: no schedule breaks an invariant."""

from __future__ import annotations

import random
import secrets
import time

import pytest

from sim import conftest, run, schedule
from sim.faults import Faults
from sim.regressions import REGRESSIONS
from sim.world import World


def test_no_schedule_breaks_an_invariant(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    # With defaults: a run over all of tests/ does not read this directory's options.
    ask = request.config.getoption
    seed, count, jobs = ask("--seed", 1), ask("--schedules", conftest.SCHEDULES), ask("--jobs", 2)
    probed, only = ask("--probed", None), ask("--only", "")
    if only or ask("--tell", False):
        text, violation = run.trace(seed, run.faults_named(only), probed)
        with capsys.disabled():
            print(f"\n{text}")
        assert violation is None, violation
        return
    failures: list[run.Failure] = []
    done = 0
    for tally in run.many(range(seed, seed + count), jobs, probed):
        done += tally.schedules
        failures += tally.failures
    assert done == count
    told = "\n".join(run.explain(failure, probed) for failure in failures[:5])
    assert not failures, f"{len(failures)} of {done} schedules broke an invariant:\n{told}"


@pytest.mark.parametrize("name", REGRESSIONS)
def test_what_once_failed(name: str) -> None:
    violation = World(REGRESSIONS[name]).run()
    assert violation is None, violation


@pytest.mark.parametrize("probed", [False, True])
def test_a_seed_says_all(probed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock of the machine and no randomness but the seed's has a say: the same seed, the same trace."""
    first = [run.trace(seed, None, probed) for seed in range(20)]
    jump = iter(range(10**9))

    def forbidden(*_: object) -> float:
        raise AssertionError("this is asked of the machine, and a replay would not have it")

    monkeypatch.setattr(time, "time", lambda: next(jump) * 1e5)
    monkeypatch.setattr(time, "monotonic", forbidden)
    for name in ("random", "uniform", "choice", "getrandbits"):
        monkeypatch.setattr(random, name, forbidden)
    monkeypatch.setattr(secrets, "token_hex", forbidden)
    again = [run.trace(seed, None, probed) for seed in range(20)]
    assert [text for text, _ in again] == [text for text, _ in first]


def test_schedules_hold_every_kind_of_fault() -> None:
    drawn = [schedule.draw(seed) for seed in range(2000)]
    kinds = {fault.kind for plan in drawn for fault in plan.faults}
    offered = {name for name, value in vars(Faults).items() if callable(value) and not name.startswith("_")}
    assert offered == kinds
    assert {plan.rest for plan in drawn} == set(schedule.RESTS)
    assert {plan.probed for plan in drawn} == {False, True}


def test_a_failing_schedule_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the one fault that matters."""
    monkeypatch.setattr(World, "forge", lambda self, node: 1 / 0)
    failure = next(
        failure
        for tally in run.many(range(1, 501), 1)
        for failure in tally.failures
        if len(schedule.draw(failure.seed).faults) > 3
    )
    assert failure.invariant == "no-exception"
    kept = run.shorten(failure.seed, failure.invariant)
    assert [fault.kind for fault in schedule.draw(failure.seed, only=kept).faults] == ["forge"]
    assert f"--seed {failure.seed} --only {kept[0]} --tell" in run.explain(failure)
