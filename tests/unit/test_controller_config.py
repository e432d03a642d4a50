"""The controller's settings and keys: every mistake is told; key files are made and read with care."""

from __future__ import annotations

import contextlib
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strategies import json_values
from toml_text import change, numbers, to_toml
from vagus_agent.config_file import load as load_agent
from vagus_agent.config_file import load_keys
from vagus_controller.__main__ import main
from vagus_controller.config import Config, Failover, Http, Liveness, Load, Store, Window
from vagus_controller.config_file import ConfigError, load, load_fleet_key
from vagus_protocol.signing import node_key, probe_key

EXAMPLE = Path(__file__).parents[2] / "controller/controller.example.toml"
FULL = EXAMPLE.read_text()
KEY = bytes(range(32))


def written(directory: Path, raw: dict[str, Any] | str) -> Path:
    file = directory / "controller.toml"
    file.write_text(raw if isinstance(raw, str) else to_toml(raw))
    return file


def test_the_example_loads_and_shows_the_defaults() -> None:
    config = load(EXAMPLE)
    assert (config.http, config.store, config.liveness, config.load, config.failover) == (
        Http(),
        Store(),
        Liveness(),
        Load(),
        Failover(),
    )


WINDOW = {"at": "sun 02:00-04:00", "reason": "works"}
CHANNEL = {"name": "ops", "url": "json://127.0.0.1/hook"}
STATUS = {"title": "Harbour"}
OIDC = {"issuer": "https://id.example.org", "client_id": "vagus", "operators": ["ines@example.org"]}
MISTAKES: list[tuple[str, Any, str]] = [
    ("fleet", None, 'fleet: is missing: text "…"'),
    ("fleet", "a/b", 'fleet: "a/b" is not a name'),
    ("name", "+", 'name: "+" is not a name'),
    ("name", "tokyo", 'name: "tokyo" is a node\'s name too, in nodes'),
    ("nodes", ["a", "a"], 'nodes: "a" is named twice'),
    ("nodes", ["a", "B"], 'nodes[2]: "B" is not a name'),
    ("nodes", "tokyo", 'nodes: must be a list [ … ], not "tokyo"'),
    ("fleet_key_file", "fleet.key", 'fleet_key_file: must be an absolute path, not "fleet.key"'),
    ("fleet_key_file", "", "fleet_key_file: must not be empty"),
    ("mqtt.brokers", [], "mqtt.brokers: must hold at least one table"),
    ("mqtt.brokers.0.port", 70000, "mqtt.brokers[1].port: must be between 1 and 65535, not 70000"),
    ("mqtt.brokers.0.peer", "a", "mqtt.brokers[1].peer: unknown key: "),
    ("http.port", 0, "http.port: must be between 1 and 65535"),
    ("http.host", "http://localhost", "http.host:"),
    ("http.host", "127.0.0.1:8118", 'http.host: "127.0.0.1:8118" must be an address or a host name, without'),
    ("mqtt.brokers.0.host", "[::1]", 'mqtt.brokers[1].host: "[::1]" must be an address'),
    ("http.token_file", "", "http.token_file: must not be empty"),
    ("http.accounts_dir", "accounts", 'http.accounts_dir: must be an absolute path, not "accounts"'),
    ("http.password_file", "password", 'http.password_file: must be an absolute path, not "password"'),
    ("http.url", "vagus.example.org", "http.url: must be like https://vagus.example.org, without a path, not"),
    ("http.url", "https://vagus.example.org/", "http.url: must be like https://vagus.example.org, without a path"),
    ("http.url", "https://vagus.example.org:x", "http.url: must be like https://vagus.example.org"),
    ("http.proxies", ["10.0.0.1", "proxy"], 'http.proxies[2]: must be an address or a network, not "proxy"'),
    ("http.session_idle_s", 1, "http.session_idle_s: must be between 300 and 3.1536e+07, not 1"),
    ("http.session_s", float("inf"), "http.session_s: must be between 300 and 3.1536e+07, not inf"),
    ("http.oidc", OIDC | {"issuer": "http://id.example.org"}, "http.oidc.issuer: must be an https URL"),
    ("http.oidc", OIDC | {"issuer": "id.example.org"}, "http.oidc.issuer: must be an https URL"),
    ("http.oidc", OIDC | {"client_id": ""}, "http.oidc.client_id: must not be empty"),
    ("http.oidc", OIDC | {"client_secret_file": "x"}, "http.oidc.client_secret_file: must be an absolute path"),
    ("http.oidc", OIDC | {"scopes": ["email"]}, 'http.oidc.scopes: must name "openid"'),
    ("http.oidc", OIDC | {"operators": []}, "http.oidc.operators: and viewers are empty: nobody could sign in"),
    ("http.oidc", OIDC | {"operators": ["*"]}, 'http.oidc.operators: "*" would let everybody at the provider move'),
    ("http.public_status", {"title": " "}, "http.public_status.title: must not be empty"),
    ("http.public_status", {"title": "x", "uptime_days": 31}, "http.public_status.uptime_days"),
    (
        "http.public_status",
        STATUS | {"group": [{"name": "Web", "nodes": ["tokio"]}]},
        'http.public_status.group[1] "Web".nodes: "tokio" is not in nodes',
    ),
    (
        "http.public_status",
        STATUS | {"group": [{"name": "a", "nodes": []}]},
        'http.public_status.group[1] "a".nodes: and sites are empty: name what the group',
    ),
    (
        "http.public_status",
        STATUS | {"group": [{"name": " ", "sites": ["x"]}]},
        'http.public_status.group[1] " ".name: must not be empty',
    ),
    (
        "http.public_status",
        STATUS | {"group": [{"name": "a", "sites": ["x"]}, {"name": "a", "sites": ["y"]}]},
        'http.public_status.group: "a" is named twice',
    ),
    ("http.oidc", OIDC, "http.url: is missing: with oidc, the provider must know"),
    ("notify.channel", [CHANNEL], "http.url: is missing: with notify.channel, each notice links to its incident"),
    ("store.url", "vagus.db", "store.url: must be a URL such as sqlite:////var"),
    ("store.url", "mysql://localhost/vagus", "store.url: mysql is not supported; allowed are sqlite, postgresql"),
    ("store.url", "sqlite:///vagus.db", "store.url: must name an absolute path"),
    ("store.url", "postgresql+asyncpg://h/b", "store.url: postgresql+asyncpg is not supported; write postgresql://"),
    ("store.url", "postgresql://a:port/b", "store.url: must be a URL"),
    ("store.keep_days", 0, "store.keep_days: must be between 0.01 and 36500, not 0"),
    ("store.keep_rows", 1, "store.keep_rows: must be between 1000 and 1e+09, not 1"),
    ("history.raw_hours", 0, "history.raw_hours: must be between 0.5 and 168, not 0"),
    ("history.minute_days", 0.1, "history.minute_days: must be between 0.25 and 366, not 0.1"),
    ("history.hour_days", 0.5, "history.hour_days: must be between 1 and 36500, not 0.5"),
    ("history.max_mb", 1, "history.max_mb: must be between 10 and 1e+06, not 1"),
    ("home_assistant.prefix", "", 'home_assistant.prefix: "" is no MQTT topic'),
    ("home_assistant.prefix", "home/#", 'home_assistant.prefix: "home/#" is no MQTT topic'),
    ("home_assistant.prefix", "/home", 'home_assistant.prefix: "/home" is no MQTT topic'),
    ("home_assistant.prefix", "vagus/1", 'home_assistant.prefix: "vagus/1" is among vagus\'s own topics'),
    ("liveness.blind_share", 1.5, "liveness.blind_share: must be between 0.01 and 1, not 1.5"),
    ("liveness.blind_share", float("nan"), "liveness.blind_share: must be between 0.01 and 1, not nan"),
    ("liveness.silent_intervals", 2, "liveness.silent_intervals: must be above late_intervals, 2.5"),
    ("load.exit_per_core", 1.5, "load.exit_per_core: must be below enter_per_core, 1.4"),
    ("failover.mode", "manual", 'failover.mode: must be one of "auto", "recommend", not "manual"'),
    ("failover.proven_within_s", 0, "failover.proven_within_s: must be between 0.5 and 300"),
    ("failover.failback_hold", 1, "failover.failback_hold: unknown key: did you mean failback_hold_s?"),
    ("failover.max_moves", -1, "failover.max_moves: must be between 0 and 1e+06, not -1"),
    ("failover.damping.half_life_s", -300, "failover.damping.half_life_s: must be between 1 and 86400, not -300"),
    ("failover.damping.half_life_s", 0, "failover.damping.half_life_s: must be between 1 and 86400, not 0"),
    ("failover.damping.reuse", 2000, "failover.damping.reuse: must be below suppress, 2000"),
    ("failover.damping.longest_s", 60, "failover.damping.longest_s: is too short for a half-life of 300 s"),
    ("failover.damping.longest_hold_s", -1, "failover.damping.longest_hold_s: must be between 0 and 604800"),
    ("failover.quality.mode", "on", 'failover.quality.mode: must be one of "off", "recommend", "auto", not "on"'),
    ("failover.quality.loss_enter", 5, "failover.quality.loss_enter: must be between 0.001 and 1, not 5"),
    ("failover.quality.loss_enter", -0.1, "failover.quality.loss_enter: must be between 0.001 and 1, not -0.1"),
    ("failover.quality.loss_exit", 0.05, "failover.quality.loss_exit: must be below loss_enter, 0.05"),
    ("failover.quality.rtt_exit", 3, "failover.quality.rtt_exit: must be below rtt_enter, 2"),
    ("failover.quality.margin", 0, "failover.quality.margin: must be between 0.05 and 0.9, not 0"),
    ("failover.quality.for_s", 1, "failover.quality.for_s: must be between 5 and 3600, not 1"),
    ("failover.quality.most_share", 25, "failover.quality.most_share: must be between 0 and 1, not 25"),
    ("failover.quality.etcd_heartbeat_s", 100, "failover.quality.etcd_heartbeat_s: must be between 0.005 and 60"),
    ("failover.quality.etcd_election_s", 0.3, "failover.quality.etcd_election_s: must be at least 5 times"),
    ("drill.schedule", "sundays", 'drill.schedule: "sundays" is no cron expression'),
    ("failover.windows", [{"at": "sun 02:00-04:00"}], 'failover.windows[1].reason: is missing: text "…"'),
    ("failover.windows", [WINDOW | {"at": "sunday"}], 'failover.windows[1].at: "sunday": must be days and hours'),
    ("failover.windows", [WINDOW | {"reason": " "}], "failover.windows[1].reason: must not be empty"),
    ("failover.windows", [WINDOW | {"target": "tokyo"}], 'failover.windows[1].target: "tokyo" with scope fleet'),
    ("failover.windows", [WINDOW | {"scope": "site"}], "failover.windows[1].target: is missing: the site"),
    (
        "failover.windows",
        [WINDOW | {"scope": "node", "target": "tokio"}],
        'failover.windows[1].target: "tokio" is not in nodes',
    ),
    ("log_level", "loud", 'log_level: must be one of "debug"'),
    ("notify.channel", [CHANNEL, CHANNEL], 'notify.channel: "ops" is named twice'),
    ("notify.channel", [{"name": "ops"}], 'notify.channel[1] "ops".url: give either url or url_file'),
    ("notify.channel", [CHANNEL | {"url_file": "/x"}], 'notify.channel[1] "ops".url: give either url or url_file'),
    (
        "notify.channel",
        [CHANNEL | {"url": "hunter2"}],
        'notify.channel[1] "ops".url: is no URL: it must be an Apprise URL',
    ),
    (
        "notify.channel",
        [CHANNEL | {"url": "tgrm://x/1"}],
        "notify.channel[1] \"ops\".url: 'tgrm' is no service that Apprise",
    ),
    ("notify.channel", [CHANNEL | {"url": "tgram://x"}], 'notify.channel[1] "ops".url: is no complete URL of tgram'),
    ("notify.channel", [CHANNEL | {"severities": []}], 'notify.channel[1] "ops".severities: must not be empty'),
    ("notify.channel", [CHANNEL | {"severities": ["bad"]}], 'notify.channel[1] "ops".severities[1]: must be'),
    (
        "notify.channel",
        [CHANNEL | {"quiet": ["* 22-6"]}],
        'notify.channel[1] "ops".quiet[1]: "* 22-6": must be days and',
    ),
    (
        "notify.channel",
        [CHANNEL | {"repeat_s": 5}],
        'notify.channel[1] "ops".repeat_s: must be 0 (never), or between 60',
    ),
    ("notify.channel", [CHANNEL | {"name": "my phone"}], 'notify.channel[1] "my phone".name: "my phone" is not a name'),
]


