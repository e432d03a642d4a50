"""Charts are kept alike in SQLite and in a real PostgreSQL, and within their bounds there too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from contract.postgresql import PostgresPlace, PostgreSQL
from unit import test_archive as suite
from unit.test_archive import START, Charts, Site, _breathless, site
from unit.test_store import Place
from vagus_controller import archive as archive_module

__all__ = ["_breathless", "site"]

# What is about files and their disks is in tests/unit alone.
SUITE: tuple[Callable[..., None], ...] = (
    suite.test_one_figure_in_ten_seconds_at_once_and_on_disk,
    suite.test_minutes_and_hours_are_made_as_they_end,
    suite.test_every_step_shows_the_newest_figures,
    suite.test_a_restart_forgets_nothing_but_the_last_minute_of_a_crash,
    suite.test_days_of_standstill_are_a_gap,
    suite.test_a_clock_that_is_set_back_overwrites_nothing_and_goes_on,
    suite.test_a_clock_that_was_years_ahead_spoils_neither_what_was_nor_what_comes,
    suite.test_old_rows_go_by_the_age_of_their_level,
    suite.test_a_pair_over_time,
    suite.test_sparklines_come_back_after_a_restart,
    suite.test_a_damaged_row_is_left_out,
    suite.test_a_file_of_a_newer_version_is_refused,
    suite.test_the_writer_thread_writes_what_waits_at_the_end,
)
globals().update({test.__name__: test for test in SUITE})


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place | PostgresPlace:
    if request.param == "sqlite":
        return Charts(tmp_path / "vagus.db")
    return PostgresPlace(request.getfixturevalue("postgresql"))


def test_its_bytes_are_bounded_on_the_disk_of_a_server_too(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody else cleans up: this server's autovacuum is off."""
    monkeypatch.setattr(archive_module, "_PRUNE_EVERY_S", 0.0)
    place = PostgresPlace(postgresql)
    here = Site(place, "a", "b", raw_hours=12.0, minute_days=0.5, hour_days=0.5)  # type: ignore[arg-type]
    here.archive._most_bytes = most = 300_000
    try:
        largest = 0
        for _ in range(8):
            here.run(3600, every=5)
            largest = max(largest, sum(place.relation_size(f"history_{level}") for level in ("raw", "minute", "hour")))
        assert here.archive._share < 1.0, "there was too much"
        assert here.archive._used_bytes() <= most
        assert largest <= 1.25 * most
        recent = here.loads(here.wall - 600 - here.wall % 60, here.wall - here.wall % 60, 60)
        assert recent == [1.0] * 10, "what is new is kept"
        assert here.loads(START, START + 3600, 60) == [None] * 60, "and what is old is not"
    finally:
        here.archive.stop()
