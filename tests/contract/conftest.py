"""The application over a fleet that lives in memory, and an operator's client; a file that needs others has its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contract.fleet_samples import TOKEN, Running
from contract.mosquitto import Mosquitto
from contract.postgresql import PostgresPlace, PostgreSQL
from unit.test_store import Place


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path / "vagus.db") as running:
        yield running


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10) as client:
        yield client


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as broker:
        yield broker


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place | PostgresPlace:
    """A database of its own; `FILE` of the module: what asks the one that is a file."""
    if request.param == "sqlite":
        file: Place = request.module.FILE(tmp_path / "vagus.db")
        return file
    return PostgresPlace(request.getfixturevalue("postgresql"))
