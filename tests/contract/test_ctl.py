"""vagusctl as a person runs it: the real command, in a process of its own, against the real API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import msgspec
import pytest

from browser import incident_samples, samples
from contract.fleet_samples import TOKEN, Running
from vagus_controller.views import DrillAsk, FleetView, PlanAsk, Severity

VAGUSCTL = str(Path(sys.executable).with_name("vagusctl"))
PAIR = samples.calm().pairs[0].name


Command = Callable[..., subprocess.CompletedProcess[str]]


def environment(url: str, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VAGUS_") and key != "COLUMNS"}
    return kept | {"VAGUS_URL": url, "VAGUS_TOKEN": TOKEN} | more


@pytest.fixture
def ctl(running: Running) -> Command:
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [VAGUSCTL, *arguments],
            env=environment(running.url, **more),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in result.stdout + result.stderr
        return result

    return run


def failed(result: subprocess.CompletedProcess[str], code: int) -> str:
    """The one sentence of an error."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("vagusctl: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


# --- showing --------------------------------------------------------------------------------------------------------


def test_status_says_how_the_fleet_is(running: Running, ctl: Command) -> None:
    calm = ctl("status")
    assert calm.returncode == 0
    assert samples.calm().summary in calm.stdout
    assert "nothing needs attention" in calm.stdout
    running.operator.view = samples.bad_hour()
    bad = ctl("status").stdout
    assert samples.bad_hour().summary in bad
    for node in samples.bad_hour().nodes:
        if node.load.severity is Severity.CRITICAL:
            assert f"load {node.name}" in bad
    assert samples.bad_hour().pauses[0].reason in bad
    assert "stands by" not in bad
    running.operator.view = samples.standby()
    assert "this controller stands by, and decides nothing: brain-1 leads under epoch 3" in ctl("status").stdout


def test_nodes_links_and_quorum(running: Running, ctl: Command) -> None:
    view = running.operator.view = samples.bad_hour()
    nodes = ctl("nodes").stdout
    assert all(node.name in nodes and node.site in nodes for node in view.nodes)
    links = ctl("links").stdout
    assert all(pair.name in links for pair in view.pairs)
    assert "overlay" in links
    assert "backup" in links
    quorum = ctl("quorum").stdout
    assert view.quorum.verdict.state in quorum
    assert all(member.node in quorum for member in view.quorum.members)


def test_events_and_why(running: Running, ctl: Command) -> None:
    assert "nothing has happened yet" in ctl("events").stdout
    running.event(f"{PAIR}/overlay", "the overlay is down")
    running.event("pi-9", "another thing")
    running.decision(PAIR)
    assert "another thing" in ctl("events").stdout
    assert "another thing" not in ctl("events", PAIR).stdout
    assert "another thing" not in ctl("events", "-n", "1", PAIR).stdout
    assert "no two nodes" not in ctl("why", "fleet").stdout, "what is not about pairs says nothing of them"
    why = ctl("why", PAIR)
    assert why.returncode == 0
    for words in ("failover", "6 probes in a row without an answer", "the overlay is down", "backup"):
        assert words in why.stdout
    for words in ("overlay proven", "block", "a sees overlay down", "pass", "from both ends"):
        assert words in why.stdout


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("status",), "fleet"),
        (("nodes",), "nodes"),
        (("links",), "pairs"),
        (("quorum",), "quorum"),
    ],
)
def test_json_is_what_the_api_says(running: Running, ctl: Command, arguments: tuple[str, ...], path: str) -> None:
    running.operator.view = samples.hostile()
    whole = json.loads(msgspec.json.encode(running.operator.view))
    found = json.loads(ctl(*arguments, "--json").stdout)
    assert found == (whole if path == "fleet" else whole[path])


