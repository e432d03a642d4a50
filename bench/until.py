"""Waiting for a lab."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(ready: Callable[[], bool], what: str, within_s: float) -> None:
    """Raises TimeoutError when it is not so in time; a controller that is away for the moment is no answer."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"not within {within_s:.0f} s: {what}")
