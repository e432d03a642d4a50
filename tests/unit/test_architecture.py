"""The shape of docs/architecture.md, as rules. Each ban has its reason; a new exception needs one too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = {
    "vagus_protocol": REPOSITORY / "protocol",
    "vagus_runtime": REPOSITORY / "runtime",
    "vagus_agent": REPOSITORY / "agent",
    "vagus_controller": REPOSITORY / "controller",
}
MAX_LINES = 600


class Import(NamedTuple):
    """`module` imported by `importer` (dotted, both). `lazy`: inside a function, or for type checkers only."""

    importer: str
    module: str
    line: int
    lazy: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.module}"


def sources() -> dict[str, Path]:
    """Every module of the packages, by its dotted name."""
    return {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file
        for package, root in PACKAGES.items()
        for file in sorted((root / package).rglob("*.py"))
    }


def imports() -> Iterator[Import]:
    for importer, file in sources().items():
        yield from _imports(importer, ast.parse(file.read_text(), str(file)), lazy=False)


def _imports(importer: str, node: ast.AST, *, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(importer, alias.name, child.lineno, lazy)
        elif isinstance(child, ast.ImportFrom):
            assert child.module, f"{importer}:{child.lineno}: a relative import; write it in full"
            yield Import(importer, child.module, child.lineno, lazy)
            for alias in child.names:
                yield Import(importer, f"{child.module}.{alias.name}", child.lineno, lazy)
        else:
            for_types = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            inner = lazy or for_types or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(importer, child, lazy=inner)


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


ALL = list(imports())


# (importers, what they must not import, why, except these importers)
BANS: list[tuple[str, tuple[str, ...], str, tuple[str, ...]]] = [
    ("vagus_agent", ("vagus_controller",), "a node must run, and be tested, without any brain", ()),
    ("vagus_controller", ("vagus_agent",), "what both need is the contract: it belongs to vagus_protocol", ()),
    ("vagus_protocol", ("vagus_agent", "vagus_controller", "vagus_runtime"), "the contract depends on nobody", ()),
    ("vagus_runtime", ("vagus_agent", "vagus_controller"), "it serves both daemons and knows neither", ()),
    (
        "vagus_runtime",
        ("vagus_protocol.messages", "vagus_protocol.signing", "vagus_protocol.codec"),
        "it knows the machine, not the messages",
        (),
    ),
    (
        "vagus_agent",
        ("vagus_agent.daemon",),
        "data moves from the edges to the daemon; an edge that reaches back is in the wrong place",
        ("vagus_agent.__main__",),
    ),
    ("vagus_controller", ("vagus_controller.daemon",), "as in the agent", ("vagus_controller.__main__",)),
    (
        "vagus_agent",
        ("vagus_agent.uplink",),
        "steering and probing must work without any broker",
        ("vagus_agent.daemon",),
    ),
    ("vagus_agent.probes", ("vagus_agent.net",), "probes observe; only steering writes", ()),
    (
        "vagus_agent",
        ("etcd3", "grpc"),
        "18 MB that a node without etcd must not pay; etcd3's pin stays behind one module",
        ("vagus_agent.probes.etcd",),
    ),
    (
        "vagus_agent",
        ("pyroute2",),
        "one writer of routes; its import costs more than the rest of the agent",
        ("vagus_agent.net.netlink", "vagus_agent.net.conntrack"),
    ),
    ("vagus_agent", ("paho",), "one place knows the MQTT library", ("vagus_agent.uplink",)),
    (
        "vagus_agent",
        ("psutil",),
        "one place knows how the machine is asked",
        ("vagus_agent.probes.system", "vagus_agent.net.facts"),
    ),
    (
        "vagus_agent",
        ("sqlite3", "sqlalchemy", "litestar", "uvicorn", "httpx", "typer", "rich", "requests", "urllib.request"),
        "the agent is small: 36 MB on a Pi",
        (),
    ),
    (
        "vagus_agent",
        ("subprocess",),
        "a node at load 25 must not fork to save itself; netlink and /proc tell all (facts only explain, rarely)",
        ("vagus_agent.net.facts",),
    ),
    ("vagus_controller", ("etcd3", "grpc", "pyroute2"), "only agents touch etcd and the kernel", ()),
    ("vagus_controller", ("paho",), "one place knows the MQTT library", ("vagus_controller.broker",)),
    (
        "vagus_controller",
        ("sqlalchemy",),
        "one place knows the database",
        (
            "vagus_controller.database",
            "vagus_controller.store",
            "vagus_controller.journals",
            "vagus_controller.archive",
            "vagus_controller.config_file",
        ),
    ),
    (
        "vagus_controller",
        ("litestar", "uvicorn"),
        "the framework ends at the API's edge",
        ("vagus_controller.api",),
    ),
    (
        "vagus_controller",
        ("authlib", "joserfc", "httpx2"),
        "an extra: who has no OpenID provider installs no cryptography",
        ("vagus_controller.api.oidc",),
    ),
    (
        "vagus_controller",
        ("argon2",),
        "one place knows how passwords are kept",
        ("vagus_controller.accounts.passwords",),
    ),
    (
        "vagus_controller.accounts",
        ("vagus_controller.core", "vagus_controller.api", "vagus_controller.store"),
        "who may come in knows nothing of the fleet, HTTP or the database",
        (),
    ),
    (
        "vagus_controller",
        ("typer", "rich", "httpx"),
        "vagusctl speaks to the API only, as any other client",
        ("vagus_controller.ctl",),
    ),
    ("vagus_controller", ("apprise",), "one place knows how people are told", ("vagus_controller.notify",)),
    (
        "vagus_controller.ctl",
        ("vagus_controller.daemon", "vagus_controller.store", "vagus_controller.core", "vagus_controller.broker"),
        "vagusctl speaks to the API only, as any other client",
        (),
    ),
]


@pytest.mark.parametrize(("importers", "banned", "reason", "exempt"), BANS, ids=lambda part: str(part)[:50])
def test_banned_imports(importers: str, banned: tuple[str, ...], reason: str, exempt: tuple[str, ...]) -> None:
    found = [
        str(each)
        for each in ALL
        if is_in(each.importer, importers)
        and any(is_in(each.module, module) for module in banned)
        and not any(is_in(each.importer, module) for module in exempt)
    ]
    assert not found, f"{reason}: " + "; ".join(found)


# Everything that neither does I/O nor reads a clock nor is random. An allow list: what is new must be thought about.
_PURE = frozenset(
    {
        *(
            "__future__",
            "abc",
            "array",
            "bisect",
            "collections",
            "contextlib",
            "dataclasses",
            "enum",
            "functools",
            "hashlib",
        ),
        *("heapq", "hmac", "ipaddress", "itertools", "math", "msgspec", "operator", "re", "statistics", "struct"),
        "typing",
    }
)
PURE_PACKAGES = {
    "vagus_protocol": ("vagus_protocol",),
    "vagus_agent.core": ("vagus_protocol", "vagus_agent.core", "vagus_agent.config"),
    "vagus_controller.accounts.book": ("vagus_controller.views",),
    "vagus_controller.accounts.throttle": (),
    "vagus_controller.accounts.sessions": ("vagus_controller.accounts.book",),
    "vagus_controller.core": (
        "vagus_protocol",
        "vagus_controller.core",
        "vagus_controller.config",
        "vagus_controller.views",
        "vagus_controller.chart_views",
    ),
}


@pytest.mark.parametrize("package", PURE_PACKAGES)
def test_the_core_is_pure(package: str) -> None:
    """Decisions are functions of state, observation and `now`: only so can a test replay any moment of any failure."""
    allowed = PURE_PACKAGES[package]
    found = [
        str(each)
        for each in ALL
        if is_in(each.importer, package)
        and each.module.split(".")[0] not in _PURE
        and not any(is_in(each.module, part) for part in allowed)
        # `from vagus_agent import config` is seen as vagus_agent too
        and not any(part.startswith(each.module + ".") for part in allowed)
    ]
    assert not found, "only pure modules are allowed here: " + "; ".join(found)


LAZY = ("etcd3", "grpc", "pyroute2", "apprise")


def test_heavy_libraries_are_imported_lazily() -> None:
    found = [str(each) for each in ALL if any(is_in(each.module, heavy) for heavy in LAZY) and not each.lazy]
    assert not found, "these cost 18 and 20 MB, or are an extra, and must load only where they are used: " + "; ".join(
        found
    )


@pytest.mark.parametrize("module", ["vagus_agent.daemon", "vagus_agent.__main__"])
def test_importing_the_agent_loads_no_heavy_library(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert {"vagus_agent", "msgspec"} <= loaded
    assert not loaded & {*LAZY, "google.protobuf", "sqlite3", "sqlalchemy", "litestar", "difflib", "unittest"}


# The wall clock, however it is spelled. A Pi has no clock battery: its clock jumps at boot, and no decision may follow.
_WALL_CLOCK = {"time.time", "time.time_ns", "time.CLOCK_REALTIME", "datetime.now", "datetime.utcnow", "datetime.today"}
WALL_CLOCK_FOR = {
    "vagus_agent.net.udp": "the age of a kernel receive timestamp, which has no monotonic form",
    "vagus_agent.probes.certificates": "a certificate ends at a date; only the seconds left travel, for display",
    "vagus_agent.probes.clock": "that it jumped is told, for display",
    "vagus_agent.probes.tailscale": "Tailscale tells key expiry as a date; only the seconds left travel, for display",
    "vagus_controller.daemon": "`at` of what is shown",
    "vagus_controller.chronicle": "`at` of what is stored",
    "vagus_controller.casebook": "`at` of what is stored, and quiet hours",
    "vagus_controller.notify": "display",
    "vagus_controller.store": "retention by age, which must outlive restarts",
    "vagus_controller.journals": "numbers that only ever grow",
    "vagus_controller.api": "display",
    "vagus_controller.accounts.access": "when a session or token ends must outlive restarts",
    "vagus_controller.accounts.console": "display",
    "vagus_controller.ctl": "display",
}


def test_no_decision_reads_the_wall_clock() -> None:
    found = []
    for module, file in sources().items():
        if any(is_in(module, allowed) for allowed in WALL_CLOCK_FOR):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and ".".join(ast.unparse(node).split(".")[-2:]) in _WALL_CLOCK:
                found.append(f"{module}:{node.lineno}: {ast.unparse(node)}")
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                found += [f"{module}:{node.lineno}" for alias in node.names if f"time.{alias.name}" in _WALL_CLOCK]
    assert not found, "node clocks jump; use the monotonic `now`: " + "; ".join(found)


def test_every_exception_is_still_needed() -> None:
    """An exception that nobody uses is a door left open."""
    unused = [
        f"{module} does not import {' or '.join(banned)}"
        for _, banned, _, exempt in BANS
        for module in exempt
        if not any(is_in(each.importer, module) and is_in(each.module, name) for each in ALL for name in banned)
    ]
    assert not unused


def test_no_file_is_longer_than_can_be_read_in_one_sitting() -> None:
    long = {
        module: lines for module, file in sources().items() if (lines := len(file.read_text().splitlines())) > MAX_LINES
    }
    assert not long, f"more than {MAX_LINES} lines: split along a boundary: {long}"


def test_the_rules_see_what_they_forbid() -> None:
    """The scanner itself, on a known piece of code: a rule that sees nothing passes for ever."""
    code = "import a.b\nfrom c import d\ndef f():\n    import e\nif TYPE_CHECKING:\n    from g import h\n"
    found = {(each.module, each.lazy) for each in _imports("x", ast.parse(code), lazy=False)}
    assert found == {
        ("a.b", False),
        ("c", False),
        ("c.d", False),
        ("e", True),
        ("g", True),
        ("g.h", True),
    }
