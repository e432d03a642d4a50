"""The documents tell the truth: every setting, with the default that the code has; links lead somewhere."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vagus_agent.config import Config as AgentConfig
from vagus_controller.config import Config as ControllerConfig
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


@pytest.mark.parametrize(
    "document",
    sorted(path.relative_to(REPOSITORY) for path in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]),
    ids=str,
)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", (REPOSITORY / document).read_text())
    missing = [t for t in targets if "://" not in t and not (REPOSITORY / document.parent / t).exists()]
    assert not missing
