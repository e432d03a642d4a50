"""Which bad verdicts share a cause, by topology.

A trouble is a bad verdict while it lasts. Troubles that began within `AT_ONCE_S` of each other share a cause when they
are nearly all that a scope has: all links of a node over one path, all nodes of a site. Of the scopes for which that
holds the cause is the one with the most such troubles, and of those that have the same ones the smallest.

    link a--b/overlay   →  every path between a and b; overlay of a, of b; of a's site, of b's; of the fleet; between
                           the two sites; and the same over every path
    node                →  its site
    load of a node      →  its site; the fleet

Of sites and the fleet only links that leave a site count: a LAN may carry what is dead between cities. Troubles that
another one explains (links of a dead node), and old ones, are no part of what began at once, nor do they stand against
it. What no such scope has in common may still lie between groups of nodes: `apart.py`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from vagus_controller.core.fleet import Fleet, Pair
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import CauseView, Severity

# A tunnel's peers lose it one after the other, each when its session's keys expire (WireGuard: 3 minutes).
AT_ONCE_S: Final = 300.0
# The share of a scope that must be in trouble: one link that something odd keeps alive must not make a hundred causes.
SHARE: Final = 0.8
_SCOPES: Final = ("pair", "node", "site", "fleet", "sites")
# Of many, so many are named.
_NAMED: Final = 3

CauseKind = Literal["controller", "liveness", "link", "load", "quorum", "stuck"]
CauseScope = Literal["pair", "node", "site", "fleet", "sites", "apart"]
# (kind, subject), as verdicts have them
Key = tuple[str, str]


class Cause(NamedTuple):
    """See views.CauseView."""

    kind: CauseKind
    scope: CauseScope
    target: str = ""
    path: str = ""

    def view(self) -> CauseView:
        return CauseView(kind=self.kind, scope=self.scope, target=self.target, path=self.path)

    @property
    def subject(self) -> str:
        """What it is about, as verdicts name it; "" is the fleet."""
        if self.scope in ("sites", "apart"):
            return ""
        return f"{self.target}/{self.path}" if self.scope == "pair" and self.path else self.target

    def parts(self, key: Key) -> bool:
        """Of scope "apart": whether it is a link between two of the groups."""
        if self.scope != "apart" or key[0] != "link":
            return False
        pair, path = link_of(key[1])
        of = {node: group for group in self.target.split("--") for node in group.split(",")}
        ends = {of[node] for node in pair if node in of}
        return len(ends) == 2 and self.path in ("", path)


def between(cause: Cause) -> str:
    """Of scope "sites" or "apart": between what, in words."""
    parts = cause.target.split("--")
    if cause.scope == "sites":
        return f"between sites {' and '.join(parts)}"
    groups = [part.split(",") for part in parts]
    if len(groups) == 2:
        return f"between {some_of(groups[0])} and {some_of(groups[1])}"
    return f"among {some_of([node for group in groups for node in group])}"


def some_of(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_NAMED]) + (f" and {len(every) - _NAMED} more" if len(every) > _NAMED else "")


class Trouble:
    """`seen`: since when we know of it; `began`: since when it is so; `over`: since when it is not, monotonic; None: it
    lasts. `scopes`: what it is part of; it counts in some of them."""

    __slots__ = ("began", "counted", "key", "over", "scopes", "seen", "severity", "state", "verdict")

    def __init__(self, verdict: Verdict, now: float) -> None:
        self.key: Key = (verdict.kind, verdict.subject)
        self.verdict: Verdict | None = verdict
        self.state = verdict.state
        self.severity = verdict.severity
        self.seen = now
        self.began = verdict.since
        self.over: float | None = None
        self.scopes: tuple[Cause, ...] = ()
        self.counted: tuple[Cause, ...] = ()


def judge(verdict: Verdict) -> Literal["bad", "good", "unsure"]:
    """`unsure` neither begins nor ends a trouble: nobody tells, or it is too early."""
    state = verdict.state
    if verdict.kind == "controller":
        return "bad" if state == "blind" else "good" if state == "connected" else "unsure"
    if verdict.kind == "liveness":
        return "good" if state == "fresh" else "unsure" if state == "late" else "bad"
    if verdict.kind == "load":
        return "bad" if state == "spike" else "good"
    if verdict.kind == "link" and state == "unknown":
        return "unsure"
    return "good" if verdict.severity in (Severity.OK, Severity.INFO) else "bad"


def link_of(subject: str) -> tuple[Pair, str]:
    """Pair and path of "a--b/path"."""
    name, _, path = subject.partition("/")
    a, _, b = name.partition("--")
    return (a, b), path


def own_cause(key: Key) -> Cause:
    """What a trouble comes of that shares its cause with no other."""
    kind, subject = key
    if kind == "link":
        pair, _, path = subject.partition("/")
        return Cause("link", "pair", pair, path)
    if kind == "stuck":
        return Cause("stuck", "pair", subject)
    if kind == "liveness":
        return Cause("liveness", "node", subject)
    if kind == "load":
        return Cause("load", "node", subject)
    return Cause("quorum" if kind == "quorum" else "controller", "fleet")


class Scopes:
    """Counts, of every scope that is in trouble."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._topology = -1
        self._sizes: Counter[Cause] = Counter()
        self._sites = 0
        # links that leave a site, if there are any
        self._apart = False
        self._all: Counter[Cause] = Counter()
        self._fresh: dict[Cause, dict[Key, None]] = {}
        self._ages: deque[tuple[float, Trouble]] = deque()

    def add(self, trouble: Trouble, now: float, *, explained: bool = False) -> None:
        self._survey()
        trouble.scopes, trouble.counted = self._scopes(trouble)
        self._all.update(trouble.counted)
        if explained:
            return
        for scope in trouble.scopes:
            self._fresh.setdefault(scope, {})[trouble.key] = None
        self._ages.append((now, trouble))

    def remove(self, trouble: Trouble) -> None:
        self.explain(trouble)
        for scope in trouble.counted:
            self._all[scope] -= 1
            if not self._all[scope]:
                del self._all[scope]
        trouble.counted = ()

    def explain(self, trouble: Trouble) -> None:
        """It is another trouble's consequence, or old."""
        for scope in trouble.scopes:
            fresh = self._fresh.get(scope)
            if fresh is not None:
                fresh.pop(trouble.key, None)
                if not fresh:
                    del self._fresh[scope]

    def age(self, now: float) -> None:
        while self._ages and now - self._ages[0][0] > AT_ONCE_S:
            at, trouble = self._ages.popleft()
            # It may be over, and another of its key have begun.
            if trouble.seen <= at:
                self.explain(trouble)

    def holds(self, scope: Cause) -> bool:
        """Whether nearly all of it is in trouble, and more than one."""
        return self._all[scope] > 1 and self._all[scope] >= SHARE * self._size(scope)

    def fresh(self, scope: Cause) -> list[Key]:
        """What is in trouble there, began at once, and is not explained."""
        return list(self._fresh.get(scope, ()))

    def cause(self, trouble: Trouble) -> Cause | None:
        """The scope that explains the trouble together with others; None when none does."""
        found = [
            (len(fresh), -_SCOPES.index(scope.scope), scope.path != "", scope)
            for scope in trouble.scopes
            if len(fresh := self._fresh.get(scope, ())) > 1 and trouble.key in fresh and self.holds(scope)
        ]
        if not found:
            return None
        best = max(found)
        same = [each for each in found if each[:3] == best[:3]]
        if best[3].scope == "site" and len(same) > 1:
            # Between two sites neither is more to blame.
            wider = [each for each in found if each[0] == best[0] and each[3].scope == "fleet"]
            return max(wider, default=best)[3]
        return best[3]

    # --- what there is -------------------------------------------------------------------------------------------

    def _scopes(self, trouble: Trouble) -> tuple[tuple[Cause, ...], tuple[Cause, ...]]:
        """All that it is part of, and those of them in which it counts."""
        kind, subject = trouble.key
        nodes = self._fleet.nodes
        if kind == "link":
            (a, b), path = link_of(subject)
            sites = {nodes[node].site if node in nodes else "" for node in (a, b)}
            near = [Cause("link", "pair", subject.partition("/")[0])]
            near += [Cause("link", "node", node, over) for node in (a, b) for over in (path, "")]
            far = [Cause("link", "fleet", "", over) for over in (path, "")]
            if self._sites > 1:
                far += [Cause("link", "site", site, over) for site in sites if site for over in (path, "")]
            if len(sites - {""}) == 2:
                far += [Cause("link", "sites", "--".join(sorted(sites)), over) for over in (path, "")]
            every = (*near, *far)
            return every, every if not self._apart or _leaves(sites) else tuple(near)
        site = nodes[subject].site if subject in nodes else ""
        found: tuple[Cause, ...] = ()
        if kind == "liveness" and trouble.severity is not Severity.INFO and site:
            found = (Cause("liveness", "site", site),)
        elif kind == "load":
            found = (*((Cause("load", "site", site),) if site and self._sites > 1 else ()), Cause("load", "fleet"))
        return found, found

    def _size(self, scope: Cause) -> int:
        self._survey()
        if scope.kind == "link" and scope.scope in ("pair", "node"):
            a, _, b = scope.target.partition("--")
            pairs = [(a, b)] if scope.scope == "pair" else self._fleet.pairs_of(scope.target)
            paths = [self._fleet.paths_of(pair) for pair in pairs]
            return sum(scope.path in each if scope.path else len(each) for each in paths)
        return self._sizes[scope]

    def _survey(self) -> None:
        """Count what there is, once a topology."""
        if self._topology == self._fleet.topology:
            return
        self._topology = self._fleet.topology
        site_of = {name: state.site for name, state in self._fleet.nodes.items()}
        between: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
        for pair in self._fleet.pairs():
            a, b = (site_of.get(node, "") for node in pair)
            between[(min(a, b), max(a, b), tuple(self._fleet.paths_of(pair)))] += 1
        self._apart = any(_leaves({a, b}) for a, b, _ in between)
        self._sites = len({site for site in site_of.values() if site})
        sizes = self._sizes = Counter()
        for site in site_of.values():
            sizes[Cause("load", "fleet")] += 1
            sizes[Cause("liveness", "site", site)] += 1
            sizes[Cause("load", "site", site)] += 1
        for (a, b, paths), count in between.items():
            if self._apart and not _leaves({a, b}):
                continue
            for path in (*paths, *[""] * len(paths)):
                for site in {a, b}:
                    sizes[Cause("link", "site", site, path)] += count
                sizes[Cause("link", "fleet", "", path)] += count
                if len({a, b} - {""}) == 2:
                    sizes[Cause("link", "sites", "--".join(sorted({a, b})), path)] += count


def _leaves(sites: set[str]) -> bool:
    """Whether a link between nodes of these sites leaves one; of a node whose site is not known it may."""
    return len(sites) > 1 or "" in sites
