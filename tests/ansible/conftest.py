"""Tests on booted hosts need root and the Debian packages: without them they fail, loudly; they are never skipped."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest

import hosts as booted_hosts
from hosts import Hosts


@pytest.fixture(scope="module")
def booted() -> Iterator[Callable[..., Hosts]]:
    """`booted("vps", "tokyo")`: hosts that have booted, until the module's last test is over."""
    with ExitStack() as stack:
        yield lambda *names, suite="": stack.enter_context(booted_hosts.booted(*names, suite=suite))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows the ends of its hosts' journals."""
    report = yield
    if report.failed:
        for hosts in getattr(item, "funcargs", {}).values():
            if isinstance(hosts, Hosts) and hosts.dir.exists():
                report.sections.append(("journals of the hosts", hosts.logs()))
    return report
