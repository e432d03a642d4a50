"""Which broker next, when silent, when back: in virtual time, against brokers that are only a table of who answers."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vagus_protocol.brokers import (
    BACKOFF_CAP_S,
    CONNECT_S,
    PING_AFTER_S,
    PING_WAIT_S,
    REFUSED_CAP_S,
    REFUSED_FIRST_S,
    RETURN_CAP_S,
    RETURN_S,
    SPREAD_S,
    STABLE_S,
    Rotation,
    Said,
    Silence,
)


def seek(rotation: Rotation, now: float, answering: set[int], *, roll: float = 1.0, limit: int = 50) -> float:
    """When a session stands, trying what `rotation` says; every dead broker costs the full connect timeout."""
    for _ in range(limit):
        broker, wait_s = rotation.next(now)
        now += max(wait_s, 0.0)
        if broker in answering:
            rotation.connected(now, broker, roll)
            return now
        now += CONNECT_S
        rotation.failed(now, broker, roll)
    raise AssertionError("no broker found")


def test_brokers_are_tried_in_order() -> None:
    rotation = Rotation(3)
    assert seek(rotation, 0.0, {1, 2}) == CONNECT_S
    assert rotation.current == 1


def test_a_silent_broker_is_replaced_within_5_s_though_the_next_is_a_black_hole_too() -> None:
    rotation, silence = Rotation(3), Silence(100.0)
    seek(rotation, 100.0 - 2 * STABLE_S, {0})
    cut = 100.0
    asked_at = silence.deadline()
    assert silence.check(asked_at) == "ping"
    silent_at = silence.deadline()
    assert silence.check(silent_at) == "silent"
    assert silent_at - cut == pytest.approx(PING_AFTER_S + PING_WAIT_S)
    rotation.lost(silent_at, roll=1.0)
    assert seek(rotation, silent_at, {2}) - cut <= 5.0 - 0.25
    assert rotation.current == 2


def test_after_a_loss_the_next_in_the_order_comes_first_and_wraps_around() -> None:
    rotation = Rotation(3)
    seek(rotation, 0.0, {1})
    rotation.lost(100.0, 1.0)
    tried = []
    now = 100.0
    for _ in range(3):
        broker, wait_s = rotation.next(now)
        now += max(wait_s, 0.0)
        tried.append(broker)
        rotation.failed(now, broker, 0.0)
    assert tried == [2, 0, 1]


def test_a_hint_moves_at_once_and_a_loss_spreads_the_fleet() -> None:
    for hinted, roll, wait in ((True, 1.0, 0.0), (False, 1.0, SPREAD_S), (False, 0.0, 0.0)):
        rotation = Rotation(2)
        seek(rotation, 0.0, {0})
        rotation.lost(100.0, roll, hinted=hinted)
        broker, wait_s = rotation.next(100.0)
        assert broker == 1
        assert wait_s == pytest.approx(wait)


def test_when_none_works_rounds_are_spaced_by_a_growing_jittered_wait() -> None:
    waits = []
    for roll in (0.0, 1.0):
        rotation, now, row = Rotation(2), 0.0, []
        for _ in range(6):
            for _ in range(2):
                broker, wait_s = rotation.next(now)
                now += max(wait_s, 0.0)
                rotation.failed(now, broker, roll)
            row.append(rotation.next(now)[1])
        waits.append(row)
    assert waits[1] == pytest.approx([0.5, 1.0, 2.0, 4.0, 5.0, 5.0])
    assert waits[0] == pytest.approx([wait / 2 for wait in waits[1]])
    assert max(waits[1]) <= BACKOFF_CAP_S


def test_a_refusing_broker_waits_longer_and_does_not_hold_up_the_others() -> None:
    rotation = Rotation(2)
    rotation.failed(0.0, 0, 1.0, refused=True)
    assert rotation.next(0.0) == (1, 0.0)
    rotation.failed(0.0, 1, 1.0)
    broker, wait_s = rotation.next(0.0)
    assert broker == 1
    assert wait_s == pytest.approx(0.5)
    alone = Rotation(1)
    waits = []
    now = 0.0
    for _ in range(4):
        alone.failed(now, 0, 1.0, refused=True)
        _, wait_s = alone.next(now)
        waits.append(wait_s)
        now += wait_s
    assert waits == pytest.approx([REFUSED_FIRST_S, 2 * REFUSED_FIRST_S, REFUSED_CAP_S, REFUSED_CAP_S])


def test_a_broker_that_takes_us_and_drops_us_at_once_is_no_success() -> None:
    rotation, now, attempts = Rotation(1), 0.0, 0
    while now < 60.0:
        broker, wait_s = rotation.next(now)
        now += max(wait_s, 0.0)
        rotation.connected(now, broker, 1.0)
        now += 0.01
        rotation.lost(now, 1.0)
        attempts += 1
    assert attempts <= 60.0 / BACKOFF_CAP_S + 5


def test_back_to_an_earlier_broker_only_at_calm_and_growing_intervals() -> None:
    rotation = Rotation(2)
    seek(rotation, 0.0, {1}, roll=0.5)
    looks, now = [], 0.0
    while now < 3600.0:
        now += 1.0
        if rotation.earlier(now) is not None:
            looks.append(now)
            rotation.stayed(now, 0.5)
    gaps = [after - before for before, after in pairwise(looks)]
    assert gaps[0] >= 2 * RETURN_S
    assert gaps == sorted(gaps)
    assert gaps[-1] == pytest.approx(RETURN_CAP_S, abs=1.0)


def test_every_earlier_broker_gets_its_look() -> None:
    rotation = Rotation(3)
    seek(rotation, 0.0, {2}, roll=0.5)
    targets = []
    for now in range(1000):
        if (target := rotation.earlier(float(now))) is not None:
            targets.append(target)
            rotation.stayed(float(now), 0.5)
    assert targets[:4] == [0, 1, 0, 1]


def test_a_return_that_does_not_last_makes_the_next_one_rarer() -> None:
    rotation = Rotation(2)
    now = seek(rotation, 0.0, {1}, roll=0.5)
    returns = []
    while now < 7200.0:
        now += 1.0
        if (target := rotation.earlier(now)) is not None:
            returns.append(now)
            rotation.connected(now, target, 0.5)
            rotation.lost(now + 2.0, 0.5)
            now = seek(rotation, now + 2.0, {1}, roll=0.5)
    assert len(returns) <= 16
    assert returns[-1] - returns[-2] >= RETURN_CAP_S


def test_the_first_broker_is_home() -> None:
    rotation = Rotation(2)
    seek(rotation, 0.0, {0})
    assert all(rotation.earlier(float(now)) is None for now in range(0, 10_000, 50))


@given(st.integers(1, 4), st.integers(0, 2**32), st.data())
def test_a_working_broker_is_always_found_again(count: int, seed: int, data: st.DataObject) -> None:
    rng, rotation, now = random.Random(seed), Rotation(count), 0.0
    for _ in range(data.draw(st.integers(0, 20))):
        broker, wait_s = rotation.next(now)
        assert 0 <= broker < count
        assert wait_s <= REFUSED_CAP_S
        now += max(wait_s, 0.0)
        match data.draw(st.sampled_from(["failed", "refused", "short", "long"])):
            case "failed":
                rotation.failed(now, broker, rng.random())
            case "refused":
                rotation.failed(now, broker, rng.random(), refused=True)
            case "short":
                rotation.connected(now, broker, rng.random())
                rotation.lost(now + 0.5, rng.random())
            case "long":
                rotation.connected(now, broker, rng.random())
                rotation.lost(now + 100.0, rng.random())
                now += 100.0
    working = data.draw(st.integers(0, count - 1))
    found = seek(rotation, now, {working}, roll=rng.random())
    assert found - now <= REFUSED_CAP_S + BACKOFF_CAP_S + count * CONNECT_S


def test_our_own_slowness_is_not_the_brokers_silence() -> None:
    silence = Silence(0.0)
    assert silence.check(60.0) == "ping"
    assert silence.check(60.0 + PING_WAIT_S - 0.1) is None
    silence.heard(60.0 + PING_WAIT_S - 0.1)
    assert silence.check(60.0 + PING_WAIT_S) is None


def test_any_byte_from_the_broker_ends_the_wait() -> None:
    silence = Silence(0.0)
    assert silence.check(PING_AFTER_S - 0.1) is None
    assert silence.check(PING_AFTER_S) == "ping"
    silence.heard(2.0)
    assert silence.deadline() == 2.0 + PING_AFTER_S


def test_a_log_line_repeats_once_a_minute_and_at_once_when_it_changes() -> None:
    said = Said()
    assert said.due(0.0, "broker", "refused")
    assert not said.due(59.0, "broker", "refused")
    assert said.due(59.5, "broker", "timed out")
    assert said.due(59.6, "other", "timed out")
    assert said.due(120.0, "broker", "timed out")
