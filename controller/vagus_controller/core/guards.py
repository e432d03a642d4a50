"""What may stand between a wish and a move: each guard looks at the wish and passes or blocks it, in words.

The same guards decide (`Failover.evaluate`, the first that blocks) and explain (`explain`, all of them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec import Struct

from vagus_controller import config
from vagus_controller.core.damping import Damping
from vagus_controller.core.decision import Decision, Situation
from vagus_controller.core.fleet import Fleet, Pair
from vagus_controller.core.verdict import seconds
from vagus_controller.core.windows import Windows


class Guard(NamedTuple):
    """`block`: why it stops the wish, "" when it does not; `brief`: the same in a few words; `passed`: why it does
    not."""

    name: str
    block: str = ""
    brief: str = ""
    passed: str = ""


class Context(Struct, frozen=True, kw_only=True):
    """What the guards look at. `moves`: automatic moves in the window, those granted and not begun included;
    `degraded`: pairs that moved, or want to, on degraded evidence alone in the window; `alone(pair)`: whether it is
    where an agent put it alone."""

    settings: config.Failover
    fleet: Fleet
    situation: Situation
    damping: Damping
    windows: Windows
    moves: int
    degraded: int
    alone: Callable[[Pair], bool]
    now: float


def guards(context: Context, pair: Pair, wish: Decision | None) -> Iterator[Guard]:
    """Every guard's word on the wish; without one, on a move that is not urgent."""
    yield from standing(context, pair)
    yield _limit(context)
    yield _share(context, wish)
    yield _flaps(context, pair, wish)


def standing(context: Context, pair: Pair) -> Iterator[Guard]:
    """Those that forbid any move, whatever it is for."""
    yield _observer(context)
    yield _opt_out(context, pair)
    yield _pause(context, pair)
    yield _window(context, pair)


def recommended(context: Context, pair: Pair, wish: Decision) -> str:
    """Why a person must approve the wish; "" when it may be done."""
    if wish.kind not in ("failover", "failback"):
        return ""
    if context.settings.mode == "recommend":
        return "failover.mode is recommend"
    quality = context.settings.quality
    members = context.situation.members.issuperset(pair)
    if wish.degraded and (quality.members if members else quality.mode) == "recommend":
        return f"failover.quality.{'members' if members else 'mode'} is recommend"
    return ""


def busy(context: Context, wish: Decision | None) -> Guard:
    plan = context.situation.busy
    if not plan or (wish is not None and wish.urgent):
        return Guard("plan under way", passed=f"{plan}, and this is urgent" if plan else "none")
    brief = f"waits for the plan under way: {plan}"
    return Guard("plan under way", brief, brief)


def _observer(context: Context) -> Guard:
    controller = context.situation.controller
    if controller.state == "connected":
        return Guard("controller", passed=controller.reason)
    brief = "the controller is in doubt about itself"
    return Guard("controller", f"{brief} ({controller.reason})", brief)


def _opt_out(context: Context, pair: Pair) -> Guard:
    for node in pair:
        state = context.fleet.nodes.get(node)
        if state is not None and state.presence is not None and not state.presence.automatic:
            brief = f"{node}'s own configuration forbids automatic moves"
            if context.alone(pair):
                return Guard("opt-out", passed=f"{brief}, but an agent made this one alone, and that is brought home")
            return Guard("opt-out", f"{brief} (automatic = false in its agent.toml)", brief)
    return Guard("opt-out", passed="both nodes allow automatic moves")


def _pause(context: Context, pair: Pair) -> Guard:
    paused = context.situation.paused(pair[0]) or context.situation.paused(pair[1])
    if paused:
        return Guard("pause", f"paused: {paused}", f"paused: {paused}")
    return Guard("pause", passed="none covers either node")


def _window(context: Context, pair: Pair) -> Guard:
    for node in pair:
        state = context.fleet.nodes.get(node)
        window = context.windows.over(node, state.site if state is not None else "", context.situation.wall)
        if window:
            return Guard("maintenance window", window, window)
    if context.windows and not context.windows.knows(context.situation.wall):
        return Guard("maintenance window", passed="the clock is not set, so no window is honoured")
    return Guard("maintenance window", passed="none covers either node now")


def _limit(context: Context) -> Guard:
    settings = context.settings
    within = f"automatic moves in {settings.moves_window_s:.0f} s"
    if context.moves < settings.max_moves:
        return Guard("limit of moves", passed=f"{context.moves} of {settings.max_moves} {within}")
    return Guard(
        "limit of moves", f"{context.moves} {within}, the limit: look first", "the limit of automatic moves is reached"
    )


def _share(context: Context, wish: Decision | None) -> Guard:
    settings = context.settings
    pairs = len(context.fleet.pairs())
    most = max(int(pairs * settings.quality.most_share), 1)
    words = f"{context.degraded} of {pairs} pairs would move or moved on degraded evidence alone"
    if wish is None or not wish.degraded or context.degraded <= most:
        return Guard("degraded share", passed=f"{words}, of {most} at most")
    brief = "too many pairs are degraded at once"
    return Guard("degraded share", f"{words}, more than {most}: that looks like one cause, look first", brief)


def _flaps(context: Context, pair: Pair, wish: Decision | None) -> Guard:
    words = context.damping.words(pair, context.now)
    left = context.damping.reusable_in(pair, context.now)
    if not left:
        return Guard("flap damping", passed=words)
    if wish is not None and wish.urgent:
        return Guard("flap damping", passed=f"{words}; but nothing is kept on a dead path")
    if wish is not None and wish.quorumless:
        return Guard("flap damping", passed=f"{words}; but no member is kept on an impaired path without quorum")
    return Guard("flap damping", words, f"damped for {seconds(left)} more: its paths flap")
