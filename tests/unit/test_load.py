"""Spikes are found in seconds with their cause, and nothing else is."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.fleet_builders import config, goodbye, link, presence, report, system
from vagus_controller.core.detect.kinds import takers
from vagus_controller.core.detect.load import LoadDetector
from vagus_controller.core.fleet import Fleet
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
    assert verdict.reason == ("load 25.0 on 4 cores (6.2 a core, usual 0.4) for 6.0 s: CPU, tailscaled takes 1.8 cores")


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
    states = machine.run(30.0, runnable=12) + machine.run(300.0, runnable=6)
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
    assert set(learned.run(4200.0, runnable=9)) == {"normal"}
    assert learned.run(10.0, runnable=25)[-1] == "spike"


def test_a_spike_that_was_there_before_the_controller_is_still_one() -> None:
    machine = Machine()
    assert machine.run(10.0, runnable=25, load15=25.0)[-1] == "spike"


def test_a_spike_that_was_there_before_the_controller_is_one_by_what_the_kernel_remembers() -> None:
    """Not so high that it is nobody's usual work: load1 says that it is new, load15 what was before."""
    machine, steady = Machine(), Machine()
    assert machine.run(30.0, runnable=10, load1=9.6, load15=1.5)[-1] == "spike"
    assert set(steady.run(3600.0, runnable=8, load1=8.0, load15=7.5)) == {"normal"}


def test_a_spike_that_ended_as_the_controller_came_does_not_hide_the_next() -> None:
    machine = Machine()
    machine.run(60.0, runnable=1, load1=30.0, load15=8.0)
    machine.run(600.0, runnable=1, load1=1.0, load15=6.0)
    assert machine.run(28.0, runnable=10, load15=4.0)[-1] == "spike"
    assert machine.run(60.0, runnable=1, load15=4.0)[-1] == "normal"


def test_agents_that_count_at_each_others_moments_are_at_no_load_once_they_have_started() -> None:
    """Four of them on one kernel with two cores: each sees the others, and the load averages do not."""
    machine = Machine()
    figures = {"cores": 2, "load15": 1.0, "runnable": 3}
    machine.run(24.0, **figures, active_mean=9.0, load1=3.0)
    states = [machine.sample(**figures, active_mean=3.2 - turn % 3 * 0.3, load1=1.2).state for turn in range(450)]
    assert set(states[20:]) == {"normal"}


def test_a_noisy_spike_is_found() -> None:
    machine = Machine()
    machine.run(30.0)
    states = []
    for turn in range(10):
        states.append(machine.sample(runnable=1 if turn % 4 == 2 else 20).state)
    assert "spike" in states


def test_after_boot_more_evidence_is_wanted() -> None:
    """A storm of 150 s is none; what lasts longer is told as soon as the machine is up for three minutes."""
    machine = Machine()
    states = [machine.sample(runnable=25, load15=0.5, uptime_s=20.0 + 2 * turn).state for turn in range(90)]
    assert 20.0 + 2 * states.index("spike") == 180.0
    quiet = Machine()
    storm = [quiet.sample(runnable=25, load15=0.5, uptime_s=20.0 + 2 * turn).state for turn in range(70)]
    storm += [quiet.sample(runnable=1, load15=5.0, uptime_s=160.0 + 2 * turn).state for turn in range(90)]
    assert set(storm) == {"normal"}


def test_a_reboot_ends_what_was_counted() -> None:
    machine = Machine()
    machine.run(30.0)
    machine.run(4.0, runnable=25)
    assert machine.sample(runnable=25, uptime_s=9.0).state == "normal"
    assert set(machine.run(60.0, runnable=25, uptime_s=20.0)) == {"normal"}


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
    assert machine.run(40.0, runnable=14)[-1] == "spike"


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


def test_a_spike_ends_with_the_agent_that_told_of_it() -> None:
    machine = Machine()
    machine.run(30.0)
    assert machine.run(20.0, runnable=25)[-1] == "spike"
    machine.detector.take_news()
    fleet = Fleet(config())
    fleet.on_presence(presence("pi"), machine.now)
    machine.detector.on_presence(fleet.nodes["pi"], machine.now)
    assert machine.detector.take_news() == []
    fleet.on_presence(goodbye("pi"), machine.now)
    machine.detector.on_presence(fleet.nodes["pi"], machine.now)
    (verdict,) = machine.detector.take_news()
    assert (verdict.state, verdict.reason) == ("unknown", "its agent said goodbye")
    assert machine.detector.found == {}
    machine.detector.on_presence(fleet.nodes["pi"], machine.now + 2.0)
    machine.detector.on_presence(None, machine.now + 2.0)
    assert machine.detector.take_news() == []
    # It is back, and so is the load.
    assert machine.sample(runnable=25).state == "normal"
    assert machine.run(10.0, runnable=25)[-1] == "spike"


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
        (
            {"disk_io": (DiskIo(device="sda", busy=0.99, await_s=1.44),), "blocked": 30},
            "sda is 99% busy, a request takes 1.4 s",
        ),
        ({"disk_io": (DiskIo(device="sda", busy=1.0),), "blocked": 30}, "sda is 100% busy and finishes nothing"),
        (
            {"runnable": 1, "blocked": 23, "disk_io": (DiskIo(device="sda", busy=0.02),)},
            "that no disk here explains: 23 tasks",
        ),
        ({"busiest": (Process(name="ffmpeg", count=4, cpu=3.4, rss_bytes=1),)}, "CPU, ffmpeg takes 3.4 cores"),
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


