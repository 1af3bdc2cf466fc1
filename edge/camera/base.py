"""What every camera source is: a reader thread, a small hand-over box, and an iterator of frames.

Decoding runs in its own thread so that it overlaps with inference. A file hands over every frame and waits
for its consumer; a live camera keeps only its newest frame, so that what is shown is never stale.
"""

from __future__ import annotations

import atexit
import logging
import os
import stat
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from edge.config import FLIPS
from edge.errors import CameraError, InputError, UsageError
from edge.types import Frame

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 5.0
"""Back-off between two attempts to reach a lost camera: the first pause, doubled up to the last."""

CLOSE_S = 0.6
"""How long `close` waits for the reader thread."""

BAD_FRAMES = 10
"""Undecodable frames in a row after which a camera counts as lost; webcams often start with one or two."""


ROTATIONS = (0, 90, 180, 270)


class UnusableCameraError(CameraError):
    """A camera that does not get better by trying again: its software is missing, its format unknown."""


@dataclass(slots=True, frozen=True)
class Turn:
    """How a camera's pictures are put upright: mirrored first, then turned.

    Attributes:
        horizontal: left and right change places.
        vertical: top and bottom change places.
        quarter: then a quarter turn clockwise.
    """

    horizontal: bool = False
    vertical: bool = False
    quarter: bool = False

    @classmethod
    def of(cls, rotation: int = 0, flip: str = "none") -> Turn:
        """The turn for what a user asks for: rotate first, then flip what is seen then.

        Args:
            rotation: degrees clockwise, of `ROTATIONS`.
            flip: one of `FLIPS`; horizontal is what a mirror does.

        Raises:
            UsageError: neither of those.
        """
        if rotation not in ROTATIONS:
            raise UsageError(f"a rotation by {rotation} is not possible", remedy="use 0, 90, 180 or 270")
        if flip not in FLIPS:
            raise UsageError(f"a flip {flip!r} is not possible", remedy=f"use {', '.join(FLIPS)}")
        horizontal, vertical = flip in ("horizontal", "both"), flip in ("vertical", "both")
        if rotation in (90, 270):
            horizontal, vertical = vertical, horizontal  # what comes after a quarter turn, put before it
        half = rotation >= 180
        return cls(horizontal != half, vertical != half, rotation in (90, 270))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The picture, H x W x C, turned; the same array where there is nothing to do."""
        if self.quarter and self.horizontal == self.vertical:
            return cv2.rotate(
                image, cv2.ROTATE_90_COUNTERCLOCKWISE if self.vertical else cv2.ROTATE_90_CLOCKWISE
            )
        if self.horizontal or self.vertical:
            image = cv2.flip(image, -1 if self.horizontal and self.vertical else int(self.horizontal))
        return cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE) if self.quarter else image


class _Box:
    """Hands frames from the reader thread to the consumer.

    Args:
        room: frames held at most.
        newest_only: a frame that finds no room replaces the one that waits, instead of waiting itself.
    """

    def __init__(self, room: int, *, newest_only: bool) -> None:
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._room = room
        self._newest_only = newest_only
        self._ended = False
        self._error: BaseException | None = None
        self.last_put = time.monotonic()
        self.dropped = 0

    def wait_for_room(self) -> bool:
        """Blocks until a frame may be put; False when nobody will take it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._newest_only or len(self._frames) < self._room)
            return not self._ended

    def put(self, frame: Frame) -> None:
        with self._changed:
            if self._ended:
                return
            if self._newest_only and len(self._frames) >= self._room:
                self._frames.popleft()
                self.dropped += 1
            self._frames.append(frame)
            self.last_put = time.monotonic()
            self._changed.notify_all()

    def end(self, error: BaseException | None = None, *, discard: bool = False) -> None:
        """No frame follows. Frames that wait are still handed over, unless discarded."""
        with self._changed:
            if discard:
                self._frames.clear()
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def get(self, patience: float | None) -> Frame | None:
        """The next frame, or None after the last one.

        Raises:
            TimeoutError: no frame was put for `patience` seconds.
        """
        with self._changed:
            while not self._frames:
                if self._ended:
                    error, self._error = self._error, None
                    if error is not None:
                        raise error
                    return None
                left = None if patience is None else self.last_put + patience - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._changed.wait(left)
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame


