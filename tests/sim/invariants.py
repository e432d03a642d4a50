"""What must hold under every schedule. Each has a name and a sentence (`SENTENCES`); a breach ends the run.

They are checked after every event that can break them: what an agent accepts, what a controller says, every write to a
kernel, every half second what depends on time, and at the end what must have come right.

Nothing here believes the product's own books where the simulation has truth: which wires carry packets, which way a
kernel sends them, which program published what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from sim import settings
from sim.cases import Cases
from sim.kernel import run
from sim.ways import Ways
from sim.words import Words
from vagus_agent.core.conduct import State
from vagus_agent.net import steering
from vagus_protocol import topics
from vagus_protocol.codec import Rejected
from vagus_protocol.messages import Desired
from vagus_protocol.signing import open_sealed

if TYPE_CHECKING:
    from sim.chief import Chief
    from sim.member import Member
    from sim.world import World

SENTENCES: Final = {
    "no-older-word": "An agent never accepts a desired that is not newer than all it has on its disk.",
    "known-author": "An agent accepts only what a controller of this fleet said, to this node.",
    "one-voice": "Under one epoch, an agent follows one life of one controller; in the end all follow who leads.",
    "ends-agree": "Where nothing but controllers, old words and old disks go wrong, the ends of a pair go by different "
    "paths for no longer than a probe interval and a message.",
    "converges": "Both ends of every pair go by the same path, a bounded time after the last fault.",
    "company-known": "A bounded time after the last fault, an agent knows whether a controller leads it.",
    "no-dead-path": "While another path carries packets and somebody may act, no pair stays on a dead one for long.",
    "held-is-still": "While a pause or maintenance covers a node, its own configuration forbids it, or a person must "
    "be asked, a controller sends no pair of it elsewhere by itself.",
    "only-with-cause": "No pair is sent off its first path by itself, not even without quorum, unless something was "
    "wrong with that path or with an end.",
    "quorum-regained": "A bounded time after the last fault, the members go by paths that give them a quorum.",
    "drill-in-peace": "No drill begins or goes on under a pause or while another pair is off its first path, and none "
    "begins while quorum is lost.",
    "drill-leaves-nothing": "What a drill tried is never confirmed, unless the path that it left has died.",
    "moves-bounded": "The number of times that a node's traffic to a peer moves is bounded by the number of faults.",
    "own-prefixes-only": "Every route that carries our protocol number is of the configuration, and in our table.",
    "trial-ends": "A trial that nobody confirmed does not outlive its time.",
    "clear-leaves-nothing": "After a clear no route and no rule of ours is left, and nobody else's is gone.",
    "incident-ends": "A bounded time after what was wrong has gone, its incident is over.",
    "one-incident": "A cause has one open incident, and what is bad is in one.",
    "told-once": "A controller tells nobody of one event twice, whatever becomes of it meanwhile.",
    "alarm-with-cause": "No incident opens, and nobody is told, where nothing was wrong.",
    "no-exception": "Nothing in the product raises.",
}
# A write to the kernel, and a report's interval for what is only looked at then.
_SLACK_S: Final = 0.5
_MOVES_FOR_NOTHING: Final = 4
_MOVES_PER_FAULT: Final = 1


class Violation(Exception):
    """The invariant `name` did not hold at `at` seconds."""

    def __init__(self, name: str, at: float, text: str) -> None:
        super().__init__(f"{name} at {at:.3f} s: {text}")
        self.name, self.at, self.text = name, at, text


@dataclass
class _Trial:
    """What a node was told to try. `since`: when its time began."""

    path: str
    epoch: int
    within_s: float
    since: float
    drill: bool = False


@dataclass
class _Book:
    """What the simulation knows of one node's agent, from the messages that it accepted in this life of its disk."""

    term: tuple[int, int] = (0, 0)
    # whose word it follows under that epoch
    voice: str = ""
    confirmed: dict[str, str] = field(default_factory=dict)
    trials: dict[str, _Trial] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    moves: dict[str, int] = field(default_factory=dict)


