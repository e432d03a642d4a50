"""The controller's TOML file → `Config`, and the fleet key; every mistake in words."""

from __future__ import annotations

import importlib.util
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from vagus_controller.config import (
    Broker,
    Channel,
    Config,
    Damping,
    Drill,
    Failover,
    History,
    HomeAssistant,
    Http,
    Liveness,
    Load,
    Mqtt,
    Notify,
    Oidc,
    PublicStatus,
    Quality,
    StatusGroup,
    Store,
    Window,
)
from vagus_controller.core.damping import ceiling as damping_ceiling
from vagus_controller.core.windows import parse as parse_window
from vagus_controller.notify import service_of, url_of
from vagus_controller.schedule import Schedule
from vagus_protocol.codec import Rejected
from vagus_protocol.signing import parse_key
from vagus_runtime import checks, settings
from vagus_runtime.checks import check_name
from vagus_runtime.settings import ConfigError, Mistakes, Say, element, show, within

__all__ = ["ConfigError", "load", "load_fleet_key"]

# Table and column types, and the way to bound a table by rows, are proven on these.
_STORES = ("sqlite", "postgresql")
_POSTGRESQL = ("postgresql", "postgresql+psycopg")
# Without TLS: what tests run beside themselves.
_LOCAL_ISSUERS = (("http", "127.0.0.1"), ("http", "localhost"))
_LONGEST_PREFIX = 200
# etcd itself refuses to start with an election timeout of fewer.
_LEAST_HEARTBEATS = 5


def load(path: Path, *, files: bool = False) -> Config:
    """The configuration in `path`; with `files`, the files that it names are opened too. Raises ConfigError."""
    mistakes = Mistakes(path)
    config = settings.build(Config, settings.read_toml(path), mistakes, _CHECKS)
    if config is not None and files:
        for key in checks.MQTT_FILES:
            checks.check_readable(getattr(config.mqtt, key), key, mistakes.within("mqtt"))
        checks.check_readable(config.fleet_key_file, "fleet_key_file", mistakes.within(""))
        checks.check_readable(config.http.password_file, "password_file", mistakes.within("http"))
        if config.http.oidc is not None:
            for key in ("client_secret_file", "ca_file"):
                checks.check_readable(getattr(config.http.oidc, key), key, mistakes.within("http.oidc"))
            if importlib.util.find_spec("authlib") is None:
                mistakes.add("http.oidc", "needs what the extra vagus[oidc] installs")
        for index, channel in enumerate(config.notify.channel):
            _check_channel_file(channel, mistakes.within(element("notify.channel", index, channel.name)))
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
    if config.name in config.nodes:
        say("name", f"{show(config.name)} is a node's name too, in nodes: verdicts and events must tell them apart")
    for node in checks.twice(config.nodes):
        say("nodes", f"{show(node)} is named twice")
    for index, group in enumerate(config.http.public_status.group if config.http.public_status else ()):
        for node in group.nodes:
            if config.nodes and node not in config.nodes:
                say(element("http.public_status.group", index, group.name) + ".nodes", f"{show(node)} is not in nodes")
    for index, window in enumerate(config.failover.windows):
        if window.scope == "node" and config.nodes and window.target not in config.nodes:
            say(element("failover.windows", index) + ".target", f"{show(window.target)} is not in nodes")
    if config.notify.channel and not config.http.url:
        say("http.url", "is missing: with notify.channel, each notice links to its incident on the page")
    if not config.fleet_key_file:
        say("fleet_key_file", "must not be empty")
    checks.check_absolute(config.fleet_key_file, "fleet_key_file", say)


def _check_http(http: Http, say: Say) -> None:
    checks.check_host(http.host, "host", say)
    within({"port": checks.PORT})(http, say)
    if not http.token_file:
        say("token_file", "must not be empty: the API has no door without a token")
    for key in ("token_file", "accounts_dir", "password_file"):
        checks.check_absolute(getattr(http, key), key, say)
    if http.url and not _is_origin(http.url):
        say("url", f"must be like https://vagus.example.org, without a path, not {show(http.url)}")
    for index, proxy in enumerate(http.proxies):
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            say(element("proxies", index), f"must be an address or a network, not {show(proxy)}")
    within({"session_idle_s": (300, 31_536_000), "session_s": (300, 31_536_000)})(http, say)
    if http.oidc is not None and not http.url:
        say("url", "is missing: with oidc, the provider must know where to send people back to")


