"""Clocks that jump, and machines that sleep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vagus_agent.core.clocks import Clocks


def told(*moments: tuple[float, float, float]) -> list[str]:
    clocks = Clocks()
    return [clocks.look(*moment) for moment in moments]


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ((1002.0, 12.0, 12.0), ""),
        ((1002.1, 12.0, 12.0), ""),
        ((4602.0, 12.0, 12.0), "the wall clock jumped forward by 3600 s"),
        ((2.0, 12.0, 12.0), "the wall clock jumped back by 1000 s"),
        ((4602.0, 3612.0, 12.0), "this machine slept for 3600 s"),
    ],
)
def test_a_jump_is_told_once(then: tuple[float, float, float], words: str) -> None:
    first, second, third = told((1000.0, 10.0, 10.0), then, tuple(each + 2.0 for each in then))  # type: ignore[arg-type]
    assert first == ""
    assert second.startswith(words)
    assert bool(second) is bool(words)
    assert third == ""


def test_sleep_alone_is_no_jump_of_the_clock() -> None:
    assert "jumped" not in told((1000.0, 10.0, 10.0), (4602.0, 3612.0, 12.0))[1]


times = st.floats(-1e12, 1e12)


@given(st.lists(st.tuples(times, times, times), max_size=10))
def test_it_never_raises(moments: list[tuple[float, float, float]]) -> None:
    assert len(told(*moments)) == len(moments)
