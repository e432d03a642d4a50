"""Whether new settings of an agent count by a reload, or want a restart."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vagus_agent.config_file import load
from vagus_agent.core import reload
from vagus_runtime.settings import ConfigError


def needs_restart(slurped: Mapping[str, Any], new: str) -> bool:
    """`slurped`: the host's file as it was read; without one, or with one that this version cannot read, yes."""
    try:
        old = base64.b64decode(slurped["content"]).decode()
        with TemporaryDirectory(prefix="vagus-") as directory:
            file = Path(directory, "agent.toml")
            file.write_text(old)
            before = load(file)
            file.write_text(new)
            return bool(reload.plan(before, load(file)).waiting)
    except (KeyError, UnicodeDecodeError, ConfigError):
        return True
