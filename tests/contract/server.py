"""A server's process: it is there when it answers, and may freeze, and end, at any moment."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class ServerProcess:
    """`log`: the file for its own words."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running.pid

    def freeze(self) -> None:
        """It takes connections, and does not answer them."""
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running.send_signal(signal.SIGCONT)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _launch(
        self, argv: Sequence[str | Path], answers: Callable[[], bool], patience_s: float, **options: Any
    ) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, **options)
        deadline = time.monotonic() + patience_s
        while not answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{Path(argv[0]).name} did not start:\n{self._log.read_text()}")
            time.sleep(0.02)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            # Of a frozen one it has the next word.
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(30)
            self._process = None
