"""What the board says, and how the loop slows down by it, with folders in place of /proc and /sys."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge import board
from edge.pacing import COOLER_BY, LEVELS, LOOK_S, STEP_S, Pacer
from edge.pipeline import Pipeline
from edge.sinks import Canvas
from tests.test_pipeline import Clip, Kept, OneFace

THERMAL = "sys/class/thermal/thermal_zone0/temp"
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def pi(tmp_path: Path) -> Path:
    """A Raspberry Pi 4 that is cool and idle."""
    put(tmp_path, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    put(tmp_path, "proc/cpuinfo", "processor\t: 0\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n")
    put(tmp_path, f"{CPUFREQ}/scaling_governor", "ondemand\n")
    put(tmp_path, f"{CPUFREQ}/scaling_cur_freq", "600000\n")
    put(tmp_path, f"{CPUFREQ}/cpuinfo_max_freq", "1800000\n")
    put(tmp_path, THERMAL, "48300\n")
    put(tmp_path, THROTTLED, "0\n")
    return tmp_path


# --------------------------------------------------------------------------------------------- the board


def test_a_raspberry_pi(pi: Path) -> None:
    assert board.model(pi) == "Raspberry Pi 4 Model B Rev 1.4"
    assert board.is_pi(pi)
    assert board.cpu_model(pi) == "Raspberry Pi 4 Model B Rev 1.4"
    assert board.governor(pi) == "ondemand"
    assert board.frequency_mhz(pi) == (600.0, 1800.0)
    assert board.temperature_c(pi) == 48.3
    assert board.throttled_now(pi) == 0


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    asked = (board.model, board.governor, board.frequency_mhz, board.temperature_c, board.throttled_now)
    assert [ask(tmp_path) for ask in asked] == [None] * 5
    assert not board.is_pi(tmp_path)
    assert board.cpu_model(tmp_path)


def test_the_hottest_zone_counts_and_broken_ones_do_not(pi: Path) -> None:
    put(pi, "sys/class/thermal/thermal_zone1/temp", "61000")
    put(pi, "sys/class/thermal/thermal_zone2/temp", "")
    assert board.temperature_c(pi) == 61.0


@pytest.mark.parametrize(
    ("path", "text", "bits"),
    [
        (THROTTLED, "50005\n", 0b0101),
        (THROTTLED, "50000\n", 0),  # of the past
        (THROTTLED, "0x8\n", 0b1000),
        ("sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled", "4\n", 0b0100),
        ("sys/devices/platform/firmware/get_throttled", "2\n", 0b0010),
        (THROTTLED, "nonsense\n", None),
    ],
)
def test_throttling_is_read_from_the_kernel(tmp_path: Path, path: str, text: str, bits: int | None) -> None:
    put(tmp_path, path, text)
    assert board.throttled_now(tmp_path) == bits


@pytest.mark.parametrize(("alarm", "bits"), [("1\n", 1), ("0\n", 0), ("", None)])
def test_without_that_file_the_voltage_has_one(tmp_path: Path, alarm: str, bits: int | None) -> None:
    put(tmp_path, "sys/class/hwmon/hwmon0/name", "cpu_thermal\n")
    put(tmp_path, "sys/class/hwmon/hwmon1/name", "rpi_volt\n")
    put(tmp_path, "sys/class/hwmon/hwmon1/in0_lcrit_alarm", alarm)
    assert board.throttled_now(tmp_path) == bits


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0, ()),
        (0x1, ("under-voltage",)),
        (0x50005 >> 16, ("under-voltage", "throttled")),
        (0xF, ("under-voltage", "frequency capped", "throttled", "soft temperature limit")),
    ],
)
def test_bits_have_names(bits: int, names: tuple[str, ...]) -> None:
    assert board.throttled_names(bits) == names


# ---------------------------------------------------------------------------------------------- the pacer

FRAME_S = 0.04


class Drive:
    """A loop on a clock of its own: 25 frames a second, and the rests that the pacer asks for."""

    def __init__(self, root: Path, **options: float) -> None:
        self.root, self.now = root, 100.0
        self.pacer = Pacer(root=root, clock=lambda: self.now, **options)
        self.rested = 0.0

    def run(self, seconds: float) -> float:
        """Frames per second over this time."""
        begun, frames = self.now, 0
        while self.now < begun + seconds:
            rest = self.pacer.rest()
            self.rested += rest
            self.now += rest + FRAME_S
            frames += 1
        return frames / (self.now - begun)

    def heat(self, celsius: float) -> None:
        put(self.root, THERMAL, f"{celsius * 1000:.0f}\n")


def test_a_cool_board_is_never_slowed_down(pi: Path) -> None:
    drive = Drive(pi)
    assert drive.run(120) == pytest.approx(25, rel=0.02)
    assert (drive.rested, drive.pacer.level, drive.pacer.why) == (0, 0, "")
    assert drive.pacer.temperature_c == 48.3


def test_without_sensors_nothing_happens(tmp_path: Path) -> None:
    drive = Drive(tmp_path)
    drive.run(60)
    assert (drive.rested, drive.pacer.temperature_c) == (0, None)


def test_heat_halves_the_rate_step_by_step_and_cooling_brings_it_back(
    pi: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="edge.pacing")
    drive = Drive(pi)
    drive.run(30)
    drive.heat(81)
    rates = []
    for level in range(1, LEVELS + 1):
        begun = drive.now
        while drive.pacer.level < level and drive.now < begun + STEP_S + LOOK_S:
            drive.run(0.5)
        rates.append(drive.run(8))
    assert rates == pytest.approx([12.5, 6.25, 3.125], rel=0.1)
    drive.run(120)
    assert drive.pacer.level == LEVELS  # no further
    drive.heat(80 - COOLER_BY)
    drive.run(LEVELS * (STEP_S + 2 * LOOK_S) + STEP_S)
    assert drive.pacer.level == 0
    assert drive.run(30) == pytest.approx(25, rel=0.02)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "slowing down (81 °C): 1/2 of the frame rate",
        "slowing down (81 °C): 1/4 of the frame rate",
        "slowing down (81 °C): 1/8 of the frame rate",
        "speeding up again (75 °C): 1/4 of the frame rate",
        "speeding up again (75 °C): 1/2 of the frame rate",
        "speeding up again (75 °C): full frame rate",
    ]


def test_between_hot_and_cool_the_rate_stays(pi: Path) -> None:
    drive = Drive(pi)
    drive.run(30)
    drive.heat(80)
    drive.run(LOOK_S)
    drive.heat(78)  # below hot, not yet cool: it would swing otherwise
    drive.run(300)
    assert drive.pacer.level == 1


def test_a_moment_of_cool_is_not_enough(pi: Path) -> None:
    drive = Drive(pi)
    drive.run(30)
    drive.heat(82)
    drive.run(60)
    for _ in range(10):
        drive.heat(70)
        drive.run(LOOK_S + 1)
        drive.heat(82)
        drive.run(LOOK_S + 1)
    assert drive.pacer.level == LEVELS


@pytest.mark.parametrize(
    ("bits", "level", "why"),
    [
        ("4", 1, "48 °C, throttled"),
        ("5", 1, "48 °C, under-voltage, throttled"),
        ("8", 0, ""),  # the soft limit of 60 °C costs a seventh of the clock at most
        ("50000", 0, ""),  # of the past
    ],
)
def test_throttling_counts_as_heat(pi: Path, bits: str, level: int, why: str) -> None:
    put(pi, THROTTLED, bits)
    drive = Drive(pi)
    drive.run(LOOK_S + 1)
    assert (drive.pacer.level, drive.pacer.why) == (level, why)


def test_the_threshold_is_the_users(pi: Path) -> None:
    drive = Drive(pi, hot_c=45)
    drive.run(LOOK_S + 1)
    assert drive.pacer.level == 1


def test_a_slow_loop_is_not_slowed_down_beyond_a_frame_a_second(pi: Path) -> None:
    now = [0.0]
    pacer = Pacer(root=pi, clock=lambda: now[0])
    put(pi, THERMAL, "90000")
    longest = 0.0
    for _ in range(200):
        rest = pacer.rest()
        longest = max(longest, rest + 0.4)
        now[0] += rest + 0.4
    assert pacer.level == LEVELS
    assert longest == pytest.approx(1.0)


def test_looking_costs_less_than_a_tenth_of_a_millisecond_per_frame(pi: Path) -> None:
    pacer = Pacer(root=pi)
    begun = time.perf_counter()
    for _ in range(150):  # five seconds of a camera, with
        pacer.rest()
    pacer._look(time.monotonic())  # the one look that falls into them
    assert (time.perf_counter() - begun) / 150 < 1e-4


# ------------------------------------------------------------------------------------------- in the loop


class Always(Pacer):
    """Asks for the same rest every time, so that a test need not last until a board is hot."""

    def __init__(self, rest: float) -> None:
        super().__init__()
        self.asked = 0
        self._seconds = rest

    def rest(self) -> float:
        self.asked += 1
        return self._seconds


def test_a_live_source_is_slowed_down() -> None:
    kept, canvas = Kept(), Canvas()
    source = Clip(1000, live=True, pause=0.005)
    # A rest that is long against the pauses of a busy machine.
    report = Pipeline(source, OneFace(), [kept], canvas=canvas, pacer=Always(0.25), frames=10).run()
    assert report.fps < 5
    assert canvas.fps is not None
    assert canvas.fps < 5  # what is shown counts the rests
    assert report.stages["loop"].percentile(50) < 200  # what is measured does not
    assert max(one.timing_ms["frame_age"] for one in kept.got) < 200  # and frames are fresh all the same


def test_a_file_is_not() -> None:
    pacer = Always(0.5)
    report = Pipeline(Clip(10), OneFace(), pacer=pacer).run()
    assert (report.frames, pacer.asked) == (10, 0)


@pytest.mark.parametrize("how", ["stop", "seconds"])
def test_a_rest_does_not_delay_the_end(how: str) -> None:
    import threading

    pipeline: list[Pipeline] = []
    options: dict[str, float] = {"seconds": 0.2} if how == "seconds" else {}
    pipeline.append(Pipeline(Clip(1000, live=True, pause=0.01), OneFace(), pacer=Always(30), **options))
    end: Callable[[], None] = pipeline[0].stop
    timer = threading.Timer(0.2, end)
    if how == "stop":
        timer.start()
    begun = time.monotonic()
    pipeline[0].run()
    assert time.monotonic() - begun < 3
