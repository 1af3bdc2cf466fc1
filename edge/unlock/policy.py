"""When a face may unlock: thresholds with their false accepts, votes over views, and the lock-out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.config import FARS
from edge.errors import UsageError
from edge.unlock.vault import MODES, Lockout, Person

if TYPE_CHECKING:
    from edge.tflite import ModelEntry

_AGREE = 2 / 3
"""Share of the weight of a track's views that must speak for a person."""

FREE_FAILURES = 4
"""Failures in a row without a pause: a mask askew and a bad light are no attack."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 3600.0


@dataclass(slots=True, frozen=True)
class Limits:
    """Cosines that a view must exceed.

    Attributes:
        far: the false accept rate that both stand for: of one view, against one template.
        scores: threshold for each mode of template, whatever the view shows.
    """

    far: float
    scores: dict[str, float]

    @classmethod
    def of(cls, entry: ModelEntry, far: float) -> Limits:
        """Those of the manifest.

        Raises:
            UsageError: it was not measured for that rate.
            ModelError: one is missing.
        """
        if far not in FARS:
            known = ", ".join(f"{one:g}" for one in FARS)
            raise UsageError(
                f"there is no threshold for a false accept rate of {far:g}", remedy=f"use one of {known}"
            )
        return cls(far, {mode: entry.threshold(f"{mode}@{far:g}") for mode in MODES})


@dataclass(slots=True, frozen=True)
class Match:
    """Whom a view is most like.

    Attributes:
        name: of that person.
        score: cosine, -1..1.
        margin: score less the threshold of the template it was found with; above 0 is a match.
    """

    name: str
    score: float
    margin: float


class Gallery:
    """Everybody's templates, searched at once.

    Args:
        people: with templates of the same length.
        limits: thresholds.
    """

    def __init__(self, people: Iterable[Person], limits: Limits) -> None:
        rows = [(one.name, mode, vector) for one in people for mode, vector in one.templates.items()]
        self._owners = [name for name, _, _ in rows]
        self._vectors = np.array([vector for _, _, vector in rows], np.float32)
        self._limits = np.array([limits.scores[mode] for _, mode, _ in rows], np.float32)

    def search(self, vector: np.ndarray) -> Match | None:
        """The template that a view exceeds by most, or falls short of by least; None in an empty gallery.

        Args:
            vector: d float32 of length 1.
        """
        if not self._owners:
            return None
        scores = self._vectors @ vector
        margins = scores - self._limits
        best = int(np.argmax(margins))
        return Match(self._owners[best], float(scores[best]), float(margins[best]))


class Votes:
    """What the views of one track agree on.

    Somebody is accepted once `needed` views match, they have two thirds of the weight of all views so far,
    and the mean margin of all views, by weight, is above 0. So one lucky view among many does not suffice,
    and trying for longer does not help. Views that match two people are contradictory: then nobody is.

    Args:
        needed: matching views, 3 or more.
    """

    def __init__(self, needed: int = 3) -> None:
        if needed < 3:
            raise UsageError(f"{needed} views are too few to decide by", remedy="use 3 or more")
        self.needed = needed
        self.views = 0
        self.best = -1.0
        self._weight = 0.0
        self._margins = 0.0
        self._matching: dict[str, int] = {}
        self._matching_weight = 0.0

    def add(self, match: Match | None, weight: float) -> str | None:
        """Count a view.

        Args:
            match: what `Gallery.search` said.
            weight: above 0; of a large and sharp view 1.

        Returns:
            Who is accepted by now, or None.
        """
        self.views += 1
        self._weight += weight
        self._margins += weight * (match.margin if match else -1.0)
        if match:
            self.best = max(self.best, match.score)
        if match and match.margin > 0:
            self._matching[match.name] = self._matching.get(match.name, 0) + 1
            self._matching_weight += weight
        if len(self._matching) != 1:
            return None
        ((name, count),) = self._matching.items()
        agreed = self._matching_weight >= _AGREE * self._weight and self._margins > 0
        return name if count >= self.needed and agreed else None


# --------------------------------------------------------------------------------------------- lock-out


def _boot() -> tuple[str, float]:
    """Id of this boot, and seconds since it, sleep included; nobody can set that clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), time.clock_gettime(
            time.CLOCK_BOOTTIME
        )
    except (OSError, AttributeError):
        return "", time.monotonic()


def pause_s(failures: int) -> float:
    """How long nobody may try after so many failures in a row, seconds."""
    if failures <= FREE_FAILURES:
        return 0.0
    return min(_FIRST_PAUSE_S * 2.0 ** min(failures - FREE_FAILURES - 1, 30), _LONGEST_PAUSE_S)


def remaining_s(state: Lockout, *, now: float | None = None, boot: tuple[str, float] | None = None) -> float:
    """How long nobody may try, seconds; brings `state` up to the clocks.

    Within a boot the time since it counts, which nobody can set. After another one only the wall clock
    tells; if it lies before the last use it was set back, or there is none and it starts anew: then the
    pause that was left at the last use begins again. A wall clock set forward over a restart is not noticed.

    Args:
        state: changed in place.
        now: wall clock, seconds since 1970; by default the real one.
        boot: id of the boot and seconds since; by default the real ones.
    """
    now = time.time() if now is None else now
    boot = _boot() if boot is None else boot
    if state.boot != boot[0]:
        left = max(0.0, state.until - max(now, state.seen))
        state.boot, state.until_boot = boot[0], boot[1] + left
    left = max(0.0, state.until_boot - boot[1])
    state.seen = max(state.seen, now)
    return left


def count_failure(state: Lockout, *, now: float | None = None, boot: tuple[str, float] | None = None) -> None:
    """One more failure in a row; starts the pause that follows from it."""
    now = time.time() if now is None else now
    boot = _boot() if boot is None else boot
    state.failures += 1
    pause = pause_s(state.failures)
    state.seen = max(state.seen, now)
    state.until = state.seen + pause
    state.boot, state.until_boot = boot[0], boot[1] + pause


def clear(state: Lockout) -> None:
    """After a success."""
    state.failures = 0
    state.until = state.until_boot = 0.0
