"""What the controller's answers mean for a playbook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def silent(nodes: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> list[str]:
    """Those of `wanted` that do not report, in words. `nodes`: GET /nodes."""
    known = {node["name"]: node for node in nodes}
    found = []
    for name in wanted:
        node = known.get(name)
        if node is None:
            found.append(f"{name} has not been heard of")
        elif not node["online"] or node["liveness"]["state"] != "fresh" or node["report"] is None:
            found.append(f"{name} is {node['liveness']['state']}: {node['liveness']['reason']}")
    return found


def hindrances(fleet: Mapping[str, Any], plans: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a new fleet key would forget or disturb. `fleet`: GET /fleet; `plans`: GET /plans.

    Pauses, plans and assignments are retained under the old key's signature, which nobody believes afterwards.
    """
    found = silent(fleet["nodes"], [node["name"] for node in fleet["nodes"]])
    found += [f"a pause is in force ({pause['reason']}) and would be forgotten" for pause in fleet["pauses"]]
    found += [f"a plan is under way: {plan['what']}" for plan in plans if plan["state"] == "under way"]
    for pair in fleet["pairs"]:
        home = pair["paths"][0]["path"] if pair["paths"] else pair["assigned"]
        if pair["status"] != "settled" or pair["assigned"] != home:
            found.append(f"{pair['name']} is {pair['status']} on {pair['assigned']}: {pair['reason']}")
    return found
