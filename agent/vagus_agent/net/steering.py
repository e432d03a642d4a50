"""Brings the kernel to the ladder of the configuration and the overrides asked for, and keeps it there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from vagus_agent.config import Config, Network, Peer
from vagus_agent.core import ladder
from vagus_agent.core.ladder import OVERRIDE_METRIC, Route, Rule, Stray, Wanted
from vagus_agent.net.netlink import EVENTS_LOST, ROUTE_CHANGED, Kernel, SteeringError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What stands now.

    `changed`: something was written. `paths`: peer → the path that the kernel's own lookup answers with, or "" when
    it answers with none of ours. `drift`: what others had changed, found before the repair. `missing`: rungs that
    cannot stand now, with the reason. `failed`: what is not as wanted in spite of us; "" when all is well.
    """

    changed: bool = False
    paths: Mapping[str, str] = field(default_factory=dict)
    drift: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    failed: str = ""


# path → interface index; None while the interface is missing or down
Interfaces = Mapping[str, int | None]

# Events come in bursts (an interface going down is a dozen): look once, this long after the first.
_DEBOUNCE_S: Final = 0.05
# Another writer may change what we have just read: so many rounds, then say so.
_ROUNDS: Final = 3


class Steering:
    """One writer at a time; `reconcile`, `override` and `watch` raise no SteeringError."""

    def __init__(self, kernel: Kernel, config: Config, log: logging.Logger) -> None:
        self._kernel = kernel
        self._config = config
        self._log = log
        self._lock = asyncio.Lock()
        self._asked = asyncio.Event()
        self._looked = False
        self._overrides: dict[str, str] = {}
        self._interfaces: dict[str, int | None] = {}
        # Our routes and everybody else's in our table, as far as we know.
        self._standing: frozenset[Route] = frozenset()
        self._foreign: frozenset[Route] = frozenset()
        # What an earlier configuration, or somebody in our name, put into other tables, and whether to look for it:
        # that walks every table.
        self._strays: frozenset[Stray] = frozenset()
        self._seek = True
        self._last = Outcome()

    @property
    def overrides(self) -> Mapping[str, str]:
        """peer → path, as asked for last."""
        return dict(self._overrides)

    @property
    def interfaces(self) -> Interfaces:
        """As seen last."""
        return dict(self._interfaces)

    async def open(self) -> None:
        await self._kernel.open()
        if 6 not in self._kernel.families and ladder.own_address(self._config, 6):
            self._log.warning("this host has no IPv6: steering IPv4 only")

    async def close(self) -> None:
        """Leaves routes and rules as they are."""
        await self._kernel.close()

    async def standing_overrides(self) -> dict[str, str] | None:
        """peer → path of the overrides that an earlier run left in the kernel; None when nothing of ours is there.

        Raises SteeringError.
        """
        ours = (await self._kernel.routes()).ours
        return standing_overrides(self._config, ours) if ours else None

    async def reconcile(self, overrides: Mapping[str, str], reason: str) -> Outcome:
        """Make the kernel what `overrides` (peer → path) asks for, adopting or removing whatever is ours in it."""
        async with self._lock:
            self._asked.set()
            return await self._reconcile(dict(overrides), reason)

    async def reconfigure(self, config: Config, overrides: Mapping[str, str]) -> Outcome:
        """As `reconcile`, by another configuration of the same table, rule and interfaces from now on."""
        async with self._lock:
            self._config = config
            return await self._reconcile(dict(overrides), "reload")

    async def override(self, peer: str, path: str, reason: str = "") -> Outcome:
        """Move one peer to `path` (its first path: back home) at once, from what is known to stand; then verify.

        Where that does not give what was asked for, a full reconcile follows before this returns.
        """
        async with self._lock:
            overrides = {**self._overrides, peer: path}
            target = next((candidate for candidate in self._config.peers if candidate.name == peer), None)
            if target is None or not self._looked or not self._config.steering.enabled:
                self._asked.set()
                return await self._reconcile(overrides, reason)
            goal = self._wanted(overrides)
            prefixes = {str(destination) for destination in ladder.destinations(target)}
            rungs = [route for route in goal.routes if route.destination in prefixes]
            add, remove = ladder.diff(rungs, [route for route in self._standing if route.destination in prefixes])
            changed = bool(add or remove)
            if remove:
                # What the traffic falls back on may be gone, unannounced (link down): set it again first.
                add = sorted(
                    {route for route in rungs if route.kind == "unicast"} | set(add), key=lambda route: route.metric
                )
            failures = await self._set(add)
            failures |= await self._unset(remove, failures)
            try:
                paths, wrong = await self._verify([target], overrides, goal)
            except SteeringError as error:
                paths, wrong = {}, [str(error)]
            if failures or wrong or self._last.failed:
                return await self._reconcile(overrides, reason, changed)
            self._overrides = overrides
            if changed:
                self._log.info("%s → %s%s", peer, paths[peer], f" ({reason})" if reason else "")
            self._last = Outcome(changed, {**self._last.paths, **paths}, (), goal.missing)
            return self._last

    async def clear(self, overrides_only: bool) -> list[str]:
        """Remove the overrides, or all that is ours; returns what was removed. End `watch` first: it repairs."""
        async with self._lock:
            self._overrides = {}
            return await clear(self._kernel, self._config, overrides_only)

    async def watch(
        self, on_outcome: Callable[[Outcome], None], on_interfaces: Callable[[Interfaces], None] = lambda _: None
    ) -> None:
        """Repair on events and every `recheck_s`, for ever, once `reconcile` has said what is wanted.

        `on_outcome` gets only news: drift, other paths, other failures. `on_interfaces`: at the start and every change.
        """
        woken = asyncio.Event()
        listener = asyncio.create_task(self._listen(woken))
        told: Interfaces | None = None
        try:
            await self._asked.wait()
            while True:
                async with self._lock:
                    before = self._last
                    outcome = await self._reconcile(self._overrides, "recheck")
                if told != self._interfaces:
                    told = self.interfaces
                    on_interfaces(told)
                if outcome.drift or _news(outcome) != _news(before):
                    on_outcome(outcome)
                try:
                    async with asyncio.timeout(self._config.steering.recheck_s):
                        await woken.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(_DEBOUNCE_S)
                woken.clear()
        finally:
            listener.cancel()

    async def _listen(self, woken: asyncio.Event) -> None:
        while True:
            try:
                async for event in self._kernel.events():
                    self._log.debug("%s", event)
                    self._seek |= event in (ROUTE_CHANGED, EVENTS_LOST)
                    woken.set()
            except SteeringError as error:
                self._log.warning("%s; looking every %g s only", error, self._config.steering.recheck_s)
            await asyncio.sleep(self._config.steering.recheck_s)

    async def _reconcile(self, overrides: dict[str, str], reason: str, changed: bool = False) -> Outcome:
        self._overrides, previously = overrides, self._interfaces
        drift: list[str] = []
        missing: tuple[str, ...] = ()
        failures: list[str] = []
        paths: dict[str, str] = {}
        try:
            for attempt in range(_ROUNDS + 1):
                rules = await self._look(drift if attempt == 0 else None, previously)
                goal = self._wanted(overrides)
                missing = goal.missing
                add, remove = ladder.diff(goal.routes, self._standing)
                add_rules, remove_rules = self._rule_diff(rules)
                if not (add or remove or add_rules or remove_rules):
                    break
                if attempt == _ROUNDS:
                    failures.append("somebody else changes our routes as fast as we repair them")
                    break
                found = self._standing
                failed = await self._set(add)
                failures += failed.values()
                refused = await _each(self._kernel.add_rule, add_rules)
                if not refused:
                    # Before the routes: without the rule, nothing meets a ladder that is half removed.
                    refused += await _each(self._kernel.remove_rule, remove_rules)
                failures += refused
                failures += (await self._unset(remove, failed)).values()
                changed |= found != self._standing or len(refused) < len(add_rules) + len(remove_rules)
                if failures:
                    break
            self._looked = True
            if self._strays and not failures:
                changed = True
                failures += await self._sweep()
            failures += self._occupied(overrides)
            paths, wrong = await self._verify(self._config.peers, overrides, goal)
            failures += wrong
        except SteeringError as error:
            failures.append(str(error))
        outcome = Outcome(changed, paths, tuple(drift), missing, "; ".join(dict.fromkeys(failures)))
        self._tell(outcome, reason)
        self._last = outcome
        return outcome

    async def _look(self, drift: list[str] | None, previously: Interfaces) -> frozenset[Rule]:
        """Read the kernel; returns the rules. Appends to `drift` what others changed since we last looked."""
        interfaces = {path.name: await self._kernel.interface(path.interface) for path in self._config.paths}
        table = await self._kernel.routes()
        rules = await self._kernel.rules()
        self._interfaces = {name: found.index if found and found.up else None for name, found in interfaces.items()}
        self._foreign = table.foreign
        if drift is not None and (self._seek or not self._looked):
            self._seek, known = False, self._strays
            self._strays = await self._kernel.strays()
            if self._looked:
                drift += [
                    f"a route of ours that we did not set: {stray}" for stray in sorted(self._strays - known, key=str)
                ]
        if drift is not None and self._looked:
            drift += self._drift(table.ours, rules, previously)
        elif drift is not None:
            leftovers: list[object] = sorted(table.ours - self._wanted(self._overrides).routes, key=str)
            leftovers += self._rule_diff(rules)[1]
            leftovers += sorted(self._strays, key=str)
            drift += [f"left by an earlier run: {leftover}" for leftover in leftovers]
        self._standing = table.ours
        return rules

    def _drift(self, ours: frozenset[Route], rules: Iterable[Rule], previously: Interfaces) -> list[str]:
        """An interface that went or came back took its routes along: that is no drift."""
        steady = {
            path.interface
            for path in self._config.paths
            if previously.get(path.name) is not None and previously[path.name] == self._interfaces[path.name]
        }
        gone: dict[str, list[int]] = {}
        for route in self._standing - ours:
            if route.device is None or route.device in steady:
                gone.setdefault(route.destination, []).append(route.metric)
        words = [
            f"routes to {destination} were gone or changed: metric {', '.join(map(str, sorted(metrics)))}"
            for destination, metrics in sorted(gone.items())
        ]
        words += [f"a route of ours that we did not set: {route}" for route in sorted(ours - self._standing, key=str)]
        lost, strange = self._rule_diff(rules)
        words += [f"{rule} was gone" for rule in lost]
        words += [f"a rule of ours that we did not set: {rule}" for rule in strange]
        return words

    def _wanted(self, overrides: Mapping[str, str]) -> Wanted:
        """The ladder, without what this kernel cannot hold and without places that another protocol's route holds."""
        if not self._config.steering.enabled:
            return Wanted(frozenset())
        goal = ladder.wanted(self._config, self._interfaces, overrides)
        taken = {route.key for route in self._foreign}
        families = self._kernel.families
        routes = (route for route in goal.routes if route.family in families and route.key not in taken)
        return Wanted(frozenset(routes), goal.missing)

    def _occupied(self, overrides: Mapping[str, str]) -> list[str]:
        if not self._config.steering.enabled:
            return []
        places = {route.key for route in ladder.wanted(self._config, self._interfaces, overrides).routes}
        return [
            f"another protocol's route stands where ours belongs in table {self._config.steering.table}: {route}; "
            "remove it, or choose another table"
            for route in sorted(self._foreign, key=str)
            if route.key in places
        ]

    def _rule_diff(self, rules: Iterable[Rule]) -> tuple[list[Rule], list[Rule]]:
        ours = {rule for rule in rules if rule.protocol == self._config.steering.protocol}
        goal: frozenset[Rule] = frozenset()
        if self._config.steering.enabled:
            goal = ladder.wanted_rules(self._config, self._kernel.families)
        return sorted(goal - ours, key=str), sorted(ours - goal, key=str)

    async def _set(self, routes: Iterable[Route]) -> dict[str, str]:
        """Returns destination → failure in words."""
        failures: dict[str, str] = {}
        for route in routes:
            try:
                await self._kernel.replace(route)
                self._standing = frozenset(r for r in self._standing if r.key != route.key) | {route}
            except SteeringError as error:
                failures[route.destination] = str(error)
        return failures

    async def _unset(self, routes: Iterable[Route], failed: Mapping[str, str]) -> dict[str, str]:
        """Like `_set`. A destination that failed loses nothing: the replacement may not stand."""
        failures: dict[str, str] = {}
        for route in routes:
            if route.destination in failed:
                continue
            try:
                await self._kernel.remove(route)
                self._standing -= {route}
            except SteeringError as error:
                failures[route.destination] = str(error)
        return failures

    async def _sweep(self) -> list[str]:
        """Remove the strays, once all that is wanted stands; returns failures in words."""
        failures = []
        for stray in sorted(self._strays, key=str):
            try:
                await self._kernel.remove_stray(stray)
                self._strays -= {stray}
            except SteeringError as error:
                failures.append(str(error))
        return failures

    async def _verify(
        self, peers: Iterable[Peer], overrides: Mapping[str, str], goal: Wanted
    ) -> tuple[dict[str, str], list[str]]:
        """Ask the kernel which way each peer's addresses and prefixes go: (peer → path, what is wrong in words).

        The path is that of the service addresses: what becomes of a prefix must not keep them from moving.
        """
        paths: dict[str, str] = {}
        wrong: list[str] = []
        for peer in peers:
            answers: list[str] = []
            for destination in ladder.destinations(peer):
                family = destination.version
                if family in self._kernel.families and ladder.own_address(self._config, family):
                    path, complaints = await self._verify_one(peer, destination, overrides.get(peer.name, ""), goal)
                    if destination not in peer.prefixes:
                        answers.append(path)
                    wrong += complaints
            paths[peer.name] = answers[0] if len(set(answers)) == 1 else ""
        return paths, wrong

    async def _verify_one(self, peer: Peer, destination: Network, assigned: str, goal: Wanted) -> tuple[str, list[str]]:
        settings = self._config.steering
        family = destination.version
        address = str(ladder.address_in(destination))
        found = await self._kernel.lookup(address, str(ladder.own_address(self._config, family)))
        path = ladder.path_of(self._config, peer, family, found.device, found.gateway)
        if not settings.enabled:
            return path, []
        if found.table != settings.table:
            path = ""
        rungs = {
            route.metric: ladder.path_of(self._config, peer, family, route.device, route.gateway)
            for route in goal.routes
            if route.kind == "unicast" and route.destination == str(destination)
        }
        expected = rungs[min(rungs)] if rungs else ""
        if path != expected:
            way = found.error or f"dev {found.device} by table {found.table}"
            which = ladder.shown(destination)
            wrong = [f"{peer.name} ({which}) should go by {expected or 'no path'}, but the kernel says: {way}"]
            if found.table not in (0, settings.table):
                rules = shadowing(self._config, await self._kernel.rules(), family)
                wrong += [f"perhaps because of {rule} ({rule.owner})" for rule in rules]
            if found.table == settings.table:
                theirs = (route for route in sorted(self._foreign, key=str) if ladder.covers(route, destination))
                wrong += [f"perhaps because of another protocol's route in our table: {route}" for route in theirs]
            return path, wrong
        paths = self._config.paths_to(peer)
        if assigned and assigned != paths[0].name and OVERRIDE_METRIC not in rungs:
            return path, [f"{peer.name} is assigned to {assigned}, which cannot stand; it goes by {path or 'no path'}"]
        return path, []

    def _tell(self, outcome: Outcome, reason: str) -> None:
        """Log what is news."""
        for line in outcome.drift:
            self._log.warning("drift: %s", line)
        for line in outcome.missing:
            if line not in self._last.missing:
                self._log.warning("%s", line)
        if outcome.failed and outcome.failed != self._last.failed:
            self._log.error("steering: %s", outcome.failed)
        if outcome.changed or outcome.paths != self._last.paths:
            paths = ", ".join(f"{peer} → {path or 'none'}" for peer, path in outcome.paths.items())
            self._log.info("%s: %s", reason, paths)