@pytest.mark.parametrize(("where", "value", "told"), MISTAKES, ids=lambda v: str(v)[:40])
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(tmp_path: Path, where: str, value: Any, told: str) -> None:
    raw = tomllib.loads(FULL)
    change(raw, where, value)
    file = written(tmp_path, raw)
    with pytest.raises(ConfigError) as error:
        load(file)
    assert any(line.startswith(f"{file}: {told}") for line in error.value.mistakes), error.value


ABSURD = (-1, -0.5, 1e300, float("nan"), float("inf"), float("-inf"))


@pytest.mark.parametrize("where", sorted(set(numbers(Config))))
def test_no_number_may_be_negative_or_absurd(tmp_path: Path, where: str) -> None:
    for value in ABSURD:
        raw = tomllib.loads(FULL)
        change(raw, where, value)
        with pytest.raises(ConfigError) as error:
            load(written(tmp_path, raw))
        assert any(f": {where}: " in line for line in error.value.mistakes), (value, error.value)


def test_windows_load(tmp_path: Path) -> None:
    raw = tomllib.loads(FULL)
    change(raw, "failover.windows", [WINDOW, WINDOW | {"scope": "site", "target": "tokyo"}])
    config = load(written(tmp_path, raw))
    assert config.failover.windows == (
        Window(at="sun 02:00-04:00", reason="works"),
        Window(at="sun 02:00-04:00", reason="works", scope="site", target="tokyo"),
    )


