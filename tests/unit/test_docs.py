"""The documents tell the truth: every setting, with the default that the code has; links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.testing
import yaml

import build_release
from vagus_agent import __main__ as agent_commands
from vagus_agent.config import Config as AgentConfig
from vagus_controller import __main__ as controller_commands
from vagus_controller.config import Config as ControllerConfig
from vagus_controller.ctl.main import app as vagusctl
from vagus_runtime.settings import show

REPOSITORY = Path(__file__).parents[2]
_ROW = re.compile(r"^\| `([^`]+)` \| (?:`(.*?)`|(\w+)) \|", re.MULTILINE)


def documented(section: str) -> dict[str, str]:
    """key → default, as docs/configuration.md has them under `section`."""
    text = (REPOSITORY / "docs/configuration.md").read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return {key: default or word for key, default, word in _ROW.findall(text)}


def actual(kind: type[msgspec.Struct], within: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(kind):
        key = within + field.name
        struct, many = _struct(field.type)
        default = "required" if field.required else _shown(field.default, key)
        if struct is None or many or field.required or field.default is None:
            found[key] = default
        if struct is not None:
            found |= actual(struct, f"{key}[]." if many else f"{key}.")
    return found


def _struct(kind: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """The struct that a field holds, if any, and whether many."""
    parts = getattr(kind, "__args__", ())
    for part in (kind, *parts):
        if isinstance(part, type) and not isinstance(part, types.GenericAlias) and issubclass(part, msgspec.Struct):
            return part, isinstance(kind, types.GenericAlias)
    return None, False


def _shown(default: Any, key: str) -> str:
    if default is None:
        return "none"
    if key in ("steering.mark", "steering.mask"):
        return f"{default:#x}"
    if isinstance(default, tuple):
        return "[" + ", ".join(map(show, default)) + "]"
    return "{}" if default == {} or default is msgspec.NODEFAULT else show(default)


@pytest.mark.parametrize(
    ("section", "kind"), [("The agent", AgentConfig), ("The controller", ControllerConfig)], ids=["agent", "controller"]
)
def test_every_setting_is_documented_with_its_default(section: str, kind: type[msgspec.Struct]) -> None:
    assert documented(section) == actual(kind)


every_document = pytest.mark.parametrize(
    "document",
    sorted(path.relative_to(REPOSITORY) for path in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]),
    ids=str,
)


@every_document
def test_nothing_of_a_merge_is_left(document: Path) -> None:
    assert not re.findall(r"^(?:<<<<<<<|>>>>>>>) .*", (REPOSITORY / document).read_text(), re.MULTILINE)


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", (REPOSITORY / document).read_text())
    missing = [t for t in targets if "://" not in t and not (REPOSITORY / document.parent / t).exists()]
    assert not missing


# --- error texts that are quoted, and commands ----------------------------------------------------------------------

SOURCES = ("agent", "controller", "protocol", "runtime", "ansible", "packaging")


def texts() -> Iterator[str]:
    """Every text in the sources, as a person sees it; `…` stands for what is filled in."""
    for file in (file for root in SOURCES for file in (REPOSITORY / root).rglob("*.py")):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[-.0-9]*[sdgfr]", "…", node.value)
    for file in (file for root in SOURCES for file in (REPOSITORY / root).rglob("*.yml")):
        yield re.sub(r"\{\{.*?\}\}", "…", " ".join(file.read_text().split()))


def quoted() -> list[str]:
    """The messages of docs/troubleshooting.md: what stands in backticks at the beginning of a row."""
    rows = re.findall(r"^\| `(.+?)` \| ", (REPOSITORY / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(rows) > 40
    return rows


def test_every_message_that_troubleshooting_quotes_is_one_that_can_be_seen() -> None:
    known = "\0".join(texts())
    missing = []
    for quote in quoted():
        pattern = "[^\0]*".join(re.escape(part) for part in quote.split("…"))
        if not re.search(pattern, known):
            missing.append(quote)
    assert not missing


COMMAND = re.compile(r"(?:vagus-agent|vagus-controller|vagusctl|ansible-playbook|scripts/[a-z-]+)(?: .*)?")
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


PARSERS = {
    "vagus-agent": agent_commands._parser,
    "vagus-controller": controller_commands._parser,
    "scripts/build-release": build_release._parser,
}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command of ours in the documents, in blocks and in sentences, as a shell would split it."""
    for document in DOCUMENTS:
        text = document.read_text()
        blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
        for line in (*lines, *inline):
            for part in re.split(r" *(?:&&|;|\||  #|>) *", line.split(" # ")[0].strip()):
                command = part.removeprefix("sudo ").removeprefix("/opt/vagus/current/bin/")
                if COMMAND.fullmatch(command) and "…" not in command and "|" not in command:
                    yield document.name, shlex.split(command)


def variables() -> set[str]:
    """Every variable that playbooks and roles know."""
    files = [REPOSITORY / "ansible/variables.yml", *(REPOSITORY / "ansible/roles").glob("*/meta/argument_specs.yml")]
    specs = [yaml.safe_load(file.read_text())["argument_specs"] for file in files if file.exists()]
    return {name for spec in specs for each in spec.values() for name in each.get("options", {})}


def wrong(command: list[str]) -> str:
    """Why it is no command of ours; "" when it is one."""
    program, *arguments = command
    if program == "vagusctl":
        done = typer.testing.CliRunner().invoke(vagusctl, [*arguments, "--help"])
        return "" if done.exit_code == 0 else done.output or str(done.exception)
    if program in PARSERS:
        try:
            PARSERS[program]().parse_args(arguments)
        except SystemExit:
            return "its parser does not take that"
        return ""
    if program.startswith("scripts/"):
        return "" if (REPOSITORY / program).is_file() else "there is no such script"
    books = [each for each in arguments if each.endswith(".yml") and "=" not in each]
    given = set(re.findall(r"\b(vagus_[a-z_]+)=", " ".join(arguments)))
    missing = [book for book in books if not (REPOSITORY / "ansible" / Path(book).name).exists()]
    unknown = given - variables()
    return f"{missing} {unknown}" if missing or unknown else ""


def test_every_command_in_the_documents_is_one() -> None:
    found = list(commands())
    assert len(found) > 50
    assert not [(where, command, why) for where, command in found if (why := wrong(command))]
