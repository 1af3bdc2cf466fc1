"""What `run` proves inside the chroot: maskedge on the real picamera2 and libcamera's virtual camera.

The virtual camera gives NV12 in one stream, without controls and flips. So a second, small stream,
RGB buffers, padded rows and the controls are for tests/test_picamera2.py, and for a board.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.camera import open_source
from edge.camera import picamera2 as module
from edge.camera.demo import DEMO_CLIP
from edge.errors import CameraError
from edge.geometry import iou

HERE = Path(__file__).resolve().parent
YAML = Path("/usr/share/libcamera/pipeline/virtual/virtual.yaml")
PICTURES = Path("/tmp/pictures")
OUT = Path("/tmp/out")
CHECK_LIMIT_S = 120
PROC = int(os.environ["MASKEDGE_PROC_FD"])
STANDINS = ctypes.CDLL("/maskedge/standins.so")
SILENT = ctypes.c_int.in_dll(STANDINS, "camera_silent")
PERIOD_US = ctypes.c_int.in_dll(STANDINS, "camera_period_us")
DEMO_FRAMES = (0, 40, 80, 120, 160)


def camera(pictures: list[np.ndarray] | None, size: tuple[int, int] = (640, 480)) -> None:
    """Plugs a camera in that shows these pictures in turn; None unplugs it."""
    shutil.rmtree(PICTURES, ignore_errors=True)
    if pictures is None:
        YAML.unlink(missing_ok=True)
        return
    PICTURES.mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(PICTURES / f"{number}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    YAML.parent.mkdir(parents=True, exist_ok=True)
    YAML.write_text(
        f"""%YAML 1.1
---
"Virtual0":
  supported_formats:
  - width: {size[0]}
    height: {size[1]}
    frame_rates:
    - 30
  frames:
    path: "{PICTURES}/"
  model: "Virtual"
