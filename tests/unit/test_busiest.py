"""Who takes the CPU is found in rounds, a few processes at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from vagus_agent.probes.busiest import AT_ONCE, Busiest, Look


class Machine:
    """`cores`: of each pid. `looked`: how often one was looked at."""

    def __init__(self, proc: Path, cores: dict[int, float]) -> None:
        self.proc = proc
        self.cores = cores
        self.now = 50.0
        self.looked = 0
        self.names: dict[int, str] = {}
        self.started = dict.fromkeys(cores, 5)
        for pid in cores:
            (proc / str(pid)).mkdir()
        (proc / "self").mkdir()
        self.busiest = Busiest(str(proc), self.look)

    def look(self, pid: str) -> Look | None:
        self.looked += 1
        number = int(pid)
        if number not in self.cores:
            return None
        name = self.names.get(number, f"p{number}")
        return Look(name, self.started[number], self.cores[number] * self.now, 1 << 20)

    def run(self, steps: int, busy: bool = True) -> list[tuple[str, float]]:
        for _ in range(steps):
            self.now += 0.5
            self.busiest.step(self.now, busy)
        return [(each.name, round(each.cpu, 2)) for each in self.busiest.found]


def test_the_busiest_are_known_after_two_rounds(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {1: 0.01, 2: 1.5, 3: 0.9, 4: 0.4, 5: 0.35, 6: 0.0})
    assert machine.run(1) == []
    assert machine.run(2) == [("p2", 1.5), ("p3", 0.9), ("p4", 0.4)]


def test_one_call_looks_at_a_few_only(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {pid: 1.0 if pid == 7 else 0.0 for pid in range(1, 3 * AT_ONCE)})
    before = 0
    for _ in range(8):
        machine.run(1)
        assert machine.looked - before <= AT_ONCE
        before = machine.looked
    assert machine.run(1) == [("p7", 1.0)]


def test_a_name_is_one_however_many_processes_have_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, dict.fromkeys(range(1, 20), 0.1))
    machine.names = dict.fromkeys(range(1, 20), "worker")
    assert machine.run(4) == [("worker", 1.9)]
    assert machine.busiest.found[0].count == 19


def test_a_reused_pid_is_another_process(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {1: 2.0, 2: 0.0})
    machine.run(2)
    machine.started[1] = 99
    machine.cores[1] = 0.0
    assert machine.run(2) == []


def test_it_forgets_when_the_load_is_over(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {1: 2.0})
    assert machine.run(3) == [("p1", 2.0)]
    looked = machine.looked
    assert machine.run(5, busy=False) == []
    assert machine.looked == looked
    assert machine.run(1) == []


@pytest.mark.parametrize("gone", [True, False])
def test_processes_and_proc_itself_may_vanish(tmp_path: Path, gone: bool) -> None:
    machine = Machine(tmp_path, {1: 2.0, 2: 2.0})
    machine.run(1)
    del machine.cores[2]
    assert machine.run(3) == [("p1", 2.0)]
    if gone:
        machine.busiest = Busiest(str(tmp_path / "nowhere"), machine.look)
        assert machine.run(3) == []
