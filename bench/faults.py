"""The fault matrix: what a real fleet says of each fault, on real tunnels, broker, etcd and controller.

For each fault, on a fleet that is well and a controller that remembers nothing of the one before: the first verdict
that is not well and how long after the fault, the incident's title and whether it names the right cause, and how many
notices a real Apprise channel delivered to a web hook, until all was well again; the one that it is over is not
counted. A fault is right when the first notice and the incident name its cause. One of which nothing should be said (a
restart, an election) is right when nothing was. Settings are as shipped, but for the failback, which is soon, so that a
run is minutes, and the load that is a spike, since all nodes are one machine.

`--json FILE` adds to what FILE has, fault by fault; `--missing` leaves out those that FILE has, and `--for S` begins
none after so many seconds, so that it can be run in pieces. `--table` prints the table of what FILE has, and runs
nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import table
from until import until

from lab.harness import HostSpec, Lab, services
from lab.harness.hosts import HERE

_HOOK_PORT = 8300
_VPS = HostSpec("vps", "frankfurt", frozenset({"broker", "controller"}))
_PIS = (("pi1", "tokyo"), ("pi2", "austin"), ("pi3", "berlin"))
_PLAIN = (_VPS, *(HostSpec(name, site) for name, site in _PIS))
_ETCD = (_VPS, *(HostSpec(name, site, frozenset({"etcd"})) for name, site in _PIS))
# A hog's name is what an operator would have in the settings for it.
_AGENT = {"report": {"processes": ["tailscaled", "wireguard-go", "etcd", "hog", "writer"]}}
_CHANNEL = {"name": "ops", "url": f"json://127.0.0.1:{_HOOK_PORT}/hook", "severities": ["critical", "warning"]}
_CONTROLLER = {
    "failover": {"failback_hold_s": 2.0, "max_moves": 100_000, "damping": {"half_life_s": 1.0, "longest_hold_s": 2.0}},
    # One kernel: what all the lab's daemons do at one moment is the load of every node.
    "load": {"enter_per_core": 4.0},
    "http": {"url": "https://vagus.example"},
    "notify": {"channel": [_CHANNEL]},
}
_BAD = ("warning", "critical", "unknown")
# So long after the incident is there, another notice of the same fault is waited for; and after all is well again.
_LISTEN_S = 15.0
_AFTER_S = 6.0
_SETTLE_S = 120.0
# Of a notice's title: fleet and severity.
_PREFIX = re.compile(r"^\[[^]]*\] (?:\w+: )?")


@dataclasses.dataclass(frozen=True)
class Case:
    """`title`: what the incident's and the first notice's must match, "" when nothing may be said; `also`: what of its
    consequences the incident's must name; `within_s`: how long that is waited for."""

    name: str
    do: Callable[[Lab], object]
    undo: Callable[[Lab], object]
    title: str
    also: str = ""
    etcd: bool = False
    within_s: float = 45.0


def _mend(lab: Lab) -> None:
    lab.mend("overlay")
    lab.mend("backup")


def _cut_both(lab: Lab, *names: str) -> None:
    lab.cut("overlay", *names)
    lab.cut("backup", *names)


def _part(lab: Lab, *groups: Sequence[str], both: bool = True) -> None:
    """Nodes of two groups do not reach one another, over the overlay or over both paths."""
    for a, b in itertools.combinations(groups, 2):
        for pair in itertools.product(a, b):
            lab.cut("overlay", *pair)
            if both:
                lab.cut("backup", *pair)


def _reboot(lab: Lab) -> None:
    lab.kill_host("pi3")
    lab.boot_host("pi3")


def _restart_broker(lab: Lab) -> None:
    lab.kill_broker()
    lab.start_broker()


def _restart_agent(lab: Lab) -> None:
    lab.process("pi2", "agent").kill()
    lab.start_agents("pi2")


def _restart_controller(lab: Lab) -> None:
    lab.kill_controller()
    lab.start_controller()


def _clone(lab: Lab) -> None:
    """A second agent of pi2's name and key, on pi3's machine."""
    settings = lab.agent_settings(lab["pi2"])
    settings["addresses"] = lab.agent_settings(lab["pi3"])["addresses"]
    settings["peers"] = [peer for peer in settings["peers"] if peer["name"] != "pi3"]
    # On a machine of its own it would not meet pi3's agent, nor the routes that are in that one's name.
    steering = {"enabled": False, "table": 5181, "priority": 5181, "protocol": 119}
    settings |= {"state_dir": "/run/clone", "probe": {"port": 5199}, "steering": steering}
    target = lab["pi3"].directory / "clone.toml"
    services.write_private(target, services.to_toml(settings))
    lab["pi3"].run(["mkdir", "-p", "/run/clone"])
    lab["pi3"].spawn([*services.command("vagus-agent"), "run", "--config", str(target)], name="clone")


