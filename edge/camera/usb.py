"""USB cameras and other V4L2 devices: /dev/video*."""

from __future__ import annotations

import glob
import os
import re
import struct
from dataclasses import dataclass

import cv2

from edge.camera.base import OpenCvCamera, Turn, quiet_opencv
from edge.errors import CameraError

READ_LIMIT_S = 10.0
"""OpenCV's own limit for one frame of a V4L2 device."""

NO_PERMISSION = "no permission; add your user to the group `video` and log in again"

_QUERYCAP = 0x80685600  # VIDIOC_QUERYCAP of linux/videodev2.h
_CAPTURE, _STREAMING, _DEVICE_CAPS = 0x1, 0x04000000, 0x80000000
_NOT_PICTURES = re.compile(r"unicam|rp1-cfe|pispbe|bcm2835-(isp|codec)|rpi.*dec")
"""Drivers whose capture nodes give raw sensor data or belong to a codec, as on a Raspberry Pi."""


@dataclass(slots=True, frozen=True)
class Device:
    """A V4L2 device.

    Attributes:
        path: /dev/videoN.
        name: what the device calls itself.
        usable: whether it is a camera that gives ready pictures.
    """

    path: str
    name: str
    usable: bool


def list_devices() -> list[Device]:
    """The V4L2 devices of this machine, by number; without opening a stream."""
    paths = [path for path in glob.glob("/dev/video*") if path[10:].isdigit()]
    devices = (query(path) for path in sorted(paths, key=lambda path: int(path[10:])))
    return [device for device in devices if device is not None]


def query(path: str) -> Device | None:
    """What a device says of itself, or None when it is no V4L2 device."""
    import fcntl  # not on every system that can read files and streams

    reply = bytearray(104)
    try:
        device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(device, _QUERYCAP, reply)
        finally:
            os.close(device)
    except PermissionError:
        return Device(path, NO_PERMISSION, False)
    except OSError:
        return None
    driver, card = (reply[a:b].split(b"\0")[0].decode("utf-8", "replace") for a, b in ((0, 16), (16, 48)))
    of_all_nodes, of_this_node = struct.unpack_from("<II", reply, 84)
    able = of_this_node if of_all_nodes & _DEVICE_CAPS else of_all_nodes
    pictures = bool(able & _CAPTURE and able & _STREAMING) and not _NOT_PICTURES.match(driver)
    return Device(path, card, pictures)


class UsbCamera(OpenCvCamera):
    """A V4L2 camera, asked for MJPG, which lets USB cameras give large pictures at their full rate.

    Args:
        path: the device, such as /dev/video0.
        size: width, height to ask for; a camera takes the nearest it has.
        fps: frames per second to ask for.
        timeout: as in `LiveSource`.
        turn: how its pictures are put upright.
    """

    def __init__(
        self,
        path: str,
        *,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        timeout: float = 10.0,
        turn: Turn | None = None,
    ) -> None:
        super().__init__(
            path,
            turn=turn,
            timeout=timeout,
            call_limit=READ_LIMIT_S,
            remedy="plug the camera in, choose another with --source, or use --source demo",
        )
        self._path = path
        self._asked_size = size
        self._asked_fps = fps

    def _connect(self) -> cv2.VideoCapture:
        if not os.path.exists(self._path):
            here = ", ".join(device.path for device in list_devices() if device.usable) or "none"
            raise CameraError(f"there is no {self._path} (cameras here: {here})")
        if not os.access(self._path, os.R_OK | os.W_OK):
            raise CameraError(NO_PERMISSION)
        quiet_opencv()
        self._may_block(READ_LIMIT_S)
        # By number where there is one: OpenCV before 4.9 does not take every path.
        real = re.fullmatch(r"/dev/video(\d+)", os.path.realpath(self._path))
        capture = cv2.VideoCapture(int(real[1]) if real else self._path, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise CameraError("it cannot be opened: it is no camera, or another program uses it")
        # The order matters: the pixel format decides which sizes there are, the size which rates.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        if self._asked_size:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._asked_size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._asked_size[1])
        if self._asked_fps:
            capture.set(cv2.CAP_PROP_FPS, self._asked_fps)
        return capture
