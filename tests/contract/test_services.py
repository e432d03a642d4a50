"""Service checks against real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from vagus_agent.config import Address, Check
from vagus_agent.probes.services import ServiceChecks, run_check
from vagus_protocol.messages import Service

# Of the addresses of loopback, one that no kernel would choose by itself.
OURS: tuple[Address, ...] = (ip_address("127.0.0.9"), ip_address("::1"))


class Server:
    """Listens on loopback; answers the first line of a request with `answer`; remembers who asked, and what."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.askers: list[str] = []
        self.requests: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.askers.append(writer.get_extra_info("peername")[0])
        try:
            if request := await reader.readline():
                self.requests.append(request + await reader.readline())
                writer.write(self.answer)
                await writer.drain()
            if not self.answer:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    answer: bytes = b"", host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(answer)
    async with await asyncio.start_server(server.serve, host, 0, ssl=context) as listener:
        server.port = listener.sockets[0].getsockname()[1]
        yield server


def http(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()


async def checked(source: Sequence[Address] = OURS, **fields: object) -> Service:
    return await run_check(Check(name="web", timeout_s=0.5, **fields), source)  # type: ignore[arg-type]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize(("host", "text", "own"), [("127.0.0.1", "127.0.0.1", "127.0.0.9"), ("::1", "[::1]", "::1")])
def test_tcp_from_the_service_address_of_the_right_family(host: str, text: str, own: str) -> None:
    async def main() -> None:
        async with serving(host=host) as server:
            service = await checked(tcp=f"{text}:{server.port}", peer="pi-2")
            await asyncio.sleep(0)
        assert (service.name, service.peer, service.ok, service.reason) == ("web", "pi-2", True, "")
        assert service.latency_s is not None
        assert 0 < service.latency_s < 0.5
        assert server.askers == [own]

    asyncio.run(main())


def test_http_status() -> None:
    async def main() -> None:
        async with serving(http("200 OK")) as server:
            address = f"127.0.0.1:{server.port}"
            assert (await checked(http=f"http://{address}/healthz?deep=1")).ok
            assert server.requests[0] == f"GET /healthz?deep=1 HTTP/1.1\r\nHost: {address}\r\n".encode()
            assert server.askers == ["127.0.0.9"]
            wrong = await checked(http=f"http://{address}", status=204)
            assert wrong == Service(name="web", ok=False, reason=f"{address} answered 200, expected 204")
            server.answer = http("503 Service Unavailable")
            assert (await checked(http=f"http://{address}/")).reason == f"{address} answered 503, expected 200"
            assert (await checked(http=f"http://{address}/", status=503)).ok
            server.answer = b"220 smtp ready\r\n\r\n"
            assert (await checked(http=f"http://{address}/")).reason == f"{address} does not speak HTTP/1.1"

    asyncio.run(main())


def test_a_name_is_looked_up() -> None:
    async def main() -> None:
        async with serving(http("200 OK")) as server:
            assert (await checked(http=f"http://localhost:{server.port}/", source=OURS[:1])).ok
        service = await checked(tcp="no-such-host.invalid:1")
        assert not service.ok
        assert service.reason.startswith("no-such-host.invalid:1") or "no answer" in service.reason

    asyncio.run(main())


def test_failures_in_words() -> None:
    async def main() -> None:
        port = free_port()
        assert (await checked(tcp=f"127.0.0.1:{port}")).reason == f"127.0.0.1:{port} refused the connection"
        assert "no IPv6 service address" in (await checked(tcp=f"[fd00::1]:{port}", source=OURS[:1])).reason
        foreign = await checked(tcp="192.0.2.1:9", source=[ip_address("192.0.2.99")])
        assert "our own service address is not on this node" in foreign.reason
        async with serving() as silent:
            reason = (await checked(http=f"http://127.0.0.1:{silent.port}/")).reason
            assert reason == f"no answer from 127.0.0.1:{silent.port} in 0.5 s"

    asyncio.run(main())


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself."""
    done = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", "/CN=web", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(tmp_path / "web.key"), "-out", str(tmp_path / "web.crt")),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "web.crt"


def test_https(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))

    async def main() -> None:
        async with serving(http("200 OK"), context=context) as server:
            url = f"https://127.0.0.1:{server.port}/"
            trusted = await checked(http=url, ca_file=str(certificate))
            assert (trusted.ok, trusted.reason) == (True, "")
            assert "certificate is not accepted: self-signed certificate" in (await checked(http=url)).reason
            missing = str(certificate.with_name("missing.crt"))
            assert missing in (await checked(http=url, ca_file=missing)).reason
        async with serving(http("200 OK")) as plain:
            reason = (await checked(http=f"https://127.0.0.1:{plain.port}/")).reason
            assert "TLS" in reason

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 10 s")


def test_checks_run_each_on_its_own_and_tell_of_changes() -> None:
    async def main() -> None:
        changes: list[tuple[str, bool]] = []
        async with serving(http("200 OK")) as web, serving() as silent:
            checks = ServiceChecks(
                (
                    Check(name="web", http=f"http://127.0.0.1:{web.port}/", interval_s=0.05),
                    Check(name="hung", http=f"http://127.0.0.1:{silent.port}/", interval_s=0.05, timeout_s=0.3),
                    Check(name="later", tcp=f"127.0.0.1:{web.port}", interval_s=3600.0),
                ),
                OURS,
                lambda name, service: changes.append((name, service.ok)),
            )
            assert checks.latest() == ()
            running = asyncio.create_task(checks.run())
            await until(lambda: len(web.askers) > 3 and len(checks.latest()) == 2)
            assert [(service.name, service.ok) for service in checks.latest()] == [("web", True), ("hung", False)]
            assert changes == [("hung", False)], "what answers from the start is no news"
            web.answer = http("500 Oops")
            await until(lambda: ("web", False) in changes)
            web.answer = http("200 OK")
            await until(lambda: ("web", True) in changes)
            assert changes.count(("hung", False)) == 1
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert not [task for task in asyncio.all_tasks() if "ServiceChecks" in repr(task)]

    asyncio.run(main())


def test_a_verification_asks_the_peer_s_services_at_once_and_tells_which_broke() -> None:
    async def main() -> None:
        told: list[tuple[str, ...]] = []
        async with serving(http("200 OK")) as web, serving(http("500 Oops")) as broken:
            checks = ServiceChecks(
                (
                    Check(name="web", http=f"http://127.0.0.1:{web.port}/", peer="pi-2", interval_s=3600.0),
                    Check(name="broken", http=f"http://127.0.0.1:{broken.port}/", peer="pi-2", interval_s=3600.0),
                    Check(name="other", tcp=f"127.0.0.1:{free_port()}", peer="pi-3", interval_s=3600.0),
                ),
                OURS,
            )
            checks.verify("pi-2", told.append)
            await until(lambda: told == [()])
            assert {service.name: service.ok for service in checks.latest()} == {"web": True, "broken": False}
            web.answer = http("500 Oops")
            checks.verify("pi-2", told.append)
            await until(lambda: told[1:] == [("web",)])
            # What failed before the move says nothing about it.
            checks.verify("pi-2", told.append)
            await until(lambda: told[2:] == [()])

            checks.verify("pi-4", told.append)
            web.answer = broken.answer = b""
            web.requests.clear()
            checks.verify("pi-2", told.append)
            await until(lambda: len(web.requests) == 1)
            web.answer = broken.answer = http("200 OK")
            checks.verify("pi-2", told.append)
            await until(lambda: len(told) == 4)
            assert all(service.ok for service in checks.latest()), "the newer one counts, the former is left"

    asyncio.run(main())


def test_nothing_to_check_runs_until_cancelled() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ServiceChecks((), OURS).run()

    asyncio.run(main())
