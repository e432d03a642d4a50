"""The store on real SQLite files: on a disk that works, that is full, that is read-only, and under a damaged file."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vagus_controller import journals
from vagus_controller import store as store_module
from vagus_controller.store import SCHEMA_VERSION, Store
from vagus_controller.views import EventEntry, LedgerEntry, Severity, Wanted, concerns
from vagus_runtime.settings import ConfigError


class Place:
    """Where stores are: a file. tests/contract has another."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.url = f"sqlite:///{file}"

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """What another program finds there."""
        with contextlib.closing(sqlite3.connect(self.file)) as other, other:
            return other.execute(sql).fetchall()

    def size(self) -> int:
        """Bytes on disk."""
        return sum(each.stat().st_size for each in self.file.parent.iterdir())


def event(store: Store, subject: str = "pi-1", *, at: float | None = None, text: str = "it happened") -> EventEntry:
    at = time.time() if at is None else at
    return store.record_event(at=at, source="pi-1", kind="link", subject=subject, text=text, severity=Severity.WARNING)


def decision(store: Store, subject: str = "a--b", outcome: str = "started") -> LedgerEntry:
    return store.record_ledger(
        at=time.time(),
        who="vagus",
        action="failover",
        subject=subject,
        reason="the overlay is down",
        evidence=("a: down", "b: down"),
        outcome=outcome,
    )


def until(condition: Callable[[], bool], what: str) -> None:
    """For what the writer thread does in its own time."""
    deadline = time.monotonic() + 20
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within 20 s: {what}"
        pause.wait(0.01)


def fill(ballast: Path) -> None:
    """Takes all space that is left on a disk."""
    with ballast.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 4096)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "vagus.db")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Store]]:
    """Opens stores, and stops them at the end."""
    monkeypatch.setattr(store_module, "_RETRY_S", 0.05)
    stores: list[Store] = []

    def open_store(place: Place, keep_days: float = 90.0, keep_rows: int = 10_000) -> Store:
        store = Store(place.url, keep_days, keep_rows)
        store.start()
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        store.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "vagus-test", disk], check=True, timeout=10)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True, timeout=10)


Opener = Callable[..., Store]


# --- a disk that works --------------------------------------------------------------------------------------------


def test_what_is_recorded_is_read_at_once_and_after_a_restart(opened: Opener, place: Place) -> None:
    store = opened(place)
    first, second = event(store), event(store, "a--b/overlay")
    entry = decision(store)
    assert store.events(Wanted(10)) == [second, first]
    assert store.ledger(Wanted(10)) == [entry]
    store.stop()
    again = opened(place)
    assert again.events(Wanted(10)) == [second, first]
    assert again.ledger(Wanted(10)) == [entry]
    assert event(again).id == second.id + 1
    assert decision(again).id == entry.id + 1


def test_rows_are_on_disk_without_a_stop(opened: Opener, place: Place) -> None:
    store = opened(place)
    event(store)
    until(lambda: not store._events.waiting, "the row is written")
    assert place.ask("select subject, severity from events") == [("pi-1", "warning")]


def test_an_outcome_is_updated_before_and_after_its_row_is_on_disk(opened: Opener, place: Place) -> None:
    store = opened(place)
    entry = decision(store)
    store.update_outcome(entry.id, "one end applied")
    assert store.ledger(Wanted(1))[0].outcome == "one end applied"
    until(lambda: not store._ledger.waiting and not store._ledger.outcomes, "the row is written")
    store.update_outcome(entry.id, "both ends applied")
    assert store.ledger(Wanted(1))[0].outcome == "both ends applied"
    store.stop()
    assert opened(place).ledger(Wanted(1))[0].outcome == "both ends applied"


def test_what_an_earlier_life_left_open_is_closed(opened: Opener, place: Place) -> None:
    store = opened(place)
    done, open_ = decision(store, outcome="done"), decision(store, outcome="under way")
    store.stop()
    again = opened(place)
    again.close_open(("under way", "on trial"), "not known")
    fresh = decision(again, outcome="under way")
    expected = {done.id: "done", open_.id: "not known", fresh.id: "under way"}
    assert {entry.id: entry.outcome for entry in again.ledger(Wanted(10))} == expected
    again.stop()
    assert {entry.id: entry.outcome for entry in opened(place).ledger(Wanted(10))} == expected


