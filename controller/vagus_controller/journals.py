"""The tables of what happened, was decided and was wrong, and those of their rows that are not on disk yet."""

from __future__ import annotations

import time
from typing import Any, Final, Generic, TypeVar

import msgspec
import sqlalchemy as sa

from vagus_controller.views import EventEntry, IncidentView, LedgerEntry, Wanted

# Rows of a table that wait in memory for a disk that does not work; beyond it the oldest go. About 5 MB.
WAITING: Final = 10_000

metadata = sa.MetaData()
# SQLite makes a column its rowid only when it is spelled INTEGER.
_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
schema = sa.Table("schema", metadata, sa.Column("version", sa.Integer, nullable=False))
state = sa.Table(
    "state",
    metadata,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Double, nullable=False, index=True),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("text", sa.String, nullable=False),
    sa.Column("severity", sa.String, nullable=False),
)
ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Double, nullable=False, index=True),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
)

# One row an incident, which is written anew when the incident has changed; columns as views.IncidentView has fields.
incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Double, nullable=False, index=True),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("severity", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    # The rest of the view.
    sa.Column("body", sa.JSON, nullable=False),
)

E = TypeVar("E", bound=EventEntry | LedgerEntry | IncidentView)


def _concerns(subject: sa.ColumnElement[str], wanted: str) -> sa.ColumnElement[bool]:
    """`views.concerns` in SQL."""
    return sa.or_(
        subject == wanted,
        subject.startswith(f"{wanted}/", autoescape=True),
        subject.startswith(f"{wanted}--", autoescape=True),
        subject.endswith(f"--{wanted}", autoescape=True),
        subject.contains(f"--{wanted}/", autoescape=True),
    )


def row_of(entry: EventEntry | LedgerEntry | IncidentView) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(entry)
    # PostgreSQL has no text with a NUL.
    row = {name: visible(value) if isinstance(value, str) else value for name, value in row.items()}
    if not isinstance(entry, IncidentView):
        return row
    body = {name: row.pop(name) for name in list(row) if name not in incidents.c}
    return {**row, "body": body}


def visible(text: str) -> str:
    """As it is kept."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def entry_of(row: dict[str, Any], kind: type[E]) -> E:
    return msgspec.convert({**row, **row.pop("body", {})}, kind)


class Journal(Generic[E]):
    """One table of entries, and those of its rows that are not on disk yet, by id in the order they came."""

    def __init__(self, table: sa.Table, kind: type[E]) -> None:
        self.table = table
        self.kind = kind
        # Until the database tells its last id: beyond all that it can hold, so that ids only ever grow.
        self.next_id = int(time.time() * 1000)
        self.used = False
        self.waiting: dict[int, E] = {}
        self.outcomes: dict[int, str] = {}
        self.lost = 0

    def take_id(self) -> int:
        self.used = True
        self.next_id += 1
        return self.next_id - 1

    def add(self, entry: E) -> E:
        self.waiting[entry.id] = entry
        while len(self.waiting) > WAITING:
            del self.waiting[next(iter(self.waiting))]
            self.lost += 1
        return entry

    def written(self, entries: list[E]) -> None:
        """They are on disk; an incident may be another by now, which is not."""
        for entry in entries:
            number = entry.id
            if self.waiting.get(number) is entry:
                del self.waiting[number]

    def selected(self, wanted: Wanted) -> list[E]:
        """The waiting rows that a read wants, newest first."""
        found = filter(wanted.takes, self.waiting.values())
        return sorted(found, key=lambda entry: -entry.id)[: wanted.limit]

    def query(self, wanted: Wanted) -> sa.Select[Any]:
        columns = self.table.c
        query = sa.select(self.table).order_by(columns.id.desc()).limit(wanted.limit)
        if wanted.before is not None:
            query = query.where(columns.id < wanted.before)
        if wanted.subject is not None:
            query = query.where(_concerns(columns.subject, wanted.subject))
        if wanted.since is not None:
            query = query.where(columns.at >= wanted.since)
        if wanted.until is not None:
            query = query.where(columns.at < wanted.until)
        return query