def _news(outcome: Outcome) -> tuple[object, ...]:
    return outcome.paths, outcome.missing, outcome.failed


async def _each(call: Callable[[Rule], Awaitable[None]], rules: Iterable[Rule]) -> list[str]:
    """Returns failures in words."""
    failures = []
    for rule in rules:
        try:
            await call(rule)
        except SteeringError as error:
            failures.append(str(error))
    return failures


def standing_overrides(config: Config, ours: Iterable[Route]) -> dict[str, str]:
    """peer → path, of the override routes among `ours`."""
    overrides: dict[str, str] = {}
    for peer in config.peers:
        prefixes = {str(destination) for destination in ladder.destinations(peer)}
        for route in ours:
            if route.metric == OVERRIDE_METRIC and route.destination in prefixes:
                overrides[peer.name] = ladder.path_of(config, peer, route.family, route.device, route.gateway)
    return {peer: path for peer, path in overrides.items() if path}


def shadowing(config: Config, rules: Iterable[Rule], family: int) -> list[Rule]:
    """Other people's rules that are asked before ours, or in its place. Table local, at 0, always is: left out."""
    return sorted(
        (
            rule
            for rule in rules
            if rule.family == family
            and rule.protocol != config.steering.protocol
            and 0 < rule.priority <= config.steering.priority
        ),
        key=lambda rule: rule.priority,
    )


async def clear(kernel: Kernel, config: Config, overrides_only: bool) -> list[str]:
    """Remove the overrides, or every rule and route of ours; returns what was removed. Needs no state and no daemon."""
    removed: list[str] = []
    if not overrides_only:
        for rule in sorted(await kernel.rules(), key=str):
            if rule.protocol == config.steering.protocol:
                await kernel.remove_rule(rule)
                removed.append(str(rule))
    for route in ladder.diff((), (await kernel.routes()).ours)[1]:
        if not overrides_only or route.metric == OVERRIDE_METRIC:
            await kernel.remove(route)
            removed.append(str(route))
    if not overrides_only:
        for stray in sorted(await kernel.strays(), key=str):
            await kernel.remove_stray(stray)
            removed.append(str(stray))
    return removed