def test_paging_and_limits_over_disk_and_memory(opened: Opener, place: Place) -> None:
    store = opened(place)
    ids = [event(store).id for _ in range(30)]
    until(lambda: not store._events.waiting, "the rows are written")
    ids += [event(store).id for _ in range(5)]
    newest = [entry.id for entry in store.events(Wanted(10))]
    assert newest == ids[:-11:-1]
    assert [entry.id for entry in store.events(Wanted(100, before=newest[-1]))] == ids[-11::-1]
    assert len(store.events(Wanted(-3))) == 1


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("a", {"a", "a--b", "a--b/overlay", "a--c"}),
        ("c", {"a--c"}),
        ("b", {"a--b", "a--b/overlay", "xb--b"}),
        ("a--b", {"a--b", "a--b/overlay"}),
        ("a--b/overlay", {"a--b/overlay"}),
        ("x_", set()),
        ("%", set()),
    ],
)
def test_a_subject_brings_what_belongs_to_it(opened: Opener, place: Place, wanted: str, expected: set[str]) -> None:
    subjects = ["a", "a--b", "a--b/overlay", "a--c", "xb--b", "A--x", "y--B", "fleet"]
    store = opened(place)
    for subject in subjects:
        event(store, subject)
    assert {subject for subject in subjects if concerns(subject, wanted)} == expected
    until(lambda: not store._events.waiting, "the rows are written")
    assert {entry.subject for entry in store.events(Wanted(100, subject=wanted))} == expected


def saved(store: Store, value: bytes) -> bool:
    """Whether the state is on disk in the end."""
    store.keep_state("controller", value)
    return store.wait_for_state("controller", 20)


def test_any_text_is_kept(opened: Opener, place: Place) -> None:
    store = opened(place)
    odd = '50 % of Zürich\'s "π" 🥧; drop table events;\n\t\\'
    texts = {event(store, text=text).id: text for text in (odd, "a\0b", "")}
    entry, late = decision(store, outcome="a\0b"), decision(store)
    until(lambda: not store._events.waiting and not store._ledger.waiting, "the rows are written")
    store.update_outcome(late.id, "c\0d")
    until(lambda: not store._ledger.outcomes, "the outcome is written")
    assert store.problem == ""
    kept = {each.id: each.text for each in store.events(Wanted(10))}
    assert kept == {number: text.replace("\0", "\N{REPLACEMENT CHARACTER}") for number, text in texts.items()}
    assert [each.outcome for each in store.ledger(Wanted(2))] == [
        "c\N{REPLACEMENT CHARACTER}d",
        "a\N{REPLACEMENT CHARACTER}b",
    ]
    assert store.ledger(Wanted(2))[1] == msgspec.structs.replace(entry, outcome="a\N{REPLACEMENT CHARACTER}b")


def test_state_is_on_disk_soon_and_the_newest_counts(opened: Opener, place: Place) -> None:
    store = opened(place)
    assert store.load_state("controller") is None
    assert saved(store, b"epoch 3")
    assert saved(store, b"epoch 4")
    assert [bytes(value) for (value,) in place.ask("select value from state")] == [b"epoch 4"]
    store.stop()
    assert opened(place).load_state("controller") == b"epoch 4"


