"""What of a configuration that was read again can count at once, and what must wait for a restart."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import fields, replace

from vagus_agent.config import Config

S = TypeVar("S", bound=Struct)

# Everything else is what sockets, tables and sessions were opened by.
_LIVE: Final = frozenset(
    {"site", "peers", "reflex", "orphaned_after_s", "automatic", "on_stop", "report", "checks", "log_level"}
)
_LIVE_OF_PROBE: Final = frozenset(
    {
        *("timeout_floor_s", "timeout_cap_s", "burst", "burst_interval_s", "confirm_floor_s", "up_after"),
        *("degraded_enter_loss", "degraded_exit_loss"),
    }
)
_LIVE_OF_STEERING: Final = frozenset({"recheck_s"})
_LIVE_OF_PATH: Final = frozenset({"idle_interval_s", "metered"})


class Reload(NamedTuple):
    """`config`: what to run with from now on; `changed`: the settings that count now, by name; `waiting`: those that
    were changed and need a restart."""

    config: Config
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


def plan(running: Config, read: Config) -> Reload:
    """`running`: what the agent runs with; `read`: the file as it is now, and sound."""
    changed = _changed(running, read)
    live = [key for key in changed if key in _LIVE]
    waiting = [key for key in changed if key not in _LIVE]
    now: dict[str, object] = {key: getattr(read, key) for key in live}
    for table, settings in (("probe", _LIVE_OF_PROBE), ("steering", _LIVE_OF_STEERING)):
        if table in waiting:
            waiting.remove(table)
            now[table], at_once, later = _part(getattr(running, table), getattr(read, table), settings, f"{table}.")
            live += at_once
            waiting += later
    if "paths" in waiting and [path.name for path in running.paths] == [path.name for path in read.paths]:
        waiting.remove("paths")
        parts = [
            _part(old, new, _LIVE_OF_PATH, f"path {old.name}: ")
            for old, new in zip(running.paths, read.paths, strict=True)
        ]
        now["paths"] = tuple(path for path, _, _ in parts)
        live += [key for _, at_once, _ in parts for key in at_once]
        waiting += [key for _, _, later in parts for key in later]
    elif "paths" in waiting and "peers" in now:
        # They are offered paths that are not there yet.
        now["peers"] = running.peers
        live.remove("peers")
        waiting.append("peers")
    return Reload(replace(running, **now), tuple(live), tuple(waiting))


def _part(running: S, read: S, settings: frozenset[str], prefix: str) -> tuple[S, list[str], list[str]]:
    """`running` with those of `settings` that `read` changes; their names, and those of what else it changes."""
    changed = _changed(running, read)
    live = [key for key in changed if key in settings]
    part = replace(running, **{key: getattr(read, key) for key in live})
    return part, [prefix + key for key in live], [prefix + key for key in changed if key not in settings]


def _changed(running: Struct, read: Struct) -> list[str]:
    names = [field.name for field in fields(running)]
    return [name for name in names if getattr(running, name) != getattr(read, name)]
