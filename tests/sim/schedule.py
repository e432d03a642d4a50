"""What goes wrong, and when: a list of faults drawn from a seed. The same seed gives the same list, and the list can be
shortened: every fault is independent of the others, and whatever is broken at the end of the list is mended then."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sim import settings


@dataclass(frozen=True)
class Fault:
    """`kind` is the name of a method of `faults.Faults`, `args` are its arguments."""

    at: float
    kind: str
    args: tuple[object, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(map(str, self.args))})"


@dataclass(frozen=True)
class Schedule:
    """`rest`: what stays broken after the last fault; one of `RESTS`. `probed`: real probers make the link states;
    `etcd`: every node runs a member; `mode`: of the controllers; `opted_out`: the node, or "", whose own configuration
    forbids automatic moves; `without`: (node, peer, path): the node, and not its peer, lacks that path between them;
    `twins`: all controllers have one name; `fencing`: nothing but controllers, old words and old disks go wrong;
    `adopts`: what agents did alone is taken over."""

    seed: int
    nodes: tuple[str, ...]
    controllers: tuple[str, ...]
    probed: bool
    reflex: str
    rest: str
    faults: tuple[Fault, ...]
    # which of the drawn faults these are
    kept: tuple[int, ...]
    drawn: int
    etcd: bool = False
    mode: str = "auto"
    opted_out: str = ""
    paths: tuple[str, ...] = settings.PATHS
    without: tuple[str, str, str] | None = None
    twins: bool = False
    fencing: bool = False
    adopts: bool = True

    @property
    def last_fault_at(self) -> float:
        return self.faults[-1].at if self.faults else WARM_UP_S


# Everything starts, and after a while one controller leads.
WARM_UP_S = 7.0
_PHASE_S = 14.0

RESTS = (
    *("healed",) * 6,
    *("overlay dead",) * 2,
    *("overlay impaired",) * 2,
    *("backup dead", "nobody leads", "left on trial", "leader and broker die"),
)
_DISKS = ("kept",) * 4 + ("lost", "older")


def draw(seed: int, *, probed: bool | None = None, only: tuple[int, ...] | None = None) -> Schedule:
    """`only`: the numbers of the faults to keep, of those that the seed gives."""
    rng = random.Random(seed)
    nodes = settings.NODES[: 2 if rng.random() < 0.6 else 3]
    with_probers = rng.random() < PROBED_SHARE if probed is None else probed
    if with_probers:
        nodes = settings.NODES[:2]
    controllers = settings.CONTROLLERS[: 2 if rng.random() < 0.7 else 1]
    reflex = rng.choice(("orphaned", "orphaned", "orphaned", "always", "off"))
    rest = rng.choice(RESTS)
    etcd = rng.random() < (0.6 if len(nodes) == 3 else 0.25)
    mode = "recommend" if rng.random() < 0.1 else "auto"
    opted_out = rng.choice(nodes) if rng.random() < 0.07 else ""
    # Of its own, so that an unusual fleet changes nothing else.
    shape = random.Random(f"shape {seed}")
    if shape.random() < 0.08 and not with_probers:
        nodes = settings.NODES[: shape.choice((4, 5))]
    paths = (*settings.PATHS, settings.THIRD) if shape.random() < 0.15 else settings.PATHS
    without = None
    if shape.random() < 0.06:
        without = (*shape.sample(nodes, 2), shape.choice(paths[1:]))
    twins = shape.random() < 0.15
    adopts = shape.random() < 0.85
    kinds = _KINDS
    fencing = shape.random() < 0.08 and not (with_probers or opted_out or etcd) and mode == "auto"
    if fencing:
        rest, kinds = "healed", _FENCING
    faults: list[Fault] = []
    warm_up = rng.choice((1.0, WARM_UP_S, WARM_UP_S))
    count = rng.randint(1, 7)
    if fencing:
        # Without a move old words say what new ones do.
        faults.append(Fault(warm_up, "command", ("plan", settings.PATHS[1], "force")))
        count += 3
    for _ in range(count):
        faults += _draw_one(rng, nodes, controllers, paths, kinds, warm_up + rng.random() * _PHASE_S)
    faults.sort(key=lambda fault: fault.at)
    kept = tuple(range(len(faults))) if only is None else only
    return Schedule(
        seed,
        nodes,
        controllers,
        with_probers,
        reflex,
        rest,
        tuple(faults[number] for number in kept),
        kept,
        len(faults),
        etcd,
        mode,
        opted_out,
        paths,
        without,
        twins,
        fencing,
        adopts,
    )


# The share of schedules whose links real probers drive.
PROBED_SHARE = 0.1


def _draw_one(
    rng: random.Random,
    nodes: tuple[str, ...],
    controllers: tuple[str, ...],
    paths: tuple[str, ...],
    kinds: tuple[str, ...],
    at: float,
) -> list[Fault]:
    """One trouble: its beginning, and mostly its end."""
    lasts = rng.choice((0.3, 1.0, 3.0, 6.0, 12.0)) * rng.uniform(0.5, 1.5)
    end = at + lasts
    node, path = rng.choice(nodes), rng.choice(paths)
    other = rng.choice([each for each in nodes if each != node])
    chief = rng.choice(controllers)
    anybody = rng.choice((*nodes, *controllers))
    pair = "--".join(sorted((node, other)))
    kind = rng.choice(kinds)
    if kind == "ambush":
        # In the middle of a move, wherever one begins next.
        hit, *undone = _draw_one(rng, nodes, controllers, paths, kinds, at)
        delay = rng.choice((0.0, 0.01, 0.03, 0.1, 1.0)) * rng.uniform(0.5, 1.5)
        inner = hit.args[1:] if hit.kind == "ambush" else (hit.kind, *hit.args)
        return [Fault(at, "ambush", (delay, *inner)), *undone]
    if kind == "cut":
        return [Fault(at, "cut", (node, other, path)), Fault(end, "mend", (node, other, path))]
    if kind == "one way":
        return [Fault(at, "cut_one_way", (node, other, path)), Fault(end, "mend", (node, other, path))]
    if kind == "path dies":
        return [Fault(at, "cut_everywhere", (path,)), Fault(end, "mend_everywhere", (path,))]
    if kind == "alone":
        return [Fault(at, "isolate", (node,)), Fault(end, "rejoin", (node,))]
    if kind == "split":
        group = tuple(each for each in nodes if rng.random() < 0.5) or (node,)
        return [Fault(at, "split", group), Fault(end, "unite", group)]
    if kind == "flap":
        period = rng.uniform(0.8, 3.0)
        count = rng.randint(3, 6)
        turns = (("cut_everywhere", (path,)), ("mend_everywhere", (path,)))
        if rng.random() < 0.5:
            turns = (("cut", (node, other, path)), ("mend", (node, other, path)))
        return [Fault(at + turn * period, *turns[turn % 2]) for turn in range(2 * count)]
    if kind == "lossy":
        loss = rng.choice((0.1, 0.3, 0.5, 0.8))
        return [Fault(at, "lose", (node, other, path, loss)), Fault(end, "lose", (node, other, path, 0.0))]
    if kind == "slow":
        return [Fault(at, "slow", (node, other, path, 0.3)), Fault(end, "slow", (node, other, path, 0.01))]
    if kind == "disorder":
        return [Fault(at, "disorder", (node, other, path, 0.3)), Fault(end, "disorder", (node, other, path, 0.0))]
    if kind == "interface":
        return [Fault(at, "interface_gone", (node, path)), Fault(end, "interface_back", (node, path))]
    if kind == "broker cut":
        some = tuple(each for each in (*nodes, *controllers) if rng.random() < 0.5) or (anybody,)
        return [Fault(at, "cut_broker", some), Fault(end, "mend_broker", some)]
    if kind == "broker slow":
        delay = rng.choice((0.2, 1.0, 3.0))
        return [Fault(at, "slow_broker", (anybody, delay)), Fault(end, "slow_broker", (anybody, 0.0))]
    if kind == "broker twice":
        return [Fault(at, "broker_repeats", (0.5,)), Fault(end, "broker_repeats", (0.0,))]
    if kind == "broker restart":
        return [Fault(at, "broker_stops"), Fault(end, "broker_starts", (rng.choice(("kept", "lost", "older")),))]
    if kind == "agent crash":
        return [
            Fault(at, "agent_crashes", (node, rng.random() < 0.4)),
            Fault(end, "agent_starts", (node, rng.choice(_DISKS))),
        ]
    if kind == "agent dies":
        how = rng.choice(("agent_dies_writing", "agent_dies_speaking", "agent_dies_speaking"))
        return [Fault(at, how, (node, rng.randint(0, 6))), Fault(end, "agent_starts", (node, "kept"))]
    if kind == "controller dies":
        return [
            Fault(at, "controller_dies_speaking", (chief, rng.randint(0, 8))),
            Fault(end, "controller_starts", (chief, rng.choice(_DISKS))),
        ]
    if kind == "agent restored":
        boots = rng.random() < 0.5
        return [Fault(at, "agent_crashes", (node, boots)), Fault(end, "agent_starts", (node, rng.choice(_DISKS)))]
    if kind == "agent freeze":
        return [Fault(at, "agent_freezes", (node,)), Fault(end, "agent_thaws", (node,))]
    if kind == "controller crash":
        return [Fault(at, "controller_crashes", (chief,)), Fault(end, "controller_starts", (chief, rng.choice(_DISKS)))]
    if kind == "leader and broker":
        # One machine, which may come back in any order.
        back = at + lasts * rng.random()
        return sorted(
            (
                Fault(at, "broker_stops"),
                Fault(at, "controller_crashes", (chief,)),
                Fault(back, "broker_starts", ("kept",)),
                Fault(end, "controller_starts", (chief, "kept")),
            ),
            key=lambda fault: fault.at,
        )
    if kind == "controller freeze":
        return [Fault(at, "controller_freezes", (chief,)), Fault(end, "controller_thaws", (chief,))]
    if kind == "drift":
        return [Fault(at, "drift", (node, rng.choice(("table", "rule", "foreign"))))]
    if kind == "kernel refuses":
        return [Fault(at, "kernel_refuses", (node, True)), Fault(end, "kernel_refuses", (node, False))]
    if kind == "kernel slow":
        return [Fault(at, "kernel_slow", (node, rng.choice((0.5, 4.0)))), Fault(end, "kernel_slow", (node, 0.002))]
    if kind == "service":
        return [Fault(at, "service_deaf", (node, other, path)), Fault(end, "service_well", (node, other, path))]
    if kind == "replay":
        what = rng.choice(("desired", "desired", ""))
        return [Fault(at, "replay", (what, rng.random())) for at in (at, at + lasts / 2)]
    if kind == "forge":
        return [Fault(at, "forge", (node,))]
    if kind == "switchover":
        force = "force" if rng.random() < 0.4 else "ask"
        return [Fault(at, "command", ("switchover", pair, path, force))]
    if kind == "plan":
        return [Fault(at, "command", ("plan", path, rng.choice(("ask", "force"))))]
    if kind == "failback":
        return [Fault(at, "command", ("failback", pair))]
    if kind == "approve":
        return [Fault(at, "command", ("approve",)), Fault(end, "command", ("approve",))]
    if kind == "drill":
        return [Fault(at, "command", ("drill", rng.choice(("fleet", pair))))]
    if kind == "drill due":
        return [Fault(at, "clock", ("before a drill", *controllers)), Fault(end, "clock", ("right", *controllers))]
    if kind == "drill and death":
        returns = [Fault(end, "controller_starts", (each, "kept")) for each in controllers]
        return [Fault(at, "command", ("drill", "fleet")), Fault(at + lasts / 2, "leader_crashes"), *returns]
    if kind == "drill and trouble":
        cut, mend = Fault(at + lasts / 4, "cut", (node, other, path)), Fault(end, "mend", (node, other, path))
        return [Fault(at, "command", ("drill", "fleet")), cut, mend]
    if kind == "maintenance":
        moment = rng.choice([name for name in settings.MOMENTS if "window" in name])
        into, out = Fault(at, "clock", (moment, *controllers)), Fault(end, "clock", ("right", *controllers))
        if rng.random() < 0.5:
            return [into, out]
        begin = at + (end - at) * rng.random()
        return [into, Fault(begin, "cut_everywhere", (path,)), Fault(begin + lasts, "mend_everywhere", (path,)), out]
    if kind == "clock":
        # Of one machine alone; a few seconds, an hour, or to a moment that means something.
        moment = rng.choice((*settings.MOMENTS, -3.0, 3.0, -70.0, -3600.0, 3600.0))
        return [Fault(at, "clock", (moment, chief)), Fault(end, "clock", ("right", chief))]
    if kind == "etcd":
        return [Fault(at, "etcd_stops", (node,)), Fault(end, "etcd_starts", (node,))]
    if kind == "etcd dies":
        return [
            *(Fault(at, "etcd_stops", (each,)) for each in nodes),
            *(Fault(end, "etcd_starts", (each,)) for each in nodes),
        ]
    if kind == "relayed":
        return [Fault(at, "relayed", (node, other, True)), Fault(end, "relayed", (node, other, False))]
    assert kind == "pause", kind
    scope = rng.choice(("fleet", node))
    found = [Fault(at, "command", ("pause", scope))]
    if rng.random() < 0.5:
        found.append(Fault(end, "command", ("resume",)))
    return found


_KINDS = (
    *("cut", "cut", "one way", "path dies", "path dies", "alone", "lossy", "slow", "disorder", "interface"),
    *("split", "flap"),
    *("broker cut", "broker cut", "broker slow", "broker twice", "broker restart"),
    *("agent crash", "agent crash", "agent dies", "agent freeze", "controller crash"),
    *(
        "controller dies",
        "controller dies",
        "controller freeze",
        "leader and broker",
        "drift",
        "kernel refuses",
        "kernel slow",
        "service",
    ),
    *("replay", "replay", "forge", "switchover", "plan", "failback", "pause", "pause", "pause"),
    *(
        "drill",
        "drill",
        "drill",
        "drill and death",
        "drill and trouble",
        "drill due",
        "drill due",
        "approve",
        "approve",
    ),
    *("maintenance", "maintenance", "maintenance", "clock", "etcd", "etcd dies", "relayed"),
    *("ambush",) * 8,
)
_FENCING = (
    *("controller crash", "controller freeze", "controller freeze", "replay", "replay", "replay", "forge"),
    *("agent restored", "agent restored", "switchover", "switchover", "plan", "failback", "pause", "clock"),
    *("ambush",) * 4,
)
