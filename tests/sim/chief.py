"""A controller: the real brain, with a session, a disk and a person at its side."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from msgspec import structs

from sim import settings
from sim.broker import Broker, Client
from sim.casebook import Casebook
from sim.engine import Engine, Fuse, Process
from vagus_controller.config import Config
from vagus_controller.core import notices
from vagus_controller.core.brain import TICK_S, Brain
from vagus_controller.core.commands import Commands
from vagus_controller.core.fleet import Notice
from vagus_controller.core.verdict import Verdict
from vagus_controller.schedule import Schedule
from vagus_controller.views import DrillAsk, IncidentView, LedgerEntry, PlanAsk, Refused, Severity
from vagus_protocol import topics

Trace = Callable[[str, str], None]

_PREFIXES = (f"{topics.ROOT}/{settings.FLEET}/nodes/", f"{topics.ROOT}/{settings.FLEET}/controllers/")

# The stages of a person's plan are over by then, also where another controller has to go on with it.
_PLAN_S = 30.0


class Witness(Protocol):
    """What the invariants are told of a controller."""

    def said(self, chief: Chief, topic: str, payload: bytes) -> None: ...

    def asked(self, lasts_s: float) -> None:
        """What happens for so long may be a person's command."""

    def drill_asked(self) -> None: ...

    def remembers(self, chief: Chief, incidents: Sequence[int]) -> None:
        """It starts, and has these on its disk."""

    def incident(self, chief: Chief, view: IncidentView) -> None: ...

    def notice(self, chief: Chief, notice: notices.Notice) -> None: ...


