"""The machine's clocks, for `core/clocks.py`."""

from __future__ import annotations

import time


def moment() -> tuple[float, float, float]:
    """CLOCK_REALTIME, CLOCK_BOOTTIME and CLOCK_MONOTONIC, of one moment."""
    return time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic()