def test_json_of_history(running: Running, ctl: Command) -> None:
    entry = running.event("pi-1", "news")
    assert json.loads(ctl("events", "--json").stdout) == [json.loads(msgspec.json.encode(entry))]
    assert json.loads(ctl("why", PAIR, "--json").stdout)["subject"] == PAIR


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_tables_fit_the_terminal(running: Running, ctl: Command, columns: str) -> None:
    running.operator.view = samples.bad_hour()
    running.event("pi-1", "a long story, " * 20)
    for command in ("status", "nodes", "links", "quorum", "events"):
        lines = ctl(command, COLUMNS=columns).stdout.splitlines()
        assert lines
        assert max(map(len, lines)) <= int(columns), command


def test_hostile_text_is_text(running: Running, ctl: Command) -> None:
    hostile = "\x1b]0;owned\x07\x1b[31m[bold]red[/bold] \x9b31m\u202e"
    view = samples.bad_hour()
    running.operator.view = msgspec.structs.replace(
        view,
        summary=hostile,
        nodes=tuple(msgspec.structs.replace(each, site=hostile, drift=(hostile,)) for each in view.nodes),
        pairs=tuple(msgspec.structs.replace(each, reason=hostile) for each in view.pairs),
        quorum=msgspec.structs.replace(view.quorum, leader=hostile),
    )
    running.event("pi-1", hostile)
    events = ctl("events").stdout
    assert "[bold]red[/bold]" in events
    for command in ("status", "nodes", "links", "quorum", "events"):
        result = ctl(command)
        assert result.returncode == 0, result.stderr
        assert not set("\x1b\x07\x9b\u202e") & set(result.stdout)


