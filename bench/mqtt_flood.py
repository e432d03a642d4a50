"""Publishes QoS 0 reports from many made-up nodes over one raw socket, as fast as the broker takes them or paced.

Packets are built by hand once per node, so that the publisher costs next to nothing beside what is measured.
`python bench/mqtt_flood.py --port 1883 --messages 100000 --nodes 1000`; prints the seconds it took to hand them over.
"""

from __future__ import annotations

import argparse
import socket
import struct
import time

import msgspec

from vagus_protocol import topics
from vagus_protocol.codec import encode
from vagus_protocol.messages import Disk, Link, LinkState, Pressure, Process, Report, System


def report(node: str, seq: int = 1) -> bytes:
    """A report of about 800 bytes: four links and a Pi's system figures."""
    links = tuple(
        Link(peer=f"peer-{peer}", path=path, state=LinkState.UP, rtt_s=0.0123, loss_60s=0.0, proven_s=0.1)
        for peer in (1, 2)
        for path in ("overlay", "backup")
    )
    system = System(
        cores=4,
        load1=0.51,
        load5=0.42,
        load15=0.33,
        uptime_s=86400.5,
        runnable=2,
        cpu_user=0.11,
        cpu_system=0.05,
        cpu_idle=0.84,
        psi_cpu=Pressure(some=0.01),
        memory_bytes=4 << 30,
        memory_available_bytes=3 << 30,
        disks=(Disk(mount="/", used=0.41, free_bytes=20 << 30),),
        temperature_c=48.3,
        processes=(Process(name="tailscaled", count=1, cpu=0.02, rss_bytes=40 << 20),),
    )
    return encode(
        Report(
            v=1, node=node, session="0123abcd", seq=seq, boot_id="b" * 16, interval_s=2.0, system=system, links=links
        )
    )


def packet(kind: int, body: bytes) -> bytes:
    size, remaining = bytearray(), len(body)
    while True:
        remaining, digit = divmod(remaining, 128)
        size.append(digit | (0x80 if remaining else 0))
        if not remaining:
            return bytes((kind, *size)) + body


def text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def connect(host: str, port: int, user: str, password: str) -> socket.socket:
    """An accepted MQTT 3.1.1 session without keepalive."""
    sock = socket.create_connection((host, port), timeout=10)
    flags = 0x02 | (0xC0 if user else 0)
    body = text("MQTT") + bytes((4, flags)) + struct.pack("!H", 0) + text(f"flood-{time.monotonic_ns()}")
    sock.sendall(packet(0x10, body + (text(user) + text(password) if user else b"")))
    answer = sock.recv(4)
    if answer != b"\x20\x02\x00\x00":
        raise SystemExit(f"the broker at {host}:{port} refused the session: {answer!r}")
    return sock


def flood(sock: socket.socket, *, fleet: str, nodes: int, messages: int, rate: float) -> float:
    """Seconds it took; `rate` messages a second, 0 for as fast as the broker takes them."""
    packets = []
    for number in range(nodes):
        name = f"node-{number}"
        packets.append(packet(0x30, text(topics.node(fleet, name, "report")) + report(name)))
    started, sent, chunk = time.monotonic(), 0, 50
    while sent < messages:
        if rate:
            time.sleep(max(started + sent / rate - time.monotonic(), 0))
        batch = [packets[(sent + step) % nodes] for step in range(min(chunk, messages - sent))]
        sock.sendall(b"".join(batch))
        sent += len(batch)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--fleet", default="bench")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="messages a second; 0: as fast as the broker takes them"
    )
    arguments = parser.parse_args()
    sock = connect(arguments.host, arguments.port, arguments.user, arguments.password)
    sock.settimeout(120)
    took = flood(sock, fleet=arguments.fleet, nodes=arguments.nodes, messages=arguments.messages, rate=arguments.rate)
    sock.sendall(packet(0xE0, b""))
    print(msgspec.json.encode({"messages": arguments.messages, "seconds": round(took, 3)}).decode())
    sock.close()


if __name__ == "__main__":
    main()
