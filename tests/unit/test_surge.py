"""A surge is found soon, bursts are not one, and what is usual is learned."""

from __future__ import annotations

import itertools
import tracemalloc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vagus_controller.config import Load
from vagus_controller.core.detect.surge import Surge

STEP_S = 2.0
DAY_S = 86400.0


class Node:
    """Levels in tasks per core, a sample every 2 s."""

    def __init__(self, usual: float = 0.25) -> None:
        self.settings = Load()
        self.surge = Surge(self.settings, usual)
        self.now = 1000.0

    def run(self, level: float, seconds: float, *, noise: float = 0.0, seed: int = 1) -> float | None:
        """Seconds until there was a surge; None: there was none at the end."""
        rng, found = Random(seed), None
        for second in range(2, round(seconds) + 1, 2):
            self.now += STEP_S
            value = max(0.0, level + rng.uniform(-noise, noise))
            if self.surge.update(self.settings, value, STEP_S, self.now) and found is None:
                found = float(second)
        return found if self.surge.active else None


@pytest.mark.parametrize(("tasks", "within_s"), [(8, 28.0), (12, 14.0), (15, 8.0), (25, 6.0), (60, 6.0)])
def test_a_step_is_found_in_time(tasks: int, within_s: float) -> None:
    node = Node()
    node.run(0.25, 12 * 3600.0)
    found = node.run(0.25 + tasks / 4, 60.0)
    assert found is not None
    assert found <= within_s


def test_two_samples_are_no_surge_however_high() -> None:
    node = Node()
    node.run(0.25, 600.0)
    assert node.run(1000.0, 4.0) is None
    assert node.run(0.25, 60.0) is None


def test_hourly_bursts_are_learned_and_more_is_still_found() -> None:
    node = Node()
    found = []
    for _ in range(24):
        node.run(0.25, 3540.0)
        found.append(node.run(1.5, 60.0, noise=0.5))
    assert set(found[3:]) == {None}
    assert (node.run(0.25, 600.0), node.run(4.0, 20.0)) != (None, None)


def test_a_node_without_bursts_is_more_easily_alarmed() -> None:
    calm, bursty = Node(), Node()
    for _ in range(24):
        calm.run(0.25, 3600.0)
        bursty.run(0.25, 3540.0)
        bursty.run(1.5, 60.0)
    sooner, later = calm.run(2.2, 120.0), bursty.run(2.2, 120.0)
    assert sooner is not None
    assert later is not None
    assert sooner < later


def test_a_calm_day_makes_no_spike_of_the_next_ordinary_job() -> None:
    node = Node()
    node.run(0.25, DAY_S)
    assert node.run(0.25 + 6 / 4, 20.0) is None
    node.run(0.25, 600.0)
    assert node.run(0.25 + 5 / 4, 90.0) is None
    node.run(0.25, 600.0)
    assert node.run(0.25 + 8 / 4, 28.0) is not None


def test_what_comes_every_night_is_usual_after_some_days() -> None:
    """An hour of 8 tasks more, at the same time of each day."""
    node = Node()
    found = []
    for _ in range(6):
        node.run(0.25, 7 * 3600.0)
        found.append(node.run(2.25, 3600.0))
        node.run(0.25, 16 * 3600.0)
    assert node.surge.active is False
    assert found[0] is None or found[0] > 0
    assert set(found[4:]) == {None}
    node.run(0.25, 7 * 3600.0)
    assert node.run(2.25, 1800.0) is None
    assert node.run(2.25 + 4.0, 20.0) is not None


def test_a_single_day_excuses_nothing() -> None:
    node = Node()
    node.run(0.25, 7 * 3600.0)
    assert node.run(6.0, 1800.0) is not None
    node.run(0.25, 23.5 * 3600.0)
    assert node.run(4.0, 30.0) is not None


def test_minutes_of_a_surge_leave_nothing_behind_and_what_stays_becomes_usual() -> None:
    node = Node()
    node.run(0.25, 6 * 3600.0)
    before = node.surge.usual
    assert node.run(4.0, 600.0) is not None
    node.run(0.25, 120.0)
    assert not node.surge.active
    assert node.surge.usual == pytest.approx(before, abs=0.05)
    assert node.run(3.0, 900.0) is not None
    assert node.run(3.0, 8 * 3600.0) is None


def test_what_has_been_so_for_ten_minutes_is_usual() -> None:
    node = Node()
    node.run(0.25, 3600.0)
    assert node.run(1.25, 1800.0) is None
    assert node.surge.usual == pytest.approx(1.25, abs=0.1)


def test_what_only_varies_is_no_job_of_its_minute() -> None:
    noisy, regular = Node(2.0), Node(0.25)
    for hour in range(24):
        noisy.run(2.0, 3600.0, noise=1.5, seed=hour)
        regular.run(0.25, 3540.0)
        regular.run(1.25, 60.0)
    assert noisy.surge.usual == pytest.approx(2.0, abs=0.15)
    assert regular.surge.usual >= 0.8


def test_a_count_that_varies_is_given_more_time() -> None:
    calm, noisy = Node(1.0), Node(1.0)
    for hour in range(6):
        calm.run(1.0, 3600.0)
        noisy.run(1.0, 3600.0, noise=1.0, seed=hour)
    sooner, later = calm.run(3.0, 120.0), noisy.run(3.0, 120.0)
    assert sooner is not None
    assert later is not None
    assert sooner < later


