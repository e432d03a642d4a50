"""What the failover policy looks at for a pair, now, in words and in its order: the same predicates that decide."""

from __future__ import annotations

from collections.abc import Iterator

from vagus_controller.core.decision import Situation
from vagus_controller.core.failover import Failover, Intent
from vagus_controller.core.fleet import Fleet, Pair
from vagus_controller.core.guards import busy, guards, recommended
from vagus_controller.core.node import LinkSeen
from vagus_controller.core.verdict import seconds
from vagus_controller.views import CheckView


def explain(failover: Failover, fleet: Fleet, situation: Situation, pair: Pair, now: float) -> tuple[CheckView, ...]:
    """The intent, every path, what the pair wants, every guard. Changes nothing."""
    paths = fleet.paths_of(pair)
    intent = failover.intent(fleet, pair)
    checks = [_assigned(intent, now)]
    for path in paths:
        checks += _path(failover, fleet, situation, pair, path, intent, now)
    if len(paths) < 2:
        checks.append(_info("wish", "there is no other path that both ends name"))
        return tuple(checks)
    return (*checks, *_wish(failover, fleet, situation, pair, intent, now))


def _assigned(intent: Intent, now: float) -> CheckView:
    words = f"{intent.path} ({intent.origin}" + (f", for {seconds(now - intent.since)})" if intent.since else ")")
    if intent.trial_from:
        words += f", on trial; {intent.trial_from} is what it goes back to"
    return _info("assigned", words + (f": {intent.reason}" if intent.reason else ""))


def _path(
    failover: Failover, fleet: Fleet, situation: Situation, pair: Pair, path: str, intent: Intent, now: float
) -> Iterator[CheckView]:
    for node, peer in (pair, pair[::-1]):
        yield _info(f"{path} at {node}", _told(fleet.link(node, peer, path), now))
    unfit = failover.unfit(fleet, pair, path, now)
    yield _check(f"{path} proven", unfit, "from both ends")
    down = failover.down(fleet, pair, path, now)
    yield _check(f"{path} alive", "; ".join(down), "no end calls it down, or the other does not agree")
    dead = bool(failover.down(fleet, pair, intent.path, now))
    trials = failover.trials.words(pair, path, now, dead=dead)
    if trials:
        yield _info(f"{path} trials", trials)
    quality = failover.quality
    if quality.mode(situation.members.issuperset(pair)) == "off":
        return
    reading = quality.reading(pair, path)
    if reading is None:
        yield _info(f"{path} quality", "not measured yet")
        return
    troubles = quality.troubles(pair, path)
    unease = quality.unease(pair, path)
    soon = f"{' and '.join(unease)}, not for long enough to count; " if unease and not troubles else ""
    block = f"{' and '.join(troubles)}; {reading.words()}" if troubles else ""
    yield _check(f"{path} quality", block, soon + reading.words())
    if path != intent.path and quality.unease(pair, intent.path):
        better = quality.why_not(pair, path, intent.path)
        yield _check(f"{path} better", better, f"than {intent.path}, by the margin and for long enough")


def _wish(
    failover: Failover, fleet: Fleet, situation: Situation, pair: Pair, intent: Intent, now: float
) -> Iterator[CheckView]:
    if intent.trial_from:
        yield _info("wish", "none while a move is on trial")
        return
    wish = failover.wish(fleet, situation, pair, now)
    homeward = failover.homeward_words(fleet, pair, now)
    if homeward:
        yield _info("way home", homeward)
    if wish is None:
        yield _info("wish", f"to stay on {intent.path}; the guards, for a move that is not urgent:")
    elif wish.kind == "hold":
        yield _check("wish", wish.reason, "")
    else:
        urgent = ", urgent" if wish.urgent else ""
        yield _info("wish", f"{wish.kind} to {wish.path}{urgent}: {wish.reason}")
    if pair in situation.planned and (wish is None or not wish.urgent):
        yield _info("plan", "it waits in a later stage of the plan under way")
    context = failover.context(fleet, situation, now)
    for guard in guards(context, pair, wish):
        yield _check(guard.name, guard.block, guard.passed)
    approval = recommended(context, pair, wish) if wish is not None else ""
    yield _check("approval", f"a person must approve: {approval}" if approval else "", "none is needed")
    plan = busy(context, wish)
    yield _check(plan.name, plan.block, plan.passed)


def _told(seen: LinkSeen | None, now: float) -> str:
    """One end's own words."""
    if seen is None:
        return "has not told of it"
    link = seen.link
    words = [f"{link.state.value} for {seconds(link.since_s + now - seen.at)}"]
    if link.reason:
        words.append(link.reason)
    if link.proven_s is not None:
        words.append(f"last reply {seconds(link.proven_s + now - seen.at)} ago")
    if link.obstacle:
        words.append(link.obstacle)
    return ", ".join(words) + f" (told {seconds(now - seen.at)} ago)"


def _info(what: str, text: str) -> CheckView:
    return CheckView(what=what, result="info", text=text)


def _check(what: str, block: str, passed: str) -> CheckView:
    return CheckView(what=what, result="block" if block else "pass", text=block or passed)