class Chief:
    """`name`: in the simulation; its configuration may name it otherwise. `disk`: what its brain saved, and its
    casebook; `image`: an older state of it."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        broker: Broker,
        config: Config,
        rng: random.Random,
        witness: Witness,
        trace: Trace,
    ) -> None:
        self.process = Process(engine, name)
        self.name = name
        self._config = config
        self.disk = self.image = (b"", b"")
        self.brain: Brain | None = None
        self.casebook: Casebook | None = None
        self.lives = 0
        # how often the disk became another
        self.disks = 0
        # of its own, so that what is told changes nothing else
        self._mail = random.Random(name)
        # between two things that it says or keeps
        self.word_fuse = Fuse(self)
        # what a person paused here ("fleet", or a node), and until when by the engine's clock
        self._pauses: list[tuple[str, float]] = []
        # who asked for the drill that began last: a person, or the schedule
        self.drilled_by = ""
        # the wall clock minus the engine's, now and when it was read last
        self._wall_ahead = self._wall_read = settings.MOMENTS["right"]
        self._witness = witness
        self._engine, self._broker, self._rng, self._trace = engine, broker, rng, trace
        self._client: Client | None = None

    # --- life ------------------------------------------------------------------------------------------------------

    def start(self, disk: str = "kept") -> None:
        if self.process.running:
            return
        if disk == "lost":
            self.disk = (b"", b"")
        elif disk == "older":
            self.disk = self.image
        if disk != "kept":
            self._pauses.clear()
            self.disks += 1
        self.lives += 1
        self.process.clock_offset = self._rng.uniform(0.0, 1e5)
        self.process.begin()
        session = f"{self._rng.getrandbits(32):08x}"
        now = self.process.now
        self._schedule = Schedule(self._config.drill.schedule)
        self.brain = Brain(self._config, settings.FLEET_KEY, session, _Outbox(self), now, version="sim")
        book, cases = self.disk
        self.casebook = Casebook(self.process, self._config, self.brain, cases, self._keep_cases, self, self._mail)
        self._witness.remembers(self, [view.id for view in self.casebook.incidents.every(now)])
        if book:
            trouble = self.brain.restore(book, now)
            assert not trouble, trouble
        self._topic, will = self.brain.presence(online=False)
        self._client = Client(
            self._broker,
            self.process,
            self,
            f"{self.name}-{session}",
            lambda topic: topic.startswith(_PREFIXES),
            (self._topic, will),
            self._rng,
        )
        self._client.start()
        self._trace(self.name, f"starts, session {session}")
        self.process.after(self._rng.uniform(0.0, TICK_S), self._tick)

    def crash(self, silent: bool = False) -> None:
        self.word_fuse.left = None
        if not self.process.running:
            return
        self._trace(self.name, "crashes")
        self.process.end()
        self.brain = self.casebook = None
        if self._client is not None:
            self._broker.crashed(self._client, silent)
            self._client = None

    @property
    def leads(self) -> bool:
        return self.brain is not None and self.process.awake and self.brain.leadership.leads

    @property
    def speaks(self) -> bool:
        """Whether it leads and what it says is heard, as far as it knows."""
        return self.leads and self._client is not None and self._client.connected and not self._settling

    @property
    def hears(self) -> bool:
        """Whether it runs, has a session, and knows what the broker retained."""
        return self.process.awake and self._client is not None and self._client.connected and not self._settling

    @property
    def clocks(self) -> tuple[float, float]:
        """Monotonic and wall."""
        return self.process.now, self._engine.now + self._wall_ahead

    def paused(self, node: str) -> bool:
        """Whether a pause that a person set here covers the node, for the next tenth of a second at least."""
        return any(what in ("fleet", node) and self._engine.now < until - 0.1 for what, until in self._pauses)

    def lost_pauses(self) -> None:
        """It told that they hold no more."""
        self._pauses.clear()

    @property
    def at_work(self) -> bool:
        """Whether a person's pause stands here, of anything, for the next tenth of a second at least."""
        return any(self._engine.now < until - 0.1 for _, until in self._pauses)

    def in_window(self, node: str) -> bool:
        """Whether maintenance covers the node by the clock of this machine as it was read last."""
        return settings.window(node, self._engine.now + self._wall_read)

    def set_clock(self, moment: str | float) -> None:
        """To a moment, or by so many seconds."""
        if isinstance(moment, str):
            self._wall_ahead = settings.MOMENTS[moment] - self._engine.now
        else:
            self._wall_ahead += moment

    def freeze(self) -> None:
        if self.process.awake and self._client is not None:
            self.process.freeze()
            self._broker.frozen(self._client)

    # --- Port ------------------------------------------------------------------------------------------------------

    def session_began(self) -> None:
        assert self._client is not None
        assert self.brain is not None
        self._settling = True
        self.brain.on_session(True, "broker", self.process.now)
        self._client.subscribe()

    def session_lost(self, reason: str) -> None:
        assert self.brain is not None
        self._settling = True
        self.brain.on_session(False, reason, self.process.now)

    def subscribed(self) -> None:
        # The echo of our own presence comes after everything that the broker retained.
        assert self.brain is not None
        self.brain.announce()

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        assert self.brain is not None
        self.brain.on_message(topic, payload, self.process.now)
        if topic == self._topic and not retained and self._settling:
            self._settling = False
            self.process.after(self._rng.uniform(0.0, 0.1), self._settled)

    def acknowledged(self, number: int, heard: bool) -> None: ...

    # --- the rest --------------------------------------------------------------------------------------------------

    def _settled(self) -> None:
        if self.brain is not None and not self._settling:
            self.brain.settled(self.process.now)

    def _tick(self) -> None:
        assert self.brain is not None
        self._wall_read, now = self._wall_ahead, self.process.now
        wall = self._engine.now + self._wall_ahead
        self.brain.tick(now, wall)
        assert self.casebook is not None
        self.casebook.tick(now, wall)
        if self._schedule.due(wall):
            self._witness.drill_asked()
            Commands(self.brain).scheduled_drill(now)
        self.process.after(TICK_S, self._tick)

    def command(self, what: str, *args: str) -> None:
        """A person's command; what is refused is told, and no more."""
        if self.brain is None or not self.process.awake:
            return
        commands, now, force = Commands(self.brain), self.process.now, args[-1:] == ("force",)
        if what != "drill":
            self._witness.asked(_PLAN_S if what == "plan" else 0.0)
        try:
            if what == "switchover":
                commands.switchover(args[0], args[1], now, who="person", reason="asked", force=force)
            elif what == "failback":
                commands.failback(args[0], now, who="person", reason="asked")
            elif what == "plan":
                commands.plan(PlanAsk(path=args[0], scope="fleet", reason="asked", force=force), now, who="person")
            elif what == "approve":
                fleet, failover = self.brain.fleet, self.brain.failover
                waiting = [
                    pair for pair in fleet.pairs() if (found := failover.waiting(pair)) and found.kind == "recommend"
                ]
                for pair in waiting:
                    commands.approve("--".join(pair), now, who="person", reason="")
            elif what == "drill":
                scope, target = ("fleet", "") if args[0] == "fleet" else ("pair", args[0])
                self._witness.drill_asked()
                commands.drill(DrillAsk(scope=scope, target=target), now, who="person")  # type: ignore[arg-type]
            elif what == "pause":
                scope, target = ("fleet", "") if args[0] == "fleet" else ("node", args[0])
                commands.pause(scope, target, now, who="person", reason="work", for_s=settings.PAUSE_S)
                self._pauses.append((args[0], self._engine.now + settings.PAUSE_S))
            elif what == "resume":
                for pause in list(self.brain.pauses.standing):
                    commands.resume(pause.id, now, who="person")
                self._pauses.clear()
            self._trace(self.name, f"a person: {what} {' '.join(args)}")
        except (Refused, KeyError) as refused:
            self._trace(self.name, f"a person: {what} {' '.join(args)}: refused: {refused}")

    def say(self, topic: str, payload: bytes) -> None:
        self.word_fuse.step()
        self._witness.said(self, topic, payload)
        if self._client is not None:
            self._client.publish(topic, payload, True)

    def tell(self, text: str) -> None:
        self._trace(self.name, text)

    def save(self) -> None:
        self.word_fuse.step()
        if self.brain is not None:
            self.disk = (self.brain.saved(self.process.now), self.disk[1])

    def _keep_cases(self, saved: bytes) -> None:
        self.disk = (self.disk[0], saved)

    # --- casebook.Reader ---------------------------------------------------------------------------------------------

    def incident(self, view: IncidentView) -> None:
        self._witness.incident(self, view)

    def notice(self, notice: notices.Notice) -> None:
        self._trace(self.name, f"people are told: {notice.what}: {notice.title}")
        self._witness.notice(self, notice)


