"""A node's kernel: the contract tests' model of Linux, which may also die at any write, be slow, or refuse.

The steering code of the agent runs on it as it is: it waits for nothing here, so each of its calls ends at once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeVar

from contract.kernel_fake import FakeKernel
from vagus_agent.config import Config
from vagus_agent.core import ladder
from vagus_agent.core.ladder import Route, Rule
from vagus_agent.net.netlink import SteeringError

T = TypeVar("T")


class SimKernel(FakeKernel):
    """`before_write` may end the program that writes. `refuses`: every write fails."""

    def __init__(self, config: Config, before_write: Callable[[], None]) -> None:
        super().__init__(config.steering)
        self._config = config
        self.families = (4,)
        self._before_write = before_write
        self.refuses = False
        # routes that the agent wrote since the invariants looked
        self.written: list[Route] = []
        for path in config.paths:
            self.add_link(path.interface)
        for address in config.addresses:
            self.add_address(str(address))

    def _write(self, what: object) -> None:
        if self.refuses:
            raise SteeringError(f"cannot set {what}: Operation not permitted")
        self._before_write()

    async def replace(self, route: Route) -> None:
        self._write(route)
        self.written.append(route)
        await super().replace(route)

    async def remove(self, route: Route) -> None:
        self._write(route)
        await super().remove(route)

    async def add_rule(self, rule: Rule) -> None:
        self._write(rule)
        await super().add_rule(rule)

    async def remove_rule(self, rule: Rule) -> None:
        self._write(rule)
        await super().remove_rule(rule)

    # --- faults ----------------------------------------------------------------------------------------------------

    def reboot(self) -> None:
        """Everything that is not on disk is gone."""
        self._entries.clear()
        self._rules = {rule for rule in self._rules if rule.protocol != self._config.steering.protocol}

    def set_interface(self, path: str, there: bool) -> None:
        name = next(each.interface for each in self._config.paths if each.name == path)
        if there and name not in self._links:
            self.add_link(name)
        elif not there and name in self._links:
            self.remove_link(name)

    # --- what a packet meets -----------------------------------------------------------------------------------------

    def path_to(self, peer: str) -> str:
        """The path that an unmarked packet to the peer's service address takes now; "" when it has none of ours."""
        found = next(each for each in self._config.peers if each.name == peer)
        answer = run(self.lookup(str(found.addresses[0]), str(self._config.addresses[0])))
        if answer.table != self._config.steering.table:
            return ""
        return ladder.path_of(self._config, found, 4, answer.device, answer.gateway)

    def ours(self) -> tuple[list[Route], list[Rule]]:
        """Every route and rule that carries our protocol number."""
        protocol = self._config.steering.protocol
        routes = [entry.route for entry in self._entries if entry.protocol == protocol]
        return routes, [rule for rule in self._rules if rule.protocol == protocol]

    def foreign(self) -> tuple[frozenset[Route], frozenset[Rule]]:
        protocol = self._config.steering.protocol
        routes = frozenset(entry.route for entry in self._entries if entry.protocol != protocol)
        return routes, frozenset(rule for rule in self._rules if rule.protocol != protocol)

    def _best(self, table: int, address: str) -> Route | None:
        """As the model's, without parsing the same prefixes again and again."""
        best: tuple[int, int, Route] | None = None
        for entry in self._entries:
            if entry.table == table and _covers(entry.route.destination, address):
                candidate = (-_network(entry.route.destination).prefixlen, entry.route.metric, entry.route)
                if best is None or candidate[:2] < best[:2]:
                    best = candidate
        return best[2] if best is not None else None


def run(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("it waits, and nobody else runs here")


@cache
def _network(prefix: str) -> IPv4Network | IPv6Network:
    return ip_network(prefix)


@cache
def _covers(prefix: str, address: str) -> bool:
    return _network(prefix).supernet_of(ip_network(address))  # type: ignore[arg-type]
