"""A sound inventory, as the plugins see it, to break one thing in."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vagus_inventory import fleet, variables

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "ansible/inventory.example"
KNOWN = variables.declared()

Given = dict[str, dict[str, Any]]


def example() -> tuple[dict[str, list[str]], Given]:
    """The example inventory as Ansible would read it: groups, and each host's variables of ours."""
    hosts = yaml.safe_load((EXAMPLE / "hosts.yml").read_text())
    shared = yaml.safe_load((EXAMPLE / "group_vars/all.yml").read_text())
    groups = {group: list(table["hosts"]) for group, table in hosts.items()}
    given: Given = {}
    for table in hosts.values():
        for host, own in table["hosts"].items():
            given.setdefault(host, copy.deepcopy(shared)).update(own or {})
    return groups, {
        host: {name: value for name, value in theirs.items() if name.startswith("vagus_")}
        for host, theirs in given.items()
    }


def read(changes: Mapping[str, Mapping[str, Any]] = {}, **groups: list[str]) -> tuple[fleet.Fleet | None, list[str]]:
    """The example with `changes` (host → variable → value, None: left out) and other `groups`."""
    theirs, given = example()
    for host, values in changes.items():
        own = given.setdefault(host, dict(given["vps"]))
        for name, value in values.items():
            if value is None:
                own.pop(name, None)
            else:
                own[name] = value
    return fleet.read(theirs | groups, given, KNOWN)


def sound(changes: Mapping[str, Mapping[str, Any]] = {}) -> fleet.Fleet:
    found, problems = read(changes)
    assert not problems
    assert found is not None
    return found