def test_a_terminal_without_utf8(running: Running, ctl: Command) -> None:
    running.event("pi-1", "Zürich ⇄ Ōsaka")
    result = ctl("events", PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert "Z?rich" in result.stdout


def test_a_reader_that_has_seen_enough(running: Running) -> None:
    for _ in range(900):
        running.event("pi-1", "x" * 300)
    result = subprocess.run(
        f"{VAGUSCTL} events -n 900 | head -1",
        shell=True,
        env=environment(running.url),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stderr == ""


# --- asking ---------------------------------------------------------------------------------------------------------


def test_switchover_and_failback(running: Running, ctl: Command) -> None:
    done = ctl("switchover", PAIR, "--to", "backup", "--reason", "new router", "--force")
    assert done.returncode == 0
    assert f"switchover {PAIR}: new router (started)" in done.stdout
    assert json.loads(ctl("failback", PAIR, "--json").stdout)["action"] == "failback"
    (kind, pair, path, who, reason, force), failback = running.operator.asked
    assert (kind, pair, path, reason, force) == ("switchover", PAIR, "backup", "new router", True)
    assert who.endswith(f"@{socket.gethostname()}")
    assert failback[:2] == ("failback", PAIR)


def test_a_plan_is_shown_before_it_is_made(running: Running, ctl: Command) -> None:
    dry = ctl("switchover", "--fleet", "--to", "backup", "--dry-run")
    assert dry.returncode == 0
    canary, other = (pair.name for pair in running.operator.view.pairs[:2])
    for words in ("dry run: switchover of 2 pairs", canary, other, "on trial", "waits", "what stops it", "already"):
        assert words in dry.stdout
    assert dry.stdout.index(canary) < dry.stdout.index(other)
    assert ctl("switchover", "--node", "pi-osaka", "--home").returncode == 0
    assert ctl("switchover", PAIR, other, "--to", "backup", "--reason", "router", "--force").returncode == 0
    assert ctl("switchover", PAIR, "--to", "backup", "--dry-run").returncode == 0
    assert [asked[1] for asked in running.operator.asked] == [
        PlanAsk(path="backup", scope="fleet", dry_run=True),
        PlanAsk(scope="node", target="pi-osaka"),
        PlanAsk(path="backup", pairs=(PAIR, other), reason="router", force=True),
        PlanAsk(path="backup", pairs=(PAIR,), dry_run=True),
    ]
    shown = ctl("plans").stdout
    assert "0 of 2" in shown
    assert "switchover of 2 pairs to backup" in shown


def test_drills(running: Running, ctl: Command) -> None:
    begun = ctl("drill", PAIR, "--reason", "to know")
    assert begun.returncode == 0
    assert "vagusctl drills" in begun.stdout
    assert ctl("drill", "--site", "osaka").returncode == 0
    assert ctl("drill", "--fleet").returncode == 0
    assert ctl("drill").returncode == 2
    assert ctl("drill", PAIR, "--fleet").returncode == 2
    assert [asked[1] for asked in running.operator.asked] == [
        DrillAsk(scope="pair", target=PAIR, reason="to know"),
        DrillAsk(scope="site", target="osaka"),
        DrillAsk(scope="fleet"),
    ]
    shown = ctl("drills").stdout
    for words in (PAIR, "ok", "40 ms", "none"):
        assert words in shown
    assert "last drill 3 d ago: ok: backup: done at both ends" in ctl("why", PAIR).stdout


def test_approve(running: Running, ctl: Command) -> None:
    done = ctl("approve", PAIR, "--reason", "seen")
    assert f"failover {PAIR}: seen (on trial at both ends)" in done.stdout
    assert running.operator.asked[0][:2] == ("approve", PAIR)


def test_pause_and_resume(running: Running, ctl: Command) -> None:
    paused = ctl("pause", "--node", "pi-osaka", "--for", "1h30m", "--reason", "a new disk")
    assert paused.returncode == 0
    assert "node pi-osaka" in paused.stdout
    assert ctl("pause", "--fleet", "--for", "2h").returncode == 0
    assert [asked[:3] + asked[4:] for asked in running.operator.asked] == [
        ("pause", "node", "pi-osaka", "a new disk", 5400.0),
        ("pause", "fleet", "", "", 7200.0),
    ]
    first, second = [str(pause.id) for pause in running.operator.view.pauses]
    assert f"pause {first} is over" in ctl("resume", first).stdout
    assert f"no pause {first}; there are: {second}" in failed(ctl("resume", first), 1)
    assert json.loads(ctl("resume", "--all", "--json").stdout) == []
    assert ctl("pause", "--fleet", "--for", "2h").returncode == 0
    assert "is over" in ctl("resume", "--all").stdout
    assert "there is no pause" in ctl("resume", "--all").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("why", "pi-berlin--pi-osak"), 1, "did you mean pi-berlin--pi-osaka"),
        (("switchover", "pi-berlin--pi-osak", "--to", "backup"), 1, "did you mean pi-berlin--pi-osaka"),
        (("switchover", PAIR, "--to", "NO WAY"), 1, "path: "),
        (("switchover", "--to", "backup"), 2, "name pairs, or one of --fleet"),
        (("switchover", PAIR, "--fleet", "--to", "backup"), 2, "name pairs, or one of --fleet"),
        (("switchover", PAIR, "--to", "backup", "--home"), 2, "--to PATH, or --home"),
        (("switchover", "--site", "atlantis", "--to", "backup"), 1, "no site 'atlantis'"),
        (("failback", "nonsense"), 1, "no pair 'nonsense'"),
        (("pause", "--site", "atlantis", "--for", "1h"), 1, "no site 'atlantis'; there are: "),
        (("pause", "--fleet", "--node", "pi-osaka", "--for", "1h"), 2, "one of --fleet, --site SITE and --node NODE"),
        (("pause", "--for", "1h"), 2, "one of --fleet"),
        (("pause", "--fleet", "--for", "soon"), 2, "a duration is like 45s, 30m, 2h, 1d or 1h30m"),
        (("pause", "--fleet", "--for", "999d"), 1, "for_s"),
        (("resume",), 2, "a pause by its ID, or --all"),
        (("why", "../../metrics"), 1, "is it older than this vagusctl"),
        (("why", "pi-osak"), 1, "no node 'pi-osak'; did you mean pi-osaka"),
        (("why", f"{PAIR}/lte"), 1, "no path 'lte'; there are: "),
        (("why", ""), 2, "'SUBJECT': it is empty. See vagusctl why --help"),
        (("failback", ""), 2, "'PAIR': it is empty. See vagusctl failback --help"),
        (("approve", f"{PAIR}/overlay"), 2, "is no pair: that is two nodes, as a--b. See vagusctl approve --help"),
        (("note", "12", " "), 2, "'TEXT': it is empty"),
        (("resolve", "12", "--note", ""), 2, "'--note': it is empty"),
        (("incident", "99"), 1, "no incident 99"),
        (("incident", "--", "-1"), 2, "'ID'"),
        (("fly",), 2, "no such command 'fly'. See vagusctl --help"),
        (("statu",), 2, "Did you mean 'status'? See vagusctl --help"),
        (("status", "--jsn"), 2, "(Possible options: --json). See vagusctl status --help"),
        (("status", "more"), 2, "unexpected extra argument"),
        (("switchover", PAIR), 2, "say where to: --to PATH, or --home"),
        (("events", "-n", "0"), 2, "'--limit' / '-n'"),
        (("pause", "--fleet"), 2, "missing option '--for'. See vagusctl pause --help"),
        (("--token-file",), 2, "requires an argument. See vagusctl --help"),
    ],
)
def test_mistakes_are_told_in_a_sentence(ctl: Command, arguments: tuple[str, ...], code: int, words: str) -> None:
    assert words in failed(ctl(*arguments), code)


