"""`vagus-agent routes show|clear`: what stands in the kernel, read from the kernel. Needs no broker and no daemon."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from vagus_agent.config import Config
from vagus_agent.core import ladder
from vagus_agent.core.ladder import OVERRIDE_METRIC, Route
from vagus_agent.net.netlink import Kernel, Netlink, SteeringError
from vagus_agent.net.steering import clear as clear_kernel
from vagus_agent.net.steering import standing_overrides

_HEADINGS = ("PEER", "DESTINATION", "PATH", "VIA", "METRIC", "NOTE")


def show(config: Config) -> int:
    """Print our rules and routes; 1 when the kernel cannot be read."""
    return _with_kernel(config, lambda kernel: _show(config, kernel))


def clear(config: Config, overrides_only: bool) -> int:
    """Remove our routes and rules, or the overrides only, and print what was removed; 1 when that fails."""
    return _with_kernel(config, lambda kernel: _clear(config, kernel, overrides_only))


async def wanted_now(config: Config, kernel: Kernel) -> ladder.Wanted:
    """The ladder for the interfaces and the overrides that stand now."""
    interfaces = {path.name: await kernel.interface(path.interface) for path in config.paths}
    indexes = {name: found.index if found and found.up else None for name, found in interfaces.items()}
    wanted = ladder.wanted(config, indexes, standing_overrides(config, (await kernel.routes()).ours))
    families = kernel.families
    return ladder.Wanted(frozenset(route for route in wanted.routes if route.family in families), wanted.missing)


async def _show(config: Config, kernel: Kernel) -> None:
    table = await kernel.routes()
    wanted = (await wanted_now(config, kernel)).routes
    rows: list[tuple[str, ...]] = []
    rest = set(table.ours)
    for peer in config.peers:
        for destination in ladder.destinations(peer):
            source = ladder.own_address(config, destination.version)
            in_use = None
            if source and destination.num_addresses == 1 and destination.version in kernel.families:
                in_use = await kernel.lookup(str(destination.network_address), str(source))
            used = False
            routes = [route for route in table.ours | wanted if route.destination == str(destination)]
            for route in sorted(routes, key=lambda route: route.metric):
                rest.discard(route)
                path = ladder.path_of(config, peer, route.family, route.device, route.gateway)
                notes = ["override"] if route.metric == OVERRIDE_METRIC else []
                if route not in table.ours:
                    notes.append("MISSING")
                elif route not in wanted:
                    notes.append("not wanted")
                elif in_use and not used and not in_use.error and in_use.table == config.steering.table:
                    used = (route.device, route.gateway) == (in_use.device, in_use.gateway)
                    notes += ["in use"] if used else []
                rows.append(_row(peer.name, route, path, notes))
    rows += [_row("-", route, "", ["left over: no such peer"]) for route in sorted(rest, key=str)]
    rows += [
        _row("-", stray.route, "", [f"left over in table {stray.table}"])
        for stray in sorted(await kernel.strays(), key=str)
    ]
    rows += [_row("-", route, "", ["another protocol's"]) for route in sorted(table.foreign, key=str)]
    rules = await kernel.rules()
    goal = ladder.wanted_rules(config, kernel.families)
    for rule in sorted(goal, key=str):
        _say(f"{rule}{'' if rule in rules else '   MISSING'}")
    for rule in sorted(rules - goal, key=str):
        if rule.protocol == config.steering.protocol:
            _say(f"{rule}   left over")
    _say("")
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    for row in (_HEADINGS, *rows):
        _say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(peer: str, route: Route, path: str, notes: list[str]) -> tuple[str, ...]:
    via = f"{route.gateway} dev {route.device}" if route.gateway else route.device or route.kind
    return peer, route.destination, path or "-", via, str(route.metric), ", ".join(notes)


async def _clear(config: Config, kernel: Kernel, overrides_only: bool) -> None:
    removed = await clear_kernel(kernel, config, overrides_only)
    for line in removed:
        _say(f"removed {line}")
    what = "override" if overrides_only else "rule or route"
    if not removed:
        _say(f"nothing to remove: no {what} of ours stands")
    elif not overrides_only:
        _say("a running vagus-agent puts them back: to be rid of them, stop it first")


def _with_kernel(config: Config, work: Callable[[Kernel], Awaitable[None]]) -> int:
    async def run() -> None:
        kernel = Netlink(config.steering)
        await kernel.open()
        try:
            await work(kernel)
        finally:
            await kernel.close()

    try:
        asyncio.run(run())
    except SteeringError as error:
        sys.stderr.write(f"vagus-agent: {error}\n")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