def _writers(lab: Lab) -> None:
    host = lab["pi2"]
    busy = host.directory / "bin" / "writer"
    busy.parent.mkdir(exist_ok=True)
    if not busy.exists():
        busy.symlink_to(shutil.which("dd") or "/bin/dd")
    # In the foreground: in the group that is killed.
    one = f"timeout --foreground 40 {busy} if=/dev/zero of={host.directory}/w$i bs=4k count=1000000 oflag=dsync"
    host.spawn(["sh", "-c", f"i=0; while [ $i -lt 24 ]; do i=$((i+1)); {one} & done; wait"], name="writers")


def _stop_writers(lab: Lab) -> None:
    lab.process("pi2", "writers").kill()
    for file in lab["pi2"].directory.glob("w[0-9]*"):
        file.unlink()


def _leader(lab: Lab) -> str:
    return str(lab.api("/api/v1/fleet")["quorum"]["leader"])


def _etcdctl(lab: Lab, host: str, *words: str, check: bool = True) -> str:
    argv = ["etcdctl", "--endpoints", "http://127.0.0.1:2379", "--command-timeout=5s", *words]
    return str(lab[host].run(argv, check=check, env={"ETCDCTL_API": "3"}).stdout)


def _elect(lab: Lab) -> None:
    """One election, by hand: the leader hands over."""
    members = lab.api("/api/v1/fleet")["quorum"]["members"]
    leader = _leader(lab)
    other = next(one["etcd"]["member_id"] for one in members if one["node"] != leader)
    _etcdctl(lab, leader, "move-leader", other)


class _Stutter:
    """A leader that stands still again and again, as with a disk that takes seconds for a write."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, lab: Lab) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(lab,))
        self._thread.start()

    def _run(self, lab: Lab) -> None:
        while not self._stop.is_set():
            try:
                process = lab.process(_leader(lab) or "pi1", "etcd")
            except OSError:
                # The controller is away for the moment.
                self._stop.wait(0.25)
                continue
            process.freeze()
            self._stop.wait(2.5)
            process.thaw()
            self._stop.wait(3.0)

    def end(self, lab: Lab) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)


_stutter = _Stutter()


def _fill(lab: Lab) -> None:
    """Beyond the quota that the lab's members were started with."""
    for number in range(40):
        lab["pi1"].run(
            [
                "sh",
                "-c",
                f"head -c 1000000 /dev/zero | tr '\\0' x | etcdctl --endpoints http://127.0.0.1:2379 put k{number}",
            ],
            check=False,
            env={"ETCDCTL_API": "3"},
        )


def _empty(lab: Lab) -> None:
    _etcdctl(lab, "pi1", "del", "k", "--prefix", check=False)
    status = json.loads(_etcdctl(lab, "pi1", "endpoint", "status", "-w", "json"))
    _etcdctl(lab, "pi1", "compact", str(status[0]["Status"]["header"]["revision"]), check=False)
    for name, _ in _PIS:
        _etcdctl(lab, name, "defrag", check=False)
    _etcdctl(lab, "pi1", "alarm", "disarm")


def _kill_etcd(lab: Lab, *names: str) -> None:
    for name in names:
        lab.process(name, "etcd").kill()


def _start_etcd(lab: Lab, *names: str) -> None:
    for name in names:
        lab.restart_etcd(name)


