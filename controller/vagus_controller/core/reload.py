"""What of a configuration that was read again can count at once, and what must wait for a restart."""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import fields, replace

from vagus_controller.config import Config

# Thresholds, guards, times and channels. Everything else is what sessions, sockets and databases were opened by. Of
# `failover`, what is learned of each path is judged by `quality` in many places, over minutes: it begins anew.
_LIVE: Final = frozenset({"liveness", "load", "failover", "drill", "notify", "log_level"})


class Reload(NamedTuple):
    """`config`: what to run with from now on; `changed`: the settings that count now, by name; `waiting`: those that
    were changed and need a restart."""

    config: Config
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


def plan(running: Config, read: Config) -> Reload:
    """`running`: what the controller runs with; `read`: the file as it is now, and sound."""
    quality = running.failover.quality
    live = {key: getattr(read, key) for key in _LIVE} | {"failover": replace(read.failover, quality=quality)}
    now = replace(running, **live)
    return Reload(now, tuple(_names(running, now, "")), tuple(_names(now, read, "")))


def _names(running: object, read: object, key: str) -> list[str]:
    """The settings that differ, down to single ones where both sides are the same table."""
    if running == read:
        return []
    if not isinstance(running, Struct) or type(running) is not type(read):
        return [key]
    names = (field.name for field in fields(running))
    prefix = f"{key}." if key else ""
    return [each for name in names for each in _names(getattr(running, name), getattr(read, name), prefix + name)]
