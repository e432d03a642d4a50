"""Lab tests need root and the Debian packages: without them they fail, loudly; they are never skipped.

A test that fails shows the logs of its labs, which are gone with the lab.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import pytest

from lab.fleet_helpers import THREE, healed, running
from lab.harness import Lab


@runtime_checkable
class Logged(Protocol):
    """A lab, or hosts that boot: its logs are there as long as its directory is."""

    @property
    def dir(self) -> Path: ...

    def logs(self) -> str: ...


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """A VPS with broker and controller, and two Pis; a module that needs another fleet has its own."""
    with running(THREE) as lab:
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """The module's fleet: all well before a test, and after it."""
    with healed(shared) as lab:
        yield lab


@pytest.fixture(autouse=True)
def logs_of_closed_labs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    close = Lab.close

    def close_with_logs(lab: Lab) -> None:
        if lab.dir.exists():
            print(f"logs of {lab.dir.name}:\n{lab.logs()}")
        close(lab)

    with monkeypatch.context() as patch:
        patch.setattr(Lab, "close", close_with_logs)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for fixture in getattr(item, "funcargs", {}).values():
            if isinstance(fixture, Logged) and fixture.dir.exists():
                report.sections.append((f"logs of {fixture.dir.name}", fixture.logs()))
    return report
