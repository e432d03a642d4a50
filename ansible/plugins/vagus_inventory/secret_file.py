"""The secrets file on the control machine: YAML, mode 0600, replaced at once or not at all; encrypted if it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Protocol

import yaml

_HEAD = """\
# vagus: the secrets of one fleet. Whoever has them commands it: keep a copy where this disk cannot take it along, and
# encrypt it with `ansible-vault encrypt`; the playbooks keep it so.
"""


class Vault(Protocol):
    def encrypt(self, plaintext: str) -> bytes: ...


class Unusable(Exception):
    """Why the file cannot be used, and what to do. Shows nothing of its contents."""


def text(file: Path) -> str:
    """The file as it is; "" when there is none."""
    try:
        with file.open() as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            if mode & 0o077:
                raise Unusable(f"{file}: holds secrets, and its mode is {mode:04o}: chmod 600 {file}")
            return stream.read()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"{file}: cannot be read: {error}") from None


def parsed(file: Path, content: str) -> dict[str, Any]:
    """The secrets in it. What has a name and nothing more (its lines were taken out) is not there."""
    try:
        secrets = yaml.safe_load(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise Unusable(f"{file}: is no YAML{where}; encrypt the file as a whole, not single values") from None
    if secrets is None:
        return {}
    if not isinstance(secrets, dict):
        raise Unusable(f"{file}: must be a table of secrets")
    return {name: value for name, value in secrets.items() if value is not None}


def write(file: Path, secrets: dict[str, Any], vault: Vault | None) -> None:
    content = _HEAD + yaml.dump(secrets, Dumper=_Dumper, sort_keys=True, width=200)
    data = vault.encrypt(content) if vault is not None else content.encode()
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Keys and certificates line by line."""


_Dumper.add_representer(
    str,
    lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None),
)
