"""The command `vagus-agent`. Each command imports only what it needs itself: a running agent stays small."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vagus_protocol import __version__
from vagus_runtime import lazy

# What our libraries import and the agent never uses: 3 MB, or 4 with etcd (bench/footprint).
lazy.postpone(
    "urllib.request",  # paho, for proxies; brings http and email
    "pyroute2.netlink.rtnl.tcmsg.sched_",  # traffic control
    "pyroute2.netlink.rtnl.tcmsg.cls_",
    "ctypes.util",  # pyroute2; brings shutil
    "difflib",  # unittest, which pyroute2 imports
    "multiprocessing.reduction",  # pyroute2, for children
    "pickle",  # the same, and grpc
    "pyroute2.netlink.diag.ss2",  # a command of pyroute2's
    "msgspec.inspect",
    "msgspec.toml",
    "msgspec.yaml",
    "asyncio.sslproto",  # for service checks by https
    "grpc.aio",
    "tenacity",  # etcd3, for its locks
    "google.protobuf.text_",
    "calendar",  # protobuf, for dates
)

from vagus_agent.config import Config  # noqa: E402
from vagus_agent.config_file import ConfigError, load, load_keys  # noqa: E402

DEFAULT_CONFIG = "/etc/vagus/agent.toml"
# Exit codes: what was asked for failed; the configuration or the command line is wrong.
FAILED, WRONG = 1, 2
# capabilities(7): the bit that allows to change routes.
_CAP_NET_ADMIN = 12


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.version:
        _say(f"vagus-agent {__version__}")
        return 0
    if options.command is None:
        _parser().print_help()
        return WRONG
    if options.command == "routes" and options.action == "clear" and not _may_change_routes():
        return _fail("routes are changed by root only: run it with sudo", FAILED)
    try:
        if options.command == "check-config":
            return _check_config(options.config, files=not options.no_files)
        config = load(options.config, files=options.command == "run")
        if options.command == "run":
            return _run(options.config, config)
        if options.command == "doctor":
            from vagus_agent import doctor

            return doctor.run(config)
        from vagus_agent import routes_command

        if options.action == "show":
            return routes_command.show(config)
        return routes_command.clear(config, overrides_only=options.overrides_only)
    except ConfigError as error:
        return _fail(str(error), WRONG)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, default=Path(DEFAULT_CONFIG), metavar="FILE", help=DEFAULT_CONFIG)
    parser = argparse.ArgumentParser(prog="vagus-agent", description="Watches this node's links and moves its traffic.")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", title="commands")
    commands.add_parser("run", parents=[shared], help="run in the foreground, as systemd does")
    check = commands.add_parser("check-config", parents=[shared], help="list every mistake in the configuration")
    check.add_argument(
        "--no-files", action="store_true", help="do not open the files that it names (another machine's)"
    )
    commands.add_parser("doctor", parents=[shared], help="tell whether this node is fit to fail over")
    routes = commands.add_parser("routes", help="this agent's routes and rules, without daemon or broker")
    actions = routes.add_subparsers(dest="action", required=True)
    actions.add_parser("show", parents=[shared], help="what the kernel holds, and what is missing")
    clear = actions.add_parser("clear", parents=[shared], help="remove them all")
    clear.add_argument("--overrides-only", action="store_true", help="only those that move traffic off its first path")
    return parser


def _run(file: Path, config: Config) -> int:
    from vagus_agent.daemon import run
    from vagus_runtime import logs

    logs.set_up(config.log_level, os.environ)
    return run(file, config, load_keys(config))


def _check_config(path: Path, *, files: bool) -> int:
    config = load(path, files=files)
    if files:
        load_keys(config)
    _say(
        f"{path}: sound: node {config.node} of fleet {config.fleet}, {len(config.peers)} peers, "
        f"paths {', '.join(p.name for p in config.paths)}"
    )
    return 0


def _may_change_routes() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return os.geteuid() == 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _fail(text: str, code: int) -> int:
    sys.stderr.write("".join(f"vagus-agent: {line}\n" for line in text.splitlines()))
    return code


if __name__ == "__main__":
    sys.exit(main())
