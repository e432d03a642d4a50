"""Spikes are found in seconds with their cause, and nothing else is."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.fleet_builders import config, link, report, system
from vagus_controller.core.detect.load import LoadDetector
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import Severity
from vagus_protocol.messages import DiskIo, Pressure, Process, Relay, Throttling


class Machine:
    """A node that reports its load every 2 s."""

    def __init__(self) -> None:
        self.detector = LoadDetector(config())
        self.now = 1000.0
        self.seq = 0
        self.verdict: Verdict | None = None

    def sample(self, step: float = 2.0, **figures: Any) -> Verdict:
        self.now += step
        self.seq += 1
        links = figures.pop("links", ())
        self.verdict = self.detector.on_report(
            "pi", report("pi", self.seq, system=system(**figures), links=links), self.now
        )
        return self.verdict

    def run(self, seconds: float, **figures: Any) -> list[str]:
        """The states while it reports for so long."""
        return [self.sample(**figures).state for _ in range(int(seconds / 2))]


def test_a_pi_at_load_25_is_found_in_seconds() -> None:
    machine = Machine()
    assert set(machine.run(60.0, runnable=1)) == {"normal"}
    started = machine.now
    while machine.sample(runnable=25, processes=(Process(name="tailscaled", count=1, cpu=1.8, rss_bytes=1),)).state == (
        "normal"
    ):
        assert machine.now - started <= 10.0
    assert machine.now - started <= 6.0
    verdict = machine.verdict
    assert verdict is not None
    assert verdict.severity is Severity.WARNING
    assert verdict.reason == ("load 25.0 on 4 cores (6.2 a core, usual 0.4) for 4.0 s: CPU, tailscaled takes 1.8 cores")


def test_it_ends_after_the_condition_does() -> None:
    machine = Machine()
    machine.run(30.0)
    assert machine.run(600.0, runnable=25)[-1] == "spike"
    after = machine.run(60.0, runnable=1)
    assert after.index("normal") <= 12
    assert after[-1] == "normal"
    assert "spike" not in after[after.index("normal") :]


def test_a_long_spike_stays_a_spike() -> None:
    machine = Machine()
    machine.run(30.0)
    assert set(machine.run(6 * 3600.0, runnable=25)[5:]) == {"spike"}


def test_load_that_hovers_between_the_thresholds_does_not_flap() -> None:
    machine = Machine()
    machine.run(30.0)
    states = machine.run(10.0, runnable=12) + machine.run(300.0, runnable=6)
    assert states[-1] == "spike"
    assert states.count("normal") == states.index("spike")


def test_hourly_bursts_shorter_than_the_dwell_are_nothing() -> None:
    machine = Machine()
    states = []
    for _ in range(24):
        states += machine.run(3596.0, runnable=1)
        states += machine.run(4.0, runnable=25)
    assert set(states) == {"normal"}


def test_a_busy_machine_is_as_usual() -> None:
    """Steady work that load15 tells of from the first report on, and work learned over hours."""
    steady = Machine()
    assert set(steady.run(7200.0, runnable=10, load15=10.0)) == {"normal"}
    learned = Machine()
    learned.run(60.0)
    assert learned.run(4 * 3600.0, runnable=9)[-1] == "normal"
    assert set(learned.run(3600.0, runnable=9)) == {"normal"}
    assert learned.run(10.0, runnable=25)[-1] == "spike"


def test_a_spike_that_was_there_before_the_controller_is_still_one() -> None:
    machine = Machine()
    assert machine.run(10.0, runnable=25, load15=25.0)[-1] == "spike"


def test_a_noisy_spike_is_found() -> None:
    machine = Machine()
    machine.run(30.0)
    states = []
    for turn in range(10):
        states.append(machine.sample(runnable=1 if turn % 4 == 2 else 20).state)
    assert "spike" in states


def test_after_boot_more_evidence_is_wanted() -> None:
    machine = Machine()
    states = [machine.sample(runnable=25, load15=0.5, uptime_s=20.0 + 2 * turn).state for turn in range(20)]
    assert states.index("spike") >= 15
    quiet = Machine()
    storm = [quiet.sample(runnable=25, load15=0.5, uptime_s=20.0 + 2 * turn).state for turn in range(13)]
    assert set(storm) == {"normal"}


def test_without_task_counts_it_is_worked_out_of_load1() -> None:
    machine = Machine()
    load1 = 1.0
    machine.run(60.0, runnable=None, blocked=None, load1=load1)
    states = []
    for second in range(0, 20, 2):
        if second % 4 == 0:  # the kernel's update, every 5 s in truth
            load1 = load1 * math.exp(-5 / 60) + 25.0 * (1 - math.exp(-5 / 60))
        states.append(machine.sample(runnable=None, blocked=None, load1=round(load1, 2)).state)
    assert "spike" in states
    for _ in range(60):
        load1 = load1 * math.exp(-2 / 60)
        states.append(machine.sample(runnable=None, blocked=None, load1=round(load1, 2)).state)
    assert states[-1] == "normal"


def test_one_step_of_load1_is_not_a_lasting_load() -> None:
    """25 tasks for 3 s lift load1 by 2.0 at one update; until the next, that is all there is to see."""
    machine = Machine()
    machine.run(60.0, runnable=None, blocked=None, load1=1.0)
    jumped = 1.0 * math.exp(-5 / 60) + 25.0 * (1 - math.exp(-5 / 60))
    states = [machine.sample(runnable=None, blocked=None, load1=jumped).state for _ in range(3)]
    states += [
        machine.sample(runnable=None, blocked=None, load1=jumped * math.exp(-2 * turn / 60)).state
        for turn in range(1, 30)
    ]
    assert set(states) == {"normal"}


def test_minutes_of_a_spike_do_not_become_usual() -> None:
    machine = Machine()
    machine.run(60.0)
    machine.run(900.0, runnable=40)
    machine.run(60.0)
    assert machine.run(10.0, runnable=10)[-1] == "spike"


def test_a_gap_in_the_reports_is_no_evidence() -> None:
    machine = Machine()
    machine.run(30.0)
    machine.sample(runnable=25)
    assert machine.sample(step=60.0, runnable=25).state == "normal"
    assert machine.run(6.0, runnable=25)[-1] == "spike"


def test_without_figures_it_is_unknown() -> None:
    machine = Machine()
    machine.run(30.0)
    machine.run(20.0, runnable=25)
    verdict = machine.detector.on_report("pi", report("pi", 999), machine.now + 2.0)
    assert (verdict.state, verdict.severity) == ("unknown", Severity.UNKNOWN)
    assert machine.sample(runnable=1).state == "normal"


BUSY = Pressure(some=0.6, full=0.3)


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({}, "CPU"),
        ({"processes": (Process(name="etcd", count=1, cpu=0.1, rss_bytes=1),)}, "CPU, by processes that are not"),
        ({"processes": (Process(name="etcd", count=1, cpu=2.5, rss_bytes=1),)}, "CPU, etcd takes 2.5 cores"),
        ({"throttling": Throttling(undervoltage=True)}, "under-voltage"),
        ({"throttling": Throttling(throttled=True), "temperature_c": 85.2}, "the CPU is throttled at 85 °C"),
        ({"psi_io": BUSY, "disk_io": (DiskIo(device="sda", busy=0.2), DiskIo(device="mmcblk0", busy=0.97))}, "mmcblk0"),
        ({"cpu_iowait": 0.4}, "I/O"),
        ({"runnable": 2, "blocked": 23}, "I/O"),
        ({"psi_memory": BUSY}, "memory pressure"),
        ({"memory_bytes": 4 << 30, "memory_available_bytes": 50 << 20}, "memory pressure"),
        ({"cpu_steal": 0.35}, "the host takes 35%"),
    ],
)
def test_causes(figures: dict[str, Any], words: str) -> None:
    machine = Machine()
    machine.run(30.0)
    machine.run(10.0, **({"runnable": 25} | figures))
    assert machine.verdict is not None
    assert machine.verdict.state == "spike"
    assert words in machine.verdict.reason.split(": ", 1)[1]


def test_an_old_undervoltage_is_not_the_cause() -> None:
    machine = Machine()
    machine.run(10.0, runnable=25, throttling=Throttling(undervoltage_since_boot=True, throttled_since_boot=True))
    assert machine.verdict is not None
    assert machine.verdict.reason.endswith(": CPU")


def test_impaired_links_are_a_hint() -> None:
    machine = Machine()
    machine.run(10.0, runnable=25, links=(link("tokyo-1", relay=Relay.DERP), link("austin-1", state="degraded")))
    assert machine.verdict is not None
    assert "the link to tokyo-1 over overlay is relayed (derp)" in machine.verdict.evidence
    assert "the link to austin-1 over overlay is degraded" in machine.verdict.evidence


COUNT = st.one_of(st.none(), st.integers(0, 40), st.integers(0, 2**63 - 1))
LOAD = st.one_of(st.floats(0, 50), st.floats(0, 1e308))


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "step": st.one_of(st.floats(-5, 20), st.floats(0, 1e9)),
                "cores": st.sampled_from((1, 4, 2**40)),
                "runnable": COUNT,
                "blocked": COUNT,
                "load1": LOAD,
                "load15": LOAD,
                "uptime_s": st.floats(0, 1e9),
                "memory_bytes": st.sampled_from((None, 0, 1 << 30)),
                "memory_available_bytes": st.sampled_from((None, 0)),
                "disk_io": st.sampled_from(((), (DiskIo(device="sda"),), (DiskIo(device="sda", busy=1.0),))),
                "psi_io": st.sampled_from((None, BUSY)),
            }
        ),
        max_size=40,
    )
)
def test_no_samples_break_it_and_it_always_comes_to_rest(samples: list[dict[str, Any]]) -> None:
    machine = Machine()
    for sample in samples:
        verdict = machine.sample(**sample)
        assert verdict.state in ("normal", "spike")
        assert verdict.reason
    assert machine.run(120.0, runnable=0)[-1] == "normal"
