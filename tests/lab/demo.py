"""The demo: builds the lab, tells the story of an overlay's death with measured times, and stays to be played with.

Run by scripts/demo. Not root, or --local: no lab; broker, controller and one real agent on this very machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lab.harness import HostSpec, Lab, LabError
from lab.harness.faults import fault_help
from lab.harness.measure import EtcdWatch, TcpStream, UdpStream

HOSTS = (
    HostSpec("frankfurt-vps", "frankfurt", frozenset({"broker", "controller"})),
    HostSpec("austin-pi", "austin", frozenset({"etcd"})),
    HostSpec("berlin-pi", "berlin", frozenset({"etcd"})),
    HostSpec("tokyo-pi", "tokyo", frozenset({"etcd"})),
)
STREAM = ("austin-pi", "tokyo-pi")
# The demo's patience with the overlay is shorter than the default's 60 s, so that the story ends today.
FAILBACK_HOLD_S = 6.0
# One kernel: to each host the others' daemons, which wake up at the same moments, are load of its own.
SPIKE_PER_CORE = 4.0
# What etcd's election timeout and TCP's retransmissions leave: docs/decisions/0003-detection-by-two-ends.md.
BUDGET_S = 0.6

INTRODUCTION = f"""\
Runs vagus' main job on real parts: three Pis in three cities and a VPS, each a network namespace of this machine, with
a real WireGuard overlay and backup, mosquitto and a three-member etcd.

  scripts/demo              the story, then a prompt to break and mend things; the page's address is printed
  scripts/demo --once       the story only; fails if a claim did not hold; --json FILE writes every step's times
  scripts/demo --local      no lab: broker, controller and one agent on this machine (also when not root)

At the prompt (hosts: {", ".join(host.name for host in HOSTS)}):
{fault_help()}
  status                                                             what the controller says, in one sentence
  quit                                                               clean up and leave
"""


class Broken(Exception):
    """A claim of the story did not hold."""


@dataclass
class Step:
    name: str
    at_s: float
    took_s: float | None = None
    claim: str = ""
    held: bool | None = None
    figures: dict[str, Any] = field(default_factory=dict)


class Story:
    """Tells steps as they happen and keeps them for the JSON file."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.steps: list[Step] = []

    def tell(self, name: str, took_s: float | None = None, **figures: Any) -> None:
        step = Step(name, round(time.monotonic() - self.began, 3), _rounded(took_s), figures=figures)
        self.steps.append(step)
        took = "" if took_s is None else f"  [{_ms(took_s)}]"
        print(f"{step.at_s:7.1f} s  {name}{took}", flush=True)

    def claim(self, claim: str, held: bool, **figures: Any) -> None:
        step = Step("claim", round(time.monotonic() - self.began, 3), None, claim, held, figures)
        self.steps.append(step)
        print(f"{step.at_s:7.1f} s  {'✓' if held else '✗ DID NOT HOLD:'} {claim}", flush=True)

    @property
    def held(self) -> bool:
        return all(step.held is not False for step in self.steps)


def tell_story(lab: Lab, story: Story) -> None:
    """The whole story; raises Broken when it cannot go on."""
    story.tell("building three Pis, a VPS, two WireGuard networks between them")
    lab.start_broker()
    lab.start_agents()
    url = lab.start_controller()
    story.tell(f"controller and agents run. The page: {url}  (user operator, password {lab.password})")
    took = lab.start_etcd()
    story.tell("etcd: three members on their service addresses, default timers", took)
    began = time.monotonic()
    _until(lambda: _fleet(lab)["severity"] == "ok", 60, lambda: f"the fleet is not well: {_fleet(lab)['summary']}")
    story.tell(f"healthy: {_fleet(lab)['summary']}", time.monotonic() - began)
    with UdpStream(lab, *STREAM) as udp, TcpStream(lab, *STREAM) as tcp, EtcdWatch(lab) as etcd:
        story.tell(f"a TCP and a UDP stream run from {STREAM[0]} to {STREAM[1]}, by their service addresses")
        time.sleep(3)
        _overlay_dies(lab, story, udp, tcp, etcd)
        _overlay_heals(lab, story, udp, tcp, etcd)
    _spike(lab, story)


