"""The commands of vagusctl.

Exit codes: 0 done, 1 refused or failed, 2 wrong command line, 3 no controller, 4 no or another token.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar
from urllib.parse import quote

import typer
from rich.console import Console

from vagus_controller.ctl import complete, incident_tables, tables
from vagus_controller.ctl import watch as watching
from vagus_controller.ctl.client import NOT_ALLOWED, Client, CtlError, decode
from vagus_controller.views import (
    ChannelView,
    DrillView,
    EventEntry,
    FleetView,
    IncidentView,
    LedgerEntry,
    NodeView,
    NotificationTest,
    PairView,
    PauseView,
    PlanView,
    QuorumView,
    WhyView,
)

T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:8118"
DEFAULT_TOKEN_FILE: Final = Path("/var/lib/vagus-controller/token")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# Of a wrong command line, whatever it is: what typer's only public one of them is a kind of.
_WRONG_COMMAND_LINE: Final = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="vagusctl",
    help="Shows a fleet and moves its traffic, through the controller's API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many, newest first.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept in the ledger.")]
Fleet = Annotated[bool, typer.Option("--fleet", help="The whole fleet.")]


class _Session:
    """The client, made when a command first needs it, so that --help needs no token."""

    def __init__(self, url: str, token_file: Path | None) -> None:
        self._url = url
        self._token_file = token_file

    def client(self) -> Client:
        return Client(self._url.rstrip("/"), _token(self._token_file))


def _quick_client(context: typer.Context) -> Client:
    """For completion, where no command runs. Raises CtlError."""
    given = context.find_root().params
    token_file = given.get("token_file")
    url = str(given.get("url") or os.environ.get("VAGUS_URL") or DEFAULT_URL)
    return Client(url.rstrip("/"), _token(Path(token_file) if token_file else None), complete.TIMEOUT_S)


def _filled(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    if not value.strip() and not context.resilient_parsing:
        raise typer.BadParameter("it is empty", context, param_hint=f"'{parameter.metavar or parameter.opts[-1]}'")
    return value


def _pair(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    if "/" in value and not context.resilient_parsing:
        raise typer.BadParameter(f"'{value}' is no pair: that is two nodes, as a--b", context, param_hint="'PAIR'")
    return _filled(context, parameter, value)


_names = complete.Completions(_quick_client)
Site = Annotated[str | None, typer.Option("--site", help="One site.", autocompletion=_names.sites)]
Node = Annotated[str | None, typer.Option("--node", help="One node.", autocompletion=_names.nodes)]
Pair = Annotated[
    str, typer.Argument(metavar="PAIR", help="Two nodes: a--b", callback=_pair, autocompletion=_names.pairs)
]


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a name shows a question mark.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        sys.exit(app(standalone_mode=False))
    except CtlError as error:
        _stop(str(error), error.code)
    except BrokenPipeError:
        # The reader has seen enough, as `head` does. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, _WRONG_COMMAND_LINE):
            _stop_at(error)
        _stop(f"a bug in vagusctl: {type(error).__name__}: {error}", 1)


def _stop(words: str, code: int) -> NoReturn:
    sys.stderr.write(f"vagusctl: {tables.text(words).plain}\n")
    sys.exit(code)


def _stop_at(error: Exception) -> NoReturn:
    """A wrong command line, as a sentence."""
    words = error.format_message()  # type: ignore[attr-defined]
    if words.startswith("Usage:"):
        # No command at all: the help.
        sys.stderr.write(words + "\n")
        sys.exit(2)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "vagusctl"
    end = "" if words.endswith((".", "?")) else "."
    _stop(f"{words[:1].lower()}{words[1:]}{end} See {command} --help", 2)


@app.callback()
def _common(
    context: typer.Context,
    url: Annotated[str, typer.Option("--url", envvar="VAGUS_URL", help="Where the controller listens.")] = DEFAULT_URL,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", help=f"The operator's token; VAGUS_TOKEN holds it too. Default: {DEFAULT_TOKEN_FILE}"
        ),
    ] = None,
) -> None:
    context.obj = _Session(url, token_file)


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """How the fleet is: what needs attention, what has moved."""
    data = _client(context).ask("GET", "/fleet")
    _show(json, data, FleetView, tables.status)


@app.command()
def nodes(context: typer.Context, json: Json = False) -> None:
    """Every node: is it there, how loaded is it."""
    data = _client(context).ask("GET", "/nodes")
    _show(json, data, tuple[NodeView, ...], tables.nodes)


@app.command()
def links(context: typer.Context, json: Json = False) -> None:
    """Every pair of nodes with its paths, and which carries traffic."""
    data = _client(context).ask("GET", "/links")
    _show(json, data, tuple[PairView, ...], tables.links)


@app.command()
def quorum(context: typer.Context, json: Json = False) -> None:
    """etcd, as each of its members sees it."""
    data = _client(context).ask("GET", "/quorum")
    _show(json, data, QuorumView, tables.quorum)


@app.command()
def events(
    context: typer.Context,
    subject: Annotated[
        str | None, typer.Argument(help="Only of a node or pair.", autocompletion=_names.subjects)
    ] = None,
    limit: Limit = 30,
    json: Json = False,
) -> None:
    """What happened, newest first."""
    data = _client(context).ask("GET", "/events", limit=limit, subject=subject)
    _show(json, data, list[EventEntry], lambda console, found: tables.events(console, found, about=subject))


@app.command()
def why(
    context: typer.Context,
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT",
            help="A node, a--b, a--b/path, quorum or fleet.",
            callback=_filled,
            autocompletion=_names.reasons_for,
        ),
    ],
    json: Json = False,
) -> None:
    """Why it is as it is: findings, decisions, events.

    Also decisions not to act.
    """
    data = _client(context).ask("GET", f"/why/{quote(subject, safe='/')}")
    _show(json, data, WhyView, tables.why)


@app.command()
def switchover(
    context: typer.Context,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PAIR]...", help="Two nodes: a--b", autocompletion=_names.pairs),
    ] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="PATH", help="The path to take.", autocompletion=_names.paths)
    ] = "",
    home: Annotated[bool, typer.Option("--home", help="Each pair to its first path instead.")] = False,
    fleet: Fleet = False,
    site: Site = None,
    node: Node = None,
    reason: Reason = "",
    force: Annotated[bool, typer.Option("--force", help="Also when PATH is not proven; needs a reason.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, and what stops it.")] = False,
    json: Json = False,
) -> None:
    """Move traffic of pairs, a node, a site or the fleet.

    It is held there. Many pairs go in stages: the first alone, the rest when both its ends have verified the path.
    Pairs whose path is dead wait for no other.
    """
    if bool(to) == home:
        raise CtlError("say where to: --to PATH, or --home", 2)
    scopes = {"fleet": "" if fleet else None, "site": site, "node": node}
    chosen = [(scope, target) for scope, target in scopes.items() if target is not None]
    if len(chosen) + bool(pairs) != 1:
        raise CtlError("name pairs, or one of --fleet, --site SITE and --node NODE", 2)
    if pairs and len(pairs) == 1 and to and not dry_run:
        _command(context, "/switchover", {"pair": pairs[0], "path": to, "reason": reason, "force": force}, json)
        return
    scope, target = chosen[0] if chosen else ("", "")
    body = {"path": to, "pairs": pairs or [], "scope": scope, "target": target}
    data = _client(context).ask("POST", "/plans", {**body, "reason": reason, "force": force, "dry_run": dry_run})
    _show(json, data, PlanView, tables.plan)


@app.command()
def plans(context: typer.Context, json: Json = False) -> None:
    """Plans of moves: those under way and the last ones."""
    data = _client(context).ask("GET", "/plans")
    _show(json, data, tuple[PlanView, ...], tables.plans)


@app.command()
def drill(
    context: typer.Context,
    pair: Annotated[
        str | None, typer.Argument(metavar="[PAIR]", help="Two nodes: a--b", autocompletion=_names.pairs)
    ] = None,
    site: Site = None,
    fleet: Fleet = False,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Rehearse failover and failback, one pair at a time.

    Out to the backup, verified, measured, and back. It begins only while all is well, and ends at the first bad sign,
    with the pair back on its first path.
    """
    scopes = {"pair": pair, "site": site, "fleet": "" if fleet else None}
    chosen = [(scope, target) for scope, target in scopes.items() if target is not None]
    if len(chosen) != 1:
        raise CtlError("name a PAIR, or one of --site SITE and --fleet", 2)
    scope, target = chosen[0]
    data = _client(context).ask("POST", "/drills", {"scope": scope, "target": target, "reason": reason})
    _show(json, data, DrillView, lambda console, made: tables.drills(console, [made]))
    if not json:
        typer.echo("see how it goes: vagusctl drills")


