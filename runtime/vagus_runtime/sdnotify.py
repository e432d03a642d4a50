"""systemd's notification protocol, sd_notify(3) and sd_watchdog_enabled(3).

Not a library from PyPI: see docs/decisions/0002-dependencies.md.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Tells systemd how the service is. Without NOTIFY_SOCKET every call does nothing; no call raises or blocks."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # systemd.exec(5): a path, or "@" for the abstract namespace, which the kernel spells with a leading NUL.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_interval_s = _watchdog_interval_s(environ)
        """How often `watchdog()` must be called: half of what systemd waits. None: systemd does not wait for it."""

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self, now: float) -> None:
        """The settings are being read again, until `ready`. `now`: the monotonic clock, in seconds."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(now * 1_000_000)}")

    def status(self, text: str) -> None:
        """Shows `text` (one line) in `systemctl status`."""
        self._send("STATUS=" + " ".join(text.split()))

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(message.encode(errors="replace"), socket.MSG_DONTWAIT, self._address)
        except (OSError, ValueError):
            # Nobody listens, or its queue is full. A lost word to systemd must never stop the service; a lost watchdog
            # word is systemd's to judge.
            return


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit() and 0 < len(microseconds) < 20) or int(microseconds) == 0:
        return None
    # The variables are inherited by children, for whom they are not meant.
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2 / 1_000_000
