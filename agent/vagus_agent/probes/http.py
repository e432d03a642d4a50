"""One HTTP/1.1 GET over a connection that is open already: all that the probes need, without an HTTP library's memory.

The caller sets the deadline. Raises `HttpError` in words; OSError stays what it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class HttpError(Exception):
    """The other end does not speak HTTP as we need it; the text continues "ADDRESS …"."""


@contextmanager
def dropped_after(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Drops the connection in the end, also when cancelled. Nothing is left to send, so no goodbye is waited for."""
    try:
        yield
    finally:
        writer.transport.abort()


async def get(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, target: str
) -> tuple[int, dict[str, str]]:
    """Sends the request; the status and the headers (names in lower case) of the answer."""
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: vagus-agent\r\nConnection: close\r\n\r\n"
    writer.write(request.encode("ascii"))
    status = 100
    # 1xx answers precede the real one.
    while status < 200:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError as error:
            raise HttpError("does not speak HTTP" if error.partial else "closed the connection unanswered") from None
        except asyncio.LimitOverrunError:
            raise HttpError("does not speak HTTP: its answer has no end of headers") from None
        version, _, rest = head[0].partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdecimal() and len(code) == 3):
            raise HttpError("does not speak HTTP/1.1")
        status = int(code)
    fields = (line.partition(":") for line in head[1:])
    return status, {name.strip().lower(): value.strip() for name, _, value in fields}


async def body(reader: asyncio.StreamReader, headers: dict[str, str], limit: int) -> bytes:
    """The body after `get`: of a known length, in chunks, or until the connection ends. At most `limit` bytes."""
    try:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return await _chunks(reader, limit)
        if "content-length" in headers:
            return await reader.readexactly(_size(headers["content-length"], 10, limit))
    except asyncio.IncompleteReadError:
        raise HttpError("closed the connection in mid-answer") from None
    except asyncio.LimitOverrunError:
        raise HttpError("sent a chunk without a length") from None
    data = bytearray()
    while part := await reader.read(1 << 16):
        data += part
        _size(str(len(data)), 10, limit)
    return bytes(data)


async def _chunks(reader: asyncio.StreamReader, limit: int) -> bytes:
    data = bytearray()
    # After the last chunk only trailers follow, which the closing connection ends.
    while size := _size((await reader.readuntil(b"\r\n")).partition(b";")[0].decode("latin-1"), 16, limit - len(data)):
        data += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(data)


def _size(text: str, base: int, limit: int) -> int:
    try:
        size = int(text, base)
    except ValueError:
        size = -1
    if size < 0:
        raise HttpError(f"sent a length that is none: {text.strip()[:20]!r}")
    if size > limit:
        raise HttpError("sent more than is allowed here")
    return size
