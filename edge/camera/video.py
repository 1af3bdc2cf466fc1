"""Video files, animated GIFs among them; local or behind a http(s) address."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator

import cv2

from edge.camera.base import Source, check_file, to_bgr8
from edge.camera.network import failure, is_url, open_stream, public_url, why
from edge.errors import InputError
from edge.types import Frame

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".ogv",
    ".gif", ".mjpg", ".mjpeg",
)  # fmt: skip
NETWORK_LIMIT_S = 15.0
REMEDY = "give a video that FFmpeg can read, such as mp4, avi, mkv, webm or gif"


class VideoFile(Source):
    """Every frame of a video, in order, as it should be shown (turned as the container says).

    Args:
        path: a file, or a http(s) address of one.
        fps: replay pace in frames per second; None reads as fast as frames are taken.
        loop: begins anew at the end, for ever; ids go on.
        name: as in `Source`; by default the path.

    Attributes:
        pace: as `fps` above; may be changed.

    Raises:
        InputError: there is no such file, or no video in it.
    """

    def __init__(
        self, path: str, *, fps: float | None = None, loop: bool = False, name: str | None = None
    ) -> None:
        self._path = path
        self.pace = fps
        self._loop = loop
        shown = name or (public_url(path) if is_url(path) else path)
        if not is_url(path):
            check_file(path, shown, remedy=REMEDY)
            # FFmpeg would take what stands before a colon in a relative path for a protocol.
            self._path = os.path.abspath(path)
        # Opened here so that what is wrong shows at once, and kept for the thread to go on with.
        self._opened: cv2.VideoCapture | None = self._open(shown)
        width, height, count, rate = (
            self._opened.get(prop)
            for prop in (
                cv2.CAP_PROP_FRAME_WIDTH,
                cv2.CAP_PROP_FRAME_HEIGHT,
                cv2.CAP_PROP_FRAME_COUNT,
                cv2.CAP_PROP_FPS,
            )
        )
        super().__init__(
            shown,
            fps=rate if 0 < rate <= 1000 else None,
            size=(int(width), int(height)) if width > 0 and height > 0 else None,
            frame_count=int(count) if 0 < count < 1e9 else None,
        )

    def close(self) -> None:
        super().close()
        if self._thread is None and self._opened is not None:
            self._opened.release()
            self._opened = None

    def _open(self, name: str) -> cv2.VideoCapture:
        capture = open_stream(self._path, open_limit=NETWORK_LIMIT_S, read_limit=NETWORK_LIMIT_S)
        if not capture.isOpened():
            reason = is_url(self._path) and why(self._path)
            if reason:
                raise InputError(f"{name} cannot be fetched: {reason}", remedy="check the address")
            raise InputError(f"{name} is not a video, or is damaged", remedy=REMEDY)
        return capture

    def _produce(self) -> Generator[Frame, None, None]:
        number, due = 0, time.monotonic()
        while not self._stop.is_set():
            capture = self._opened or self._open(self.name)
            self._opened = None
            first = number
            try:
                while not self._stop.is_set():
                    if self.pace:
                        due = self._keep_pace(due, 1 / self.pace)
                    self._may_block(NETWORK_LIMIT_S if is_url(self._path) else 0.0)
                    fine, image = capture.read()
                    if not fine:
                        break
                    yield Frame(to_bgr8(image), number, time.monotonic())
                    number += 1
            except cv2.error as error:
                log.warning("%s: decoding failed (%s)", self.name, failure(error))
            finally:
                capture.release()
            if self._stop.is_set():
                return
            if number == first:
                raise InputError(f"no frame of {self.name} can be decoded", remedy=REMEDY)
            # Containers round their count; a tenth less means that the file was cut off.
            if self.frame_count and number - first < 0.9 * self.frame_count:
                log.warning(
                    "%s ended after %d of %d frames: it may be cut off or damaged",
                    self.name, number - first, self.frame_count,
                )  # fmt: skip
            if not self._loop:
                return
