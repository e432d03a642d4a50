"""Why an incident is as it is: what came of what, as a short chain in words; and what its evidence does not decide.

The order is that of causes: the incident's own cause, then what it broke, in the order in which that depends on it
(nodes, links, etcd's quorum, load, moves) and within that in the order of time. Each step is one group of troubles:

    overlay austin–tokyo relayed since 03:12:04 UTC, round trip 38 ms → 210 ms → 4 leader changes in 5 min
    → load 25 on tokyo-1, from etcd and tailscaled
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from vagus_controller.core.causes import Cause, Trouble, between, link_of, own_cause, some_of
from vagus_controller.core.detect import kinds
from vagus_controller.core.detect.link import DEAD
from vagus_controller.core.fleet import Fleet

_ARROW: Final = " → "
_ORDER: Final = ("controller", "liveness", "link", "quorum", "load", "stuck")
_STEP: Final = re.compile(r"round trip \S+ m?s → \S+ m?s")
_LOAD: Final = re.compile(r"^load (\d+)(?:\.\d+)?")
_LASTED: Final = re.compile(r" for [\d.]+ (?:s|min|h)\b")
_CHANGES: Final = re.compile(r"^\d+ leader changes in [^(,]*")
_MISSING: Final = re.compile(r"(?<=[(; ])([^\s(;]+): (not running|frozen, or starved)")
_UNHEARD: Final = re.compile(r"(?:^|; )([^;()]+) unheard")
_NAMED: Final = 3
# Two troubles that began within this of each other are told by reports of one moment: which was first is not known.
_SAME_MOMENT_S: Final = 5.0


def why(
    cause: Cause, troubles: list[Trouble], is_cause: Callable[[Trouble], bool], clock: Callable[[float], str]
) -> str:
    """The chain; `troubles`: those that last, or all when none does; `clock`: a monotonic moment as time of day."""
    roots = [trouble for trouble in troubles if is_cause(trouble)]
    steps = [_root(cause, roots, clock)] if roots else []
    rest: dict[tuple[str, str], list[Trouble]] = {}
    for trouble in sorted(troubles, key=lambda each: (_ORDER.index(each.key[0]), each.began)):
        if not is_cause(trouble):
            rest.setdefault((trouble.key[0], trouble.state), []).append(trouble)
    for (kind, state), group in rest.items():
        steps.append(_consequence(kind, state, group))
    return _ARROW.join(steps)


def _root(cause: Cause, roots: list[Trouble], clock: Callable[[float], str]) -> str:
    first = min(roots, key=lambda each: each.began)
    text = _said(first)
    since = f"since {clock(first.began)} UTC"
    if cause.kind == "link":
        states = sorted({each.state for each in roots})
        path = cause.path or "every path"
        if cause.scope == "pair":
            where = f"{path} {'–'.join(cause.target.split('--'))}"
        else:
            of = {"node": f"of {cause.target}", "site": f"of site {cause.target}", "fleet": "everywhere"}
            where = f"{path} {of.get(cause.scope) or between(cause)}"
        links = f" ({len(roots)} links)" if len(roots) > 1 else ""
        # Of many links the first ones stand for all.
        step = next((found[0] for each in roots[:_NAMED] if (found := _STEP.search(_said(each)))), "")
        how = " or ".join(state.replace("-", " ") for state in states)
        by = next((f" through a {way}" for way in ("DERP relay", "peer relay") if way in text), "")
        detail = step or ("" if by else _short(text))
        return f"{where} {how}{by}{links} {since}" + (f", {detail}" if detail else "")
    if cause.kind == "liveness":
        names = [each.key[1] for each in roots]
        who = f"site {cause.target}" if cause.scope == "site" else cause.target
        return f"{who} {first.state} {since}" + (f" ({some_of(names)})" if len(names) > 1 else "")
    if cause.kind == "load":
        return f"{_load(roots)} {since}"
    if cause.kind == "quorum":
        return f"{_quorum(first)} {since}"
    if cause.kind == "stuck" and first.state == "unfit":
        return f"the standby of {' and '.join(cause.target.split('--'))} failed its drill {since}: {_short(text)}"
    if cause.kind == "stuck":
        return f"traffic between {' and '.join(cause.target.split('--'))} cannot move {since}: {_short(text)}"
    return f"the controller hears nobody {since}: {_short(text)}"


def _consequence(kind: str, state: str, group: list[Trouble]) -> str:
    names = [each.key[1] for each in group]
    if kind == "quorum":
        return _quorum(group[0])
    if kind == "load":
        return _load(group)
    if kind == "liveness":
        return f"{some_of(names)} {state}"
    if kind == "stuck":
        what = "failed its drill" if state == "unfit" else "cannot move"
        return f"{some_of([_pair(name) for name in names])} {what}"
    if kind == "link" and len(names) > _NAMED:
        return f"{len(names)} links {state.replace('-', ' ')}"
    if kind == "link":
        return f"{some_of([_link(name) for name in names])} {state.replace('-', ' ')}"
    return f"the controller is {state}"


def _quorum(trouble: Trouble) -> str:
    text = _said(trouble)
    changes = _CHANGES.match(text)
    if changes is not None:
        return changes[0].strip()
    if trouble.state == "healthy":
        return f"etcd: {_short(text.partition('; ')[2] or text)}"
    # Who is missing, and how, is told after it.
    text, missing = text.partition(" (")[0].replace("; ", ", "), _MISSING.findall(text)
    who = f" ({some_of(f'{name} {how}' for name, how in missing)})" if missing else ""
    return f"etcd quorum {trouble.state.replace('-', ' ')}" + (f": {_short(text)}{who}" if text else "")


def _load(group: list[Trouble]) -> str:
    if len(group) > 1:
        return f"load on {some_of([each.key[1] for each in group])}"
    text, node = _said(group[0]), group[0].key[1]
    figure, takers = _LOAD.match(text), kinds.takers(text)
    words = f"load {figure[1]} on {node}" if figure is not None else f"load spike on {node}"
    if takers:
        return f"{words}, from {' and '.join(takers[:_NAMED])}"
    told = text.rpartition(": ")[2]
    return f"{words}, from {_short(told)}" if told else words


# --- what it does not say --------------------------------------------------------------------------------------------


def doubts(fleet: Fleet, cause: Cause, troubles: list[Trouble], is_cause: Callable[[Trouble], bool]) -> tuple[str, ...]:
    """What the evidence does not decide, and what would; `troubles`: those that last."""
    roots = [trouble for trouble in troubles if is_cause(trouble)]
    if not roots:
        return ()
    found = []
    first = min(roots, key=lambda each: each.began)
    if cause.kind == "link" and cause.scope == "pair" and first.state in (*DEAD, "degraded", "slow"):
        found.append(_which_end(fleet, cause))
    elif cause.kind == "link" and cause.scope in ("sites", "apart"):
        found.append(
            "what between them is at fault: no end has lost all that it had. A trace of the tunnels' packets between "
            "them would tell"
        )
    elif cause.kind == "liveness" and first.state == "node down":
        what = "they have" if cause.scope == "site" else "it has"
        found.append(
            f"whether {what} no power, no network, or stands still: nobody gets an answer on any path. Its console "
            "would tell, or its boot id once it is back"
        )
    elif cause.kind == "controller":
        found.append("whether the fleet is away or this controller is: another controller would tell")
    elif cause.kind == "load" and "not watched" in _said(first):
        found.append(f"which process it is: name those that matter in `report.processes` of {first.key[1]}")
    elif cause.kind == "quorum" and "own log" in _said(first):
        found.append("why the leader changes: its members' links, disks and load are well. etcd's own log would tell")
    elif cause.kind == "quorum":
        found += _why_missing(_said(first))
    others = {
        own_cause(each.key): each for each in troubles if not is_cause(each) and each.key[0] in ("load", "quorum")
    }
    for each in others.values():
        if cause.kind in ("load", "link") and abs(each.began - first.began) < _SAME_MOMENT_S:
            found.append(
                f"whether {each.key[0]} or {cause.kind} was first: both began within {_SAME_MOMENT_S:.0f} s, and "
                "reports are seconds apart. A shorter report.interval_s, or both machines' logs, would tell"
            )
    return tuple(each for each in found if each)


def _which_end(fleet: Fleet, cause: Cause) -> str:
    """Where between two nodes the trouble is, by how each stands with third ones over the same path."""
    pair, path = link_of(f"{cause.target}/{cause.path}")
    well = {node: _works(fleet, node, path, pair) for node in pair}
    known = [node for node in pair if well[node] is not None]
    if len(known) == 2 and all(well[node] for node in pair):
        return (
            f"what between them is at fault: both reach others over {path}, so it is nothing that one of them does "
            "alone. A trace of the tunnel's packets at both ends would tell"
        )
    if not known:
        return (
            f"which end is at fault: neither has a third node to reach over {path}. A third peer of either, or a "
            "packet capture at both, would tell"
        )
    return ""


def _why_missing(said: str) -> list[str]:
    """Of members that are missing, and nothing else is wrong with their nodes."""
    found = []
    for name, how in _MISSING.findall(said):
        if how == "not running":
            found.append(f"why etcd on {name} ended: its log there would tell")
        else:
            found.append(
                f"whether etcd on {name} stands still, waits for its disk or gets no CPU: a look at it would tell"
            )
    if unheard := _UNHEARD.search(said):
        found.append(
            f"how etcd on {unheard[1]} is: no agent there is heard. `etcdctl endpoint status` there would tell"
        )
    return found


def _works(fleet: Fleet, node: str, path: str, but: tuple[str, str]) -> bool | None:
    """Whether the node reaches a third one over the path; None: it has none."""
    state = fleet.nodes.get(node)
    if state is None:
        return None
    third = [peer for pair in fleet.pairs_of(node) for peer in pair if peer not in but]
    seen = [found for peer in third if (found := state.link(peer, path)) is not None]
    return any(each.link.state.value in ("up", "degraded") for each in seen) if seen else None


# --- words -----------------------------------------------------------------------------------------------------------


def _said(trouble: Trouble) -> str:
    return trouble.verdict.reason if trouble.verdict is not None else ""


def _short(text: str, most: int = 140) -> str:
    text = _LASTED.sub("", text.partition("; ")[0])
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _pair(name: str) -> str:
    return "–".join(name.split("--"))


def _link(subject: str) -> str:
    name, _, path = subject.partition("/")
    return f"{path} {_pair(name)}"


def time_of_day(wall: float) -> str:
    """Of seconds since 1970, in UTC."""
    return f"{int(wall) // 3600 % 24:02}:{int(wall) // 60 % 60:02}:{int(wall) % 60:02}"
