"""Tells systemd that the loop is ready, how it is doing, and that it makes progress."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

from edge.drawing import status_of
from edge.pacing import Pacer
from edge.sinks.base import Canvas, Sink
from edge.sinks.summary import RunReport
from edge.types import Analysis, Frame

log = logging.getLogger(__name__)

STATUS_S = 5.0
"""Time between two status lines; `systemctl status` shows the last one."""

MARGIN_S = 20.0
"""What a camera that is waited for leaves of the watchdog's time: the end of the program takes some too."""


def notify(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send lines of VARIABLE=VALUE to the service manager, as sd_notify(3) does.

    Args:
        message: one or more lines.
        environment: its NOTIFY_SOCKET is the address, a path or @NAME of the abstract kind.

    Returns:
        Whether they were sent. Never raises: what cannot be told must not end the loop.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@") or not hasattr(socket, "AF_UNIX"):
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            out.sendto(message.encode(), address)
        return True
    except OSError as error:
        log.debug("the service manager cannot be told (%s)", error)
        return False


class SystemdSink(Sink):
    """Reports ready with the first result, and alive with each one that follows.

    The watchdog is fed from here and nowhere else: when a frame was taken, analysed and accepted by all sinks
    before this one. Whatever hangs, be it a model, a disk or the file that is read, thus ends in a restart.
    A camera that is lost is another matter: the loop itself ends after its time-out, so the watchdog is asked
    for more time where it would be quicker than that.

    Args:
        canvas: knows the frames per second.
        pacer: knows the temperature and why the loop is slow; or None.
        patience: seconds for which the loop waits for a camera; None where it reads files.
        environment: NOTIFY_SOCKET, and WATCHDOG_USEC with WATCHDOG_PID where there is a watchdog.
    """

    name = "systemd"

    def __init__(
        self,
        canvas: Canvas,
        pacer: Pacer | None = None,
        *,
        patience: float | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._canvas = canvas
        self._pacer = pacer
        self._environment = dict(environment)
        self._ready = False
        self._ended = False
        self._fed = self._told = float("-inf")
        self._feed_s: float | None = None
        microseconds = self._environment.get("WATCHDOG_USEC", "")
        mine = self._environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if microseconds.isdigit() and int(microseconds) and mine:
            limit = int(microseconds) / 1e6
            if patience is not None and limit < patience + MARGIN_S:
                limit = patience + MARGIN_S
                self._notify(f"WATCHDOG_USEC={limit * 1e6:.0f}")
            # Half of it would do, were it not for frames that come seldom.
            self._feed_s = limit / 4
        self._notify("STATUS=waiting for the first frame")
        if patience is not None:
            self._notify(f"EXTEND_TIMEOUT_USEC={(patience + 2 * MARGIN_S) * 1e6:.0f}")

    def write(self, frame: Frame, analysis: Analysis) -> None:
        now = time.monotonic()
        lines = []
        if not self._ready:
            self._ready = True
            lines.append("READY=1")
        if self._feed_s is not None and now - self._fed >= self._feed_s:
            self._fed = now
            lines.append("WATCHDOG=1")
        if now - self._told >= STATUS_S:
            self._told = now
            lines.append(f"STATUS={self._status(analysis)}")
        if lines:
            self._notify("\n".join(lines))

    def _status(self, analysis: Analysis) -> str:
        parts = [status_of(analysis, self._canvas.fps).replace("  ", ", ")]
        if self._pacer is not None:
            if self._pacer.temperature_c is not None:
                parts.append(f"{self._pacer.temperature_c:.0f} °C")
            if self._pacer.level:
                parts.append(f"{self._pacer.words} because of {self._pacer.why}")
        return ", ".join(parts)

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._notify("STOPPING=1\nSTATUS=ending")

    def finish(self, report: RunReport) -> None:
        log.info(
            "%d frames in %.0f s, %.1f fps, %d dropped; ended by %s",
            report.frames,
            report.seconds,
            report.fps,
            report.dropped,
            report.ended,
        )

    def _notify(self, message: str) -> None:
        notify(message, self._environment)
