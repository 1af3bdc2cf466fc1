"""The Raspberry Pi's camera as far as it goes without one; tests/pi/camera runs the real libraries.

Buffers are packed here by hand, from the definitions of the formats. A fake picamera2 stands in for what
only a Pi gives: padded rows, a second stream, flips in the sensor, a camera that is taken or silent.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from edge.camera import open_source
from edge.camera import picamera2 as camera
from edge.camera.base import BAD_FRAMES, Turn, UnusableCameraError
from edge.camera.pixels import FORMATS, to_bgr
from edge.cli import main
from edge.config import FLIPS
from edge.errors import CameraError
from edge.pipeline import Pipeline
from edge.types import Analysis, Face, Frame

RED, GREEN, BLUE, GREY = (24, 16, 220), (30, 190, 20), (210, 40, 30), (128, 128, 128)  # B, G, R
YUV = [name for name in FORMATS if name[0] in "YUN"]

without_picamera2 = pytest.mark.skipif(
    importlib.util.find_spec("picamera2") is not None, reason="this machine has a real picamera2"
)


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 4
    while left := [t.name for t in threading.enumerate() if t.name.startswith("camera ")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `_quiet` sets for the process stays in the test."""
    monkeypatch.setenv("LIBCAMERA_LOG_LEVELS", "*:FATAL")
    theirs = logging.getLogger("picamera2")
    handlers = list(theirs.handlers)
    yield
    theirs.handlers[:] = handlers


def quarters(width: int, height: int) -> np.ndarray:
    """Red top left, green top right, blue below, grey at the bottom right."""
    image = np.empty((height, width, 3), np.uint8)
    middle, centre = height // 4 * 2, width // 4 * 2  # even, so that no colour of YUV spans two quarters
    image[:middle, :centre], image[:middle, centre:] = RED, GREEN
    image[middle:, :centre], image[middle:, centre:] = BLUE, GREY
    return image


def yuv(bgr: np.ndarray) -> np.ndarray:
    """BT.601 with 16 to 235, by its definition; H x W x 3."""
    matrix = [[24.966, 128.553, 65.481], [112.0, -74.203, -37.797], [-18.214, -93.786, 112.0]]
    return np.rint(bgr / 255.0 @ np.array(matrix).T + (16, 128, 128)).astype(np.uint8)


