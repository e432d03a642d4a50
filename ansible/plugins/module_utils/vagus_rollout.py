"""Whether a rollout may begin, and whether what it has upgraded is healthy: from the controller's pictures alone.

A picture is what the REST API answers: {"fleet": GET /fleet, "plans": GET /plans, "drills": GET /drills}. Nothing here
asks anything, or knows the time; it is an argument. Everything is answered in words: [] and "" are "nothing".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Picture = dict[str, Any]

# In the place of what was before, where nobody looked: only the nodes themselves are judged.
NOTHING: Picture = {"sessions": {}, "versions": {}, "there": [], "incidents": None, "pairs": {}}
# What a forced rollout may not say in the place of a reason; what means that it is not forced.
_NO_REASON = ("true", "yes", "y", "on", "1", "force")
_NOT_FORCED = ("", "false", "no", "n", "off", "0", "none", "null")


def reason_to_force(given: Any) -> tuple[str, str]:
    """(the reason, "") of `vagus_rollout_force`; ("", what is wrong) when it is none. Left out, it is ("", "")."""
    words = str(given).strip()
    if words.lower() in _NOT_FORCED:
        return "", ""
    if words.lower() in _NO_REASON:
        return "", (
            f"vagus_rollout_force is {words!r}: it takes the reason, in words, which is noted on every open incident; "
            "such as -e 'vagus_rollout_force=\"the open incident is what this release mends\"'"
        )
    return words, ""


def order(nodes: list[str], canary: str, last: list[str]) -> list[str]:
    """The canary first; those that also run a controller or broker last."""
    return sorted(nodes, key=lambda node: (node != canary, node in last, nodes.index(node)))


# --- may it begin ----------------------------------------------------------------------------------------------------


def doubt(picture: Picture) -> str:
    """Why the controller can judge nothing now; no force helps."""
    observer = picture["fleet"]["observer"]
    if observer["state"] != "connected":
        return f"the controller is in doubt about itself: {observer['reason']}"
    return ""


def hindrances(picture: Picture, nodes: list[str]) -> list[str]:
    """Why nothing should be upgraded now: something is wrong, or under way, or one of `nodes` is not there."""
    fleet, found = picture["fleet"], []
    for incident in fleet["incidents"]:
        found.append(f"incident {incident['id']} is open: {incident['title']}")
    for plan in picture["plans"]:
        if plan["state"] == "under way":
            found.append(f"a plan is under way: {plan['what']} ({plan['who']})")
    for drill in picture["drills"]:
        if drill["state"] == "under way":
            found.append(f"a drill is under way: {drill['what']} ({drill['who']})")
    for pair in fleet["pairs"]:
        if pair["status"] in ("moving", "waiting", "recommended"):
            found.append(f"{pair['name']} is {pair['status']}: {pair['reason']}")
        elif pair["origin"] in ("auto", "reflex"):
            found.append(f"{pair['name']} is failed over to {pair['assigned']}: {pair['reason']}")
    known = {node["name"]: node for node in fleet["nodes"]}
    for name in nodes:
        if name not in known:
            found.append(f"{name} is not known to the controller: site.yml installs what is new")
        elif _absent(known[name]):
            found.append(_absent(known[name]))
    return found


def outdated(picture: Picture, nodes: list[str], version: str) -> list[str]:
    """Those of `nodes` that do not run `version`, as far as the controller heard of them."""
    running = {node["name"]: node["version"] for node in picture["fleet"]["nodes"] if node["online"]}
    return [name for name in nodes if running.get(name) != version]


# --- is it healthy ---------------------------------------------------------------------------------------------------


def portrait(picture: Picture) -> dict[str, Any]:
    """What later pictures are compared with: it goes through Ansible, so it is plain JSON, and small."""
    fleet = picture["fleet"]
    return {
        "sessions": {node["name"]: _session(node) for node in fleet["nodes"]},
        "versions": {node["name"]: node["version"] for node in fleet["nodes"]},
        "there": [node["name"] for node in fleet["nodes"] if not _absent(node)],
        "incidents": [incident["id"] for incident in fleet["incidents"]],
        "pairs": {
            pair["name"]: {
                "assigned": pair["assigned"],
                "followed": [path == pair["assigned"] for path in pair["observed"]],
                "proven": [path["path"] for path in pair["paths"] if path["proven"]],
            }
            for pair in fleet["pairs"]
        },
    }


def troubles(before: dict[str, Any], picture: Picture, versions: dict[str, str], controller: str = "") -> list[str]:
    """What is not well: a node of `versions` that does not report from that version ("": any), in a new life where it
    had another; and whatever else in the fleet is worse than `before`. `controller`: the version that it must have."""
    found = [doubt(picture)] if doubt(picture) else []
    fleet = picture["fleet"]
    if controller and fleet["version"] != controller:
        found.append(f"the controller runs {fleet['version']}, not {controller}")
    known = {node["name"]: node for node in fleet["nodes"]}
    for name, version in versions.items():
        node = known.get(name)
        if node is None:
            found.append(f"{name} is not known to the controller")
        elif _absent(node):
            found.append(_absent(node))
        elif version and node["version"] != version:
            found.append(f"{name} runs {node['version'] or 'an unknown version'}, not {version}")
        elif before["versions"].get(name, version) != version and before["sessions"].get(name) == _session(node):
            found.append(f"{name} has not reported since its restart")
    for name in before["there"]:
        if name not in versions and (name not in known or _absent(known[name])):
            found.append(_absent(known[name]) if name in known else f"{name} is gone from the fleet")
    found += _worse_pairs(before["pairs"], {pair["name"]: pair for pair in fleet["pairs"]})
    for incident in fleet["incidents"]:
        # One of which nothing lasts is open only so that it is not told again at once.
        if before["incidents"] is not None and incident["id"] not in before["incidents"] and incident["troubles"]:
            found.append(f"incident {incident['id']} has opened: {incident['title']}")
    return found


def _worse_pairs(before: dict[str, Any], pairs: dict[str, Any]) -> list[str]:
    found = []
    for name, was in before.items():
        pair = pairs.get(name)
        if pair is None:
            found.append(f"{name} is gone: its ends do not name each other any more")
            continue
        if pair["assigned"] != was["assigned"]:
            found.append(f"{name} was moved from {was['assigned']} to {pair['assigned']}: {pair['reason']}")
        for end, node in enumerate(pair["nodes"]):
            path = pair["observed"][end]
            if was["followed"][end] and path != pair["assigned"]:
                found.append(f"{node} sends {name} by {path or 'none of its paths'}, not by {pair['assigned']}")
        paths = {path["path"]: path for path in pair["paths"]}
        for path in was["proven"]:
            if path not in paths:
                found.append(f"{name} has no path {path} any more")
            elif not paths[path]["proven"]:
                what = f"{path} carries {name}, and" if path == pair["assigned"] else f"{name} lost its standby: {path}"
                found.append(f"{what} is {paths[path]['verdict']['state']}: {paths[path]['unproven']}")
    return found


def _absent(node: dict[str, Any]) -> str:
    """Why the node counts as not there; "" when it is."""
    liveness = node["liveness"]
    if node["online"] and liveness["state"] == "fresh":
        return ""
    return f"{node['name']} is {liveness['state']}: {liveness['reason']}"


def _session(node: dict[str, Any]) -> str:
    """Of the agent's life that the newest report is from."""
    report = node["report"]
    return report["session"] if report else ""