def test_heat_that_came_of_the_spike_is_told_last_and_heat_that_was_there_first() -> None:
    hot = Throttling(throttled=True)
    k3s = (Process(name="k3s", count=1, cpu=3.5, rss_bytes=1),)
    after, before = Machine(), Machine()
    for machine in (after, before):
        machine.run(60.0)
    before.run(30.0, throttling=hot)
    after.run(20.0, runnable=25, processes=k3s)
    causes = [
        machine.sample(runnable=25, processes=k3s, throttling=hot).reason.split(": ", 1)[1]
        for machine in (after, before)
        if machine is after or machine.run(20.0, runnable=25, processes=k3s, throttling=hot)
    ]
    assert causes[0] == "CPU, k3s takes 3.5 cores; the CPU is throttled"
    assert causes[1] == "the CPU is throttled; CPU, k3s takes 3.5 cores"


def test_a_storm_of_retransmissions_names_the_link() -> None:
    machine = Machine()
    sent, again = 1000, 10
    verdict = machine.sample(runnable=1, tcp_segments=sent, tcp_retransmits=again)
    for turn in range(40):
        sent, again = sent + 2000, again + (600 if turn > 20 else 1)
        links = (link("tokyo-1", relay=Relay.DERP),)
        figures = {"tcp_segments": sent, "tcp_retransmits": again, "links": links}
        verdict = machine.sample(runnable=25 if turn > 20 else 1, **figures)
    cause = verdict.reason.split(": ", 1)[1]
    assert cause.startswith("TCP sends 300 segments a second again, the link to tokyo-1 over overlay is relayed (derp)")


def test_some_retransmissions_of_many_segments_are_no_storm() -> None:
    machine = Machine()
    for turn in range(30):
        machine.sample(runnable=25 if turn > 20 else 1, tcp_segments=100_000 * turn, tcp_retransmits=100 * turn)
    assert machine.verdict is not None
    assert machine.verdict.reason.endswith(": CPU")


def test_the_mean_of_many_counts_is_believed_before_the_one_of_the_moment() -> None:
    machine = Machine()
    machine.run(60.0, active_mean=1.0)
    # A count is of the moment at which many timers fire, the agent's too; but what is very steep is told by it.
    assert set(machine.run(60.0, runnable=9, active_mean=1.5)) == {"normal"}
    assert machine.run(10.0, runnable=9, active_mean=1.5)[-1] == "normal"
    assert machine.run(10.0, runnable=1, active_mean=25.0)[-1] == "spike"


def test_tasks_that_hang_for_no_disk_are_found_by_load1_alone() -> None:
    """Nothing runs, nothing waits for a disk, and load1 rises as 16 tasks in uninterruptible sleep make it rise."""
    machine = Machine()
    load1, states = 0.5, []
    for second in range(0, 240, 2):
        if second % 5 in (0, 1) and second:
            load1 = load1 * math.exp(-5 / 60) + (16.5 if second > 120 else 0.5) * (1 - math.exp(-5 / 60))
        states.append(
            machine.sample(runnable=0, load1=round(load1, 2), disk_io=(DiskIo(device="sda", busy=0.0),)).state
        )
    assert set(states[:60]) == {"normal"}
    assert "spike" in states[60:80]
    assert machine.verdict is not None
    assert "no disk here explains" in machine.verdict.reason


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
                "active_mean": st.one_of(st.none(), st.floats(0, 1e12)),
                "tcp_retransmits": COUNT,
                "tcp_segments": COUNT,
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


def test_the_processes_that_a_spike_names_are_read_from_its_words() -> None:
    machine = Machine()
    machine.run(60.0, runnable=1)
    disk = (DiskIo(device="sda", busy=0.99, await_s=1.4),)
    busy = tuple(Process(name=name, count=1, cpu=cpu, rss_bytes=1) for name, cpu in (("tmux: server", 2.0), ("k3s", 1)))
    machine.run(20.0, runnable=25, cpu_iowait=0.5, disk_io=disk, processes=busy)
    assert machine.verdict is not None
    assert "a request takes 1.4 s" in machine.verdict.reason
    assert takers(machine.verdict.reason) == ["tmux: server", "k3s"]