def test_many_threads_at_once_lose_nothing(opened: Opener, place: Place) -> None:
    store = opened(place)
    threads = [threading.Thread(target=lambda: [event(store) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found = [entry.id for entry in store.events(Wanted(1000))]
        assert found == sorted(set(found), reverse=True)
    for thread in threads:
        thread.join()
    store.stop()
    assert place.ask("select count(*), count(distinct id) from events") == [(2000, 2000)]


# --- nothing grows for ever ----------------------------------------------------------------------------------------


def test_old_rows_go_at_start(opened: Opener, place: Place) -> None:
    store = opened(place)
    event(store, at=time.time() - 8 * 86400)
    kept = event(store, at=time.time() - 6 * 86400)
    store.stop()
    again = opened(place, keep_days=7)
    assert saved(again, b"a barrier")
    until(lambda: again._prune_at > 0, "the first pruning")
    assert again.events(Wanted(10)) == [kept]


def test_rows_beyond_the_limit_go_and_the_disk_gets_its_space_back(opened: Opener, place: Place) -> None:
    store = opened(place, keep_rows=1_000_000)
    for _ in range(5000):
        event(store, text="x" * 500)
    store.stop()
    before = place.size()
    again = opened(place, keep_rows=1000)
    event(again)
    until(lambda: again._prune_at > 0, "the first pruning")
    again.stop()
    assert place.ask("select count(*) from events") == [(1000,)]
    assert place.size() < before / 3


def test_a_busy_store_stays_small(opened: Opener, place: Place) -> None:
    store = opened(place, keep_rows=1000)
    largest = 0
    for _ in range(20):
        for _ in range(1000):
            event(store, text="x" * 200)
        until(lambda: not store._events.waiting, "the rows are written")
        largest = max(largest, place.size())
    # 20,000 rows of 0.3 kB went through; 1,000 to 3,000 rows, their indexes and a WAL of at most 4 MiB may stand.
    assert largest < 6_000_000
    assert len(store.events(Wanted(1000))) == 1000


# --- a disk that does not work --------------------------------------------------------------------------------------


def test_a_full_disk_is_told_outlived_and_recovered_from(
    opened: Opener, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(Place(small_disk / "vagus.db"))
    assert saved(store, b"before")
    ballast = small_disk / "ballast"
    fill(ballast)
    with caplog.at_level(logging.WARNING, "vagus.store"):
        ids = [event(store, text="x" * 500).id for _ in range(3000)]
        until(lambda: store.problem != "", "the problem is told")
        assert "full" in store.problem
        assert "make room on its disk" in store.problem
        started = time.monotonic()
        assert not saved(store, b"while full")
        assert time.monotonic() - started < 0.5
        assert store.load_state("controller") == b"while full"
        assert [entry.id for entry in store.events(Wanted(5))] == ids[:-6:-1]
        tries = [saved(store, b"still full") for _ in range(50)]
        assert not any(tries)
        assert len([line for line in caplog.messages if "memory only" in line]) <= 2
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True, timeout=10)
        until(lambda: store.problem == "", "the store recovers")
        assert "works again" in caplog.text
    store.stop()
    again = opened(Place(small_disk / "vagus.db"))
    assert again.load_state("controller") == b"still full"
    assert [entry.id for entry in again.events(Wanted(1000))] == ids[:-1001:-1]


def test_memory_is_bounded_while_the_disk_is_away(
    opened: Opener, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "WAITING", 100)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True, timeout=10)
    store = opened(Place(small_disk / "vagus.db"))
    assert store.problem
    entries = [event(store) for _ in range(250)]
    assert store.events(Wanted(1000)) == entries[:-101:-1]
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True, timeout=10)
    until(lambda: store.problem == "" and not store._events.waiting, "the store recovers")
    assert store.events(Wanted(1000)) == entries[:-101:-1]
    assert event(store).id > entries[-1].id


def test_a_disk_that_turns_read_only(opened: Opener, small_disk: Path) -> None:
    store = opened(Place(small_disk / "vagus.db"))
    first = event(store)
    assert saved(store, b"1")
    store.stop()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True, timeout=10)
    again = opened(Place(small_disk / "vagus.db"))
    second = event(again)
    until(lambda: again.problem != "", "the problem is told")
    assert "let this user write there" in again.problem
    assert second in again.events(Wanted(10))
    assert not saved(again, b"2")
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True, timeout=10)
    until(lambda: again.problem == "", "the store recovers")
    assert again.events(Wanted(10)) == [second, first]
    assert again.load_state("controller") == b"2"


@pytest.mark.parametrize(
    "content", [b"this is no database, " * 500, b"SQLite format 3\0" + os.urandom(20_000)], ids=["a text", "noise"]
)
def test_a_damaged_file_is_told_and_a_new_one_is_made_once_it_is_away(
    opened: Opener, place: Place, content: bytes
) -> None:
    place.file.write_bytes(content)
    store = opened(place)
    entry = event(store)
    assert "move it" in store.problem
    assert store.events(Wanted(10)) == [entry]
    assert store.load_state("controller") is None
    place.file.rename(place.file.with_suffix(".damaged"))
    until(lambda: store.problem == "" and not store._events.waiting, "the store recovers")
    assert store.events(Wanted(10)) == [entry]
    assert event(store).id == entry.id + 1


def test_a_missing_directory_is_told(opened: Opener, tmp_path: Path) -> None:
    store = opened(Place(tmp_path / "nowhere" / "vagus.db"))
    assert "make its directory" in store.problem
    (tmp_path / "nowhere").mkdir()
    until(lambda: store.problem == "", "the store recovers")


def test_a_newer_schema_is_an_error_in_words(opened: Opener, place: Place) -> None:
    opened(place).stop()
    place.ask(f"update schema set version = {SCHEMA_VERSION + 1} returning version")
    with pytest.raises(ConfigError, match="written by a newer vagus-controller"):
        Store(place.url, 90.0, 1000).start()
