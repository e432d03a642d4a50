"""Charts are kept alike in SQLite and in a real PostgreSQL, and within their bounds there too."""

from __future__ import annotations

import os
from collections.abc import Callable

from contract.postgresql import PostgresPlace, PostgreSQL
from unit import test_archive as suite
from unit.test_archive import START, Charts, _breathless, site
from vagus_controller.archive import Archive, _id
from vagus_controller.config import History
from vagus_controller.core.rollup import LEVELS, MINUTE, RAW

__all__ = ["_breathless", "site"]

FILE = Charts
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


def test_its_bytes_are_bounded_on_the_disk_of_a_server_too(postgresql: PostgreSQL) -> None:
    """Where nobody else cleans up: this server's autovacuum is off."""
    place = PostgresPlace(postgresql)
    here = Archive(place.url, History(raw_hours=200.0, minute_days=9.0))
    here._most_bytes = most = 3_000_000
    here._open()
    assert here._engine is not None
    try:
        taken, at = [], START
        for _ in range(12):
            with here._engine.begin() as connection:
                number = here._number(connection, "a")
                # Also such that PostgreSQL keeps beside their table.
                for level, step, size in ((RAW, RAW.row_s, 700), (MINUTE, MINUTE.row_s, 2600)):
                    times = range(at, at + 60_000, step)
                    rows = [{"id": _id(number, time), "data": os.urandom(size)} for time in times]
                    here._insert(connection, level, rows)
            at += 60_000
            here._prune(at)
            taken.append(sum(place.relation_size(f"history_{level.name}") for level in LEVELS))
        # Two thirds of what came had to go; between two prunings a twelfth comes.
        assert max(taken) <= 1.4 * most
        assert here._used_bytes() <= most
        [(oldest, newest)] = place.ask("select min(id), max(id) from history_raw")
        assert (oldest > _id(number, START), newest) == (True, _id(number, at - RAW.row_s))
    finally:
        here.stop()
