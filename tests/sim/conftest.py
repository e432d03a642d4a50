"""`scripts/test sim -- --schedules 1000000 --jobs 2`: how many, from which seed, on how many processes."""

from __future__ import annotations

from typing import Final

import pytest

SCHEDULES: Final = 10_000


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sim", "the simulation")
    group.addoption("--schedules", type=int, default=SCHEDULES, help="how many schedules the plain run has")
    group.addoption("--seed", type=int, default=1, help="of the first one")
    group.addoption("--jobs", type=int, default=2, help="processes")
    group.addoption("--probed", action="store_const", const=True, help="real probers in every schedule")
    group.addoption("--only", default="", help="one seed, with these of its faults alone (numbers, or none)")
    group.addoption("--tell", action="store_true", help="one seed, told event by event")
