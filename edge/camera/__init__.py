"""Where frames come from: cameras, videos, pictures and the built-in clip, behind one interface.

`open_source` gives a `Source`: a context manager whose `frames()` yields `Frame`.
"""

from __future__ import annotations

import glob
import logging
import math
import os
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import PurePath

from edge.camera.base import Source, Turn
from edge.camera.pictures import find_pictures, read_image
from edge.errors import InputError, UsageError

log = logging.getLogger(__name__)

__all__ = ["ACCEPTED", "Source", "find_pictures", "open_source", "read_image"]

ACCEPTED = (
    "auto, demo, picamera2, usb:0, /dev/video0, a video, a picture, a folder or glob of pictures, "
    "or a http, https, rtsp or rtsps address"
)


def open_source(
    spec: str,
    *,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    timeout: float = 10.0,
    loop: bool = False,
    rotation: int = 0,
    flip: str = "none",
    controls: Mapping[str, float | str] | None = None,
    small: int | None = None,
) -> Source:
    """Opens what frames are to come from.

    Args:
        spec: `auto` (the first camera that can be used, else the demo), `demo`, `picamera2` or `picamera2:N`
            (a Raspberry Pi's own camera, by number), `usb:N` or N, `/dev/videoN`, the path of a video or
            picture, a folder or glob of pictures, or an address: http(s) of an MJPEG stream or of a video
            file (by its suffix), rtsp(s).
        size: width, height to ask a USB or Raspberry Pi camera for; others keep the size they have.
        fps: for such a camera the rate to ask for, for files the pace to replay at (None: as fast as frames
            are taken); network cameras have their own.
        timeout: seconds without a frame after which a live source gives up.
        loop: replays files for ever; the demo then plays at its own rate.
        rotation: degrees clockwise (0, 90, 180, 270) by which the pictures of cameras are turned.
        flip: `none`, `horizontal` (as a mirror does), `vertical` or `both`, after the rotation; cameras only.
        controls: for a Raspberry Pi's camera, see `edge.camera.picamera2.camera_controls`.
        small: longest side of the small picture that a Raspberry Pi's camera gives besides (`Frame.small`);
            None for none.

    Returns:
        The source, which starts with its `with` block.

    Raises:
        UsageError: spec or an option is of no known kind.
        InputError: a file is missing, or is neither video nor picture.
        CameraError: picamera2 is asked for and not installed.
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise UsageError(f"size {size} is not possible", remedy="give width and height, such as 640x480")
    if fps is not None and not (fps > 0 and math.isfinite(fps)):
        raise UsageError(f"{fps} frames per second are not possible", remedy="give a number above 0")
    if not timeout > 0:
        raise UsageError(f"a camera time-out of {timeout} s is not possible", remedy="give a number above 0")
    turn = Turn.of(rotation, flip)
    spec = spec.strip()
    if spec == "auto":
        spec = _first_camera() or "demo"
    if spec == "demo":
        from edge.camera.demo import open_demo

        return open_demo(fps=fps, loop=loop)
    if spec.partition(":")[0] == "picamera2":
        from edge.camera.picamera2 import Picamera2Camera

        return Picamera2Camera(
            _number(spec), size=size, fps=fps, timeout=timeout, turn=turn, controls=controls, small=small
        )
    if device := _device(spec):
        from edge.camera.usb import UsbCamera

        return UsbCamera(device, size=size, fps=fps, timeout=timeout, turn=turn)
    if "://" in spec:
        return _open_url(spec, fps=fps, timeout=timeout, loop=loop, turn=turn)
    return _open_path(spec, fps=fps, loop=loop)


def _unknown(spec: str) -> UsageError:
    return UsageError(f"unknown source {spec!r}", remedy=f"use {ACCEPTED}")


def _device(spec: str) -> str | None:
    if match := re.fullmatch(r"(?:usb:)?(\d{1,3})|usb:(/dev/.+)|(/dev/v(?:ideo\d+|4l/.+))", spec):
        return f"/dev/video{int(match[1])}" if match[1] else match[2] or match[3]
    if spec.startswith("usb:"):
        raise _unknown(spec)
    return None


def _number(spec: str) -> int:
    match = re.fullmatch(r"picamera2(?::(\d{1,3}))?", spec)
    if match is None:
        raise _unknown(spec)
    return int(match[1] or 0)


def _first_camera() -> str | None:
    """The source to take for `auto`; None, with a warning, where there is no camera."""
    from edge.camera.picamera2 import find_cameras
    from edge.camera.usb import list_devices

    if cameras := find_cameras():
        log.info("using the camera picamera2 (%s)", cameras[0])
        return "picamera2"
    devices = list_devices()
    for device in devices:
        if device.usable:
            log.info("using the camera %s (%s)", device.path, device.name)
            return device.path
    seen = "; ".join(f"{device.path}: {device.name}" for device in devices)
    log.warning("no usable camera%s: playing the built-in demo clip instead", f" ({seen})" if seen else "")
    return None


def _open_url(url: str, *, fps: float | None, timeout: float, loop: bool, turn: Turn) -> Source:
    from edge.camera.network import SCHEMES, NetworkCamera
    from edge.camera.video import VIDEO_SUFFIXES, VideoFile

    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in SCHEMES and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise _unknown(url)
    # .mjpg and .mjpeg are how cameras name their streams.
    suffix = PurePath(parts.path).suffix.lower()
    if parts.scheme.startswith("http") and suffix in VIDEO_SUFFIXES and not suffix.startswith(".mj"):
        return VideoFile(url, fps=fps, loop=loop)
    return NetworkCamera(url, timeout=timeout, turn=turn)


def _open_path(spec: str, *, fps: float | None, loop: bool) -> Source:
    from edge.camera.pictures import PICTURE_SUFFIXES, Pictures
    from edge.camera.video import VIDEO_SUFFIXES, VideoFile

    path = os.path.expanduser(spec)
    there = os.path.lexists(path)
    suffix = PurePath(path).suffix.lower()
    if os.path.isdir(path) or (not there and glob.has_magic(path)):
        return Pictures(find_pictures([path]), name=spec, fps=fps, loop=loop)
    if not there:
        # A bare word is a mistyped kind of source rather than a missing file.
        if not suffix and os.sep not in path:
            raise _unknown(spec)
        raise InputError(f"{spec} does not exist", remedy="check the path")
    if suffix in PICTURE_SUFFIXES or (suffix not in VIDEO_SUFFIXES and _looks_like_picture(path)):
        return Pictures([path], name=spec, fps=fps, loop=loop)
    return VideoFile(path, fps=fps, loop=loop, name=spec)


def _looks_like_picture(path: str) -> bool:
    import cv2

    try:
        return os.path.isfile(path) and cv2.haveImageReader(path)
    except cv2.error:
        return False
