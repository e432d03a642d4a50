"""One agent's conduct in virtual time: links that are what a test says, a kernel that obeys or not, packets that come
back or not."""

from __future__ import annotations

from dataclasses import dataclass, field

from vagus_agent.config import Check, Config, Mqtt, Path, Peer, Probe
from vagus_agent.core.conduct import Conduct, Note, State
from vagus_agent.core.link import Link
from vagus_agent.core.prober import Proof
from vagus_protocol.messages import (
    Assignment,
    ControllerPresence,
    Desired,
    EventKind,
    LinkState,
    Observed,
    Verification,
)

A = Config(
    fleet="t",
    node="a",
    addresses=(),
    paths=(Path(name="overlay", interface="o"), Path(name="backup", interface="w"), Path(name="lte", interface="l")),
    mqtt=Mqtt(brokers=()),
    keys_file="",
    peers=(Peer(name="b", addresses=()), Peer(name="c", addresses=())),
    checks=(Check(name="db", tcp="10.0.0.3:5432", peer="c"),),
)
# Between reports, which tick too.
REPORT_S = 2.0


@dataclass(frozen=True)
class Word:
    path: str
    trial: bool = False


@dataclass
class World:
    """`kernel_s`: how long the kernel takes; `proof_s`: how long a packet takes to come back, or to be missed."""

    config: Config = A
    kernel_s: float = 0.0
    proof_s: float = 0.1
    now: float = 1000.0
    # peer → why the kernel does not give its override: it goes by its first path then
    kernel_refuses: dict[str, str] = field(default_factory=dict)
    # (peer, path) over which no packet comes back, and the checks that fail
    silent: set[tuple[str, str]] = field(default_factory=set)
    failing_checks: tuple[str, ...] = ()
    notes: list[Note] = field(default_factory=list)
    disk: State = field(default_factory=State)
    published: list[Observed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kernel: dict[str, str] = {}
        self.verified: list[tuple[str, str]] = []
        self._start(standing=None)

    def _start(self, standing: dict[str, str] | None) -> None:
        self._plans: list[tuple[float, int, str, str]] = []
        self._count = 0
        self.links = {
            peer.name: [Link(peer.name, path.name, 0.2, Probe(), self.now, []) for path in self.config.paths]
            for peer in self.config.peers
        }
        for links in self.links.values():
            for link in links:
                link.state, link.last_reply, link.peer_state = LinkState.UP, self.now, LinkState.UP
        self.conduct = Conduct(self.config, self.links, "s", self.now)
        self.conduct.restore(self.disk, standing, self.now)
        self.moves_since_restart = [
            (peer, path)
            for peer, path in self.conduct.overrides.items()
            if standing is not None and path != standing.get(peer, "overlay")
        ]
        self.kernel = dict(self.conduct.overrides)
        self._look()
        self.led(True)
        self._next_report = self.now + REPORT_S

    def restart(self, kernel_is_empty: bool = False) -> None:
        """The process dies and comes back, to links that are as they were."""
        states = {(link.peer, link.path): link for links in self.links.values() for link in links}
        standing = {peer: path for peer, path in self.kernel.items() if path != "overlay"}
        self._start(None if kernel_is_empty else standing)
        for links in self.links.values():
            for link in links:
                old = states[link.peer, link.path]
                link.state, link.last_reply, link.peer_state = old.state, old.last_reply, old.peer_state
                link.reason = old.reason

    # --- what happens ------------------------------------------------------------------------------------------------

    def say(self, term: tuple[int, int], *, within_s: float = 10.0, **words: str | Word) -> None:
        """A desired from the controller; a bare path is confirmed."""
        assignments = {}
        for peer, saying in words.items():
            word = Word(saying) if isinstance(saying, str) else saying
            assignments[peer] = Assignment(path=word.path, trial=word.trial, reason="because")
        self.conduct.on_desired(
            Desired(
                v=1,
                fleet="t",
                node="a",
                controller="x",
                epoch=term[0],
                generation=term[1],
                assignments=assignments,
                confirm_within_s=within_s,
            ),
            self.now,
        )
        self.follow()

    def led(self, yes: bool, how: str = "offline") -> None:
        self.conduct.on_session(True, self.now)
        there = ControllerPresence(v=1, controller="x", session="1", online=yes or how == "standby", leader=yes)
        self.conduct.on_controller("x", None if how == "nobody" and not yes else there, self.now)
        self.follow()

    def link(self, peer: str, path: str) -> Link:
        return next(link for link in self.links[peer] if link.path == path)

    def set_link(self, peer: str, path: str, state: LinkState) -> None:
        link = self.link(peer, path)
        link.state, link.peer_state, link.reason = state, state, f"said to be {state}"
        self._reply()
        self.conduct.on_links(self.now)
        self.follow()

    def break_link(self, peer: str, path: str) -> None:
        self.run(0.3)
        self.set_link(peer, path, LinkState.DOWN)

    def mend_link(self, peer: str, path: str) -> None:
        self.set_link(peer, path, LinkState.UP)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = [self._next_report, self.conduct.deadline, *(plan[0] for plan in self._plans)]
            if min(due) > end:
                break
            self.now = max(self.now, min(due))
            self._reply()
            for plan in sorted(plan for plan in self._plans if plan[0] <= self.now):
                self._plans.remove(plan)
                self._happen(plan[2], plan[3])
            if self.now >= self._next_report:
                self._next_report = self.now + REPORT_S
                self.conduct.tick(self.now)
            if self.now >= self.conduct.deadline:
                self.conduct.tick(self.now)
                assert self.conduct.deadline > self.now, "what was due is still due: a driver would never rest"
            self.follow()
        self.now = end
        self._reply()

    # --- what is done ------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        for peer, path in self.conduct.overrides.items():
            if self.kernel[peer] != path:
                self._plan(self.kernel_s, "kernel", peer)
        for peer, path in self.conduct.take_verify():
            self.verified.append((peer, path))
            self._plans = [plan for plan in self._plans if (plan[2], plan[3].split("/")[0]) != ("proof", peer)]
            self._plan(self.proof_s, "proof", f"{peer}/{path}")
        self.notes += self.conduct.take_notes()
        if (observed := self.conduct.take_observed()) is not None:
            self.published.append(observed)
        if (state := self.conduct.take_state()) is not None:
            self.disk = state

    def _plan(self, delay_s: float, what: str, about: str) -> None:
        if delay_s == 0:
            self._happen(what, about)
            self.follow()
            return
        self._count += 1
        self._plans.append((self.now + delay_s, self._count, what, about))

    def _happen(self, what: str, about: str) -> None:
        if what == "kernel":
            self.kernel[about] = self.conduct.overrides[about]
            self._look()
            return
        peer, path = about.split("/")
        comes_back = (peer, path) not in self.silent
        self.conduct.on_proof(Proof(peer, path, comes_back, "came back" if comes_back else "none of 5 came back"))
        if peer in {check.peer for check in self.config.checks}:
            self.conduct.on_checks(peer, path, self.failing_checks)

    def _look(self) -> None:
        refused = {peer: why for peer, why in self.kernel_refuses.items() if why and self.kernel[peer] != "overlay"}
        paths = {peer: "overlay" if peer in refused else path for peer, path in self.kernel.items()}
        self.conduct.on_kernel(self.kernel, paths, "; ".join(refused.values()))

    def _reply(self) -> None:
        """Every link that is not down has just answered."""
        for links in self.links.values():
            for link in links:
                if link.state is not LinkState.DOWN:
                    link.last_reply = self.now

    # --- what can be seen --------------------------------------------------------------------------------------------

    @property
    def paths(self) -> dict[str, str]:
        """peer → where the kernel was told to send it."""
        return dict(self.kernel)

    @property
    def observed(self) -> Observed:
        """What was published last."""
        return self.published[-1]

    def verification(self, peer: str) -> Verification:
        return self.observed.verifications[peer]

    def said(self, kind: EventKind) -> list[str]:
        return [note.text for note in self.notes if note.kind is kind]