_started: weakref.WeakSet[Source] = weakref.WeakSet()


class Source:
    """A stream of frames, read in a thread of its own. A context manager.

    Subclasses write `_produce`, which runs in that thread. The thread starts with the `with` block (or with
    the first frame asked for), so that a camera warms up while models load.

    Attributes:
        name: what to call it in messages; never holds a password.
        live: True for cameras, which drop frames that nobody took in time; files lose none.
        fps: frames per second as the source states them, or None.
        size: width, height in pixels, or None until the first frame (and for sets of pictures).
        frame_count: number of frames in all where known beforehand; containers may be off by a few.
        failed: name and reason of each picture of a set that could not be read.
        started: `time.monotonic()` when reading began.
        prepare: called in the reader thread with each picture (`Frame.small` where there is one), for
            `Frame.prepared`. There it runs beside the analysis of the frame before, and on pixels that are
            still in the processor's cache.
    """

    live = False
    _room = 2

    def __init__(
        self,
        name: str,
        *,
        fps: float | None = None,
        size: tuple[int, int] | None = None,
        frame_count: int | None = None,
    ) -> None:
        self.name = name
        self.fps = fps
        self.size = size
        self.frame_count = frame_count
        self.failed: list[tuple[str, str]] = []
        self.started = time.monotonic()
        self.prepare: Callable[[np.ndarray], Any] | None = None
        self._box = _Box(self._room, newest_only=self.live)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._blocked_until = 0.0

    @property
    def dropped(self) -> int:
        """Frames of a live source that a newer one replaced before they were taken."""
        return self._box.dropped

    def start(self) -> None:
        """Starts the reader thread; does nothing when it runs already or the source is closed."""
        if self._thread is not None or self._stop.is_set():
            return
        self.started = self._box.last_put = time.monotonic()
        self._thread = threading.Thread(target=self._read, name=f"camera {self.name}", daemon=True)
        _started.add(self)
        self._thread.start()

    def frames(self) -> Iterator[Frame]:
        """Yields frames until the source ends or is closed, by any thread.

        The image of a frame is never written to again. Frame times are those of capture, for files of
        decoding, on the monotonic clock.

        Raises:
            CameraError: no frame came from a live source for its time-out.
            InputError: a file holds nothing that can be decoded.
        """
        self.start()
        while (frame := self._next()) is not None:
            yield frame
            # A picture may be hundreds of megabytes: do not keep it while waiting for the next one.
            del frame

    def close(self) -> None:
        """Ends `frames()` and the thread; may be called from any thread, and more than once.

        Returns within a second. A thread that is held up in a call of the camera driver or the network is
        left behind, and frees the camera as soon as that call returns.
        """
        self._stop.set()
        self._box.end(discard=True)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_S)
            if thread.is_alive():
                log.debug("%s does not answer; its thread ends as soon as it does", self.name)

    def __enter__(self) -> Source:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> Frame | None:
        return self._box.get(None)

    def _produce(self) -> Generator[Frame, None, None]:
        raise NotImplementedError

    def _read(self) -> None:
        error: BaseException | None = None
        frames = self._produce()
        try:
            # Asking for room first means: never more decoded frames in memory than the box holds.
            while self._box.wait_for_room():
                frame = next(frames, None)
                if frame is None:
                    break
                if self.prepare is not None:
                    picture = frame.image if frame.small is None else frame.small
                    frame = replace(frame, prepared=self.prepare(picture))
                    del picture
                self._box.put(frame)
                del frame
        except Exception as raised:
            error = raised
        finally:
            frames.close()
            self._box.end(error)

    def _may_block(self, seconds: float) -> None:
        self._blocked_until = time.monotonic() + seconds

    def _keep_pace(self, due: float, period: float) -> float:
        """Waits until `due`; returns when the frame after this one is due."""
        self._stop.wait(max(0.0, due - time.monotonic()))
        return max(due, time.monotonic() - period) + period


