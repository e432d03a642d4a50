"""What both ends' words say of a path: whether it is dead, whether it is fit to carry traffic, whether home is healthy.

Each answer is words: "" or () is no.
"""

from __future__ import annotations

from typing import Final

from vagus_controller.core.detect.link import proven
from vagus_controller.core.fleet import Fleet, Pair
from vagus_protocol.messages import LinkState

_ALIVE: Final = (LinkState.UP, LinkState.DEGRADED)


def down(fleet: Fleet, pair: Pair, path: str, now: float, confirm_within_s: float) -> tuple[str, ...]:
    """("is down …", evidence …) when one end calls the path down and the other agrees, by its own word or as the
    first end hears it over another path; or when the other end cannot reach us and does not disagree."""
    for node, other in (pair, pair[::-1]):
        here, there = fleet.believed(node, other, path, now), fleet.believed(other, node, path, now)
        if here is None or here.link.state is not LinkState.DOWN:
            continue
        said = f"{node}: {here.link.reason}"
        if there is not None and there.link.state is LinkState.DOWN:
            return "is down at both ends", said, f"{other}: {there.link.reason}"
        if here.link.peer_state is LinkState.DOWN:
            return "is down at both ends", said, f"{node} hears the same from {other}"
        lasted = here.link.since_s + now - here.at
        if there is None and lasted >= confirm_within_s and here.link.peer_state not in _ALIVE:
            return f"is down as {node} sees it", said, f"{other} is silent"
    return ()


def unproven(fleet: Fleet, pair: Pair, path: str, now: float, within_s: float) -> str:
    """Why the path is not proven from both ends: by their own words, or where one of them cannot reach us, as the other
    hears it from that one over this very path. "" when it is."""
    fit, why_not = proven(fleet, pair, path, now, within_s)
    if fit:
        return ""
    for node, other in (pair, pair[::-1]):
        here = fleet.believed(node, other, path, now)
        if here is None or fleet.believed(other, node, path, now) is not None:
            continue
        age = fleet.proven_age(node, other, path, now)
        if here.link.state in _ALIVE and here.link.peer_state in _ALIVE and age is not None and age < within_s:
            return ""
    return why_not


def unhealthy(fleet: Fleet, pair: Pair, home: str, current: str) -> str:
    """Why going home would be a step down: not up at both ends, and degraded where the current path is not."""
    for node, peer in (pair, pair[::-1]):
        there, here = fleet.link(node, peer, home), fleet.link(node, peer, current)
        if there is None:
            return f"{node} has not told of {home}"
        if there.link.state is LinkState.UP:
            continue
        if here is None or here.link.state is not LinkState.DEGRADED:
            return f"{node} sees {home} {there.link.state.value}"
    return ""
