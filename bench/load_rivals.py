"""What others do about load, on the same traces: each tells when it would have alerted.

Every one is in the form in which it is used: on load1 over cores, with a dwell; the two statistical ones on the count
of tasks, which is to their advantage.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np
from load_traces import CORES, REPORT_S, Node

from vagus_controller.core.verdict import Hysteresis

Array = Any
# Beszel's shortest average is a minute; the node-exporter mixin's NodeSystemSaturation waits for 15.
RULES: Final = {"load1 over the cores, 1 min": (1.0, 60.0), "load1 over 2 × cores, 15 min": (2.0, 900.0)}
_LEAVE_S: Final = 20.0
# EWMA of mean and variance over about an hour; three sigma, and three samples of it.
_EWMA_SHARE: Final = REPORT_S / 3600.0
_SIGMAS: Final = 3.0
_SIGMAS_DWELL_S: Final = 4.0
# Iglewicz and Hoaglin, 1993: 3.5 of 1.4826 MAD, here of the last hour, renewed each minute.
_MODIFIED_Z: Final = 3.5
_WINDOW: Final = 1800
_RENEW: Final = 30


def static(node: Node, threshold: float, dwell_s: float) -> list[float]:
    return _alerts(node.at, node.load1 / CORES > threshold, dwell_s)


def ewma(node: Node) -> list[float]:
    mean = variance = 0.0
    above = []
    for value in ((node.running + node.blocked) / CORES).tolist():
        off = value - mean
        above.append(off > _SIGMAS * max(variance, 1e-4) ** 0.5)
        mean += _EWMA_SHARE * off
        variance = (1 - _EWMA_SHARE) * (variance + _EWMA_SHARE * off * off)
    return _alerts(node.at, above, _SIGMAS_DWELL_S)


def median_mad(node: Node) -> list[float]:
    window: deque[float] = deque(maxlen=_WINDOW)
    median, spread = 0.0, 1.0
    above = []
    for number, value in enumerate(((node.running + node.blocked) / CORES).tolist()):
        above.append(value - median > _MODIFIED_Z * spread)
        window.append(value)
        if number % _RENEW == 0:
            values = np.array(window)
            median = float(np.median(values))
            # A machine that is idle half of the time has no MAD at all: one task is its least.
            spread = max(1.4826 * float(np.median(np.abs(values - median))), 1 / CORES)
    return _alerts(node.at, above, _SIGMAS_DWELL_S)


def _alerts(at: Array, above: Any, dwell_s: float) -> list[float]:
    """When the condition has lasted; it ends when it has been away for 20 s."""
    alert = Hysteresis(dwell_s, _LEAVE_S)
    found = []
    was = False
    for now, high in zip(at.tolist(), above if isinstance(above, list) else above.tolist(), strict=True):
        is_now = alert.update(high, not high, now)
        if is_now and not was:
            found.append(now)
        was = is_now
    return found
