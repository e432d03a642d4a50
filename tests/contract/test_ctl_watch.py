"""`vagusctl watch` on a terminal: the real command under a real pty, against the real API."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator

import pytest

from browser import samples
from contract.fleet_samples import Running
from contract.test_ctl import PAIR, VAGUSCTL, environment

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
_HOME = "\x1b[H"
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command on a terminal of its own; `screen` is what stands on it now, when it draws from the top each time."""

    def __init__(self, running: Running, *arguments: str, **more: str) -> None:
        self._running = running
        self._output = b""
        self._master, slave = pty.openpty()
        self.resize(80, 24)
        kept = {key: value for key, value in environment(running.url).items() if key not in ("LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [VAGUSCTL, *arguments],
            env=kept | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | more,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return  # Nobody has the other side any more.
            self._output += data

    @property
    def raw(self) -> str:
        return self._output.decode(errors="replace").replace("\r\n", "\n")

    @property
    def screen(self) -> str:
        """Of the last drawing that another one followed: that one is whole."""
        drawings = self.raw.split(_HOME)
        return _CODES.sub("", drawings[-2] if len(drawings) > 1 else "")

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, words: str) -> None:
        self._running.until(lambda: words in self.screen, f"{words!r} on the screen")

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(20)
        self._reader.join(20)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)
        self._reader.join(20)
        os.close(self._master)


@pytest.fixture
def terminal(running: Running) -> Iterator[Callable[..., Terminal]]:
    started: list[Terminal] = []

    def start(*arguments: str, **more: str) -> Terminal:
        started.append(Terminal(running, *arguments, **more))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_the_screen_follows_the_fleet_the_terminal_and_a_restart(
    running: Running, terminal: Callable[..., Terminal]
) -> None:
    running.event("pi-1", "before anybody looked")
    watching = terminal("watch")
    watching.until(samples.calm().summary)
    assert ENTER in watching.raw
    assert "before anybody looked" in watching.screen
    assert "✓ live" in watching.screen

    running.publish("fleet", samples.bad_hour())
    watching.until("PAUSED  site lisbon")
    moved = next(pair for pair in samples.bad_hour().pairs if pair.assigned == "backup")
    [line] = [line for line in watching.screen.splitlines() if line.startswith(moved.name)]
    assert "✗ down" in line
    assert "▶ ✓ up" in line
    running.publish("event", running.event("pi-1", "the overlay is down"))
    watching.until("pi-1: the overlay is down")
    running.publish("ledger", running.decision(PAIR))
    watching.until(f"= vagus: failover {PAIR} (done)")

    assert max(map(len, watching.screen.splitlines())) == 80
    watching.resize(120, 40)
    running.until(lambda: max(map(len, watching.screen.splitlines())) == 120, "it is drawn 120 columns wide")
    assert len(watching.screen.splitlines()) <= 40

    running.stop()
    watching.until("not connected, trying again; this picture is")
    running.event("pi-1", "while nobody was there")
    running.operator.view = samples.calm()
    running.start()
    watching.until("while nobody was there")
    watching.until("✓ live")
    watching.until(samples.calm().summary)

    assert watching.end(signal.SIGINT) == 130
    assert watching.raw.rstrip().rpartition(ENTER)[2].count(LEAVE) == 1
    assert "Traceback" not in watching.raw


def test_a_terminal_is_left_as_it_was_when_the_command_is_ended(
    running: Running, terminal: Callable[..., Terminal]
) -> None:
    watching = terminal("watch")
    watching.until(samples.calm().summary)
    assert watching.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert LEAVE in watching.raw
    assert "\x1b[?25h" in watching.raw.rpartition("\x1b[?25l")[2]
    assert "Traceback" not in watching.raw


def test_an_unknown_token_is_told_in_a_sentence(running: Running, terminal: Callable[..., Terminal]) -> None:
    watching = terminal("watch", VAGUS_TOKEN="another-token-altogether")
    assert watching.process.wait(20) == 4
    running.until(lambda: "does not know this token" in watching.raw, "the sentence")
    assert ENTER not in watching.raw


def test_no_colour_where_none_is_wanted(running: Running, terminal: Callable[..., Terminal]) -> None:
    watching = terminal("watch", NO_COLOR="1")
    running.publish("fleet", samples.bad_hour())
    watching.until("PAUSED  site lisbon")
    assert not re.search(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|38)\b[0-9;]*m", watching.raw)


@pytest.mark.parametrize(("arguments", "environ"), [(("--lines",), {}), ((), {"TERM": "dumb"})])
def test_lines_on_a_terminal(
    running: Running, terminal: Callable[..., Terminal], arguments: tuple[str, ...], environ: dict[str, str]
) -> None:
    watching = terminal("watch", *arguments, **environ)
    running.until(lambda: samples.calm().summary[:40] in watching.raw, "the summary in a line")
    running.publish("event", running.event("pi-1", "the overlay is down"))
    running.until(lambda: "pi-1 link: the overlay is down" in watching.raw, "the event in a line")
    assert ENTER not in watching.raw