@pytest.mark.parametrize("url", ["sqlite:////tmp/x.db", "postgresql://u@h/db", "postgresql+psycopg://u:p@h:5432/db"])
def test_stores(tmp_path: Path, url: str) -> None:
    raw = tomllib.loads(FULL)
    change(raw, "store.url", url)
    assert load(written(tmp_path, raw)).store.url == url


def test_postgresql_without_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    raw = tomllib.loads(FULL)
    change(raw, "store.url", "postgresql://u@h/db")
    with pytest.raises(
        ConfigError, match=r'store.url: PostgreSQL needs a driver .*; pip install "vagus\[postgresql\]"'
    ):
        load(written(tmp_path, raw))


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    return "null" if value is None else value


@given(where=st.sampled_from(sorted({where for where, _, _ in MISTAKES})), value=json_values.map(_without_null))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_anywhere_gives_a_configuration_or_its_mistakes(tmp_path: Path, where: str, value: Any) -> None:
    raw = tomllib.loads(FULL)
    change(raw, where, value)
    with contextlib.suppress(ConfigError):
        assert isinstance(load(written(tmp_path, raw)), Config)


# --- the fleet key -------------------------------------------------------------------------------------------------


def fleet(directory: Path, key: str = KEY.hex(), mode: int = 0o600) -> Path:
    """A sound configuration whose fleet key is `key`."""
    file = directory / "fleet.key"
    file.write_text(key)
    file.chmod(mode)
    raw = tomllib.loads(FULL)
    change(raw, "fleet_key_file", str(file))
    return written(directory, raw)


