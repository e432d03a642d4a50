"""What the hosts themselves say before anything is changed on them, and whether the release suits them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from vagus_inventory.fleet import Fleet
from vagus_inventory.variables import declared

OLDEST_PYTHON: Final = (3, 11)
# What scripts/build-release can make a release for.
PLATFORMS: Final = ("x86_64", "aarch64", "armv7l")
PYTHONS: Final = ("3.11", "3.13")
_BACKS_OFF: Final = 254
# Run by any shell, with nothing installed: a line for each fact. %s: the host's Python.
_LOOK: Final = (
    "echo user=$(id -u); echo machine=$(uname -m); echo bits=$(getconf LONG_BIT);"
    " echo python=$('%s' -c 'import sys; print(*sys.version_info[:2], sep=\".\")' 2>/dev/null);"
    " echo venv=$('%s' -c 'import venv; print(\"yes\")' 2>/dev/null);"
    " echo systemd=$(test -d /run/systemd/system && echo yes);"
    r" echo systemd_version=$(systemctl --version 2>/dev/null | sed -n '1s/systemd \([0-9]*\).*/\1/p');"
    " echo apt=$(command -v apt-get);"
    ' echo active=$(basename "$(readlink /opt/vagus/current)" 2>/dev/null);'
    " echo wireguard=$( (modprobe -n -q wireguard || test -e /sys/module/wireguard) 2>/dev/null && echo yes);"
)


def look(python: str) -> str:
    """What a host's shell is to run. `python`: vagus_python, "" where it is left out."""
    python = python or str(declared()["vagus_python"].default)
    return _LOOK % (python, python)


def facts(result: Mapping[str, Any]) -> dict[str, str]:
    """The facts in the result of the task that ran what `look` says."""
    if result.get("unreachable"):
        return {"unreachable": str(result.get("msg", "")).strip() or "no answer"}
    lines = str(result.get("stdout", "")).splitlines()
    found = dict(line.strip().split("=", 1) for line in lines if "=" in line)
    if "machine" not in found:
        return {"unreachable": str(result.get("stderr") or result.get("msg") or "its shell said nothing").strip()[:300]}
    return found


def problems(
    seen: Mapping[str, Mapping[str, str]], fleet: Fleet, version: str, targets: Sequence[str]
) -> Iterator[str]:
    """`seen`: host → its facts; `version`, `targets`: the release's."""
    for name, said in seen.items():
        host = fleet.hosts[name]
        if "unreachable" in said:
            yield f"{name}: cannot be reached: {said['unreachable']}. Bring it back, or run with --limit '!{name}'"
            continue
        if said.get("user") != "0":
            yield f"{name}: is not reached as root: set ansible_user, or ansible_become with its password"
        python = said.get("python", "")
        if not python:
            yield f"{name}: {host['python']} is not there: apt-get install python3, or set vagus_python"
        elif _version(python) < OLDEST_PYTHON:
            yield f"{name}: Python {python} is too old: 3.11 or newer is needed (Debian 12); vagus_python names another"
        elif said.get("venv") != "yes":
            yield f"{name}: Python has no venv module: apt-get install python3-venv"
        elif python not in PYTHONS:
            yield (
                f"{name}: Python {python} is none that releases are for ({', '.join(PYTHONS)}): vagus_python names "
                "another one that the host has"
            )
        elif platform(said) not in PLATFORMS:
            yield f"{name}: its processor is {platform(said)}; releases are for {', '.join(PLATFORMS)}"
        elif targets and target(said) not in targets:
            yield (
                f"{name}: is {target(said)}, and the release is for {', '.join(targets)}: scripts/build-release with "
                "--platform and --python makes one for it"
            )
        if said.get("systemd") != "yes":
            yield f"{name}: does not run under systemd"
        if not said.get("apt"):
            yield f"{name}: is not Debian, Raspberry Pi OS or Ubuntu: there is no apt-get"
        active = said.get("active", "")
        if active and active != version and not host["activate"]:
            yield (
                f"{name}: release {active} is active, and vagus_release_dir is {version}: rollout.yml goes node "
                "by node, with a way back; -e vagus_activate=true does it at once"
            )


def fleet_is_running(seen: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The hosts that run a release already."""
    return [name for name, said in seen.items() if said.get("active")]


def platform(said: Mapping[str, str]) -> str:
    """As a release calls it. A 32-bit system on a 64-bit kernel is armv7l."""
    machine = said.get("machine", "")
    return "armv7l" if said.get("bits") == "32" and machine in ("aarch64", "armv8l") else machine


def target(said: Mapping[str, str]) -> str:
    """What wheels a host needs, as a release calls it."""
    return f"{platform(said)}-cp{said.get('python', '').replace('.', '')}"


def has_parts(slurped: Mapping[str, Any], parts: Sequence[str]) -> bool:
    """Whether the record that was read from a host's release, if any, has all of `parts`."""
    try:
        record = json.loads(base64.b64decode(slurped["content"]))
        return set(parts) <= set(record["parts"])
    except (KeyError, ValueError, TypeError):
        return False


def backs_off(said: Mapping[str, str]) -> bool:
    """Whether the host's systemd knows RestartSteps."""
    version = said.get("systemd_version", "")
    return version.isdecimal() and int(version) >= _BACKS_OFF


def has_addresses(shown: Mapping[str, Any], addresses: Sequence[str], mtu: int) -> bool:
    """Whether an interface, by `ip -json address show`, has exactly `addresses` (with prefix lengths) and `mtu`."""
    interface = json.loads(shown["stdout"])[0]
    own = [entry for entry in interface["addr_info"] if entry["scope"] != "link"]
    return {f"{entry['local']}/{entry['prefixlen']}" for entry in own} == set(addresses) and interface["mtu"] == mtu


def release_version(directory: str) -> str:
    """The version of the release in `directory`, by its name; "" when it is none."""
    name = Path(directory).name
    return name.removeprefix("vagus-") if name.startswith("vagus-") else ""


def release_in(directory: Path) -> tuple[list[str], list[str]]:
    """(what it has wheels for, what is wrong with it) of the release in `directory`."""
    remedy = "scripts/build-release makes one, dist/vagus-VERSION"
    try:
        about = json.loads((directory / "release.json").read_text())
        if about["version"] == release_version(str(directory)):
            return sorted(about["targets"]), []
    except FileNotFoundError:
        return [], [f"vagus_release_dir: there is no release in {directory}: {remedy}"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return [], [f"vagus_release_dir: the release in {directory} is damaged: {remedy}"]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