CASES = (
    Case("overlay dead everywhere", lambda lab: lab.cut("overlay"), _mend, r"^overlay is dead everywhere$"),
    Case("overlay of one node dead", lambda lab: lab.cut("overlay", "pi1"), _mend, r"^overlay of pi1 is dead"),
    Case(
        "overlay of one pair dead",
        lambda lab: lab.cut("overlay", "pi1", "pi2"),
        _mend,
        r"^overlay between pi1 and pi2 is dead",
    ),
    Case(
        "overlay dead one way",
        lambda lab: lab.cut("overlay", "pi1", "pi2", one_way=True),
        _mend,
        r"^overlay between pi1 and pi2 works one way only",
    ),
    Case(
        "overlay loses 25 % one way",
        lambda lab: lab.loss("overlay", 0.25, "pi1", "pi2", one_way=True),
        _mend,
        r"^overlay between pi1 and pi2 loses packets one way",
        within_s=60.0,
    ),
    Case(
        "overlay loses 20 % both ways",
        lambda lab: lab.loss("overlay", 0.2, "pi1", "pi2"),
        _mend,
        r"^overlay between pi1 and pi2 is degraded",
        within_s=60.0,
    ),
    Case(
        "overlay of a pair by a relay, 86 ms more",
        lambda lab: lab.degrade("pi1", "pi2", delay_s=0.086, jitter_s=0.002),
        _mend,
        r"^overlay between pi1 and pi2 is relayed",
    ),
    Case(
        "overlay swallows large packets one way",
        lambda lab: lab.narrow("overlay", 1000, "pi1", "pi2", one_way=True),
        _mend,
        r"^overlay between pi1 and pi2 swallows large packets",
        within_s=60.0,
    ),
    Case(
        "overlay's interface gone on one node",
        lambda lab: lab.overlay_gone("pi1"),
        lambda lab: lab.overlay_back("pi1"),
        r"^overlay of pi1 is dead",
    ),
    Case(
        "overlay parted: two nodes from the other two",
        lambda lab: _part(lab, ("pi1", "pi2"), ("pi3", "vps"), both=False),
        _mend,
        r"^overlay between pi1, pi2 and pi3, vps is dead",
    ),
    Case("backup dead everywhere", lambda lab: lab.cut("backup"), _mend, r"^backup is dead everywhere"),
    Case(
        "both paths of a pair dead",
        lambda lab: _cut_both(lab, "pi1", "pi2"),
        _mend,
        r"^every path between pi1 and pi2 is dead",
    ),
    Case("both paths of a node dead", lambda lab: _cut_both(lab, "pi1"), _mend, r"^every path of pi1 is dead"),
    Case("node frozen", lambda lab: lab["pi3"].freeze(), lambda lab: lab["pi3"].thaw(), r"^pi3 is down"),
    Case("node loses power", lambda lab: lab.kill_host("pi3"), lambda lab: lab.boot_host("pi3"), r"^pi3 is down"),
    Case("node reboots fast", _reboot, lambda lab: None, r"^pi3 (rebooted|is down)"),
    Case(
        "agent killed and gone",
        lambda lab: lab.process("pi2", "agent").kill(),
        lambda lab: lab.start_agents("pi2"),
        r"^pi2 is down",
    ),
    Case("two agents of one name", _clone, lambda lab: lab.process("pi3", "clone").kill(), r"^pi2 is two agents"),
    Case("agent restarted", _restart_agent, lambda lab: None, ""),
    Case("broker restarted", _restart_broker, lambda lab: None, ""),
    Case(
        "broker gone",
        lambda lab: lab.kill_broker(),
        lambda lab: lab.start_broker(),
        r"^the controller is blind",
        within_s=60.0,
    ),
    Case(
        "controller's uplink cut",
        lambda lab: lab.cut_controller(),
        lambda lab: lab.cut_controller(False),
        r"^the controller is blind",
        within_s=60.0,
    ),
    Case("controller killed and restarted", _restart_controller, lambda lab: None, ""),
    Case(
        "CPU hog: 25 tasks on one node",
        lambda lab: lab["pi2"].hog(25, 40.0),
        lambda lab: lab.process("pi2", "hog").kill(),
        r"^load spike",
    ),
    Case("I/O hog: 24 synchronous writers", _writers, _stop_writers, r"^load spike"),
    # --- with etcd
    Case(
        "overlay dead under etcd",
        lambda lab: lab.cut("overlay"),
        _mend,
        r"^overlay is dead everywhere",
        etcd=True,
    ),
    Case(
        "etcd member frozen",
        lambda lab: lab.process("pi2", "etcd").freeze(),
        lambda lab: lab.process("pi2", "etcd").thaw(),
        r"^etcd quorum is at risk",
        etcd=True,
    ),
    Case(
        "etcd member killed",
        lambda lab: _kill_etcd(lab, "pi2"),
        lambda lab: _start_etcd(lab, "pi2"),
        r"^etcd quorum is at risk",
        etcd=True,
    ),
    Case(
        "etcd's leader killed",
        lambda lab: _kill_etcd(lab, _leader(lab)),
        lambda lab: _start_etcd(lab, *(name for name, _ in _PIS if not lab.process(name, "etcd").alive)),
        r"^etcd quorum is at risk",
        etcd=True,
    ),
    Case(
        "two of three etcd members killed",
        lambda lab: _kill_etcd(lab, "pi1", "pi2"),
        lambda lab: _start_etcd(lab, "pi1", "pi2"),
        r"^etcd quorum is lost",
        etcd=True,
    ),
    Case(
        "etcd member cut off, a minority",
        lambda lab: _cut_both(lab, "pi1"),
        _mend,
        r"^every path of pi1 is dead",
        also="and etcd quorum is at risk",
        etcd=True,
    ),
    Case(
        "etcd members parted: one from two",
        lambda lab: _part(lab, ("pi1",), ("pi2", "pi3")),
        _mend,
        r"^every path between pi1 and pi2, pi3 is dead",
        also="and etcd quorum is at risk",
        etcd=True,
    ),
    Case(
        "etcd members parted: each from each",
        lambda lab: _part(lab, ("pi1",), ("pi2",), ("pi3",)),
        _mend,
        r"^every path among pi1, pi2, pi3 is dead",
        also="and etcd quorum is lost",
        etcd=True,
    ),
    Case("etcd election by hand", _elect, lambda lab: None, "", etcd=True),
    Case(
        "etcd leader stands still again and again, as on a slow disk",
        _stutter.begin,
        _stutter.end,
        r"^etcd quorum is (at risk|churning)",
        also="is churning",
        etcd=True,
        within_s=60.0,
    ),
    Case("etcd's quota is full", _fill, _empty, r"NOSPACE", etcd=True),
    Case(
        "host of an etcd member frozen",
        lambda lab: lab["pi3"].freeze(),
        lambda lab: lab["pi3"].thaw(),
        r"^pi3 is down",
        also="and etcd quorum is at risk",
        etcd=True,
    ),
)


