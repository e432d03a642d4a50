"""The Numenta Anomaly Benchmark: its series, and its score by its published rules.

The first 15 % of a series (at most 750 rows) is probation: what is detected there counts for nothing. Of a window only
the best detection counts, which is the earliest: by a sigmoid of its position, from 1 at the left edge to almost 0 at
the right. Each detection outside costs by its distance behind the last window, up to the whole weight; a window that
nobody saw costs its weight. The sum is put on a scale on which no detection at all is 0 and a perfect one is 100.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

PROBATION: Final = 0.15
_PROBATION_MOST: Final = 0.15 * 5000
_FAR: Final = 3.0

Window = tuple[int, int]


class Profile(NamedTuple):
    """What a detection, a false alarm and a miss weigh."""

    tp: float
    fp: float
    fn: float


class Series(NamedTuple):
    """`at`: seconds; `windows`: first and last row of each, both inclusive."""

    name: str
    at: list[float]
    values: list[float]
    windows: list[Window]

    @property
    def probation(self) -> int:
        return probation(len(self.values))


class Missing(Exception):
    pass


def probation(rows: int) -> int:
    return int(min(math.floor(PROBATION * rows), _PROBATION_MOST))


def scaled_sigmoid(position: float) -> float:
    """1 (almost) at -1, the left edge of a window; 0 at its right edge; -1 far behind it."""
    return -1.0 if position >= _FAR else 2.0 / (1.0 + math.exp(5.0 * position)) - 1.0


_BEST: Final = scaled_sigmoid(-1.0)


def score(rows: int, windows: Sequence[Window], detections: Collection[int], profile: Profile, first: int) -> float:
    """The raw score of a series; `first`: the first row behind probation."""
    open_windows = [window for window in windows if window[1] >= first]
    best: dict[Window, float] = dict.fromkeys(open_windows, -profile.fn)
    cost = 0.0
    for row in detections:
        if not first <= row < rows:
            continue
        within = next((window for window in open_windows if window[0] <= row <= window[1]), None)
        if within is not None:
            position = -(within[1] - row + 1) / (within[1] - within[0] + 1)
            best[within] = max(best[within], scaled_sigmoid(position) * profile.tp / _BEST)
            continue
        before = [window for window in windows if window[1] < row]
        if before:
            left, right = before[-1]
            # A window of one row has no width to measure by.
            position = (row - right) / (right - left) if right > left else _FAR
        else:
            position = _FAR
        cost += scaled_sigmoid(position) * profile.fp
    return sum(best.values()) + cost


def normalised(raw: float, null: float, windows: int, profile: Profile) -> float:
    """`null`: the raw score of no detection at all."""
    return 100.0 * (raw - null) / (windows * profile.tp - null)


def load(directory: Path) -> tuple[list[Series], dict[str, Profile]]:
    """Every series that the directory has labels for."""
    if not (directory / "windows.json").is_file():
        raise Missing(
            f"no Numenta Anomaly Benchmark at {directory}: it needs windows.json (series → labelled windows), "
            "profiles.json and data/<group>/<series>.csv; give its place by --nab DIRECTORY"
        )
    labels = json.loads((directory / "windows.json").read_text())
    profiles = {
        name: Profile(*(entry["CostMatrix"][weight] for weight in ("tpWeight", "fpWeight", "fnWeight")))
        for name, entry in json.loads((directory / "profiles.json").read_text()).items()
    }
    files = {name: directory / "data" / name for name in sorted(labels)}
    gone = [name for name, file in files.items() if not file.is_file()]
    if gone:
        raise Missing(f"{directory} has no data for {len(gone)} of its labelled series: {', '.join(gone[:3])} …")
    return [_read(name, file, labels[name]) for name, file in files.items()], profiles


def _read(name: str, file: Path, labels: list[list[str]]) -> Series:
    at, values = [], []
    for when, value in _rows(file):
        at.append(when.timestamp())
        values.append(value)
    rows = {when: row for row, when in reversed(list(enumerate(at)))}
    windows = [(rows[_stamp(start)], rows[_stamp(end)]) for start, end in labels]
    return Series(name, at, values, windows)


def _rows(file: Path) -> Iterator[tuple[datetime, float]]:
    with file.open() as lines:
        next(lines)
        for line in lines:
            when, _, value = line.rstrip().partition(",")
            yield datetime.fromisoformat(when + "+00:00"), float(value)


def _stamp(text: str) -> float:
    return datetime.fromisoformat(text + "+00:00").timestamp()