def test_always_busy_is_at_load_above_the_bound_only() -> None:
    below, above = Node(2.5), Node(2.5)
    for hour in range(12):
        below.run(2.5, 3600.0, noise=0.5, seed=hour)
    assert not below.surge.active
    above.run(6.0, 12 * 3600.0)
    assert above.surge.active


# --- a node that was met a moment ago ---------------------------------------------------------------------------------


def tasks(per_core: float, seconds: float, rng: Random, cores: int = 2) -> list[float]:
    """What an agent reports of tasks that come at random and stay for a second or two: the mean of four counts."""
    ends: list[float] = []
    now, counts = -20.0, []
    while now < seconds:
        now += 0.5
        coming = sum(rng.random() < per_core * cores / 150.0 for _ in range(50))
        ends = [end for end in ends if end > now] + [now + rng.expovariate(1 / 1.5) for _ in range(coming)]
        counts.append(len(ends))
    steady = counts[-round(seconds) * 2 :]
    return [sum(steady[at : at + 4]) / 4 / cores for at in range(0, len(steady) - 3, 4)]


@pytest.mark.parametrize("per_core", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_node_that_is_met_at_steady_work_is_no_surge(per_core: float, seed: int) -> None:
    node = Node(0.1)
    found = set()
    for level in tasks(per_core, 1800.0, Random(seed)):
        found.add(node.run(level, STEP_S))
    assert found == {None}


def test_a_node_that_is_met_far_above_what_is_anybodys_usual_work_is_one() -> None:
    assert Node(0.1).run(6.0, 10.0) is not None


def test_a_rise_that_is_seen_soon_after_it_was_met_is_one() -> None:
    for before, within in ((10.0, 10.0), (60.0, 10.0)):
        node = Node(0.1)
        assert node.run(0.5, before) is None
        assert node.run(0.5 + 4.0, within) is not None
        assert node.surge.usual < 1.0


def test_what_was_known_to_be_a_rise_when_it_was_met_is_not_usual() -> None:
    met, rose = Node(0.1), Node(0.1)
    found = []
    for node, before in ((met, 2.5), (rose, 0.3)):
        for _ in range(15):
            node.now += STEP_S
            node.surge.update(node.settings, 2.5, STEP_S, node.now, before=before)
        found.append(node.surge.active)
    assert found == [False, True]


@given(
    st.floats(0.0, 0.5),
    st.floats(0.0, 2.0),
    st.floats(0.0, 900.0),
    st.floats(3.0, 20.0),
    st.floats(4.0, 600.0),
    st.floats(0.0, 0.5),
    st.integers(0, 1000),
)
def test_it_leaves_after_the_condition_does_also_when_it_was_just_met(
    guess: float, before: float, met_s: float, more: float, lasts_s: float, noise: float, seed: int
) -> None:
    """Whatever was there before, seen for long or never, and whatever was guessed of it."""
    node = Node(guess)
    node.run(before, met_s, noise=noise, seed=seed)
    node.run(before + more, lasts_s, noise=noise, seed=seed)
    node.run(before, 60.0, noise=noise, seed=seed)
    assert not node.surge.active
    assert node.run(before, 600.0, noise=noise, seed=seed) is None


@pytest.mark.parametrize("seed", range(6))
def test_it_leaves_soon_among_tasks_that_come_at_random(seed: int) -> None:
    for before, met_s in itertools.product((0.5, 1.5, 2.0), (0.0, 20.0, 300.0)):
        rng, node = Random(seed), Node(0.1)
        for level in (*tasks(before, met_s, rng), *tasks(before + 6.0, 60.0, rng)):
            node.run(level, STEP_S)
        assert node.surge.active
        for level in tasks(before, 120.0, rng):
            node.run(level, STEP_S)
        assert not node.surge.active


def test_what_only_hovers_for_ten_minutes_is_over_and_is_not_told_again() -> None:
    node = Node()
    node.run(0.25, 3600.0)
    assert node.run(4.0, 60.0) is not None
    assert node.run(1.4, 540.0) is not None
    assert node.run(1.4, 120.0) is None
    assert node.run(1.4, 3600.0) is None
    assert node.run(1.4 + 4.0, 20.0) is not None


LEVELS = st.one_of(st.floats(0.0, 20.0), st.floats(0.0, 1e6))


@given(st.lists(st.tuples(LEVELS, st.floats(0.0, 1e5), st.booleans()), max_size=60), st.floats(0.0, 1e6))
def test_it_never_breaks_is_the_same_again_and_comes_to_rest(
    samples: list[tuple[float, float, bool]], usual: float
) -> None:
    nodes = [Node(usual), Node(usual)]
    for level, step, ripe in samples:
        for node in nodes:
            node.now += step
            node.surge.update(node.settings, level, step, node.now, ripe=ripe)
        assert nodes[0].surge.active == nodes[1].surge.active
        assert nodes[0].surge.usual == nodes[1].surge.usual <= 3.0
    nodes[0].run(0.0, 60.0)
    assert not nodes[0].surge.active


def test_it_is_small() -> None:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [Surge(Load(), 0.25) for _ in range(200)]
    for surge in kept:
        for turn in range(60):
            surge.update(Load(), 0.25 + turn % 7, STEP_S, 1000.0 + turn * 60.0)
    used = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    tracemalloc.stop()
    assert used <= 1024