def _check_public_status(status: PublicStatus, say: Say) -> None:
    if not status.title.strip():
        say("title", "must not be empty")
    for name in checks.twice(tuple(group.name for group in status.group)):
        say("group", f"{show(name)} is named twice")


def _check_status_group(group: StatusGroup, say: Say) -> None:
    if not group.name.strip():
        say("name", "must not be empty")
    if not group.nodes and not group.sites:
        say("nodes", "and sites are empty: name what the group consists of")


def _is_origin(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and url == f"{parts.scheme}://{parts.netloc}" and bool(parts.hostname)


def _check_oidc(oidc: Oidc, say: Say) -> None:
    parts = urlsplit(oidc.issuer)
    if not parts.hostname or (parts.scheme != "https" and (parts.scheme, parts.hostname) not in _LOCAL_ISSUERS):
        say("issuer", f"must be an https URL, the provider's own name for itself, not {show(oidc.issuer)}")
    for key in ("client_id", "claim"):
        if not getattr(oidc, key):
            say(key, "must not be empty")
    for key in ("client_secret_file", "ca_file"):
        checks.check_absolute(getattr(oidc, key), key, say)
    if "openid" not in oidc.scopes:
        say("scopes", 'must name "openid"')
    if not oidc.operators and not oidc.viewers:
        say("operators", "and viewers are empty: nobody could sign in; list values of the claim")
    if "*" in oidc.operators:
        say("operators", '"*" would let everybody at the provider move traffic; name them')


def _check_store(store: Store, say: Say) -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(store.url)
    except (ArgumentError, ValueError):
        say("url", "must be a URL such as sqlite:////var/lib/vagus-controller/vagus.db or postgresql://user@host/name")
    else:
        if url.get_backend_name() == "postgresql":
            if url.drivername not in _POSTGRESQL:
                say("url", f"{url.drivername} is not supported; write postgresql://")
            elif not _has_driver():
                say("url", 'PostgreSQL needs a driver that is not installed; pip install "vagus[postgresql]"')
        elif url.get_backend_name() not in _STORES:
            say("url", f"{url.get_backend_name()} is not supported; allowed are {', '.join(_STORES)}")
        elif url.get_backend_name() == "sqlite" and not (url.database or "").startswith("/"):
            say("url", "must name an absolute path: sqlite:// and then four slashes in all, sqlite:////var/lib/…")
    within({"keep_days": (0.01, 36_500), "keep_rows": (1000, 1_000_000_000)})(store, say)


def _has_driver() -> bool:
    try:
        importlib.import_module("psycopg")
    except ImportError:
        # Also where it finds no libpq.
        return False
    return True


def _check_history(history: History, say: Say) -> None:
    # An hour is made of minutes, and a minute of what came: less than this, and there would be nothing to make them of.
    within({"raw_hours": (0.5, 168), "minute_days": (0.25, 366), "hour_days": (1, 36_500), "max_mb": (10, 1e6)})(
        history, say
    )


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


def _check_damping(damping: Damping, say: Say) -> None:
    within({"suppress": (1, 1e6), "reuse": (1, 1e6), "half_life_s": (1, 86_400)})(damping, say)
    within({"longest_s": (1, 604_800), "longest_hold_s": (0, 604_800)})(damping, say)
    if damping.reuse >= damping.suppress:
        say("reuse", f"must be below suppress, {damping.suppress:g}, or what is damped is free at once")
    elif damping.half_life_s > 0 and damping.reuse > 0 and damping_ceiling(damping) <= damping.suppress:
        say(
            "longest_s",
            f"is too short for a half-life of {damping.half_life_s:g} s: the penalty could never exceed "
            f"{damping_ceiling(damping):.0f}, and suppress is {damping.suppress:g}",
        )


def _check_quality(quality: Quality, say: Say) -> None:
    # Sooner than 5 s a burst would count; a margin of 0 would move pairs back and forth between equals.
    within(
        {
            "for_s": (5, 3600),
            "margin": (0.05, 0.9),
            "loss_enter": (0.001, 1),
            "loss_exit": (0, 1),
            "rtt_enter": (1.1, 100),
            "rtt_exit": (1, 100),
            "jitter_enter_s": (0.001, 60),
            "jitter_exit_s": (0, 60),
            "most_share": (0, 1),
            "etcd_heartbeat_s": (0.005, 60),
            "etcd_election_s": (0.05, 300),
        }
    )(quality, say)
    for leave, enter in (("loss_exit", "loss_enter"), ("rtt_exit", "rtt_enter"), ("jitter_exit_s", "jitter_enter_s")):
        if getattr(quality, leave) >= getattr(quality, enter):
            say(leave, f"must be below {enter}, {getattr(quality, enter):g}, or the trouble flaps")
    if quality.etcd_election_s < _LEAST_HEARTBEATS * quality.etcd_heartbeat_s:
        say("etcd_election_s", f"must be at least {_LEAST_HEARTBEATS} times etcd_heartbeat_s: etcd refuses less")


def _check_window(window: Window, say: Say) -> None:
    spans = parse_window(window.at)
    if isinstance(spans, str):
        say("at", f"{show(window.at)}: {spans}")
    if not window.reason.strip():
        say("reason", "must not be empty: it is what people read while nothing moves")
    if window.scope == "fleet" and window.target:
        say("target", f"{show(window.target)} with scope fleet: a window of the fleet has no target")
    elif window.scope != "fleet" and not window.target:
        say("target", f"is missing: the {window.scope} that the window covers")


def _check_notify(notify: Notify, say: Say) -> None:
    for name in checks.twice(channel.name for channel in notify.channel):
        say("channel", f"{show(name)} is named twice")


def _check_channel(channel: Channel, say: Say) -> None:
    check_name(channel.name, "name", say)
    if bool(channel.url) == bool(channel.url_file):
        say("url", "give either url or url_file, a file with the URL, mode 0600")
    elif channel.url:
        _check_channel_url(channel, "url", say)
    checks.check_absolute(channel.url_file, "url_file", say)
    if not channel.severities:
        say("severities", "must not be empty: nothing would ever be told there")
    for index, at in enumerate(channel.quiet):
        spans = parse_window(at)
        if isinstance(spans, str):
            say(element("quiet", index), f"{show(at)}: {spans}")
    if channel.repeat_s and not 60 <= channel.repeat_s <= 604_800:
        say("repeat_s", f"must be 0 (never), or between 60 and 604800, not {show(channel.repeat_s)}")


def _check_channel_file(channel: Channel, say: Say) -> None:
    if channel.url_file:
        try:
            settings.read_secret(Path(channel.url_file))
        except ConfigError as error:
            say("url_file", str(error))
        else:
            _check_channel_url(channel, "url_file", say)


def _check_channel_url(channel: Channel, key: str, say: Say) -> None:
    """Tells nothing of the URL but its scheme."""
    if importlib.util.find_spec("apprise") is None:
        say(key, "needs what the extra vagus[controller] installs: Apprise is missing")
        return
    try:
        service_of(url_of(channel))
    except ConfigError as error:
        say(key, str(error))


def _check_drill(drill: Drill, say: Say) -> None:
    if not drill.schedule:
        return
    try:
        Schedule(drill.schedule)
    except ValueError as error:
        example = 'minute hour day month weekday, such as "0 4 * * 0" for Sundays at 04:00 UTC'
        say("schedule", f"{show(drill.schedule)} is no cron expression ({error}): it is {example}")


def _check_home_assistant(home: HomeAssistant, say: Say) -> None:
    levels = home.prefix.split("/")
    if not all(levels) or any(mark in home.prefix for mark in "+#$\0") or len(home.prefix) > _LONGEST_PREFIX:
        say("prefix", f"{show(home.prefix)} is no MQTT topic: names with / between them, such as homeassistant")
    elif levels[0] == "vagus":
        say("prefix", f"{show(home.prefix)} is among vagus's own topics; Home Assistant's default is homeassistant")


_CHECKS: dict[type, settings.Check] = {
    Config: _check_config,
    Broker: checks.check_broker,
    Mqtt: checks.check_mqtt,
    Http: _check_http,
    PublicStatus: _check_public_status,
    StatusGroup: _check_status_group,
    Oidc: _check_oidc,
    Store: _check_store,
    History: _check_history,
    Liveness: _check_liveness,
    Load: _check_load,
    Failover: _check_failover,
    Damping: _check_damping,
    Quality: _check_quality,
    Window: _check_window,
    Drill: _check_drill,
    HomeAssistant: _check_home_assistant,
    Notify: _check_notify,
    Channel: _check_channel,
}
