"""systemd, as far as a service knows it: the socket where it says how it is."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from pathlib import Path


class Systemd:
    """`environ`: what tells the service of it. Whatever does not come within `patience_s` is a TimeoutError."""

    def __init__(self, folder: Path, patience_s: float) -> None:
        address = str(folder / "notify")
        self.environ = {"NOTIFY_SOCKET": address}
        self._patience_s = patience_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.settimeout(patience_s)

    def close(self) -> None:
        self._socket.close()

    def hears(self, words: str) -> None:
        """Reads what comes until it has `words`."""
        while words not in self._socket.recv(4096).decode():
            pass

    def forget(self) -> None:
        """What was said and not heard: the queue is short, and what does not fit is lost."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(4096):
                pass
        self._socket.settimeout(self._patience_s)

    def reload(self, service: subprocess.Popen[bytes]) -> None:
        """Until it says that it is done."""
        self.forget()
        service.send_signal(signal.SIGHUP)
        self.hears("RELOADING=1")
        self.hears("READY=1")