def test_no_command_shows_what_there_is(ctl: Command) -> None:
    result = ctl()
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: vagusctl")
    assert "watch" in result.stderr


def test_the_help_says_in_a_whole_line_what_each_command_does(ctl: Command) -> None:
    result = ctl("--help", COLUMNS="80")
    assert result.returncode == 0
    assert "..." not in result.stdout.partition("Commands:")[2]


def test_a_name_that_nobody_has_is_no_quiet_node(ctl: Command) -> None:
    assert "nothing is known about nobody; `vagusctl nodes`" in ctl("events", "nobody").stdout
    assert "no incident about nobody" in ctl("incidents", "nobody").stdout


def test_a_refusal_is_told_as_it_is(running: Running, ctl: Command) -> None:
    running.operator.refusal = "the backup is not proven; mend it, or force the move"
    assert running.operator.refusal in failed(ctl("switchover", PAIR, "--to", "backup"), 1)


# --- what stands between --------------------------------------------------------------------------------------------


def test_no_controller(ctl: Command) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        words = failed(ctl("status", VAGUS_URL=f"http://127.0.0.1:{silent.getsockname()[1]}"), 3)
    assert "cannot be reached" in words
    assert "systemctl status vagus-controller" in words
    assert "--url" in words


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8118", "ftp://x", "http://", "http://[", "http://a b", "http://x:99999"]
)
def test_a_wrong_url(ctl: Command, url: str) -> None:
    result = ctl("--url", url, "status")
    assert result.returncode in (2, 3)
    assert result.stderr.startswith("vagusctl: ")
    assert "--url" in result.stderr


def test_a_server_that_is_no_controller(ctl: Command) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("fleet") else 500)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            assert "is it a vagus controller" in failed(ctl("status", VAGUS_URL=url), 1)
            assert "answered 500: is it a vagus controller" in failed(ctl("nodes", VAGUS_URL=url), 1)
        finally:
            server.shutdown()
            thread.join()


def test_an_old_controller_and_one_that_sends_elsewhere(ctl: Command) -> None:
    class Old(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            moved = self.path.endswith("fleet")
            self.send_response(301 if moved else 404)
            if moved:
                self.send_header("Location", "https://vagus.example.org/api/v1/fleet")
            self.end_headers()
            self.wfile.write(b'{"detail": "nothing is served here; /api/v1/openapi.json lists what is"}')

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Old) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            assert "does not know /api/v1/drills: is it older than this vagusctl" in failed(
                ctl("drills", VAGUS_URL=url), 1
            )
            assert "sends us to https://vagus.example.org" in failed(ctl("status", VAGUS_URL=url), 1)
        finally:
            server.shutdown()
            thread.join()


