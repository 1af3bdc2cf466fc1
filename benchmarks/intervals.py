"""Medians with the uncertainty they have: seeded bootstrap intervals for timings, which come in clusters.

Timings that follow each other are alike (a clock that drifts, a neighbour that wakes up), so that single
samples may not be drawn as if they were independent. What is drawn, with replacement, are whole blocks
(block bootstrap; Künsch 1989): the rounds of an interleaved measurement, or stretches of a long one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 1000
LEVEL = 0.95
BLOCKS = 30
"""Stretches that a measurement without rounds is cut into."""


@dataclass(slots=True, frozen=True)
class Interval:
    """A figure with its interval at `LEVEL`."""

    value: float
    low: float
    high: float

    def to_json(self) -> list[float]:
        """`[low, high]`, rounded."""
        return [round(self.low, 4), round(self.high, 4)]


def blocks(samples: Sequence[float], count: int = BLOCKS) -> list[np.ndarray]:
    """Samples in the order of time as at most `count` stretches of equal length, give or take one."""
    array = np.asarray(samples, np.float64)
    return [part for part in np.array_split(array, min(count, max(1, len(array)))) if len(part)]


def quantile(rounds: Sequence[np.ndarray], q: float = 0.5, *, seed: int = 0, draws: int = DRAWS) -> Interval:
    """A quantile of all samples, with its bootstrap interval over rounds.

    Args:
        rounds: samples by round or stretch, each a 1-D array; at least one sample in all.
        q: 0..1; 0.5 is the median.
        seed: of the draws; the same samples give the same interval.
        draws: how many resamples.
    """
    drawn = _drawn(len(rounds), seed, draws)
    values = [float(np.quantile(np.concatenate([rounds[i] for i in row]), q)) for row in drawn]
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(np.quantile(np.concatenate(list(rounds)), q)), float(low), float(high))


def ratio(
    upper: Sequence[np.ndarray],
    lower: Sequence[np.ndarray],
    *,
    paired: bool,
    seed: int = 0,
    draws: int = DRAWS,
) -> Interval:
    """Median of one measurement over the median of another.

    Args:
        upper, lower: samples by round or stretch.
        paired: the rounds took turns, so that round k of both saw the same machine and the same pictures;
            they are drawn together, and what disturbed both cancels. Else each is drawn for itself.
        seed, draws: as for `quantile`.

    Raises:
        ValueError: paired, and the numbers of rounds differ.
    """
    if paired and len(upper) != len(lower):
        raise ValueError(f"{len(upper)} rounds cannot be paired with {len(lower)}")
    first = _drawn(len(upper), seed, draws)
    second = first if paired else _drawn(len(lower), seed + 1, draws)
    values = [
        _median([upper[i] for i in above]) / _median([lower[i] for i in below])
        for above, below in zip(first, second, strict=True)
    ]
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(_median(upper) / _median(lower), float(low), float(high))


def _median(rounds: Sequence[np.ndarray]) -> float:
    return float(np.median(np.concatenate(list(rounds))))


def _drawn(count: int, seed: int, draws: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (draws, count))
