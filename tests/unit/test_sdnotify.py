"""sd_notify over real sockets: what systemd would read, and that nothing ever raises."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vagus_runtime.sdnotify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """(NOTIFY_SOCKET, the socket that systemd reads)."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@vagus-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as reader:
        reader.bind(name.replace("@", "\0"))
        yield name, reader


def test_each_word_is_a_datagram(systemd: tuple[str, socket.socket]) -> None:
    address, reader = systemd
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.status("4 links up,\n1 down: tōkyō")
    notifier.watchdog()
    notifier.reloading(12.5)
    notifier.stopping()
    assert [reader.recv(4096).decode() for _ in range(5)] == [
        "READY=1",
        "STATUS=4 links up, 1 down: tōkyō",
        "WATCHDOG=1",
        "RELOADING=1\nMONOTONIC_USEC=12500000",
        "STOPPING=1",
    ]


def test_a_queue_that_is_full_neither_blocks_nor_raises(systemd: tuple[str, socket.socket]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd[0]})
    for _ in range(10_000):  # net.unix.max_dgram_qlen is 10 to 512
        notifier.watchdog()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "/nowhere/notify"},
        {"NOTIFY_SOCKET": "@vagus-nobody-listens"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"NOTIFY_SOCKET": "/a\0b"},
    ],
    ids=lambda environ: environ.get("NOTIFY_SOCKET", "none")[:20].replace("\0", "NUL"),
)
@pytest.mark.parametrize(
    "call", [Notifier.ready, Notifier.watchdog, Notifier.stopping, lambda notifier: notifier.status("\ud800\0")]
)
def test_without_systemd_nothing_happens(environ: dict[str, str], call: Callable[[Notifier], None]) -> None:
    call(Notifier(environ))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "ours"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
    ],
    ids=str,
)
def test_the_watchdog_is_fed_twice_as_often_as_systemd_looks(environ: dict[str, str], expected: float | None) -> None:
    ours = {name: value.replace("ours", str(os.getpid())) for name, value in environ.items()}
    assert Notifier(ours).watchdog_interval_s == expected
