"""Asks, while the agent runs, what keeps its links from carrying traffic: beside the probes, never in their way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from typing import Final

from vagus_agent.config import Config, Path, Peer
from vagus_agent.core import obstacles
from vagus_agent.core.link import Link
from vagus_agent.net import facts
from vagus_agent.net.netlink import Netlink, SteeringError

log = logging.getLogger("vagus")

_LOOK_EVERY_S: Final = 2.0


class ObstacleWatch:
    def __init__(self, config: Config, links: Sequence[Link]) -> None:
        self._config = config
        self._links = links
        self._rounds = obstacles.Rounds()
        self._ends = _ends(config)
        self._found: dict[tuple[str, str], str] = {}

    def reconfigure(self, config: Config) -> None:
        self._config = config
        self._ends = _ends(config)
        self._found = {key: text for key, text in self._found.items() if key in self._ends}

    def of(self, peer: str, path: str) -> str:
        """What is known to keep `path` from carrying `peer`, with the remedy; "" when nothing is."""
        return self._found.get((peer, path), "")

    async def run(self) -> None:
        while True:
            due = self._rounds.due(self._links, self._found, monotonic())
            if due:
                try:
                    await self._examine([key for key in due if key in self._ends])
                except (SteeringError, OSError, ValueError) as error:
                    # It only explains: what it cannot read must not end the agent.
                    log.warning("cannot look for what is in the way of traffic: %s", error)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _examine(self, keys: Sequence[tuple[str, str]]) -> None:
        # Opened for the moment: it is needed every few minutes, and the steering's own has traffic to move.
        config, ends = self._config, [self._ends[key] for key in keys]
        kernel = Netlink(config.steering)
        try:
            await kernel.open()
            found = await facts.read(config, kernel, ends)
        finally:
            await kernel.close()
        for key, end in zip(keys, ends, strict=True):
            if key not in self._ends:
                continue  # it went meanwhile
            text = obstacles.told(obstacles.of_link(config, *end, found))
            if text and text != self._found.get(key):
                log.warning("%s to %s has an obstacle: %s", key[1], key[0], text)
            if text:
                self._found[key] = text
            else:
                self._found.pop(key, None)


def _ends(config: Config) -> dict[tuple[str, str], tuple[Peer, Path]]:
    return {(peer.name, path.name): (peer, path) for peer in config.peers for path in config.paths_to(peer)}
