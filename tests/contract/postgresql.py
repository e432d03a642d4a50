"""A real PostgreSQL: a cluster of its own in a temporary directory, on a unix socket there and nowhere else."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import psycopg

_PROGRAMS: Final = Path("/usr/lib/postgresql")
# It refuses to run as root; the package brings this user.
_USER: Final = "postgres"
_READY_S: Final = 30.0


class PostgreSQL:
    """A server; as a context it ends, and is gone, at the end. Everybody on its socket is trusted."""

    def __init__(self) -> None:
        versions = sorted(_PROGRAMS.glob("*/bin/postgres"), key=lambda program: int(program.parts[-3]))
        if not versions:
            raise RuntimeError(f"no PostgreSQL in {_PROGRAMS}; scripts/test contract installs it")
        self._programs = versions[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix="vagus-postgresql-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(self.folder, _USER, _USER)
            self._as = {"user": _USER, "group": _USER, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None

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
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder, "-h", ""),
                    *("-F", "-c", "autovacuum=off"),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._as,
            )
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                self.ask("postgres", "select 1")
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """At once, without goodbye to its clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def freeze(self) -> None:
        """It takes connections, and does not answer them."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

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
