"""A UDP relay between pairs of hosts: what a DERP relay is to Tailscale, with a delay, jitter and loss to choose.

Runs in the internet namespace; standard library only. Commands are JSON lines on stdin, each answered by one on stdout:
`{"op": "add", "address": IP, "ends": [[IP, PORT], [IP, PORT]], "ports": [P1, P2], "delay_s": D, "jitter_s": J,
"loss": L}`
`{"op": "remove", "ports": [P1, P2]}`

The first end sends to our port P1 and hears from it; the second end uses P2. Each direction gets the delay, a uniform
0..J on top (so packets may overtake one another, as they do on the internet), and loses a share L. It ends with stdin.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
from typing import Any


class Side(asyncio.DatagramProtocol):
    def __init__(self, end: tuple[str, int], delay_s: float, jitter_s: float, loss: float) -> None:
        self.end = end
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.loss = loss
        self.transport: asyncio.DatagramTransport | None = None
        self.other: Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if random.random() >= self.loss and self.other is not None:
            delay = self.delay_s + random.uniform(0, self.jitter_s)
            asyncio.get_running_loop().call_later(delay, self.other.send, data)

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.sendto(data, self.end)

    def error_received(self, exc: Exception) -> None:
        """A host that is off answers with ICMP; the relay does not care."""


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    sides: dict[int, Side] = {}
    while line := await reader.readline():
        command = json.loads(line)
        for port in command["ports"]:
            old = sides.pop(port, None)
            if old is not None and old.transport is not None:
                old.transport.abort()
                await asyncio.sleep(0)  # the socket closes in the loop's next turn
        if command["op"] == "add":
            pair = []
            for end, port in zip(command["ends"], command["ports"], strict=True):
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.setblocking(False)
                sock.bind((command["address"], port))
                side = Side(tuple(end), command["delay_s"], command["jitter_s"], command["loss"])
                await loop.create_datagram_endpoint(lambda side=side: side, sock=sock)  # type: ignore[misc]
                sides[port] = side
                pair.append(side)
            pair[0].other, pair[1].other = pair[1], pair[0]
        print(json.dumps({"ok": True}), flush=True)


asyncio.run(main())
