"""Figures over time, on disk beside the store: a file of its own with SQLite, tables of its own with PostgreSQL.

    report ─► take ─► sample ─► row of a minute ─► row of ten minute records ─► row of six hour records

Nothing here may delay a failover or end the daemon. `take`, in the event loop, only remembers which reports to look at,
of each node one in ten seconds: what they say of PSI and loss are windows of ten seconds anyway. One writer thread does
the rest, in small steps, with a breath after each for the event loop. A disk that does not work makes `problem` say
so, and is tried again; the samples of the last minutes wait in memory.

Rows are keyed by the controller's wall clock, for display. A time that comes twice, since the clock was set back, is
kept twice as it came.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
import zlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from vagus_controller.chart_views import NodeHistory, PairHistory, Sparklines
from vagus_controller.config import History
from vagus_controller.core import charts, rollup
from vagus_controller.core.figures import figures, value_of
from vagus_controller.core.node import NodeState
from vagus_controller.core.rollup import HOUR, LEVELS, MINUTE, RAW, Chunk, Level, Sample, Sampler
from vagus_controller.database import Database
from vagus_protocol.codec import decode
from vagus_protocol.messages import Observed, Report
from vagus_runtime.settings import ConfigError

log = logging.getLogger("vagus.history")

SCHEMA_VERSION: Final = 1
# What `best_step` keeps to.
MOST_SLOTS: Final = 1500
# A row's id is its node's number, the second at which it begins, and how often the clock was set back (modulo eight):
# so a node's rows lie together, in order of time, and a second pass of an hour has ids of its own.
_PASS_BITS: Final = 3
_NODE_BITS: Final = 34 + _PASS_BITS
_TURNS: Final = RAW.record_s
# Reports that wait for the writer, and samples of one node that wait for a disk that does not work: 15 minutes.
_MOST_QUEUED: Final = 10_000
_MOST_WAITING: Final = 90
_LOOK_S: Final = 1.0
# For the event loop, after some samples and each node's rows: half a millisecond of work.
_BREATH_S: Final = 0.0005
_AT_A_TIME: Final = 5
_BATCH: Final = 50
_PRUNE_EVERY_S: Final = 600.0
# A clock that jumped by more is not trusted with what is old before it has run so long.
_JUMP_S: Final = 60.0
_TRUST_S: Final = 590.0
_SHRINK: Final = 0.9
# Of PostgreSQL: what a row takes beside its data, with its index; and how much more all take, in pages not quite full.
_ROW_BYTES: Final = 60
_PAGES: Final = 1.15
_STOP_WAIT_S: Final = 5.0

_metadata = sa.MetaData()
_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_schema = sa.Table("history_schema", _metadata, sa.Column("version", sa.Integer, nullable=False))
_nodes = sa.Table(
    "history_nodes",
    _metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String, nullable=False, unique=True),
)
# Up to when all finer rows are in the level's.
_marks = sa.Table(
    "history_marks",
    _metadata,
    sa.Column("level", sa.String, primary_key=True),
    sa.Column("until", sa.BigInteger, nullable=False),
)
_rows = {
    level: sa.Table(
        f"history_{level.name}",
        _metadata,
        sa.Column("id", _Id, primary_key=True, autoincrement=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    for level in LEVELS
}


T = TypeVar("T")


class _Taken(NamedTuple):
    node: str
    at: int
    report: bytes
    observed: Observed | None


class Archive:
    """views.Charts, and what writes it. `start` before use, `stop` to flush."""

    def __init__(self, store_url: str, settings: History) -> None:
        self._database = Database(beside(store_url), _metadata, _schema, SCHEMA_VERSION)
        self._keep_s = {
            RAW: settings.raw_hours * 3600,
            MINUTE: settings.minute_days * 86400,
            HOUR: settings.hour_days * 86400,
        }
        self._most_bytes = settings.max_mb * 1_000_000
        self._engine: Engine | None = None
        # the event loop's
        self._turns: list[list[str]] = [[] for _ in range(_TURNS)]
        self._turn_of: dict[str, int] = {}
        self._reported: dict[str, float] = {}
        self._second = 0
        # how often the wall clock was set back
        self._turned = 0
        # wall clock minus monotonic, and since when it is so
        self._ahead = 0.0
        self._steady_since = 0.0
        # between the two
        self._queue: deque[_Taken] = deque(maxlen=_MOST_QUEUED)
        self._clock = (0.0, 0.0)
        self._stopping = threading.Event()
        # the writer's, read by others under the lock
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Sample]] = {}
        self._sparks: dict[str, charts.Spark] = {}
        self._numbers: dict[str, int] = {}
        self._until = dict.fromkeys((MINUTE, HOUR), 0)
        # the writer's alone
        self._sampler = Sampler()
        self._restored = False
        self._prune_at = 0.0
        # what is left of the configured ages where the disk's bound asks for less
        self._share = 1.0
        self._lost = 0
        self._problem = ""
        self._writer: threading.Thread | None = None

    @property
    def problem(self) -> str:
        """Why charts are not on disk, and what to do; "" when all is well."""
        return self._problem

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Opens the database and starts the writer. Raises ConfigError only for a schema newer than this program's."""
        try:
            self._open()
        except SQLAlchemyError as error:
            self._failed(error)
        self._writer = threading.Thread(target=self._work, name="vagus-history", daemon=True)
        self._writer.start()

    def stop(self) -> None:
        """Writes what waits, at most 5 s long."""
        self._stopping.set()
        if self._writer is not None:
            self._writer.join(_STOP_WAIT_S)
        if self._engine is not None:
            self._engine.dispose()

    def _open(self) -> None:
        with self._database.opened() as (engine, connection):
            numbers = {row.name: row.id for row in connection.execute(sa.select(_nodes))}
            until = {row.level: row.until for row in connection.execute(sa.select(_marks))}
        with self._lock:
            self._engine, previous = engine, self._engine
            self._numbers = numbers
            self._until = {level: until.get(level.name, 0) for level in self._until}
        if previous is not None:
            previous.dispose()

    # --- the event loop's ----------------------------------------------------------------------------------------

    def take(self, nodes: Mapping[str, NodeState], now: float, wall: float) -> None:
        """At least once a second: of a tenth of the nodes each second, the newest report if it was not taken yet."""
        if abs(wall - now - self._ahead) > _JUMP_S:
            self._steady_since = now
        self._ahead = wall - now
        self._clock = (wall, now - self._steady_since)
        second = max(int(wall), 0)
        if second == self._second:
            return
        if second < self._second:
            self._turned += 1
        first = self._second + 1 if 0 < second - self._second <= _TURNS else second
        self._second = second
        if len(nodes) != len(self._turn_of):
            for name in sorted(nodes.keys() - self._turn_of.keys()):
                self._turn_of[name] = len(self._turn_of) % _TURNS
                self._turns[self._turn_of[name]].append(name)
        for at in range(first, second + 1):
            for name in self._turns[at % _TURNS]:
                state = nodes.get(name)
                if state is None or state.report_at is None or state.report_at == self._reported.get(name):
                    continue
                self._reported[name] = state.report_at
                self._queue.append(_Taken(name, at, state.payload, state.observed))

    # --- the writer thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            stopping = self._stopping.wait(_LOOK_S)
            self.work(all_of_it=stopping)
            if stopping:
                return

    def work(self, *, all_of_it: bool = False) -> None:
        """What the writer does again and again: take in what the event loop left, and write whole minutes."""
        try:
            self._sample()
            if self._problem or self._engine is None:
                self._open()
            self._restore_sparks()
            self._write(all_of_it=all_of_it)
            self._recovered()
        except (SQLAlchemyError, sqlite3.Error, ConfigError) as error:
            self._failed(error)
        except Exception as error:
            log.exception("history: a bug; charts stay in memory")
            self._failed(error)

    def _sample(self) -> None:
        for number in range(len(self._queue)):
            if number % _AT_A_TIME == 0:
                time.sleep(_BREATH_S)
            taken = self._queue.popleft()
            report = decode(taken.report, Report)
            if not isinstance(report, Report):
                continue
            found = figures(report, taken.observed)
            sample = self._sampler.take(taken.node, taken.at, found)
            with self._lock:
                waiting = self._waiting.setdefault(taken.node, [])
                waiting.append(sample)
                if len(waiting) > _MOST_WAITING:
                    del waiting[0]
                    self._lost += 1
                if "load" in found:
                    self._sparks.setdefault(taken.node, charts.Spark()).add(taken.at, found["load"])

    def _write(self, *, all_of_it: bool) -> None:
        """Whole minutes go to disk; and what is due then."""
        wall, steady_s = self._clock
        minute = int(wall) // RAW.row_s * RAW.row_s
        ready = {
            node: [sample for sample in samples if all_of_it or sample.at // RAW.row_s * RAW.row_s != minute]
            for node, samples in self._waiting.items()
        }
        ready = {node: samples for node, samples in ready.items() if samples}
        for nodes in _batches(sorted(ready)):
            self._flush({node: ready[node] for node in nodes})
        if ready and not all_of_it:
            self._roll(MINUTE, RAW, minute)
            self._roll(HOUR, MINUTE, min(minute, self._until[MINUTE]))
            if steady_s >= _TRUST_S and time.monotonic() >= self._prune_at:
                self._prune(int(wall))
                self._prune_at = time.monotonic() + _PRUNE_EVERY_S

    def _flush(self, ready: dict[str, list[Sample]]) -> None:
        assert self._engine is not None
        rows = []
        with self._engine.begin() as connection:
            for node, samples in ready.items():
                number = self._number(connection, node)
                for _, some in groupby(samples, lambda sample: sample.at // RAW.row_s):
                    rows.append(_row(number, rollup.chunk_of(list(some)), self._turned))
                time.sleep(_BREATH_S)
            self._insert(connection, RAW, rows)
        with self._lock:
            for node, samples in ready.items():
                written = set(map(id, samples))
                left = [sample for sample in self._waiting[node] if id(sample) not in written]
                if left:
                    self._waiting[node] = left
                else:
                    del self._waiting[node]

    def _number(self, connection: Connection, node: str) -> int:
        number = self._numbers.get(node)
        if number is None:
            number = max(self._numbers.values(), default=0) + 1
            connection.execute(sa.insert(_nodes).values(id=number, name=node))
            self._numbers[node] = number
        return number

    def _insert(self, connection: Connection, level: Level, rows: list[dict[str, object]]) -> None:
        if rows:
            connection.execute(self._database.insert(_rows[level]).on_conflict_do_nothing(), rows)

    def _roll(self, level: Level, finer: Level, until: int) -> None:
        """Bring the level up to `until`. Done twice, it changes nothing; of a time that came twice, the fuller row
        stands."""
        until -= until % level.row_s
        # After a clock that ran ahead was set right.
        begin = self._until[level] = min(self._until[level], until)
        if begin == until:
            return
        assert self._engine is not None
        for nodes in _batches(sorted(self._numbers)):
            rows = []
            with self._engine.begin() as connection:
                for node in nodes:
                    number = self._numbers[node]
                    chunks = list(self._stored(connection, finer, number, begin, until))
                    if not chunks:
                        continue
                    before = {each.start: each for each in self._stored(connection, level, number, begin, until)}
                    for start, some in groupby(chunks, lambda chunk: chunk.start - chunk.start % level.row_s):
                        rolled = rollup.roll(some, start, level)
                        if rolled is None:
                            continue
                        if start in before and sum(before[start].counts) < sum(rolled.counts):
                            connection.execute(sa.delete(_rows[level]).where(_rows[level].c.id == _id(number, start)))
                        rows.append(_row(number, rolled))
                    time.sleep(_BREATH_S)
                self._insert(connection, level, rows)
        with self._engine.begin() as connection:
            connection.execute(sa.delete(_marks).where(_marks.c.level == level.name))
            connection.execute(sa.insert(_marks).values(level=level.name, until=until))
        with self._lock:
            self._until[level] = until

    def _restore_sparks(self) -> None:
        """What is on disk of the last hour, once the time is known."""
        wall = int(self._clock[0])
        if self._restored or not wall:
            return
        assert self._engine is not None
        since = wall - charts.SPARK_S * charts.SPARK_POINTS
        for node, number in list(self._numbers.items()):
            with self._engine.connect() as connection:
                chunks = list(self._stored(connection, MINUTE, number, since, wall))
            with self._lock:
                spark = self._sparks.setdefault(node, charts.Spark())
                for chunk in chunks:
                    for offset, figure in zip(chunk.offsets, chunk.mean.get("load", ()), strict=False):
                        if figure is not None:
                            spark.add(chunk.start + offset, figure)
            time.sleep(_BREATH_S)
        self._restored = True

    # --- bounds --------------------------------------------------------------------------------------------------

    def _prune(self, wall: int) -> None:
        """Old rows go; and the oldest of all, as long as there are too many bytes.

        What PostgreSQL has had of the disk it keeps, and uses again once it was looked through."""
        if self._used_bytes() < _SHRINK * self._most_bytes:
            self._share = min(self._share / _SHRINK, 1.0)
        self._delete_old(wall)
        while self._used_bytes() > self._most_bytes and self._share > 0.001:
            self._share *= _SHRINK
            self._delete_old(wall)
        if not self._database.is_sqlite and self._share < 1.0:
            assert self._engine is not None
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(sa.text(f"vacuum {', '.join(table.name for table in _rows.values())}"))

    def _delete_old(self, wall: int) -> None:
        assert self._engine is not None
        for level, keep_s in self._keep_s.items():
            oldest = max(int(wall - keep_s * self._share), 0)
            ids = _rows[level].c.id
            for numbers in _batches(sorted(self._numbers.values())):
                with self._engine.begin() as connection:
                    for number in numbers:
                        old = sa.and_(ids >= _id(number, 0), ids < _id(number, oldest))
                        connection.execute(sa.delete(_rows[level]).where(old))
                time.sleep(_BREATH_S)

    def _used_bytes(self) -> int:
        assert self._engine is not None
        with self._engine.connect() as connection:
            if self._database.is_sqlite:
                pages, free, size = (
                    int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
                    for name in ("page_count", "freelist_count", "page_size")
                )
                return (pages - free) * size
            names = [table.name for table in _rows.values()]
            taken = sum(
                int(connection.execute(sa.text("select pg_total_relation_size(:name)"), {"name": name}).scalar_one())
                for name in names
            )
            if taken <= self._most_bytes:
                return taken
            # Some of it is free: what rows take with their index, in pages that are never quite full.
            sizes = [
                connection.scalar(sa.select(sa.func.sum(sa.func.pg_column_size(table.c.data) + _ROW_BYTES)))
                for table in _rows.values()
            ]
            return min(int(sum(int(size or 0) for size in sizes) * _PAGES), taken)

    # --- views.Charts --------------------------------------------------------------------------------------------

    def knows(self, node: str) -> bool:
        """Whether the node is in the fleet, or there may be something of it on disk."""
        return node in self._turn_of or node in self._numbers

    def best_step(self, start: int, end: int) -> int:
        """The finest that is kept for so long, and makes no more than MOST_SLOTS of it."""
        wall, _ = self._clock
        for level in LEVELS:
            fits = (end - start) / level.record_s <= MOST_SLOTS
            if fits and (start >= wall - self._keep_s[level] * self._share - level.row_s or level is HOUR):
                return level.record_s
        hours = -(-(end - start) // (HOUR.record_s * MOST_SLOTS))
        return HOUR.record_s * hours

    def node_history(
        self, node: str, start: int, end: int, step_s: int, *, links: bool = False, peers: Collection[str] = ()
    ) -> NodeHistory:
        chunks = self._chunks(node, start, end, step_s)
        return charts.node_history(chunks, node, start, end, step_s, links=links, peers=peers)

    def pair_history(self, a: str, b: str, start: int, end: int, step_s: int) -> PairHistory:
        ends = [(node, self._chunks(node, start, end, step_s)) for node in (a, b)]
        return charts.pair_history(ends, start, end, step_s)

    def sparklines(self) -> Sparklines:
        slot = int(self._clock[0]) // charts.SPARK_S
        with self._lock:
            points = {node: spark.means(slot) for node, spark in sorted(self._sparks.items())}
        return Sparklines(
            step_s=charts.SPARK_S,
            end=(slot + 1) * charts.SPARK_S,
            nodes={
                node: [None if mean is None else value_of("load", mean) for mean in means]
                for node, means in points.items()
                if any(mean is not None for mean in means)
            },
        )

    def _chunks(self, node: str, start: int, end: int, step_s: int) -> list[Chunk]:
        """What there is of this time: the coarsest rows that have the step, for the newest time finer ones, and what
        is not on disk yet."""
        # Memory first: what reaches the disk meanwhile is seen twice.
        with self._lock:
            waiting = list(self._waiting.get(node, ()))
            number, until, engine = self._numbers.get(node), dict(self._until), self._engine
        chunks: list[Chunk] = []
        seen: set[int] = set()
        if number is not None and engine is not None:
            try:
                with engine.connect() as connection:
                    for level in (HOUR, MINUTE):
                        if step_s >= level.record_s and start < until[level]:
                            chunks += self._stored(connection, level, number, start, min(end, until[level]))
                            start = until[level]
                    raw = list(self._stored(connection, RAW, number, start, end))
            except SQLAlchemyError as error:
                self._failed(error)
            else:
                chunks += raw
                seen = {chunk.start + offset for chunk in raw for offset in chunk.offsets}
        left = [sample for sample in waiting if sample.at not in seen]
        return [*chunks, rollup.chunk_of(left)] if left else chunks

    def _stored(self, connection: Connection, level: Level, number: int, start: int, end: int) -> Iterator[Chunk]:
        """The rows that have anything from `start` to before `end`."""
        ids = _rows[level].c.id
        start -= start % level.row_s
        query = sa.select(_rows[level].c.data).where(ids >= _id(number, start), ids < _id(number, end)).order_by(ids)
        for (data,) in connection.execute(query).all():
            try:
                yield rollup.decode(zlib.decompress(data))
            except (zlib.error, msgspec.MsgspecError) as error:
                log.warning("history: a row of %s is damaged and left out: %s", self._database.name, error)

    # --- trouble -------------------------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> None:
        problem = self._database.trouble("charts are", error, log)
        with self._lock:
            self._problem = problem

    def _recovered(self) -> None:
        if self._problem:
            with self._lock:
                lost, self._lost, self._problem = self._lost, 0, ""
            log.warning(
                "history: %s works again; %d samples, the oldest ones, were lost meanwhile", self._database.name, lost
            )


def beside(store_url: str) -> URL:
    """Where charts are kept, given where events are: in `vagus-history.db` beside `vagus.db`, or in the same PostgreSQL
    database."""
    url = make_url(store_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        return url
    file = Path(url.database)
    return url.set(database=str(file.with_name(f"{file.stem}-history{file.suffix}")))


def _batches(names: Sequence[T]) -> Iterable[Sequence[T]]:
    return (names[at : at + _BATCH] for at in range(0, len(names), _BATCH))


def _id(number: int, at: int, turned: int = 0) -> int:
    return (number << _NODE_BITS) + (max(at, 0) << _PASS_BITS) + turned % (1 << _PASS_BITS)


def _row(number: int, chunk: Chunk, turned: int = 0) -> dict[str, object]:
    return {"id": _id(number, chunk.start, turned), "data": zlib.compress(rollup.encode(chunk))}
