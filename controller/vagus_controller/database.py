"""A database that may fail, SQLite or PostgreSQL by URL: how it is opened, its schema, and what is said of trouble."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from vagus_runtime.settings import ConfigError

_COMPLAIN_S: Final = 300.0
_BUSY_S: Final = 2.0
# Of libpq: a server that is away, or whose machine is, is noticed; and it notices us, so that what is left of us there
# keeps no next life of ours away. What the URL says instead stands.
_POSTGRESQL: Final = {
    "connect_timeout": "2",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "options": "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
}


class Unfit(SQLAlchemyError):
    """A database that answers, and cannot be ours."""


class Database:
    def __init__(self, url: URL, tables: sa.MetaData, version_of: sa.Table, version: int) -> None:
        """`version_of`: the table among `tables` that holds the schema's version; `version`: the one we know."""
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.name = url.database or "" if self.is_sqlite else url.render_as_string(hide_password=True)
        # SQLAlchemy's own choice is the driver of another age.
        self._url = url if self.is_sqlite else url.set(drivername="postgresql+psycopg")
        # As PostgreSQL shows its clients: all that keep such tables, and which of them we are.
        self._kind = f"vagus {version_of.name} "
        self._client = self._kind + secrets.token_hex(4)
        self._tables = tables
        self._version_of = version_of
        self._version = version
        self._complained = ("", float("-inf"))

    @contextmanager
    def opened(self) -> Iterator[tuple[Engine, Connection]]:
        """A new engine, and a transaction in which all tables are there; the engine stays open if both go well.

        Raises ConfigError when a newer program made the tables.
        """
        if self.is_sqlite:
            engine = sa.create_engine(self._url, connect_args={"timeout": _BUSY_S})
            sa.event.listen(engine, "connect", _set_up_sqlite)
        else:
            given = {name: value for name, value in _POSTGRESQL.items() if name not in self._url.query}
            engine = sa.create_engine(
                self._url, pool_pre_ping=True, connect_args={**given, "application_name": self._client}
            )
        try:
            with engine.begin() as connection:
                if not self.is_sqlite:
                    self._look_around(connection)
                self._make_tables(connection)
                yield engine, connection
        except BaseException:
            engine.dispose()
            raise

    def _make_tables(self, connection: Connection) -> None:
        self._version_of.create(connection, checkfirst=True)
        found = connection.scalar(sa.select(sa.func.max(self._version_of.c.version)))
        if found is not None and found > self._version:
            raise ConfigError(
                [
                    f"{self.name}: written by a newer vagus-controller (schema {found}, this one knows "
                    f"{self._version}); run that version, or name another file in store.url"
                ]
            )
        self._tables.create_all(connection)
        if found is None:
            connection.execute(sa.insert(self._version_of).values(version=self._version))

    def _look_around(self, connection: Connection) -> None:
        """Raises Unfit for a PostgreSQL database that another controller keeps, or that cannot hold every text."""
        encoding = connection.scalar(sa.text("select current_setting('server_encoding')"))
        if encoding != "UTF8":
            raise Unfit(f"its encoding is {encoding}: make one with ENCODING 'UTF8' TEMPLATE template0")
        found = connection.execute(
            sa.text(
                "select coalesce(host(client_addr), 'this machine') from pg_stat_activity"
                " where datname = current_database() and starts_with(application_name, :kind)"
                " and application_name <> :ours limit 1"
            ),
            {"kind": self._kind, "ours": self._client},
        ).scalar()
        if found is not None:
            raise Unfit(f"another vagus-controller has it open, from {found}: each needs a database of its own")

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def trouble(self, what: str, error: Exception, log: logging.Logger) -> str:
        """What to say of the error of `what`; it is logged, once in a while as long as it stays the same."""
        words = " ".join((str(error.orig) if isinstance(error, DBAPIError) else str(error)).split())
        problem = f"{self.name}: {what} kept in memory only: {words}; {_remedy(words)}"
        text, at = self._complained
        now = time.monotonic()
        if text != problem or now - at >= _COMPLAIN_S:
            self._complained = (problem, now)
            log.error("%s: %s", log.name.rpartition(".")[2], problem)
        return problem


def _remedy(words: str) -> str:
    if "full" in words:
        return "make room on its disk, it goes on by itself"
    if "readonly" in words or "read-only" in words:
        return "let this user write there, or mount the disk writable; it goes on by itself"
    if "not a database" in words or "malformed" in words:
        return "the file is damaged: move it and its -wal and -shm away, and a new one is made"
    if "unable to open" in words:
        return "make its directory, and let this user write there"
    if "permission denied" in words or "no schema has been selected" in words:
        return "make this user the owner of the database; it goes on by itself"
    return "it is tried again every few seconds"


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # Only before the first table; later it changes nothing.
    cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA journal_size_limit=4194304")
    # KiB of pages that each connection keeps. Its own 2 MB fill within hours, and the kernel has the file anyway.
    cursor.execute("PRAGMA cache_size=-128")
    # As PostgreSQL does, and names of nodes.
    cursor.execute("PRAGMA case_sensitive_like=ON")
    cursor.close()
