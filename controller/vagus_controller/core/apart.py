"""What lies between groups of nodes, where no scope of the topology has nearly all of it.

A partition leaves each node with some of its links, so neither a node nor a site has lost nearly all. But the nodes of
what died can be told apart by what did not: those that still reach each other are a group, and where the dead links of
two pairs or more lie between groups, it is the network between them that fails, and no end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vagus_controller.core.causes import Cause, Key, link_of
from vagus_controller.core.fleet import Fleet, Pair


def causes(fleet: Fleet, dead: Iterable[Key], carries: Callable[[Pair, str], bool]) -> list[tuple[Cause, list[Key]]]:
    """Of scope "apart", with what is theirs of `dead`: over every path, then over each. `carries`: whether a pair that
    is not dead reaches each other over the path; "" is any."""
    by_path: dict[str, set[Pair]] = {}
    for key in dead:
        pair, path = link_of(key[1])
        by_path.setdefault(path, set()).add(pair)
    whole = set[Pair]().union(*by_path.values())
    wholly = {pair for pair in whole if all(pair in by_path.get(path, ()) for path in fleet.paths_of(pair))}
    found = []
    for path, pairs in (("", wholly), *by_path.items()):
        for groups, between in _parted(fleet, pairs, path, carries):
            target = "--".join(",".join(group) for group in groups)
            keys = [
                ("link", f"{'--'.join(pair)}/{each}")
                for pair in between
                for each in ([path] if path else fleet.paths_of(pair))
            ]
            found.append((Cause("link", "apart", target, path), keys))
    return found


def _parted(
    fleet: Fleet, dead: set[Pair], path: str, carries: Callable[[Pair, str], bool]
) -> list[tuple[list[list[str]], list[Pair]]]:
    """The groups, the smallest first, and the dead pairs between them; of each set of pairs that hangs together."""
    found = []
    for nodes in _connected({node for pair in dead for node in pair}, dead):
        near = {pair for node in nodes for pair in fleet.pairs_of(node) if nodes.issuperset(pair)}
        groups = _connected(nodes, [pair for pair in near - dead if carries(pair, path)])
        of = {node: number for number, group in enumerate(groups) for node in group}
        between = sorted(pair for pair in near & dead if of[pair[0]] != of[pair[1]])
        if len(between) > 1:
            found.append((sorted((sorted(group) for group in groups), key=lambda each: (len(each), each)), between))
    return found


def _connected(nodes: Iterable[str], pairs: Iterable[Pair]) -> list[set[str]]:
    """The nodes, in sets that the pairs hold together."""
    of = {node: {node} for node in sorted(nodes)}
    for a, b in pairs:
        if of[a] is not of[b]:
            small, large = sorted((of[a], of[b]), key=len)
            large |= small
            of.update(dict.fromkeys(small, large))
    return list({id(found): found for found in of.values()}.values())
