"""`vagus-agent doctor`: is this node fit to fail over? One line a finding, each problem with its remedy."""

from __future__ import annotations

import asyncio
import ipaddress
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import psutil

from vagus_agent import config_file
from vagus_agent.config import Config
from vagus_agent.core import ladder
from vagus_agent.net.netlink import Kernel, Netlink, SteeringError
from vagus_agent.net.steering import shadowing
from vagus_agent.routes_command import wanted_now

# Tailscale's ts-input chain drops this source on every interface but its own, replies included.
_CGNAT: Final = ipaddress.ip_network("100.64.0.0/10")
_CAP_NET_ADMIN: Final = 12
# Helpers (wg, nft, iptables) answer at once or not at all.
_HELPER_TIMEOUT_S: Final = 5.0


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
    findings = [*_keys(config), *_addresses(config), *_privilege(), *_pressure(), *_networkd()]
    kernel = Netlink(config.steering)
    try:
        await kernel.open()
        findings += [finding async for finding in _interfaces(config, kernel)]
        if config.steering.enabled:
            findings += [finding async for finding in _routes(config, kernel)]
            findings += [finding async for finding in _reverse_paths(config, kernel)]
        else:
            findings.append(Finding("note", "steering", "is switched off in the configuration: this node only watches"))
        findings += [finding async for finding in _endpoints(config, kernel)]
    except SteeringError as error:
        findings.append(Finding("problem", "kernel", str(error), "does the kernel have policy routing?"))
    finally:
        await kernel.close()
    return [*findings, *_cgnat(config)]


def _keys(config: Config) -> Iterator[Finding]:
    try:
        config_file.load_keys(config)
    except config_file.ConfigError as error:
        yield Finding("problem", "keys", str(error))
    else:
        yield Finding("ok", "keys", f"{config.keys_file} holds both keys, and only its owner can read it")


def _addresses(config: Config) -> Iterator[Finding]:
    where: dict[str, set[str]] = {}
    for device, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            where.setdefault(address.address.partition("%")[0], set()).add(device)
    for own in config.addresses:
        devices = where.get(str(own), set())
        remedy = f"ip addr add {own}/{own.max_prefixlen} dev lo (and in the network configuration, for the next boot)"
        if "lo" in devices:
            yield Finding("ok", "service address", f"{own} is on lo")
        elif devices:
            text = f"{own} is on {', '.join(sorted(devices))} only: its connections die with that interface"
            yield Finding("problem", "service address", text, remedy)
        else:
            yield Finding("problem", "service address", f"{own} is on no interface", remedy)


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


async def _interfaces(config: Config, kernel: Kernel) -> AsyncIterator[Finding]:
    for path in config.paths:
        found = await kernel.interface(path.interface)
        if found is None:
            yield Finding("problem", f"path {path.name}", f"interface {path.interface} is missing", "start its tunnel")
        elif not found.up:
            remedy = f"ip link set {path.interface} up"
            yield Finding("problem", f"path {path.name}", f"interface {path.interface} is down", remedy)
        else:
            yield Finding("ok", f"path {path.name}", f"interface {path.interface} is up")
    if 6 not in kernel.families and ladder.own_address(config, 6):
        yield Finding("problem", "IPv6", "this host has none: only IPv4 is steered", "remove ipv6.disable=1")


async def _routes(config: Config, kernel: Kernel) -> AsyncIterator[Finding]:
    rules = await kernel.rules()
    table = await kernel.routes()
    wanted = await wanted_now(config, kernel)
    start = "systemctl start vagus-agent (a running agent repairs this by itself)"
    for rule in sorted(ladder.wanted_rules(config, kernel.families), key=str):
        if rule in rules:
            yield Finding("ok", "rule", str(rule))
        else:
            yield Finding("problem", "rule", f"is not there: {rule}", start)
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
    for peer in config.peers:
        for address in peer.addresses:
            source = ladder.own_address(config, address.version)
            if source is None or address.version not in kernel.families:
                continue
            found = await kernel.lookup(str(address), str(source))
            path = ladder.path_of(config, peer, address.version, found.device, found.gateway)
            if found.table == config.steering.table and path:
                yield Finding("ok", f"peer {peer.name}", f"{address} goes by {path}")
            elif found.table not in (0, config.steering.table):
                culprits = "; ".join(str(rule) for rule in shadowing(config, rules, address.version))
                text = f"{address} is caught before our rule and goes by dev {found.device}, table {found.table}"
                yield Finding(
                    "problem", f"peer {peer.name}", text, f"remove, or choose a lower priority than: {culprits}"
                )
            else:
                yield Finding("problem", f"peer {peer.name}", f"{address}: {found.error or 'no path of ours'}", start)