# --- completing -----------------------------------------------------------------------------------------------------


def completed(ctl: Command, line: str, **more: str) -> list[str]:
    """What bash is offered at the end of a line."""
    words = line.split(" ")
    asked = {"_VAGUSCTL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    result = ctl(**asked, **more)
    assert result.returncode == 0
    assert result.stderr == ""
    return result.stdout.split()


def test_names_are_completed_from_the_controller(running: Running, ctl: Command) -> None:
    calm = samples.calm()
    pairs = [pair.name for pair in calm.pairs]
    assert completed(ctl, "vagusctl failback ") == pairs
    assert completed(ctl, "vagusctl failback pi-l") == [name for name in pairs if name.startswith("pi-l")]
    assert completed(ctl, "vagusctl pause --node ") == [node.name for node in calm.nodes]
    assert sorted(completed(ctl, "vagusctl pause --site ")) == sorted(node.site for node in calm.nodes)
    assert completed(ctl, f"vagusctl switchover {PAIR} --to ") == ["overlay", "backup"]
    assert completed(ctl, "vagusctl incident ") == ["12"]
    assert completed(ctl, "vagusctl notify test ") == [each.name for each in incident_samples.channels()]
    assert completed(ctl, "vagusctl why pi-berlin--pi-osaka/") == [
        "pi-berlin--pi-osaka/overlay",
        "pi-berlin--pi-osaka/backup",
    ]
    assert completed(ctl, "vagusctl why quo") == ["quorum"]
    assert completed(ctl, f"vagusctl --url {running.url} why vps", VAGUS_URL="http://127.0.0.1:1") == ["vps-fra"]


def test_completion_is_silent_where_nobody_answers(ctl: Command, tmp_path: Path) -> None:
    assert completed(ctl, "vagusctl failback ", VAGUS_URL="http://127.0.0.1:1") == []
    assert completed(ctl, "vagusctl failback ", VAGUS_URL="no url") == []
    assert completed(ctl, "vagusctl failback ", VAGUS_TOKEN="another-token-altogether") == []
    assert completed(ctl, f"vagusctl --token-file {tmp_path / 'none'} failback ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_no_shell_is_offered_what_it_would_run(running: Running, ctl: Command, shell: str) -> None:
    hostile = "$(reboot)`reboot`;'\"\x1b[31m"
    [incident] = running.operator.open.values()
    running.operator.open = {12: msgspec.structs.replace(incident, title=hostile)}
    view = running.operator.view
    nodes = tuple(msgspec.structs.replace(each, site=hostile) for each in view.nodes)
    running.operator.view = msgspec.structs.replace(view, nodes=nodes)
    for line in ("vagusctl incident ", "vagusctl pause --site ", "vagusctl pause --node "):
        result = ctl(
            _VAGUSCTL_COMPLETE=f"complete_{shell}",
            _TYPER_COMPLETE_ARGS=line,
            _TYPER_COMPLETE_FISH_ACTION="get-args",
            _TYPER_COMPLETE_WORD_TO_COMPLETE="",
            COMP_WORDS=line,
            COMP_CWORD=str(len(line.split(" ")) - 1),
        )
        assert not set("$`;\\\x1b") & set(result.stdout)
        assert "$(reboot)" not in result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_shown(ctl: Command, shell: str) -> None:
    result = ctl(_VAGUSCTL_COMPLETE=f"source_{shell}")
    assert result.returncode == 0
    assert "vagusctl" in result.stdout


# --- what stands between, with a token ------------------------------------------------------------------------------


def test_a_viewers_token_looks_and_commands_nothing(running: Running, ctl: Command) -> None:
    body = {"name": "board", "role": "viewer"}
    made = httpx.post(f"{running.url}/api/v1/tokens", json=body, headers={"Authorization": f"Bearer {TOKEN}"})
    viewer = {"VAGUS_TOKEN": made.json()["secret"]}
    assert ctl("status", **viewer).returncode == 0
    assert "this needs an operator" in failed(ctl("pause", "--fleet", "--for", "1h", "--reason", "tea", **viewer), 4)
    assert running.operator.asked == []


def test_the_token(ctl: Command, tmp_path: Path) -> None:
    assert "does not know this token" in failed(ctl("status", VAGUS_TOKEN="another-token-altogether"), 4)
    assert "not one word" in failed(ctl("status", VAGUS_TOKEN="zwei wörter"), 4)
    file = tmp_path / "token"
    assert f"no token: {file}: No such file" in failed(ctl("--token-file", str(file), "status"), 4)
    file.write_text(TOKEN + "\n")
    assert ctl("--token-file", str(file), "status", VAGUS_TOKEN="another-token-altogether").returncode == 0
    file.write_bytes(b"\xff\xfe")
    assert "it is no text" in failed(ctl("--token-file", str(file), "status"), 4)


# --- watching -------------------------------------------------------------------------------------------------------


class Watch:
    """`vagusctl watch` in a process of its own; `expect` reads lines until one holds some words."""

    def __init__(self, url: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [VAGUSCTL, "watch", *arguments],
            env=environment(url, PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._alarm = threading.Timer(40, self.process.kill)
        self._alarm.start()

    def expect(self, words: str) -> str:
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if words in line:
                return line
        raise AssertionError(f"{words!r} did not come, but {seen}")

    def close(self) -> None:
        self._alarm.cancel()
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def watch(running: Running) -> Iterator[Callable[..., Watch]]:
    started: list[Watch] = []

    def start(*arguments: str) -> Watch:
        started.append(Watch(running.url, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_watch_shows_what_comes_and_returns_after_a_restart(running: Running, watch: Callable[..., Watch]) -> None:
    watching = watch()
    watching.expect(samples.calm().summary)
    running.publish("event", running.event("pi-1", "the overlay is down"))
    watching.expect("pi-1 link: the overlay is down")
    running.publish("ledger", running.decision(PAIR))
    watching.expect(f"vagus: failover {PAIR}: the overlay is down (done)")
    running.stop()
    watching.expect("trying again")
    running.event("pi-1", "while nobody was there")
    running.start()
    watching.expect("while nobody was there")
    running.publish("fleet", samples.bad_hour())
    watching.expect(samples.bad_hour().summary)
    watching.process.send_signal(signal.SIGINT)
    assert watching.process.wait(10) != 0
    assert watching.process.stdout is not None
    assert "Traceback" not in watching.process.stdout.read()


def test_watch_in_json(running: Running, watch: Callable[..., Watch]) -> None:
    watching = watch("--json")
    first = json.loads(watching.expect('"topic":"fleet"'))
    told = msgspec.convert(first["data"], FleetView)
    nodes = [msgspec.structs.replace(each, drawn_s=0.0) for each in told.nodes]
    pairs = [msgspec.structs.replace(each, drawn_s=0.0) for each in told.pairs]
    assert msgspec.structs.replace(told, nodes=tuple(nodes), pairs=tuple(pairs)) == running.operator.view
    running.publish("event", running.event("pi-1", "news"))
    assert json.loads(watching.expect('"topic":"event"'))["data"]["text"] == "news"


def test_watch_says_at_once_what_is_wrong(ctl: Command) -> None:
    assert "does not know this token" in failed(ctl("watch", VAGUS_TOKEN="another-token-altogether"), 4)
    assert "cannot be reached" in failed(ctl("watch", VAGUS_URL="http://127.0.0.1:1"), 3)