class LiveSource(Source):
    """A camera: newest frame only, opened again with growing pauses when it is lost.

    Subclasses write `_capture`.

    Args:
        name: as in `Source`.
        timeout: seconds without any frame, also at the start, after which `frames()` raises CameraError.
        call_limit: seconds that one call of the driver may block.
        remedy: what the user can do when the camera stays away.
    """

    live = True
    _room = 1

    def __init__(
        self,
        name: str,
        *,
        timeout: float,
        call_limit: float,
        remedy: str,
        fps: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(name, fps=fps, size=size)
        self._timeout = timeout
        self._call_limit = call_limit
        self._remedy = remedy
        self._trouble = ""

    def _capture(self) -> Generator[tuple[np.ndarray, np.ndarray | None, float], None, None]:
        """Opens the camera once; yields pictures until it is lost, and closes it. Runs in the reader thread.

        Yields:
            `Frame.image`, `Frame.small` and `Frame.time`.

        Raises:
            CameraError: with the reason; it is tried again, unless it is an UnusableCameraError.
        """
        raise NotImplementedError

    def _next(self) -> Frame | None:
        try:
            return self._box.get(self._timeout)
        except TimeoutError:
            trouble = self._trouble or "it does not answer"
            self.close()
            raise CameraError(
                f"no frame from {self.name} for {self._timeout:g} s ({trouble})", remedy=self._remedy
            ) from None

    def _produce(self) -> Generator[Frame, None, None]:
        number, pause = 0, FIRST_PAUSE_S
        while not self._stop.is_set():
            trouble = "it opens, but sends no frames"
            try:
                with closing(self._capture()) as pictures:
                    for image, small, captured in pictures:
                        if self._trouble:
                            log.info("%s sends frames again", self.name)
                        self._trouble, pause = "", FIRST_PAUSE_S
                        trouble = "it stopped sending frames"
                        self.size = (image.shape[1], image.shape[0])
                        yield Frame(image, number, captured, small=small)
                        number += 1
            except UnusableCameraError:
                raise
            except (CameraError, cv2.error) as error:
                trouble = str(error)
            if self._stop.is_set():
                return
            if trouble != self._trouble:
                log.warning("%s: %s; trying again", self.name, trouble)
            self._trouble = trouble
            self._stop.wait(pause)
            pause = min(2 * pause, LAST_PAUSE_S)


class OpenCvCamera(LiveSource):
    """A camera that OpenCV reads. Subclasses write `_connect`.

    Args:
        turn: how its pictures are put upright.
        others: as in `LiveSource`.
    """

    def __init__(self, name: str, *, turn: Turn | None = None, **others: Any) -> None:
        super().__init__(name, **others)
        self._turn = turn or Turn()

    def _connect(self) -> cv2.VideoCapture:
        """Opens the camera. Runs in the reader thread.

        Raises:
            CameraError: with the reason; it is tried again.
        """
        raise NotImplementedError

    def _capture(self) -> Generator[tuple[np.ndarray, np.ndarray | None, float], None, None]:
        capture = self._connect()
        try:
            fps = capture.get(cv2.CAP_PROP_FPS)
            self.fps = fps if 0 < fps <= 1000 else self.fps
            bad = 0
            while not self._stop.is_set() and bad < BAD_FRAMES:
                self._may_block(self._call_limit)
                if not capture.grab():
                    return
                captured = time.monotonic()
                fine, image = capture.retrieve()
                if not fine or image is None or image.size == 0:
                    bad += 1
                    continue
                bad = 0
                yield self._turn.apply(to_bgr8(_unrolled(image, capture))), None, captured
        finally:
            capture.release()


def _unrolled(image: np.ndarray, capture: cv2.VideoCapture) -> np.ndarray:
    """Gives a frame its shape back: OpenCV 4.11 returns BGR3 of a V4L2 device as one row of bytes."""
    if image.shape[0] == 1:
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if height > 1 and image.size == width * height * 3:
            return image.reshape(height, width, 3)
    return image


def to_bgr8(image: np.ndarray) -> np.ndarray:
    """Turns whatever OpenCV decodes into H x W x 3 uint8 BGR, contiguous.

    Args:
        image: H x W or H x W x C; uint8, uint16 (scaled to 8 bits) or float (0..1, clipped). One or two
            channels are grey, four are BGR; the second or fourth is alpha, which is painted over white. Of
            more than four the first three count.

    Raises:
        ValueError: another type of number.
    """
    if image.dtype == np.uint16:
        # OpenCV scales planes of up to four channels only; folding them into the width suits any number.
        flat = np.ascontiguousarray(image).reshape(image.shape[0], -1)
        image = cv2.convertScaleAbs(flat, alpha=255 / 65535).reshape(image.shape)
    elif np.issubdtype(image.dtype, np.floating):
        image = (np.nan_to_num(image).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise ValueError(f"pixels of type {image.dtype} are not supported")
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if channels in (2, 4):
        alpha = image[..., -1]
        colour = image[..., :3] if channels == 4 else cv2.cvtColor(image[..., 0].copy(), cv2.COLOR_GRAY2BGR)
        return _over_white(np.array(colour), alpha)
    return np.ascontiguousarray(image[..., :3])


def _over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blends in place, in strips: temporaries of 100 megapixels would not fit a small board's memory."""
    for top in range(0, colour.shape[0], 256):
        strip, a = colour[top : top + 256], alpha[top : top + 256, :, None].astype(np.uint16)
        strip[:] = (strip * a + 255 * (255 - a) + 127) // 255
    return colour


def check_file(path: str, name: str, *, remedy: str) -> int:
    """Size in bytes of a regular file with something in it; anything else (a pipe would block) is refused.

    Raises:
        InputError: with what is wrong.
    """
    try:
        info = os.stat(path)
    except FileNotFoundError:
        raise InputError(f"{name} does not exist", remedy="check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name} cannot be read ({reason})", remedy="check the path") from None
    if not stat.S_ISREG(info.st_mode):
        kind = "a folder" if stat.S_ISDIR(info.st_mode) else "no file"
        raise InputError(f"{name} is {kind}", remedy=remedy)
    if not info.st_size:
        raise InputError(f"{name} is empty", remedy=remedy)
    if not os.access(path, os.R_OK):
        raise InputError(f"{name} cannot be read (Permission denied)", remedy="check its permissions")
    return info.st_size


def quiet_opencv() -> None:
    """Keeps OpenCV and its FFmpeg from writing to stderr what this package reports in its own words.

    Does nothing where the user asks OpenCV for its log by OPENCV_LOG_LEVEL or OPENCV_FFMPEG_LOGLEVEL.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read at the first capture
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV 5 moved it, and version 4's stubs do not know it.
        logs = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
        logs.setLogLevel(0)


@atexit.register
def _close_all() -> None:
    """Stops reader threads before the interpreter goes.

    Python ends a daemon thread that asks for the interpreter while that shuts down; inside OpenCV's C++ this
    aborts the process. So wait for a thread whose call returns about now, and leave alone one that is blocked
    for much longer than the shutdown takes.
    """
    for source in list(_started):
        if not source._stop.is_set():
            source.close()
        blocked = source._blocked_until - time.monotonic()
        if source._thread is not None and blocked < 1.5:
            # Half a second more, since FFmpeg is late by some polls of its own.
            source._thread.join(max(0.0, blocked) + 0.5)
