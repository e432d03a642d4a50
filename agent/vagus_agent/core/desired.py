"""Fencing: whether a desired may change anything here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vagus_agent.config import Config
from vagus_protocol.messages import Desired


@dataclass(frozen=True, slots=True)
class Accepted:
    """The newest desired that was taken. `assignments`: peer → the last confirmed path; `trials`: peer → the path that
    this desired puts it on trial on; `author`: whose it is."""

    epoch: int = 0
    generation: int = 0
    assignments: Mapping[str, str] = field(default_factory=dict)
    trials: Mapping[str, str] = field(default_factory=dict)
    author: str = field(default="", compare=False)

    @property
    def term(self) -> tuple[int, int]:
        return self.epoch, self.generation


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: str


def judge(desired: Desired, last: Accepted, config: Config) -> Accepted | Refusal:
    """What to keep as the newest desired: `last` itself when it is the same again, a new one, or why it is refused.

    Taken only if (epoch, generation) is greater than the last one, the epoch is not known as another controller's, and
    every peer and path is in our configuration.
    """
    author = f"{desired.controller} {desired.session}".strip()
    term = (desired.epoch, desired.generation)
    confirmed = {peer: assignment.path for peer, assignment in desired.assignments.items() if not assignment.trial}
    trials = {peer: assignment.path for peer, assignment in desired.assignments.items() if assignment.trial}
    foreign = desired.epoch == last.epoch and last.author != "" and author != last.author
    if term == last.term and not foreign:
        if (confirmed, trials) == (_without(last.assignments, last.trials), dict(last.trials)):
            return last
        return Refusal(
            f"epoch {term[0]} generation {term[1]} came twice with different content: two controllers share one epoch "
            f"(the second one is {desired.controller})"
        )
    if term < last.term:
        return Refusal(
            f"epoch {term[0]} generation {term[1]} of {desired.controller} is older than the accepted "
            f"{last.epoch}/{last.generation}: a replay, or a controller that lost its lead"
        )
    if foreign:
        return Refusal(
            f"epoch {desired.epoch} is that of {last.author} here, and {author} uses it too: it needs a greater one"
        )
    offered = {peer.name: [path.name for path in config.paths_to(peer)] for peer in config.peers}
    for peer, path in (confirmed | trials).items():
        if peer not in offered:
            return Refusal(f"peer {peer!r} is not in this node's configuration")
        if path not in offered[peer]:
            return Refusal(f"path {path!r} to {peer} is not offered here; offered: {', '.join(offered[peer])}")
    # What is on trial was confirmed elsewhere, and goes back there.
    confirmed |= {peer: path for peer, path in last.assignments.items() if peer in trials}
    return Accepted(desired.epoch, desired.generation, confirmed, trials, author)


def _without(paths: Mapping[str, str], peers: Mapping[str, str]) -> dict[str, str]:
    return {peer: path for peer, path in paths.items() if peer not in peers}