def _overlay_dies(lab: Lab, story: Story, udp: UdpStream, tcp: TcpStream, etcd: EtcdWatch) -> None:
    leader = etcd.leaders(time.monotonic() - 2)
    wall = time.time()
    cut = lab.cut("overlay")
    story.tell("THE OVERLAY DIES, everywhere and silently: no interface goes down, no error comes back")
    _until(lambda: _all_on(lab, "backup"), 15, lambda: f"not everybody moved: {_where(lab)}")
    time.sleep(3)
    gap, stall = udp.gap(cut, cut + 3), tcp.stall(cut, cut + 3)
    verdicts = [event["at"] - wall for event in _since(lab, "events", wall) if " is down" in event["text"]]
    moves = [entry for entry in _since(lab, "ledger", wall) if entry["action"] == "failover"]
    decided = [entry["at"] - wall for entry in moves]
    story.tell("first end says: overlay down", min(verdicts, default=None))
    story.tell(
        "controller decides the first pair, the last pair",
        min(decided, default=None),
        last_s=max(decided, default=None),
    )
    for entry in sorted(moves, key=lambda entry: entry["at"]):
        story.tell(f"  {entry['subject']}: {entry['reason']}; {entry['outcome']}", entry["at"] - wall)
    story.claim("every pair moved to the backup, decided by the controller", len(moves) == 6, moves=len(moves))
    story.claim(
        f"UDP between {STREAM[0]} and {STREAM[1]} was silent for {_ms(gap.seconds)}, within {_ms(BUDGET_S)}",
        gap.seconds <= BUDGET_S,
        gap_s=gap.seconds,
        lost=gap.lost,
    )
    story.claim(
        f"the TCP connection is the same one and goes on (longest stall {_ms(stall.seconds)})",
        tcp.alive and tcp.connections() == 1,
        stall_s=stall.seconds,
    )
    _etcd_claims(story, etcd, cut, leader)


def _overlay_heals(lab: Lab, story: Story, udp: UdpStream, tcp: TcpStream, etcd: EtcdWatch) -> None:
    leader = etcd.leaders(time.monotonic() - 2)
    mended = lab.mend("overlay")
    story.tell(f"the overlay heals; vagus waits until it is proven for {FAILBACK_HOLD_S:.0f} s (default 60 s)")
    # What stands still meanwhile on a busy machine begins the hold anew.
    _until(lambda: _all_on(lab, "overlay"), FAILBACK_HOLD_S + 60, lambda: f"not everybody is home: {_where(lab)}")
    story.tell("every pair is home", time.monotonic() - mended)
    time.sleep(1)
    gap = udp.gap(mended)
    story.claim(f"going home cost {_ms(gap.seconds)} of silence", gap.seconds <= 0.1, gap_s=gap.seconds, lost=gap.lost)
    story.claim("the TCP connection is still the same one", tcp.alive and tcp.connections() == 1)
    _etcd_claims(story, etcd, mended, leader)


def _etcd_claims(story: Story, etcd: EtcdWatch, since: float, leader: set[tuple[str, int]]) -> None:
    failed = etcd.failed_reads(since)
    reads = len(etcd.readings(since))
    story.claim("etcd kept its leader", etcd.leaders(since) == leader, leaders=sorted(map(str, etcd.leaders(since))))
    story.claim(f"no linearizable read failed ({reads} at three members)", not failed and reads > 0, failed=len(failed))


def _spike(lab: Lab, story: Story) -> None:
    wall = time.time()
    victim = "austin-pi"
    tasks = max(25, int(2 * SPIKE_PER_CORE) * (os.cpu_count() or 1))
    hog = lab[victim].hog(tasks, 40, name="k3s")
    story.tell(f"{tasks} busy processes called k3s start on {victim} (all hosts share this machine's cores and load)")

    def told() -> str:
        load = next(node["load"] for node in _fleet(lab)["nodes"] if node["name"] == victim)
        return str(load["reason"]) if load["state"] == "spike" and "k3s" in load["reason"] else ""

    _until(told, 40, lambda: "no load spike with its cause was told")
    story.tell(f"load spike on {victim}: {told()}", time.time() - wall)
    story.claim("the spike was told with its cause", True)
    hog.kill()


