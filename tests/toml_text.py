"""Writes TOML, for tests that start from a sound file and break one thing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec


def to_toml(raw: dict[str, Any]) -> str:
    return "".join(f"{_string(key)} = {_value(value)}\n" for key, value in raw.items())


def change(raw: dict[str, Any], where: str, value: Any) -> None:
    """Sets `where` ("peers.0.via.backup") to `value`, or removes it when `value` is None."""
    *parents, last = where.split(".")
    table: Any = raw
    for step in parents:
        table = table[int(step)] if isinstance(table, list) else table.setdefault(step, {})
    if value is None:
        del table[last]
    elif isinstance(table, list):
        table[int(last)] = value
    else:
        table[last] = value


def numbers(kind: type[msgspec.Struct], within: str = "") -> Iterator[str]:
    """Where the numbers of a configuration are, those in lists of tables left out."""
    for field in msgspec.structs.fields(kind):
        parts = get_args(field.type) or (field.type,)
        for part in parts:
            if part in (int, float):
                yield within + field.encode_name
            elif isinstance(part, type) and issubclass(part, msgspec.Struct) and get_origin(field.type) is not tuple:
                yield from numbers(part, f"{within}{field.encode_name}.")


def _string(text: str) -> str:
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_string(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _string(value) if isinstance(value, str) else repr(value)