"""
    )


def demo_pictures() -> tuple[list[np.ndarray], list[list[dict[str, Any]]]]:
    truth = json.loads((HERE / "demo_truth.json").read_text(encoding="utf-8"))["frames"]
    capture = cv2.VideoCapture(str(DEMO_CLIP))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return [frames[number] for number in DEMO_FRAMES], [truth[number] for number in DEMO_FRAMES]


def maskedge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`maskedge run` as a user runs it; its own lines are all that may be on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "edge", "run", *arguments],
        cwd=HERE, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    strange = [line for line in done.stderr.splitlines() if not line.startswith("maskedge: ")]
    assert not strange, done.stderr
    return done


@contextmanager
def after(seconds: float, do: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(seconds, do)
    timer.start()
    yield
    timer.join()


def about_this_process(what: str) -> int:
    """A folder or file of this process in the /proc outside, which the chroot has none of."""
    return os.open(f"{os.getpid()}/{what}", os.O_RDONLY, dir_fd=PROC)


def open_files() -> int:
    folder = about_this_process("fd")
    try:
        return len(os.listdir(folder))
    finally:
        os.close(folder)


def memory_mb() -> float:
    """Resident now; the peak may be from long before."""
    with os.fdopen(about_this_process("statm")) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def the_loop_finds_the_faces() -> str:
    """Each picture alone, so that it is known which one a frame shows; both kinds of output."""
    pictures, truths = demo_pictures()
    worst, found, ages = 1.0, 0, []
    for number, (picture, truth) in enumerate(zip(pictures, truths, strict=True)):
        camera([picture])
        lines, video = OUT / f"{number}.jsonl", OUT / f"{number}.avi"
        done = maskedge(
            "--source", "picamera2", "--size", "640x480", "--frames", "12", "--threads", "1",
            "--sink", f"jsonl:{lines}", "--sink", f"video:{video}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results = [json.loads(line) for line in lines.read_text().splitlines()]
        assert len(results) == 12
        # A live source drops frames; what comes is in order.
        numbers = [one["frame"] for one in results]
        assert numbers == sorted(set(numbers))
        ages += [one["timing_ms"]["frame_age"] for one in results[1:]]
        for one in results:
            assert (one["width"], one["height"]) == (640, 480)
            assert len(one["faces"]) == len(truth), (number, one)
            for face in truth:
                worst = min(worst, max(iou(tuple(face["box"]), tuple(seen["box"])) for seen in one["faces"]))
                found += 1
        states = sorted(str(seen["mask"]["state"]) for seen in results[-1]["faces"])
        assert states == sorted(face["mask"] for face in truth), (number, states)
        capture = cv2.VideoCapture(str(video))
        fine, shown = capture.read()
        assert fine
        assert shown.shape == (480, 640, 3)
        cv2.imwrite(str(OUT / f"{number}.png"), shown)
    assert worst > 0.6, worst
    # A time on the wrong clock is taken for now, and the frame for younger than the camera's pace allows.
    assert PERIOD_US.value / 1000 < np.median(ages) < 1000 * module.MAX_AGE_S, ages
    age = np.median(ages)
    return f"{found} faces, worst overlap {worst:.2f}, median frame age {age:.1f} ms; mask states right"


def colours_and_turns_are_right() -> str:
    """A red patch top left on blue: where it ends up, and that it is red."""
    patch = np.full((480, 640, 3), (200, 30, 30), np.uint8)
    patch[:240, :320] = (20, 20, 220)
    camera([patch])
    for (rotation, flip), (column, row) in {
        (0, "none"): (0, 0),
        (0, "horizontal"): (1, 0),
        (0, "vertical"): (0, 1),
        (90, "none"): (1, 0),
        (180, "none"): (1, 1),
        (270, "none"): (0, 1),
        (90, "horizontal"): (0, 0),
    }.items():
        with open_source("picamera2", size=(640, 480), rotation=rotation, flip=flip, small=320) as source:
            frame = next(source.frames())
        size = (640, 480) if rotation in (0, 180) else (480, 640)
        assert source.size == size == frame.image.shape[1::-1]
        blue, green, red = frame.image[(1 + 2 * row) * size[1] // 4, (1 + 2 * column) * size[0] // 4].tolist()
        assert red > 190, (rotation, flip, blue, green, red)
        assert max(blue, green) < 60, (rotation, flip, blue, green, red)
        blue, green, red = frame.image[(3 - 2 * row) * size[1] // 4, (3 - 2 * column) * size[0] // 4].tolist()
        assert blue > 170, (blue, green, red)
        assert max(green, red) < 70, (blue, green, red)
    return "seven turns"


def a_thousand_frames_leak_nothing() -> str:
    """With four buffers a request that is not given back stops the camera after four frames."""
    pictures, _ = demo_pictures()
    camera(pictures)
    PERIOD_US.value //= 6
    real, calls = module.to_bgr, 0

    def broken_now_and_then(*arguments: Any) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise ValueError("broken on purpose")
        return real(*arguments)

    memory = []
    with open_source("picamera2", size=(640, 480), small=320) as source:
        for count, _frame in enumerate(source.frames(), 1):
            memory.append(memory_mb())
            if count == 200:
                module.to_bgr = broken_now_and_then
            if count == 1000:
                break
    module.to_bgr = real
    PERIOD_US.value *= 6
    grown = float(np.median(memory[800:]) - np.median(memory[200:400]))
    assert calls > 900, calls
    assert grown < 3, grown
    broken = calls // 3
    return f"memory {grown:+.1f} MB from frames 200-400 to 800-1000, {broken} conversions failed on purpose"


def it_opens_again_and_again() -> str:
    camera([np.full((480, 640, 3), 99, np.uint8)])
    counts = []
    for _ in range(8):
        with open_source("picamera2", size=(640, 480)) as source:
            next(source.frames())
        begun = time.monotonic()
        while source._thread is not None and source._thread.is_alive():
            assert time.monotonic() - begun < 3
            time.sleep(0.02)
        counts.append(open_files())
    assert counts[-1] <= counts[1], counts
    return f"8 times, {counts[-1]} files open after each"


def a_camera_that_is_taken() -> str:
    """By another user in this process: the virtual camera has no device for two processes to fight over."""
    camera([np.full((480, 640, 3), 99, np.uint8)])
    with open_source("picamera2", size=(640, 480)) as first:
        frames = first.frames()
        next(frames)
        before = open_files()
        try:
            with open_source("picamera2", size=(640, 480), timeout=4.0) as second:
                next(second.frames())
        except CameraError as error:
            message = str(error)
        else:
            raise AssertionError("two users of one camera")
        assert open_files() <= before + 4, (before, open_files())  # not more with every attempt
        assert next(frames).image.shape == (480, 640, 3)  # the first one goes on
    assert "another program uses the camera" in message, message
    with open_source("picamera2", size=(640, 480)) as third:
        next(third.frames())
    return message


def no_camera() -> str:
    camera(None)
    begun = time.monotonic()
    done = maskedge("--source", "picamera2", "--camera-timeout", "1.5", "--sink", "summary")
    assert done.returncode == 4, done
    last = done.stderr.splitlines()[-1]
    assert "there is no camera 0 (cameras here: none)" in last, done.stderr
    assert time.monotonic() - begun < 10
    camera([np.full((480, 640, 3), 99, np.uint8)])
    done = maskedge("--source", "picamera2:3", "--camera-timeout", "1.5", "--sink", "summary")
    assert done.returncode == 4, done
    assert "there is no camera 3 (cameras here: 0: Virtual)" in done.stderr, done.stderr
    return last


def auto_takes_it() -> str:
    camera([np.full((480, 640, 3), 99, np.uint8)])
    with_one = maskedge("--frames", "3", "--sink", "summary")
    assert with_one.returncode == 0, with_one
    assert "using the camera picamera2 (Virtual0)" in with_one.stderr, with_one.stderr
    camera(None)
    without = maskedge("--frames", "3", "--sink", "summary")
    assert without.returncode == 0, without
    assert "playing the built-in demo clip" in without.stderr, without.stderr
    return next(line for line in with_one.stderr.splitlines() if "first result" in line)


def a_camera_that_falls_silent() -> str:
    """It is opened again, and works again once it answers; if it never does, that is an error in time."""
    camera([np.full((480, 640, 3), 99, np.uint8)])
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    listener = Listener()
    logging.getLogger("edge").addHandler(listener)
    logging.getLogger("edge").setLevel(logging.INFO)

    def silent(on: bool) -> None:
        SILENT.value = on

    with open_source("picamera2", size=(640, 480), timeout=10.0) as source:
        frames = source.frames()
        next(frames)
        silent(True)
        begun = time.monotonic()
        # By then all requests are lost, as after a loose contact: only opening it again helps.
        with after(2.0, lambda: silent(False)):
            while (frame := next(frames)).time < begun + 2.0:
                pass
        back = frame.time - begun
        for _ in range(20):
            frame = next(frames)
        silent(True)
        last = begun = time.monotonic()
        try:
            for frame in frames:
                assert frame.time < begun + 5, "it was not silenced"
                last = frame.time
        except CameraError as error:
            message, late = str(error), time.monotonic() - last
        else:
            raise AssertionError("a silent camera ended in peace")
        silent(False)
    logging.getLogger("edge").removeHandler(listener)
    assert any("stopped sending frames; trying again" in line for line in heard), heard
    assert any("sends frames again" in line for line in heard), heard
    assert 9.9 < late < 20, late
    return f"frames again after {back:.1f} s (silent for 2 s); {message}"


def it_ends_at_any_moment() -> str:
    camera([np.full((480, 640, 3), 99, np.uint8)])
    longest = 0.0
    for seconds in ("0.01", "0.2", "0.4", "0.6", "0.8", "1.2"):
        begun = time.monotonic()
        done = maskedge("--source", "picamera2", "--seconds", seconds, "--sink", "summary")
        longest = max(longest, time.monotonic() - begun - float(seconds))
        assert done.returncode == 0, (seconds, done)
    return f"six moments, at most {longest:.1f} s late"


CHECKS = (
    the_loop_finds_the_faces,
    colours_and_turns_are_right,
    a_thousand_frames_leak_nothing,
    it_opens_again_and_again,
    a_camera_that_is_taken,
    no_camera,
    auto_takes_it,
    a_camera_that_falls_silent,
    it_ends_at_any_moment,
)


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    for check in CHECKS:
        if len(sys.argv) > 1 and check.__name__ not in sys.argv[1:]:
            continue
        begun = time.monotonic()
        name = check.__name__.replace("_", " ")
        # Ends this process with every thread's stack, from a thread that needs no Python to run.
        faulthandler.dump_traceback_later(CHECK_LIMIT_S, exit=True)
        said = check()
        print(f"proved: {name}: {said} ({time.monotonic() - begun:.1f} s)", flush=True)
    faulthandler.cancel_dump_traceback_later()
    return 0


if __name__ == "__main__":
    sys.exit(main())
