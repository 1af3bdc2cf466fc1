"""The Raspberry Pi's own camera, through picamera2 and libcamera, which come with the system.

The camera's hardware scales every picture twice: `main` is shown and recorded, `lores` is as small as the
face model wants it. Neither library is imported before a camera is opened.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import os
import queue
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge.camera.base import BAD_FRAMES, LiveSource, Turn, UnusableCameraError
from edge.camera.pixels import FORMATS, to_bgr
from edge.config import WHITE_BALANCES
from edge.errors import CameraError

log = logging.getLogger(__name__)

DEFAULT_SIZE = (1280, 720)
BUFFERS = 4
"""Pictures in flight: one being filled, one waiting, one held back as the newest, one being converted."""

OPEN_S = 2.0
"""About how long it takes to open or close the camera; not cut off, but waited for when the program ends."""

POLL_S = 0.2
"""How late a reader that waits for a picture notices that it shall end."""

MAX_AGE_S = 10.0
"""A capture time further back than this is taken for wrong."""

_MANUAL, _CONTINUOUS = 0, 2  # libcamera's AfMode
_SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")
_INSTALL = "sudo apt install -y python3-picamera2 (never by pip on a Raspberry Pi)"
_REMEDY = (
    "check the camera's cable with the power off, that no other program uses the camera, and "
    "what `rpicam-hello --list-cameras` says"
)


class Picamera2Camera(LiveSource):
    """A camera module of a Raspberry Pi, or any other camera that libcamera knows.

    Args:
        number: of the camera, as `rpicam-hello --list-cameras` counts them.
        size: width, height of the pictures before they are turned; the camera takes the nearest it has.
        fps: frames per second; None leaves it to the camera, mostly 30.
        timeout: as in `LiveSource`.
        turn: how the pictures are put upright. Flips cost nothing here, a quarter turn costs a copy.
        controls: as in `camera_controls`; those the camera does not have are named in one warning.
        small: longest side of `Frame.small` in pixels; None for none, and none from cameras with one stream.

    Raises:
        CameraError: picamera2 is not installed.
    """

    def __init__(
        self,
        number: int = 0,
        *,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        timeout: float = 10.0,
        turn: Turn | None = None,
        controls: Mapping[str, float | str] | None = None,
        small: int | None = None,
    ) -> None:
        super().__init__(
            f"picamera2:{number}",
            timeout=timeout,
            # Early enough to open the camera again before the time-out.
            call_limit=min(0.5 * timeout, 5.0),
            remedy=_REMEDY,
        )
        if not _installed():
            raise _not_importable(ModuleNotFoundError("No module named 'picamera2'", name="picamera2"))
        self._number = number
        self._asked_size = size or DEFAULT_SIZE
        self._asked_fps = fps
        self._turn = turn or Turn()
        self._controls = dict(controls or {})
        self._small = small
        self._warned = False

    def _capture(self) -> Generator[tuple[np.ndarray, np.ndarray | None, float], None, None]:
        self._may_block(OPEN_S)
        camera = self._open()
        try:
            turn = self._configure(camera)
            camera.start()
            yield from self._pictures(camera, turn)
        except CameraError:
            raise
        except Exception as error:
            raise CameraError(_reason(error)) from error
        finally:
            self._may_block(OPEN_S)
            _close(camera)

    def _open(self) -> Any:
        picamera2 = _library()
        gc.collect()  # a closed Picamera2 is a cycle that still holds open files: one more with every attempt
        # Looked up first, since older versions fail with an IndexError.
        names = [str(camera.get("Model") or camera.get("Id")) for camera in picamera2.global_camera_info()]
        if self._number >= len(names):
            here = ", ".join(f"{number}: {name}" for number, name in enumerate(names)) or "none"
            raise CameraError(f"there is no camera {self._number} (cameras here: {here})")
        # In two steps, so that what a failed start leaves open can be closed: it is tried again for hours.
        camera = picamera2.__new__(picamera2)
        try:
            camera.__init__(self._number)
        except Exception as error:
            _close(camera)
            raise CameraError(_reason(error)) from error
        _leave_exit_to_us(camera)
        return camera

    def _configure(self, camera: Any) -> Turn:
        """Sets streams and controls; returns the part of the turn that the camera does not do itself."""
        from libcamera import ColorSpace, Transform

        of_a_pi = "ColorFilterArrangement" in camera.camera_properties  # picamera2's own test
        transform, turn = Transform(), self._turn
        if of_a_pi:
            transform = Transform(hflip=int(turn.horizontal), vflip=int(turn.vertical))
            turn = Turn(quarter=turn.quarter)
        wanted, missing = camera_controls(camera.camera_controls, self._controls, self._asked_fps)
        if missing and not self._warned:
            self._warned = True
            log.warning("%s has no %s: left as it is", self.name, ", ".join(missing))
        options: dict[str, Any] = {}
        if of_a_pi and (sensor := sensor_size(camera.sensor_resolution, self._asked_size)):
            options["sensor"] = {"output_size": sensor}
        lores = small_size(self._asked_size, self._small) if self._small else None
        for size in (lores, None) if lores else (None,):
            try:
                camera.configure(
                    camera.create_video_configuration(
                        main={"size": self._asked_size, "format": "RGB888"},
                        lores=size and {"size": size, "format": "YUV420"},
                        raw=None,
                        transform=transform,
                        colour_space=ColorSpace.Smpte170m(),  # the YUV that OpenCV knows
                        buffer_count=BUFFERS,
                        queue=True,
                        controls=wanted,
                        **options,
                    )
                )
                break
            except Exception as error:
                if size is None:
                    raise
                log.debug("%s: no second stream (%s)", self.name, _reason(error))
        return turn

    def _pictures(
        self, camera: Any, turn: Turn
    ) -> Generator[tuple[np.ndarray, np.ndarray | None, float], None, None]:
        from picamera2 import MappedArray

        streams = _streams(camera.camera_configuration())
        log.debug("%s gives %s", self.name, streams)
        bad = 0
        while not self._stop.is_set() and bad < BAD_FRAMES:
            request = self._request(camera)
            if request is None:
                return
            try:
                facts = request.get_metadata()
                pictures = []
                for name, layout in streams.items():
                    with MappedArray(request, name, reshape=False) as mapped:
                        # Caught in here: the error holds on to the buffer, which is unmapped behind here.
                        try:
                            pictures.append(to_bgr(mapped.array.reshape(-1), *layout))
                        except ValueError as error:
                            log.debug("%s: a frame is broken (%s)", self.name, error)
            finally:
                request.release()
            if len(pictures) < len(streams):
                bad += 1
                continue
            bad = 0
            if duration := facts.get("FrameDuration"):
                self.fps = 1e6 / duration
            main, small = turn.apply(pictures[0]), turn.apply(pictures[1]) if len(pictures) > 1 else None
            yield main, small, capture_time(facts.get("SensorTimestamp"))

    def _request(self, camera: Any) -> Any:
        """The next completed request, or None when the source is closed.

        Raises:
            CameraError: none came for `call_limit` seconds.
        """
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        camera.capture_request(wait=False, signal_function=done.put)
        limit = time.monotonic() + self._call_limit
        while not self._stop.is_set() and time.monotonic() < limit:
            with contextlib.suppress(queue.Empty):
                return camera.wait(done.get(timeout=min(POLL_S, self._call_limit)))
        # The job would else wait in front of all others; it may have been done a moment ago.
        camera.cancel_all_and_flush()
        with contextlib.suppress(queue.Empty):
            camera.wait(done.get(timeout=0.05)).release()
        if self._stop.is_set():
            return None
        raise CameraError("it stopped sending frames")


def find_cameras() -> list[str]:
    """What libcamera calls its cameras, without those on USB; empty, at once, where picamera2 is missing."""
    if not _installed() or importlib.util.find_spec("libcamera") is None:
        return []
    _quiet()
    try:
        import libcamera

        return [
            camera.id for camera in libcamera.CameraManager.singleton().cameras if "/usb" not in camera.id
        ]
    except Exception as error:
        log.debug("libcamera lists no cameras: %s", error)
        return []


def camera_controls(
    available: Mapping[str, Any], asked: Mapping[str, float | str], fps: float | None = None
) -> tuple[dict[str, Any], list[str]]:
    """libcamera's controls for what a user asks for.

    Args:
        available: controls of the camera by name, as `Picamera2.camera_controls`.
        asked: any of `exposure` (µs), `gain` (1 is none), `focus` (dioptres: 1 / metres, 0 is far away) and
            `white_balance` (of `WHITE_BALANCES`); each may be "auto", which is the same as leaving it out.
        fps: frames per second, or None.

    Returns:
        Control to value; and what was asked for that the camera does not have, in the user's words.
    """
    wanted: dict[str, Any] = {}
    missing = []
    set_by_user = {key: value for key, value in asked.items() if value != "auto"}

    def ask(name: str, *controls: tuple[str, Any]) -> None:
        if all(control in available for control, _ in controls):
            wanted.update(controls)
        else:
            missing.append(name)

    exposure = float(set_by_user.get("exposure", 0))
    if fps or exposure > 1e6 / 30:
        # A picture cannot take less time than its exposure; it would be cut short else.
        duration = round(max(1e6 / fps if fps else 0.0, exposure))
        ask(
            f"{fps:g} frames per second" if fps else "exposure", ("FrameDurationLimits", (duration, duration))
        )
    if "exposure" in set_by_user:
        ask("exposure", ("ExposureTime", round(exposure)))
    if "gain" in set_by_user:
        ask("gain", ("AnalogueGain", float(set_by_user["gain"])))
    if "white_balance" in set_by_user:
        mode = WHITE_BALANCES.index(str(set_by_user["white_balance"]))  # the order of libcamera's numbers
        ask("white_balance", ("AwbEnable", True), ("AwbMode", mode))
    if "focus" in set_by_user:
        ask("focus", ("AfMode", _MANUAL), ("LensPosition", float(set_by_user["focus"])))
    elif "AfMode" in available:
        wanted["AfMode"] = _CONTINUOUS  # libcamera would leave the lens where it is
    return wanted, list(dict.fromkeys(missing))


def small_size(size: tuple[int, int], longest: int) -> tuple[int, int] | None:
    """Width, height, both even, of a picture of the same shape whose longer side is `longest` pixels.

    None when `size` is not larger than that.
    """
    if max(size) <= longest:
        return None
    width, height = (max(2, 2 * round(side * longest / max(size) / 2)) for side in size)
    return width, height


def sensor_size(resolution: tuple[int, int], size: tuple[int, int]) -> tuple[int, int] | None:
    """The sensor's mode to ask for: half its resolution where that is enough for `size`, else None.

    Sensors reach it by joining pixels, over their whole field of view and at a high rate. Left alone,
    picamera2 takes the mode nearest to `size`, which in several sensors is a piece cut out of the middle.
    """
    half = resolution[0] // 2, resolution[1] // 2
    return half if half[0] >= size[0] and half[1] >= size[1] else None


def capture_time(sensor_ns: int | None, now_ns: int | None = None, boot_ns: int | None = None) -> float:
    """When a picture was taken, on the clock of `time.monotonic`, in seconds.

    Args:
        sensor_ns: libcamera's SensorTimestamp: nanoseconds since the start, by its documentation with the
            time in suspend (CLOCK_BOOTTIME), from most drivers without (CLOCK_MONOTONIC). The two differ
            only after a suspend; the right one makes the picture younger, but not one from the future.
        now_ns, boot_ns: both clocks now; by default they are read.

    Returns:
        That time, or now where it is missing or cannot be.
    """
    now = time.monotonic_ns() if now_ns is None else now_ns
    boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME) if boot_ns is None else boot_ns
    ages = [clock - sensor_ns for clock in (now, boot) if sensor_ns and clock >= sensor_ns]
    age = min(ages, default=0)
    return (now - (age if age <= MAX_AGE_S * 1e9 else 0)) / 1e9


def _streams(configuration: Mapping[str, Any]) -> dict[str, tuple[str, int, int, int]]:
    """Stream to (format, width, height, stride), as the camera in the end gives them; `main` first.

    Raises:
        UnusableCameraError: a format that cannot be converted.
    """
    layouts = {}
    for name in ("main", "lores"):
        stream = configuration.get(name)
        if not stream:
            continue
        layout = (str(stream["format"]), *stream["size"], int(stream["stride"]))
        if layout[0] not in FORMATS:
            raise UnusableCameraError(
                f"the camera gives pixels of format {layout[0]}, which cannot be converted",
                remedy=f"use a camera that gives one of {', '.join(FORMATS)}",
            )
        layouts[name] = layout
    if "lores" in layouts:
        (_, width, height, _), (_, small_width, small_height, _) = layouts["main"], layouts["lores"]
        # Only if it shows the same view; half a row more or less is rounding.
        other_view = abs(small_width * height - small_height * width) > 2 * max(width, height)
        if other_view or small_width >= width:
            del layouts["lores"]
    return layouts


def _installed() -> bool:
    try:
        return importlib.util.find_spec("picamera2") is not None
    except ValueError:  # a module put in its place that has no origin
        return "picamera2" in sys.modules


def _library() -> Any:
    """The class Picamera2.

    Raises:
        UnusableCameraError: it cannot be imported.
    """
    _quiet()
    try:
        from picamera2 import Picamera2
    except Exception as error:  # whatever its many dependencies come up with
        raise _not_importable(error) from error
    return Picamera2


def _not_importable(error: Exception) -> UnusableCameraError:
    text = _reason(error)
    if "numpy" in text.lower() or "_ARRAY_API" in text:
        return UnusableCameraError(
            f"picamera2 was built for another numpy than the one here ({text})",
            remedy="put the one of the system into this environment; on Bookworm: pip install 'numpy<2' "
            "'opencv-python-headless<4.12'",
        )
    module = (getattr(error, "name", None) or "").partition(".")[0]
    if module not in ("picamera2", "libcamera"):
        return UnusableCameraError(
            f"picamera2 cannot be loaded ({text})", remedy=f"install it again: {_INSTALL}"
        )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if (_SYSTEM_PACKAGES / module).is_dir():
        remedy = (
            "it is installed, but not for this Python: make the environment with the system's Python and "
            "--system-site-packages"
        )
    else:
        package = "python3-picamera2" if module == "picamera2" else "python3-libcamera"
        remedy = f"{_INSTALL.replace('python3-picamera2', package)}, and use an environment made with "
        remedy += "python3 -m venv --system-site-packages"
    return UnusableCameraError(f"{module} is not installed for Python {version}", remedy=remedy)


def _quiet() -> None:
    """Keeps both libraries from writing to stderr what this module reports in its own words.

    Does nothing where the user asks for it: by LIBCAMERA_LOG_LEVELS, by a log level of debug, or by logging
    that is set up for picamera2.
    """
    debug = log.isEnabledFor(logging.DEBUG)
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:INFO" if debug else "*:FATAL")
    theirs = logging.getLogger("picamera2")
    if not theirs.handlers:
        ours = logging.getLogger("edge").handlers if debug else []
        for handler in ours or [logging.NullHandler()]:
            theirs.addHandler(handler)


def _leave_exit_to_us(camera: Any) -> None:
    """picamera2 would close the camera at exit from another thread while ours may still use it."""
    import atexit

    atexit.unregister(camera.close)


def _close(camera: Any) -> None:
    """Closes a camera that may be only half open, also when it does not answer."""
    opened = getattr(camera, "is_open", False)
    try:
        camera.close()
    except Exception as error:
        log.debug("the camera does not close: %s", _reason(error))
    if not opened:
        with contextlib.suppress(AttributeError, OSError):
            camera.notifymeread.close()
        with contextlib.suppress(AttributeError, OSError):
            os.close(camera.notifyme_w)


def _reason(error: BaseException) -> str:
    """What is wrong, in words for people: the cause is often behind one or two general errors."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    text = " ".join(str(chain[-1]).split()) or type(chain[-1]).__name__
    every = " ".join(str(one) for one in chain).lower()
    if "busy" in every or "acquire" in every:
        return "another program uses the camera"
    if "cannot allocate" in every or "failed to allocate" in every:
        return "there is too little memory for its buffers; ask for less with --size"
    if "did not complete" in every and len(chain) == 1:
        return "it cannot be opened: another program uses it, or its cable is loose"
    return text
