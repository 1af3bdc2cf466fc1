"""A window on the desktop, where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import cv2

from edge.errors import SinkError
from edge.sinks.base import Canvas, Sink
from edge.types import Analysis, Frame

TITLE = "maskedge (q or Esc ends)"
_LIVE_FPS = 30.0  # more pictures per second would cost the loop time that nobody sees
_PICTURES_FPS = 1.0  # pace of a source that states none, such as a folder of pictures
_QUIT_KEYS = (ord("q"), 27)


def why_no_window() -> str | None:
    """The reason why this machine cannot show a window, with what to do about it; None if it can."""
    from edge.doctor import gui_toolkit, has_display

    if not has_display():
        return "no display (DISPLAY and WAYLAND_DISPLAY are not set): use --out FILE.mp4 to get a clip"
    if not gui_toolkit(cv2.getBuildInformation()):
        return "this OpenCV has no windows: pip install opencv-python in place of opencv-python-headless"
    # With a display that does not answer, the window toolkit aborts the process; better not this one.
    probe = "import cv2; cv2.namedWindow('maskedge'); cv2.destroyAllWindows()"
    try:
        subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, timeout=15)
    except (OSError, subprocess.SubprocessError):
        shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        return f"the display {shown} does not answer: use --out FILE.mp4 to get a clip"
    return None


class WindowSink(Sink):
    """Shows the annotated pictures; `q`, Esc or closing the window ends the loop.

    Args:
        canvas: draws the pictures.
        live: show the newest picture at once, and not every one; otherwise keep the pace of the source.
        fps: of the source, where known.

    Raises:
        SinkError: there is no display, or OpenCV cannot use it.
    """

    name = "window"

    def __init__(self, canvas: Canvas, *, live: bool = False, fps: float | None = None) -> None:
        if reason := why_no_window():
            raise SinkError("cannot open a window", remedy=reason)
        self._canvas = canvas
        self._live = live
        self._period = 1 / (_LIVE_FPS if live else fps or _PICTURES_FPS)
        self._due = 0.0
        self._open = False

    def write(self, frame: Frame, analysis: Analysis) -> None:
        now = time.monotonic()
        if self._live and now < self._due:
            return
        picture = self._canvas.picture(frame, analysis)
        try:
            if not self._open:
                cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
                height, width = picture.shape[:2]
                shrink = min(1.0, 1280 / width, 800 / height)
                cv2.resizeWindow(TITLE, max(1, round(width * shrink)), max(1, round(height * shrink)))
                self._open = True
            elif cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
                self.stop_requested = True
                return
            cv2.imshow(TITLE, picture)
            wait = 0.0 if self._live else self._due - time.monotonic()
            if cv2.waitKey(max(1, round(wait * 1000))) & 0xFF in _QUIT_KEYS:
                self.stop_requested = True
        except cv2.error as error:
            raise SinkError("the window failed", remedy=str(error).strip().splitlines()[-1]) from None
        self._due = max(self._due, now - self._period) + self._period

    def close(self) -> None:
        if self._open:
            self._open = False
            cv2.destroyWindow(TITLE)
            cv2.waitKey(1)
