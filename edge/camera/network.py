"""Network cameras: MJPEG over HTTP, and RTSP; and the one place that knows about web addresses."""

from __future__ import annotations

import base64
import http.client
import os
import socket
import urllib.error
import urllib.parse
import urllib.request

import cv2

from edge.camera.base import OpenCvCamera, Turn, quiet_opencv
from edge.errors import CameraError

SCHEMES = ("http", "https", "rtsp", "rtsps")
PROBE_S = 2.0


class NetworkCamera(OpenCvCamera):
    """A camera with an http, https, rtsp or rtsps address, read by FFmpeg.

    Size and frame rate are set in the camera; its address often takes them.
    """

    def __init__(self, url: str, *, timeout: float = 10.0, turn: Turn | None = None) -> None:
        # A camera that falls silent must be given up early enough to reach it again before the time-out.
        self._open_limit = min(0.9 * timeout, 10.0)
        super().__init__(
            public_url(url),
            turn=turn,
            timeout=timeout,
            call_limit=min(0.5 * timeout, 5.0),
            remedy="check the address, the network, and that the camera is on",
        )
        self._url = url

    def _connect(self) -> cv2.VideoCapture:
        self._may_block(self._open_limit)
        capture = open_stream(self._url, open_limit=self._open_limit, read_limit=self._call_limit)
        if not capture.isOpened() and not self._stop.is_set():
            self._may_block(PROBE_S)
            raise CameraError(why(self._url) or "it answers, but sends no video that can be read")
        return capture


def is_url(text: str) -> bool:
    """Whether the text starts like a web address of any scheme."""
    return "://" in text


def public_url(url: str) -> str:
    """The address without user, password and query, which may hold secrets: for messages and logs."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return url.split("?")[0]
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def request(url: str, *, timeout: float) -> http.client.HTTPResponse:
    """Asks for a http(s) address; user and password in it go along as basic authentication.

    Raises:
        OSError, ValueError, http.client.HTTPException: as urllib does.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    path = urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~")
    asked = urllib.request.Request(
        urllib.parse.urlunsplit((parts.scheme, host, path, parts.query, "")),
        headers={"User-Agent": "maskedge"},
    )
    if parts.username:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        asked.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    reply: http.client.HTTPResponse = urllib.request.urlopen(asked, timeout=timeout)
    return reply


def failure(error: Exception) -> str:
    """One line for an error of `request`."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return "no answer"
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def why(url: str) -> str:
    """Why a stream did not open, asked of its server, since FFmpeg does not tell; "" when it answers."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https"):
            request(url, timeout=PROBE_S).close()
        else:
            port = parts.port or (322 if parts.scheme == "rtsps" else 554)
            socket.create_connection((parts.hostname or "", port), PROBE_S).close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return failure(error)
    return ""


def open_stream(address: str, *, open_limit: float = 30.0, read_limit: float = 30.0) -> cv2.VideoCapture:
    """Opens a file or address with FFmpeg (in builds without it, with what there is); limits in seconds."""
    quiet_opencv()
    if cv2.CAP_FFMPEG not in cv2.videoio_registry.getStreamBackends():
        return cv2.VideoCapture(address)
    if address.startswith("rtsp"):
        # Over UDP, the default of some OpenCV versions, lost packets spoil the picture.
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_flags;prefer_tcp")
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, max(1, int(1000 * open_limit))]
    limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, max(1, int(1000 * read_limit))]
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
