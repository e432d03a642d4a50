"""Runs many schedules, on several processes; shortens a schedule that failed, and shows it.

scripts/test sim -- [--schedules N] [--seed S] [--jobs J] [--probed] [--only 1,4] [--tell]
PYTHONPATH=tests .venv/bin/python -m sim …      the same, sorted by invariant
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

from sim import schedule as schedules
from sim.invariants import SENTENCES, Violation
from sim.world import World

_CHUNK = 50
_USUAL = {each.name: each for each in fields(schedules.Schedule)}
_UNUSUAL = ("etcd", "mode", "opted_out", "paths", "without", "twins", "fencing", "adopts")


@dataclass(frozen=True)
class Failure:
    seed: int
    invariant: str
    text: str

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.text}"


@dataclass(frozen=True)
class Tally:
    schedules: int
    events: int
    failures: tuple[Failure, ...]


def one(seed: int, probed: bool | None = None) -> tuple[Violation | None, int]:
    """What came of a seed, and its number of events."""
    world = World(schedules.draw(seed, probed=probed))
    return world.run(), world.engine.events


def _chunk(job: tuple[Sequence[int], bool | None]) -> Tally:
    seeds, probed = job
    events, failures = 0, []
    for seed in seeds:
        violation, happened = one(seed, probed)
        events += happened
        if violation is not None:
            failures.append(Failure(seed, violation.name, str(violation)))
    return Tally(len(seeds), events, tuple(failures))


def many(seeds: Sequence[int], jobs: int, probed: bool | None = None, chunk: int = _CHUNK) -> Iterator[Tally]:
    """Tallies of so many schedules each, as they come."""
    work = [(seeds[first : first + chunk], probed) for first in range(0, len(seeds), chunk)]
    if jobs == 1:
        yield from map(_chunk, work)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(_chunk, work)


def shorten(seed: int, invariant: str, probed: bool | None = None) -> tuple[int, ...]:
    """The numbers of faults without which the same invariant does not break."""
    kept = list(schedules.draw(seed, probed=probed).kept)
    step = max(len(kept) // 2, 1)
    while True:
        start = 0
        while start < len(kept):
            fewer = kept[:start] + kept[start + step :]
            violation = World(schedules.draw(seed, probed=probed, only=tuple(fewer))).run()
            if violation is not None and violation.name == invariant:
                kept = fewer
            else:
                start += step
        if step == 1:
            return tuple(kept)
        step //= 2


def command(seed: int, kept: Iterable[int], probed: bool | None = None) -> str:
    """What replays a schedule with its trace."""
    only = ",".join(map(str, kept)) or "none"
    return f"scripts/test sim -- --seed {seed} --only {only} --tell{' --probed' if probed else ''}"


def trace(seed: int, only: tuple[int, ...] | None, probed: bool | None = None) -> tuple[str, Violation | None]:
    """Everything that happened, a line each."""
    plan = schedules.draw(seed, probed=probed, only=only)
    unusual = [f"{name} {value}" for name in _UNUSUAL if (value := getattr(plan, name)) != _USUAL[name].default]
    lines = [
        f"seed {seed}: nodes {', '.join(plan.nodes)}; controllers {', '.join(plan.controllers)}; reflex {plan.reflex}; "
        f"{''.join(f'{each}; ' for each in unusual)}in the end {plan.rest}{'; real probers' if plan.probed else ''}"
    ]
    lines += [
        f"  fault {number:2}  {fault.at:7.3f}  {fault}" for number, fault in zip(plan.kept, plan.faults, strict=True)
    ]
    violation = World(plan, lambda at, who, text: lines.append(f"{at:9.3f}  {who:<7} {text}")).run()
    lines.append(str(violation) if violation is not None else "all is well")
    return "\n".join(lines), violation


def explain(failure: Failure, probed: bool | None = None) -> str:
    """The failure, and the command that shows the shortest schedule found for it."""
    kept = shorten(failure.seed, failure.invariant, probed)
    return f"{failure}\n    {command(failure.seed, kept, probed)}"


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="sim", description=__doc__)
    found.add_argument("--schedules", type=int, default=1000, help="how many")
    found.add_argument("--seed", type=int, default=1, help="of the first one")
    found.add_argument("--jobs", type=int, default=2, help="processes")
    found.add_argument("--probed", action="store_const", const=True, help="real probers in every schedule")
    found.add_argument("--only", default="", help="the numbers of the faults to keep, or none; for one seed")
    found.add_argument("--tell", action="store_true", help="show one seed's schedule, event by event")
    return found


def faults_named(text: str) -> tuple[int, ...] | None:
    if not text:
        return None
    return () if text == "none" else tuple(int(number) for number in text.split(","))


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.tell or options.only:
        text, violation = trace(options.seed, faults_named(options.only), options.probed)
        print(text)
        return int(violation is not None)
    began = time.monotonic()
    done = events = 0
    failures: list[Failure] = []
    seeds = range(options.seed, options.seed + options.schedules)
    for tally in many(seeds, options.jobs, options.probed):
        done += tally.schedules
        events += tally.events
        failures += tally.failures
        if sys.stderr.isatty():
            print(f"\r{done} of {options.schedules}, {len(failures)} failed", end="", file=sys.stderr)
    took = time.monotonic() - began
    by_name = {name: [each for each in failures if each.invariant == name] for name in SENTENCES}
    for name, found in by_name.items():
        if found:
            print(f"\n{name}: {len(found)} of {done} schedules. {SENTENCES[name]}")
            for failure in sorted(found, key=lambda each: each.seed)[:3]:
                print(f"  {explain(failure, options.probed)}")
    print(f"{done} schedules, {events} events, {took:.1f} s, {len(failures)} failed")
    return int(bool(failures))
