"""When the agent moves a peer by itself, and when it lets go.

It acts on a link that is down by its own probes, that the peer does not call up, while another path answered after the
trouble began: the same peer, over the other network, so it is the path that died and not the peer. The peer, seeing the
same, moves too; one that disagrees, or knows nothing yet since it has just started, is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vagus_agent.core.link import Link
from vagus_protocol.messages import LinkState

_ALIVE = (LinkState.UP, LinkState.DEGRADED)

Mode = Literal["orphaned", "always", "off"]


@dataclass(frozen=True, slots=True)
class Step:
    """`path` None: let go, the assigned path carries the peer again."""

    peer: str
    path: str | None
    reason: str


def decide(
    mode: Mode,
    orphaned: bool,
    peer: str,
    links: Sequence[Link],
    assigned: str,
    held: str | None,
) -> Step | None:
    """What to do alone about `peer`, or None.

    `links`: its links in rung order; `assigned`: the path that the controller (or the configuration) gives it;
    `held`: the path that an earlier reflex put it on.
    """
    by_path = {link.path: link for link in links}
    current = by_path.get(held or assigned)
    if current is None or current.state is not LinkState.DOWN:
        return None
    if held is not None and assigned in by_path and by_path[assigned].state in _ALIVE:
        return Step(peer, None, f"{held} is down ({current.reason}) and {assigned} answers")
    if mode == "off" or (mode == "orphaned" and not orphaned):
        return None
    if current.peer_state in (*_ALIVE, LinkState.UNKNOWN):
        return None
    for link in links:
        if link is not current and link.state in _ALIVE and _answered_since(link, current):
            alone = "no controller is reachable" if mode == "orphaned" else "reflex is set to always"
            reason = f"{current.path} is down ({current.reason}), {link.path} answers, and {alone}"
            return Step(peer, link.path, reason)
    return None


def heed(accepted: Mapping[str, str], held: Mapping[str, str], links: Mapping[str, Sequence[Link]]) -> dict[str, str]:
    """The overrides that remain ours once the controller has spoken: peer → path, as `accepted` and `held`.

    Its word ends a reflex, unless it would put traffic on a link that is down while the reflex's own answers.
    """
    remaining = {}
    for peer, path in held.items():
        state = {link.path: link.state for link in links.get(peer, ())}
        word = accepted.get(peer)
        doomed = word is not None and state.get(word) is LinkState.DOWN and state.get(path) in _ALIVE
        if word is None or (doomed and word != path):
            remaining[peer] = path
    return remaining


def _answered_since(link: Link, dead: Link) -> bool:
    """Whether `link` answered after `dead` last did: proof that the peer outlived that path."""
    return link.last_reply is not None and (dead.last_reply is None or link.last_reply > dead.last_reply)
