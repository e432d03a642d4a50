"""What happened and what was decided, on disk: SQLite, or PostgreSQL by URL.

Nothing here may delay a failover or end the daemon. `record_*` only appends to memory and returns; one writer thread
commits in batches. What is not on disk yet is part of every read. A disk that is full, read-only or damaged makes
`problem` say so, keeps the newest rows in memory, and is tried again until it works.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Collection
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from vagus_controller import journals
from vagus_controller.database import Database
from vagus_controller.journals import E, Journal, entry_of, row_of
from vagus_controller.views import EventEntry, IncidentView, LedgerEntry, Severity, Wanted
from vagus_runtime.settings import ConfigError

log = logging.getLogger("vagus.store")

SCHEMA_VERSION: Final = 1
MAX_LIMIT: Final = 1000
# Rows of one transaction, so that state that is to be kept is behind some ten milliseconds of work at most.
_BATCH: Final = 1000
# Seconds a row waits for company: fewer commits, less wear of an SD card.
_GATHER_S: Final = 0.1
# Pages that one transaction gives back: 4 MB.
_VACUUM_PAGES: Final = 1000
_STOP_WAIT_S: Final = 5.0
_PRUNE_EVERY_S: Final = 600.0
_PRUNE_EVERY_ROWS: Final = 1000
_RETRY_S: Final = 2.0


class Store:
    """views.History, and what writes it. `start` before use, `stop` to flush. Any thread may call any method."""

    def __init__(self, url: str, keep_days: float, keep_rows: int) -> None:
        """`keep_rows` bounds each of the tables: events, ledger, incidents."""
        self._database = Database(make_url(url), journals.metadata, journals.schema, SCHEMA_VERSION)
        self._keep_s = keep_days * 86400
        self._keep_rows = keep_rows
        self._engine: Engine | None = None
        self._events = Journal(journals.events, EventEntry)
        self._ledger = Journal(journals.ledger, LedgerEntry)
        self._incidents = Journal(journals.incidents, IncidentView)
        self._journals: tuple[Journal[Any], ...] = (self._events, self._ledger, self._incidents)
        self._unsaved: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._saved = threading.Condition(self._lock)
        self._stopping = False
        # The database may have been replaced under its connections: look at it anew before the next write.
        self._suspect = True
        self._problem = ""
        self._prune_at = 0.0
        self._prune_rows = 0
        self._writer: threading.Thread | None = None

    @property
    def problem(self) -> str:
        """Why history is not on disk, and what to do; "" when all is well."""
        return self._problem

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Opens the database and starts the writer. Raises ConfigError only for a schema newer than this program's."""
        try:
            self._open()
        except SQLAlchemyError as error:
            self._failed(error)
        self._writer = threading.Thread(target=self._work, name="vagus-store", daemon=True)
        self._writer.start()

    def stop(self) -> None:
        """Writes what waits, at most 5 s long."""
        with self._lock:
            self._stopping = True
            self._wake.notify()
        if self._writer is not None:
            self._writer.join(_STOP_WAIT_S)
        with self._lock:
            left = sum(len(journal.waiting) for journal in self._journals)
        if left:
            log.error("store: %d rows were not written: %s", left, self._problem or "the disk is too slow")
        if self._engine is not None:
            self._engine.dispose()

    def _open(self) -> None:
        with self._database.opened() as (engine, connection):
            last = [connection.scalar(sa.select(sa.func.max(each.table.c.id))) for each in self._journals]
        with self._lock:
            for journal, newest in zip(self._journals, last, strict=True):
                floor = (newest or 0) + 1
                journal.next_id = max(journal.next_id, floor) if journal.used else floor
            self._engine, previous = engine, self._engine
            self._suspect = False
        if previous is not None:
            previous.dispose()

    # --- writing -------------------------------------------------------------------------------------------------

    def record_event(
        self, *, at: float, source: str, kind: str, subject: str, text: str, severity: Severity
    ) -> EventEntry:
        with self._lock:
            entry = self._events.add(
                EventEntry(
                    id=self._events.take_id(),
                    at=at,
                    source=source,
                    kind=kind,
                    subject=subject,
                    text=text,
                    severity=severity,
                )
            )
            self._wake.notify()
        return entry

    def record_ledger(
        self,
        *,
        at: float,
        who: str,
        action: str,
        subject: str,
        reason: str,
        evidence: tuple[str, ...],
        outcome: str,
    ) -> LedgerEntry:
        with self._lock:
            entry = self._ledger.add(
                LedgerEntry(
                    id=self._ledger.take_id(),
                    at=at,
                    who=who,
                    action=action,
                    subject=subject,
                    reason=reason,
                    evidence=evidence,
                    outcome=outcome,
                )
            )
            self._wake.notify()
        return entry

    def update_outcome(self, ledger_id: int, outcome: str) -> None:
        with self._lock:
            waiting = self._ledger.waiting.get(ledger_id)
            if waiting is not None:
                self._ledger.waiting[ledger_id] = msgspec.structs.replace(waiting, outcome=outcome)
            self._ledger.outcomes[ledger_id] = outcome
            while len(self._ledger.outcomes) > journals.WAITING:
                del self._ledger.outcomes[next(iter(self._ledger.outcomes))]
            self._wake.notify()

    def new_incident_id(self, above: int = 0) -> int:
        with self._lock:
            self._incidents.next_id = max(self._incidents.next_id, above + 1)
            return self._incidents.take_id()

    def record_incident(self, incident: IncidentView) -> None:
        """In the place of what was recorded of it before."""
        with self._lock:
            # As the newest, so that it is not the first to go when too many wait.
            self._incidents.waiting.pop(incident.id, None)
            self._incidents.add(incident)
            self._wake.notify()

    def keep_state(self, key: str, value: bytes) -> None:
        """Keeps `value` under `key`: at once in memory, synced to disk soon.

        Nobody waits for the disk: an SD card may take seconds, and a failover would wait with it.
        """
        with self._lock:
            self._unsaved[key] = value
            self._wake.notify()

    def close_open(self, open_outcomes: Collection[str], words: str) -> None:
        """The newest decisions that an earlier life left with one of these outcomes get `words` instead."""
        ledger = journals.ledger.c
        newest = sa.select(ledger.id, ledger.outcome).order_by(ledger.id.desc()).limit(journals.WAITING)
        for row in self._read(newest):
            if row["outcome"] in open_outcomes:
                self.update_outcome(row["id"], words)

    def wait_for_state(self, key: str, within_s: float) -> bool:
        """Whether what was last kept under `key` is on disk. Waits: not for the event loop."""
        with self._lock:
            self._saved.wait_for(lambda: key not in self._unsaved or bool(self._problem), within_s)
            return key not in self._unsaved

    def load_state(self, key: str) -> bytes | None:
        with self._lock:
            if key in self._unsaved:
                return self._unsaved[key]
        rows = self._read(sa.select(journals.state.c.value).where(journals.state.c.key == key))
        return bytes(rows[0]["value"]) if rows else None

    # --- views.History -------------------------------------------------------------------------------------------

    def events(self, wanted: Wanted) -> list[EventEntry]:
        return self._list(self._events, wanted)

    def ledger(self, wanted: Wanted) -> list[LedgerEntry]:
        return self._list(self._ledger, wanted)

    def incidents(self, wanted: Wanted) -> list[IncidentView]:
        return self._list(self._incidents, wanted)

    def incident(self, incident_id: int) -> IncidentView | None:
        found = self.incidents(Wanted(1, before=incident_id + 1))
        return found[0] if found and found[0].id == incident_id else None

    def _list(self, journal: Journal[E], wanted: Wanted) -> list[E]:
        wanted = wanted._replace(limit=max(1, min(wanted.limit, MAX_LIMIT)))
        # Memory first: a row that reaches the disk meanwhile is seen twice, never missed.
        with self._lock:
            waiting = journal.selected(wanted)
            outcomes = dict(journal.outcomes)
        found = {row["id"]: entry_of(row, journal.kind) for row in self._read(journal.query(wanted))}
        for entry_id in outcomes.keys() & found.keys():
            found[entry_id] = msgspec.structs.replace(found[entry_id], outcome=outcomes[entry_id])
        found |= {entry.id: entry for entry in waiting}
        return [found[entry_id] for entry_id in sorted(found, reverse=True)[: wanted.limit]]

    def _read(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        engine = self._engine
        if engine is None:
            return []
        try:
            with engine.connect() as connection:
                # SQLAlchemy's column names are a subclass of str, which msgspec does not take for keys.
                return [{str(name): row[name] for name in row} for row in connection.execute(query).mappings()]
        except (SQLAlchemyError, ValueError) as error:
            self._failed(error)
            return []

    # --- the writer thread ---------------------------------------------------------------------------------------

    def _has_work(self) -> bool:
        return bool(any(each.waiting or each.outcomes for each in self._journals) or self._unsaved or self._problem)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._wake.wait_for(lambda: self._stopping or self._has_work(), _PRUNE_EVERY_S)
                self._wake.wait_for(lambda: self._stopping or bool(self._unsaved), _GATHER_S)
                stopping = self._stopping
            try:
                if self._suspect:
                    self._open()
                self._write_state()
                while self._write_batch():
                    self._write_state()
                self._prune_if_due()
                self._recovered()
            except ConfigError as error:
                # Another program migrated the database while this one waited for it.
                self._failed(error)
            except (SQLAlchemyError, sqlite3.Error) as error:
                # sqlite3's own: what is asked of its cursor directly, SQLAlchemy does not translate.
                self._failed(error)
            except Exception as error:
                log.exception("store: a bug; history stays in memory")
                self._failed(error)
            if stopping:
                return
            if self._problem:
                with self._lock:
                    self._wake.wait_for(lambda: self._stopping, _RETRY_S)

    def _write_state(self) -> None:
        with self._lock:
            unsaved = dict(self._unsaved)
        if not unsaved:
            return
        assert self._engine is not None
        with self._engine.connect() as connection:
            if self._database.is_sqlite:
                connection.exec_driver_sql("PRAGMA synchronous=FULL")
                connection.commit()
            try:
                for key, value in unsaved.items():
                    connection.execute(sa.delete(journals.state).where(journals.state.c.key == key))
                    connection.execute(sa.insert(journals.state).values(key=key, value=value))
                connection.commit()
            finally:
                connection.rollback()
                if self._database.is_sqlite:
                    connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
        with self._lock:
            for key, value in unsaved.items():
                if self._unsaved.get(key) is value:
                    del self._unsaved[key]
            self._saved.notify_all()

    def _write_batch(self) -> bool:
        """One transaction; whether more waits."""
        with self._lock:
            batches: list[tuple[Journal[Any], list[Any]]] = [
                (journal, list(journal.waiting.values())[:_BATCH]) for journal in self._journals
            ]
            newest = {entry.id for _, entries in batches for entry in entries if isinstance(entry, LedgerEntry)}
            # An outcome follows its row.
            outcomes = {
                entry_id: outcome
                for entry_id, outcome in self._ledger.outcomes.items()
                if entry_id in newest or entry_id not in self._ledger.waiting
            }
        if not outcomes and not any(entries for _, entries in batches):
            return False
        assert self._engine is not None
        with self._engine.begin() as connection:
            for journal, entries in batches:
                if entries:
                    connection.execute(self._insert(journal.table), [row_of(entry) for entry in entries])
            for entry_id, outcome in outcomes.items():
                connection.execute(
                    sa.update(journals.ledger)
                    .where(journals.ledger.c.id == entry_id)
                    .values(outcome=journals.visible(outcome))
                )
        with self._lock:
            for journal, entries in batches:
                journal.written(entries)
            for entry_id, outcome in outcomes.items():
                if self._ledger.outcomes.get(entry_id) == outcome:
                    del self._ledger.outcomes[entry_id]
            self._prune_rows += sum(len(entries) for _, entries in batches)
            return any(journal.waiting for journal in self._journals)

    def _insert(self, table: sa.Table) -> sa.Insert:
        """An insert that may be repeated: whether a commit that failed took place is not always known."""
        insert = self._database.insert(table)
        if table is not journals.incidents:
            return insert.on_conflict_do_nothing()
        return insert.on_conflict_do_update(index_elements=["id"], set_=dict(insert.excluded))

    def _prune_if_due(self) -> None:
        now = time.monotonic()
        if now < self._prune_at and self._prune_rows < _PRUNE_EVERY_ROWS:
            return
        assert self._engine is not None
        for table in (journal.table for journal in self._journals):
            with self._engine.connect() as connection:
                newest_too_many = connection.scalar(
                    sa.select(table.c.id).order_by(table.c.id.desc()).offset(self._keep_rows).limit(1)
                )
            old = table.c.at < time.time() - self._keep_s
            too_many = table.c.id <= (newest_too_many if newest_too_many is not None else -1)
            for which in (old, too_many):
                self._delete(table, which)
        if self._database.is_sqlite:
            self._give_back()
        self._prune_at = now + _PRUNE_EVERY_S
        self._prune_rows = 0

    def _delete(self, table: sa.Table, which: sa.ColumnElement[bool]) -> None:
        """In small transactions, so that state and new rows need not wait for a big one."""
        assert self._engine is not None
        count = _BATCH
        while count == _BATCH:
            some = sa.select(table.c.id).where(which).limit(_BATCH)
            with self._engine.begin() as connection:
                count = connection.execute(sa.delete(table).where(table.c.id.in_(some))).rowcount
            self._write_state()

    def _give_back(self) -> None:
        """Free pages go back to the disk, and the WAL, which is never shortened by itself, is emptied."""
        assert self._engine is not None
        with self._engine.connect() as connection:
            cursor = connection.connection.cursor()
            before, free = None, cursor.execute("PRAGMA freelist_count").fetchone()[0]
            # A database that another program made may not be able to shrink.
            while free and free != before:
                # As a script: `execute` takes one step, which frees one page.
                cursor.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
                self._write_state()
                before, free = free, cursor.execute("PRAGMA freelist_count").fetchone()[0]
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # --- trouble -------------------------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> None:
        problem = self._database.trouble("history is", error, log)
        with self._lock:
            self._problem = problem
            self._suspect = True
            self._saved.notify_all()
            self._wake.notify()

    def _recovered(self) -> None:
        if not self._problem:
            return
        with self._lock:
            lost = sum(journal.lost for journal in self._journals)
            for journal in self._journals:
                journal.lost = 0
        log.warning("store: %s works again; %d rows, the oldest ones, were lost meanwhile", self._database.name, lost)
        with self._lock:
            self._problem = ""
