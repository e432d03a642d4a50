"""The controller's TOML file → `Config`, and the fleet key; every mistake in words."""

from __future__ import annotations

from pathlib import Path

from vagus_controller.config import Broker, Config, Failover, Http, Liveness, Load, Mqtt, Store
from vagus_protocol.codec import Rejected
from vagus_protocol.signing import parse_key
from vagus_runtime import checks, settings
from vagus_runtime.checks import check_name
from vagus_runtime.settings import ConfigError, Mistakes, Say, element, show, within

__all__ = ["ConfigError", "load", "load_fleet_key"]

# Table and column types, and the way to bound a table by rows, are proven on these.
_STORES = ("sqlite", "postgresql")


def load(path: Path, *, files: bool = False) -> Config:
    """The configuration in `path`; with `files`, the files that it names are opened too. Raises ConfigError."""
    mistakes = Mistakes(path)
    config = settings.build(Config, settings.read_toml(path), mistakes, _CHECKS)
    if config is not None and files:
        for key in checks.MQTT_FILES:
            checks.check_readable(getattr(config.mqtt, key), key, mistakes.within("mqtt"))
        checks.check_readable(config.fleet_key_file, "fleet_key_file", mistakes.within(""))
    mistakes.raise_if_any()
    assert config is not None
    return config


def load_fleet_key(config: Config) -> bytes:
    """The key in `config.fleet_key_file`, 32 bytes. Raises ConfigError; its text never shows the key."""
    return read_fleet_key(Path(config.fleet_key_file))


def read_fleet_key(file: Path) -> bytes:
    data = settings.read_secret(file)
    key = parse_key(data.decode("ascii", errors="replace"))
    if isinstance(key, Rejected):
        raise ConfigError([f"{file}: {key.reason}; `vagus-controller new-key FILE` makes one"])
    return key


def _check_config(config: Config, say: Say) -> None:
    for key in ("fleet", "name"):
        check_name(getattr(config, key), key, say)
    for index, node in enumerate(config.nodes):
        check_name(node, element("nodes", index), say)
    for node in checks.twice(config.nodes):
        say("nodes", f"{show(node)} is named twice")
    if not config.fleet_key_file:
        say("fleet_key_file", "must not be empty")
    checks.check_absolute(config.fleet_key_file, "fleet_key_file", say)


def _check_http(http: Http, say: Say) -> None:
    checks.check_host(http.host, "host", say)
    within({"port": checks.PORT})(http, say)
    if not http.token_file:
        say("token_file", "must not be empty: the API has no door without a token")
    checks.check_absolute(http.token_file, "token_file", say)


def _check_store(store: Store, say: Say) -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(store.url)
    except (ArgumentError, ValueError):
        say("url", "must be a URL such as sqlite:////var/lib/vagus-controller/vagus.db or postgresql://user@host/name")
    else:
        if url.get_backend_name() not in _STORES:
            say("url", f"{url.get_backend_name()} is not supported; allowed are {', '.join(_STORES)}")
        elif url.get_backend_name() == "sqlite" and not (url.database or "").startswith("/"):
            say("url", "must name an absolute path: sqlite:// and then four slashes in all, sqlite:////var/lib/…")
    within({"keep_days": (0.01, 36_500), "keep_rows": (1000, 1_000_000_000)})(store, say)


def _check_liveness(liveness: Liveness, say: Say) -> None:
    # Below one interval a punctual node would be late; a blind share of 0 would block every action.
    within({"late_intervals": (1.1, 1000), "silent_intervals": (1.1, 1000), "blind_share": (0.01, 1)})(liveness, say)
    if liveness.silent_intervals <= liveness.late_intervals:
        say("silent_intervals", f"must be above late_intervals, {liveness.late_intervals:g}")


def _check_load(load: Load, say: Say) -> None:
    within({"enter_per_core": (0.01, 1000), "exit_per_core": (0, 1000)})(load, say)
    within({"enter_for_s": (0, 3600), "exit_for_s": (0, 86_400)})(load, say)
    if load.exit_per_core >= load.enter_per_core:
        say("exit_per_core", f"must be below enter_per_core, {load.enter_per_core:g}, or the verdict flaps")


def _check_failover(failover: Failover, say: Say) -> None:
    within(
        {
            "failback_hold_s": (0, 86_400),
            "proven_within_s": (0.5, 300),
            "confirm_within_s": (0, 60),
            "max_moves": (0, 1_000_000),
            "moves_window_s": (1, 86_400),
            "quorum_lost_for_s": (0, 3600),
        }
    )(failover, say)


_CHECKS: dict[type, settings.Check] = {
    Config: _check_config,
    Broker: checks.check_broker,
    Mqtt: checks.check_mqtt,
    Http: _check_http,
    Store: _check_store,
    Liveness: _check_liveness,
    Load: _check_load,
    Failover: _check_failover,
}
