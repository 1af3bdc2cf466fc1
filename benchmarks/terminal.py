"""What the commands of the benchmarks share: how far they are, and the numbers that they take."""

from __future__ import annotations

import argparse
import sys
import time

_EVERY_S = 10.0


class _Progress:
    """One line on a terminal that the next overwrites; elsewhere a line every ten seconds, so that a log
    shows that it goes on.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        if sys.stderr is None:
            return
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif text and time.monotonic() - self._last > _EVERY_S:
            self._last = time.monotonic()
            print(text, file=sys.stderr, flush=True)


progress = _Progress()
"""Tells how far a benchmark is; with "" it takes that back."""


def whole_number(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def number_to(text: str, most: float, what: str) -> float:
    """A number from 0 to `most`, for argparse; `what` it is not, for the message."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no {what}")
    return value


def duration(text: str) -> float:
    """A time from 0 to a day in its unit's seconds, for argparse; 0 is for where it is a lower limit."""
    return number_to(text, 86400, "time in seconds")


def some_time(text: str) -> float:
    """Like `duration`, without 0."""
    value = duration(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is no time to measure in")
    return value