@dataclasses.dataclass
class Result:
    name: str
    first: str
    delay_s: float | None
    title: str
    why: str
    told: str
    notices: int
    ok: bool
    once: bool


def run(cases: Sequence[Case], quiet_s: float, end: float) -> Iterator[Result]:
    for etcd in (False, True):
        chosen = [case for case in cases if case.etcd is etcd]
        if (not chosen and not (quiet_s and etcd)) or time.monotonic() > end:
            continue
        with Lab(_ETCD if etcd else _PLAIN, agent=_AGENT, controller=_CONTROLLER) as lab:
            _start(lab, etcd)
            for number, case in enumerate(chosen):
                if time.monotonic() > end:
                    break
                try:
                    _forget(lab, etcd)
                    yield _one(lab, case)
                    _mended(lab, etcd, 1.0)
                except TimeoutError as error:
                    # What is left of one fault must not be taken for the next.
                    left = f"; {len(chosen) - number - 1} faults were not judged on this lab, --missing does them"
                    print(f"  {case.name}: {error}{left}", file=sys.stderr, flush=True)
                    break
            if quiet_s and etcd:
                yield _quiet(lab, quiet_s)


def _start(lab: Lab, etcd: bool) -> None:
    lab.start_broker()
    lab.start_agents()
    lab.start_controller()
    host = lab.the("controller")
    host.python(HERE / "webhook.py", _HOOK_PORT, host.directory / "told", name="hook")
    if etcd:
        lab.wait_routed()
        lab.start_etcd("--quota-backend-bytes=16000000")
    until(lambda: _well(lab, etcd), "a fleet that is well", _SETTLE_S)


def _one(lab: Lab, case: Case) -> Result:
    before, at = len(_told(lab)), time.time()
    case.do(lab)
    deadline = time.monotonic() + (case.within_s if case.title else 20.0)
    heard = False
    while time.monotonic() < deadline:
        if case.title and not heard and any(_names(case, one["title"]) for one in _incidents(lab)):
            heard, deadline = True, time.monotonic() + _LISTEN_S
        time.sleep(0.25)
    incidents = _incidents(lab)
    first = _first(lab, at)
    case.undo(lab)
    with contextlib.suppress(TimeoutError):
        _mended(lab, case.etcd)
    time.sleep(_AFTER_S)
    begun = [_PREFIX.sub("", one) for one in _told(lab)[before:] if "] over " not in one and "] resolved " not in one]
    told = begun[0] if begun else ""
    right = next((one for one in incidents if _names(case, one["title"])), None)
    shown = right or (incidents[0] if incidents else {"title": "", "why": ""})
    ok = right is not None and bool(re.search(case.title, told)) if case.title else not incidents and not begun
    once = len(begun) == 1 if case.title else not begun
    return Result(case.name, *first, shown["title"], shown["why"], told, len(begun), ok, once)


def _names(case: Case, title: str) -> bool:
    return bool(case.title and re.search(case.title, title) and re.search(case.also, title))


def _quiet(lab: Lab, seconds: float) -> Result:
    _forget(lab, True)
    before, at = len(_told(lab)), time.time()
    time.sleep(seconds)
    told = _told(lab)[before:]
    name = f"nothing, for {seconds / 60:.0f} min"
    return Result(name, *_first(lab, at), "; ".join(told), "", "; ".join(told), len(told), not told, not told)


