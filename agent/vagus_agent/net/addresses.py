"""Waits until this machine has the node's service addresses: at boot, the daemon that adds them may come after us."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import Final

from vagus_agent.config import Address

# linux/rtnetlink.h: addresses, IPv4 and IPv6
_RTMGRP_IFADDR: Final = 0x10 | 0x100


def absent(addresses: Sequence[Address]) -> list[Address]:
    """Those that nothing can be sent from yet: on no interface, or tentative still (IPv6)."""
    return [address for address in addresses if _is_absent(address)]


def _is_absent(address: Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        return error.errno == errno.EADDRNOTAVAIL  # any other trouble would not pass by waiting
    return False


async def until_there(addresses: Sequence[Address], say: Callable[[Sequence[Address]], None]) -> None:
    """Return once all are there. `say` gets what is waited for, at the start and whenever that changes.

    Raises OSError where the kernel tells nothing of addresses.
    """
    loop = asyncio.get_running_loop()
    said: list[Address] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as news:
        news.setblocking(False)
        news.bind((0, _RTMGRP_IFADDR))
        while missing := absent(addresses):
            if missing != said:
                said = missing
                say(missing)
            try:
                await loop.sock_recv(news, 65536)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # too many of them: look
                    raise