def packed(bgr: np.ndarray, pixel_format: str, padding: int = 0) -> tuple[np.ndarray, int]:
    """A camera's buffer of that picture, and its stride; the padding is noise."""
    if pixel_format == "MJPEG":
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].reshape(-1), 0
    noise = np.random.default_rng(3)

    def padded(rows: np.ndarray, count: int) -> np.ndarray:
        rows = rows.reshape(rows.shape[0], -1)
        return np.hstack([rows, noise.integers(0, 256, (len(rows), count), np.uint8)])

    blue, green, red = np.moveaxis(bgr, 2, 0)
    unused = np.full_like(red, 7)
    # A DRM name begins with the highest bits, which a little-endian processor stores last.
    orders = {
        "RGB888": (blue, green, red),
        "BGR888": (red, green, blue),
        "XRGB8888": (blue, green, red, unused),
        "XBGR8888": (red, green, blue, unused),
    }
    if pixel_format in orders:
        rows = padded(np.stack(orders[pixel_format], axis=2), padding)
        return rows.reshape(-1), rows.shape[1]
    y, u, v = np.moveaxis(yuv(bgr), 2, 0)
    u2, v2 = u[:, ::2], v[:, ::2]
    pairs = {
        "YUYV": (y[:, ::2], u2, y[:, 1::2], v2),
        "YVYU": (y[:, ::2], v2, y[:, 1::2], u2),
        "UYVY": (u2, y[:, ::2], v2, y[:, 1::2]),
    }
    if pixel_format in pairs:
        rows = padded(np.stack(pairs[pixel_format], axis=2), padding)
        return rows.reshape(-1), rows.shape[1]
    u4, v4 = u2[::2], v2[::2]
    luma = padded(y, padding)
    if pixel_format in ("NV12", "NV21"):
        chroma = padded(np.stack((u4, v4) if pixel_format == "NV12" else (v4, u4), axis=2), padding)
        return np.concatenate([luma.reshape(-1), chroma.reshape(-1)]), luma.shape[1]
    assert pixel_format in ("YUV420", "YVU420")
    first, second = (u4, v4) if pixel_format == "YUV420" else (v4, u4)
    parts = [luma, padded(first, padding // 2), padded(second, padding // 2)]
    return np.concatenate([part.reshape(-1) for part in parts]), luma.shape[1]


# ------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize(
    "size", [(32, 24), (36, 22)]
)  # the second: planes of a height that is no multiple of 4
@pytest.mark.parametrize("padding", [0, 28, 64])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_every_format_with_every_padding_shows_the_colours(
    pixel_format: str, padding: int, size: tuple[int, int]
) -> None:
    wanted = quarters(*size)
    data, stride = packed(wanted, pixel_format, padding)
    given = np.concatenate([data, np.full(100, 255, np.uint8)])  # a buffer is often larger than its picture
    before = given.copy()
    given.setflags(write=False)
    image = to_bgr(given, pixel_format, *size, stride)
    assert (image.shape, image.dtype) == (wanted.shape, np.uint8)
    assert image.flags.c_contiguous
    assert not np.shares_memory(image, given)  # the buffer goes back to the camera
    np.testing.assert_array_equal(given, before)
    difference = np.abs(image.astype(int) - wanted)
    if pixel_format == "MJPEG":  # which blurs edges
        for y, x in ((4, 4), (4, -5), (-5, 4), (-5, -5)):
            assert difference[y, x].max() < 12, (image[y, x], wanted[y, x])
    else:
        assert difference.max() <= (3 if pixel_format in YUV else 0)


@pytest.mark.parametrize(
    "pixel_format", [name for name in FORMATS if name not in ("MJPEG", "YUV420", "YVU420")]
)
def test_the_padding_of_the_last_row_may_be_missing(pixel_format: str) -> None:
    wanted = quarters(32, 24)
    data, stride = packed(wanted, pixel_format, 28)
    image = to_bgr(data[:-28], pixel_format, 32, 24, stride)
    assert np.abs(image.astype(int) - wanted).max() <= 3


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_too_few_bytes_are_an_error(pixel_format: str) -> None:
    data, stride = packed(quarters(32, 24), pixel_format, 28)
    with pytest.raises(ValueError, match=r"too few|damaged"):
        to_bgr(data[: 30 if pixel_format == "MJPEG" else len(data) // 2], pixel_format, 32, 24, stride)


def test_what_cannot_be_converted_is_named() -> None:
    data, stride = packed(quarters(32, 24), "RGB888")
    with pytest.raises(ValueError, match="SRGGB10_CSI2P are not supported"):
        to_bgr(data, "SRGGB10_CSI2P", 32, 24, stride)
    with pytest.raises(ValueError, match="rows of 96 bytes do not fit a stride of 64"):
        to_bgr(data, "RGB888", 32, 24, 64)
    jpeg, _ = packed(quarters(40, 24), "MJPEG")
    with pytest.raises(ValueError, match="has 40x24 pixels"):
        to_bgr(jpeg, "MJPEG", 32, 24, 0)
    with pytest.raises(ValueError, match="damaged"):
        to_bgr(np.zeros(0, np.uint8), "MJPEG", 32, 24, 0)


# ---------------------------------------------------------------------------------------- time and controls

SECOND = 10**9


@pytest.mark.parametrize(
    ("sensor", "slept", "age"),
    [
        (100 * SECOND - 40_000_000, 0, 0.04),
        (100 * SECOND - 40_000_000, 3600 * SECOND, 0.04),  # a driver on CLOCK_MONOTONIC, after a suspend
        (3700 * SECOND - 40_000_000, 3600 * SECOND, 0.04),  # one on CLOCK_BOOTTIME
        (3700 * SECOND - 40_000_000, 3600 * SECOND + 20_000_000, 0.06),
        (0, 0, 0.0),
        (None, 0, 0.0),
        (101 * SECOND, 0, 0.0),  # from the future
        (85 * SECOND, 0, 0.0),  # cannot be
    ],
)
def test_sensor_time_becomes_monotonic_time(sensor: int | None, slept: int, age: float) -> None:
    now = 100 * SECOND
    assert camera.capture_time(sensor, now, now + slept) == pytest.approx(100 - age, abs=1e-6)


def test_sensor_time_is_read_against_this_machines_clocks() -> None:
    for clock in (time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME):
        taken = time.monotonic()
        assert camera.capture_time(time.clock_gettime_ns(clock)) == pytest.approx(taken, abs=0.05)


ALL_CONTROLS = dict.fromkeys(
    ["FrameDurationLimits", "ExposureTime", "AnalogueGain", "AwbEnable", "AwbMode", "AfMode", "LensPosition"]
)
AUTO: dict[str, float | str] = dict.fromkeys(["exposure", "gain", "focus", "white_balance"], "auto")


@pytest.mark.parametrize(
    ("asked", "fps", "wanted", "in_words"),
    [
        ({}, None, {}, []),
        (AUTO, None, {}, []),
        ({}, 25, {"FrameDurationLimits": (40000, 40000)}, ["25 frames per second"]),
        ({"exposure": 8000.0}, None, {"ExposureTime": 8000}, ["exposure"]),
        # The picture may take as long as its exposure.
        (
            {"exposure": 100000.0},
            25,
            {"FrameDurationLimits": (100000, 100000), "ExposureTime": 100000},
            ["25 frames per second", "exposure"],
        ),
        ({"gain": 2.5}, None, {"AnalogueGain": 2.5}, ["gain"]),
        ({"white_balance": "tungsten"}, None, {"AwbEnable": True, "AwbMode": 2}, ["white_balance"]),
    ],
)
def test_controls_are_asked_only_of_a_camera_that_has_them(
    asked: dict[str, float | str], fps: float | None, wanted: dict[str, Any], in_words: list[str]
) -> None:
    focus = {"AfMode": 2}  # a lens that can focus does so by itself
    assert camera.camera_controls(ALL_CONTROLS, asked, fps) == (wanted | focus, [])
    assert camera.camera_controls({}, asked, fps) == ({}, in_words)


def test_focus_is_a_distance_or_automatic() -> None:
    assert camera.camera_controls(ALL_CONTROLS, {"focus": 0.5}) == ({"AfMode": 0, "LensPosition": 0.5}, [])
    assert camera.camera_controls({"AfMode": None}, {"focus": 0.5}) == ({}, ["focus"])


def test_sizes_that_are_asked_for() -> None:
    assert camera.small_size((1280, 720), 320) == (320, 180)
    assert camera.small_size((720, 1280), 320) == (180, 320)
    assert camera.small_size((1000, 333), 320) == (320, 106)  # both even
    assert camera.small_size((320, 240), 320) is None
    # A Camera Module 3: half of it shows all that the sensor sees.
    assert camera.sensor_size((4608, 2592), (1280, 720)) == (2304, 1296)
    assert camera.sensor_size((4608, 2592), (2560, 1440)) is None


# ----------------------------------------------------------------------- a picamera2 in place of the real one


@dataclass
class World:
    """Cameras and their picamera2; a test changes what it needs before it opens a source.

    Attributes:
        scene: what the camera sees.
        formats: per stream what it gives, and the padding of its rows in bytes; it may lack "lores".
        sensor: a Raspberry Pi's own camera: flips by itself, and asks for a mode.
        controls: those it has.
        fails: raised when it is opened.
        broken: of so many first pictures the bytes are cut off.
        answers: whether requests are completed; "late": only when they are cancelled.
        opened, closed, flushed: counted.
        out: requests not given back.
        configured: what it was last asked for.
    """

    scene: np.ndarray
    names: tuple[str, ...] = ("imx708",)
    formats: dict[str, tuple[str, int]] = field(
        default_factory=lambda: {"main": ("RGB888", 64), "lores": ("YUV420", 64)}
    )
    sensor: bool = True
    controls: dict[str, Any] = field(default_factory=lambda: dict(ALL_CONTROLS))
    fails: list[Exception] = field(default_factory=list)
    broken: int = 0
    answers: bool | str = True
    opened: int = 0
    closed: int = 0
    flushed: int = 0
    out: int = 0
    configured: dict[str, Any] = field(default_factory=dict)

    def modules(self) -> dict[str, ModuleType]:
        world = self

        class Request:
            def __init__(self) -> None:
                world.out += 1

            def get_metadata(self) -> dict[str, Any]:
                return {"SensorTimestamp": time.monotonic_ns() - 40_000_000, "FrameDuration": 20000}

            def release(self) -> None:
                world.out -= 1

        class Picamera2:
            is_open = False

            @staticmethod
            def global_camera_info() -> list[dict[str, str]]:
                return [{"Model": name} for name in world.names]

            def __init__(self, number: int) -> None:
                world.opened += 1
                if world.fails:
                    raise world.fails.pop(0)
                self.is_open = True
                self.camera_properties = {"ColorFilterArrangement": 0} if world.sensor else {}
                self.camera_controls = world.controls
                self.sensor_resolution = (4608, 2592)
                self.finish: Callable[[object], None] | None = None

            def create_video_configuration(self, **options: Any) -> dict[str, Any]:
                return options

            def configure(self, options: dict[str, Any]) -> None:
                if options["lores"] and "lores" not in world.formats:
                    raise RuntimeError("lores stream is not supported")
                world.configured = options

            def camera_configuration(self) -> dict[str, Any]:
                streams = {}
                for name in ("main", "lores"):
                    if asked := world.configured[name]:
                        _, stride = packed(self.picture(name), *world.formats[name])
                        streams[name] = {
                            "format": world.formats[name][0], "size": asked["size"], "stride": stride
                        }  # fmt: skip
                return streams | {"lores": streams.get("lores")}

            def picture(self, stream: str) -> np.ndarray:
                transform = world.configured["transform"]
                image = cv2.resize(
                    world.scene, world.configured[stream]["size"], interpolation=cv2.INTER_NEAREST
                )
                return image[:: -1 if transform.vflip else 1, :: -1 if transform.hflip else 1]

            def start(self) -> None:
                pass

            def capture_request(self, wait: bool, signal_function: Callable[[object], None]) -> None:
                assert wait is False
                self.finish = signal_function
                if world.answers is True:
                    time.sleep(0.005)
                    signal_function(Request())

            def wait(self, job: Request) -> Request:
                return job

            def cancel_all_and_flush(self) -> None:
                world.flushed += 1
                if world.answers == "late" and self.finish is not None:
                    self.finish(Request())

            def close(self) -> None:
                world.closed += 1
                self.is_open = False

            def mapped(self, stream: str) -> np.ndarray:
                data, _ = packed(self.picture(stream), *world.formats[stream])
                if world.broken:
                    world.broken -= 1
                    return data[: len(data) // 3]
                return data

        current: list[Picamera2] = []
        original = Picamera2.configure

        def configure(self: Picamera2, options: dict[str, Any]) -> None:
            original(self, options)
            current[:] = [self]

        Picamera2.configure = configure  # type: ignore[method-assign]

        class MappedArray:
            def __init__(self, request: Request, stream: str, reshape: bool) -> None:
                self.array = current[0].mapped(stream)

            def __enter__(self) -> MappedArray:
                return self

            def __exit__(self, *_: object) -> None:
                self.array = np.zeros(0, np.uint8)

        one, other = ModuleType("picamera2"), ModuleType("libcamera")
        one.__dict__.update(Picamera2=Picamera2, MappedArray=MappedArray)
        manager = SimpleNamespace(cameras=[SimpleNamespace(id=f"/base/soc/{name}") for name in self.names])
        other.__dict__.update(
            ColorSpace=SimpleNamespace(Smpte170m=lambda: "smpte170m"),
            Transform=lambda hflip=0, vflip=0: SimpleNamespace(hflip=hflip, vflip=vflip),
            CameraManager=SimpleNamespace(singleton=lambda: manager),
        )
        for module in (one, other):
            module.__spec__ = importlib.util.spec_from_loader(module.__name__, loader=None)
        return {"picamera2": one, "libcamera": other}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(quarters(1280, 720))
    for name, module in world.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    yield world
    assert world.out == 0, "requests that were not given back"
    assert world.closed >= world.opened, "a camera that was not closed"


def first_frame(**options: Any) -> Frame:
    with open_source("picamera2", **options) as source:
        return next(source.frames())


@pytest.mark.parametrize("sensor", [True, False])
@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_pictures_are_put_upright(world: World, rotation: int, flip: str, sensor: bool) -> None:
    """By the sensor where it can, by OpenCV where not: the same for both streams."""
    world.sensor = sensor
    wanted = np.rot90(world.scene, -rotation // 90)
    wanted = wanted[
        :: -1 if flip in ("vertical", "both") else 1, :: -1 if flip in ("horizontal", "both") else 1
    ]
    frame = first_frame(size=(1280, 720), rotation=rotation, flip=flip, small=320)
    np.testing.assert_array_equal(frame.image, wanted)
    assert frame.small is not None
    assert max(frame.small.shape) == 320
    height, width = frame.small.shape[:2]
    for y, x in ((0.2, 0.2), (0.2, 0.8), (0.8, 0.2), (0.8, 0.8)):
        small = frame.small[int(y * height), int(x * width)].astype(int)
        assert np.abs(small - wanted[int(y * len(wanted)), int(x * wanted.shape[1])]).max() <= 3
    assert frame.image.flags.c_contiguous
    assert frame.small.flags.c_contiguous


def test_turns_are_those_of_numpy() -> None:
    image = quarters(40, 24)
    for rotation in (0, 90, 180, 270):
        turned = Turn.of(rotation).apply(image)
        np.testing.assert_array_equal(turned, np.rot90(image, -rotation // 90))
    assert Turn.of(0).apply(image) is image


class RedPatch:
    """A detector that finds what is red, whatever the size of the picture."""

    last_invoke_ms = 0.0

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()

    def detect(self, image: np.ndarray) -> tuple[Face, ...]:
        self.shapes.add(image.shape)
        blue, green, red = np.moveaxis(image.astype(int), 2, 0)
        y, x = np.nonzero((red > 180) & (blue < 80) & (green < 80))
        left, top, right, bottom = x.min(), y.min(), x.max() + 1, y.max() + 1
        box = (float(left), float(top), float(right - left), float(bottom - top))
        corners = [(left, top), (right, top), (left, bottom), (right, bottom), (left, top)]
        return (Face(box, 0.9, np.array(corners, np.float32)),)


class Looked:
    """A labeller that keeps the pictures it was shown."""

    rejected = 0
    last_invoke_ms = 0.0

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()

    def label(self, image: np.ndarray, faces: Any) -> tuple[Face, ...]:
        raise AssertionError("a camera's pictures are no photos")

    def update(self, image: np.ndarray, faces: Any, time_s: float, tracks: Any) -> tuple[Face, ...]:
        self.shapes.add(image.shape)
        return tuple(faces)


class Kept:
    name = "kept"
    skipped = 0
    stop_requested = False

    def __init__(self) -> None:
        self.analyses: list[Analysis] = []

    def write(self, frame: Frame, analysis: Analysis) -> None:
        self.analyses.append(analysis)

    def finish(self, report: Any) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("rotation", "flip"), [(0, "none"), (90, "none"), (270, "horizontal")])
def test_faces_are_found_in_the_small_picture_and_told_in_the_large_one(
    world: World, rotation: int, flip: str
) -> None:
    world.scene[:] = GREY
    world.scene[200:360, 640:900] = RED
    upright = Turn.of(rotation, flip).apply(world.scene)
    (wanted,) = RedPatch().detect(upright)
    detector, labeller, kept = RedPatch(), Looked(), Kept()
    source = open_source("picamera2", size=(1280, 720), rotation=rotation, flip=flip, small=320)
    Pipeline(source, detector, [kept], labeller=labeller, frames=3).run()
    assert [max(shape) for shape in detector.shapes] == [320]
    assert labeller.shapes == {upright.shape}
    for analysis in kept.analyses:
        assert (analysis.height, analysis.width) == upright.shape[:2]
        (face,) = analysis.faces
        np.testing.assert_allclose(face.box, wanted.box, atol=8)  # a pixel of the small one is four of these
        np.testing.assert_allclose(face.landmarks, wanted.landmarks, atol=8)
        assert 40 <= analysis.timing_ms["frame_age"] < 2000


def test_a_frame_is_as_old_as_the_sensor_says(world: World) -> None:
    before = time.monotonic()
    frame = first_frame()
    assert before - 0.05 < frame.time < time.monotonic() - 0.04


def test_what_the_camera_is_asked_for(world: World) -> None:
    with open_source("picamera2", size=(1280, 720), fps=10, flip="vertical", small=320) as source:
        next(source.frames())
        assert source.fps == 50  # what it gives counts
        assert source.size == (1280, 720)
    asked = world.configured
    assert asked["main"] == {"size": (1280, 720), "format": "RGB888"}
    assert asked["lores"] == {"size": (320, 180), "format": "YUV420"}
    assert asked["sensor"] == {"output_size": (2304, 1296)}
    assert asked["controls"] == {"FrameDurationLimits": (100000, 100000), "AfMode": 2}
    assert 4 <= asked["buffer_count"] <= 6
    assert (asked["transform"].hflip, asked["transform"].vflip) == (0, 1)


def test_what_the_camera_does_not_have_is_said_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.controls = {}
    world.broken = 2 * BAD_FRAMES  # so that it is opened twice
    frame = first_frame(fps=10, controls={"focus": 2.0, "gain": "auto"})
    assert frame.image.any()
    assert world.opened >= 2
    (warning,) = [line for line in caplog.messages if "left as it is" in line]
    assert warning == "picamera2:0 has no 10 frames per second, focus: left as it is"


def test_a_camera_with_one_stream_does_with_that(world: World) -> None:
    del world.formats["lores"]
    frame = first_frame(small=320)
    assert frame.small is None
    assert frame.image.shape == (720, 1280, 3)


@pytest.mark.parametrize(
    ("main", "lores", "kept"),
    [
        (("RGB888", 1280, 720, 3840), ("YUV420", 320, 180, 320), True),
        (("RGB888", 1296, 730, 3904), ("YUV420", 320, 180, 320), True),
        (("RGB888", 1280, 720, 3840), ("YUV420", 320, 240, 320), False),  # another view
        (("RGB888", 320, 180, 960), ("YUV420", 320, 180, 320), False),  # not smaller
    ],
)
def test_a_small_picture_is_of_the_same_view(main: tuple, lores: tuple, kept: bool) -> None:
    def stream(layout: tuple) -> dict[str, Any]:
        return {"format": layout[0], "size": layout[1:3], "stride": layout[3]}

    streams = camera._streams({"main": stream(main), "lores": stream(lores), "raw": None})
    assert streams == {"main": main} | ({"lores": lores} if kept else {})


def test_a_format_that_cannot_be_converted_is_refused_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "FORMATS", ("BGR888", "NV12"))
    begun = time.monotonic()
    with pytest.raises(CameraError, match=r"format RGB888, which cannot be converted") as caught:
        first_frame(timeout=30)
    assert time.monotonic() - begun < 5  # it does not get better by trying again
    assert "BGR888, NV12" in caught.value.remedy


# ------------------------------------------------------------------------------------------ what goes wrong


def test_a_broken_picture_costs_itself_alone(world: World) -> None:
    """The fixture sees that its request was given back."""
    world.broken = BAD_FRAMES // 2
    with open_source("picamera2") as source:
        assert next(source.frames()).id == 0
    assert not world.broken
    assert world.opened == 1


def test_a_camera_that_sends_only_broken_pictures_is_opened_anew(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.broken = BAD_FRAMES
    with open_source("picamera2") as source:
        next(source.frames())
    assert world.opened == 2
    assert "picamera2:0: it opens, but sends no frames; trying again" in caplog.messages


@pytest.mark.parametrize("answers", [False, "late"])
def test_a_silent_camera_is_an_error_in_time(world: World, answers: bool | str) -> None:
    """Late: the request is completed in the moment it is given up, and has to be given back all the same."""
    world.answers = answers
    begun = time.monotonic()
    with pytest.raises(
        CameraError, match=r"no frame from picamera2:0 for 1.2 s \(it stopped sending"
    ) as caught:
        first_frame(timeout=1.2)
    assert 1.2 <= time.monotonic() - begun < 3
    assert "cable" in caught.value.remedy
    assert caught.value.exit_code == 4
    assert world.flushed


def test_a_silent_camera_is_opened_again_and_goes_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with open_source("picamera2", timeout=8.0) as source:
        source._call_limit = 0.3
        frames = source.frames()
        next(frames)
        world.answers = False
        deadline = time.monotonic() + 6
        while world.opened < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begun = time.monotonic()
        world.answers = True
        assert any(frame.time > begun for frame in frames)  # or an error, when none follows
    assert "picamera2:0: it stopped sending frames; trying again" in caplog.messages
    assert "picamera2:0 sends frames again" in caplog.messages


def test_closing_while_nothing_comes_is_prompt(world: World) -> None:
    world.answers = False
    source = open_source("picamera2", timeout=20)
    source.start()
    time.sleep(0.2)
    begun = time.monotonic()
    source.close()
    assert time.monotonic() - begun < 1
    assert list(source.frames()) == []


def busy() -> Exception:
    """As picamera2 raises it: the reason is in an earlier error, which it only prints."""
    error = RuntimeError("Camera __init__ sequence did not complete.")
    error.__context__ = RuntimeError("Failed to acquire camera: Device or resource busy")
    return error


@pytest.mark.parametrize(
    ("names", "fails", "says"),
    [
        ((), None, r"there is no camera 0 \(cameras here: none\)"),
        (("imx219",), busy, "another program uses the camera"),
        (
            ("imx219",),
            lambda: RuntimeError("Camera __init__ sequence did not complete."),
            "it cannot be opened: another program uses it, or its cable is loose",
        ),
        (("imx219",), lambda: IndexError("list index out of range"), "list index out of range"),
        (("imx219",), lambda: OSError(12, "Cannot allocate memory"), "too little memory for its buffers"),
    ],
)
def test_a_camera_that_cannot_be_opened_is_an_error_in_one_line(
    world: World, names: tuple[str, ...], fails: Callable[[], Exception] | None, says: str
) -> None:
    world.names = names
    world.fails = [fails() for _ in range(20)] if fails else []
    with pytest.raises(CameraError, match=f"^no frame from picamera2:0 for 0.4 s .*{says}") as caught:
        first_frame(timeout=0.4)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4
    assert "rpicam-hello --list-cameras" in caught.value.remedy


def test_another_number_names_the_cameras_there_are(world: World) -> None:
    world.names = ("imx708", "imx219")
    with (
        pytest.raises(CameraError, match=r"no camera 5 \(cameras here: 0: imx708, 1: imx219\)"),
        open_source("picamera2:5", timeout=0.4) as source,
    ):
        next(source.frames())


def test_a_camera_that_is_given_free_is_taken(world: World) -> None:
    world.fails = [busy()]
    assert first_frame(timeout=8).id == 0
    assert world.opened == 2


@pytest.mark.parametrize(
    ("body", "says", "remedy"),
    [
        (
            "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')",
            "picamera2 was built for another numpy than the one here",
            "pip install 'numpy<2' 'opencv-python-headless<4.12'",
        ),
        (
            "raise AttributeError('_ARRAY_API not found')",
            "picamera2 was built for another numpy than the one here",
            "numpy<2",
        ),
        (
            "import no_such_module_of_picamera2",
            "picamera2 cannot be loaded (No module named 'no_such_module_of_picamera2')",
            "sudo apt install -y python3-picamera2",
        ),
        pytest.param(
            "import libcamera",
            "libcamera is not installed for Python",
            "sudo apt install -y python3-libcamera",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("libcamera") is not None, reason="this machine has a real libcamera"
            ),
        ),
    ],
)
def test_a_picamera2_that_cannot_be_imported(
    body: str, says: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real package on the path; the error is that of its import."""
    (tmp_path / "picamera2.py").write_text(body + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "picamera2", raising=False)
    begun = time.monotonic()
    with pytest.raises(UnusableCameraError) as caught:
        first_frame(timeout=30)
    assert time.monotonic() - begun < 5
    assert says in str(caught.value)
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 4


@without_picamera2
def test_without_picamera2_the_command_says_what_to_install(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--source", "picamera2"]) == 4
    output = capfd.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) <= 2
    assert "picamera2 is not installed for Python" in output.err
    assert "sudo apt install -y python3-picamera2" in output.err
    assert "--system-site-packages" in output.err


# ------------------------------------------------------------------------------------------------- the rest


def test_auto_prefers_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = open_source("auto")
    assert source.name == "picamera2:0"
    assert "using the camera picamera2 (/base/soc/imx708)" in caplog.messages


def test_cameras_on_usb_are_left_to_the_driver_for_those(world: World) -> None:
    manager = sys.modules["libcamera"].CameraManager.singleton()
    manager.cameras = [SimpleNamespace(id="/base/scb/pcie@7d500000/usb@1-1.2:1.0-046d:0825")]
    assert camera.find_cameras() == []


def test_a_libcamera_that_fails_is_no_camera(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("no media devices")

    monkeypatch.setattr(sys.modules["libcamera"], "CameraManager", SimpleNamespace(singleton=fail))
    assert camera.find_cameras() == []


@without_picamera2
def test_nothing_is_loaded_where_there_is_no_picamera2() -> None:
    assert camera.find_cameras() == []
    assert "libcamera" not in sys.modules


def test_libraries_are_quiet_unless_the_user_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIBCAMERA_LOG_LEVELS")
    camera.find_cameras()
    assert os.environ["LIBCAMERA_LOG_LEVELS"] == "*:FATAL"
    monkeypatch.setenv("LIBCAMERA_LOG_LEVELS", "*:DEBUG")
    camera.find_cameras()
    assert os.environ["LIBCAMERA_LOG_LEVELS"] == "*:DEBUG"
