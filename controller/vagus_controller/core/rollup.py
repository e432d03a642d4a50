"""Figures over time: samples, and what is left of them for a minute and an hour.

    samples ─► chunks of a minute ─► chunks of ten minute records ─► chunks of six hour records

A chunk is some records of one node, as columns: what is written as one row of the history. Each coarser level is made
of the rows of the finer one, so that a restart forgets nothing and a rollup may be done twice. `gather` makes both the
rollups and the charts. It does not ask in which order chunks come, or whether their times overlap: a wall clock that
was set back makes two records of one moment, which a chart shows as one.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

Figure = int | None


class Level(NamedTuple):
    """A record stands for `record_s`, a row for `row_s`."""

    name: str
    record_s: int
    row_s: int


RAW: Final = Level("raw", 10, 60)
MINUTE: Final = Level("minute", 60, 600)
HOUR: Final = Level("hour", 3600, 21600)
LEVELS: Final = (RAW, MINUTE, HOUR)


class Sample(NamedTuple):
    """A node's figures at one moment of the wall clock. `keys` is shared by samples that have the same."""

    at: int
    keys: tuple[str, ...]
    values: array[int]


class Chunk(msgspec.Struct, array_like=True, gc=False):
    """`start`: when its first record begins, epoch seconds; `offsets` from there. `counts`: the samples of each record,
    empty: one each. `below` and `above`: how far lowest and highest lie from the mean, for the keys where they do."""

    start: int
    offsets: list[int]
    counts: list[int]
    mean: dict[str, list[Figure]]
    below: dict[str, list[Figure]] = {}
    above: dict[str, list[Figure]] = {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Chunk)


def encode(chunk: Chunk) -> bytes:
    return _encoder.encode(chunk)


def decode(data: bytes) -> Chunk:
    """Raises msgspec.MsgspecError."""
    return _decoder.decode(data)


class Sampler:
    """Makes samples; nodes that have the same keys share them."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[str, ...]] = {}

    def take(self, node: str, at: int, figures: dict[str, int]) -> Sample:
        keys = self._keys.get(node, ())
        if figures.keys() == set(keys):
            values = array("i", map(figures.__getitem__, keys))
        else:
            keys = self._keys[node] = tuple(figures)
            values = array("i", figures.values())
        return Sample(at, keys, values)


def chunk_of(samples: Sequence[Sample]) -> Chunk:
    """Of at least one sample, all of one node."""
    start = samples[0].at
    if all(sample.keys is samples[0].keys for sample in samples):
        rows = zip(*(sample.values for sample in samples), strict=True)
        mean: dict[str, list[Figure]] = {key: list(row) for key, row in zip(samples[0].keys, rows, strict=True)}
    else:
        mean = {}
        for number, sample in enumerate(samples):
            for key, value in zip(sample.keys, sample.values, strict=True):
                column = mean.get(key)
                if column is None:
                    column = mean[key] = [None] * len(samples)
                column[number] = value
    return Chunk(start, [sample.at - start for sample in samples], [], mean)


class Cells:
    """One key over the slots of a chart: lowest, highest, sum and count of each slot."""

    __slots__ = ("counts", "high", "low", "totals")

    def __init__(self, slots: int) -> None:
        self.low: list[Figure] = [None] * slots
        self.high: list[Figure] = [None] * slots
        self.totals = [0] * slots
        self.counts = [0] * slots

    def add(self, slot: int, low: int, mean: int, high: int, count: int) -> None:
        before, most = self.low[slot], self.high[slot]
        if before is None or low < before:
            self.low[slot] = low
        if most is None or high > most:
            self.high[slot] = high
        self.totals[slot] += mean * count
        self.counts[slot] += count

    def means(self) -> list[float | None]:
        return [total / count if count else None for total, count in zip(self.totals, self.counts, strict=True)]


def gather(
    chunks: Iterable[Chunk], start: int, end: int, step: int, wanted: Callable[[str], bool] | None = None
) -> tuple[dict[str, Cells], list[int]]:
    """The figures from `start` to before `end`, in slots of `step` seconds; and how many samples each slot has."""
    slots = max(-(-(end - start) // step), 0)
    samples = [0] * slots
    found: dict[str, Cells] = {}
    unwanted: set[str] = set()
    for chunk in chunks:
        counts = chunk.counts or [1] * len(chunk.offsets)
        places = []
        for number, offset in enumerate(chunk.offsets):
            at = chunk.start + offset
            if start <= at < end:
                slot = (at - start) // step
                places.append((number, slot, counts[number]))
                samples[slot] += counts[number]
        if not places:
            continue
        for key, column in chunk.mean.items():
            cells = found.get(key)
            if cells is None:
                if key in unwanted:
                    continue
                if wanted is not None and not wanted(key):
                    unwanted.add(key)
                    continue
                cells = found[key] = Cells(slots)
            below, above = chunk.below.get(key), chunk.above.get(key)
            for number, slot, count in places:
                mean = column[number]
                if mean is None:
                    continue
                low, high = mean, mean
                if below is not None:
                    low -= below[number] or 0
                if above is not None:
                    high += above[number] or 0
                cells.add(slot, low, mean, high, count)
    return found, samples


def roll(chunks: Iterable[Chunk], start: int, level: Level) -> Chunk | None:
    """One row of `level` that begins at `start`, of finer chunks; None when they have nothing of that time."""
    found, samples = gather(chunks, start, start + level.row_s, level.record_s)
    kept = [slot for slot, count in enumerate(samples) if count]
    if not kept:
        return None
    rolled = Chunk(start, [slot * level.record_s for slot in kept], [samples[slot] for slot in kept], {}, {}, {})
    for key, cells in found.items():
        means = [None if (mean := each) is None else round(mean) for each in cells.means()]
        column = rolled.mean[key] = [means[slot] for slot in kept]
        lows, highs = [cells.low[slot] for slot in kept], [cells.high[slot] for slot in kept]
        below = [None if mean is None or low is None else mean - low for mean, low in zip(column, lows, strict=True)]
        above = [None if mean is None or top is None else top - mean for mean, top in zip(column, highs, strict=True)]
        if any(below):
            rolled.below[key] = below
        if any(above):
            rolled.above[key] = above
    return rolled