# --- asking the controller -----------------------------------------------------------------------------------------


def _fleet(lab: Lab) -> Any:
    return lab.api("/api/v1/fleet")


def _since(lab: Lab, what: str, wall: float) -> list[Any]:
    page = lab.api(f"/api/v1/{what}?limit=500")
    items = page["items"] if isinstance(page, dict) else page
    return [item for item in items if item["at"] >= wall]


def _where(lab: Lab) -> dict[str, Any]:
    return {pair["name"]: (pair["observed"], pair["status"], pair["reason"]) for pair in _fleet(lab)["pairs"]}


def _all_on(lab: Lab, path: str) -> bool:
    pairs = _fleet(lab)["pairs"]
    return bool(pairs) and all(pair["observed"] == [path, path] and pair["status"] == "settled" for pair in pairs)


def _until(ready: Callable[[], object], timeout_s: float, complaint: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if ready():
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            # The controller is busy or being restarted; the deadline decides.
            pass
        if time.monotonic() > deadline:
            raise Broken(f"after {timeout_s:.0f} s {complaint()}")
        time.sleep(0.1)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 2 else f"{seconds:.1f} s"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


# --- the prompt ----------------------------------------------------------------------------------------------------


def play(lab: Lab) -> None:
    """Break and mend by words until `quit`, end of input or a signal."""
    print(f"\nThe fleet stays up. The page: {lab.urls['controller']}  (user operator, password {lab.password})")
    if not sys.stdin.isatty():
        print("No terminal to ask: Ctrl-C or SIGTERM ends it.", flush=True)
        threading.Event().wait()
    print("Type help for what can be broken and mended, quit to leave.")
    while True:
        try:
            words = input("vagus-demo> ").split()
        except EOFError:
            return
        if not words:
            continue
        if words[0] in ("quit", "exit"):
            return
        try:
            if words[0] == "help":
                print(INTRODUCTION)
            elif words[0] == "status":
                print(_fleet(lab)["summary"])
            else:
                lab.fault(words[0], *words[1:])
                print("done; watch the page")
        except (LabError, KeyError, OSError) as error:
            print(error)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=INTRODUCTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--once", action="store_true", help="tell the story and leave; fails if a claim did not hold")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every step's measured times")
    parser.add_argument("--local", action="store_true", help="no lab: this machine as the only node")
    parser.add_argument("--port", type=int, default=0, help="the page's port on 127.0.0.1; a free one by default")
    options = parser.parse_args(arguments)
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: there is no directory {options.json.parent}")
    if not 0 <= options.port <= 65535:
        parser.error(f"--port {options.port}: a port is 1 to 65535")
    # Also when the terminal goes away, unless nohup says otherwise.
    for ends in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ends) is not signal.SIG_IGN:
            signal.signal(ends, lambda number, _frame: sys.exit(128 + number))
    story = Story()
    try:
        if options.local or os.geteuid() != 0:
            from lab import local

            return local.run(once=options.once, port=options.port, json_file=options.json)
        settings = {"failover": {"failback_hold_s": FAILBACK_HOLD_S}, "load": {"enter_per_core": SPIKE_PER_CORE}}
        with Lab(HOSTS, controller=settings) as lab:
            try:
                tell_story(lab, story)
            except (Broken, LabError) as error:
                story.claim(str(error), False)
                print(lab.logs(15), file=sys.stderr)
            print(
                "\nEvery claim of the story held." if story.held else "\nNOT every claim of the story held.", flush=True
            )
            if options.json is not None:
                report = {"held": story.held, "steps": [asdict(step) for step in story.steps]}
                options.json.write_text(json.dumps(report, indent=2) + "\n")
            if not options.once:
                play(lab)
    except KeyboardInterrupt:
        print("\nCleaned up.")
        return 130
    except LabError as error:
        print(f"The demo could not be built: {error}", file=sys.stderr)
        return 1
    return 0 if story.held else 1


if __name__ == "__main__":
    sys.exit(main())
