"""The Tailscale probe against an HTTP server on a real unix socket: every framing, every way to fail."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from vagus_agent import config
from vagus_agent.probes.tailscale import MAX_ANSWER, TailscaleProbe
from vagus_protocol.messages import Relay, Tailscale

PEERS = {"pi-2": (ip_address("10.118.0.2"),)}
STATUS = json.dumps(
    {
        "BackendState": "Running",
        "Health": ["a warning"],
        "Peer": {"nodekey:1": {"AllowedIPs": ["10.118.0.2/32"], "CurAddr": "10.9.0.2:41641"}},
    }
).encode()


@pytest.fixture
def path() -> Iterator[str]:
    # Short: a unix socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="vagus-") as folder:
        yield str(Path(folder) / "tailscaled.sock")


async def ask(path: str, answer: bytes | None, *, hold: bool = False) -> tuple[Tailscale, dict[str, Relay], bytes]:
    """The probe's result against a server that answers so, and the request it saw. None: nobody listens."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer or b"")
            await writer.drain()
            if hold:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    probe = TailscaleProbe(
        config.Tailscale(socket=path, timeout_s=0.5), {"backup": (ip_network("10.9.0.0/24"),), "lte": ()}
    )
    if answer is None:
        told, relays = await probe.read(PEERS)
    else:
        async with await asyncio.start_unix_server(serve, path):
            told, relays = await probe.read(PEERS)
    return told, relays, b"".join(requests)


def with_length(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes) -> bytes:
    half = len(body) // 2
    chunks = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "hold"),
    [
        (with_length(STATUS), True),
        (with_length(STATUS, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), True),
        (chunked(STATUS), True),
        (b"HTTP/1.0 200 OK\r\n\r\n" + STATUS, False),
    ],
)
def test_every_framing(path: str, answer: bytes, hold: bool) -> None:
    told, relays, request = asyncio.run(ask(path, answer, hold=hold))
    assert told == Tailscale(backend_state="Running", health=("a warning",))
    assert relays == {"pi-2": Relay.RIDING_BACKUP}
    lines = request.split(b"\r\n")
    assert lines[0] == b"GET /localapi/v0/status HTTP/1.1"
    assert b"Host: local-tailscaled.sock" in lines
    assert not any(line.lower().startswith((b"origin", b"referer")) for line in lines)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "does tailscaled run?"),
        (b"", "closed the connection unanswered"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"nonsense\r\n\r\n", "does not speak HTTP/1.1"),
        (b"x" * 200_000, "no end of headers"),
        (with_length(b"access denied", b"HTTP/1.1 403 Forbidden\r\n"), "answered 403, expected 200"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", "mid-answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{", "a length that is none"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_ANSWER + 1), "more than is allowed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (MAX_ANSWER + 1), "more than is allowed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "a length that is none"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 200_000, "a chunk without a length"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b" " * (MAX_ANSWER + 1), "more than is allowed"),
        (with_length(b'{"BackendState": 1}'), "not understood"),
    ],
)
def test_every_failure_is_told_in_words(path: str, answer: bytes | None, words: str) -> None:
    told, relays, _ = asyncio.run(ask(path, answer))
    assert told.backend_state == ""
    assert words in told.error
    assert relays == {}


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"])
def test_a_server_that_goes_silent_costs_the_timeout(path: str, answer: bytes) -> None:
    started = time.monotonic()
    told, _, _ = asyncio.run(ask(path, answer, hold=True))
    assert told.error == f"{path}: tailscaled did not answer in 0.5 s"
    assert time.monotonic() - started < 5.0


def test_a_socket_that_is_a_file(path: str) -> None:
    Path(path).touch()
    told, _, _ = asyncio.run(ask(path, None))
    assert told.error.startswith(path)