def test_the_fleet_key_loads(tmp_path: Path) -> None:
    assert load_fleet_key(load(fleet(tmp_path, KEY.hex() + "\n"))) == KEY


@pytest.mark.parametrize(
    ("key", "mode", "told"),
    [
        (KEY.hex(), 0o604, "holds a key, and its mode is 0604: chmod 600 "),
        (KEY.hex()[:-2], 0o600, "a key is 64 hex digits; this has 62; `vagus-controller new-key FILE` makes one"),
        ("ä" * 64, 0o600, "a key is 64 hex digits; this has other characters"),
        ("", 0o600, "this has 0"),
    ],
)
def test_a_wrong_fleet_key_is_told(tmp_path: Path, key: str, mode: int, told: str) -> None:
    config = load(fleet(tmp_path, key, mode))
    with pytest.raises(ConfigError) as error:
        load_fleet_key(config)
    assert told in str(error.value)
    assert KEY.hex()[:16] not in str(error.value)


def test_new_key_makes_a_key_of_its_own_and_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "a.key", tmp_path / "b.key"
    assert main(["new-key", str(first)]) == 0
    assert main(["new-key", str(second)]) == 0
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert first.read_text() != second.read_text()
    before = first.read_text()
    assert main(["new-key", str(first)]) == 1
    assert first.read_text() == before
    told = capsys.readouterr()
    assert f"{first}: exists already" in told.err
    assert before.strip() not in told.out + told.err


