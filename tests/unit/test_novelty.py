"""What a series has not shown for long is found, whatever its unit; what it shows all the time is not."""

from __future__ import annotations

import math
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.fleet_builders import report, system
from vagus_controller.core.detect.familiar import Familiar
from vagus_controller.core.detect.novelty import Novelty
from vagus_protocol.messages import DiskIo, Process

EVERY_S = 300.0


def finds(values: list[float], every_s: float = EVERY_S) -> list[int]:
    novelty = Novelty()
    return [row for row, value in enumerate(values) if novelty.take(value, row * every_s)]


def noise(rows: int, scale: float = 1.0, offset: float = 0.0, seed: int = 1) -> list[float]:
    rng = Random(seed)
    return [offset + scale * rng.gauss(0.0, 1.0) for _ in range(rows)]


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-6, 0.0), (1e6, -1e8), (3.0, 20.0)])
def test_a_step_is_found_once_in_any_unit(scale: float, offset: float) -> None:
    values = noise(2000, scale, offset)
    values[1500:] = [value + 12 * scale for value in values[1500:]]
    found = [row for row in finds(values) if row >= 1500]
    assert found[0] == 1500
    assert len(found) == 1


def test_downwards_too() -> None:
    values = noise(2000, offset=50.0)
    values[1700] -= 30.0
    assert 1700 in finds(values)


def test_what_misses_at_its_time_of_day_is_found() -> None:
    """Every day alike, within what was always seen, but one noon stays as the night is."""
    day = [10.0 + 8.0 * (100 <= row < 200) for row in range(288)]
    values = [value + other for value, other in zip(day * 8, noise(8 * 288, 0.3), strict=True)]
    start = 7 * 288 + 100
    values[start : start + 100] = noise(100, 0.3, 10.0)
    assert any(start <= row < start + 100 for row in finds(values))


def test_noise_is_rarely_news() -> None:
    """Fifty weeks of it, a value in five minutes."""
    found = sum(len(finds(noise(2016, seed=seed))) for seed in range(50))
    assert found <= 100


def test_a_constant_is_none_and_a_first_change_is() -> None:
    assert finds([7.0] * 3000) == []
    assert finds([7.0] * 1000 + [7.1] * 100)[0] == 1000


VALUES = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(-1e3, 1e3), st.just(0.0))


@given(st.lists(st.tuples(VALUES, st.floats(-1e6, 1e9)), max_size=80))
def test_nothing_breaks_it_and_the_same_gives_the_same(samples: list[tuple[float, float]]) -> None:
    novelties = [Novelty(), Novelty()]
    for value, now in [(1.0, 0.0)] * 260 + samples:
        first, second = (each.take(value, now) for each in novelties)
        assert first == second
        assert first >= 0.0
        assert math.isfinite(novelties[0].usual)
        assert novelties[0].score(value) == novelties[1].score(value) >= 0.0


def test_a_series_takes_less_than_a_kilobyte() -> None:
    novelty = Novelty()
    for row, value in enumerate(noise(1000)):
        novelty.take(value, row * EVERY_S)
    parts = [getattr(novelty, name) for name in Novelty.__slots__]
    assert sys.getsizeof(novelty) + sum(map(sys.getsizeof, parts)) <= 1024


class Machine:
    def __init__(self) -> None:
        self.familiar, self.now = Familiar(), 1000.0

    def run(self, reports: int, learn: bool = True, **figures: object) -> list[str]:
        for _ in range(reports):
            self.now += 2.0
            told = system(**figures)
            self.familiar.take(report("pi", system=told), told, 0.1, self.now, learn=learn)
        return self.familiar.unusual()


def slow(seconds: float) -> tuple[DiskIo, ...]:
    return (DiskIo(device="sda", await_s=0.001), DiskIo(device="mmcblk0", busy=0.1, await_s=seconds))


def test_what_is_unusual_is_said_with_what_is_usual() -> None:
    machine = Machine()
    for turn in range(400):
        assert machine.run(5, disk_io=slow(0.004 + 0.0001 * (turn % 7)), temperature_c=55.0 + turn % 3) == []
    said = machine.run(1, learn=False, disk_io=slow(1.4), temperature_c=56.0)
    assert said == ["disk latency 1400.0 ms, usually 4.3 ms"]


def test_a_short_life_says_nothing_and_absence_is_no_zero() -> None:
    machine = Machine()
    machine.run(100, temperature_c=50.0)
    assert machine.run(1, learn=False, temperature_c=90.0) == []
    machine.run(2000, temperature_c=50.0)
    assert machine.run(1, learn=False, temperature_c=None) == []


def test_what_a_process_usually_takes() -> None:
    machine = Machine()
    watched = tuple(Process(name=name, count=1, cpu=cpu, rss_bytes=1) for name, cpu in (("k3s", 0.6), ("etcd", 0.1)))
    machine.run(500, processes=watched)
    assert machine.familiar.processes == {"k3s": pytest.approx(0.6), "etcd": pytest.approx(0.1)}


def test_a_report_of_many_processes_costs_no_more_memory() -> None:
    machine = Machine()
    for turn in range(50):
        many = tuple(Process(name=f"p{turn}-{number}", count=1, cpu=1.0, rss_bytes=1) for number in range(50))
        machine.run(6, processes=many)
    assert len(machine.familiar.processes) <= 4


def test_a_storm_in_spiky_counts_is_found() -> None:
    """As in the series of the benchmark: counts with a day in them, and one storm."""
    rng = Random(5)
    values = [rng.expovariate(1 / (20 + 15 * (row % 288 > 144))) for row in range(4032)]
    values[3000:3040] = [value + 900 for value in values[3000:3040]]
    found = finds(values)
    assert 3000 in found
    assert len(found) <= 12
