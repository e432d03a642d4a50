"""STAND-IN for Tailscale's LocalAPI. This is not Tailscale: the lab's overlay is wireguard-go, which has no such API.

Serves GET /localapi/v0/status on the unix socket ARGV[1], telling what the lab did to the overlay, as the JSON file
ARGV[2] says: `{"backend": "Running", "self": {...}, "peers": [{"name", "ips", "routes", "key", "path", "endpoint",
"since"}]}`. `path` is "direct", "relay" (the DERP case) or "cut"; `since` is seconds of the monotonic clock. Counters
and handshakes are wireguard-go's own. As with Tailscale, CurAddr is set only while the direct path is trusted: it goes
6.5 s after a cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

TRUST_S = 6.5  # Tailscale's trustUDPAddrDuration
ACTIVE_S = 120.0
ZERO_TIME = "0001-01-01T00:00:00Z"


def tunnel_peers() -> dict[str, dict[str, str]]:
    """wireguard-go's view by peer key (hex), or {} when it is gone."""
    peers: dict[str, dict[str, str]] = {}
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(1.0)
        sock.connect("/run/wireguard/tailscale0.sock")
        sock.sendall(b"get=1\n\n")
        with sock.makefile() as lines:
            current: dict[str, str] = {}
            for line in lines:
                key, _, value = line.strip().partition("=")
                if key == "public_key":
                    current = peers.setdefault(value, {})
                elif key == "errno":
                    break
                current[key] = value
    return peers


def status() -> dict[str, Any]:
    state = json.loads(Path(sys.argv[2]).read_bytes())
    running = state["backend"] == "Running"
    tunnel = tunnel_peers() if running else {}
    peers = {}
    for peer in state["peers"]:
        seen = tunnel.get(peer["key"], {})
        handshake = int(seen.get("last_handshake_time_sec", "0"))
        active = running and handshake > 0 and time.time() - handshake < ACTIVE_S + 60
        trusted = peer["path"] == "direct" or (peer["path"] == "cut" and time.monotonic() - peer["since"] < TRUST_S)
        peers[f"nodekey:{peer['key']}"] = {
            "ID": f"n{peer['name']}",
            "HostName": peer["name"],
            "DNSName": f"{peer['name']}.lab.ts.net.",
            "OS": "linux",
            "TailscaleIPs": peer["ips"],
            "AllowedIPs": [f"{ip}/{128 if ':' in ip else 32}" for ip in peer["ips"]] + peer["routes"],
            "PrimaryRoutes": peer["routes"],
            "CurAddr": peer["endpoint"] if active and trusted else "",
            "Relay": "lab",
            "PeerRelay": "",
            "RxBytes": int(seen.get("rx_bytes", "0")),
            "TxBytes": int(seen.get("tx_bytes", "0")),
            "LastHandshake": datetime.datetime.fromtimestamp(handshake, datetime.UTC).isoformat()
            if handshake
            else ZERO_TIME,
            "Online": True,
            "Active": active,
            "InEngine": active,
            "Expired": False,
        }
    own = {**state["self"], "OS": "linux", "Relay": "lab", "Online": running, "CurAddr": "", "Active": False}
    return {
        "Version": "0-lab-stand-in",
        "BackendState": state["backend"],
        "TUN": True,
        "Health": [] if running else [f"Tailscale is {state['backend'].lower()}."],
        "TailscaleIPs": state["self"]["TailscaleIPs"] if running else None,
        "Self": own,
        "Peer": peers,
    }


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = (head[0] + "  ").split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if headers.get("host", "") not in ("", "local-tailscaled.sock") or {"origin", "referer"} & headers.keys():
            code, body = "403 Forbidden", b"invalid localapi request"
        elif method != "GET" or target.partition("?")[0] != "/localapi/v0/status":
            code, body = "404 Not Found", b"not found (lab stand-in)"
        else:
            code, body = "200 OK", json.dumps(status()).encode()
        writer.write(
            f"HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_unix_server(serve, sys.argv[1])
    os.chmod(sys.argv[1], 0o666)
    await server.serve_forever()


asyncio.run(main())