async def _reverse_paths(config: Config, kernel: Kernel) -> AsyncIterator[Finding]:
    own = ladder.own_address(config, 4)
    dropped: dict[str, str] = {}
    asked = False
    for peer in config.peers:
        for address in peer.addresses:
            if own is None or address.version != 4:
                continue
            for path in config.paths_to(peer):
                if await kernel.interface(path.interface) is not None:
                    asked = True
                    reason = await kernel.drops_from(str(address), str(own), path.interface)
                    if reason:
                        dropped.setdefault(path.interface, reason)
    for device, reason in dropped.items():
        remedy = f"sysctl -w net.ipv4.conf.{device}.rp_filter=2 (and in /etc/sysctl.d)"
        yield Finding("problem", "rp_filter", reason, remedy)
    if asked and not dropped:
        yield Finding("ok", "rp_filter", "lets peers in on every path")


async def _endpoints(config: Config, kernel: Kernel) -> AsyncIterator[Finding]:
    """An exit node or accepted subnet that covers the backup's endpoint carries the backup inside the overlay."""
    first = config.paths[0]
    for path in config.paths[1:]:
        output = _helper("wg", "show", path.interface, "endpoints")
        if output is None:
            text = f"cannot tell whether {first.name} captures the packets of {path.interface}: wg does not know it"
            yield Finding("note", f"path {path.name}", text)
            continue
        mark = (_helper("wg", "show", path.interface, "fwmark") or "").strip()
        captured = []
        for line in output.splitlines():
            host = line.split("\t")[-1].rpartition(":")[0].strip("[]").partition("%")[0]
            if not host or mark not in ("off", "", "0x0") or ipaddress.ip_address(host).version not in kernel.families:
                continue
            if (await kernel.lookup(host)).device == first.interface:
                captured.append(host)
        for host in captured:
            text = f"the way to its endpoint {host} leads into {first.interface}"
            yield Finding(
                "problem", f"path {path.name}", text, f"wg set {path.interface} fwmark {config.steering.mark:#x}"
            )
        if not captured:
            yield Finding("ok", f"path {path.name}", f"its endpoints are reached outside {first.interface}")


def _cgnat(config: Config) -> Iterator[Finding]:
    addresses = [*config.addresses, *(address for peer in config.peers for address in peer.addresses)]
    inside = [str(address) for address in addresses if address.version == 4 and address in _CGNAT]
    if not inside:
        return
    rules = [_helper("iptables-save", "-t", "filter"), _helper("nft", "-s", "list", "ruleset")]
    if rules == [None, None]:
        text = f"cannot read the firewall: does Tailscale drop {inside[0]} on other interfaces?"
        yield Finding("problem", "cgnat", text, "install nftables, run as root")
        return
    drops = any(
        str(_CGNAT) in line and "drop" in line.lower() for output in rules if output for line in output.splitlines()
    )
    if drops:
        yield Finding(
            "problem",
            "cgnat",
            f"Tailscale's firewall drops {inside[0]} (and all of {_CGNAT}) on every interface but its own",
            "set node attribute disable-linux-cgnat-drop-rule (Tailscale 1.98), or --netfilter-mode=nodivert",
        )
    else:
        yield Finding("ok", "cgnat", f"no firewall rule drops {_CGNAT} on other interfaces")


def _helper(*command: str) -> str | None:
    """The output of a system tool; None when it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_HELPER_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
