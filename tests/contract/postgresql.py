"""A real PostgreSQL: a cluster of its own in a temporary directory, on a unix socket there and nowhere else."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import psycopg

from contract.server import ServerProcess

_PROGRAMS: Final = Path("/usr/lib/postgresql")
# It refuses to run as root; the package brings this user.
_USER: Final = "postgres"
_READY_S: Final = 30.0


class PostgreSQL(ServerProcess):
    """A server; as a context it ends, and is gone, at the end. Everybody on its socket is trusted."""

    def __init__(self) -> None:
        versions = sorted(_PROGRAMS.glob("*/bin/postgres"), key=lambda program: int(program.parts[-3]))
        if not versions:
            raise RuntimeError(f"no PostgreSQL in {_PROGRAMS}; scripts/test contract installs it")
        self._programs = versions[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix="vagus-postgresql-"))
        super().__init__(self.folder / "log")
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(self.folder, _USER, _USER)
            self._as = {"user": _USER, "group": _USER, "extra_groups": []}

    def __enter__(self) -> PostgreSQL:
        try:
            self._run("initdb", "--username=vagus", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        argv: list[str | Path] = [
            *(self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder, "-h", ""),
            *("-F", "-c", "autovacuum=off"),
        ]
        self._launch(argv, self._answers, _READY_S, cwd=self.folder, **self._as)

    def _answers(self) -> bool:
        try:
            self.ask("postgres", "select 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """At once, without goodbye to its clients."""
        self._end(signal.SIGQUIT)

    def url(self, database: str, user: str = "vagus") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def ask(self, database: str, text: str) -> list[tuple[Any, ...]]:
        """By another client than SQLAlchemy's."""
        where = {"host": str(self.folder), "user": "vagus", "dbname": database}
        with psycopg.connect(**where, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def make_database(self, more: str = "") -> str:
        """A new one; its name."""
        name = f"vagus_{secrets.token_hex(4)}"
        self.ask("postgres", f"create database {name} {more}")
        return name

    def _run(self, program: str, *arguments: str) -> None:
        argv: Sequence[str | Path] = (self._programs / program, "-D", self.folder / "data", *arguments)
        subprocess.run(argv, check=True, capture_output=True, timeout=60, cwd=self.folder, **self._as)


class PostgresPlace:
    """A database of its own, as unit.test_store.Place is a file."""

    def __init__(self, server: PostgreSQL, more: str = "") -> None:
        self.server = server
        self.name = server.make_database(more)
        self.url = server.url(self.name)

    def ask(self, text: str) -> list[tuple[Any, ...]]:
        return self.server.ask(self.name, text)

    def relation_size(self, table: str) -> int:
        """Bytes on disk, with its indexes."""
        return int(self.ask(f"select pg_total_relation_size('{table}')")[0][0])
