"""Makes the kernel forget translated connections that a move left behind: after it stands, and never in its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping
from functools import partial

from vagus_agent import threads
from vagus_agent.config import Address, Config
from vagus_agent.core import ladder, translations
from vagus_agent.core.translations import Moved, Standing
from vagus_agent.net import conntrack, facts
from vagus_agent.net.conntrack import ConntrackError


class ConntrackFlush:
    """`tell` gets what was done, `complain` what could not be."""

    def __init__(self, config: Config, tell: Callable[[str], object], complain: Callable[[str], object]) -> None:
        self._config = config
        self._tell = tell
        self._complain = complain
        self._standing = Standing()
        self._due: dict[str, str] = {}
        self._woken = asyncio.Event()

    def reconfigure(self, config: Config) -> None:
        self._config = config

    def on_paths(self, paths: Mapping[str, str], on_trial: Container[str]) -> None:
        """As `Standing.moved`, after everything that may have moved a peer."""
        if moved := self._standing.moved(paths, on_trial):
            self._due |= moved
            self._woken.set()

    async def run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            paths, self._due = self._due, {}
            try:
                forgotten = await threads.run("conntrack", partial(self._forget, paths))
            except Exception as error:  # whatever the library meets: no move may end with it
                why = str(error) if isinstance(error, ConntrackError) else repr(error)
                self._complain(f"connections that a move left behind cannot be forgotten: {why}")
                continue
            for peer, count in forgotten.items():
                what = "a translated connection was" if count == 1 else f"{count} translated connections were"
                self._tell(f"{peer} goes by {paths[peer]}: {what} forgotten")

    def _forget(self, paths: Mapping[str, str]) -> Mapping[str, int]:
        moved = [
            Moved(peer.name, ladder.destinations(peer), self._kept(paths[peer.name]))
            for peer in self._config.peers
            if peer.name in paths
        ]
        return conntrack.forget(lambda connection: translations.whose(connection, moved))

    def _kept(self, path: str) -> frozenset[Address]:
        others = {other.interface for other in self._config.paths if other.name != path}
        return frozenset(own.ip for _, own in facts.interfaces(without=others))
