"""The variables of all roles, as their argument_specs.yml declare them: the one place of types, defaults and words."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

Say = Callable[[str, str], None]
"""say(variable, what is wrong and what to do)."""

ANSIBLE: Final = Path(__file__).parents[2]
# Names that playbooks and roles set while they run.
_PRIVATE: Final = ("_",)
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_WORDS: Final = {
    "str": "text",
    "path": "a path",
    "int": "a whole number",
    "bool": "true or false",
    "list": "a list [ … ]",
    "dict": "tables of settings { … }",
}


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    role: str
    kind: str
    default: Any
    required: bool
    choices: tuple[Any, ...]
    description: str


def declared(ansible: Path = ANSIBLE) -> dict[str, Variable]:
    """Every variable, by name, in the order of roles and files."""
    return {variable.name: variable for variable in _declared(ansible)}


def _declared(ansible: Path) -> Iterator[Variable]:
    roles = ("common", "broker", "controller", "agent", "backup")
    files = [(f"vagus_{role}", ansible / f"roles/vagus_{role}/meta/argument_specs.yml") for role in roles]
    for role, file in [*files, ("", ansible / "variables.yml")]:
        for name, entry in yaml.safe_load(file.read_text())["argument_specs"].items():
            for variable, spec in entry["options"].items():
                yield Variable(
                    name=variable,
                    role=role or f"{name}.yml",
                    kind=spec["type"],
                    default=spec.get("default"),
                    required=spec.get("required", False),
                    choices=tuple(spec.get("choices", ())),
                    description=spec["description"],
                )


def read(
    given: Mapping[str, Any], roles: frozenset[str], known: Mapping[str, Variable], say: Say
) -> dict[str, Any] | None:
    """The values of a host that has `roles`, with defaults; None when one is missing or of the wrong kind."""
    sound = True
    for name in given:
        if name.startswith("vagus_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            say(
                name,
                f"there is no such variable{f'; did you mean {near[0]}?' if near else ''} (docs/ansible.md has all)",
            )
    values = {}
    for name, variable in known.items():
        value = given.get(name)
        if value is None:
            if variable.required and variable.role in roles:
                say(name, f"is missing: {variable.description}")
                sound = False
            values[name] = _copy(variable)
            continue
        converted, wrong = _converted(value, variable)
        if wrong:
            say(name, wrong)
            sound = False
        values[name] = converted
    return values if sound else None


def _copy(variable: Variable) -> Any:
    empty: dict[str, Any] = {"list": [], "dict": {}, "str": "", "path": ""}
    if variable.default is None:
        return empty.get(variable.kind)
    return plain(variable.default)


def _converted(value: Any, variable: Variable) -> tuple[Any, str]:
    """The value as its declared kind, or what is wrong with it."""
    kind = variable.kind
    wrong = f"must be {_WORDS[kind]}, not {shown(value)}"
    value = plain(value)
    if kind == "bool":
        if isinstance(value, bool):
            return value, ""
        word = str(value).lower()
        return word in _TRUE, "" if word in (*_TRUE, *_FALSE) else wrong
    if kind == "int":
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        return value, "" if isinstance(value, int) and not isinstance(value, bool) else wrong
    if kind in ("str", "path"):
        value = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        if not isinstance(value, str):
            return value, wrong
        if variable.choices and value not in variable.choices:
            return value, f"must be one of {', '.join(variable.choices)}, not {shown(value)}"
        return value, ""
    if kind == "list":
        fit = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return value, "" if fit else wrong if not isinstance(
            value, list
        ) else f"must hold texts only, not {shown(value)}"
    return value, "" if isinstance(value, dict) else wrong


def plain(value: Any) -> Any:
    """The value without any type of Ansible's own."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def shown(value: Any) -> str:
    text = repr(plain(value))
    return text if len(text) <= 60 else text[:57] + "…"
