"""Which tracked connections hold on to a path that their traffic has left, and when to look for them.

Conntrack keeps no route: a connection that nobody translates follows its peer from path to path. But a translation is
fixed when a connection begins. One whose source was made the address of a path keeps it on every other path too, where
the far end's AllowedIPs drop it: until it is forgotten, and its next packet is translated anew.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from vagus_agent.config import Address, Network


class Translation(NamedTuple):
    """A tracked connection of `source`, which is sent to `target` (after its own translation) as from `translated`."""

    source: Address
    translated: Address
    target: Address


class Moved(NamedTuple):
    """A peer whose traffic stands on another path. `kept`: this machine's addresses, without the other paths' own."""

    peer: str
    destinations: tuple[Network, ...]
    kept: frozenset[Address]


def whose(connection: Translation, moved: Iterable[Moved]) -> str:
    """The peer whose move left the connection with a source of another path; "" where it may stay as it is."""
    if connection.translated == connection.source:
        return ""  # only its port is
    for peer, destinations, kept in moved:
        if connection.translated not in kept and any(connection.target in network for network in destinations):
            return peer
    return ""


class Standing:
    """Where each peer's traffic last stood."""

    def __init__(self) -> None:
        self._stood: dict[str, str] = {}

    def moved(self, paths: Mapping[str, str], on_trial: Container[str]) -> dict[str, str]:
        """peer → path, of those that have come to stand on another one. `paths`: what the kernel answers, "" for none
        of ours. Who is on trial may go back: until it is confirmed, nothing has moved."""
        found: dict[str, str] = {}
        for peer, path in paths.items():
            if path and peer not in on_trial and self._stood.setdefault(peer, path) != path:
                self._stood[peer] = found[peer] = path
        return found