class _Outbox:
    def __init__(self, chief: Chief) -> None:
        self._chief = chief
        self._entries = 0

    def publish(self, topic: str, payload: bytes) -> None:
        self._chief.say(topic, payload)

    def event(self, source: str, kind: str, subject: str, text: str, severity: Severity = Severity.INFO) -> None:
        if source == "controller":
            self._chief.tell(f"{kind} {subject}: {text}")
        if kind == "pause" and "holds no more" in text:
            self._chief.lost_pauses()

    def notices(self, notices: Iterable[Notice]) -> None: ...

    def complain(self, who: str, text: str) -> None:
        self._chief.tell(f"complains of {who}: {text}")

    def decision(
        self, who: str, action: str, subject: str, reason: str, *, evidence: Sequence[str] = (), outcome: str = ""
    ) -> LedgerEntry:
        self._entries += 1
        if action == "drill" and who != "vagus":
            self._chief.drilled_by = who
        self._chief.tell(f"{action} {subject} ({who}): {reason}")
        entry = LedgerEntry(
            id=self._entries,
            at=0.0,
            who=who,
            action=action,
            subject=subject,
            reason=reason,
            evidence=tuple(evidence),
            outcome=outcome,
        )
        self._acted(entry)
        return entry

    def outcome(self, entry: LedgerEntry, outcome: str) -> None:
        self._chief.tell(f"{entry.action} {entry.subject}: {outcome}")
        self._acted(structs.replace(entry, outcome=outcome))

    def _acted(self, entry: LedgerEntry) -> None:
        if self._chief.casebook is not None:
            self._chief.casebook.incidents.acted(entry, self._chief.process.now)

    def verdicts(self, verdicts: Iterable[Verdict]) -> None:
        if self._chief.casebook is not None:
            self._chief.casebook.incidents.verdicts(verdicts)

    def save(self) -> None:
        self._chief.save()

    def changed(self) -> None: ...
