"""A TOML file → a tree of msgspec structs, with every mistake in words: which file, which key, what is allowed.

msgspec.convert stops at the first mistake, so the tree is built table by table here; msgspec still judges the scalars.
Lists of tables are counted from 1, as a person counts them, and carry the table's own name where it has one.
"""

from __future__ import annotations

import ipaddress
import os
import stat
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

import msgspec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
S = TypeVar("S", bound=msgspec.Struct)
Say = Callable[[str, str], None]
"""say(key, what): `key` is within the table that is checked, "" the table itself."""
Check = Callable[[Any, Say], None]

MAX_FILE_BYTES: Final = 1 << 20
_BAD: Final = object()


class ConfigError(Exception):
    """Every mistake that was found, one a line: `FILE: KEY: what is wrong, what is allowed`."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)

    @property
    def brief(self) -> str:
        """One line: the first of them, and how many more there are."""
        more = len(self.mistakes) - 1
        return self.mistakes[0] + (f" (and {more} more)" if more else "")


class Mistakes:
    """Collects the mistakes of one file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines: list[str] = []

    def add(self, key: str, what: str) -> None:
        self._lines.append(f"{self._file}: {key}: {what}" if key else f"{self._file}: {what}")

    def within(self, key: str) -> Say:
        return lambda inner, what: self.add(_join(key, inner), what)

    def raise_if_any(self) -> None:
        if self._lines:
            raise ConfigError(self._lines)


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of `file`. Raises ConfigError when it cannot be read or is not TOML (with line and column)."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{file}: {unreadable(error)}"]) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError([f"{file}: larger than {MAX_FILE_BYTES} bytes: not a settings file"])
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{file}: line {line} is not UTF-8 text"]) from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError; so is a number of 5000 digits
        raise ConfigError([f"{file}: not valid TOML: {error}"]) from None


def build(kind: type[S], raw: Mapping[str, Any], mistakes: Mistakes, checks: Mapping[type, Check]) -> S | None:
    """The struct in `raw`, or None when mistakes were added. `checks` judge each table that could be read."""
    value = _Builder(mistakes, checks).table(kind, raw, "")
    return None if value is _BAD else value


def within(bounds: Mapping[str, tuple[float, float]]) -> Check:
    """A check that the named numbers lie in their bounds, both included. NaN lies in none."""

    def check(table: Any, say: Say) -> None:
        for name, (low, high) in bounds.items():
            value = getattr(table, name)
            if not low <= value <= high:
                say(name, f"must be between {low:g} and {high:g}, not {show(value)}")

    return check


def element(key: str, index: int, name: str = "") -> str:
    """How the element at `index` (from 0) of a list is called in messages."""
    return f'{key}[{index + 1}] "{name}"' if name else f"{key}[{index + 1}]"


