"""The command `vagus-controller`."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from vagus_controller.accounts import console
from vagus_controller.config import Config
from vagus_controller.config_file import ConfigError, load, load_fleet_key, read_fleet_key
from vagus_controller.views import Refused
from vagus_protocol.signing import KEY_BYTES, node_key, probe_key
from vagus_protocol.topics import is_name

DEFAULT_CONFIG = "/etc/vagus/controller.toml"
# Exit codes: what was asked for failed; the configuration or the command line is wrong.
FAILED, WRONG = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        _say(f"vagus-controller {version('vagus')}")
        return 0
    if options.command is None:
        _parser().print_help()
        return WRONG
    try:
        if options.command == "new-key":
            return _new_key(options.file)
        if options.command == "node-keys":
            return _node_keys(options)
        if options.command == "check-config":
            return _check_config(options.config, files=not options.no_files)
        if options.command == "users":
            return _users(options)
        return _run(options.config, load(options.config, files=True))
    except ConfigError as error:
        return _fail(str(error), WRONG)
    except OSError as error:
        return _fail(f"{error.filename or ''}: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, default=Path(DEFAULT_CONFIG), metavar="FILE", help=DEFAULT_CONFIG)
    parser = argparse.ArgumentParser(
        prog="vagus-controller", description="Sees the fleet, judges it, moves its traffic."
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", title="commands")
    commands.add_parser("run", parents=[shared], help="run in the foreground, as systemd does")
    check = commands.add_parser("check-config", parents=[shared], help="list every mistake in the configuration")
    check.add_argument(
        "--no-files", action="store_true", help="do not open the files that it names (another machine's)"
    )
    new_key = commands.add_parser("new-key", help="make a fleet key; an existing file is never overwritten")
    new_key.add_argument("file", type=Path, metavar="FILE")
    node_keys = commands.add_parser(
        "node-keys", parents=[shared], help="the keys file of each node, from the fleet key"
    )
    node_keys.add_argument("nodes", nargs="+", metavar="NODE")
    node_keys.add_argument("--key-file", type=Path, metavar="FILE", help="the fleet key, instead of the configured one")
    node_keys.add_argument(
        "--out", type=Path, metavar="DIR", help="write DIR/NODE.toml, mode 0600, instead of printing"
    )
    users = commands.add_parser("users", help="who may sign in on the page, also while the controller runs")
    console.add_commands(users, shared)
    return parser


def _users(options: argparse.Namespace) -> int:
    try:
        console.run(load(options.config).http, options, _say)
    except Refused as error:
        return _fail(str(error), FAILED)
    return 0


def _run(file: Path, config: Config) -> int:
    from vagus_controller.daemon import run
    from vagus_runtime import logs

    logs.set_up(config.log_level, os.environ)
    return run(file, config, load_fleet_key(config))


def _check_config(path: Path, *, files: bool) -> int:
    config = load(path, files=files)
    if files:
        load_fleet_key(config)
    nodes = f"{len(config.nodes)} nodes" if config.nodes else "every node that the broker lets in"
    _say(f"{path}: sound: controller {config.name} of fleet {config.fleet}, {nodes}, mode {config.failover.mode}")
    return 0


def _new_key(file: Path) -> int:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _fail(f"{file}: exists already; a new fleet key would lock every node out of it", FAILED)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_hex(KEY_BYTES) + "\n")
    _say(f"{file}: new fleet key, mode 0600. Keep a copy where the controller's disk cannot take it along.")
    return 0


def _node_keys(options: argparse.Namespace) -> int:
    for node in options.nodes:
        if not is_name(node):
            return _fail(f"{node!r} is not a node's name", WRONG)
    key = read_fleet_key(options.key_file) if options.key_file else load_fleet_key(load(options.config))
    for node in options.nodes:
        text = (
            f"# Keys of node {node}: its keys_file, mode 0600\n"
            f'node = "{node_key(key, node).hex()}"\nprobe = "{probe_key(key).hex()}"\n'
        )
        if options.out is None:
            _say(text)
        else:
            _write_secret(options.out / f"{node}.toml", text)
            _say(f"{options.out / node}.toml")
    return 0


def _write_secret(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    partial.replace(file)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _fail(text: str, code: int) -> int:
    sys.stderr.write("".join(f"vagus-controller: {line}\n" for line in text.splitlines()))
    return code


if __name__ == "__main__":
    sys.exit(main())
