"""An annotated video file."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path

import cv2
import numpy as np

from edge.camera.base import quiet_opencv
from edge.errors import SinkError
from edge.geometry import letterbox
from edge.sinks.base import Canvas, Sink
from edge.types import Analysis, Frame

log = logging.getLogger(__name__)

_DEFAULT_FPS = 15.0
_MIN_FREE = 16 << 20  # bytes; OpenCV does not report a full disk, so writing ends before it is full
_CHECK_S = 1.0
_MAX_FILL_S = 2.0  # a lost camera may be away for hours, which the clip shall not show


class VideoSink(Sink):
    """Writes mp4 (MPEG-4 part 2) or avi (Motion JPEG) files, an existing one anew.

    The first frame fixes the size; later ones of another size are fitted into it. With a live source the
    clip keeps real time: a frame is repeated or left out where the camera or the loop was not even.

    Args:
        path: of the video; the suffix decides its kind.
        canvas: draws the pictures.
        live: frames come at uneven times.
        fps: frames per second of the clip; by default 15.

    Raises:
        SinkError: the file cannot be written.
    """

    def __init__(self, path: str, canvas: Canvas, *, live: bool = False, fps: float | None = None) -> None:
        self.name = f"video {path}"
        self._path = Path(path).absolute()  # FFmpeg takes what stands before a colon for a protocol
        self._canvas = canvas
        self._live = live
        self._fps = min(max(fps or _DEFAULT_FPS, 1.0), 120.0)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._fitted = np.empty(0, np.uint8)
        self._start = self._check_at = 0.0
        self._written = 0
        self._slot = -1  # of the frame written last, counted from the first by time
        quiet_opencv()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("wb"):
                pass
        except OSError as error:
            raise SinkError(f"cannot write {path} ({error.strerror})", remedy="give another file") from None

    def write(self, frame: Frame, analysis: Analysis) -> None:
        picture = self._canvas.picture(frame, analysis)
        height, width = picture.shape[:2]
        if self._writer is None:
            self._writer = self._open(width, height)
            self._start = frame.time
        repeat = 1
        if self._live:
            slot = int((frame.time - self._start) * self._fps + 0.5)
            if slot <= self._slot:
                return
            repeat = min(slot - self._slot, int(_MAX_FILL_S * self._fps))
            self._slot = slot
        if (width, height) != self._size:
            if self._fitted.size == 0:
                self._fitted = np.zeros((self._size[1], self._size[0], 3), np.uint8)
            letterbox(picture, self._size, self._fitted)
            picture = self._fitted
        for _ in range(repeat):
            self._writer.write(picture)
        self._written += repeat
        now = time.monotonic()
        if now >= self._check_at:
            self._check_at = now + _CHECK_S
            if shutil.disk_usage(self._path.parent).free < _MIN_FREE:
                raise SinkError(f"the disk of {self._path} is full", remedy="make room, or write elsewhere")

    def close(self) -> None:
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        # A writer that ran out of disk or hit a size limit says nothing: look at what it left.
        check = cv2.VideoCapture(str(self._path))
        complete = check.isOpened() and check.get(cv2.CAP_PROP_FRAME_COUNT) >= self._written and check.grab()
        check.release()
        if not complete:
            raise SinkError(f"{self._path} is not complete", remedy="check the free space of its disk")
        log.info("wrote %s", self._path)

    def _open(self, width: int, height: int) -> cv2.VideoWriter:
        code = cv2.VideoWriter.fourcc(*("MJPG" if self._path.suffix.lower() == ".avi" else "mp4v"))
        self._size = (width + width % 2, height + height % 2)  # codecs store colour at half size
        for backend in (cv2.CAP_FFMPEG, cv2.CAP_ANY):
            try:
                writer = cv2.VideoWriter(str(self._path), backend, code, self._fps, self._size)
            except cv2.error:
                continue
            if writer.isOpened():
                return writer
        if os.path.exists(self._path) and not os.path.getsize(self._path):
            self._path.unlink()
        raise SinkError(
            f"cannot write a {self._path.suffix[1:]} video of {width}x{height}", remedy="use .avi or .mp4"
        )