# --- until when ------------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """Looks until all has been well for `steady_s`, or was not by `timeout_s` after `began`; monotonic seconds.

    A node that restarts by itself meanwhile begins anew: an agent that crashes is well for a moment after each start.
    """

    before: dict[str, Any]
    versions: dict[str, str]
    controller: str
    steady_s: float
    timeout_s: float
    began: float
    troubles: list[str] = field(default_factory=lambda: ["the controller has not been asked yet"])
    _well_since: float | None = None
    _sessions: dict[str, str] = field(default_factory=dict)
    _starts: dict[str, int] = field(default_factory=dict)

    def see(self, picture: Picture | None, error: str, now: float) -> str:
        """What to make of a picture, or of an `error` in the place of one: "wait", "healthy" or "failed"."""
        if picture is None:
            self.troubles = [error]
        else:
            self.troubles = troubles(self.before, picture, self.versions, self.controller)
            self.troubles += self._new_restarts(picture)
        if self.troubles:
            self._well_since = None
        elif self._well_since is None:
            self._well_since = now
        if self._well_since is not None:
            return "healthy" if now - self._well_since >= self.steady_s else "wait"
        return "failed" if now - self.began >= self.timeout_s else "wait"

    def why(self) -> list[str]:
        """What was not well when it was looked at last, and which nodes do not stay up."""
        again = [f"{name} has started {count} times" for name, count in self._starts.items() if count > 1]
        return self.troubles + again

    def _new_restarts(self, picture: Picture) -> list[str]:
        """Nodes that have begun a new life since the last look, though they had begun theirs with the new version."""
        found = []
        for node in picture["fleet"]["nodes"]:
            name, session = node["name"], _session(node)
            if name not in self.versions or not session:
                continue
            known = self._sessions.setdefault(name, self.before["sessions"].get(name, session))
            if session != known:
                self._sessions[name] = session
                self._starts[name] = self._starts.get(name, 0) + 1
                if self._starts[name] > 1:
                    found.append(f"{name} has restarted by itself")
        return found
