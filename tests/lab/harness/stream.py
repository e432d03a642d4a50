"""Traffic whose interruptions are measured: run in hosts as a script (standard library only), read by `measure.py`.

    udp-send SRC DST PORT INTERVAL_S        a numbered datagram every interval
    udp-recv ADDRESS PORT FILE              appends (seq u32, arrived f64, sent f64) for each datagram
    tcp-serve ADDRESS PORT                  sends every 12-byte chunk back: the receipt
    tcp-send SRC DST PORT INTERVAL_S FILE   one connection; JSON lines: its ends, [seq, sent, receipt] …, why it ended
    etcd-watch INTERVAL_S TIMEOUT_S FILE    linearizable reads and the leader, of the member on this host; JSON lines

Times are of the monotonic clock, which all hosts of a lab share: they are one kernel's. All run until they are killed.
"""

from __future__ import annotations

import http.client
import json
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable

ARRIVAL = struct.Struct("<Idd")
_DATAGRAM = struct.Struct("!Id")
_CHUNK = struct.Struct("!Id")
# Linux's value; Python's socket module lacks it.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
_CONNECT_S = 20.0


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _pace(interval_s: float, step: Callable[[int], None]) -> None:
    """Calls `step` with 0, 1, 2, … every interval; a late call does not shift the ones after it."""
    due, seq = time.monotonic(), 0
    while True:
        step(seq)
        seq += 1
        due = max(due + interval_s, time.monotonic() - 1.0)
        time.sleep(max(0.0, due - time.monotonic()))


def udp_send(src: str, dst: str, port: int, interval_s: float) -> None:
    with socket.socket(_family(dst), socket.SOCK_DGRAM) as sock:
        sock.bind((src, 0))

        def step(seq: int) -> None:
            try:
                sock.sendto(_DATAGRAM.pack(seq, time.monotonic()), (dst, port))
            except OSError as error:  # no route for a moment: a datagram lost, as its absence will tell
                print(f"{time.monotonic():.6f} seq {seq}: {error}", flush=True)

        _pace(interval_s, step)


def udp_recv(address: str, port: int, file: str) -> None:
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sock, open(file, "ab", buffering=0) as out:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.bind((address, port))
        while True:
            # When the kernel had it: this process may wait for its disk, or for a CPU, and that is no silence.
            data, ancillary, _, _ = sock.recvmsg(64, socket.CMSG_SPACE(_TIMESPEC.size))
            held = 0.0
            for _, kind, value in ancillary:
                if kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIMESPEC.unpack(value)
                    held = time.time() - seconds - nanoseconds / 1e9
            if len(data) == _DATAGRAM.size:
                seq, sent = _DATAGRAM.unpack(data)
                out.write(ARRIVAL.pack(seq, time.monotonic() - held, sent))


def tcp_serve(address: str, port: int) -> None:
    with socket.create_server((address, port), family=_family(address)) as server:
        selector = selectors.DefaultSelector()
        selector.register(server, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is server:
                    client, who = server.accept()
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    print(f"{time.monotonic():.6f} connection from {who[0]} {who[1]}", flush=True)
                    selector.register(client, selectors.EVENT_READ)
                    continue
                client = key.fileobj  # type: ignore[assignment]
                try:
                    data = client.recv(65536)
                    if data:
                        client.sendall(data)
                except OSError as error:
                    print(f"{time.monotonic():.6f} {error}", flush=True)
                    data = b""
                if not data:
                    selector.unregister(client)
                    client.close()


def tcp_send(src: str, dst: str, port: int, interval_s: float, file: str) -> None:
    with open(file, "a", buffering=1) as out, socket.socket(_family(dst), socket.SOCK_STREAM) as sock:
        sock.bind((src, 0))
        sock.settimeout(_CONNECT_S)
        sock.connect((dst, port))
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(json.dumps({"from": sock.getsockname()[:2], "to": sock.getpeername()[:2]}), file=out)
        due, seq, pending = time.monotonic(), 0, b""
        try:
            while True:
                if time.monotonic() >= due:
                    # 12 bytes a chunk: the send buffer takes minutes of them, so this never blocks in a stall.
                    sock.sendall(_CHUNK.pack(seq, time.monotonic()))
                    seq += 1
                    due += interval_s
                sock.settimeout(max(0.0005, due - time.monotonic()))
                try:
                    data = sock.recv(65536)
                except TimeoutError:
                    continue
                finally:
                    sock.settimeout(None)
                now = time.monotonic()
                if not data:
                    raise ConnectionResetError("the other end closed")
                pending += data
                whole = len(pending) // _CHUNK.size * _CHUNK.size
                for number, sent in _CHUNK.iter_unpack(pending[:whole]):
                    print(json.dumps([number, sent, now]), file=out)
                pending = pending[whole:]
        except OSError as error:
            print(json.dumps({"ended": str(error), "at": time.monotonic()}), file=out)
            raise SystemExit(1) from None


def etcd_watch(interval_s: float, timeout_s: float, file: str) -> None:
    """etcd's own JSON gateway: a range read is linearizable unless it says serializable; status tells the leader."""

    def ask(path: str, body: str) -> dict[str, object]:
        connection = http.client.HTTPConnection("127.0.0.1", 2379, timeout=timeout_s)
        try:
            connection.request("POST", path, body)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            if answer.status != 200:
                raise OSError(f"{answer.status} {text[:200]}")
            found: dict[str, object] = json.loads(text)
            return found
        finally:
            connection.close()

    with open(file, "a", buffering=1) as out:

        def step(_: int) -> None:
            began = time.monotonic()
            line: dict[str, object] = {"t": began, "read_s": None, "leader": "", "term": 0, "error": ""}
            try:
                ask("/v3/kv/range", '{"key": "dmFndXM="}')
                line["read_s"] = time.monotonic() - began
            except (OSError, http.client.HTTPException, ValueError) as error:
                line["error"] = f"read: {error or type(error).__name__}"
            try:
                status = ask("/v3/maintenance/status", "{}")
                line["leader"], line["term"] = str(status.get("leader", "")), int(str(status.get("raftTerm", 0)))
            except (OSError, http.client.HTTPException, ValueError) as error:
                line["error"] = line["error"] or f"status: {error or type(error).__name__}"
            print(json.dumps(line), file=out)

        _pace(interval_s, step)


def main() -> None:
    what, *args = sys.argv[1:]
    if what == "udp-send":
        udp_send(args[0], args[1], int(args[2]), float(args[3]))
    elif what == "udp-recv":
        udp_recv(args[0], int(args[1]), args[2])
    elif what == "tcp-serve":
        tcp_serve(args[0], int(args[1]))
    elif what == "tcp-send":
        tcp_send(args[0], args[1], int(args[2]), float(args[3]), args[4])
    elif what == "etcd-watch":
        etcd_watch(float(args[0]), float(args[1]), args[2])
    else:
        raise SystemExit(f"unknown: {what}\n{__doc__}")


if __name__ == "__main__":
    main()
