"""Tests on booted hosts need root and the Debian packages: without them they fail, loudly; they are never skipped.

A test that fails shows the logs of its hosts, as in tests/lab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import hosts as booted_hosts
from hosts import Hosts
from lab.conftest import pytest_runtest_makereport


@pytest.fixture(scope="module")
def booted() -> Iterator[Callable[..., Hosts]]:
    """`booted("vps", "tokyo")`: hosts that have booted, until the module's last test is over."""
    with ExitStack() as stack:
        yield lambda *names, suite="": stack.enter_context(booted_hosts.booted(*names, suite=suite))


__all__ = ["booted", "pytest_runtest_makereport"]