def _forget(lab: Lab, etcd: bool) -> None:
    """All well, and a controller that remembers nothing."""
    _mended(lab, etcd)
    lab.kill_controller()
    for file in (lab.the("controller").directory / "controller").glob("vagus*.db*"):
        file.unlink()
    lab.start_controller()
    until(lambda: _well(lab, etcd) and not _incidents(lab), "a controller that has just begun", _SETTLE_S)


def _mended(lab: Lab, etcd: bool, within_s: float = _SETTLE_S) -> None:
    until(lambda: _well(lab, etcd), "all well again", within_s)


def _well(lab: Lab, etcd: bool) -> bool:
    fleet = lab.api("/api/v1/fleet")
    agents = {host.name for host in lab.hosts.values() if host.agent}
    fresh = {one["name"] for one in fleet["nodes"] if one["liveness"]["state"] in ("fresh", "rebooted")}
    paths = [path for pair in fleet["pairs"] for path in pair["paths"]]
    return (
        fleet["observer"]["state"] == "connected"
        and fresh >= agents
        and len(paths) == len(agents) * (len(agents) - 1)
        and all(path["verdict"]["state"] == "up" for path in paths)
        and all(set(pair["observed"]) == {"overlay"} for pair in fleet["pairs"])
        and (
            not etcd
            or (fleet["quorum"]["verdict"]["state"], fleet["quorum"]["verdict"]["severity"]) == ("healthy", "ok")
        )
    )


def _incidents(lab: Lab) -> list[dict[str, Any]]:
    try:
        return [one for one in lab.api("/api/v1/incidents") if one["severity"] in _BAD]
    except OSError:
        return []


def _first(lab: Lab, at: float) -> tuple[str, float | None]:
    """The first verdict after the fault that is not well, and its delay."""
    try:
        events = lab.api("/api/v1/events?limit=1000")
    except OSError:
        return "", None
    kinds = ("liveness", "link", "load", "quorum", "controller")
    found = [
        one
        for one in reversed(events)
        if one["at"] >= at and one["source"] == "controller" and one["kind"] in kinds and one["severity"] in _BAD
    ]
    if not found:
        return "", None
    state = found[0]["text"].partition(":")[0]
    return f"{found[0]['kind']} {found[0]['subject']} {state}", found[0]["at"] - at


def _told(lab: Lab) -> list[str]:
    file = lab.the("controller").directory / "told"
    return [json.loads(line)["title"] for line in file.read_text().splitlines()] if file.exists() else []


def _line(result: Result) -> str:
    delay = "" if result.delay_s is None else f" after {result.delay_s:.1f} s"
    marks = ("right" if result.ok else f"WRONG, first told: {result.told or 'nothing'}") + (
        "" if result.once else f", {result.notices} notices"
    )
    return f"{result.name}: {result.first or 'nothing'}{delay}; {result.title or 'no incident'} [{marks}]"


def _table(results: Sequence[Result]) -> str:
    lines = [
        "| fault | first verdict | after | root cause named | right | notices |",
        "| --- | --- | ---: | --- | --- | ---: |",
    ]
    for one in results:
        delay = "" if one.delay_s is None else f"{one.delay_s:.1f} s"
        right = "yes" if one.ok else "**no**"
        lines.append(f"| {one.name} | {one.first} | {delay} | {one.title} | {right} | {one.notices} |")
    right, once = sum(one.ok for one in results), sum(one.once for one in results)
    lines += [
        "",
        f"{len(results)} faults: the right cause first in {right}, as many notices as there should be in {once}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="WORDS", help="faults whose name has them")
    parser.add_argument("--missing", action="store_true", help="only those that --json FILE does not have")
    parser.add_argument("--for", type=float, default=1e9, metavar="S", dest="for_s", help="begin none after that")
    parser.add_argument("--quiet", type=float, default=0.0, metavar="S", help="and so long without any fault")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    known = json.loads(options.json.read_text()) if options.json is not None and options.json.exists() else {}
    if not options.table:
        wanted = [case for case in CASES if not options.only or any(words in case.name for words in options.only)]
        wanted = [case for case in wanted if not (options.missing and case.name in known)]
        for one in run(wanted, options.quiet, time.monotonic() + options.for_s):
            print(f"  {_line(one)}", file=sys.stderr, flush=True)
            known[one.name] = dataclasses.asdict(one)
            table.write(options.json, known)
    order = [case.name for case in CASES]
    results = [Result(**one) for one in known.values()]
    results.sort(key=lambda one: order.index(one.name) if one.name in order else len(order))
    print(_table(results))


if __name__ == "__main__":
    main()
