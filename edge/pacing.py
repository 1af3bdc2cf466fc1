"""Slows a camera loop down while the board is hot or throttled, and back up when it has cooled."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from edge import board

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Time between two looks at the board; heat takes longer than that to come and go."""

STEP_S = 15.0
"""Time between two changes of the rate: what the last one did to the temperature is to be seen first."""

COOLER_BY = 5.0
"""Degrees below the threshold from which the board counts as cool again, so that the rate does not swing."""

LEVELS = 3
"""How often the rate is halved at most."""

LONGEST_S = 1.0
"""Longest time between two frames that heat may cause; slower than that is no camera loop any more."""


_SLOWED = 0b0101
"""Under-voltage and throttled. Not the soft limit, which some boards reach at 60 °C, hardly slowing down."""


class Pacer:
    """Tells the loop how long to rest before each frame.

    While the board is at `hot_c` or above, or throttled, the rate is halved every 15 s, down to an eighth of
    what it was, or one frame a second. When it has been 5 degrees below and not throttled for 15 s, the rate
    doubles.

    Args:
        hot_c: degrees Celsius.
        root: of the file system whose sensors are read.
        clock: seconds, monotonic.

    Attributes:
        level: how often the rate is halved now; 0 is full speed. Optional work should rest when it is not 0.
        why: what the board said when it was last found hot, for people; "" at full speed.
        temperature_c: at the last look, or None.
    """

    def __init__(
        self, hot_c: float = 80.0, *, root: Path = board.ROOT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.level = 0
        self.why = ""
        self.temperature_c: float | None = None
        self._hot_c = hot_c
        self._root = root
        self._clock = clock
        self._look_at = clock() + LOOK_S
        self._step_at = 0.0
        self._cool_since: float | None = None
        self._full = 0.0
        self._begun: float | None = None

    def rest(self) -> float:
        """Seconds to wait before the next frame is asked for; to be called right before each.

        What lies between two calls at full speed is the natural time of a frame, the measure of slower rates.
        """
        now = self._clock()
        begun, self._begun = self._begun, now
        if begun is None:
            return 0.0
        took = now - begun
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look(now)
        if not self.level:
            # Smoothed over about ten frames: one that was late should not become the measure.
            self._full += (0.1 if self._full else 1.0) * (took - self._full)
            return 0.0
        rest = max(0.0, min(self._full * 2**self.level, LONGEST_S) - took)
        self._begun = now + rest
        return rest

    def _look(self, now: float) -> None:
        self.temperature_c = board.temperature_c(self._root)
        bits = (board.throttled_now(self._root) or 0) & _SLOWED
        hot = self.temperature_c is not None and self.temperature_c >= self._hot_c
        cool = self.temperature_c is None or self.temperature_c <= self._hot_c - COOLER_BY
        if hot or bits:
            self._cool_since = None
            if self.level < LEVELS and (not self.level or now >= self._step_at):
                parts = [f"{self.temperature_c:.0f} °C"] if self.temperature_c is not None else []
                self._change(now, self.level + 1, ", ".join([*parts, *board.throttled_names(bits)]))
        elif not cool:
            self._cool_since = None
        elif self.level:
            if self._cool_since is None:
                self._cool_since = now
            if now - self._cool_since >= STEP_S and now >= self._step_at:
                self._change(now, self.level - 1, self.why)

    def _change(self, now: float, level: int, why: str) -> None:
        slower = level > self.level
        self.level, self.why, self._step_at = level, why if level else "", now + STEP_S
        if slower:
            log.warning("slowing down (%s): %s", why, self.words)
        elif self.temperature_c is None:
            log.info("speeding up again: %s", self.words)
        else:
            log.info("speeding up again (%.0f °C): %s", self.temperature_c, self.words)

    @property
    def words(self) -> str:
        """The rate in words, such as "1/4 of the frame rate"."""
        return f"1/{2**self.level} of the frame rate" if self.level else "full frame rate"
