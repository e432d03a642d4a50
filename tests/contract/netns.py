"""A network namespace without a name: it lives as long as this object holds it open, so nothing can be left behind."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())} (these tests need root)")


class Netns:
    """A fresh namespace with loopback up. Sockets opened under `inside()` stay in it."""

    def __init__(self) -> None:
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _check(_libc.unshare(_CLONE_NEWNET), "unshare")
            try:
                self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            finally:
                _check(_libc.setns(own, 0), "setns")
        finally:
            os.close(own)
        self.ip("link set lo up")

    @property
    def path(self) -> str:
        """For `nsenter --net=` and `ip link … netns`."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace; other threads are not."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _check(_libc.setns(self._fd, 0), "setns")
            try:
                yield
            finally:
                _check(_libc.setns(own, 0), "setns")
        finally:
            os.close(own)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *command], capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
        return done.stdout

    def ip(self, *lines: str) -> str:
        """`ip` with each line as its arguments."""
        return "".join(self.run("ip", *line.split()) for line in lines)

    def sysctl(self, name: str, value: object) -> None:
        self.run("sysctl", "-qw", f"{name}={value}")

    def socket(self, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        with self.inside():
            return socket.socket(family, kind)

    def close(self) -> None:
        os.close(self._fd)
