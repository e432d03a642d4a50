"""Whether new settings of a daemon count by a reload, or want a restart."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from vagus_agent.config_file import load as load_agent
from vagus_agent.core.reload import plan as plan_agent
from vagus_controller.config_file import load as load_controller
from vagus_controller.core.reload import plan as plan_controller
from vagus_runtime.settings import ConfigError


def needs_restart(slurped: Mapping[str, Any], new: str, daemon: Literal["agent", "controller"]) -> bool:
    """`slurped`: the host's file as it was read; without one, or with one that this version cannot read, yes."""
    with TemporaryDirectory(prefix="vagus-") as directory:
        before, after = Path(directory, "before.toml"), Path(directory, "after.toml")
        try:
            before.write_bytes(base64.b64decode(slurped["content"]))
            after.write_text(new)
            if daemon == "agent":
                return bool(plan_agent(load_agent(before), load_agent(after)).waiting)
            return bool(plan_controller(load_controller(before), load_controller(after)).waiting)
        except (KeyError, ValueError, ConfigError):
            return True
