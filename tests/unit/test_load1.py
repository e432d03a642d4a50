"""The tasks behind load1, against the kernel's own arithmetic."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vagus_controller.core.detect.load1 import UPDATE_S, Load1


class Kernel:
    """calc_load() and loadavg_proc_show() of kernel/sched/loadavg.c and fs/proc/loadavg.c."""

    def __init__(self, tasks: int) -> None:
        self.load = tasks * 2048
        self.updates = 0

    def at(self, now: float, tasks: list[int]) -> float:
        """load1 as it is shown; `tasks`: at each update."""
        while (self.updates + 1) * UPDATE_S <= now:
            active = tasks[self.updates] * 2048
            grown = self.load * 1884 + active * (2048 - 1884)
            self.load = (grown + 2047) // 2048 if active >= self.load else grown // 2048
            self.updates += 1
        shown = self.load + 2048 // 200
        return (shown >> 11) + ((shown & 2047) * 100 >> 11) / 100


@given(st.lists(st.integers(0, 60), min_size=20, max_size=60), st.floats(1.0, 2.4), st.floats(0.0, 2.0))
def test_every_update_gives_its_count_back(tasks: list[int], every_s: float, first: float) -> None:
    """Reports more often than updates: each is told once, within 0.13, or as load1 itself while that stands still."""
    kernel, load1 = Kernel(tasks[0]), Load1()
    now, told, before = first, 0.0, -1
    while now < len(tasks) * UPDATE_S:
        shown = kernel.at(now, tasks)
        stands = load1.take(shown, now)
        if stands and kernel.updates > before >= 0:
            count = tasks[kernel.updates - 1]
            assert abs(load1.tasks - count) <= 0.13 or abs(load1.tasks - shown) <= 0.13
        told += stands
        before = kernel.updates if before >= 0 or stands else 0
        now += every_s
    assert told == pytest.approx(now - first, abs=3 * UPDATE_S)


def test_a_step_is_seen_at_the_next_update() -> None:
    tasks = [1] * 10 + [25] * 10
    kernel, load1 = Kernel(1), Load1()
    seen = []
    for second in range(0, 90, 2):
        if load1.take(kernel.at(second, tasks), float(second)):
            seen.append((second, round(load1.tasks)))
    assert next(second for second, count in seen if count == 25) <= 11 * UPDATE_S + 2
    assert {count for _, count in seen} == {1, 25}


def test_what_lasts_is_known_by_three_updates() -> None:
    kernel, load1 = Kernel(1), Load1()
    tasks = [1] * 3 + [9] * 2 + [1] * 5
    least = []
    for second in range(0, 45, 2):
        load1.take(kernel.at(second, tasks), float(second))
        least.append(round(min(load1.least)))
    assert max(least) == 1


@given(st.lists(st.tuples(st.one_of(st.floats(0, 100), st.floats(0, 1e12)), st.floats(-100.0, 100.0)), max_size=40))
def test_nothing_breaks_it(samples: list[tuple[float, float]]) -> None:
    load1, now = Load1(), 0.0
    for value, step in samples:
        now += step
        assert load1.take(value, now) >= 0.0
        assert 0.0 <= load1.tasks < math.inf