def read_secret(file: Path) -> bytes:
    """The bytes of a key file. Raises ConfigError when it is unreadable, or readable by anybody on the machine."""
    try:
        with file.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            data = stream.read(MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError([f"{file}: {unreadable(error)}"]) from None
    # The group may read (root:vagus 0640), nobody else; only the owner writes.
    if mode & 0o027:
        raise ConfigError([f"{file}: holds a key, and its mode is {mode:04o}: chmod 600 {file}"])
    return data


def unreadable(error: OSError) -> str:
    remedy = {
        FileNotFoundError: "does not exist",
        PermissionError: f"may not be read by user {os.geteuid()}; run as root or as the service's user",
        IsADirectoryError: "is a directory, not a file",
    }
    return remedy.get(type(error), f"cannot be read: {error.strerror or error}")


def show(value: object) -> str:
    """A value as it looks in TOML, cut to what fits a line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return msgspec.json.encode(value[:60]).decode()
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and abs(value) >= 2**64:
        return "a number of more than 64 bits"
    return str(value)


def _join(key: str, inner: str) -> str:
    return f"{key}.{inner}" if key and inner else key or inner


class _Builder:
    def __init__(self, mistakes: Mistakes, checks: Mapping[type, Check]) -> None:
        self._mistakes = mistakes
        self._checks = checks

    def table(self, kind: type[msgspec.Struct], raw: object, key: str) -> Any:
        if not isinstance(raw, Mapping):
            return self._bad(key, f"must be a table [{key}], not {show(raw)}")
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        sound = True
        for unknown in (name for name in raw if name not in fields):
            sound = False
            self._mistakes.add(_join(key, unknown), _unknown_key(unknown, sorted(fields)))
        values: dict[str, Any] = {}
        complete = True
        for name, field in fields.items():
            if name in raw:
                value = self.value(field.type, raw[name], _join(key, name))
                sound = sound and value is not _BAD
                if value is not _BAD:
                    values[name] = value
                complete = complete and (value is not _BAD or not field.required)
            elif field.required:
                sound = complete = False
                self._mistakes.add(_join(key, name), f"is missing: {_allowed(field.type)}")
        if not complete:
            return _BAD
        # A bad value has been told; with the default in its place, the rest of the table can be judged all the same.
        table = kind(**values)
        check = self._checks.get(kind)
        if check is not None:
            check(table, self._mistakes.within(key))
        return table if sound else _BAD

    def value(self, kind: Any, raw: object, key: str) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if kind == Address:
            return self._address(raw, key)
        if kind == Network:
            return self._network(raw, key)
        if origin in (Union, types.UnionType):
            return self.value(next(part for part in arguments if part is not types.NoneType), raw, key)
        if origin is tuple:
            return self._list(arguments[0], raw, key)
        if origin is dict:
            return self._mapping(arguments[1], raw, key)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.table(kind, raw, key)
        try:
            return msgspec.convert(raw, kind)
        except msgspec.ValidationError:
            return self._bad(key, f"must be {_allowed(kind)}, not {show(raw)}")

    def _list(self, kind: Any, raw: object, key: str) -> Any:
        is_tables = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        if not isinstance(raw, list):
            return self._bad(
                key, f"must be {'tables [[' + key + ']]' if is_tables else 'a list [ … ]'}, not {show(raw)}"
            )
        values = []
        for index, item in enumerate(raw):
            name = item.get("name", "") if isinstance(item, Mapping) else ""
            values.append(self.value(kind, item, element(key, index, name if isinstance(name, str) else "")))
        return _BAD if any(value is _BAD for value in values) else tuple(values)

    def _mapping(self, kind: Any, raw: object, key: str) -> Any:
        if not isinstance(raw, Mapping):
            return self._bad(key, f"must be a table, not {show(raw)}")
        values = {name: self.value(kind, item, f"{key}.{name}") for name, item in raw.items()}
        return _BAD if any(value is _BAD for value in values.values()) else values

    def _address(self, raw: object, key: str) -> Any:
        try:
            return ipaddress.ip_address(raw) if isinstance(raw, str) else self._bad(key, _not_a("an address", raw))
        except ValueError:
            return self._bad(key, _not_a("an address", raw))

    def _network(self, raw: object, key: str) -> Any:
        if not isinstance(raw, str):
            return self._bad(key, _not_a("a network", raw))
        try:
            network = ipaddress.ip_network(raw, strict=False)
        except ValueError:
            return self._bad(key, _not_a("a network", raw))
        if ipaddress.ip_address(raw.partition("/")[0]) != network.network_address:
            return self._bad(key, f'{show(raw)} has bits beyond its prefix length: did you mean "{network}"?')
        return network

    def _bad(self, key: str, what: str) -> object:
        self._mistakes.add(key, what)
        return _BAD


def _not_a(what: str, raw: object) -> str:
    examples = {
        "an address": 'an IP address such as "10.77.0.1" or "fd77::1"',
        "a network": 'a network such as "10.77.0.0/24" or "fd77::/64"',
    }
    return f"must be {examples[what]}, not {show(raw)}"


def _allowed(kind: Any) -> str:
    """What a key of this type takes, in words."""
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(show(choice) for choice in get_args(kind))
    if origin is tuple:
        item = get_args(kind)[0]
        tables = isinstance(item, type) and issubclass(item, msgspec.Struct)
        return "at least one table" if tables else "a list [ … ]"
    words = {str: 'text "…"', int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(kind, "a table")


def _unknown_key(name: str, known: Sequence[str]) -> str:
    import difflib  # only for a file with a mistake: a daemon that runs never pays for it

    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"unknown key: {hint}allowed are {', '.join(known)}"
