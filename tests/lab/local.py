"""`scripts/demo --local`: no lab. A broker, the controller and one real agent on this machine, without any privilege.

The broker is mosquitto where it is installed, else the embedded amqtt (pure Python, MQTT 3.1.1).
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from lab.harness import LabError
from lab.harness.services import to_toml, write_keys, write_private
from vagus_protocol import signing

_AMQTT = """
import asyncio, sys
from amqtt.broker import Broker
async def main():
    broker = Broker({"listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:" + sys.argv[1]}},
                     "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}})
    await broker.start()
    await asyncio.Event().wait()
asyncio.run(main())
"""
_PATIENCE_S = 30.0


def run(*, once: bool, port: int, json_file: Path | None) -> int:
    """Start everything, wait until the node is seen, then stay until Ctrl-C (not with `once`)."""
    with tempfile.TemporaryDirectory(prefix="vagus-local-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        began = time.monotonic()
        broker_port, http_port = _free_port(), port or _free_port()
        protocol = _start_broker(directory, broker_port, stack)
        token, password = _configure(directory, broker_port, http_port, protocol)
        for command in ("vagus-controller", "vagus-agent"):
            config = directory / f"{command.removeprefix('vagus-')}.toml"
            _start(directory, command, [_script(command), "run", "--config", str(config)], stack)
        url = f"http://127.0.0.1:{http_port}"
        fleet = _wait_for_node(url, token)
        took = round(time.monotonic() - began, 3)
        if fleet is None:
            for log in sorted(directory.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-2000:]}", file=sys.stderr)
            print(f"The node was not seen within {_PATIENCE_S:.0f} s; the logs are above.", file=sys.stderr)
            return 1
        print(f"{fleet['summary']}\nThe page: {url}  (user operator, password {password})  [{took} s]", flush=True)
        if json_file is not None:
            step = {"name": "node seen", "took_s": took, "held": True, "figures": {}}
            json_file.write_text(json.dumps({"held": True, "steps": [step]}, indent=2) + "\n")
        if not once:
            print("Ctrl-C ends it.", flush=True)
            signal.pause()
    return 0


def _start_broker(directory: Path, port: int, stack: contextlib.ExitStack) -> str:
    """Returns the MQTT protocol that it speaks."""
    mosquitto = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if mosquitto is None:
        _start(directory, "broker", [sys.executable, "-c", _AMQTT, str(port)], stack)
        protocol = "3.1.1"
    else:
        config = directory / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
        _start(directory, "broker", [mosquitto, "-c", str(config)], stack)
        protocol = "5"
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.05)
    return protocol


def _configure(directory: Path, broker_port: int, http_port: int, protocol: str) -> tuple[str, str]:
    """Writes both configurations; returns the operator's token and password."""
    fleet_key, token = secrets.token_bytes(signing.KEY_BYTES), secrets.token_urlsafe(16)
    password = secrets.token_urlsafe(9)
    node = re.sub("[^a-z0-9]+", "-", socket.gethostname().lower())[:63].strip("-") or "here"
    write_keys(directory / "keys.toml", fleet_key, node)
    write_private(directory / "fleet.key", fleet_key.hex() + "\n")
    write_private(directory / "token", token + "\n")
    write_private(directory / "operator-password", password + "\n")
    mqtt = {"protocol": protocol, "brokers": [{"host": "127.0.0.1", "port": broker_port}]}
    agent: dict[str, Any] = {
        "fleet": "local",
        "node": node,
        "site": "here",
        # A fleet of one probes nobody: any address of this machine will do.
        "addresses": [_own_address()],
        "keys_file": str(directory / "keys.toml"),
        "state_dir": str(directory / "agent"),
        "paths": [{"name": "overlay", "interface": "tailscale0"}],
        "steering": {"enabled": False},
        "mqtt": mqtt,
    }
    controller: dict[str, Any] = {
        "fleet": "local",
        "name": "local",
        "fleet_key_file": str(directory / "fleet.key"),
        "mqtt": mqtt,
        "http": {
            "port": http_port,
            "token_file": str(directory / "token"),
            "password_file": str(directory / "operator-password"),
        },
        "store": {"url": f"sqlite:///{directory}/vagus.db"},
    }
    write_private(directory / "agent.toml", to_toml(agent))
    write_private(directory / "controller.toml", to_toml(controller))
    return token, password


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Sends nothing: it only asks which address would be used.
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError as error:
            raise LabError(f"this machine has no address of its own to show: {error.strerror}") from None
        return str(probe.getsockname()[0])


def _start(directory: Path, name: str, argv: list[str], stack: contextlib.ExitStack) -> None:
    log = stack.enter_context((directory / f"{name}.log").open("wb"))
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    stack.callback(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _wait_for_node(url: str, token: str) -> Any:
    request = urllib.request.Request(f"{url}/api/v1/fleet", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            fleet = json.loads(urllib.request.urlopen(request, timeout=2).read())
            if any(node["report"] for node in fleet["nodes"]) and fleet["observer"]["state"] == "connected":
                return fleet
        time.sleep(0.2)
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
