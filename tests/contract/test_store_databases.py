"""What happened is kept alike in SQLite and in a real PostgreSQL, which may go away, be another's, or be unfit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from contract.postgresql import PostgresPlace, PostgreSQL
from unit import test_store as suite
from unit.test_store import Opener, Place, decision, event, opened, saved, until
from vagus_controller.store import Store
from vagus_controller.views import Wanted

__all__ = ["opened"]

FILE = Place
# What is about files and their disks is in tests/unit alone.
SUITE: tuple[Callable[..., None], ...] = (
    suite.test_what_is_recorded_is_read_at_once_and_after_a_restart,
    suite.test_rows_are_on_disk_without_a_stop,
    suite.test_an_outcome_is_updated_before_and_after_its_row_is_on_disk,
    suite.test_what_an_earlier_life_left_open_is_closed,
    suite.test_paging_and_limits_over_disk_and_memory,
    suite.test_a_subject_brings_what_belongs_to_it,
    suite.test_any_text_is_kept,
    suite.test_state_is_on_disk_soon_and_the_newest_counts,
    suite.test_many_threads_at_once_lose_nothing,
    suite.test_old_rows_go_at_start,
    suite.test_a_newer_schema_is_an_error_in_words,
)
globals().update({test.__name__: test for test in SUITE})


def test_rows_beyond_the_limit_go(opened: Opener, place: Place) -> None:
    store = opened(place, keep_rows=1000)
    for _ in range(5000):
        event(store)
        decision(store)
    until(lambda: not store._events.waiting and not store._ledger.waiting, "the rows are written")
    store.stop()
    again = opened(place, keep_rows=1000)
    event(again)
    until(lambda: again._prune_at > 0, "the first pruning")
    assert place.ask("select count(*) from events") == [(1000,)]
    assert place.ask("select count(*) from ledger") == [(1000,)]
    assert len(again.events(Wanted(1000))) == 1000


# --- a server that does not work ------------------------------------------------------------------------------------


@pytest.fixture
def base(postgresql: PostgreSQL) -> PostgresPlace:
    return PostgresPlace(postgresql)


def test_a_server_that_stops_is_told_outlived_and_recovered_from(
    opened: Opener, base: PostgresPlace, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(base)
    first = event(store)
    assert saved(store, b"before")
    base.server.stop()
    try:
        with caplog.at_level(logging.WARNING, "vagus.store"):
            rest = [event(store) for _ in range(50)]
            until(lambda: store.problem != "", "the problem is told")
            assert "kept in memory only" in store.problem
            assert "\n" not in store.problem
            assert not saved(store, b"while away")
            assert store.load_state("controller") == b"while away"
            assert store.events(Wanted(50)) == rest[::-1]
    finally:
        base.server.start()
    until(lambda: store.problem == "" and not store._events.waiting, "the store recovers")
    assert store.events(Wanted(100)) == [*rest[::-1], first]
    assert bytes(base.ask("select value from state")[0][0]) == b"while away"


def test_a_server_that_restarts_between_two_rows_costs_none(opened: Opener, base: PostgresPlace) -> None:
    store = opened(base)
    first = event(store)
    until(lambda: not store._events.waiting, "the row is written")
    base.server.stop()
    base.server.start()
    second = event(store)
    until(lambda: not store._events.waiting and store.problem == "", "the row is written")
    assert store.events(Wanted(10)) == [second, first]
    assert base.ask("select count(*) from events") == [(2,)]


def test_a_server_that_answers_nothing_does_not_keep_the_controller_from_starting(
    opened: Opener, base: PostgresPlace
) -> None:
    base.server.freeze()
    try:
        starting = threading.Thread(target=lambda: opened(base), daemon=True)
        starting.start()
        starting.join(60)
        assert not starting.is_alive()
    finally:
        base.server.thaw()


def test_a_database_that_is_not_there_yet(opened: Opener, base: PostgresPlace) -> None:
    base.ask("select 1")
    base.server.ask("postgres", f"drop database {base.name}")
    store = opened(base)
    entry = event(store)
    assert f'database "{base.name}" does not exist' in store.problem
    assert store.events(Wanted(10)) == [entry]
    base.server.ask("postgres", f"create database {base.name}")
    until(lambda: store.problem == "" and not store._events.waiting, "the store recovers")
    assert base.ask("select count(*) from events") == [(1,)]


def test_a_user_who_may_make_no_tables_is_told_what_to_do(opened: Opener, base: PostgresPlace) -> None:
    base.server.ask("postgres", "drop role if exists guest")
    base.server.ask("postgres", "create role guest login")
    base.url = base.server.url(base.name, "guest")
    store = opened(base)
    assert "permission denied" in store.problem
    assert "make this user the owner of the database" in store.problem
    base.server.ask("postgres", f"alter database {base.name} owner to guest")
    until(lambda: store.problem == "", "the store recovers")


def test_a_database_of_another_encoding_is_refused(opened: Opener, postgresql: PostgreSQL) -> None:
    place = PostgresPlace(postgresql, "encoding 'LATIN1' template template0")
    assert "its encoding is LATIN1: make one with ENCODING 'UTF8'" in opened(place).problem
    assert place.ask("select count(*) from pg_tables where schemaname = 'public'") == [(0,)]


def test_two_controllers_do_not_share_a_database(opened: Opener, base: PostgresPlace) -> None:
    ours = opened(base)
    theirs = opened(base)
    assert "another vagus-controller has it open, from this machine: each needs a database of its own" in theirs.problem
    entry, other = event(ours), event(theirs)
    assert saved(ours, b"ours")
    assert not saved(theirs, b"theirs")
    assert ours.events(Wanted(10)) == [entry]
    assert theirs.events(Wanted(10)) == [other]
    ours.stop()
    until(lambda: theirs.problem == "" and not theirs._events.waiting, "the other one takes over")
    assert {each.id for each in theirs.events(Wanted(10))} == {entry.id, other.id}


def test_what_the_url_says_of_the_connection_stands(base: PostgresPlace) -> None:
    store = Store(f"{base.url}&options=-c%20statement_timeout%3D4321&connect_timeout=7", 90.0, 1000)
    store.start()
    try:
        assert store._engine is not None
        with store._engine.connect() as connection:
            assert connection.exec_driver_sql("show statement_timeout").scalar() == "4321ms"
            assert connection.exec_driver_sql("show application_name").scalar().startswith("vagus schema ")
    finally:
        store.stop()
