"""`vagus-controller users`: accounts on the controller itself, also while it runs. Whoever may write the file may do
this."""

from __future__ import annotations

import argparse
import getpass
import secrets
import sys
import time
from collections.abc import Callable

from vagus_controller.accounts import book as books
from vagus_controller.accounts.book import Book, User
from vagus_controller.accounts.files import AccountsFile
from vagus_controller.accounts.passwords import hash_password
from vagus_controller.config import Http
from vagus_controller.views import Refused


def add_commands(users: argparse.ArgumentParser, shared: argparse.ArgumentParser) -> None:
    commands = users.add_subparsers(dest="what", required=True, title="commands")
    commands.add_parser("list", parents=[shared], help="users, and API tokens")
    for what, words in (
        ("add", "make a user; the password is asked for, or read from standard input"),
        ("set-password", "a new password, which ends the user's sessions; asked for, or read from standard input"),
        ("set-role", "make a viewer an operator, or an operator a viewer"),
        ("remove", "with the user's sessions and API tokens"),
    ):
        command = commands.add_parser(what, parents=[shared], help=words)
        command.add_argument("name", metavar="NAME")
        if what in ("add", "set-role"):
            command.add_argument("--role", choices=["viewer", "operator"], required=True)
    revoke = commands.add_parser("revoke-token", parents=[shared], help="revoke an API token; `list` shows their ids")
    revoke.add_argument("name", metavar="ID")


def run(http: Http, options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Raises Refused, ConfigError, OSError."""
    file = AccountsFile(http.accounts)
    if options.what == "list":
        _list(file.read(), say)
        return
    if options.what in ("add", "set-password"):
        if http.password_file and options.name == books.FIRST_USER:
            raise Refused(f"{options.name} has the password in {http.password_file}: change it there, and restart")
        words = books.name_trouble(options.name) or ("" if file.exists() else _too_early(options))
        if words:
            raise Refused(words)
    try:
        change, done = _change(options, file)
        file.change(change)
    except KeyError as unknown:
        raise Refused(f"there is no {unknown.args[0]!r}; `vagus-controller users list` shows who is") from None
    say(f"{file.path}: {done}")


def _too_early(options: argparse.Namespace) -> str:
    """Without the file the daemon makes the first operator at its start; another user would keep it from that."""
    if options.what == "set-password" or options.role == "viewer":
        return "there are no users yet: start the controller once, or make an operator first, with `add`"
    return ""


def _change(options: argparse.Namespace, file: AccountsFile) -> tuple[Callable[[Book], Book], str]:
    name: str = options.name
    if options.what == "revoke-token":
        return (lambda book: books.revoke_token(book, name)), f"token {name} revoked"
    if options.what == "remove":
        return (lambda book: books.remove_user(book, name)), f"{name} removed"
    if options.what == "set-role":
        return (lambda book: books.change_user(book, name, role=options.role)), f"{name} is {options.role} now"
    if options.what == "set-password":
        file.read().known(name)
    stored, serial = hash_password(_ask(name)), secrets.token_hex(8)
    if options.what == "set-password":
        return (
            lambda book: books.change_user(book, name, password=stored, serial=serial)
        ), f"{name} has a new password"
    user = User(name=name, role=options.role, password=stored, serial=serial, made_at=time.time())
    return (lambda book: books.add_user(book, user)), f"{name} made, as {options.role}"


def _ask(name: str) -> str:
    if sys.stdin.isatty():
        password = getpass.getpass(f"New password of {name}: ")
        if password != getpass.getpass("Again: "):
            raise Refused("the two are not the same; nothing was changed")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if trouble := books.password_trouble(password, name):
        raise Refused(f"{trouble}; nothing was changed")
    return password


def _list(book: Book, say: Callable[[str], None]) -> None:
    for user in book.users:
        say(f"{user.name:20} {user.role:10} since {_day(user.made_at)}")
    for token in book.tokens:
        ends = "until revoked" if token.expires_at is None else f"until {_day(token.expires_at)}"
        say(f"token {token.id:14} {token.role:10} {ends:18} {token.name} (by {token.owner})")
    if not book.users:
        say("No users yet: the controller makes the first one when it starts.")


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))