def test_new_key_where_nothing_can_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-key", str(tmp_path / "none/a.key")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_an_agent_reads_the_keys_that_node_keys_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet(tmp_path)
    key_file = str(tmp_path / "fleet.key")
    assert main(["node-keys", "tokyo", "austin", "--key-file", key_file, "--out", str(tmp_path)]) == 0
    file = tmp_path / "tokyo.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    agent = (EXAMPLE.parents[1] / "agent/agent.example.toml").read_text().replace("/etc/vagus/keys.toml", str(file))
    (tmp_path / "agent.toml").write_text(agent)
    keys = load_keys(load_agent(tmp_path / "agent.toml"))
    assert keys == (node_key(KEY, "tokyo"), probe_key(KEY))
    assert KEY.hex() not in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("*.toml")) == [
        "agent.toml",
        "austin.toml",
        "controller.toml",
        "tokyo.toml",
    ]


def test_node_keys_prints_one_file_a_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node-keys", "tokyo", "--config", str(fleet(tmp_path))]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed == {"node": node_key(KEY, "tokyo").hex(), "probe": probe_key(KEY).hex()}


def test_node_keys_of_what_is_no_name_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node-keys", "../tokyo", "--config", str(fleet(tmp_path))]) == 2
    assert "'../tokyo' is not a node's name" in capsys.readouterr().err


def test_check_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--no-files", "--config", str(EXAMPLE)]) == 0
    assert "sound: controller brain of fleet home, 4 nodes, mode auto" in capsys.readouterr().out
    assert main(["check-config", "--config", str(fleet(tmp_path))]) == 2
    assert "mqtt.ca_file: /etc/vagus/ca.pem: does not exist" in capsys.readouterr().err


def test_check_config_opens_a_channels_file_and_tells_nothing_of_it(tmp_path: Path) -> None:
    secret = tmp_path / "hook"
    raw = tomllib.loads(FULL) | {"notify": {"channel": [{"name": "ops", "url_file": str(secret)}]}}
    change(raw, "http.url", "https://vagus.example.org")
    raw["fleet_key_file"] = str(tmp_path / "key")
    raw["mqtt"] = {"brokers": [{"host": "127.0.0.1"}]}
    Path(raw["fleet_key_file"]).write_text("0" * 64)
    for content, mode, words in (
        (None, 0o600, "does not exist"),
        ("tgram://hunter2-hunter2", 0o600, "tgram://{bot_token}"),
        ("json://127.0.0.1/hunter2-hunter2", 0o644, "chmod 600"),
    ):
        if content is not None:
            secret.write_text(content)
            secret.chmod(mode)
        file = written(tmp_path, raw)
        with pytest.raises(ConfigError) as error:
            load(file, files=True)
        told = "; ".join(error.value.mistakes)
        assert f'{file}: notify.channel[1] "ops".url_file: ' in told
        assert words in told
        assert "hunter2" not in told
    secret.chmod(0o600)
    assert load(written(tmp_path, raw), files=True).notify.channel[0].name == "ops"
