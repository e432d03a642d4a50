"""A real mosquitto on free loopback ports, and a watcher that remembers what it saw there."""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from contract.server import ServerProcess


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Certificates(NamedTuple):
    ca: Path
    cert: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """A new CA and a server certificate for 127.0.0.1 and localhost, by the openssl command."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=20)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test CA")
    openssl("req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=broker")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-out", "server.pem", "-days", "2", "-extfile", "san"),
    )
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")


class Mosquitto(ServerProcess):
    """A broker process; nothing persists over `kill`. Use as a context; `ports` are its listeners.

    users: name → password (nobody else gets in); acl: the text of an ACL file; options: more lines of mosquitto.conf.
    """

    def __init__(
        self,
        *,
        listeners: int = 1,
        users: dict[str, str] | None = None,
        acl: str = "",
        tls: Certificates | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.ports = tuple(free_port() for _ in range(listeners))
        self.port = self.ports[0]
        self._folder = tempfile.TemporaryDirectory(prefix="vagus-mosquitto-")
        folder = Path(self._folder.name)
        super().__init__(folder / "log")
        # user root: the files are in a folder that only we may read.
        lines = ["user root", "persistence false", "set_tcp_nodelay true", "max_queued_messages 100000", *options]
        lines.append(f"allow_anonymous {'false' if users else 'true'}")
        if users:
            lines.append(f"password_file {folder}/passwords")
            (folder / "passwords").touch(mode=0o600)
            for name, password in users.items():
                command = ["mosquitto_passwd", "-b", str(folder / "passwords"), name, password]
                subprocess.run(command, check=True, capture_output=True, timeout=10)
        if acl:
            (folder / "acl").write_text(acl)
            lines.append(f"acl_file {folder}/acl")
        for port in self.ports:
            lines.append(f"listener {port} 127.0.0.1")
            if tls:
                lines += [f"cafile {tls.ca}", f"certfile {tls.cert}", f"keyfile {tls.key}"]
        (folder / "conf").write_text("\n".join(lines) + "\n")
        self._conf = folder / "conf"

    def __enter__(self) -> Mosquitto:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        self._launch(["mosquitto", "-c", str(self._conf)], self._answers, 10)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL: no goodbye, nothing saved."""
        self._end(signal.SIGKILL)


class Relay:
    """Another address of a broker: a TCP relay on `port` that can come up while the broker already runs."""

    def __init__(self, port: int, target: int) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self._target = target
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Relay:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for sock in (self._server, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for sock in (self._server, *self._sockets):
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    thread = threading.Thread(target=self._copy, args=(source, sink), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


class Seen(NamedTuple):
    topic: str
    payload: bytes
    retained: bool
    qos: int


class Watcher:
    """A client that sees what passes a broker, in order. Plain paho, so that it shares nothing with what it judges."""

    def __init__(self, port: int, topic: str = "#", *, user: str = "", password: str = "", ca: str = "") -> None:
        self._queue: queue.Queue[Seen] = queue.Queue()
        self._ready: queue.Queue[bool] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if user:
            self._client.username_pw_set(user, password)
        if ca:
            self._client.tls_set(ca)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.put(True)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def __enter__(self) -> Watcher:
        self._ready.get(timeout=10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._queue.put(Seen(message.topic, bytes(message.payload), message.retain, message.qos))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)

    def send(self, topic: str, payload: bytes) -> None:
        """QoS 0, without waiting."""
        self._client.publish(topic, payload, qos=0)

    def wait_for(self, wanted: Callable[[Seen], bool], what: str, timeout: float = 8.0) -> Seen:
        """The next message that is `wanted`; those before it are passed over."""
        deadline = time.monotonic() + timeout
        passed: list[Seen] = []
        while True:
            try:
                seen = self._queue.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                raise AssertionError(f"no {what} within {timeout:g} s; saw {passed[-20:]}") from None
            if wanted(seen):
                return seen
            passed.append(seen)

    def drain(self, quiet_s: float = 0.3) -> list[Seen]:
        """What came until `quiet_s` pass without a message."""
        seen: list[Seen] = []
        while True:
            try:
                seen.append(self._queue.get(timeout=quiet_s))
            except queue.Empty:
                return seen
