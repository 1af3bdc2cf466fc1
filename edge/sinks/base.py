"""What every sink is, the annotated picture they share, and a thread for slow ones."""

from __future__ import annotations

import logging
import threading
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from edge.types import Analysis, Frame

if TYPE_CHECKING:
    from edge.sinks.summary import RunReport

log = logging.getLogger(__name__)

CLOSE_S = 10.0
"""How long closing waits for a sink that hangs, a dead network disk for example."""


class Sink:
    """Takes every result of the loop. A context manager; this one throws all away.

    Attributes:
        name: what to call it in messages.
        skipped: frames it could not keep up with; only with live sources.
        stop_requested: True once the user asked here to end the loop.
    """

    name = "none"
    skipped = 0
    stop_requested = False

    def write(self, frame: Frame, analysis: Analysis) -> None:
        """Take one result. Neither argument is ever changed later, so both may be kept.

        Raises:
            SinkError: the output cannot be written.
        """

    def finish(self, report: RunReport) -> None:
        """Called once by the loop, after its last frame and after all sinks are closed."""

    def close(self) -> None:
        """Write out what is pending; may be called more than once.

        Raises:
            SinkError: the output could not be completed.
        """

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Canvas:
    """Draws the annotated picture of a frame when the first sink asks for it, and hands it to the others.

    Attributes:
        fps: frames per second to write into the next pictures, or None; set by the loop.

    Args:
        beside: show the camera's picture and, right of it, the one with masked faces completed; without it
            they are completed in their place.
    """

    def __init__(self, *, beside: bool = False) -> None:
        self._beside = beside
        self.fps: float | None = None
        self._lock = threading.Lock()
        self._last: tuple[Analysis, np.ndarray] | None = None

    def picture(self, frame: Frame, analysis: Analysis) -> np.ndarray:
        """The annotated picture, H x W x 3 uint8 BGR (`beside`: H x 2 W); shared, not to be written to."""
        with self._lock:
            if self._last is None or self._last[0] is not analysis:
                from edge.drawing import annotate

                self._last = analysis, annotate(frame.image, analysis, fps=self.fps, beside=self._beside)
            return self._last[1]


class Background(Sink):
    """Runs another sink in a thread of its own.

    Args:
        sink: used, once opened, by that thread alone, which also closes it.
        capacity: results that may wait.
        drop: when no more may wait, give up the oldest (live sources) instead of waiting (files).
    """

    def __init__(self, sink: Sink, *, capacity: int, drop: bool) -> None:
        self.sink = sink
        self.name = sink.name
        self._capacity = capacity
        self._drop = drop
        self._waiting: deque[tuple[Frame, Analysis]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    def write(self, frame: Frame, analysis: Analysis) -> None:
        with self._changed:
            if not self._drop:
                self._changed.wait_for(lambda: self._error or len(self._waiting) < self._capacity)
            self._raise()
            if self._ended:
                return
            if len(self._waiting) >= self._capacity:
                self._waiting.popleft()
                self.skipped += 1
            self._waiting.append((frame, analysis))
            self._changed.notify_all()

    def finish(self, report: RunReport) -> None:
        self.sink.finish(report)

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(CLOSE_S if self._drop else None)
        if self._thread.is_alive():
            log.warning("%s does not answer: it may be incomplete", self.name)
        self._raise()

    def _raise(self) -> None:
        """Hand an error of the thread to the loop."""
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            with self.sink:
                while True:
                    with self._changed:
                        self._changed.wait_for(lambda: self._waiting or self._ended)
                        if not self._waiting:
                            return
                        item = self._waiting.popleft()
                        self._changed.notify_all()
                    self.sink.write(*item)
                    del item
        except BaseException as error:
            with self._changed:
                self._error = error
                self._waiting.clear()
                self._changed.notify_all()
