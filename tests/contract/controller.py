"""`vagus-controller run`, with a broker and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from contract.mosquitto import Mosquitto, free_port

TOKEN = "a-token-of-some-length"


class Controller:
    """`brain` of the fleet `lab`. `write` its settings first; they, and it, can be others at each start."""

    process: subprocess.Popen[bytes]

    def __init__(self, broker: Mosquitto, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self._base = (
            f'fleet = "lab"\nname = "brain"\nfleet_key_file = "{folder}/fleet.key"\n'
            f'http = {{ port = {self.port}, token_file = "{folder}/token", url = "https://vagus.example" }}\n'
            f'store.url = "sqlite:///{folder}/vagus.db"\n'
            f'mqtt.brokers = [{{ host = "127.0.0.1", port = {broker.port} }}]\n'
        )
        for name, words in (("fleet.key", "ab" * 32), ("token", TOKEN)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(words + "\n")

    def write(self, more: str) -> None:
        (self._folder / "controller.toml").write_text(self._base + more)

    def start(self, environ: Mapping[str, str] | None = None) -> None:
        argv = [sys.executable, "-m", "vagus_controller", "run", "--config", str(self._folder / "controller.toml")]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **(environ or {})})

    def stop(self, *, crash: bool = False) -> None:
        if crash:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.wait(30)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()
