"""Keeps on disk what survives a restart."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from vagus_agent.core.conduct import State

__all__ = ["State", "StateFile"]


class StateFile:
    def __init__(self, directory: str) -> None:
        self._path = Path(directory) / "state.json"

    def load(self) -> tuple[State, str]:
        """The state and "", or an empty one and why the file could not be used (it is put aside, not overwritten)."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=State), ""
        except FileNotFoundError:
            return State(), ""
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            aside = self._path.with_suffix(".damaged")
            try:
                self._path.replace(aside)
            except OSError as failed:
                return State(), f"{self._path} is damaged ({error}) and could not be put aside: {failed.strerror}"
            return State(), f"{self._path} was damaged ({error}); it is kept as {aside.name}, a fresh one is begun"
        except OSError as error:
            return State(), f"{self._path} cannot be read: {error.strerror}"

    def save(self, state: State) -> str:
        """Write durably (file, then directory); "" or why it failed."""
        temporary = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(msgspec.json.encode(state))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            return (
                f"{self._path} cannot be written: {error.strerror}; after a restart an old decision could be accepted"
            )
        return ""