class Invariants:
    def __init__(self, world: World) -> None:
        self._world = world
        self._books: dict[str, _Book] = {}
        # signed payload → (controller, its life, the node)
        self._authors: dict[bytes, tuple[str, int, str]] = {}
        self._words = Words(world, self.fail, lambda node: self._book(world.members[node]).confirmed)
        self._cases = Cases(world, self.fail)
        self._ways = Ways(world, self.fail)
        self.incident, self.notice, self.lingering = self._cases.incident, self._cases.notice, self._cases.lingering
        self.remembers = self._cases.remembers
        self._faults = 0
        # nothing time-bound can be broken before
        self._next_due = float("inf")

    def fail(self, name: str, text: str) -> None:
        raise Violation(name, self._world.engine.now, f"{text}. {SENTENCES[name]}")

    # --- what happens ------------------------------------------------------------------------------------------------

    def fault(self, kind: str, args: tuple[object, ...]) -> None:
        self._faults += 1
        self._words.fault(kind, args)
        self._cases.fault(kind, args)

    def asked(self, lasts_s: float) -> None:
        """A person did."""
        self._words.by_hand_until = max(self._words.by_hand_until, self._world.engine.now + lasts_s)

    def drill_asked(self) -> None:
        """It moves each pair twice."""
        self._faults += 2
        self._cases.drill()

    def published(self, who: str, topic: str, payload: bytes) -> None:
        """The broker took a message."""
        if topic.endswith(("/desired", "/observed")) or "/controllers/" in topic:
            self._world.broker.history.append((topic, payload))

    def said(self, chief: Chief, topic: str, payload: bytes) -> None:
        """A controller publishes."""
        where = topics.parse(topic)
        if not isinstance(where, topics.NodeTopic) or where.leaf != "desired":
            return
        desired = open_sealed(payload, settings.key(where.node), settings.FLEET, where.node)
        assert not isinstance(desired, Rejected), desired
        self._authors[payload] = (chief.name, chief.lives, where.node)
        if any(word.trial for word in desired.assignments.values()):
            self._world.trial_told()
        self._words.said(chief, desired)

    def agent_ended(self, member: Member) -> None:
        self._words.agent_changed(member.name)
        self._cases.agent(member.name)
        self._ways.agent_ended(member)

    def agent_began(self, member: Member) -> None:
        self._words.agent_changed(member.name)
        self._cases.agent(member.name)
        now = self._world.engine.now
        state = msgspec.json.decode(member.disk, type=State) if member.disk else State()
        book = self._book(member)
        book.term = (state.epoch, state.generation)
        book.voice = state.author
        book.confirmed = dict(state.assignments)
        book.trials = {
            peer: _Trial(kept.path, kept.epoch, kept.within_s, now)
            for peer, kept in state.trials.items()
            if kept.running
        }
        self._plan(book)

    def accepted(self, member: Member, payload: bytes) -> None:
        author = self._authors.get(payload)
        if author is None or author[2] != member.name:
            self.fail("known-author", f"{member.name} accepted {payload[:200]!r}")
        assert author is not None
        desired = open_sealed(payload, settings.key(member.name), settings.FLEET, member.name)
        assert isinstance(desired, Desired)
        book, term = self._book(member), (desired.epoch, desired.generation)
        if term <= book.term:
            self.fail("no-older-word", f"{member.name} accepted {term} after {book.term}")
        voice = f"{desired.controller} {desired.session}"
        if desired.epoch == book.term[0] and book.voice not in ("", voice):
            self.fail(
                "one-voice", f"under epoch {desired.epoch} {member.name} follows {voice}, and followed {book.voice}"
            )
        book.term, book.voice = term, voice
        trials: dict[str, _Trial] = {}
        for peer, word in desired.assignments.items():
            running = book.trials.get(peer)
            if not word.trial:
                home = book.confirmed.get(peer, settings.PATHS[0])
                drilled = running is not None and running.drill and running.path == word.path != home
                if drilled and not self._words.cause(member.name, peer, home):
                    self.fail("drill-leaves-nothing", f"{member.name} → {peer} stays on {word.path} ({word.reason})")
                book.confirmed[peer] = word.path
            elif running is not None and (running.path, running.epoch) == (word.path, desired.epoch):
                trials[peer] = running
            else:
                now = self._world.engine.now
                trials[peer] = _Trial(word.path, desired.epoch, desired.confirm_within_s, now, word.drill)
        book.trials = trials
        self._plan(book)

    def steered(self, member: Member) -> None:
        self._only_ours(member)
        book = self._book(member)
        for peer, path in member.paths().items():
            if book.paths.get(peer, path) != path:
                book.moves[peer] = book.moves.get(peer, 0) + 1
                if book.moves[peer] > _MOVES_FOR_NOTHING + _MOVES_PER_FAULT * self._faults:
                    self.fail(
                        "moves-bounded",
                        f"{member.name} → {peer} moved {book.moves[peer]} times with {self._faults} faults",
                    )
            book.paths[peer] = path
        self._next_due = min(self._next_due, self._ways.steered(member))

    # --- what time may break -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """After every event."""
        if self._world.engine.now >= self._next_due:
            self._next_due = float("inf")
            for member in self._world.members.values():
                self._trials_end(member)
            self._next_due = min(self._next_due, self._ways.check())

    def look(self) -> None:
        """Twice a second."""
        for chief in self._world.chiefs.values():
            self._words.goes_on(chief)
            self._cases.look(chief)
        self._ways.look()

    def _plan(self, book: _Book) -> None:
        for trial in book.trials.values():
            self._next_due = min(self._next_due, trial.since + trial.within_s + _SLACK_S)

    def _trials_end(self, member: Member) -> None:
        now = self._world.engine.now
        book = self._book(member)
        for peer, trial in book.trials.items():
            over = max(trial.since + trial.within_s, member.able_since) + _SLACK_S + 2 * member.steering_s
            home = book.confirmed.get(peer, settings.PATHS[0])
            if trial.path == home:
                continue
            if now < over or not member.able:
                self._next_due = min(self._next_due, max(over, now + 0.5))
                continue
            assert member.conduct is not None
            kept = member.conduct.observed.reflex.get(peer) == trial.path
            if member.paths()[peer] == trial.path and not kept and self._world.network.interfaces[member.name, home]:
                self.fail(
                    "trial-ends",
                    f"{member.name} sends {peer} by {trial.path}, on trial since {trial.since:.3f} s for "
                    f"{trial.within_s:g} s and not confirmed: it belongs on {home}",
                )

    # --- kernels -----------------------------------------------------------------------------------------------------

    def _only_ours(self, member: Member) -> None:
        allowed = {f"{settings.address(peer.name)}/32" for peer in member.config.peers}
        allowed |= {settings.lan(peer.name) for peer in member.config.peers}
        interfaces = {path.interface for path in member.config.paths}
        for route in member.kernel.written:
            if route.destination not in allowed or (route.kind == "unicast" and route.device not in interfaces):
                self.fail("own-prefixes-only", f"{member.name} wrote {route}")
        member.kernel.written.clear()

    def _clear(self, member: Member) -> None:
        kernel = member.kernel
        before = kernel.foreign()
        run(steering.clear(kernel, member.config, overrides_only=False))
        routes, rules = kernel.ours()
        if routes or rules:
            self.fail("clear-leaves-nothing", f"{member.name} has {', '.join(map(str, (*routes, *rules)))}")
        if kernel.foreign() != before:
            self.fail("clear-leaves-nothing", f"{member.name} lost somebody else's route or rule")

    # --- the end -----------------------------------------------------------------------------------------------------

    def all_well(self) -> bool:
        """Nothing is under way any more."""
        world = self._world
        for member in world.members.values():
            if not member.able or not member.connected or member.busy:
                return False
        leading = [chief for chief in world.chiefs.values() if chief.leads]
        if not world.abandoned and not (len(leading) == 1 and leading[0].speaks):
            return False
        wrong = self._mistaken() or self._astray() or self.quorumless()
        return not wrong and not any(self._trouble(a, b) for a, b in self._pairs())

    def quorumless(self) -> bool:
        """Whether the members have no quorum, and a controller could give them one."""
        world = self._world
        led = not world.abandoned and not world.schedule.opted_out and world.schedule.without is None
        return led and bool(world.etcd.members) and not world.etcd.has_quorum

    def _astray(self) -> list[str]:
        """The agents that follow another word than that of the controller that leads."""
        leading = [chief.brain for chief in self._world.chiefs.values() if chief.leads and chief.brain is not None]
        voices = {(brain.leadership.epoch, f"{brain.config.name} {brain.session}") for brain in leading}
        books = ((name, self._book(member)) for name, member in self._world.members.items())
        return [name for name, book in books if voices and (book.term[0], book.voice) not in voices]

    def _mistaken(self) -> list[str]:
        """The agents that are wrong about who leads them."""
        led = not self._world.abandoned
        return [member.name for member in self._world.members.values() if member.orphaned == led]

    def _pairs(self) -> list[tuple[str, str]]:
        nodes = self._world.schedule.nodes
        return [(a, b) for a in nodes for b in nodes if a < b]

    def _trouble(self, a: str, b: str) -> tuple[str, str] | None:
        """(invariant, what is wrong) with a pair by now; None when it is as it must be."""
        world = self._world
        ends = world.members[a].paths()[b], world.members[b].paths()[a]
        alive = [path for path in world.offered(a, b) if world.network.both_ways(a, b, path)]
        led = not world.abandoned
        if not led and world.schedule.reflex == "off":
            return None
        # Who leads leaves them where they are.
        left_alone = led and world.schedule.opted_out in (a, b)
        for node, path in zip((a, b), ends, strict=True):
            if alive and path not in alive and not left_alone:
                return "no-dead-path", f"{node} goes by {path or 'nothing'}, which is dead, and {alive[0]} is alive"
        if led and ends[0] != ends[1]:
            return "converges", f"{a} goes by {ends[0]}, {b} by {ends[1]}"
        return None

    def at_the_end(self) -> None:
        for a, b in self._pairs():
            wrong = self._trouble(a, b)
            if wrong is not None:
                since = self._world.engine.now - self._world.last_fault_at
                self.fail(wrong[0], f"{a}--{b}, {since:.1f} s after the last fault: {wrong[1]}")
        for name in self._astray():
            self.fail("one-voice", f"{name} follows {self._books[name].voice} under epoch {self._books[name].term[0]}")
        for name in self._mistaken():
            believes = "nobody" if self._world.members[name].orphaned else "a controller"
            self.fail("company-known", f"{name} holds that {believes} leads it")
        if self.quorumless():
            self.fail("quorum-regained", f"leader {self._world.etcd.leader or 'none'}")
        self._cases.at_the_end()
        for member in self._world.members.values():
            self._clear(member)

    def _book(self, member: Member) -> _Book:
        book = self._books.get(member.name)
        if book is None:
            book = self._books[member.name] = _Book()
        return book
