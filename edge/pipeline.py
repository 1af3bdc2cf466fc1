"""The camera loop: capture, analyse, track, hand to the sinks."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from edge.camera.base import Source
from edge.sinks.base import Canvas, Sink
from edge.sinks.summary import RunReport
from edge.tracking import Tracker
from edge.types import Analysis, Face, Frame

if TYPE_CHECKING:
    from edge.pacing import Pacer

log = logging.getLogger(__name__)

_PICTURES_FPS = 25.0  # time between pictures of a set, for the tracker; they have no clock of their own


class Detector(Protocol):
    """What finds the faces of a picture; `edge.tasks.face.FaceDetector` is one.

    Attributes:
        last_invoke_ms: time of the bare model in the last call, milliseconds.
    """

    last_invoke_ms: float

    def detect(self, image: np.ndarray) -> tuple[Face, ...]:
        """Faces of a picture, H x W x 3 uint8 BGR, by falling score."""
        ...


@runtime_checkable
class PreparingDetector(Detector, Protocol):
    """A detector whose first step can be done ahead, in another thread."""

    def prepare(self, image: np.ndarray) -> Any:
        """That step, for a picture as `detect` takes it; from any thread."""
        ...

    def detect_prepared(self, prepared: Any) -> tuple[Face, ...]:
        """What `detect` says of the picture that was prepared."""
        ...


class Labeller(Protocol):
    """What tells more about faces; `edge.tasks.attributes.AttributesVoter` is one.

    Attributes:
        rejected: tracks that it took for no face.
    """

    rejected: int

    @property
    def last_invoke_ms(self) -> float:
        """Time of the bare model in the last call, summed over the faces it looked at, milliseconds."""
        ...

    def label(self, image: np.ndarray, faces: Sequence[Face]) -> tuple[Face, ...]:
        """Faces of a picture that stands for itself, H x W x 3 uint8 BGR; without those that are none."""
        ...

    def update(
        self, image: np.ndarray, faces: Sequence[Face], time_s: float, tracks: Collection[int]
    ) -> tuple[Face, ...]:
        """Faces of the next frame, with track ids; `tracks` are all ids that the tracker remembers."""
        ...


class Completer(Protocol):
    """What completes masked faces; `edge.unmasking.LiveUnmasker` is one.

    Attributes:
        finished_ms: times of the bare model since the call before, milliseconds.
    """

    finished_ms: list[float]

    def label(self, image: np.ndarray, faces: Sequence[Face]) -> tuple[Face, ...]:
        """Faces of a picture that stands for itself, H x W x 3 uint8 BGR."""
        ...

    def update(
        self, image: np.ndarray, faces: Sequence[Face], time_s: float, tracks: Collection[int]
    ) -> tuple[Face, ...]:
        """Faces of the next frame, with track ids; `tracks` are all ids that the tracker remembers."""
        ...

    def close(self) -> None:
        """End its thread."""
        ...


class _Stopped(Exception):
    """Raised by a signal while the loop waits for a frame."""


class Pipeline:
    """Runs the loop once, over everything a source gives.

    A file loses no frame. A live source keeps only its newest frame, and slow sinks are expected to skip by
    themselves (see `edge.sinks.open_sink`), so that results are as fresh as the machine allows.

    Each `Analysis` has these `timing_ms`: `capture` (the loop waited this long for the frame; decoding runs
    in a thread of the source meanwhile), `face`, `attributes` (with a labeller), `identity` (with a namer),
    `unmask` (with an unmasker: handing over, not the model, which runs beside the loop), `total` (from asking
    for the frame to the end of the analysis) and `frame_age` (from the capture to the end of the analysis).
    Its `time` is that of capture since the loop began; for clips it is the position in the clip.

    Pictures of a set are labelled each by itself: what lies at the same place in two photos need not be the
    same person.

    Args:
        source: frames; opened and closed by `run`.
        detector: finds the faces.
        sinks: take the results in this order; closed by `run`.
        tracker: by default a new one.
        labeller: tells more about the faces; None leaves them as they are found.
        namer: tells who they are, likewise.
        unmasker: completes masked faces for what is shown, after all else; closed by `run`.
        canvas: the one the sinks share; told the frames per second.
        pacer: slows a live source down while the board is hot; files are never slowed down.
        seconds, frames: end after this long or this many frames; None for never.
        on_first: called once, after the first analysis and before the sinks get it.
    """

    def __init__(
        self,
        source: Source,
        detector: Detector,
        sinks: Sequence[Sink] = (),
        *,
        tracker: Tracker | None = None,
        labeller: Labeller | None = None,
        namer: Labeller | None = None,
        unmasker: Completer | None = None,
        canvas: Canvas | None = None,
        pacer: Pacer | None = None,
        seconds: float | None = None,
        frames: int | None = None,
        on_first: Callable[[], None] | None = None,
    ) -> None:
        self._source = source
        self._detector = detector
        self._preparing = detector if isinstance(detector, PreparingDetector) else None
        self._sinks = list(sinks)
        self._tracker = Tracker() if tracker is None else tracker
        self._labeller = labeller
        self._namer = namer
        self._unmasker = unmasker
        self._canvas = Canvas() if canvas is None else canvas
        self._pacer = pacer if source.live else None
        self._seconds = seconds
        self._frames = frames
        self._on_first = on_first
        self._ended = ""
        self._stopped = threading.Event()
        self._waiting = False

    def stop(self, reason: str = "stopped") -> None:
        """End the loop after the frame at hand; from any thread. A wait for a camera ends at once."""
        self._ended = self._ended or reason
        self._stopped.set()
        self._source.close()

    def run(self, *, handle_signals: bool = False) -> RunReport:
        """Run to the end of the source, a limit, or a signal.

        Args:
            handle_signals: end cleanly on SIGINT, SIGTERM and SIGHUP; only in the main thread. A second
                SIGINT interrupts at once.

        Returns:
            What happened; the sinks are closed, and their `finish` has been called with it.

        Raises:
            MaskedgeError: of the source, the detector or a sink. The report has been handed out before.
        """
        report = RunReport(source=self._source.name)
        error: BaseException | None = None
        with contextlib.ExitStack() as stack:
            if handle_signals:
                stack.enter_context(self._signals())
            if self._seconds is not None:
                # For a camera that gives no frame; between frames the loop looks at the clock itself.
                timer = threading.Timer(self._seconds, self.stop, ("seconds",))
                timer.daemon = True
                stack.callback(timer.cancel)
                timer.start()
            try:
                if self._preparing is not None:
                    self._source.prepare = self._preparing.prepare
                with self._source:
                    self._loop(report)
            except _Stopped:
                pass
            except BaseException as raised:
                error = raised
            closing = [sink.close for sink in self._sinks]
            if self._unmasker is not None:
                closing.insert(0, self._unmasker.close)
            for close in closing:
                try:
                    close()
                except Exception as raised:
                    error = error or raised
            report.ended = "error" if error else self._ended or "end"
            report.dropped = self._source.dropped
            report.failed = len(getattr(self._source, "failed", ()))
            report.tracks = self._tracker.seen
            report.rejected = self._labeller.rejected if self._labeller else 0
            report.skipped = {sink.name: sink.skipped for sink in self._sinks if sink.skipped}
            for sink in self._sinks:
                sink.finish(report)
        if error is not None:
            raise error
        return report

    def _loop(self, report: RunReport) -> None:
        clock = time.monotonic
        source, detector, tracker, canvas = self._source, self._detector, self._tracker, self._canvas
        labeller, namer, pacer = self._labeller, self._namer, self._pacer
        unmasker = self._unmasker
        stages = ("attributes", labeller), ("identity", namer), ("unmask", unmasker)
        frames = source.frames()
        rate = None if source.live else source.fps or _PICTURES_FPS
        begun = asked = turned = clock()
        deadline = None if self._seconds is None else begun + self._seconds
        first = 0.0
        period = 0.0
        while not self._ended:
            self._waiting = True
            if pacer is not None and (rest := pacer.rest()):
                self._stopped.wait(rest)
                asked = clock()
            frame = None if self._ended else next(frames, None)
            self._waiting = False
            if frame is None:
                return
            got = clock()
            faces = self._detect(frame)
            detected = clock()
            # A file is read as fast as the machine can: only its own clock tells how far a face moved.
            at = frame.time - begun if rate is None else frame.id / rate
            faces = tracker.update(faces, at)
            tracked = done = clock()
            timing = {"capture": (got - asked) * 1e3, "face": (detected - got) * 1e3}
            for stage, tells in stages:
                if tells is None:
                    continue
                if frame.name is None:
                    faces = tells.update(frame.image, faces, at, tracker.ids)
                else:
                    faces = tells.label(frame.image, faces)
                before, done = done, clock()
                timing[stage] = (done - before) * 1e3
            age = (done - frame.time) * 1e3
            timing["total"] = (done - asked) * 1e3
            timing["frame_age"] = age
            height, width = frame.image.shape[:2]
            analysis = Analysis(frame.name, frame.id, max(at, 0.0), width, height, faces, timing)
            if not report.frames:
                first = got
                report.first_result = done
                if self._on_first:
                    self._on_first()
            for sink in self._sinks:
                sink.write(frame, analysis)
                if sink.stop_requested:
                    self._ended = self._ended or sink.name
            del frame  # a picture may be huge: not kept while the next one is decoded
            end = clock()
            report.frames += 1
            report.seconds = end - first
            report.faces += len(faces)
            report.with_faces += bool(faces)
            for stage, ms in timing.items():
                report.add(stage, ms)
            report.add("invoke", detector.last_invoke_ms)
            report.add("track", (tracked - detected) * 1e3)
            if labeller is not None:
                report.add("attributes_invoke", labeller.last_invoke_ms)
            if namer is not None:
                report.add("identity_invoke", namer.last_invoke_ms)
            if unmasker is not None:
                for ms in unmasker.finished_ms:
                    report.add("unmask_invoke", ms)
            report.add("sinks", (end - done) * 1e3)
            report.add("loop", (end - asked) * 1e3)
            # Smoothed over about ten frames, so that the number can be read.
            period += (1.0 if not period else 0.1) * (end - turned - period)
            canvas.fps = 1 / period if period > 0 else None
            asked = turned = end
            if self._frames is not None and report.frames >= self._frames:
                self._ended = self._ended or "frames"
            if deadline is not None and end >= deadline:
                self._ended = self._ended or "seconds"

    def _detect(self, frame: Frame) -> tuple[Face, ...]:
        """Faces of a frame, found in its small picture where it has one; in pixels of `frame.image`."""
        picture = frame.image if frame.small is None else frame.small
        # The first frames may have been read before the source knew that there is something to prepare.
        if self._preparing is not None and frame.prepared is not None:
            faces = self._preparing.detect_prepared(frame.prepared)
        else:
            faces = self._detector.detect(picture)
        if picture is frame.image:
            return faces
        y, x = np.divide(frame.image.shape[:2], picture.shape[:2]).tolist()
        return tuple(face.scaled(x, y) for face in faces)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """End the loop between two frames on a signal, so that no file is left with half a line."""
        before: dict[int, Any] = {}

        def handle(number: int, _: FrameType | None) -> None:
            self._ended = self._ended or signal.Signals(number).name
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            if self._waiting:
                self._waiting = False
                raise _Stopped

        for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[caught] = signal.signal(caught, handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
