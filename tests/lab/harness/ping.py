"""ping, as the lab needs it: ARGV = address count interval_s timeout_s [source]. Prints one JSON object:
`{"rtts": [seconds or null for each], "errors": ["an ICMP error or a refusal to send, in words", …]}`"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time

address, count, interval_s, timeout_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
six = ":" in address
request, reply = (128, 129) if six else (8, 0)
quiet = {request, reply, *((133, 134, 135, 136, 143) if six else ())}
family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
rtts: list[float | None] = [None] * count
sent: list[float] = []
errors: list[str] = []


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
    if len(sys.argv) > 5:
        sock.bind((sys.argv[5], 0))
    me = os.getpid() & 0xFFFF
    due = time.monotonic()
    while (now := time.monotonic()) < due + (interval_s if len(sent) < count else timeout_s) and None in rtts:
        if len(sent) < count and now >= due:
            head = struct.pack("!BBHHH", request, 0, 0, me, len(sent))
            if not six:  # for ICMPv6 the kernel does it
                head = struct.pack("!BBHHH", request, 0, checksum(head), me, len(sent))
            sent.append(now)
            try:
                sock.sendto(head, (address, 0))
            except OSError as error:
                errors.append(f"send: {error.strerror}")
            due = now + interval_s
        left = (due if len(sent) < count else sent[-1] + timeout_s) - time.monotonic()
        if left <= 0 and len(sent) == count:
            break
        if select.select([sock], [], [], max(0.0, left))[0]:
            data, who = sock.recvfrom(2048)
            data = data if six else data[(data[0] & 15) * 4 :]
            kind, code, _, ident, seq = struct.unpack("!BBHHH", data[:8])
            if kind == reply and ident == me and seq < len(sent):
                rtts[seq] = time.monotonic() - sent[seq]
            elif kind not in quiet:
                errors.append(f"ICMP type {kind} code {code} from {who[0]}")
print(json.dumps({"rtts": rtts, "errors": errors}))
