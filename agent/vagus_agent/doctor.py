"""`vagus-agent doctor`: is this node fit to fail over? One line a finding, each problem with its remedy."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from vagus_agent import config_file, threads
from vagus_agent.config import Config
from vagus_agent.core import ladder, obstacles
from vagus_agent.core.obstacles import Facts, Obstacle
from vagus_agent.net import conntrack
from vagus_agent.net import facts as read_facts
from vagus_agent.net.netlink import Kernel, Netlink, SteeringError
from vagus_agent.routes_command import wanted_now

_CAP_NET_ADMIN: Final = 12


@dataclass(frozen=True, slots=True)
class Finding:
    """`problem` makes the doctor exit 1; `note` is worth knowing and harmless."""

    state: Literal["ok", "problem", "note"]
    subject: str
    text: str
    remedy: str = ""


def run(config: Config) -> int:
    """Print every finding; 1 if any is a problem."""
    findings = asyncio.run(examine(config))
    for finding in findings:
        sys.stdout.write(f"{finding.state:<8} {finding.subject:<18} {finding.text}\n")
        if finding.remedy:
            sys.stdout.write(f"{'':<27} → {finding.remedy}\n")
    problems = sum(finding.state == "problem" for finding in findings)
    sys.stdout.write(f"\n{problems} problem{'' if problems == 1 else 's'}\n" if problems else "\nfit to fail over\n")
    return 1 if problems else 0


async def examine(config: Config) -> list[Finding]:
    """All findings, without printing them."""
    places = await threads.run("facts", partial(read_facts.places, config))
    findings = [*_keys(config), *_addresses(config, places), *_privilege(), *_pressure(), *_networkd()]
    if config.steering.flush_conntrack:
        findings.append(await threads.run("conntrack", _conntrack))
    kernel = Netlink(config.steering)
    try:
        await kernel.open()
        facts = await read_facts.read(
            config, kernel, [(peer, path) for peer in config.peers for path in config.paths_to(peer)]
        )
        findings += _interfaces(config, kernel, facts)
        if config.steering.enabled:
            findings += [finding async for finding in _routes(config, kernel, facts)]
            findings += _reverse_paths(config, facts)
        else:
            findings.append(Finding("note", "steering", "is switched off in the configuration: this node only watches"))
    except SteeringError as error:
        findings.append(Finding("problem", "kernel", str(error), "does the kernel have policy routing?"))
        return findings
    finally:
        await kernel.close()
    return [*findings, *_lans(config), *_tunnels(config, facts), *_cgnat(config, facts)]


def _problems(found: Iterable[Obstacle]) -> list[Finding]:
    """Each once."""
    return [Finding("problem", each.subject, each.text, each.remedy) for each in dict.fromkeys(found)]


def _keys(config: Config) -> Iterator[Finding]:
    try:
        config_file.load_keys(config)
    except config_file.ConfigError as error:
        yield Finding("problem", "keys", str(error))
    else:
        yield Finding("ok", "keys", f"{config.keys_file} holds both keys, and only its owner can read it")


def _addresses(config: Config, places: Mapping[str, frozenset[str]]) -> Iterator[Finding]:
    for own in config.addresses:
        found = obstacles.misplaced(own, places[str(own)])
        if found is None:
            yield Finding("ok", "service address", f"{own} is on lo")
        elif places[str(own)]:
            yield from _problems([found])
        else:
            yield Finding("problem", found.subject, f"{found.text}: an agent that starts waits for it", found.remedy)


def _privilege() -> Iterator[Finding]:
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    if effective >> _CAP_NET_ADMIN & 1:
        yield Finding("ok", "privilege", "CAP_NET_ADMIN is there")
    else:
        yield Finding("problem", "privilege", "CAP_NET_ADMIN is missing: routes cannot be changed", "run as root")


def _pressure() -> Iterator[Finding]:
    try:
        Path("/proc/pressure/cpu").read_text()
    except OSError:
        yield Finding(
            "note",
            "pressure",
            "the kernel reports no pressure (PSI): load spikes are told without it",
            "psi=1 on the kernel command line (Raspberry Pi: /boot/firmware/cmdline.txt)",
        )
    else:
        yield Finding("ok", "pressure", "the kernel reports pressure (PSI)")


def _conntrack() -> Finding:
    """Blocks."""
    try:
        conntrack.check()
    except conntrack.ConntrackError as error:
        text = f"flush_conntrack is on, but translated connections cannot be forgotten here: {error}"
        return Finding("problem", "conntrack", text, "run as root; modprobe nf_conntrack_netlink; or switch it off")
    return Finding("ok", "conntrack", "translated connections can be forgotten after a move")


def _networkd() -> Iterator[Finding]:
    if not Path("/run/systemd/netif/state").exists():
        return
    files = [Path("/etc/systemd/networkd.conf"), *sorted(Path("/etc/systemd/networkd.conf.d").glob("*.conf"))]
    text = "".join(file.read_text(errors="replace") + "\n" for file in files if file.is_file())
    settings = {line.replace(" ", "").lower() for line in text.splitlines()}
    for setting in ("ManageForeignRoutes", "ManageForeignRoutingPolicyRules"):
        if f"{setting}=no".lower() not in settings:
            yield Finding(
                "note",
                "systemd-networkd",
                f"runs, and may delete our rules and routes when it reloads: {setting} is not off",
                f"{setting}=no in the [Network] section of /etc/systemd/networkd.conf.d/vagus.conf",
            )


def _interfaces(config: Config, kernel: Kernel, facts: Facts) -> Iterator[Finding]:
    for path in config.paths:
        found = [*obstacles.interface(path, facts), *obstacles.small(config, path, facts)]
        yield from _problems(found)
        if not found:
            yield Finding("ok", f"path {path.name}", f"interface {path.interface} is up")
    if 6 not in kernel.families and ladder.own_address(config, 6):
        yield Finding("problem", "IPv6", "this host has none: only IPv4 is steered", "remove ipv6.disable=1")


async def _routes(config: Config, kernel: Kernel, facts: Facts) -> AsyncIterator[Finding]:
    rules = await kernel.rules()
    table = await kernel.routes()
    wanted = await wanted_now(config, kernel)
    start = "systemctl start vagus-agent (a running agent repairs this by itself)"
    for rule in sorted(ladder.wanted_rules(config, kernel.families), key=str):
        if rule in rules:
            yield Finding("ok", "rule", str(rule))
        else:
            yield Finding("problem", "rule", f"is not there: {rule}", start)
    clear = f"{start}, or vagus-agent routes clear where none is to run"
    for rule in sorted(rules - ladder.wanted_rules(config, kernel.families), key=str):
        if rule.protocol == config.steering.protocol:
            yield Finding("problem", "rule", f"is left over: {rule}", clear)
    for stray in sorted(await kernel.strays(), key=str):
        yield Finding("problem", "ladder", f"is left over: {stray}", clear)
    add, remove = ladder.diff(wanted.routes, table.ours)
    for route in add:
        yield Finding("problem", "ladder", f"is missing: {route}", start)
    for route in remove:
        yield Finding("problem", "ladder", f"is not wanted: {route}", start)
    places = {route.key for route in wanted.routes}
    for route in sorted(table.foreign, key=str):
        if route.key in places:
            text = f"another protocol's route holds our place: {route}"
            yield Finding("problem", "ladder", text, "remove it, or choose another steering.table")
    if not (add or remove):
        yield Finding("ok", "ladder", f"{len(wanted.routes)} routes in table {config.steering.table}, as wanted")
    if add or any(rule not in rules for rule in ladder.wanted_rules(config, kernel.families)):
        return  # what the lookups below would say follows from that
    for conditional in (rule for rules in facts.shadowing.values() for rule in rules if rule.selector or rule.mask):
        text = f"{conditional} ({conditional.owner}) is asked before ours: what meets its condition goes its way"
        yield Finding("note", "rule", text)
    for peer in config.peers:
        for finding in _problems(obstacles.shadowed(config, peer, facts)):
            yield finding
        for address in peer.addresses:
            way = facts.ways.get(str(address))
            if way is None or way.table not in (0, config.steering.table):
                continue
            if way.table and way.path:
                yield Finding("ok", f"peer {peer.name}", f"{address} goes by {way.path}")
            else:
                yield Finding("problem", f"peer {peer.name}", f"{address}: {way.error or 'no path of ours'}", start)


def _lans(config: Config) -> Iterator[Finding]:
    """A peer's prefix that is a network of this machine's own: our rule comes before its own routes."""
    beside = read_facts.interfaces(without={"lo", *(path.interface for path in config.paths)})
    for peer in config.peers:
        for prefix in peer.prefixes:
            for device, own in beside:
                if own.version == prefix.version and own.network.overlaps(prefix):
                    text = f"its prefix {prefix} overlaps {own.network} on {device}: what is meant for that goes to it"
                    yield Finding(
                        "problem", f"peer {peer.name}", text, "take the prefix out, or renumber one of the two"
                    )


def _reverse_paths(config: Config, facts: Facts) -> Iterator[Finding]:
    dropped: dict[str, Obstacle] = {}
    for peer in config.peers:
        for path in config.paths_to(peer):
            for found in obstacles.reverse_path(peer, path, facts):
                dropped.setdefault(path.interface, found)
    yield from _problems(dropped.values())
    if facts.drops and not dropped:
        yield Finding("ok", "rp_filter", "lets peers in on every path")


def _tunnels(config: Config, facts: Facts) -> Iterator[Finding]:
    first = config.paths[0]
    for path in config.paths:
        peers = [peer for peer in config.peers if path in config.paths_to(peer)]
        if path.interface in facts.tunnels:
            missing = _problems(each for peer in peers for each in obstacles.allowed(config, peer, path, facts))
            yield from missing
            if peers and not missing:
                yield Finding("ok", f"path {path.name}", "WireGuard's AllowedIPs have every peer's addresses")
        if path is first:
            continue
        if path.interface not in facts.tunnels:
            text = f"cannot tell whether {first.name} captures the packets of {path.interface}: wg does not know it"
            yield Finding("note", f"path {path.name}", text)
            continue
        captured = _problems(obstacles.captured(config, path, facts))
        yield from captured
        if not captured:
            yield Finding("ok", f"path {path.name}", f"its endpoints are reached outside {first.interface}")


def _cgnat(config: Config, facts: Facts) -> Iterator[Finding]:
    if not obstacles.inside_cgnat(config.peers):
        return
    if facts.firewall is None:
        text = f"cannot read the firewall: does Tailscale drop {obstacles.CGNAT} on other interfaces?"
        yield Finding("problem", "cgnat", text, "install nftables, run as root")
        return
    found = [each for path in config.paths for peer in config.peers for each in obstacles.cgnat(peer, path, facts)]
    yield from _problems(found[:1])
    if not found:
        yield Finding("ok", "cgnat", f"no firewall rule drops {obstacles.CGNAT} on other interfaces")
