"""Filters of the roles."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
try:
    from vagus_inventory import calm, hosts, reload, tailscale
finally:
    sys.path.pop(0)


def _json(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a command printed; nothing when it failed, as it does where there is no Tailscale."""
    try:
        told = json.loads(result.get("stdout", ""))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _tailscale(prefs: Mapping[str, Any], status: Mapping[str, Any], *own: list[str]) -> dict[str, list[str]]:
    return tailscale.judge(_json(prefs), _json(status), *own)


def _silent(result: Mapping[str, Any], wanted: list[str]) -> list[str]:
    """As calm.silent, of the result of `vagusctl nodes --json`."""
    if result.get("rc") != 0:
        return [str(result.get("stderr") or "the controller says nothing").strip()]
    return calm.silent(json.loads(result["stdout"]), wanted)


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "vagus_look": hosts.look,
            "vagus_active": lambda result: hosts.facts(result).get("active", ""),
            "vagus_target": lambda result: hosts.target(hosts.facts(result)),
            "vagus_has_parts": hosts.has_parts,
            "vagus_has_wireguard": lambda result: hosts.facts(result).get("wireguard") == "yes",
            "vagus_backs_off": lambda result: hosts.backs_off(hosts.facts(result)),
            "vagus_has_addresses": hosts.has_addresses,
            "vagus_needs_restart": reload.needs_restart,
            "vagus_silent": _silent,
            "vagus_hindrances": lambda fleet, plans: calm.hindrances(_json(fleet), json.loads(plans["stdout"])),
            "vagus_tailscale": _tailscale,
            "vagus_tailscale_without": lambda prefs, *own: tailscale.without(_json(prefs), *own),
        }
