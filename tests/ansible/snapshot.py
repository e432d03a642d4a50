"""What there is on a host, so that two moments can be compared: what did an installation leave behind?"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

Section = Mapping[str, str]


class Snapshot(NamedTuple):
    """Each maps what there is to how it is. `files`: what differs from the root that the host was booted from."""

    files: Section
    users: Section
    groups: Section
    rules: Section
    routes: Section
    links: Section
    units: Section
    """Unit files with their state, and what of them runs or has failed."""
    run: Section
    """Names in /run."""
    kernel: Section
    """nftables, and the sysctls of the network."""


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """In words, a line each; none: nothing is left, and nothing is missing."""
    found = []
    for section, old, new in zip(Snapshot._fields, before, after, strict=True):
        for name in sorted(old.keys() | new.keys()):
            was, now = old.get(name), new.get(name)
            if was is None:
                found.append(f"{section}: {name} is new: {now}")
            elif now is None:
                found.append(f"{section}: {name} is gone; it was {was}")
            elif was != now:
                found.append(f"{section}: {name} was {was}, is {now}")
    return found


# --- files ---------------------------------------------------------------------------------------------------------

# What a running system writes by itself: logs, apt's and systemd's own notes, the backups of passwd and its like.
_VOLATILE = (
    *("var/log", "var/cache", "var/tmp", "var/lib/apt", "var/lib/systemd", "var/lib/dbus", "root/.ansible", "tmp"),
    *("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/.pwd.lock"),
    *("etc/ld.so.cache", "etc/mtab", "run", "proc", "sys", "dev"),
)


def files(upper: Path, base: Path) -> dict[str, str]:
    """What is in `upper`, an overlay's own layer, and not the same in `base` below it."""
    found = {}
    for name, entry in _walk(upper, ""):
        now = describe(entry)
        if now != describe(base / name):
            found["/" + name] = now
    return found


def _walk(directory: Path, name: str) -> Iterator[tuple[str, Path]]:
    for entry in sorted(os.scandir(directory), key=lambda one: one.name):
        inner = f"{name}/{entry.name}".lstrip("/")
        if inner in _VOLATILE:
            continue
        yield inner, Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), inner)


def describe(path: Path) -> str:
    """Kind, mode, owner and content of a file; "" where there is none."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return "deleted"  # an overlay's whiteout
    whose = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return f"link to {path.readlink()}"
    if stat.S_ISREG(status.st_mode):
        with path.open("rb") as file:
            return f"{whose} {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    return whose


# --- what the host itself tells --------------------------------------------------------------------------------------

# Run on the host by its own Python: one connection, one answer.
ASK = r"""
import json, os, re, subprocess
def out(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
def table(lines, sep=None):
    return {name: rest for name, _, rest in (line.strip().partition(sep or " ") for line in lines if line.strip())}
def whole(lines):
    return {re.sub(r" (expires|hoplimit|age) \S+", "", line.strip()): "there" for line in lines}
PASSING = re.compile("(user(-runtime-dir)?@|session-|systemd-|apt-|dpkg-|e2scrub|fstrim|run-|ssh@|logrotate)")
units = {name: rest for name, rest in
    (line.split(None, 1) for line in out("systemctl", "list-unit-files", "--plain", "--no-legend"))
    if not rest.startswith("transient")}
for line in out("systemctl", "list-units", "--all", "--plain", "--no-legend", "--type=service,socket,timer,mount,path"):
    name, load, active, *_ = line.split(None, 4)
    if active in ("active", "failed", "activating", "reloading") and not PASSING.match(name):
        units[name + " (loaded)"] = active
links = {}
for line in out("ip", "-o", "address"):
    _, name, family, address = line.split()[:4]
    if not address.startswith("fe80:"):
        links[name + " " + address] = family
for line in out("ip", "-o", "link"):
    links[line.split(":")[1].strip().partition("@")[0]] = "link"
net = [line for line in out("/sbin/sysctl", "-a", "--pattern", r"^net\.ipv[46]\.(conf\.[^.]+\.)?"
    r"(rp_filter|forwarding|ip_forward|ip_nonlocal_bind|src_valid_mark|accept_local|disable_ipv6|arp_\w+)$")]
print(json.dumps({
    "users": table(out("getent", "passwd"), ":"),
    "groups": table(out("getent", "group"), ":"),
    "rules": whole(out("ip", "-4", "rule") + ["-6 " + line for line in out("ip", "-6", "rule")]),
    "routes": whole(out("ip", "-4", "route", "show", "table", "all")
        + ["-6 " + line for line in out("ip", "-6", "route", "show", "table", "all") if "fe80:" not in line]),
    "links": links,
    "units": units,
    "run": {name: "there" for name in os.listdir("/run") if name not in ("user", "utmp", "initctl")},
    "kernel": table(net, " = ") | {"nftables": "\n".join(re.sub(r"packets \d+ bytes \d+", "packets", line)
        for line in out("/usr/sbin/nft", "list", "ruleset"))},
}))
"""


def told(answer: str, upper: Path, base: Path) -> Snapshot:
    """`answer`: what `ASK` printed."""
    return Snapshot(files=files(upper, base), **json.loads(answer))