@app.command()
def drills(context: typer.Context, json: Json = False) -> None:
    """The drill under way and the last ones, with the gaps they saw."""
    data = _client(context).ask("GET", "/drills")
    _show(json, data, tuple[DrillView, ...], tables.drills)


@app.command()
def approve(context: typer.Context, pair: Pair, reason: Reason = "", json: Json = False) -> None:
    """Carry out the move that is recommended for a pair."""
    _command(context, f"/pairs/{quote(pair, safe='')}/approve", {"reason": reason}, json)


@app.command()
def failback(context: typer.Context, pair: Pair, reason: Reason = "", json: Json = False) -> None:
    """Move a pair's traffic to its first path."""
    _command(context, "/failback", {"pair": pair, "reason": reason}, json)


@app.command()
def pause(
    context: typer.Context,
    for_: Annotated[str, typer.Option("--for", metavar="DURATION", help="45s, 30m, 2h, 1d or 1h30m")],
    fleet: Fleet = False,
    site: Site = None,
    node: Node = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Stop automatic moves for a while, and a plan under way there. What a person asks for after it is still done."""
    scopes = {"fleet": "" if fleet else None, "site": site, "node": node}
    chosen = [(scope, target) for scope, target in scopes.items() if target is not None]
    if len(chosen) != 1:
        raise CtlError("name one of --fleet, --site SITE and --node NODE", 2)
    scope, target = chosen[0]
    body = {"scope": scope, "target": target, "reason": reason, "for_s": parse_duration(for_)}
    data = _client(context).ask("POST", "/pauses", body)
    _show(json, data, PauseView, lambda console, made: tables.pauses(console, [made]))


@app.command()
def resume(
    context: typer.Context,
    pause_id: Annotated[
        int | None,
        typer.Argument(metavar="ID", min=1, help="The pause, as `status` shows it.", autocompletion=_names.pauses),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every pause.")] = False,
    json: Json = False,
) -> None:
    """End a pause."""
    if (pause_id is None) == (not every):
        raise CtlError("name a pause by its ID, or --all", 2)
    client = _client(context)
    ids = (
        [pause_id]
        if pause_id is not None
        else [one.id for one in decode(client.ask("GET", "/pauses"), list[PauseView])]
    )
    for each in ids:
        client.ask("DELETE", f"/pauses/{each}")
        if not json:
            typer.echo(f"pause {each} is over")
    if json:
        # The pauses that are left.
        typer.echo(client.ask("GET", "/pauses").decode())
    elif not ids:
        typer.echo("there is no pause")


@app.command()
def incidents(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    subject: Annotated[
        str | None, typer.Argument(help="Only about a node or pair.", autocompletion=_names.subjects)
    ] = None,
    limit: Limit = 30,
    json: Json = False,
) -> None:
    """What is wrong, by cause: one line an incident."""
    data = _client(context).ask("GET", "/incidents", show="all" if every else "open", limit=limit, subject=subject)
    _show(json, data, list[IncidentView], lambda console, found: incident_tables.incidents(console, found, subject))


Incident = Annotated[
    int,
    typer.Argument(metavar="ID", min=0, help="The incident, as `incidents` shows it.", autocompletion=_names.incidents),
]


@app.command()
def incident(context: typer.Context, incident_id: Incident, json: Json = False) -> None:
    """One incident: cause, consequences, what vagus did, notes."""
    _show(json, _client(context).ask("GET", f"/incidents/{incident_id}"), IncidentView, incident_tables.incident)


@app.command()
def ack(context: typer.Context, incident_id: Incident, json: Json = False) -> None:
    """Say that you are on an incident."""
    data = _client(context).ask("POST", f"/incidents/{incident_id}/acknowledge")
    _show(json, data, IncidentView, incident_tables.incident)


@app.command()
def note(
    context: typer.Context,
    incident_id: Incident,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What others should know.", callback=_filled)],
    json: Json = False,
) -> None:
    """Write a note onto an incident."""
    data = _client(context).ask("POST", f"/incidents/{incident_id}/note", {"text": text})
    _show(json, data, IncidentView, incident_tables.incident)


@app.command()
def resolve(
    context: typer.Context,
    incident_id: Incident,
    why: Annotated[str, typer.Option("--note", help="Why it is none any more.", callback=_filled)],
    json: Json = False,
) -> None:
    """Say that an incident is none any more.

    Its verdicts may last. What is new or worse reopens it.
    """
    data = _client(context).ask("POST", f"/incidents/{incident_id}/resolve", {"note": why})
    _show(json, data, IncidentView, incident_tables.incident)


notify = typer.Typer(help="Where people are told of incidents.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(notify, name="notify")


@notify.command("channels")
def notify_channels(context: typer.Context, json: Json = False) -> None:
    """Every channel: does it work, what waits."""
    data = _client(context).ask("GET", "/notifications")
    _show(json, data, tuple[ChannelView, ...], incident_tables.channels)


@notify.command("test")
def notify_test(
    context: typer.Context,
    channel: Annotated[
        str,
        typer.Argument(metavar="CHANNEL", help="As `notify channels` shows it.", autocompletion=_names.channels),
    ],
    json: Json = False,
) -> None:
    """Send a test notice, and wait for what comes of it."""
    data = _client(context).ask("POST", "/notifications/test", {"channel": channel})
    found = decode(data, NotificationTest)
    if json:
        typer.echo(data.decode())
    elif found.delivered:
        typer.echo(f"{channel}: {found.detail}")
    if not found.delivered:
        raise CtlError(f"{channel} did not take it: {found.detail}")


@app.command()
def watch(
    context: typer.Context,
    json: Json = False,
    by_line: Annotated[bool, typer.Option("--lines", help="A line at a time, on a terminal too.")] = False,
) -> None:
    """The fleet page in a terminal, live, until Ctrl-C.

    Into a pipe or file, and with --lines, events and decisions as they come, a line each. With --json one object a
    line: topic and data.
    """
    client, console = _client(context), _console()
    if json or by_line or not console.is_terminal or console.is_dumb_terminal:
        watching.lines(client, console, json=json)
    else:
        watching.screen(client, console)


def _client(context: typer.Context) -> Client:
    session = context.find_object(_Session)
    assert session is not None
    return session.client()


def _command(context: typer.Context, path: str, body: dict[str, Any], json: bool) -> None:
    data = _client(context).ask("POST", path, body)
    _show(json, data, LedgerEntry, lambda console, entry: console.print(tables.ledger_line(entry)))


def _show(json: bool, data: bytes, kind: type[T], draw: Callable[[Console, T], None]) -> None:
    if json:
        typer.echo(data.decode())
    else:
        draw(_console(), decode(data, kind))


def _console() -> Console:
    # Into a pipe or file nothing is left out and nothing is folded early.
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Console(width=wide, highlight=False, markup=False, emoji=False)


def _token(file: Path | None) -> str:
    token = os.environ.get("VAGUS_TOKEN", "")
    if file is None and token:
        return token.strip()
    file = file or DEFAULT_TOKEN_FILE
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CtlError(
            f"no token: {file}: {words}. Name the file with --token-file, set VAGUS_TOKEN, or run as root", NOT_ALLOWED
        ) from None


def parse_duration(words: str) -> float:
    """Seconds of "2h", "90s", "1h30m". Raises CtlError."""
    if not re.fullmatch(r"(\d{1,6}[smhd])+", words):
        raise CtlError(f"--for {words}: a duration is like 45s, 30m, 2h, 1d or 1h30m", 2)
    return float(sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)([smhd])", words)))
