"""Where a trouble belongs, and what a wider cause takes in.

| trouble | belongs to |
| --- | --- |
| a node that is cut off | what is wrong with its links, if that is one incident |
| a node that is not heard | its site, when nearly all nodes of that are; else its own |
| a link | an end that is not heard, or too busy to answer; else a scope that shares its trouble; else what lies between
  groups of nodes that do not reach one another; else its own |
| a load spike | a node that is not heard; quorum or a bad link that its processes fight with; a scope that shares it;
  else its own |
| quorum | the first of what went wrong shortly before with the members that are missing and their links, or with any
  while none is; else its own |
| a pair that cannot move | its links' incident; else its own |

It is asked when the trouble begins. A wider cause takes in what it explains, and never gives back: what heals, in any
order, stays one incident.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from vagus_controller.core import apart
from vagus_controller.core.causes import Cause, Key, Scopes, Trouble, link_of, own_cause
from vagus_controller.core.detect import kinds
from vagus_controller.core.detect import members as quorum_members
from vagus_controller.core.detect.link import DEAD
from vagus_controller.core.failover import Failover
from vagus_controller.core.fleet import Fleet, Pair
from vagus_controller.core.incident import Incident
from vagus_controller.views import Severity

# For so long what is news may yet be why quorum is as it is.
_QUORUM_SETTLE_S: Final = 30.0
# A link of a node that died may have failed so long before the node's last word.
_BEFORE_LAST_WORD_S: Final = 60.0
# What went wrong up to so long before quorum did may be why.
_QUORUM_AFTER_S: Final = 300.0
_ORDER: Final = ("controller", "liveness", "link", "load", "stuck", "quorum")
_DEAD: Final = (*DEAD, "black-hole")
# Links of several pairs that fail within this of each other may be one partition; many more have a scope of their own,
# or soon will.
_APART_S: Final = 60.0
_MOST_APART: Final = 200
# Links in these states are no cause of what is wrong with quorum, or with a machine's load.
_HARMLESS: Final = ("up", "unproven", "riding-backup", "overloaded")
# Whose work grows when a link is bad, or a leader is elected again and again: they are consequences, not causes.
_WORKERS: Final = re.compile(r"\b(etcd|k3s\S*|kube-\S+|tailscaled|wireguard\S*|nebula)\b|segments a second again")
# Without a name, load is a consequence only of what was there for so long before.
_LONG_BEFORE_S: Final = 30.0


class Homes:
    """`live`: incidents with troubles, or whose troubles were over a moment ago; `merged`: those that another took in
    whole, since they were asked for. `members`: the nodes whose etcd votes; `missing`: those that are no part of a
    quorum."""

    def __init__(
        self,
        fleet: Fleet,
        failover: Failover,
        members: Callable[[], frozenset[str]],
        missing: Callable[[], frozenset[str]],
    ) -> None:
        self.scopes = Scopes(fleet)
        self.live: dict[int, Incident] = {}
        self.merged: list[tuple[Incident, Incident]] = []
        self._fleet = fleet
        self._failover = failover
        self._members = members
        self._missing = missing
        self._by_cause: dict[Cause, Incident] = {}
        # those of them of scope "apart"
        self._apart: dict[Cause, Incident] = {}
        self._home: dict[Key, Incident] = {}

    def of(self, key: Key) -> Incident | None:
        return self._home.get(key)

    def lasting(self, key: Key) -> Trouble | None:
        """The trouble, while it is not over."""
        home = self._home.get(key)
        trouble = home.troubles[key] if home is not None else None
        return trouble if trouble is not None and trouble.over is None else None

    def links(self) -> list[Key]:
        """Every trouble of a link or a pair."""
        return [key for key in self._home if key[0] in ("link", "stuck")]

    def leave(self, key: Key) -> None:
        """The trouble is over for long; what begins under its name now is another one."""
        del self._home[key]

    def drop(self, incident: Incident) -> None:
        self.live.pop(id(incident), None)
        if self._by_cause.get(incident.cause) is incident:
            del self._by_cause[incident.cause]
            self._apart.pop(incident.cause, None)
        for key in incident.troubles:
            if self._home.get(key) is incident:
                del self._home[key]

    def restore(self, incident: Incident, now: float) -> None:
        self.live[id(incident)] = self._by_cause[incident.cause] = incident
        if incident.cause.scope == "apart":
            self._apart[incident.cause] = incident
        for key, trouble in incident.troubles.items():
            self._home[key] = incident
            if trouble.over is None:
                self.scopes.add(trouble, now, explained=True)

    # --- asking --------------------------------------------------------------------------------------------------

    def place(self, began: list[Trouble], now: float, at: float) -> None:
        began.sort(key=lambda trouble: _ORDER.index(trouble.key[0]))
        unplaced = {trouble.key: trouble for trouble in began}
        for trouble in began:
            kind, subject = trouble.key
            if kind == "liveness":
                state = self._fleet.nodes.get(subject)
                if state is not None and state.report_at is not None:
                    trouble.began = min(trouble.began, state.report_at)
            self.scopes.add(trouble, now, explained=self._explaining(trouble, unplaced) is not None)
        for trouble in began:
            if trouble.key in unplaced:
                home = self._find(trouble, unplaced, now, at)
                if trouble.key in unplaced:
                    self._move(unplaced.pop(trouble.key), home, at)
            home = self._home[trouble.key]
            if trouble.key[0] == "liveness" and home.is_cause(trouble):
                self._take_consequences(trouble, home, at)
            elif trouble.key[0] == "load":
                self._take_overloaded(trouble, home, at)
        self._part({trouble.key for trouble in began if trouble.key[0] == "link"}, now, at)
        quorum = self.lasting(("quorum", self._fleet.config.fleet))
        if quorum is not None and now - quorum.seen <= _QUORUM_SETTLE_S:
            self._reconsider(quorum, at)

    def changed(self, trouble: Trouble, now: float, at: float) -> None:
        """A trouble has another state than it had."""
        if trouble.over is not None or not trouble.counted:
            trouble.over = None
            self.scopes.remove(trouble)
            self.scopes.add(trouble, now, explained=True)
        if trouble.key[0] == "quorum":
            trouble.seen = now
        load = self._load_of(trouble)
        if load is not None and self._home[load.key] is not self._home[trouble.key]:
            self._rehome(trouble, self._home[load.key], at)

    def _explaining(self, trouble: Trouble, unplaced: dict[Key, Trouble]) -> Key | None:
        """The node, not heard or too busy, that explains the trouble of its link or its load."""
        kind, subject = trouble.key
        load = self._load_of(trouble)
        if load is not None:
            return load.key
        nodes = link_of(subject)[0] if kind == "link" else (subject,) if kind == "load" else ()
        for node in nodes:
            key = ("liveness", node)
            if self.lasting(key) is not None or key in unplaced:
                return key
        return None

    def _load_of(self, trouble: Trouble) -> Trouble | None:
        """The load that an overloaded link comes of."""
        if trouble.key[0] != "link" or trouble.state != "overloaded":
            return None
        ends = link_of(trouble.key[1])[0]
        return next((load for node in ends if (load := self.lasting(("load", node))) is not None), None)

    def _of_load(self, trouble: Trouble) -> Incident | None:
        """What the node's processes fight with, if that was there before: quorum that it is a member of, or a bad link
        of it. Load by others is no consequence of either."""
        node, reason = trouble.key[1], trouble.verdict.reason if trouble.verdict is not None else ""
        working = bool(_WORKERS.search(reason))
        if kinds.takers(reason) and not working:
            return None
        keys: list[Key] = [("quorum", self._fleet.config.fleet)] if node in self._members() else []
        if working:
            keys += [
                ("link", f"{'--'.join(pair)}/{path}")
                for pair in self._fleet.pairs_of(node)
                for path in self._fleet.paths_of(pair)
            ]
        found = []
        for key in keys:
            each = self.lasting(key)
            if each is None or not self._bears(each, trouble.seen):
                continue
            before = trouble.began - each.began
            if (0.0 if working else _LONG_BEFORE_S) <= before <= _QUORUM_AFTER_S:
                found.append((each.began, key))
        return self._home[min(found)[1]] if found else None

    def _find(self, trouble: Trouble, unplaced: dict[Key, Trouble], now: float, at: float) -> Incident:
        kind, subject = trouble.key
        home: Incident | None = None
        if kind == "quorum":
            home = self._of_quorum(trouble)
        elif kind == "stuck":
            home = self._of_stuck(subject)
        elif trouble.state == "cut off":
            home = self._of_links(subject)
        else:
            explaining = self._explaining(trouble, unplaced)
            home = self._home.get(explaining) if explaining is not None else None
            if home is None and kind == "load":
                home = self._of_load(trouble)
        if home is not None:
            return home
        cause = self.scopes.cause(trouble)
        if cause is not None:
            return self._gather(cause, self.scopes.fresh(cause), unplaced, now, at)
        for scope in trouble.scopes:
            wider = self._by_cause.get(scope)
            if wider is not None and self.scopes.holds(scope):
                return wider
        for known, incident in self._apart.items():
            if known.parts(trouble.key):
                return incident
        return self._incident(own_cause(trouble.key), now, at)

    def _of_links(self, node: str) -> Incident | None:
        """The incident of the node's links, if they have a cause that is wider than a pair."""
        for pair in self._fleet.pairs_of(node):
            for path in self._fleet.paths_of(pair):
                key = ("link", f"{'--'.join(pair)}/{path}")
                if self.lasting(key) is not None:
                    cause = self._home[key].cause
                    if cause.kind == "link" and (cause.scope not in ("pair", "node") or cause.target == node):
                        return self._home[key]
        return None

    def _of_stuck(self, name: str) -> Incident | None:
        pair, _ = link_of(name)
        intent = self._failover.intent(self._fleet, pair)
        keys: list[Key] = [("link", f"{name}/{path}") for path in (intent.path, *self._fleet.paths_of(pair))]
        for key in (*keys, ("liveness", pair[0]), ("liveness", pair[1])):
            if self.lasting(key) is not None:
                return self._home[key]
        return None

    def _of_quorum(self, trouble: Trouble) -> Incident | None:
        """The first of what went wrong with its members shortly before, or with those of them that are missing; else a
        member that is away since long ago. An alarm or a certificate comes of none of it."""
        if trouble.verdict is not None and quorum_members.stands_alone(trouble.verdict):
            return None
        members = sorted(self._members())
        missing = self._missing() if trouble.state != "churning" else frozenset()
        concerned = missing or frozenset(members)
        keys: list[Key] = [(kind, node) for node in members if node in concerned for kind in ("liveness", "load")]
        for index, a in enumerate(members):
            for b in members[index + 1 :]:
                if a in concerned or b in concerned:
                    keys += [("link", f"{a}--{b}/{path}") for path in self._fleet.paths_of((a, b))]
        found = []
        for key in keys:
            each = self.lasting(key)
            if each is None or not self._bears(each, trouble.seen):
                continue
            recent = trouble.seen - _QUORUM_AFTER_S <= each.began
            if recent or key[0] == "liveness":
                found.append((not recent, each.began, key))
        return self._home[min(found)[2]] if found else None

    def _bears(self, trouble: Trouble, now: float) -> bool:
        """Whether it can be a cause: a link only if it is dead, or bad while traffic goes by it, or did lately."""
        if trouble.key[0] != "link" or trouble.state in _DEAD:
            return True
        pair, path = link_of(trouble.key[1])
        intent = self._failover.intent(self._fleet, pair)
        return trouble.state not in _HARMLESS and (path == intent.path or now - intent.since <= _QUORUM_AFTER_S)

    # --- moving --------------------------------------------------------------------------------------------------

    def _incident(self, cause: Cause, now: float, at: float) -> Incident:
        known = self._by_cause.get(cause)
        if known is None:
            known = self._by_cause[cause] = Incident(cause, now, at)
            self.live[id(known)] = known
            if cause.scope == "apart":
                self._apart[cause] = known
        return known

    def _move(self, trouble: Trouble, home: Incident, at: float) -> None:
        source = self._home.get(trouble.key)
        if source is not None:
            del source.troubles[trouble.key]
            source.changed = True
        self._home[trouble.key] = home
        home.take(trouble)
        if source is None:
            home.told(trouble, at)

    def _part(self, new: set[Key], now: float, at: float) -> None:
        """Look whether links that began just now lie, with others that did, between groups of nodes."""
        fresh = self.scopes.fresh(Cause("link", "fleet")) if new else []
        homes = {key: self._home[key] for key in fresh if key in self._home}
        narrow = {key: home for key, home in homes.items() if home.cause[:2] in (("link", "pair"), ("link", "apart"))}
        recent = {id(home) for key, home in narrow.items() if now - home.troubles[key].seen <= _APART_S}
        dead = [key for key, home in narrow.items() if id(home) in recent]
        if not 1 < len(dead) <= _MOST_APART:
            return
        for cause, keys in apart.causes(self._fleet, dead, self._carries):
            known = {id(home): home for key in keys if (home := self._home.get(key)) is not None}
            most = max(sum(each.key[0] == "link" for each in home.bad()) for home in known.values())
            if not new.isdisjoint(keys) and len(keys) > most:
                self._gather(cause, keys, {}, now, at)

    def _carries(self, pair: Pair, path: str) -> bool:
        """Whether its ends reach each other, over the path or over any."""
        paths = self._fleet.paths_of(pair)
        known = [self.lasting(("link", f"{'--'.join(pair)}/{each}")) for each in paths if path in ("", each)]
        return any(trouble is None or trouble.state not in _DEAD for trouble in known)

    def _gather(
        self, cause: Cause, keys: Iterable[Key], unplaced: dict[Key, Trouble], now: float, at: float
    ) -> Incident:
        """The incident of a scope, with all that began there at once: `keys`."""
        home = self._incident(cause, now, at)
        sources: dict[int, Incident] = {}
        for key in keys:
            source = self._home.get(key)
            if source is None:
                self._move(unplaced.pop(key), home, at)
            elif source is not home:
                self._move(source.troubles[key], home, at)
                sources[id(source)] = source
        for source in sources.values():
            self._fold(source, home, at)
        return home

    def _reconsider(self, quorum: Trouble, at: float) -> None:
        """Quorum's trouble is another one, or what may be its cause is news."""
        home, better = self._home[quorum.key], self._of_quorum(quorum)
        if better is not None and better is not home:
            self._move(quorum, better, at)
            self._fold(home, better, at)

    def _rehome(self, trouble: Trouble, home: Incident, at: float) -> None:
        source = self._home[trouble.key]
        self.scopes.explain(trouble)
        self._move(trouble, home, at)
        if not source.bad():
            self._fold(source, home, at)

    def _take_overloaded(self, load: Trouble, home: Incident, at: float) -> None:
        """Links that were slow before it was known why."""
        for pair in self._fleet.pairs_of(load.key[1]):
            for path in self._fleet.paths_of(pair):
                each = self.lasting(("link", f"{'--'.join(pair)}/{path}"))
                if each is not None and each.state == "overloaded" and self._home[each.key] is not home:
                    self._rehome(each, home, at)

    def _take_consequences(self, trouble: Trouble, home: Incident, at: float) -> None:
        """What was in trouble before its node was known not to be heard."""
        node = trouble.key[1]
        keys: list[Key] = [("load", node)]
        for pair in self._fleet.pairs_of(node):
            name = "--".join(pair)
            keys += [("link", f"{name}/{path}") for path in self._fleet.paths_of(pair)]
            keys.append(("stuck", name))
        sources: dict[int, Incident] = {}
        for key in keys:
            each, source = self.lasting(key), self._home.get(key)
            if each is None or source is None or source is home or source.cause.kind == "liveness":
                continue
            if each.seen >= trouble.began - _BEFORE_LAST_WORD_S:
                self.scopes.explain(each)
                self._move(each, home, at)
                sources[id(source)] = source
        for source in sources.values():
            cause = source.cause
            whole = cause.scope in ("pair", "node") and node in cause.target.split("--")
            self._fold(source, home, at, whole=whole)

    def _fold(self, source: Incident, home: Incident, at: float, *, whole: bool = False) -> None:
        """`home` has taken troubles of `source`: when its cause is among them, the rest comes along."""
        if not whole and any(trouble.over is None and source.is_cause(trouble) for trouble in source.troubles.values()):
            return
        for trouble in list(source.troubles.values()):
            if self._home.get(trouble.key) is source:
                self.scopes.explain(trouble)
                self._move(trouble, home, at)
        self.drop(source)
        home.opened = min(home.opened, source.opened)
        home.moved |= source.moved
        home.acted = home.acted or source.acted
        if source.kept.id == 0:
            home.adopt_steps(source)
        elif home.kept.id == 0 and source.is_open:
            # People know it by that number.
            home.become(source)
            text = f"what is behind it is known now; it was: {source.kept.title}"
            home.step("incident", "cause", home.cause.subject, text, Severity.INFO, at)
        else:
            text = f"incident {source.kept.id} is part of it: {source.kept.title}"
            home.step("incident", "merged", source.cause.subject, text, source.kept.worst, at)
            self.merged.append((source, home))
