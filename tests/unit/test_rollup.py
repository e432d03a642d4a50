"""Figures over time: what is kept of a report, and what minutes, hours and charts make of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.fleet_builders import link, member, observed, report, system
from vagus_controller.core import charts, rollup
from vagus_controller.core.figures import METRICS, figures
from vagus_controller.core.rollup import HOUR, MINUTE, Chunk, Sampler, chunk_of, gather, roll
from vagus_protocol.messages import Disk, DiskIo, LinkState, Pressure, Process, Relay, Report, Throttling

HOUR_AT = 1_700_000_000 // 3600 * 3600


def samples(*values: dict[str, int], at: int = HOUR_AT, every: int = 10) -> list[rollup.Sample]:
    sampler = Sampler()
    return [sampler.take("pi-1", at + number * every, each) for number, each in enumerate(values)]


def band(chunks: list[Chunk], key: str, start: int, end: int, step: int) -> list[tuple[Any, ...]]:
    cells = gather(chunks, start, end, step)[0][key]
    return list(zip(cells.low, cells.means(), cells.high, strict=True))


# --- what is kept of a report ---------------------------------------------------------------------------------------


def test_every_figure_of_a_full_report() -> None:
    machine = system(
        cores=4,
        load1=2.0,
        runnable=3,
        cpu_user=0.25,
        cpu_system=0.125,
        cpu_iowait=0.05,
        cpu_steal=0.02,
        psi_cpu=Pressure(some=0.4),
        psi_io=Pressure(some=0.3, full=0.1),
        psi_memory=Pressure(some=0.2),
        memory_bytes=1000,
        memory_available_bytes=250,
        swap_bytes=200,
        swap_used_bytes=50,
        disks=(Disk(mount="/", used=0.41, free_bytes=1),),
        disk_io=(DiskIo(device="mmcblk0", busy=0.5),),
        temperature_c=48.3,
        throttling=Throttling(throttled=True),
        processes=(Process(name="etcd", count=1, cpu=1.5, rss_bytes=1),),
    )
    told = (
        link("b", "overlay", rtt_s=0.0123456, jitter_s=0.001, loss_10s=0.25, relay=Relay.DIRECT),
        link("b", "backup", rtt_s=0.02),
    )
    found = figures(
        report("a", system=machine, links=told, etcd=member("a", "b", "c", term=9), lag_s=0.002),
        observed("a", paths={"b": "overlay"}),
    )
    assert found == {
        "load": 50,
        "runnable": 3,
        "psi_cpu": 400,
        "psi_io": 300,
        "psi_memory": 200,
        "cpu": 375,
        "iowait": 50,
        "steal": 20,
        "memory_used": 750,
        "swap_used": 250,
        "disk_used:/": 410,
        "disk_busy:mmcblk0": 500,
        "temperature": 483,
        "throttled": 1000,
        "undervoltage": 0,
        "process:etcd": 1500,
        "agent_lag": 2000,
        "etcd_term": 9,
        "etcd_leads": 1000,
        "etcd_read": 4000,
        "rtt:b:overlay": 12346,
        "jitter:b:overlay": 1000,
        "loss:b:overlay": 250,
        "rtt:b:backup": 20000,
        "direct:b": 1000,
        "relayed:b": 0,
        "backup:b": 0,
    }
    assert {key.partition(":")[0] for key in found} == set(METRICS)


def test_what_a_machine_lacks_is_absent() -> None:
    bare = report("a", system=system(runnable=None, blocked=None, memory_bytes=8, swap_bytes=0, swap_used_bytes=0))
    assert figures(bare, None) == {"agent_lag": 0, "load": 40}
    assert figures(report("a"), observed("a", paths={"b": "overlay"})) == {"agent_lag": 0}
    silent = member("a", "b", "c", answering=False, term=None, read_s=None, leader_id="")
    assert figures(report("a", etcd=silent), None) == {"agent_lag": 0}


@pytest.mark.parametrize(
    ("used", "relay", "way"),
    [
        ("overlay", Relay.DIRECT, "direct"),
        ("overlay", None, "direct"),
        ("overlay", Relay.DERP, "relayed"),
        ("overlay", Relay.PEER_RELAY, "relayed"),
        ("overlay", Relay.RIDING_BACKUP, "backup"),
        ("overlay", Relay.IDLE, ""),
        ("backup", Relay.DIRECT, "backup"),
        ("", Relay.DIRECT, ""),
        ("another", Relay.DIRECT, ""),
    ],
)
def test_which_way_traffic_goes(used: str, relay: Relay | None, way: str) -> None:
    told = (link("b", "overlay", relay=relay), link("b", "backup"))
    found = figures(report("a", links=told), observed("a", paths={"b": used}))
    ways = {name: found[f"{name}:b"] for name in ("direct", "relayed", "backup")}
    assert ways == {name: 1000 * (name == way) for name in ways}


def test_a_dead_link_has_loss_and_no_round_trip() -> None:
    found = figures(report("a", links=(link("b", state=LinkState.DOWN, loss_10s=1.0),)), None)
    assert found["loss:b:overlay"] == 1000
    assert "rtt:b:overlay" not in found


def test_absurd_reports_make_bounded_samples() -> None:
    """Whatever passes the decoder fits a sample, in size and in number of keys."""
    many = tuple(Disk(mount="/" + "m" * 1000 + str(number), used=1, free_bytes=0) for number in range(50))
    wild = report(
        "a",
        lag_s=1e12,
        links=tuple(link(f"p{number}", rtt_s=1e12, jitter_s=1e12, loss_10s=1.0) for number in range(600)),
        system=system(load1=1e12, temperature_c=-1e12, runnable=2**63 - 1, disks=many),
        etcd=member("a", term=2**63 - 1, read_s=1e12),
    )
    found = figures(wild, None)
    Sampler().take("a", 0, found)
    assert found["temperature"] == -found["load"] == -(2**31 - 1)
    assert len(found) < 1600
    assert max(map(len, found)) < 200


# --- samples and chunks -----------------------------------------------------------------------------------------------


def test_samples_of_the_same_keys_share_them() -> None:
    one, two, other = samples({"a": 1, "b": 2}, {"b": 4, "a": 3}, {"a": 5})
    assert one.keys is two.keys
    assert list(two.values) == [3, 4]
    assert other.keys == ("a",)


def test_a_chunk_comes_back_as_it_was_and_knows_what_was_absent() -> None:
    chunk = chunk_of(samples({"a": 1}, {"a": 2, "b": 3}, {"b": 4}))
    assert rollup.decode(rollup.encode(chunk)) == chunk
    assert chunk.start == HOUR_AT
    assert chunk.offsets == [0, 10, 20]
    assert chunk.mean == {"a": [1, 2, None], "b": [None, 3, 4]}


def test_a_minute_is_the_lowest_mean_and_highest_of_its_samples() -> None:
    raw = chunk_of(samples(*({"a": value} for value in (10, 20, 60, 1, 1, 1, 7))))
    minutes = roll([raw], HOUR_AT, MINUTE)
    assert minutes is not None
    assert minutes.offsets == [0, 60]
    assert minutes.counts == [6, 1]
    assert band([minutes], "a", HOUR_AT, HOUR_AT + 120, 60) == [(1, 16, 60), (7, 7, 7)]


def test_an_hour_weighs_its_minutes_by_their_samples_and_keeps_the_extremes() -> None:
    full = chunk_of(samples(*({"a": 10} for _ in range(5)), {"a": 100}))
    short = chunk_of(samples({"a": 0}, at=HOUR_AT + 1800))
    rows = [roll([full], HOUR_AT, MINUTE), roll([short], HOUR_AT + 1800, MINUTE)]
    hour = roll([row for row in rows if row is not None], HOUR_AT, HOUR)
    assert hour is not None
    assert hour.counts == [7]
    # 150 over seven samples is 21.4; the first minute's mean of 25 is whole already
    assert band([hour], "a", HOUR_AT, HOUR_AT + 3600, 3600) == [(0, 21, 100)]


def test_nothing_makes_no_row() -> None:
    assert roll([], HOUR_AT, MINUTE) is None
    assert roll([chunk_of(samples({"a": 1}))], HOUR_AT + 3600, HOUR) is None


def test_a_chart_has_gaps_where_there_was_nothing() -> None:
    chunks = [chunk_of(samples({"a": 1})), chunk_of(samples({"a": 3}, at=HOUR_AT + 30))]
    assert band(chunks, "a", HOUR_AT, HOUR_AT + 40, 10) == [(1, 1, 1), (None,) * 3, (None,) * 3, (3, 3, 3)]


def test_two_records_of_one_moment_are_one_slot() -> None:
    """After a clock that was set back."""
    chunks = [chunk_of(samples({"a": 1})), chunk_of(samples({"a": 3}))]
    assert band(chunks, "a", HOUR_AT, HOUR_AT + 10, 10) == [(1, 2, 3)]


@given(
    st.lists(st.tuples(st.integers(0, 3599), st.integers(-(2**31) + 1, 2**31 - 1)), min_size=1, max_size=60),
    st.sampled_from([60, 600, 3600]),
)
def test_rolled_up_or_not_a_chart_shows_the_same_extremes_and_nearly_the_same_means(
    taken: list[tuple[int, int]], step: int
) -> None:
    sampler = Sampler()
    raw = [chunk_of([sampler.take("a", HOUR_AT + at, {"x": value})]) for at, value in taken]
    rows = [roll(raw, HOUR_AT + start, MINUTE) for start in range(0, 3600, 600)]
    minutes = [rollup.decode(rollup.encode(row)) for row in rows if row is not None]
    plain = band(raw, "x", HOUR_AT, HOUR_AT + 3600, step)
    rolled = band(minutes, "x", HOUR_AT, HOUR_AT + 3600, step)
    for (low, mean, high), (least, middle, most) in zip(plain, rolled, strict=True):
        assert (low, high) == (least, most)
        assert (mean is None) is (middle is None)
        assert mean is None or abs(mean - middle) <= 1


# --- what is shown ----------------------------------------------------------------------------------------------------


def told(peer: str, used: str = "overlay", relay: Relay = Relay.DIRECT, rtt: float = 0.01) -> tuple[Report, Any]:
    node = "b" if peer == "a" else "a"
    its = (link(peer, "overlay", rtt_s=rtt, loss_10s=0.0, relay=relay), link(peer, "backup", rtt_s=2 * rtt))
    return report(node, system=system(), links=its), observed(node, paths={peer: used})


def chunk(*each: tuple[Report, Any], at: int = HOUR_AT) -> Chunk:
    return chunk_of(samples(*(figures(*one) for one in each), at=at))


def test_a_nodes_columns_have_units_and_no_links_unless_asked_for() -> None:
    chunks = [chunk(told("b"), told("b"))]
    plain = charts.node_history(chunks, "a", HOUR_AT - 60, HOUR_AT + 60, 10, links=False)
    assert plain.at == [HOUR_AT, HOUR_AT + 10], "what is empty before and after is left out"
    assert [column.metric for column in plain.columns] == ["load", "runnable", "agent_lag"]
    assert plain.columns[0].mean == [0.4, 0.4]
    assert plain.columns[2].unit == "s"
    assert plain.links == []
    full = charts.node_history(chunks, "a", HOUR_AT, HOUR_AT + 60, 10, links=True)
    assert [(each.peer, each.path) for each in full.links] == [("b", "backup"), ("b", "overlay")]
    assert full.links[0].rtt_s is not None
    assert full.links[0].rtt_s.mean == [0.02, 0.02]
    assert full.links[0].loss is None
    assert full.columns == plain.columns
    both = [chunk(told("b"), told("b")), chunk(told("c"), told("c"))]
    some = charts.node_history(both, "a", HOUR_AT, HOUR_AT + 60, 10, links=True, peers=("c", "d"))
    assert [(each.peer, each.path) for each in some.links] == [("c", "backup"), ("c", "overlay")]
    assert [column.metric for column in some.columns] == [column.metric for column in plain.columns]


def test_a_pair_has_both_ends_and_the_shares_of_time() -> None:
    a = chunk(told("b"), told("b", relay=Relay.DERP), told("b", used="backup"), told("b", relay=Relay.IDLE))
    b = chunk(told("a", rtt=0.03), at=HOUR_AT + 50)
    found = charts.pair_history([("a", [a]), ("b", [b])], HOUR_AT, HOUR_AT + 3600, 10)
    assert found.pair == "a--b"
    assert len(found.at) == 6, "from the first of either end to the last of either"
    first, second = found.ends
    assert (first.node, second.node) == ("a", "b")
    assert (first.shares.direct, first.shares.relayed, first.shares.backup) == (0.25, 0.25, 0.25)
    assert first.ways.relayed == [0.0, 1.0, 0.0, 0.0, None, None]
    assert second.shares.direct == 1.0
    assert second.paths[1].rtt_s is not None
    assert second.paths[1].rtt_s.high == [None] * 5 + [0.03]


def test_a_pair_of_which_nothing_is_known() -> None:
    found = charts.pair_history([("a", []), ("b", [])], HOUR_AT, HOUR_AT + 3600, 10)
    assert found.at == []
    assert found.ends[0].paths == []
    assert found.ends[0].shares.direct is None


def test_other_pairs_and_figures_of_a_later_version_are_left_out() -> None:
    strange = chunk_of(samples({"load": 40, "quarks": 3, "rtt:b:overlay": 5, "rtt:bb:overlay": 7, "direct:bb": 1}))
    node = charts.node_history([strange], "a", HOUR_AT, HOUR_AT + 10, 10, links=True)
    assert [column.metric for column in node.columns] == ["load"]
    pair = charts.pair_history([("a", [strange]), ("b", [])], HOUR_AT, HOUR_AT + 10, 10)
    assert [each.path for each in pair.ends[0].paths] == ["overlay"]
    assert pair.ends[0].shares.direct is None


# --- sparklines -------------------------------------------------------------------------------------------------------


def test_a_sparkline_is_the_last_hour() -> None:
    spark = charts.Spark()
    slot = HOUR_AT // charts.SPARK_S
    for at in range(HOUR_AT - 7200, HOUR_AT, 10):
        spark.add(at, at // charts.SPARK_S % 100)
    points = spark.means(slot - 1)
    assert points == [each % 100 for each in range(slot - 30, slot)]
    assert spark.means(slot + 9)[-10:] == [None] * 10
    assert spark.means(slot + 9)[0] == points[10]
    assert spark.means(slot + 100) == [None] * 30


def test_a_sparkline_over_a_gap_and_a_clock_that_was_set_back() -> None:
    spark = charts.Spark()
    slot = HOUR_AT // charts.SPARK_S
    spark.add(HOUR_AT, 5)
    spark.add(HOUR_AT + 10 * charts.SPARK_S, 7)
    assert spark.means(slot + 10)[-11:] == [5, *[None] * 9, 7]
    spark.add(HOUR_AT + 5 * charts.SPARK_S, 9)
    assert spark.means(slot + 10)[-11:] == [5, *[None] * 4, 9, *[None] * 4, 7]
    spark.add(HOUR_AT - 86400, 3)
    assert spark.means(slot - 720)[-1] == 3
    spark.add(HOUR_AT, 4)
    assert spark.means(slot)[-2:] == [None, 4]
