"""Service checks: does a service answer on its own port, asked from our service address?

A link that is up says nothing of the service behind it. A check connects by TCP, or asks by HTTP(S) and compares the
status; it is bound to the service address of the target's family, so it takes the path that traffic takes.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import ssl
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from msgspec.structs import replace

from vagus_agent import config, threads
from vagus_agent.config import Address
from vagus_agent.probes import http
from vagus_protocol.messages import Service

_REASON_LENGTH: Final = 300
# A verification has the controller's patience, 5 s: a check that takes longer than this has failed it.
_VERIFY_S: Final = 3.0


class ServiceChecks:
    """Runs every check on its own interval. `on_change(name, service)`: it began or ceased to fail."""

    def __init__(
        self,
        checks: Sequence[config.Check],
        addresses: Sequence[Address],
        on_change: Callable[[str, Service], None] = lambda _name, _service: None,
    ) -> None:
        self._checks = checks
        self._addresses = addresses
        self._on_change = on_change
        self._latest: dict[str, Service] = {}
        self._other = asyncio.Event()
        # peer → its checks that run at once
        self._verifying: dict[str, asyncio.Task[None]] = {}

    def latest(self) -> tuple[Service, ...]:
        """The newest result of each check that has one, in the order of the configuration."""
        return tuple(self._latest[check.name] for check in self._checks if check.name in self._latest)

    def verify(self, peer: str, on_done: Callable[[tuple[str, ...]], None]) -> None:
        """Run every check of `peer` at once. `on_done(names)`: those that fail now and were well the last time; it is
        not called when there is none, or when another call for the same peer comes before the end."""
        if (running := self._verifying.pop(peer, None)) is not None:
            running.cancel()
        checks = [check for check in self._checks if check.peer == peer]
        if checks:
            self._verifying[peer] = asyncio.get_running_loop().create_task(self._verify(checks, on_done))

    async def _verify(self, checks: Sequence[config.Check], on_done: Callable[[tuple[str, ...]], None]) -> None:
        before = {service.name for service in self.latest() if service.ok}
        hasty = [replace(check, timeout_s=min(check.timeout_s, _VERIFY_S)) for check in checks]
        services = await asyncio.gather(*(run_check(check, self._addresses) for check in hasty))
        for service in services:
            self._note(service)
        on_done(tuple(service.name for service in services if not service.ok and service.name in before))

    def reconfigure(self, checks: Sequence[config.Check]) -> None:
        """Other checks from now on. What is known of one that stays as it is stays known."""
        if checks == self._checks:
            return
        kept = {check.name for check in checks if check in self._checks}
        self._latest = {name: service for name, service in self._latest.items() if name in kept}
        self._checks = checks
        self._other.set()

    async def run(self) -> None:
        """Until cancelled, also when there is nothing to check."""
        while True:
            self._other.clear()
            async with asyncio.TaskGroup() as group:
                # Spread over the interval, so that they do not all start at once.
                tasks = [
                    group.create_task(self._repeat(check, check.interval_s * index / len(self._checks)))
                    for index, check in enumerate(self._checks)
                ]
                await self._other.wait()
                for task in tasks:
                    task.cancel()

    async def _repeat(self, check: config.Check, delay_s: float) -> None:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(delay_s)
        while True:
            started = clock()
            self._note(await run_check(check, self._addresses))
            await asyncio.sleep(max(0.0, check.interval_s - (clock() - started)))

    def _note(self, service: Service) -> None:
        before = self._latest.get(service.name)
        self._latest[service.name] = service
        if service.ok != (before is None or before.ok):
            self._on_change(service.name, service)


class _Failed(Exception):
    """Why the check failed, in words."""


async def run_check(check: config.Check, source: Sequence[Address]) -> Service:
    """One check from the address in `source` of the target's family. Never raises; takes at most its timeout."""
    clock = asyncio.get_running_loop().time
    started = clock()
    target = _Target(check)
    try:
        async with asyncio.timeout(check.timeout_s):
            latency_s = await _ask(target, source, check, started)
    except (_Failed, http.HttpError) as error:
        reason = str(error) if isinstance(error, _Failed) else f"{target} {error}"
    except TimeoutError:
        reason = f"no answer from {target} in {check.timeout_s:g} s"
    except (OSError, ValueError) as error:
        reason = _words(error, target)
    else:
        return Service(name=check.name, peer=check.peer, ok=True, latency_s=latency_s)
    return Service(name=check.name, peer=check.peer, ok=False, reason=reason[:_REASON_LENGTH])


class _Target:
    """Where a check goes. Its text, "HOST:PORT", stands in reasons."""

    def __init__(self, check: config.Check) -> None:
        url = urlsplit(check.http or f"tcp://{check.tcp}")
        self.tls = url.scheme == "https"
        self.host = url.hostname or ""
        self.port = url.port or (443 if self.tls else 80)
        self.netloc = url.netloc.rpartition("@")[2]
        self.path = f"{url.path or '/'}{'?' if url.query else ''}{url.query}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def _ask(target: _Target, source: Sequence[Address], check: config.Check, started: float) -> float:
    """Seconds until the connection stood, or until the status came."""
    clock = asyncio.get_running_loop().time
    address, local = _pair(await _addresses(target.host), source, target)
    context = _context(check.ca_file) if target.tls else None
    reader, writer = await asyncio.open_connection(
        str(address),
        target.port,
        local_addr=(str(local), 0) if local is not None else None,
        ssl=context,
        server_hostname=target.host if context is not None else None,
    )
    latency_s = clock() - started
    with http.dropped_after(writer):
        if check.http:
            status, _ = await http.get(reader, writer, target.netloc, target.path)
            latency_s = clock() - started
            if status != check.status:
                raise _Failed(f"{target} answered {status}, expected {check.status}")
    return latency_s


def _pair(targets: Sequence[Address], source: Sequence[Address], target: _Target) -> tuple[Address, Address | None]:
    """The target's first address that we can ask, and the address to ask from; None: the kernel's choice.

    What listens on loopback is on this node: there is no path to choose.
    """
    for address in targets:
        own = next((own for own in source if own.version == address.version), None)
        if own is not None and own.is_loopback == address.is_loopback:
            return address, own
        if address.is_loopback or not source:
            return address, None
    raise _Failed(f"{target}: this node has no IPv{targets[0].version} service address to ask from")


async def _addresses(host: str) -> Sequence[Address]:
    """The addresses of `host`. A name is looked up in a thread that nobody waits for: the resolver has no deadline."""
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    found = await threads.run(f"look-up {host}", lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    return [ip_address(info[4][0]) for info in found]


@functools.cache
def _context(ca_file: str) -> ssl.SSLContext:
    """Kept, because reading the system's authorities takes some 10 ms."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise _Failed(f"ca_file {ca_file}: {error.strerror or error}") from None


def _words(error: OSError | ValueError, target: _Target) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"{target} refused the connection"
    if isinstance(error, ConnectionError):
        return f"{target} broke the connection"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{target}: its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"{target} does not speak TLS as expected: {error.reason}"
    if isinstance(error, socket.gaierror):
        return f"{target}: no address found for this name: {error.strerror}"
    if isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return f"no route to {target}"
    if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
        return f"{target}: our own service address is not on this node ({error.strerror})"
    return f"{target}: {error}"
