"""What a run amounted to: counted in fixed memory, printed at its end or while it runs."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field
from typing import Any, TextIO

from edge.drawing import status_of
from edge.sinks.base import Canvas, Sink
from edge.types import Analysis, Frame

_LOWEST_MS, _STEP, _BINS = 1e-3, 1.02, 1050  # 1 microsecond to 18 minutes
_LOG_STEP = math.log(_STEP)


class Histogram:
    """Durations, counted in bins that each are 2 % wider than the one before: percentiles to 1 %.

    A sorted list would be exact, and grow for as long as the program runs.
    """

    __slots__ = ("_bins", "count", "max", "sum")

    def __init__(self) -> None:
        self._bins = [0] * _BINS
        self.count = 0
        self.sum = 0.0
        self.max = 0.0

    def add(self, ms: float) -> None:
        """Count one duration, milliseconds."""
        place = int(math.log(ms / _LOWEST_MS) / _LOG_STEP) if ms > _LOWEST_MS else 0
        self._bins[min(place, _BINS - 1)] += 1
        self.count += 1
        self.sum += ms
        if ms > self.max:
            self.max = ms

    @property
    def mean(self) -> float:
        """Exact mean, milliseconds; 0 without values."""
        return self.sum / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """The value that `percent` of all values do not exceed, milliseconds; 0 without values."""
        needed = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for place, number in enumerate(self._bins):
            seen += number
            if seen >= needed:
                return min(_LOWEST_MS * _STEP ** (place + 0.5), self.max)
        return self.max


STAGES = {
    "capture": "wait for the frame",
    "face": "find the faces",
    "invoke": "of that, the bare model",
    "track": "follow them",
    "attributes": "mask state and gender",
    "attributes_invoke": "of that, the bare model",
    "identity": "names",
    "identity_invoke": "of that, the bare model",
    "unmask": "hand over what to complete",
    "unmask_invoke": "beside the loop, the bare model",
    "total": "capture to result",
    "sinks": "show and write",
    "loop": "whole loop per frame",
    "frame_age": "capture to result, by the clock of the frame",
}


@dataclass(slots=True)
class RunReport:
    """Counters of a run; grows with nothing.

    Attributes:
        source: name of the source.
        frames: analysed.
        seconds: from the first frame's arrival to the last one's end.
        dropped: frames of a live source that were never analysed.
        faces: found, summed over all frames.
        with_faces: frames with at least one.
        tracks: ids given.
        rejected: tracks of these that were taken for no face.
        stages: durations by stage; keys as in `STAGES`, those without a value missing.
        skipped: frames by sink that could not keep up.
        failed: pictures of the source that could not be read.
        first_result: `time.monotonic()` of the first analysis, or None.
        ended: why the run ended: `end`, `frames`, `seconds`, `window`, `SIGINT`, `SIGTERM` or `error`.
    """

    source: str = ""
    frames: int = 0
    seconds: float = 0.0
    dropped: int = 0
    faces: int = 0
    with_faces: int = 0
    tracks: int = 0
    rejected: int = 0
    stages: dict[str, Histogram] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    first_result: float | None = None
    ended: str = "end"

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def add(self, stage: str, ms: float) -> None:
        """Count a duration of a stage, milliseconds."""
        histogram = self.stages.get(stage)
        if histogram is None:
            histogram = self.stages[stage] = Histogram()
        histogram.add(ms)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dictionary."""
        return {
            "source": self.source,
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "fps": round(self.fps, 2),
            "dropped": self.dropped,
            "faces": self.faces,
            "frames_with_faces": self.with_faces,
            "tracks": self.tracks,
            "rejected": self.rejected,
            "skipped": dict(self.skipped),
            "failed": self.failed,
            "ended": self.ended,
            "stages_ms": {
                stage: {
                    "mean": round(one.mean, 3),
                    "p50": round(one.percentile(50), 3),
                    "p99": round(one.percentile(99), 3),
                    "max": round(one.max, 3),
                }
                for stage, one in self.stages.items()
            },
        }

    def text(self) -> str:
        """A few lines for people."""
        speed = f"{self.seconds:.2f} s, {self.fps:.1f} fps, {self.dropped} dropped"
        found = f"{_count(self.faces, 'face')} in {_count(self.with_faces, 'frame')}"
        lines = [
            f"{self.source}: {_count(self.frames, 'frame')} in {speed}",
            f"{found}, {_count(self.tracks, 'track')}"
            + (f", {self.rejected} of them taken for no face" if self.rejected else ""),
        ]
        wide = max((len(stage) for stage in self.stages), default=0) + 1
        if self.stages:
            lines.append(f"{'ms':{wide}}{'p50':>9}{'p99':>9}{'max':>9}")
        for stage, words in STAGES.items():
            if one := self.stages.get(stage):
                times = (one.percentile(50), one.percentile(99), one.max)
                lines.append(f"{stage:{wide}}{times[0]:9.2f}{times[1]:9.2f}{times[2]:9.2f}  {words}")
        for name, number in self.skipped.items():
            lines.append(f"{name} could not keep up: {_count(number, 'frame')} left out")
        if self.failed:
            lines.append(f"{_count(self.failed, 'picture')} could not be read")
        return "\n".join(lines)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


class SummarySink(Sink):
    """Prints the report of the run at its end.

    Args:
        stream: by default standard output as it is then.
    """

    name = "summary"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def finish(self, report: RunReport) -> None:
        if report.ended == "error" and not report.frames:
            return  # the error says all there is to say
        print(report.text(), file=self._stream or sys.stdout, flush=True)


class StatusSink(Sink):
    """Keeps one line of a terminal up to date while the loop runs.

    Args:
        canvas: knows the frames per second.
        stream: a terminal.
    """

    name = "status"
    _PERIOD_S = 0.2

    def __init__(self, canvas: Canvas, stream: TextIO) -> None:
        self._canvas = canvas
        self._stream = stream
        self._due = 0.0
        self._shown = False
        self._frames = 0

    def write(self, frame: Frame, analysis: Analysis) -> None:
        self._frames += 1
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + self._PERIOD_S
        self._shown = True
        self._stream.write(f"\r{self._frames} frames  {status_of(analysis, self._canvas.fps)}\x1b[K")
        self._stream.flush()

    def close(self) -> None:
        if self._shown:
            self._shown = False
            self._stream.write("\r\x1b[K")
            self._stream.flush()
