"""What the streams of `stream.py` saw: gaps, stalls, leaders. Each is a context manager that stops its processes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from lab.harness.hosts import HERE, Host
from lab.harness.lab import Lab
from lab.harness.namespaces import LabError, Process
from lab.harness.stream import ARRIVAL

_SCRIPT = HERE / "stream.py"
_ports = itertools.count(15000)


class Arrival(NamedTuple):
    seq: int
    arrived: float
    sent: float


@dataclasses.dataclass(frozen=True)
class Gap:
    """Nothing arrived between `start` and `end` (monotonic); `lost` datagrams never did."""

    start: float
    end: float
    lost: int = 0

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Receipt(NamedTuple):
    seq: int
    sent: float
    received: float


class _Measure:
    """Processes in hosts, stopped on exit."""

    def __init__(self) -> None:
        self._processes: list[Process] = []

    def __enter__(self) -> Any:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        for process in self._processes:
            process.kill()

    def _run(self, host: Host, *args: object) -> Process:
        process = host.python(_SCRIPT, *args, name=f"{args[0]}-{next(_ports)}")
        self._processes.append(process)
        return process

    def _wait(self, ready: Callable[[], object], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            for process in self._processes:
                if not process.alive:
                    raise LabError(f"{what}: {process.name} ended with {process.returncode}:\n{process.tail()}")
            if time.monotonic() > deadline:
                raise LabError(f"{what}: nothing after {timeout_s} s")
            time.sleep(0.005)


class UdpStream(_Measure):
    """A datagram every `interval_s` from a's to b's service address."""

    def __init__(self, lab: Lab, a: str, b: str, *, interval_s: float = 0.005, ipv6: bool = False) -> None:
        super().__init__()
        self._a, self._b, self.interval_s = lab[a], lab[b], interval_s
        self._addresses = (self._a.service6, self._b.service6) if ipv6 else (self._a.service, self._b.service)
        self._port = next(_ports)
        self._file = self._b.directory / f"udp-{self._port}.arrivals"

    def _start(self) -> None:
        src, dst = self._addresses
        self._file.touch()
        self._run(self._b, "udp-recv", dst, self._port, self._file)
        self._run(self._a, "udp-send", src, dst, self._port, self.interval_s)
        self._wait(self._file_grows, 20, f"UDP {self._a.name} → {self._b.name}")

    def _file_grows(self) -> bool:
        return self._file.stat().st_size > 0

    def arrivals(self) -> list[Arrival]:
        data = self._file.read_bytes()
        return [Arrival(*one) for one in ARRIVAL.iter_unpack(data[: len(data) // ARRIVAL.size * ARRIVAL.size])]

    def gap(self, at: float, until: float | None = None) -> Gap:
        """The worst gap that overlaps [at, until] (until: now). A stream that is still dead counts up to `until`."""
        # The moment before the file is read: reading a long one takes tens of milliseconds, which are no silence.
        until = time.monotonic() if until is None else until
        return worst_gap(self.arrivals(), at, until)


def worst_gap(arrivals: Sequence[Arrival], at: float, until: float) -> Gap:
    """The longest time without an arrival that overlaps [at, until], and how many numbers are missing across it."""
    worst = Gap(at, at)
    for one, two in itertools.pairwise(arrivals):
        if two.arrived >= at and one.arrived <= until and two.arrived - one.arrived > worst.seconds:
            worst = Gap(one.arrived, two.arrived, max(0, two.seq - one.seq - 1))
    if not arrivals:
        return Gap(at, until)
    if until - arrivals[-1].arrived > worst.seconds:
        worst = Gap(arrivals[-1].arrived, until)
    return worst


class TcpStream(_Measure):
    """One TCP connection between service addresses, never reopened; each chunk is acknowledged by the other end."""

    def __init__(self, lab: Lab, a: str, b: str, *, interval_s: float = 0.02, ipv6: bool = False) -> None:
        super().__init__()
        self._a, self._b, self.interval_s = lab[a], lab[b], interval_s
        self._addresses = (self._a.service6, self._b.service6) if ipv6 else (self._a.service, self._b.service)
        self._port = next(_ports)
        self._file = self._a.directory / f"tcp-{self._port}.receipts"

    def _start(self) -> None:
        src, dst = self._addresses
        self._file.touch()
        server = self._run(self._b, "tcp-serve", dst, self._port)
        self._wait(lambda: self._b.listens(self._port), 10, f"TCP server on {self._b.name}")
        self._server_log = server.log
        self._client = self._run(self._a, "tcp-send", src, dst, self._port, self.interval_s, self._file)
        self._wait(self.receipts, 30, f"TCP {self._a.name} → {self._b.name}")

    def _lines(self) -> list[Any]:
        return list(_json_lines(self._file))

    @property
    def alive(self) -> bool:
        """Whether the one connection still stands."""
        return self._client.alive

    @property
    def four_tuple(self) -> tuple[str, int, str, int]:
        first = self._lines()[0]
        return (*first["from"], *first["to"])

    def connections(self) -> int:
        """How many connections the server ever accepted: 1, or it was not one and the same."""
        return self._server_log.read_text().count("connection from")

    def ended(self) -> str:
        """Why the connection ended, or "" while it stands."""
        last = self._lines()[-1]
        return str(last["ended"]) if isinstance(last, dict) and "ended" in last else ""

    def receipts(self) -> list[Receipt]:
        return [Receipt(*line) for line in self._lines() if isinstance(line, list)]

    def stall(self, at: float, until: float | None = None) -> Gap:
        """The worst time without a receipt that overlaps [at, until] (until: now)."""
        until = time.monotonic() if until is None else until
        return worst_gap([Arrival(one.seq, one.received, one.sent) for one in self.receipts()], at, until)


class Reading(NamedTuple):
    """One look at one member. `read_s` None: the linearizable read failed (`error`). leader "": not told; "0": none."""

    member: str
    t: float
    read_s: float | None
    leader: str
    term: int
    error: str


class EtcdWatch(_Measure):
    """Looks at every member from its own host: a linearizable read and its leader, every `interval_s`."""

    def __init__(self, lab: Lab, *, interval_s: float = 0.2, timeout_s: float = 2.0) -> None:
        super().__init__()
        self._hosts = lab.with_role("etcd")
        self._interval_s, self._timeout_s = interval_s, timeout_s
        number = next(_ports)
        self._files = {host.name: host.directory / f"etcd-{number}.readings" for host in self._hosts}

    def _start(self) -> None:
        for host in self._hosts:
            self._files[host.name].touch()
            self._run(host, "etcd-watch", self._interval_s, self._timeout_s, self._files[host.name])
        self._wait(lambda: all(file.stat().st_size for file in self._files.values()), 10, "etcd watch")

    def readings(self, since: float = 0.0, until: float | None = None) -> list[Reading]:
        found = [
            Reading(member, *(line[key] for key in ("t", "read_s", "leader", "term", "error")))
            for member, file in self._files.items()
            for line in _json_lines(file)
        ]
        return sorted(
            (one for one in found if one.t >= since and (until is None or one.t <= until)), key=lambda one: one.t
        )

    def failed_reads(self, since: float = 0.0, until: float | None = None) -> list[Reading]:
        return [one for one in self.readings(since, until) if one.read_s is None]

    def leaders(self, since: float = 0.0, until: float | None = None) -> set[tuple[str, int]]:
        """Every (leader, term) that any member told. One element: the leader was kept. "0" is no leader."""
        return {(one.leader, one.term) for one in self.readings(since, until) if one.leader}


def _json_lines(file: Path) -> Iterator[Any]:
    for line in file.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
